//! Why a request is not served, and what its sender is told.

use std::fmt::Write;

use http::HeaderValue;

use super::Resource;
use crate::protocol::Refusal;
use crate::sync::{Arc, AtomicU64, Ordering};

/// Why an authenticator does not let a request through.
///
/// # Examples
///
/// ```
/// use ringmain::identity::{Authenticator, Checked, Denial, Head};
/// use ringmain::session::Principal;
///
/// struct ByHeader;
///
/// impl Authenticator for ByHeader {
///     fn authenticate<'a>(&'a self, head: Head<'a>) -> Checked<'a> {
///         let user = head.headers.get("x-user").and_then(|user| user.to_str().ok());
///         Checked::Now(user.map(|user| Principal::new("the proxy", user)).ok_or(Denial::Missing))
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denial {
    /// There are no credentials, or none of a kind that is asked for. 401.
    Missing,
    /// The credentials are there twice, or are empty. 400.
    Malformed,
    /// The token is not one to be accepted here. 401.
    Invalid(Flaw),
    /// The token was good once. 401.
    Expired,
    /// The token is good, and does not reach far enough. 403.
    InsufficientScope {
        /// All scopes that the request needs, separated by spaces.
        needs: Arc<str>,
    },
    /// It is known who sends the request, and they may not. 403.
    Forbidden,
    /// Nobody can tell at the moment. 503.
    Unavailable,
}

