//! Tools that ask the client: sampling and elicitation.
//!
//! Up to `2025-11-25` a server asks with a request of its own, and waits for the client's answer on the
//! stream of the call. A client that did not declare the capability gets an error result, and so does a
//! client whose answer is an error.

use std::fmt::Display;
use std::future::Future;

use rmcp::model::{
    CallToolResult, ContentBlock, CreateMessageRequestParams, ElicitRequestParams, ElicitResult,
    ElicitationAction, ElicitationSchema, ErrorData, JsonObject, SamplingMessage,
};
use rmcp::object;
use rmcp::service::ServiceError;
use serde_json::Value;

use super::call::Call;

/// The most tokens a sampled answer may have.
const MAX_TOKENS: u32 = 100;

/// Answers `test_sampling`: lets the client's model answer `prompt`.
pub(super) async fn sampling(call: &Call<'_>) -> Result<CallToolResult, ErrorData> {
    let prompt = call.string("prompt")?;
    if call.client().sampling.is_none() {
        return Ok(failure("the client does not support sampling"));
    }
    let params = CreateMessageRequestParams::new(vec![SamplingMessage::user_text(prompt)], MAX_TOKENS);
    let answer = unless_cancelled(call, call.context.peer.create_message(params)).await;
    Ok(match answer {
        Ok(answer) => {
            let blocks = answer.message.content.into_vec();
            let text = blocks.iter().find_map(|block| block.as_text()).map_or("", |block| &block.text);
            success(format!("LLM response: {text}"))
        }
        Err(error) => failure(error),
    })
}

/// Answers `test_elicitation`: asks the user for a name and an address.
pub(super) async fn elicitation(call: &Call<'_>) -> Result<CallToolResult, ErrorData> {
    let message = call.string("message")?;
    elicit(call, message, contact_schema(), "User response").await
}

/// Answers `test_elicitation_sep1034_defaults`: asks with a default for each kind of field.
pub(super) async fn elicitation_defaults(call: &Call<'_>) -> Result<CallToolResult, ErrorData> {
    elicit(call, "Please review the defaults", defaults_schema(), "Elicitation completed").await
}

/// Answers `test_elicitation_sep1330_enums`: asks with each of the five ways to offer a choice.
pub(super) async fn elicitation_enums(call: &Call<'_>) -> Result<CallToolResult, ErrorData> {
    elicit(call, "Please choose", enums_schema(), "Elicitation completed").await
}

/// Asks the user, and tells what came back: `{outcome}: action=…, content=…`.
async fn elicit(
    call: &Call<'_>,
    message: &str,
    schema: JsonObject,
    outcome: &str,
) -> Result<CallToolResult, ErrorData> {
    if call.client().elicitation.is_none() {
        return Ok(failure("the client does not support elicitation"));
    }
    let params = ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: message.to_owned(),
        requested_schema: elicitation_schema(schema)?,
    };
    let answer = unless_cancelled(call, call.context.peer.create_elicitation(params)).await;
    Ok(match answer {
        Ok(answer) => success(format!("{outcome}: {}", described(&answer))),
        Err(error) => failure(error),
    })
}

/// Waits for the client's answer, but no longer than the client waits for ours.
async fn unless_cancelled<T>(
    call: &Call<'_>,
    answer: impl Future<Output = Result<T, ServiceError>>,
) -> Result<T, ServiceError> {
    tokio::select! {
        answer = answer => answer,
        () = call.context.ct.cancelled() => Err(ServiceError::Cancelled { reason: None }),
    }
}

/// Writes an answer as `action=accept, content={…}`.
fn described(answer: &ElicitResult) -> String {
    let action = match answer.action {
        ElicitationAction::Accept => "accept",
        ElicitationAction::Decline => "decline",
        ElicitationAction::Cancel => "cancel",
        _ => "unknown",
    };
    let content = answer.content.as_ref().unwrap_or(&Value::Null);
    format!("action={action}, content={content}")
}

/// Turns one of the schemas below into the type that rmcp sends.
fn elicitation_schema(schema: JsonObject) -> Result<ElicitationSchema, ErrorData> {
    ElicitationSchema::from_json_schema(schema)
        .map_err(|error| ErrorData::internal_error(format!("elicitation schema: {error}"), None))
}

/// A name and an address, both required.
fn contact_schema() -> JsonObject {
    object!({
        "type": "object",
        "properties": {
            "username": { "type": "string", "description": "The user's name" },
            "email": { "type": "string", "description": "The user's email address" },
        },
        "required": ["username", "email"],
    })
}

/// One field of each primitive kind, with a default (SEP-1034).
fn defaults_schema() -> JsonObject {
    object!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "description": "User name", "default": "John Doe" },
            "age": { "type": "integer", "description": "User age", "default": 30 },
            "score": { "type": "number", "description": "User score", "default": 95.5 },
            "status": {
                "type": "string",
                "description": "User status",
                "enum": ["active", "inactive", "pending"],
                "default": "active",
            },
            "verified": { "type": "boolean", "description": "Verification status", "default": true },
        },
        "required": [],
    })
}

/// The five ways to offer a choice (SEP-1330): one or many, with titles or without, and the old `enumNames`.
fn enums_schema() -> JsonObject {
    object!({
        "type": "object",
        "properties": {
            "untitledSingle": { "type": "string", "enum": ["option1", "option2", "option3"] },
            "titledSingle": {
                "type": "string",
                "oneOf": [
                    { "const": "value1", "title": "First Option" },
                    { "const": "value2", "title": "Second Option" },
                    { "const": "value3", "title": "Third Option" },
                ],
            },
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"],
            },
            "untitledMulti": {
                "type": "array",
                "items": { "type": "string", "enum": ["option1", "option2", "option3"] },
            },
            "titledMulti": {
                "type": "array",
                "items": {
                    "anyOf": [
                        { "const": "value1", "title": "First Choice" },
                        { "const": "value2", "title": "Second Choice" },
                        { "const": "value3", "title": "Third Choice" },
                    ],
                },
            },
        },
        "required": [],
    })
}

/// A successful result of one text block.
fn success(text: String) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}

/// An error result that says what went wrong.
fn failure(reason: impl Display) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(reason.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_reach_the_client_unchanged() {
        for schema in [contact_schema(), defaults_schema(), enums_schema()] {
            let sent = serde_json::to_value(elicitation_schema(schema.clone()).unwrap()).unwrap();
            assert_eq!(sent, Value::Object(schema));
        }
    }

    #[test]
    fn answers_are_told_in_one_line() {
        let accepted = ElicitResult::new(ElicitationAction::Accept)
            .with_content(serde_json::json!({ "username": "ada" }));
        assert_eq!(described(&accepted), r#"action=accept, content={"username":"ada"}"#);
        assert_eq!(described(&ElicitResult::new(ElicitationAction::Decline)), "action=decline, content=null");
    }
}
