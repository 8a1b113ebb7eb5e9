//! Which hosts and origins may talk to this server: the defence against DNS rebinding.
//!
//! A web page can make a browser resolve a name of its own to this machine and then call a local server as if
//! it were its own site. The browser tells the truth in two headers: `Host` still holds the page's name, and
//! `Origin` names the page. Both are checked against an [`AllowList`]; the default lets only this machine in.
//!
//! # Patterns
//!
//! | pattern | allows |
//! |---|---|
//! | `example.com` | that host at any port; as an origin, with `http` or `https` |
//! | `example.com:8080` | that host at that port |
//! | `*.example.com` | every host below it, at any depth, but not `example.com` itself |
//! | `[::1]:8080`, `192.0.2.1` | an address |
//! | `https://app.example.com` | that origin at the scheme's own port; as a host, the same without the scheme |
//! | `http://localhost:*` | that origin at any port |
//! | `*` | every host and every origin, `null` too |
//! | `null` | the origin `null`, which a sandboxed page or a local file has |
//!
//! A host header without a port matches a pattern with the port 80 or 443: the port was left out as the
//! scheme's own.

use std::error::Error;
use std::fmt;

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

use super::authority::{Authority, Host, Origin, default_port, is_scheme, parse_port, split_port};
use super::headers::single;
use super::refusal::Refusal;

/// The hosts and origins that are allowed. Costs one comparison per pattern and header, no allocation.
///
/// The default is [`loopback`](Self::loopback).
///
/// # Examples
///
/// ```
/// use ringmain::protocol::AllowList;
///
/// let list = AllowList::loopback().with("https://app.example.com")?;
/// assert!(list.allows_origin("http://localhost:5173"));
/// assert!(list.allows_origin("https://app.example.com"));
/// assert!(!list.allows_origin("https://example.com"));
/// # Ok::<(), ringmain::protocol::PatternError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowList {
    patterns: Vec<Pattern>,
}

impl AllowList {
    /// Allows nothing yet.
    pub const fn nothing() -> Self {
        Self { patterns: Vec::new() }
    }

    /// Allows this machine at any port: `localhost`, 127.0.0.0/8 and `[::1]`, as origins with `http` or
    /// `https`.
    pub fn loopback() -> Self {
        Self { patterns: vec![Pattern::Loopback] }
    }

    /// Allows everything well-formed: no defence against DNS rebinding, for servers whose clients
    /// authenticate.
    pub fn any() -> Self {
        Self { patterns: vec![Pattern::Any] }
    }

    /// Makes a list of patterns alone.
    ///
    /// # Errors
    ///
    /// If one of them is malformed; the error names the first such.
    pub fn parse<I>(patterns: I) -> Result<Self, PatternError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        patterns.into_iter().try_fold(Self::nothing(), |list, pattern| list.with(pattern.as_ref()))
    }

    /// Allows one more pattern.
    ///
    /// # Errors
    ///
    /// If the pattern is malformed; the error names it.
    pub fn with(mut self, pattern: &str) -> Result<Self, PatternError> {
        let parsed = Pattern::parse(pattern);
        let parsed = parsed.map_err(|reason| PatternError { pattern: pattern.to_owned(), reason })?;
        self.patterns.push(parsed);
        Ok(self)
    }

    /// Whether the text is a `Host` header's value, well-formed and allowed.
    #[doc(hidden)]
    pub fn allows_host(&self, host: &str) -> bool {
        Authority::parse(host).is_some_and(|authority| self.allows_authority(&authority))
    }

    /// Whether the text is an `Origin` header's value, well-formed and allowed.
    #[doc(hidden)]
    pub fn allows_origin(&self, origin: &str) -> bool {
        if origin == "null" {
            return self.patterns.iter().any(|pattern| matches!(pattern, Pattern::Null | Pattern::Any));
        }
        let Some(origin) = Origin::parse(origin) else { return false };
        self.patterns.iter().any(|pattern| pattern.allows_origin(&origin))
    }

    fn allows_authority(&self, authority: &Authority<'_>) -> bool {
        self.patterns.iter().any(|pattern| pattern.allows_authority(authority))
    }
}

