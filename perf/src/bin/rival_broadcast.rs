//! The design most servers use: a map of sessions, each with a broadcast channel for what is live and a
//! mutexed queue for what may be replayed, behind axum.
//!
//! ```text
//! rival-broadcast --listen ADDR --admin ADDR
//! ```

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use dashmap::DashMap;
use futures_util::stream;
use ringmain_perf::arguments::Arguments;
use tokio::net::TcpListener;
use tokio::sync::broadcast;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Events that are kept for replay, and that a slow reader may be behind.
const RETAINED: usize = 256;

struct Session {
    next: AtomicU64,
    retained: Mutex<VecDeque<(u64, Bytes)>>,
    live: broadcast::Sender<Bytes>,
}

type Sessions = Arc<DashMap<String, Arc<Session>>>;

#[tokio::main]
async fn main() {
    let arguments = Arguments::read();
    let sessions = Sessions::default();
    let mcp = Router::new().route("/mcp", get(open).post(initialize)).with_state(sessions.clone());
    let admin = Router::new().route("/publish", post(publish)).with_state(sessions);
    let (listen, admin_listen) = (
        TcpListener::bind(arguments.listen).await.unwrap(),
        TcpListener::bind(arguments.admin).await.unwrap(),
    );
    let mcp =
        axum::serve(axum::serve::ListenerExt::tap_io(listen, |stream| drop(stream.set_nodelay(true))), mcp);
    let (mcp, admin) = tokio::join!(mcp, axum::serve(admin_listen, admin));
    mcp.and(admin).unwrap();
}

async fn initialize(State(sessions): State<Sessions>, body: Bytes) -> impl IntoResponse {
    let Ok(request) = serde_json::from_slice::<serde_json::Value>(&body) else {
        return (StatusCode::BAD_REQUEST, HeaderMap::new(), String::new());
    };
    let id = uuid::Uuid::new_v4().to_string();
    let session =
        Session { next: AtomicU64::new(1), retained: Mutex::default(), live: broadcast::channel(16).0 };
    sessions.insert(id.clone(), Arc::new(session));
    let result = serde_json::json!({"jsonrpc":"2.0","id":request["id"],"result":{"protocolVersion":"2025-11-25",
        "capabilities":{},"serverInfo":{"name":"rival","version":"1"}}});
    let mut headers = HeaderMap::new();
    headers.insert("mcp-session-id", id.parse().expect("a UUID is visible ASCII"));
    headers.insert("content-type", "application/json".parse().expect("it is one"));
    (StatusCode::OK, headers, result.to_string())
}

async fn open(State(sessions): State<Sessions>, headers: HeaderMap) -> Response<Body> {
    let session =
        headers.get("mcp-session-id").and_then(|id| sessions.get(id.to_str().ok()?).map(|s| s.clone()));
    let Some(session) = session else { return StatusCode::NOT_FOUND.into_response() };
    let events = stream::unfold(session.live.subscribe(), |mut live| async move {
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
    let answer =
        Response::builder().header("content-type", "text/event-stream").header("cache-control", "no-cache");
    answer.body(Body::from_stream(events)).expect("the headers are good")
}

async fn publish(State(sessions): State<Sessions>, body: String) -> String {
    for session in sessions.iter() {
        let position = session.next.fetch_add(1, Ordering::Relaxed);
        let event = Bytes::from(format!("id: {position}\nevent: message\ndata: {body}\n\n"));
        let mut retained = session.retained.lock().unwrap();
        if retained.len() == RETAINED {
            retained.pop_front();
        }
        retained.push_back((position, event.clone()));
        drop(retained);
        let _ = session.live.send(event);
    }
    String::new()
}
