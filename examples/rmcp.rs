//! The smallest rmcp server on ringmain: the handler is rmcp's, the sessions and streams are ours.
//!
//! ```text
//! cargo run --example rmcp
//! ```

use ringmain::adapter::Rmcp;
use ringmain::server::{Config, Server};
use rmcp::handler::server::{router::tool::ToolRouter, wrapper::Parameters};
use rmcp::model::{ServerCapabilities, ServerConfig};
use rmcp::{ServerHandler, schemars, tool, tool_handler, tool_router};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Sum {
    a: i64,
    b: i64,
}

#[derive(Clone)]
struct Calculator {
    tool_router: ToolRouter<Self>,
}

#[tool_router]
impl Calculator {
    fn new() -> Self {
        Self { tool_router: Self::tool_router() }
    }

    #[tool(description = "Adds two numbers")]
    fn add(&self, Parameters(Sum { a, b }): Parameters<Sum>) -> String {
        (a + b).to_string()
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Calculator {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let handler = Rmcp::new(|| Ok(Calculator::new()));
    let server = Server::bind("127.0.0.1:8080".parse()?, handler, Config::default())?;
    server.run(async { drop(tokio::signal::ctrl_c().await) }).await;
    Ok(())
}