/// Declares [`Flaw`] from rows of `/// doc`, `Variant: label => text;`.
macro_rules! flaws {
    ($($(#[doc = $doc:literal])+ $name:ident: $label:literal => $text:literal;)+) => {
        /// What is wrong with a token.
        ///
        /// # Examples
        ///
        /// ```
        /// use ringmain::identity::{Denial, Flaw};
        ///
        /// // What an authenticator returns for a token that it cannot read.
        /// assert_eq!(Denial::Invalid(Flaw::Form).reason(), "token_form");
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Flaw {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Flaw {
            const ALL: &'static [Self] = &[$(Self::$name),+];

            /// A label for metrics and logs.
            const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }

            /// What the client is told.
            const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

flaws! {
    /// It is not known here.
    Unknown: "unknown_token" => "the access token is not known here";
    /// It cannot be read.
    Form: "token_form" => "the access token cannot be read";
    /// It is signed by an algorithm that is not accepted, or not at all.
    Algorithm: "token_algorithm" => "the access token is not signed by an algorithm that is accepted";
    /// No key of the issuer has the ID that it names.
    Key: "token_key" => "the access token is signed by a key that is not known";
    /// Its signature does not fit.
    Signature: "token_signature" => "the signature of the access token does not fit";
    /// It is of another issuer.
    Issuer: "token_issuer" => "the access token is of another issuer";
    /// It is for another server.
    Audience: "token_audience" => "the access token is for another audience";
    /// It is not valid yet.
    Early: "token_early" => "the access token is not valid yet";
    /// A claim is missing or malformed.
    Claims: "token_claims" => "a claim of the access token is missing or malformed";
}

impl Denial {
    /// Nobody here knows the token.
    pub const UNKNOWN: Self = Self::Invalid(Flaw::Unknown);

    /// Returns a short label for metrics and logs, one per reason, in `snake_case`: that of the flaw, or else the kind
    /// of the refusal.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(flaw) => flaw.label(),
            _ => self.refusal().kind(),
        }
    }

    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#token-handling
    //# Invalid or expired tokens MUST receive a HTTP 401 response.
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#error-handling
    //# Servers MUST return appropriate HTTP status codes for authorization errors
    /// Returns the refusal that the request is answered with.
    #[must_use]
    pub(crate) const fn refusal(&self) -> Refusal {
        match self {
            Self::Missing => Refusal::MissingToken,
            Self::Malformed => Refusal::MalformedCredentials,
            Self::Invalid(_) => Refusal::InvalidToken,
            Self::Expired => Refusal::ExpiredToken,
            Self::InsufficientScope { .. } => Refusal::InsufficientScope,
            Self::Forbidden => Refusal::NotPermitted,
            Self::Unavailable => Refusal::IdentityUnavailable,
        }
    }

    /// Returns the value of `WWW-Authenticate`, where the answer has one: what was wrong, which scopes are needed, and
    /// where to learn who gives out tokens.
    #[must_use]
    pub(crate) fn challenge(&self, resource: Option<&Resource>) -> Option<HeaderValue> {
        let (error, description) = match self {
            //= https://www.rfc-editor.org/rfc/rfc6750#section-3
            //# If the request lacks any authentication information [...] the resource server SHOULD NOT include an
            //# error code or other error information.
            Self::Missing => (None, None),
            Self::Malformed => {
                (Some("invalid_request"), Some("send one Authorization header with one token"))
            }
            Self::Invalid(flaw) => (Some("invalid_token"), Some(flaw.text())),
            Self::Expired => (Some("invalid_token"), Some("the access token expired")),
            Self::InsufficientScope { .. } => (
                Some("insufficient_scope"),
                Some("the access token does not have the scopes that are needed"),
            ),
            Self::Forbidden | Self::Unavailable => return None,
        };
        //= https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#protected-resource-metadata-discovery-requirements
        //# MCP servers SHOULD include a `scope` parameter in the `WWW-Authenticate` header as defined in RFC 6750
        //# Section 3 to indicate the scopes required for accessing the resource.
        let scope = match self {
            Self::InsufficientScope { needs } => Some(&**needs),
            _ => resource.and_then(Resource::scope),
        };
        let metadata = resource.map(Resource::metadata_url);
        let mut value = String::from("Bearer");
        let parameters = [
            ("resource_metadata", metadata),
            ("scope", scope),
            ("error", error),
            ("error_description", description),
        ];
        let mut separator = " ";
        for (name, text) in parameters {
            // None of the texts has a quote or a backslash: those of the resource were checked, the rest is ours. A
            // scope from elsewhere that has one is left out.
            if let Some(text) = text.filter(|text| !text.contains(['"', '\\'])) {
                let _ = write!(value, "{separator}{name}=\"{text}\"");
                separator = ", ";
            }
        }
        HeaderValue::try_from(value).ok()
    }
}

/// Refusals of denials whose reason is not a flaw of the token.
static OTHERS: [Refusal; 6] = [
    Refusal::MissingToken,
    Refusal::MalformedCredentials,
    Refusal::ExpiredToken,
    Refusal::InsufficientScope,
    Refusal::NotPermitted,
    Refusal::IdentityUnavailable,
];

/// Every [`Denial::reason`] there is.
fn reasons() -> impl Iterator<Item = &'static str> {
    OTHERS.iter().map(Refusal::kind).chain(Flaw::ALL.iter().map(|flaw| flaw.label()))
}

/// How often requests were denied, by reason: counters that only go up.
///
/// # Examples
///
/// ```
/// use ringmain::identity::Denials;
///
/// /// The reasons that occurred, of `server.handle().metrics().denials()`.
/// fn seen(denials: &Denials) -> Vec<&'static str> {
///     denials.iter().filter(|(_, count)| *count > 0).map(|(reason, _)| reason).collect()
/// }
/// # assert!(seen(&Denials::default()).is_empty());
/// ```
#[derive(Debug, Default)]
pub struct Denials([AtomicU64; OTHERS.len() + Flaw::ALL.len()]);

impl Denials {
    /// The reasons, as labels, and how often each was given.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        // Relaxed: numbers for whoever looks, which order nothing.
        reasons().zip(&self.0).map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }

    /// How often requests were denied, whatever the reason.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.iter().map(|(_, count)| count).sum()
    }

    /// Counts one.
    pub(crate) fn count(&self, denial: &Denial) {
        if let Some(at) = reasons().position(|reason| reason == denial.reason()) {
            // Relaxed: as in `iter`.
            self.0[at].fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::WWW_AUTHENTICATE;

    use super::*;

    fn scope() -> Denial {
        Denial::InsufficientScope { needs: "files:read files:write".into() }
    }

    fn all() -> Vec<Denial> {
        let flaws = Flaw::ALL.iter().copied().map(Denial::Invalid);
        let others = [
            Denial::Missing,
            Denial::Malformed,
            Denial::Expired,
            scope(),
            Denial::Forbidden,
            Denial::Unavailable,
        ];
        others.into_iter().chain(flaws).collect()
    }

    #[test]
    fn each_reason_is_counted_by_itself() {
        let denials = Denials::default();
        let all = all();
        for denial in &all {
            denials.count(denial);
        }
        assert!(denials.iter().all(|(_, count)| count == 1), "{:?}", denials.iter().collect::<Vec<_>>());
        assert_eq!((denials.iter().count(), denials.total()), (all.len(), all.len() as u64));
    }

    #[test]
    fn a_challenge_comes_with_the_refusals_that_name_one() {
        for denial in all() {
            let is_named = denial.refusal().header_name() == Some(WWW_AUTHENTICATE);
            assert_eq!(denial.challenge(None).is_some(), is_named, "{denial:?}");
        }
    }

    #[test]
    fn the_challenge_says_what_is_wrong_and_where_to_go() {
        let resource = Resource::new("https://mcp.example.com/mcp", ["https://login.example.com"]).unwrap();
        let resource = resource.with_scope("mcp").unwrap();
        let told = |denial: Denial, resource: Option<&Resource>| {
            denial.challenge(resource).map(|value| value.to_str().unwrap().to_owned())
        };
        let whereto =
            r#"resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp""#;
        assert_eq!(told(Denial::Missing, None).as_deref(), Some("Bearer"));
        assert_eq!(told(Denial::Missing, Some(&resource)), Some(format!(r#"Bearer {whereto}, scope="mcp""#)));
        assert_eq!(
            told(Denial::Expired, Some(&resource)),
            Some(format!(
                r#"Bearer {whereto}, scope="mcp", error="invalid_token", error_description="the access token expired""#
            ))
        );
        let needs = told(scope(), Some(&resource)).unwrap();
        assert!(needs.contains(r#"scope="files:read files:write", error="insufficient_scope""#), "{needs}");
        assert_eq!(told(Denial::Forbidden, Some(&resource)), None);
        let sly = Denial::InsufficientScope { needs: "a\", error=\"none".into() };
        assert!(!told(sly, None).unwrap().contains("none"));
    }
}
