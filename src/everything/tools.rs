//! The table of tools, and which function answers which name.
//!
//! The table is built once and shared: listing it costs one clone of each entry, and the schemas behind
//! them are counted references. To add a tool, add its row to [`all`] and its line to [`call`]; a test
//! checks that the two agree.

use std::sync::{Arc, LazyLock};

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, JsonObject, Tool,
};
use rmcp::object;
use rmcp::service::{RequestContext, RoleServer};

use super::call::Call;
use super::{Everything, ask, content, steps};

/// The tools, in the order in which clients see them. They fit one page.
pub(super) fn all() -> &'static [Tool] {
    static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| {
        vec![
            plain("test_simple_text", "Returns one text block"),
            plain("test_image_content", "Returns one image of a single pixel"),
            plain("test_audio_content", "Returns one sound without samples"),
            plain("test_embedded_resource", "Returns one embedded resource"),
            plain("test_multiple_content_types", "Returns a text, an image and a resource"),
            plain("test_error_handling", "Returns an error result"),
            plain("test_tool_with_progress", "Reports progress 0, 50 and 100 of 100"),
            tool(
                "test_progress_stream",
                "Reports progress count times, one report per interval",
                progress_schema(),
            ),
            plain("test_tool_with_logging", "Sends three log messages of level info"),
            plain("test_logging_tool", "Sends one log message if the request's _meta names a level"),
            plain(
                "test_reconnection",
                "Closes its own connection, so that the client must resume for the result",
            ),
            plain("test_trigger_tool_change", "Sends notifications/tools/list_changed"),
            plain("test_trigger_prompt_change", "Sends notifications/prompts/list_changed"),
            tool(
                "test_custom_header",
                "Returns its argument, which clients mirror in a header",
                header_schema(),
            ),
            tool(
                "json_schema_2020_12_tool",
                "Shows the keywords of JSON Schema 2020-12",
                json_schema_2020_12(),
            ),
            tool("test_sampling", "Asks the client's model", one_string("prompt", "What to ask the model")),
            tool("test_elicitation", "Asks the user", one_string("message", "What to tell the user")),
            plain(
                "test_elicitation_sep1034_defaults",
                "Asks the user, with a default for each kind of field",
            ),
            plain("test_elicitation_sep1330_enums", "Asks the user, with each way to offer a choice"),
        ]
    });
    &TOOLS
}

/// Answers `tools/call`.
///
/// An unknown name and unusable arguments are errors of the request; what goes wrong later is a result
/// with `isError`, which the client's model can read.
pub(super) async fn call(
    server: &Everything,
    request: CallToolRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let call = Call { server, arguments: request.arguments.unwrap_or_default(), context };
    let result = match request.name.as_ref() {
        "test_simple_text" => success(vec![text("This is a simple text response for testing.")]),
        "test_image_content" => success(vec![content::image()]),
        "test_audio_content" => success(vec![content::audio()]),
        "test_embedded_resource" => success(vec![embedded_resource()]),
        "test_multiple_content_types" => success(multiple_content_types()),
        "test_error_handling" => {
            CallToolResult::error(vec![text("This tool intentionally returns an error")])
        }
        "test_tool_with_progress" => steps::progress(&call).await,
        "test_progress_stream" => steps::progress_stream(&call).await?,
        "test_tool_with_logging" => steps::logging(&call).await,
        "test_logging_tool" => steps::requested_log(&call).await,
        "test_reconnection" => steps::reconnection(&call).await,
        "test_trigger_tool_change" => steps::tool_change(&call).await,
        "test_trigger_prompt_change" => steps::prompt_change(&call).await,
        "test_custom_header" => success(vec![text(call.string("value")?)]),
        "json_schema_2020_12_tool" => success(vec![text("The schema is the answer: see tools/list.")]),
        "test_sampling" => ask::sampling(&call).await?,
        "test_elicitation" => ask::elicitation(&call).await?,
        "test_elicitation_sep1034_defaults" => ask::elicitation_defaults(&call).await?,
        "test_elicitation_sep1330_enums" => ask::elicitation_enums(&call).await?,
        name => return Err(ErrorData::invalid_params(format!("unknown tool `{name}`"), None)),
    };
    Ok(result.into())
}

