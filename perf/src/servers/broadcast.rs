//! The design most servers use: a map of sessions, each with a broadcast channel for what is live and a
//! mutexed queue for what may be replayed, behind axum.
//!
//! ```text
//! server broadcast --listen ADDR --admin ADDR
//! ```

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::arguments::{Arguments, listen};
use crate::{feed, wire};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::ListenerExt;
use dashmap::DashMap;
use futures_util::{StreamExt, stream};
use tokio::sync::broadcast;

/// Events that are kept for replay.
const RETAINED: usize = 256;
/// Events that a slow reader may be behind.
const BEHIND: usize = 16;

struct Session {
    /// The events that may be replayed. Whoever holds it decides what comes next.
    retained: Mutex<VecDeque<(u64, Bytes)>>,
    live: broadcast::Sender<Bytes>,
}

type Sessions = Arc<DashMap<String, Arc<Session>>>;

pub(super) async fn run(arguments: &Arguments) -> io::Result<()> {
    let sessions = Sessions::default();
    let mcp = Router::new().route("/mcp", get(open).post(post)).with_state(sessions.clone());
    let publish = move |target: &str, message: &str| publish(&sessions, target, message);
    tokio::spawn(feed::serve(listen(arguments.admin)?, publish));
    let listener = listen(arguments.listen)?.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, mcp).await
}

async fn post(State(sessions): State<Sessions>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    let Ok(request) = serde_json::from_slice::<serde_json::Value>(&body) else {
        return (StatusCode::BAD_REQUEST, HeaderMap::new(), String::new());
    };
    let mut answer = HeaderMap::new();
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let result = if request["method"] == "initialize" {
        let id = uuid::Uuid::new_v4().to_string();
        let session = Session { retained: Mutex::default(), live: broadcast::Sender::new(BEHIND) };
        answer.insert("mcp-session-id", id.parse().expect("a UUID is visible ASCII"));
        sessions.insert(id, Arc::new(session));
        serde_json::json!({"protocolVersion":"2025-11-25","capabilities":{},
            "serverInfo":{"name":"rival","version":"1"}})
    } else {
        if find(&sessions, &headers).is_none() {
            return (StatusCode::NOT_FOUND, HeaderMap::new(), String::new());
        }
        serde_json::from_str(wire::CALL_RESULT).expect("it is JSON")
    };
    let body = serde_json::json!({"jsonrpc":"2.0","id":request["id"],"result":result});
    (StatusCode::OK, answer, body.to_string())
}

fn find(sessions: &Sessions, headers: &HeaderMap) -> Option<Arc<Session>> {
    let id = headers.get("mcp-session-id")?.to_str().ok()?;
    sessions.get(id).map(|session| session.clone())
}

async fn open(State(sessions): State<Sessions>, headers: HeaderMap) -> Response<Body> {
    let Some(session) = find(&sessions, &headers) else { return StatusCode::NOT_FOUND.into_response() };
    let last = headers.get("last-event-id").and_then(|id| wire::position(id.to_str().ok()?));
    // What was missed and what comes next, without a gap: both under the lock.
    let (missed, live) = {
        let retained = lock(&session.retained);
        let behind = |last| retained.iter().filter(move |(position, _)| *position > last);
        let missed: Vec<_> = last.into_iter().flat_map(behind).map(|(_, event)| Ok(event.clone())).collect();
        (missed, session.live.subscribe())
    };
    let live = stream::unfold(live, |mut live| async move {
        loop {
            // A comment when nothing comes, as every server sends.
            match tokio::time::timeout(Duration::from_secs(15), live.recv()).await {
                Ok(Ok(event)) => return Some((Ok::<_, Infallible>(event), live)),
                Ok(Err(broadcast::error::RecvError::Lagged(_))) => {}
                Ok(Err(broadcast::error::RecvError::Closed)) => return None,
                Err(_) => return Some((Ok(Bytes::from_static(b": keep-alive\n\n")), live)),
            }
        }
    });
    let answer = Response::builder()
        .header(header::CONTENT_TYPE, "text/event-stream")
        .header(header::CACHE_CONTROL, "no-cache");
    answer.body(Body::from_stream(stream::iter(missed).chain(live))).expect("the headers are good")
}

fn publish(sessions: &Sessions, target: &str, message: &str) {
    if target == "all" {
        sessions.iter().for_each(|session| session.publish(message));
    } else if let Some(session) = sessions.get(target) {
        session.publish(message);
    }
}

impl Session {
    fn publish(&self, message: &str) {
        let mut retained = lock(&self.retained);
        let position = retained.back().map_or(0, |(position, _)| *position) + 1;
        let event = Bytes::from(wire::event(position, message));
        if retained.len() == RETAINED {
            retained.pop_front();
        }
        retained.push_back((position, event.clone()));
        let _ = self.live.send(event);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