impl Default for AllowList {
    fn default() -> Self {
        Self::loopback()
    }
}

/// Checks that the request was meant for this server.
///
/// `uri_authority` is the authority of the request's URI: HTTP/2 has it in place of `Host`, HTTP/1.1 only in
/// the form that proxies get. If both are there, they must agree.
///
/// # Errors
///
/// [`Refusal::MissingHost`] if there is no host, [`Refusal::BadHost`] if it is malformed or not allowed, and
/// [`Refusal::ConflictingHeaders`] if it is there more than once or differs from the authority.
pub fn check_host(
    headers: &HeaderMap,
    uri_authority: Option<&str>,
    allowed: &AllowList,
) -> Result<(), Refusal> {
    let conflict = Refusal::ConflictingHeaders { name: HOST };
    let mut hosts = headers.get_all(HOST).iter();
    let host = match hosts.next() {
        Some(value) => Some(parse_host(value.to_str().map_err(|_| Refusal::BadHost)?)?),
        None => None,
    };
    if hosts.next().is_some() {
        return Err(conflict);
    }
    let uri_host = uri_authority.map(parse_host).transpose()?;
    if let (Some(host), Some(uri_host)) = (&host, &uri_host)
        && host != uri_host
    {
        return Err(conflict);
    }
    let host = uri_host.or(host).ok_or(Refusal::MissingHost)?;
    if allowed.allows_authority(&host) { Ok(()) } else { Err(Refusal::BadHost) }
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#security-warning
//# Servers MUST validate the Origin header on all incoming connections to prevent DNS rebinding attacks
/// Checks that the web page behind the request, if there is one, may call this server.
///
/// # Errors
///
/// [`Refusal::BadOrigin`] if there is an `Origin` that is malformed, ambiguous or not allowed.
pub fn check_origin(headers: &HeaderMap, allowed: &AllowList) -> Result<(), Refusal> {
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#security-warning
    //# If the Origin header is present and invalid, servers MUST respond with HTTP 403 Forbidden.
    match single(headers, &ORIGIN).map_err(|_| Refusal::BadOrigin)? {
        None => Ok(()),
        Some(origin) if allowed.allows_origin(origin) => Ok(()),
        Some(_) => Err(Refusal::BadOrigin),
    }
}

fn parse_host(text: &str) -> Result<Authority<'_>, Refusal> {
    Authority::parse(text).ok_or(Refusal::BadHost)
}

/// An allow-list pattern that cannot be read.
///
/// # Examples
///
/// ```
/// use ringmain::protocol::AllowList;
///
/// let error = AllowList::parse(["example.com", "http://exa mple.com"]).unwrap_err();
/// assert_eq!(error.pattern(), "http://exa mple.com");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    pattern: String,
    reason: &'static str,
}

impl PatternError {
    /// Returns the pattern as it was given.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pattern {:?} is malformed: {}", self.pattern, self.reason)
    }
}