/// A row for a tool with arguments.
fn tool(name: &'static str, description: &'static str, schema: JsonObject) -> Tool {
    Tool::new(name, description, Arc::new(schema))
}

/// A row for a tool without arguments.
fn plain(name: &'static str, description: &'static str) -> Tool {
    tool(name, description, object!({ "type": "object", "properties": {} }))
}

/// One required string.
fn one_string(name: &str, description: &str) -> JsonObject {
    object!({
        "type": "object",
        "properties": { name: { "type": "string", "description": description } },
        "required": [name],
    })
}

/// How many reports, and how far apart.
fn progress_schema() -> JsonObject {
    object!({
        "type": "object",
        "properties": {
            "count": {
                "type": "integer",
                "description": "How many reports to send",
                "minimum": 1,
                "maximum": 100_000,
                "default": 20,
            },
            "interval_ms": {
                "type": "integer",
                "description": "Milliseconds to wait after each report",
                "minimum": 0,
                "maximum": 60_000,
                "default": 50,
            },
        },
    })
}

/// One required string, which clients also send as the header `Mcp-Param-Value`.
fn header_schema() -> JsonObject {
    object!({
        "type": "object",
        "properties": {
            "value": { "type": "string", "description": "What to return", "x-mcp-header": "Value" },
        },
        "required": ["value"],
    })
}

/// A schema that uses what draft 2020-12 has and older drafts lack. It must reach the client unchanged.
fn json_schema_2020_12() -> JsonObject {
    object!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
            },
        },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": { "type": "string" },
            "email": { "type": "string" },
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": { "properties": { "contactMethod": { "const": "phone" } }, "required": ["contactMethod"] },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false,
    })
}

/// The resource of `test_embedded_resource`.
fn embedded_resource() -> ContentBlock {
    content::embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")
}

/// A text, an image and a resource.
fn multiple_content_types() -> Vec<ContentBlock> {
    let resource = content::embedded(
        "test://mixed-content-resource",
        "application/json",
        r#"{"test":"data","value":123}"#,
    );
    vec![text("Multiple content types test:"), content::image(), resource]
}

/// A text block.
fn text(text: impl Into<String>) -> ContentBlock {
    ContentBlock::text(text)
}

/// A successful result.
fn success(content: Vec<ContentBlock>) -> CallToolResult {
    CallToolResult::success(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_descriptions_are_fit_for_clients() {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte);
        for tool in all() {
            assert!((1..=64).contains(&tool.name.len()) && tool.name.bytes().all(allowed), "{}", tool.name);
            assert!(tool.description.as_ref().is_some_and(|text| !text.is_empty()), "{}", tool.name);
            assert_eq!(tool.input_schema.get("type"), Some(&"object".into()), "{}", tool.name);
        }
    }

    #[test]
    fn exactly_one_tool_is_mirrored_in_a_header() {
        let mirrored: Vec<_> = all()
            .iter()
            .filter(|tool| tool.schema_as_json_value().to_string().contains("x-mcp-header"))
            .collect();
        assert_eq!(mirrored.len(), 1);
        assert_eq!(mirrored[0].input_schema["properties"]["value"]["x-mcp-header"], "Value");
    }

    #[test]
    fn the_2020_12_schema_is_listed_unchanged() {
        let tool = all().iter().find(|tool| tool.name == "json_schema_2020_12_tool").unwrap();
        let listed = serde_json::to_value(tool).unwrap()["inputSchema"].clone();
        assert_eq!(listed, serde_json::Value::Object(json_schema_2020_12()));
        assert_eq!(listed["properties"]["address"]["$ref"], "#/$defs/address");
    }
}
