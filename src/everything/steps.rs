//! Tools that take a while and report on the way.
//!
//! The pauses are part of each fixture: they let a client see that reports arrive one by one, not in a heap
//! with the result.

use std::time::Duration;

use rmcp::model::{CallToolResult, ContentBlock, ErrorData, LoggingLevel};
use tokio::time::sleep;

use super::call::Call;
use crate::handler::Outlet;

/// The pause between two reports, where the arguments do not say otherwise.
const PAUSE: Duration = Duration::from_millis(50);

/// How long `test_reconnection` works after its connection is closed.
const RECONNECTION_WORK: Duration = Duration::from_millis(100);

/// Answers `test_tool_with_progress`: 0, 50 and 100 of 100.
pub(super) async fn progress(call: &Call<'_>) -> CallToolResult {
    for step in [0, 50, 100] {
        call.progress(step, 100, Some(format!("Completed step {step} of 100"))).await;
        sleep(PAUSE).await;
    }
    text("Tool with progress completed")
}

/// Answers `test_progress_stream`: as many reports as asked for, at the interval asked for.
///
/// A client that goes away does not stop it: a dropped connection is no cancel, and the client may resume
/// the stream. Only `notifications/cancelled` and the end of the session do.
pub(super) async fn progress_stream(call: &Call<'_>) -> Result<CallToolResult, ErrorData> {
    let count = call.integer("count", 20, 1..=100_000)?;
    let interval = Duration::from_millis(call.integer("interval_ms", 50, 0..=60_000)?);
    for step in 1..=count {
        call.progress(step, count, Some(format!("step {step}"))).await;
        tokio::select! {
            () = sleep(interval) => {}
            () = call.context.ct.cancelled() => {
                return Ok(CallToolResult::error(vec![ContentBlock::text(format!("cancelled at step {step}"))]));
            }
        }
    }
    Ok(text(format!("done {count}")))
}

/// Answers `test_tool_with_logging`: three log messages.
pub(super) async fn logging(call: &Call<'_>) -> CallToolResult {
    call.log(LoggingLevel::Info, "Tool execution started").await;
    sleep(PAUSE).await;
    call.log(LoggingLevel::Info, "Tool processing data").await;
    sleep(PAUSE).await;
    call.log(LoggingLevel::Info, "Tool execution completed").await;
    text("Tool with logging completed")
}

/// Answers `test_logging_tool`: one log message, if this request names a level in its `_meta`.
pub(super) async fn requested_log(call: &Call<'_>) -> CallToolResult {
    match call.context.meta.log_level() {
        Some(level) => {
            call.send_log(level, "Log message at the requested level").await;
            text("One log message was sent")
        }
        None => text("No log level was requested"),
    }
}

/// Answers `test_reconnection`: closes its own connection first, where ringmain carries it; the client fetches
/// the result by resuming the stream. Elsewhere the result comes on the same connection.
pub(super) async fn reconnection(call: &Call<'_>) -> CallToolResult {
    if let Some(outlet) = call.context.extensions.get::<Outlet>() {
        outlet.close_connection();
    }
    sleep(RECONNECTION_WORK).await;
    text("Reconnection test completed")
}

/// Answers `test_trigger_tool_change`: tells the calling session that its tools changed.
pub(super) async fn tool_change(call: &Call<'_>) -> CallToolResult {
    // The session has ended if this fails, and then nobody waits for the answer either.
    let _ = call.context.peer.notify_tool_list_changed().await;
    text("Sent notifications/tools/list_changed")
}

/// Answers `test_trigger_prompt_change`: tells the calling session that its prompts changed.
pub(super) async fn prompt_change(call: &Call<'_>) -> CallToolResult {
    let _ = call.context.peer.notify_prompt_list_changed().await;
    text("Sent notifications/prompts/list_changed")
}

/// A successful result of one text block.
fn text(text: impl Into<String>) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}
