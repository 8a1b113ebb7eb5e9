//! Where a client learns who gives out tokens for this server: the metadata of a protected resource.

use core::fmt;
use std::error::Error;

use bytes::Bytes;
use http::Uri;
use serde::Serialize;

use crate::protocol::AllowList;

/// What stands between the host and the path of a resource in the URL of its metadata.
pub(crate) const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#authorization-server-location
//# MCP servers MUST implement the OAuth 2.0 Protected Resource Metadata (RFC9728) specification to indicate the locations
//# of authorization servers. The Protected Resource Metadata document returned by the MCP server MUST include the
//# `authorization_servers` field containing at least one authorization server.
/// This server as a protected resource: its canonical URI, and who gives out tokens for it.
///
/// With it the server answers `GET /.well-known/oauth-protected-resource`, and the same with the path of the endpoint
/// behind it, and names that URL wherever a token is missing or not accepted.
///
/// # Examples
///
/// ```
/// use ringmain::identity::Resource;
///
/// let resource = Resource::new("https://mcp.example.com/mcp", ["https://login.example.com"])?.with_scope("mcp")?;
/// assert_eq!(
///     resource.metadata_url(),
///     "https://mcp.example.com/.well-known/oauth-protected-resource/mcp",
/// );
/// # Ok::<(), ringmain::identity::ResourceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Resource {
    uri: String,
    /// Of the URI; empty at the root.
    path: String,
    metadata_url: String,
    authorization_servers: Vec<String>,
    scopes: Vec<String>,
    scope: String,
    /// What the metadata names, if it is something else than `scopes`.
    supported: Vec<String>,
    document: Bytes,
}

/// The document that clients are given.
#[derive(Serialize)]
struct Document<'a> {
    resource: &'a str,
    authorization_servers: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    scopes_supported: &'a [String],
    bearer_methods_supported: [&'a str; 1],
}

impl Resource {
    /// Describes the resource `uri`: scheme, host and path as clients see them, without a query or a fragment. Tokens
    /// come from one of `authorization_servers`, given by their issuer URLs.
    ///
    /// # Errors
    ///
    /// A URL is malformed, or is not `https` and not on loopback; there is no authorization server.
    pub fn new(
        uri: impl Into<String>,
        authorization_servers: impl IntoIterator<Item: Into<String>>,
    ) -> Result<Self, ResourceError> {
        let mut uri: String = uri.into();
        let parsed = check_url("resource", &uri)?;
        let authorization_servers: Vec<String> = authorization_servers.into_iter().map(Into::into).collect();
        for server in &authorization_servers {
            check_url("authorization server", server)?;
        }
        if authorization_servers.is_empty() {
            return Err(ResourceError {
                what: "resource",
                text: uri,
                reason: "it names no authorization server",
            });
        }
        // A slash behind the host alone means nothing, and is left out.
        let path = if parsed.path() == "/" { "" } else { parsed.path() }.to_owned();
        if path.is_empty() {
            uri.truncate(uri.trim_end_matches('/').len());
        }
        //= https://www.rfc-editor.org/rfc/rfc9728#section-3.1
        //# If the resource identifier value contains a path or query component, any terminating slash (/) following
        //# the host component MUST be removed before inserting /.well-known/ and the well-known URI path suffix
        //# between the host component and the path and/or query components.
        let root = &uri[..uri.len() - path.len()];
        let metadata_url = format!("{root}{WELL_KNOWN}{path}");
        let mut resource = Self {
            uri,
            path,
            metadata_url,
            authorization_servers,
            scopes: Vec::new(),
            scope: String::new(),
            supported: Vec::new(),
            document: Bytes::new(),
        };
        resource.write();
        Ok(resource)
    }

    /// Names one more scope that clients should ask for.
    ///
    /// # Errors
    ///
    /// It is empty, or has a character that no scope has: white space, a quote, a backslash, or one outside ASCII.
    //= https://modelcontextprotocol.io/specification/2026-07-28/basic/authorization#refresh-tokens
    //# MCP Servers (Protected Resources) SHOULD NOT include `offline_access` in `WWW-Authenticate` scope or Protected
    //# Resource Metadata `scopes_supported`, as refresh tokens are not a resource requirement.
    pub fn with_scope(mut self, scope: impl Into<String>) -> Result<Self, ResourceError> {
        self.scopes.push(check_scope(scope.into())?);
        self.scope = self.scopes.join(" ");
        self.write();
        Ok(self)
    }

