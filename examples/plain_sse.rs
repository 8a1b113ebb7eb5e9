//! Plain server-sent events that a client can resume, from a topic, without MCP.
//!
//! `cargo run --example plain_sse`, then `curl -N http://127.0.0.1:8080/`; go on behind an event with
//! `curl -N -H 'Last-Event-ID: 0000000000000003' http://127.0.0.1:8080/`.

use std::convert::Infallible;
use std::error::Error;
use std::io::Write;
use std::time::Duration;

use futures_util::StreamExt;
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use ringmain::topic::{Clock, Event, Limits, Received, Topic};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let topic = Topic::new(Limits::default(), Clock::default());
    let ticker = topic.clone();
    tokio::spawn(async move {
        for tick in 1.. {
            let published =
                ticker.publish(|out| write!(out, r#"{{"tick":{tick}}}"#).expect("a vector takes it"));
            published.expect("the topic is open");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    loop {
        let (socket, _) = listener.accept().await?;
        let topic = topic.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let last = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
            let subscription = match last.and_then(Event::position_of) {
                Some(position) => topic.subscribe_after(position),
                None => topic.subscribe(),
            };
            let events = subscription.map(|received| {
                Ok::<_, Infallible>(Frame::data(match received {
                    Received::Event(event) => event.to_sse(),
                    Received::Lagged { missed } => format!(": {missed} events were missed\n\n").into(),
                }))
            });
            let answer = Response::builder().header("content-type", "text/event-stream");
            async move { answer.body(StreamBody::new(events)) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
    }
}
