//! What a tool sees of the call it answers.
//!
//! A tool reads its arguments here, asks what the client can do, and reports on the way. Reports belong to
//! the request stream of the call: a client that made three calls at once must see each on its own stream.

use std::ops::RangeInclusive;

use rmcp::model::{
    ClientCapabilities, ErrorData, JsonObject, LoggingLevel, LoggingMessageNotification,
    LoggingMessageNotificationParam, Notification, ProgressNotification, ProgressNotificationParam,
    ProgressToken, ServerNotification,
};
use rmcp::service::{OriginatingRequestId, RequestContext, RoleServer};
use serde_json::Value;

use super::Everything;

/// One `tools/call`, from its arguments to its answer.
pub(super) struct Call<'a> {
    /// The server of the session.
    pub(super) server: &'a Everything,
    /// What the client sent in `arguments`; empty if it sent none.
    pub(super) arguments: JsonObject,
    /// The request as rmcp sees it.
    pub(super) context: RequestContext<RoleServer>,
}

impl Call<'_> {
    /// Returns the string argument `name`, or an invalid-params error.
    pub(super) fn string(&self, name: &str) -> Result<&str, ErrorData> {
        string(&self.arguments, name)
    }

    /// Returns the integer argument `name`, or `default` if it is absent.
    pub(super) fn integer(
        &self,
        name: &str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64, ErrorData> {
        integer(&self.arguments, name, default, range)
    }

    /// Returns what the client declared it can do; nothing if it declared nothing.
    pub(super) fn client(&self) -> ClientCapabilities {
        self.context.client_capabilities().unwrap_or_default()
    }

    /// Returns the token under which the client wants progress, if it does.
    pub(super) fn progress_token(&self) -> Option<ProgressToken> {
        self.context.meta.get_progress_token()
    }

    /// Sends progress, if the client asked for it.
    pub(super) async fn progress(&self, progress: u64, total: u64, message: Option<String>) {
        let Some(token) = self.progress_token() else { return };
        // Both numbers are small: f64 holds integers up to 2^53 exactly.
        let mut params = ProgressNotificationParam::new(token, progress as f64).with_total(total as f64);
        params.message = message;
        let notification = self.on_request_stream(ProgressNotification::new(params));
        self.send(ServerNotification::ProgressNotification(notification)).await;
    }

    /// Sends a log message, unless the client set a higher level.
    pub(super) async fn log(&self, level: LoggingLevel, text: &str) {
        if self.server.is_logged(level) {
            self.send_log(level, text).await;
        }
    }

    /// Sends a log message, whatever level was set.
    pub(super) async fn send_log(&self, level: LoggingLevel, text: &str) {
        let params = LoggingMessageNotificationParam::new(level, Value::from(text)).with_logger("everything");
        let notification = self.on_request_stream(LoggingMessageNotification::new(params));
        self.send(ServerNotification::LoggingMessageNotification(notification)).await;
    }

    /// Marks a notification as part of this call, so that the transport sends it on the call's own stream.
    ///
    /// rmcp marks the *requests* a handler sends while it answers, but not its notifications. ringmain's
    /// adapter reads this mark on both. rmcp's own transport ignores it: there progress finds its stream by
    /// the token, and log messages go to the standalone stream.
    fn on_request_stream<M, P>(&self, mut notification: Notification<M, P>) -> Notification<M, P> {
        notification.extensions.insert(OriginatingRequestId(self.context.id.clone()));
        notification
    }

    /// Sends a notification. A report that finds no way to the client does not stop the tool.
    async fn send(&self, notification: ServerNotification) {
        let _ = self.context.peer.send_notification(notification).await;
    }
}

/// Returns the string argument `name`, or an invalid-params error.
pub(super) fn string<'a>(arguments: &'a JsonObject, name: &str) -> Result<&'a str, ErrorData> {
    arguments
        .get(name)
        .and_then(Value::as_str)
        .ok_or_else(|| ErrorData::invalid_params(format!("argument `{name}` must be a string"), None))
}

/// Returns the integer argument `name`, `default` if it is absent, or an invalid-params error.
fn integer(
    arguments: &JsonObject,
    name: &str,
    default: u64,
    range: RangeInclusive<u64>,
) -> Result<u64, ErrorData> {
    let Some(value) = arguments.get(name) else { return Ok(default) };
    value.as_u64().filter(|value| range.contains(value)).ok_or_else(|| {
        let (least, most) = (range.start(), range.end());
        let message = format!("argument `{name}` must be an integer from {least} to {most}");
        ErrorData::invalid_params(message, None)
    })
}

#[cfg(test)]
mod tests {
    use rmcp::model::ErrorCode;
    use rmcp::object;

    use super::*;

    #[test]
    fn string_is_required_and_typed() {
        assert_eq!(string(&object!({ "value": "hello" }), "value").unwrap(), "hello");
        for arguments in [object!({}), object!({ "value": 1 }), object!({ "value": null })] {
            let error = string(&arguments, "value").unwrap_err();
            assert_eq!(error.code, ErrorCode::INVALID_PARAMS);
            assert_eq!(error.message, "argument `value` must be a string");
        }
    }

    #[test]
    fn integer_has_a_default_and_bounds() {
        assert_eq!(integer(&object!({}), "count", 20, 1..=100).unwrap(), 20);
        assert_eq!(integer(&object!({ "count": 1 }), "count", 20, 1..=100).unwrap(), 1);
        assert_eq!(integer(&object!({ "count": 100 }), "count", 20, 1..=100).unwrap(), 100);
        for count in [Value::from(0), Value::from(101), Value::from(-1), Value::from(1.5), Value::from("1")] {
            let error = integer(&object!({ "count": count }), "count", 20, 1..=100).unwrap_err();
            assert_eq!(error.code, ErrorCode::INVALID_PARAMS);
            assert_eq!(error.message, "argument `count` must be an integer from 1 to 100");
        }
    }
}