    /// Names one more scope in the metadata (`scopes_supported`). With the first of them, the metadata names no others:
    /// neither need every token have what a client may ask for, nor need clients ask for all that is checked. Without
    /// any it names those of [`with_scope`](Self::with_scope).
    ///
    /// # Errors
    ///
    /// As those of [`with_scope`](Self::with_scope).
    //= https://www.rfc-editor.org/rfc/rfc9728#section-2
    //# scopes_supported: RECOMMENDED. JSON array containing a list of scope values, as defined in OAuth 2.0 [RFC6749],
    //# that are used in authorization requests to request access to this protected resource. Protected resources MAY
    //# choose not to advertise some scope values supported even when this parameter is used.
    pub fn with_supported_scope(mut self, scope: impl Into<String>) -> Result<Self, ResourceError> {
        self.supported.push(check_scope(scope.into())?);
        self.write();
        Ok(self)
    }

    /// The canonical URI, which tokens must be for.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The URL of the metadata.
    #[must_use]
    pub fn metadata_url(&self) -> &str {
        &self.metadata_url
    }

    /// The scopes that clients should ask for, if any are named.
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        (!self.scope.is_empty()).then_some(self.scope.as_str())
    }

    /// The metadata, as JSON.
    #[must_use]
    pub(crate) fn document(&self) -> &Bytes {
        &self.document
    }

    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#protected-resource-metadata-discovery-requirements
    //# Well-Known URI: Serve metadata at a well-known URI as specified in RFC9728. This can be either:
    //# - At the path of the server's MCP endpoint [...]
    //# - At the root
    /// Whether the metadata is served at `path`, where the endpoint is at `endpoint`: at the root, at the path of the
    /// endpoint, and at that of the URI, which differs where a proxy rewrites paths.
    #[must_use]
    pub(crate) fn is_metadata(&self, path: &str, endpoint: &str) -> bool {
        path.strip_prefix(WELL_KNOWN).is_some_and(|rest| {
            matches!(rest, "" | "/") || is_same_path(rest, endpoint) || is_same_path(rest, &self.path)
        })
    }

    fn write(&mut self) {
        let document = Document {
            resource: &self.uri,
            authorization_servers: &self.authorization_servers,
            scopes_supported: if self.supported.is_empty() { &self.scopes } else { &self.supported },
            bearer_methods_supported: ["header"],
        };
        self.document = serde_json::to_vec(&document).unwrap_or_default().into();
    }
}

/// Whether two paths differ in no more than a slash at the end: people copy URLs with one and without.
pub(crate) fn is_same_path(one: &str, other: &str) -> bool {
    let bare = |path: &str| path.strip_suffix('/').unwrap_or(path).len();
    one[..bare(one)] == other[..bare(other)]
}

fn check_scope(scope: String) -> Result<String, ResourceError> {
    if is_scope(&scope) {
        return Ok(scope);
    }
    Err(ResourceError { what: "scope", text: scope, reason: "it has characters that no scope has" })
}

/// Whether the text is one scope.
pub(super) fn is_scope(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#communication-security
//# All authorization server endpoints MUST be served over HTTPS.
/// Reads an absolute URL: `https`, or `http` on loopback, where nobody listens in; a host; no query, fragment or user.
pub(super) fn check_url(what: &'static str, text: &str) -> Result<Uri, ResourceError> {
    let error = |reason| ResourceError { what, text: text.to_owned(), reason };
    if text.bytes().any(|byte| !byte.is_ascii_graphic() || b"\"\\<>^`{|}#@".contains(&byte)) {
        return Err(error("it has characters that do not belong there"));
    }
    let uri: Uri = text.parse().map_err(|_| error("it is not a URL"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(error("it is not an absolute URL"));
    };
    if uri.query().is_some() {
        return Err(error("it has a query"));
    }
    match scheme {
        "https" => Ok(uri),
        "http" if AllowList::loopback().allows_host(authority.as_str()) => Ok(uri),
        _ => Err(error("it is neither https nor on this machine")),
    }
}

/// What is wrong with the description of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceError {
    what: &'static str,
    text: String,
    reason: &'static str,
}

impl fmt::Display for ResourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}: {}", self.what, self.text, self.reason)
    }
}

impl Error for ResourceError {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LOGIN: [&str; 1] = ["https://login.example.com"];

