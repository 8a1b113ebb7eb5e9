//! The demonstration server that conformance suites and interoperability scripts call.
//!
//! [`Everything`] is an rmcp [`ServerHandler`] with one tool, prompt or resource for each thing a client
//! may want to see: every kind of content, progress, log messages, sampling, elicitation, list changes,
//! and a connection closed in the middle of a call. It needs no particular transport: the binary `ringmain`
//! serves it on ringmain, the package `perf` on the transport of rmcp itself, and both answer with the same words.
//!
//! What a fixture answers is part of its contract: test suites look for these names and texts. It speaks
//! the protocol versions that begin with `initialize`, from `2025-03-26` to `2025-11-25`.
//!
//! # Where things are
//!
//! | file | what it holds |
//! |---|---|
//! | `tools.rs` | the table of tools, their schemas, and which function answers which name |
//! | `steps.rs` | tools that report on the way: progress, log messages, list changes, reconnection |
//! | `ask.rs` | tools that ask the client: sampling and elicitation |
//! | `call.rs` | what a tool sees of its call: arguments, capabilities, the request stream |
//! | `content.rs` | the image, the sound and the resources that several fixtures show |
//! | `prompts.rs`, `resources.rs` | what their names say |
//!
//! # Examples
//!
//! A transport calls the factory once for each session:
//!
//! ```
//! use std::io;
//!
//! use ringmain::everything::Everything;
//!
//! let factory = || -> io::Result<Everything> { Ok(Everything::default()) };
//! # factory().unwrap();
//! ```

#![expect(
    deprecated,
    reason = "rmcp marks sampling, logging and subscriptions deprecated; up to 2025-11-25 they are the protocol"
)]

mod ask;
mod call;
mod content;
mod prompts;
mod resources;
mod steps;
mod tools;

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult, ErrorData,
    GetPromptRequestParams, GetPromptResponse, Implementation, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, LoggingLevel, PaginatedRequestParams,
    ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig,
    SetLevelRequestParams, SubscribeRequestParams, Tool, UnsubscribeRequestParams,
};
use rmcp::service::{RequestContext, RoleServer};

/// The protocol versions offered in `initialize`, oldest first.
const PROTOCOL_VERSIONS: &[ProtocolVersion] =
    &[ProtocolVersion::V_2025_03_26, ProtocolVersion::V_2025_06_18, ProtocolVersion::V_2025_11_25];

/// Answers every request a test suite or a curious client may send.
///
/// One value serves one session: it remembers the log level that the session asked for. Clones share that
/// level, so give each session a value of its own with [`Everything::default`].
#[derive(Clone, Debug)]
pub struct Everything {
    /// Log messages below this level are not sent.
    log_level: Arc<Mutex<LoggingLevel>>,
}

impl Default for Everything {
    /// Makes a server that sends every log message, until `logging/setLevel` asks for fewer.
    fn default() -> Self {
        Self { log_level: Arc::new(Mutex::new(LoggingLevel::Debug)) }
    }
}

impl Everything {
    /// Whether a log message of `level` passes the level that the client set.
    fn is_logged(&self, level: LoggingLevel) -> bool {
        let least = *self.log_level.lock().unwrap_or_else(PoisonError::into_inner);
        // rmcp declares the levels in rising severity, but without an order.
        level as u8 >= least as u8
    }
}

impl ServerHandler for Everything {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_logging()
            .enable_completions()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_tools()
            .enable_tool_list_changed()
            .build();
        ServerConfig::new(capabilities)
            .with_protocol_version(ProtocolVersion::V_2025_11_25)
            .with_server_info(Implementation::new("ringmain-everything", env!("CARGO_PKG_VERSION")))
            .with_instructions(
                "Fixtures for test suites: each tool does what its description says, and nothing else.",
            )
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(PROTOCOL_VERSIONS)
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools::all().to_vec()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::all().iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        tools::call(self, request, context).await
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult::with_all_items(prompts::all()))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        prompts::render(&request).map(GetPromptResponse::from)
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        prompts::complete(&request)
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(resources::all()))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(resources::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        resources::read(&request.uri).map(ReadResourceResponse::from)
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        // No fixture ever changes, so there is nothing to remember: a known resource is answer enough.
        resources::read(&request.uri).map(drop)
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        resources::read(&request.uri).map(drop)
    }

    async fn set_level(
        &self,
        request: SetLevelRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        *self.log_level.lock().unwrap_or_else(PoisonError::into_inner) = request.level;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