impl Error for PatternError {}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Any,
    Null,
    Loopback,
    Site { scheme: Option<Box<str>>, host: HostPattern, port: PortPattern },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    Any,
    /// The host as text; parsed when compared, which is as cheap as comparing text.
    Exact(Box<str>),
    /// `.example.com`, with its dot.
    Below(Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortPattern {
    Any,
    /// None is written, and the scheme has none of its own.
    Absent,
    Exact(u16),
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::Null),
            _ => {}
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
            Some(_) => return Err("the scheme is not one"),
            None => (None, text),
        };
        let (host, port) = split_port(rest);
        let port = match (port, scheme) {
            (Some("*"), _) | (None, None) => PortPattern::Any,
            (Some(port), _) => PortPattern::Exact(parse_port(port).ok_or("the port is not 1 to 65535 or *")?),
            (None, Some(scheme)) => default_port(scheme).map_or(PortPattern::Absent, PortPattern::Exact),
        };
        let host = match (host, host.strip_prefix('*')) {
            ("*", _) => HostPattern::Any,
            (_, Some(below)) => match below.strip_prefix('.').and_then(Host::parse) {
                Some(Host::Name(_)) => HostPattern::Below(below.into()),
                _ => return Err("* stands for whole labels in front of a name, as in *.example.com"),
            },
            (_, None) => {
                Host::parse(host)
                    .ok_or("the host is not a name, an IPv4 address or a [bracketed] IPv6 address")?;
                HostPattern::Exact(host.into())
            }
        };
        Ok(Self::Site { scheme: scheme.map(Into::into), host, port })
    }

    fn allows_authority(&self, authority: &Authority<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Null => false,
            Self::Loopback => authority.host.is_loopback(),
            Self::Site { host, port, .. } => {
                let is_port_allowed = match (port, authority.port) {
                    (PortPattern::Any | PortPattern::Absent, _) => true,
                    (PortPattern::Exact(wanted), Some(port)) => *wanted == port,
                    (PortPattern::Exact(wanted), None) => matches!(wanted, 80 | 443),
                };
                is_port_allowed && host.matches(authority.host)
            }
        }
    }

    fn allows_origin(&self, origin: &Origin<'_>) -> bool {
        let is_web = default_port(origin.scheme).is_some();
        match self {
            Self::Any => true,
            Self::Null => false,
            Self::Loopback => is_web && origin.authority.host.is_loopback(),
            Self::Site { scheme, host, port } => {
                let is_scheme_allowed =
                    scheme.as_ref().map_or(is_web, |scheme| scheme.eq_ignore_ascii_case(origin.scheme));
                let is_port_allowed = match port {
                    PortPattern::Any => true,
                    PortPattern::Absent => origin.authority.port.is_none(),
                    PortPattern::Exact(wanted) => origin.effective_port() == Some(*wanted),
                };
                is_scheme_allowed && is_port_allowed && host.matches(origin.authority.host)
            }
        }
    }
}

