//! ringmain with a low-level `Handler`: what the engine costs, without a framework on top.
//!
//! ```text
//! server lowest --listen ADDR --admin ADDR [--stream]
//! ```
//!
//! With `--stream` every call is answered with an event stream.

use std::io;

use crate::arguments::{Arguments, listen};
use crate::{feed, wire};
use ringmain::handler::{Context, Handler, Request, RpcError};
use ringmain::protocol::SessionId;
use ringmain::server::{Answer, Config, Server};
use ringmain::session::Sessions;
use serde::Serialize;
use serde_json::value::RawValue;

/// Answers calls with the same text, always.
struct Fixed {
    result: Box<RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Initialized {
    protocol_version: &'static str,
    capabilities: Capabilities,
    server_info: ServerInfo,
}

#[derive(Serialize)]
struct Capabilities {
    tools: Nothing,
}

#[derive(Serialize)]
struct ServerInfo {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Nothing {}

impl Handler for Fixed {
    async fn request(&self, request: Request, context: Context) {
        let version = context.version();
        match request.method() {
            "tools/call" => context.respond_raw(&self.result),
            "initialize" => context.respond(&Initialized {
                protocol_version: version.as_str(),
                capabilities: Capabilities { tools: Nothing {} },
                server_info: ServerInfo { name: "lowest", version: "1" },
            }),
            "ping" => context.respond(&Nothing {}),
            method => context.fail(&RpcError::method_not_found(method)),
        }
    }
}

pub(super) async fn run(arguments: &Arguments) -> io::Result<()> {
    let mut config = Config::default();
    config.answer = if arguments.has("--stream") { Answer::Stream } else { Answer::Auto };
    // As much as the others retain.
    config.sessions.standalone.capacity = 256;
    // `growth` wants a million, and some.
    config.sessions.max_sessions = 2_000_000;
    let result = RawValue::from_string(wire::CALL_RESULT.to_owned()).map_err(io::Error::other)?;
    let server = Server::bind(arguments.listen, Fixed { result }, config).map_err(io::Error::other)?;
    let sessions = server.handle().sessions();
    let publish = move |target: &str, message: &str| publish(&sessions, target, message);
    tokio::spawn(feed::serve(listen(arguments.admin)?, publish));
    server.run(std::future::pending()).await;
    Ok(())
}

fn publish(sessions: &Sessions, target: &str, message: &str) {
    let write = |out: &mut Vec<u8>| out.extend_from_slice(message.as_bytes());
    if target == "all" {
        let _ = sessions.publish(write);
    } else if let Some(Ok(session)) = SessionId::parse(target).map(|id| sessions.find(id, None)) {
        let _ = session.publish(write);
    }
}
