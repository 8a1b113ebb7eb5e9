//! The prompts, and the completion of their arguments.

use rmcp::model::{
    CompleteRequestParams, CompleteResult, CompletionInfo, ContentBlock, ErrorData, GetPromptRequestParams,
    GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage, Reference, Role,
};

use super::call::string;
use super::{content, resources};

/// What completion offers for each argument, as far as it begins with what the user typed.
const SUGGESTIONS: &[&str] = &["paris", "park", "party", "river", "ring"];

/// Lists the prompts.
pub(super) fn all() -> Vec<Prompt> {
    let required = |name: &str, description: &str| {
        PromptArgument::new(name).with_description(description).with_required(true)
    };
    vec![
        Prompt::new("test_simple_prompt", Some("A prompt without arguments"), None),
        Prompt::new(
            "test_prompt_with_arguments",
            Some("A prompt that repeats its two arguments"),
            Some(vec![required("arg1", "First argument"), required("arg2", "Second argument")]),
        ),
        Prompt::new(
            "test_prompt_with_embedded_resource",
            Some("A prompt that embeds a resource"),
            Some(vec![required("resourceUri", "URI of the resource to embed")]),
        ),
        Prompt::new("test_prompt_with_image", Some("A prompt that shows an image"), None),
    ]
}

/// Renders the prompt that `request` names.
pub(super) fn render(request: &GetPromptRequestParams) -> Result<GetPromptResult, ErrorData> {
    let no_arguments = JsonObject::new();
    let arguments = request.arguments.as_ref().unwrap_or(&no_arguments);
    let messages = match request.name.as_str() {
        "test_simple_prompt" => vec![text("This is a simple prompt for testing.")],
        "test_prompt_with_arguments" => {
            let (first, second) = (string(arguments, "arg1")?, string(arguments, "arg2")?);
            vec![text(format!("Prompt with arguments: arg1='{first}', arg2='{second}'"))]
        }
        "test_prompt_with_embedded_resource" => {
            let uri = string(arguments, "resourceUri")?;
            let resource = content::embedded(uri, "text/plain", "Embedded resource content for testing.");
            vec![message(resource), text("Please process the embedded resource above.")]
        }
        "test_prompt_with_image" => vec![message(content::image()), text("Please analyze the image above.")],
        name => return Err(unknown_prompt(name)),
    };
    Ok(GetPromptResult::new(messages))
}

/// Completes one argument of a prompt or of the resource template.
pub(super) fn complete(request: &CompleteRequestParams) -> Result<CompleteResult, ErrorData> {
    match &request.r#ref {
        Reference::Prompt(prompt) if all().iter().all(|known| known.name != prompt.name) => {
            return Err(unknown_prompt(&prompt.name));
        }
        Reference::Resource(template) if template.uri != resources::TEMPLATE => {
            return Err(ErrorData::invalid_params(format!("unknown template `{}`", template.uri), None));
        }
        _ => {}
    }
    let typed = request.argument.value.to_lowercase();
    let values = SUGGESTIONS.iter().filter(|value| value.starts_with(&typed)).map(|&value| value.to_owned());
    let completion = CompletionInfo::with_all_values(values.collect())
        .map_err(|error| ErrorData::internal_error(error, None))?;
    Ok(CompleteResult::new(completion))
}

/// A message from the user.
fn message(content: ContentBlock) -> PromptMessage {
    PromptMessage::new(Role::User, content)
}

/// A message from the user, in words.
fn text(text: impl Into<String>) -> PromptMessage {
    message(ContentBlock::text(text))
}

/// No prompt has this name.
fn unknown_prompt(name: &str) -> ErrorData {
    ErrorData::invalid_params(format!("unknown prompt `{name}`"), None)
}

#[cfg(test)]
mod tests {
    use rmcp::model::{ArgumentInfo, ErrorCode};
    use rmcp::object;

    use super::*;

    fn rendered(name: &str, arguments: JsonObject) -> Result<GetPromptResult, ErrorData> {
        let mut request = GetPromptRequestParams::new(name);
        request.arguments = Some(arguments);
        render(&request)
    }

    #[test]
    fn every_listed_prompt_can_be_rendered() {
        let arguments = object!({ "arg1": "a", "arg2": "b", "resourceUri": "test://example" });
        for prompt in all() {
            assert!(
                !rendered(&prompt.name, arguments.clone()).unwrap().messages.is_empty(),
                "{}",
                prompt.name
            );
        }
    }

    #[test]
    fn arguments_are_substituted_and_required() {
        let result = rendered("test_prompt_with_arguments", object!({ "arg1": "x", "arg2": "y" })).unwrap();
        assert_eq!(result.messages, [text("Prompt with arguments: arg1='x', arg2='y'")]);
        let error = rendered("test_prompt_with_arguments", object!({ "arg1": "x" })).unwrap_err();
        assert_eq!(error.message, "argument `arg2` must be a string");
    }

    #[test]
    fn completion_offers_what_begins_with_the_typed_text() {
        let complete = |reference: Reference, typed: &str| {
            complete(&CompleteRequestParams::new(reference, ArgumentInfo::new("arg1", typed)))
        };
        let prompt = || Reference::for_prompt("test_prompt_with_arguments");
        assert_eq!(complete(prompt(), "par").unwrap().completion.values, ["paris", "park", "party"]);
        assert!(complete(prompt(), "test").unwrap().completion.values.is_empty());
        assert!(complete(Reference::for_resource(resources::TEMPLATE), "").is_ok());
        for unknown in [Reference::for_prompt("nothing"), Reference::for_resource("test://nowhere")] {
            assert_eq!(complete(unknown, "").unwrap_err().code, ErrorCode::INVALID_PARAMS);
        }
    }
}
