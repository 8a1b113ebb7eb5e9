//! The resources: two that never change, one to subscribe to, and a template.

use rmcp::model::{ErrorData, ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::json;

use super::content::PIXEL_PNG;

/// A short text.
const STATIC_TEXT: &str = "test://static-text";

/// An image of one pixel.
const STATIC_BINARY: &str = "test://static-binary";

/// A text that clients may subscribe to.
const WATCHED: &str = "test://watched-resource";

/// Resources made from an id: this, the id, and [`TEMPLATE_SUFFIX`].
const TEMPLATE_PREFIX: &str = "test://template/";

/// What follows the id in the URI of a resource from the template.
const TEMPLATE_SUFFIX: &str = "/data";

/// The template itself, as clients see it.
pub(super) const TEMPLATE: &str = "test://template/{id}/data";

/// Lists the resources with a fixed URI.
pub(super) fn all() -> Vec<Resource> {
    vec![
        Resource::new(STATIC_TEXT, "static-text")
            .with_description("A text that never changes")
            .with_mime_type("text/plain"),
        Resource::new(STATIC_BINARY, "static-binary")
            .with_description("An image of one pixel")
            .with_mime_type("image/png"),
        Resource::new(WATCHED, "watched-resource")
            .with_description("A text that clients may subscribe to")
            .with_mime_type("text/plain"),
    ]
}

/// Lists the template.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new(TEMPLATE, "template-data")
            .with_description("Data for the id in the URI")
            .with_mime_type("application/json"),
    ]
}

/// Reads the resource at `uri`, or says that there is none.
pub(super) fn read(uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let contents = match uri {
        STATIC_TEXT => ResourceContents::text("This is the content of the static text resource.", uri)
            .with_mime_type("text/plain"),
        STATIC_BINARY => ResourceContents::blob(PIXEL_PNG, uri).with_mime_type("image/png"),
        WATCHED => ResourceContents::text("Watched resource content", uri).with_mime_type("text/plain"),
        _ => {
            let Some(id) = template_id(uri) else {
                return Err(ErrorData::resource_not_found("resource not found", Some(json!({ "uri": uri }))));
            };
            let data = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
            ResourceContents::text(data.to_string(), uri).with_mime_type("application/json")
        }
    };
    Ok(ReadResourceResult::new(vec![contents]))
}

/// Returns the id in a URI made from the template: one path segment, not empty.
fn template_id(uri: &str) -> Option<&str> {
    let id = uri.strip_prefix(TEMPLATE_PREFIX)?.strip_suffix(TEMPLATE_SUFFIX)?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

#[cfg(test)]
mod tests {
    use rmcp::model::ErrorCode;

    use super::*;

    #[test]
    fn every_listed_resource_can_be_read() {
        for resource in all() {
            assert_eq!(read(&resource.uri).unwrap().contents.len(), 1, "{}", resource.uri);
        }
    }

    #[test]
    fn the_template_takes_one_segment() {
        assert_eq!(template_id("test://template/123/data"), Some("123"));
        for uri in
            ["test://template//data", "test://template/1/2/data", "test://template/data", "test://static"]
        {
            assert_eq!(template_id(uri), None, "{uri}");
        }
        let ResourceContents::TextResourceContents { text, mime_type, .. } =
            read("test://template/123/data").unwrap().contents.remove(0)
        else {
            panic!("the template answers with text");
        };
        assert_eq!(mime_type.as_deref(), Some("application/json"));
        let data: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(data, json!({ "id": "123", "templateTest": true, "data": "Data for ID: 123" }));
    }

    #[test]
    fn an_unknown_resource_is_named_in_the_error() {
        let error = read("test://nowhere").unwrap_err();
        assert_eq!(error.code, ErrorCode::RESOURCE_NOT_FOUND);
        assert_eq!(error.data, Some(json!({ "uri": "test://nowhere" })));
    }
}