impl HostPattern {
    fn matches(&self, host: Host<'_>) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Exact(wanted), host) => Host::parse(wanted) == Some(host),
            (Self::Below(suffix), Host::Name(name)) => {
                let start = name.len().checked_sub(suffix.len()).filter(|start| *start > 0);
                start.is_some_and(|start| name[start..].eq_ignore_ascii_case(suffix))
            }
            (Self::Below(_), _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn list(patterns: &[&str]) -> AllowList {
        AllowList::parse(patterns).unwrap()
    }

    fn with(name: http::HeaderName, values: &[&str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
            .collect()
    }

    #[test]
    fn loopback_is_the_default_and_lets_only_this_machine_in() {
        let list = AllowList::default();
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:3000", "127.8.8.8", "[::1]:9"] {
            assert!(list.allows_host(host), "{host}");
            assert!(list.allows_origin(&format!("http://{host}")), "{host}");
            assert!(list.allows_origin(&format!("https://{host}")), "{host}");
            assert!(!list.allows_origin(&format!("chrome-extension://{host}")), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
        ] {
            assert!(!list.allows_host(host), "{host}");
            assert!(!list.allows_origin(&format!("http://{host}")), "{host}");
        }
        assert!(!list.allows_origin("null"));
    }

    #[test]
    fn patterns_mean_what_the_table_says() {
        let hosts = |pattern: &str, host: &str| list(&[pattern]).allows_host(host);
        assert!(hosts("example.com", "Example.COM:99"));
        assert!(!hosts("example.com", "a.example.com"));
        assert!(hosts("example.com:8080", "example.com:8080"));
        assert!(!hosts("example.com:8080", "example.com"));
        assert!(hosts("example.com:443", "example.com"));
        assert!(hosts("*.example.com", "a.b.EXAMPLE.com:1"));
        assert!(!hosts("*.example.com", "example.com"));
        assert!(!hosts("*.example.com", "evilexample.com"));
        assert!(hosts("https://app.example.com", "app.example.com"));
        assert!(!hosts("https://app.example.com", "app.example.com:8443"));
        assert!(hosts("[0::1]:8080", "[::1]:8080"));
        assert!(hosts("*:8080", "anything:8080") && !hosts("*:8080", "anything:8081"));

        let origins = |pattern: &str, origin: &str| list(&[pattern]).allows_origin(origin);
        assert!(origins("example.com", "https://example.com:99"));
        assert!(!origins("example.com", "ftp://example.com"));
        assert!(origins("https://app.example.com", "https://app.example.com"));
        assert!(origins("https://app.example.com", "HTTPS://app.example.com:443"));
        assert!(!origins("https://app.example.com", "http://app.example.com"));
        assert!(!origins("https://app.example.com", "https://app.example.com:8443"));
        assert!(origins("http://localhost:*", "http://localhost:5173"));
        assert!(!origins("http://localhost:*", "https://localhost:5173"));
        assert!(origins("https://*.example.com", "https://a.example.com"));
        assert!(origins("chrome-extension://abc", "chrome-extension://abc"));
        assert!(origins("null", "null") && !origins("null", "http://null"));
        assert!(origins("*", "null") && origins("*", "https://x.example"));
    }

    #[test]
    fn bad_patterns_are_named() {
        for pattern in [
            "",
            "http://",
            "://a",
            "a:0",
            "a:",
            "a:x",
            "a/",
            "u@a",
            "*a.com",
            "a.*.com",
            "*.",
            "**",
            "*.1.2.3.4",
            "::1",
            "a.",
            " a",
            "a,b",
            "https://a/b",
        ] {
            let error = AllowList::parse(["localhost", pattern]).expect_err(pattern);
            assert_eq!(error.pattern(), pattern);
            assert!(error.to_string().contains(&format!("{pattern:?}")));
        }
    }

    #[test]
    fn host_comes_from_the_header_or_the_authority() {
        let local = AllowList::loopback();
        let none = HeaderMap::new();
        let here = with(HOST, &["localhost:8080"]);
        assert_eq!(check_host(&here, None, &local), Ok(()));
        assert_eq!(check_host(&none, Some("localhost:8080"), &local), Ok(()));
        assert_eq!(check_host(&here, Some("LOCALHOST:8080"), &local), Ok(()));
        assert_eq!(check_host(&none, None, &AllowList::any()), Err(Refusal::MissingHost));
        assert_eq!(check_host(&with(HOST, &["evil.example"]), None, &local), Err(Refusal::BadHost));
        assert_eq!(check_host(&with(HOST, &["é"]), None, &AllowList::any()), Err(Refusal::BadHost));
        assert_eq!(check_host(&none, Some("u@localhost"), &AllowList::any()), Err(Refusal::BadHost));
        let conflict = Err(Refusal::ConflictingHeaders { name: HOST });
        assert_eq!(check_host(&here, Some("localhost"), &local), conflict);
        assert_eq!(check_host(&with(HOST, &["localhost", "localhost"]), None, &local), conflict);
    }

    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#security-warning
    //= type=test
    //# If the Origin header is present and invalid, servers MUST respond with HTTP 403 Forbidden.
    #[test]
    fn invalid_origin_is_forbidden() {
        let local = AllowList::loopback();
        assert_eq!(check_origin(&HeaderMap::new(), &local), Ok(()));
        assert_eq!(check_origin(&with(ORIGIN, &["http://localhost:1"]), &local), Ok(()));
        for origin in
            ["null", "", "é", "http://evil.example", "http://localhost/", "http://localhost http://localhost"]
        {
            let refusal = check_origin(&with(ORIGIN, &[origin]), &local).expect_err(origin);
            assert_eq!(refusal.status(), 403);
        }
        let two = with(ORIGIN, &["http://localhost", "http://evil.example"]);
        assert_eq!(check_origin(&two, &local), Err(Refusal::BadOrigin));
    }

    proptest! {
        #[test]
        fn any_pattern_is_read_or_refused(pattern in "[*a.:/\\[\\]0-9u@]{0,12}", host in "[a.0-9:]{0,12}") {
            if let Ok(list) = AllowList::parse([&pattern]) {
                let _ = (list.allows_host(&host), list.allows_origin(&format!("http://{host}")));
            }
        }
    }
}