    #[test]
    fn the_metadata_is_where_clients_look_for_it() {
        for (uri, canonical, url) in [
            (
                "https://a.example",
                "https://a.example",
                "https://a.example/.well-known/oauth-protected-resource",
            ),
            (
                "https://a.example/",
                "https://a.example",
                "https://a.example/.well-known/oauth-protected-resource",
            ),
            (
                "https://a.example:8443/x/mcp",
                "https://a.example:8443/x/mcp",
                "https://a.example:8443/.well-known/oauth-protected-resource/x/mcp",
            ),
            (
                "http://127.0.0.1:8080/mcp",
                "http://127.0.0.1:8080/mcp",
                "http://127.0.0.1:8080/.well-known/oauth-protected-resource/mcp",
            ),
        ] {
            let resource = Resource::new(uri, LOGIN).unwrap();
            assert_eq!((resource.uri(), resource.metadata_url()), (canonical, url));
        }
        let resource = Resource::new("https://a.example/public/mcp", LOGIN).unwrap();
        for (path, served) in [
            ("/.well-known/oauth-protected-resource", true),
            ("/.well-known/oauth-protected-resource/", true),
            ("/.well-known/oauth-protected-resource/mcp/", true),
            ("/.well-known/oauth-protected-resource/mcp//", false),
            ("/.well-known/oauth-protected-resource/mcp", true),
            ("/.well-known/oauth-protected-resource/public/mcp", true),
            ("/.well-known/oauth-protected-resource/other", false),
            ("/.well-known/oauth-protected-resources", false),
            ("/.well-known/oauth-authorization-server", false),
            ("/mcp", false),
        ] {
            assert_eq!(resource.is_metadata(path, "/mcp"), served, "{path}");
        }
    }

    #[test]
    fn the_document_names_the_resource_and_its_servers() {
        let resource = Resource::new("https://a.example/mcp", LOGIN).unwrap();
        let read =
            |resource: &Resource| serde_json::from_slice::<serde_json::Value>(resource.document()).unwrap();
        let expected = json!({
            "resource": "https://a.example/mcp",
            "authorization_servers": ["https://login.example.com"],
            "bearer_methods_supported": ["header"],
        });
        assert_eq!(read(&resource), expected);
        let resource = resource.with_scope("files:read").unwrap().with_scope("files:write").unwrap();
        assert_eq!(read(&resource)["scopes_supported"], json!(["files:read", "files:write"]));
        assert_eq!(resource.scope(), Some("files:read files:write"));
    }

    #[test]
    fn what_cannot_be_a_resource_is_an_error() {
        for uri in [
            "",
            "mcp.example.com",
            "/mcp",
            "http://mcp.example.com/mcp",
            "ftp://mcp.example.com",
            "https://mcp.example.com#fragment",
            "https://mcp.example.com/?a=b",
            "https://user@mcp.example.com",
            "https://mcp.example.com/\"",
            "https://",
            "https://mcp.example.com/ ",
        ] {
            assert!(Resource::new(uri, LOGIN).is_err(), "{uri:?}");
            assert!(Resource::new("https://a.example", [uri]).is_err(), "{uri:?}");
        }
        assert!(Resource::new("https://a.example", [""; 0]).is_err());
        for scope in ["", "a b", "a\"", "a\\", "ä", "a\n"] {
            let resource = Resource::new("https://a.example", LOGIN).unwrap();
            assert!(resource.clone().with_scope(scope).is_err(), "{scope:?}");
            assert!(resource.with_supported_scope(scope).is_err(), "{scope:?}");
        }
    }

    #[test]
    fn scopes_that_are_named_are_apart_from_those_that_are_needed() {
        let named = |resource: &Resource| {
            let document: serde_json::Value = serde_json::from_slice(resource.document()).unwrap();
            document["scopes_supported"].clone()
        };
        let resource = Resource::new("https://a.example", LOGIN).unwrap();
        assert_eq!(named(&resource), json!(null));
        let resource = resource.with_scope("mcp").unwrap();
        assert_eq!(named(&resource), json!(["mcp"]));
        let resource = ["mcp", "files:read"]
            .into_iter()
            .fold(resource, |resource, scope| resource.with_supported_scope(scope).unwrap());
        assert_eq!((named(&resource), resource.scope()), (json!(["mcp", "files:read"]), Some("mcp")));
    }
}
