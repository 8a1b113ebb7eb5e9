//! The smallest server on the low-level `Handler`: one tool that counts, and reports as it goes.
//!
//! ```text
//! cargo run --example lowest
//! ```

use std::time::Duration;

use ringmain::handler::{Context, Handler, Request, RpcError};
use ringmain::server::{Config, Server};
use serde_json::json;

struct Counter;

impl Handler for Counter {
    async fn request(&self, request: Request, context: Context) {
        let version = context.version();
        match request.method() {
            "initialize" => context.respond(&json!({
                "protocolVersion": version.as_str(),
                "capabilities": { "tools": {} },
                "serverInfo": { "name": "counter", "version": "1.0.0" },
            })),
            "ping" => context.respond(&json!({})),
            "tools/list" => context.respond(&json!({
                "tools": [{ "name": "count", "description": "Counts to three", "inputSchema": { "type": "object" } }],
            })),
            "tools/call" => {
                for n in 1..=3 {
                    if context.progress(f64::from(n), Some(3.0), None).is_err() {
                        return; // The client took the request back.
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                context.respond(&json!({ "content": [{ "type": "text", "text": "three" }] }));
            }
            method => context.fail(&RpcError::method_not_found(method)),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::bind("127.0.0.1:8080".parse()?, Counter, Config::default())?;
    server.run(async { drop(tokio::signal::ctrl_c().await) }).await;
    Ok(())
}
