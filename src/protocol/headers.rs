//! What the headers of a request say, read strictly.
//!
//! A header that counts may stand only once, or else with the same value each time: two programs that pick
//! different ones are how checks are passed by. `Accept` is a list and may stand several times.

use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::refusal::Refusal;
use super::session_id::SessionId;
use super::version::ProtocolVersion;
use crate::sse::EventId;

/// `Mcp-Session-Id`: names the session a request belongs to.
pub const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// `MCP-Protocol-Version`: the version a request is written in.
pub const MCP_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Last-Event-ID`: where to resume a stream.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Returns the one value of a header without the white space around it, or `None` if the header is absent.
///
/// # Errors
///
/// [`Refusal::ConflictingHeaders`] if it stands several times with different values, and
/// [`Refusal::InvalidHeader`] if a value is not visible ASCII.
pub(crate) fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Refusal> {
    let mut found: Option<&'h str> = None;
    for value in headers.get_all(name) {
        let value = value.to_str().map_err(|_| Refusal::InvalidHeader { name: name.clone() })?;
        let value = trim(value);
        if found.is_some_and(|first| first != value) {
            return Err(Refusal::ConflictingHeaders { name: name.clone() });
        }
        found = Some(value);
    }
    Ok(found)
}

/// The forms of an answer that a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forms {
    /// JSON and event streams, whichever suits the answer.
    Both,
    /// JSON alone: there is no way for a message besides the response.
    Json,
    /// Event streams alone.
    Stream,
}

/// Returns the forms of an answer that a POST accepts. Without an `Accept`, or with an empty one, it accepts both.
///
/// Lenient: the specification has clients list both, and not all of them do. [`check_accept_post`] is strict.
///
/// # Errors
///
/// [`Refusal::NotAcceptablePost`] if it accepts neither, or [`Refusal::InvalidHeader`].
//= https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1
//# A request without any Accept header field implies that the user agent will accept any media type in response.
pub(crate) fn accepted_forms(headers: &HeaderMap) -> Result<Forms, Refusal> {
    if is_as_clients_send_it(headers) || names_nothing(headers) {
        return Ok(Forms::Both);
    }
    match (accepts(headers, "application", "json")?, accepts(headers, "text", "event-stream")?) {
        (true, true) => Ok(Forms::Both),
        (true, false) => Ok(Forms::Json),
        (false, true) => Ok(Forms::Stream),
        (false, false) => Err(Refusal::NotAcceptablePost),
    }
}

/// Checks that a GET accepts an event stream, or says nothing of what it accepts.
///
/// # Errors
///
/// [`Refusal::NotAcceptableGet`] if it does not, or [`Refusal::InvalidHeader`].
pub(crate) fn accepts_stream(headers: &HeaderMap) -> Result<(), Refusal> {
    if names_nothing(headers) { Ok(()) } else { check_accept_get(headers) }
}

/// Whether `Accept` is what the official clients send. Comparing is an order of magnitude cheaper than reading the
/// list.
fn is_as_clients_send_it(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().eq(["application/json, text/event-stream"])
}

/// Whether there is no `Accept`, or only empty ones.
fn names_nothing(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().all(|value| value.as_bytes().trim_ascii().is_empty())
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
//# The client MUST include an Accept header, listing both application/json and text/event-stream as supported
//# content types.
/// Checks that a POST accepts both forms of an answer, JSON and an event stream.
///
/// # Errors
///
/// [`Refusal::NotAcceptablePost`] if one of them is missing, or [`Refusal::InvalidHeader`].
pub fn check_accept_post(headers: &HeaderMap) -> Result<(), Refusal> {
    if is_as_clients_send_it(headers) {
        return Ok(());
    }
    let is_accepted = accepts(headers, "application", "json")? && accepts(headers, "text", "event-stream")?;
    if is_accepted { Ok(()) } else { Err(Refusal::NotAcceptablePost) }
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#listening-for-messages-from-the-server
//# The client MUST include an Accept header, listing text/event-stream as a supported content type.
/// Checks that a GET accepts an event stream.
///
/// # Errors
///
/// [`Refusal::NotAcceptableGet`] if it does not, or [`Refusal::InvalidHeader`].
pub fn check_accept_get(headers: &HeaderMap) -> Result<(), Refusal> {
    if accepts(headers, "text", "event-stream")? { Ok(()) } else { Err(Refusal::NotAcceptableGet) }
}

/// Checks that the body is declared as `application/json`; parameters are free, but a charset must be UTF-8.
///
/// # Errors
///
/// [`Refusal::UnsupportedContentType`] if it is something else or nothing, [`Refusal::ConflictingHeaders`] or
/// [`Refusal::InvalidHeader`].
pub fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let unsupported = Err(Refusal::UnsupportedContentType);
    let Some(value) = single(headers, &CONTENT_TYPE)? else { return unsupported };
    let mut parts = split_unquoted(value, b';');
    let media_type = trim(parts.next().unwrap_or_default());
    if !media_type.eq_ignore_ascii_case("application/json") {
        return unsupported;
    }
    for parameter in parts {
        let Some((name, charset)) = parameter.split_once('=') else { continue };
        if !trim(name).eq_ignore_ascii_case("charset") {
            continue;
        }
        let charset = trim(charset).trim_matches('"');
        // `utf8` is a label of the same encoding to every browser, and some clients send it.
        if !charset.eq_ignore_ascii_case("utf-8") && !charset.eq_ignore_ascii_case("utf8") {
            return unsupported;
        }
    }
    Ok(())
}

/// Checks that the body is not compressed, or encoded in another way.
///
/// # Errors
///
/// [`Refusal::UnsupportedContentEncoding`] if there is a coding other than `identity`.
pub(crate) fn check_content_encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_plain = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case("identity");
    let are_plain =
        |value: &HeaderValue| value.to_str().is_ok_and(|codings| codings.split(',').map(trim).all(is_plain));
    let is_supported = headers.get_all(CONTENT_ENCODING).iter().all(are_plain);
    if is_supported { Ok(()) } else { Err(Refusal::UnsupportedContentEncoding) }
}

//= https://www.rfc-editor.org/rfc/rfc9112#section-6.1
//# A server that receives a request message with a transfer coding it does not understand SHOULD respond with 501
//# (Not Implemented).
/// Checks that the body comes by its length or in chunks. hyper has taken the chunks apart, and looks at the last
/// coding alone.
///
/// # Errors
///
/// [`Refusal::UnsupportedTransferCoding`] if there is a coding besides one `chunked`.
pub(crate) fn check_transfer_encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    let is_supported = match (values.next(), values.next()) {
        (None, _) => true,
        (Some(value), None) => value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    if is_supported { Ok(()) } else { Err(Refusal::UnsupportedTransferCoding) }
}

/// Returns the length of the body in `Content-Length`, or `None` if the header is absent.
///
/// # Errors
///
/// [`Refusal::InvalidHeader`] if it is no length, or [`Refusal::ConflictingHeaders`].
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(length) = single(headers, &CONTENT_LENGTH)? else { return Ok(None) };
    let is_length = !length.is_empty() && length.bytes().all(|digit| digit.is_ascii_digit());
    let length = if is_length { length.parse().ok() } else { None };
    length.map(Some).ok_or(Refusal::InvalidHeader { name: CONTENT_LENGTH })
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#protocol-version-header
//# If the server receives a request with an invalid or unsupported MCP-Protocol-Version, it MUST respond with
//# 400 Bad Request.
/// Returns the version in `MCP-Protocol-Version`, or `None` if the header is absent.
///
/// # Errors
///
/// [`Refusal::UnsupportedVersion`], [`Refusal::ConflictingHeaders`] or [`Refusal::InvalidHeader`]; all of
/// them `400`.
pub fn protocol_version(headers: &HeaderMap) -> Result<Option<ProtocolVersion>, Refusal> {
    match single(headers, &MCP_PROTOCOL_VERSION)? {
        None => Ok(None),
        Some(text) => ProtocolVersion::parse(text).map(Some).ok_or(Refusal::UnsupportedVersion),
    }
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#session-management
//# When a client receives HTTP 404 in response to a request containing an MCP-Session-Id, it MUST start a new
//# session by sending a new InitializeRequest without a session ID attached.
/// Returns the id in `Mcp-Session-Id`, or `None` if the header is absent.
///
/// # Errors
///
/// [`Refusal::MalformedSessionId`] (a `404`, so that the client starts over) if no session can have that id,
/// or [`Refusal::ConflictingHeaders`].
pub fn session_id(headers: &HeaderMap) -> Result<Option<SessionId>, Refusal> {
    match single(headers, &MCP_SESSION_ID) {
        Ok(None) => Ok(None),
        Ok(Some(text)) => SessionId::parse(text).map(Some).ok_or(Refusal::MalformedSessionId),
        Err(Refusal::InvalidHeader { .. }) => Err(Refusal::MalformedSessionId),
        Err(other) => Err(other),
    }
}

/// Returns the event id in `Last-Event-ID`, or `None` if the header is absent or empty.
///
/// An empty event id is how a browser says that it has none.
///
/// # Errors
///
/// [`Refusal::ConflictingHeaders`], [`Refusal::InvalidHeader`], or [`Refusal::MalformedEventId`] if the text is none
/// that this server writes.
pub fn last_event_id(headers: &HeaderMap) -> Result<Option<EventId>, Refusal> {
    let text = single(headers, &LAST_EVENT_ID)?.filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(|_| Refusal::MalformedEventId)).transpose()
}

/// Whether the `Accept` headers together allow a media type. Absent means no.
///
/// Of the ranges that match, the most specific decides, as HTTP has it; a range that cannot be read does not
/// count.
fn accepts(headers: &HeaderMap, kind: &str, subtype: &str) -> Result<bool, Refusal> {
    let mut best = 0;
    let mut is_accepted = false;
    for value in headers.get_all(ACCEPT) {
        let value = value.to_str().map_err(|_| Refusal::InvalidHeader { name: ACCEPT })?;
        for range in split_unquoted(value, b',') {
            let Some((specificity, is_wanted)) = match_range(range, kind, subtype) else { continue };
            if specificity > best {
                (best, is_accepted) = (specificity, is_wanted);
            } else if specificity == best {
                is_accepted |= is_wanted;
            }
        }
    }
    Ok(is_accepted)
}

/// How closely a media range matches (1 to 3) and whether its weight is above zero; `None` if it does not
/// match.
fn match_range(range: &str, kind: &str, subtype: &str) -> Option<(u8, bool)> {
    let mut parts = split_unquoted(range, b';');
    let (range_kind, range_subtype) = trim(parts.next()?).split_once('/')?;
    let specificity = match (range_kind, range_subtype) {
        ("*", "*") => 1,
        (_, "*") if range_kind.eq_ignore_ascii_case(kind) => 2,
        _ if range_kind.eq_ignore_ascii_case(kind) && range_subtype.eq_ignore_ascii_case(subtype) => 3,
        _ => return None,
    };
    for parameter in parts {
        let Some((name, weight)) = parameter.split_once('=') else { continue };
        if trim(name).eq_ignore_ascii_case("q") {
            return Some((specificity, has_weight(trim(weight))?));
        }
    }
    Some((specificity, true))
}

/// Whether a weight is above zero; `None` if it is not a number from 0 to 1.
fn has_weight(weight: &str) -> Option<bool> {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    let is_zero = fraction.bytes().all(|digit| digit == b'0');
    let is_number = fraction.len() <= 3 && fraction.bytes().all(|digit| digit.is_ascii_digit());
    match whole {
        "0" if is_number => Some(!is_zero),
        "1" if is_number && is_zero => Some(true),
        _ => None,
    }
}

/// Splits at a separator that is not inside a quoted string.
fn split_unquoted(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |character: char| {
        if is_escaped {
            is_escaped = false;
        } else if is_quoted && character == '\\' {
            is_escaped = true;
        } else if character == '"' {
            is_quoted = !is_quoted;
        } else {
            return !is_quoted && character == char::from(separator);
        }
        false
    })
}

/// Takes off the white space that HTTP allows around a value.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(name: HeaderName, values: &[&str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
            .collect()
    }

    #[test]
    fn repeated_headers_must_agree() {
        let name = LAST_EVENT_ID;
        assert_eq!(single(&HeaderMap::new(), &name), Ok(None));
        assert_eq!(single(&with(name.clone(), &[" a\t"]), &name), Ok(Some("a")));
        assert_eq!(single(&with(name.clone(), &["a", " a "]), &name), Ok(Some("a")));
        let conflict = Refusal::ConflictingHeaders { name: name.clone() };
        assert_eq!(single(&with(name.clone(), &["a", "b"]), &name), Err(conflict.clone()));
        assert_eq!(single(&with(name.clone(), &["a", ""]), &name), Err(conflict));
        let invalid = Refusal::InvalidHeader { name: name.clone() };
        assert_eq!(single(&with(name.clone(), &["é"]), &name), Err(invalid));
    }

    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#sending-messages-to-the-server
    //= type=test
    //# The client MUST include an Accept header, listing both application/json and text/event-stream as
    //# supported content types.
    #[test]
    fn post_accepts_both_forms() {
        for values in [
            &["application/json, text/event-stream"][..],
            &["application/json,text/event-stream"],
            &["text/event-stream", "application/json"],
            &["*/*"],
            &["Application/JSON;q=0.9,TEXT/*;q=0.001"],
            &["application/*;v=\"a,b;q=0\", text/event-stream ; q=1.000"],
            &["application/json;q=0, application/json, text/event-stream"],
            &["image/png, , application/json,text/event-stream,"],
        ] {
            assert_eq!(check_accept_post(&with(ACCEPT, values)), Ok(()), "{values:?}");
        }
        for values in [
            &[][..],
            &[""],
            &["application/json"],
            &["text/event-stream"],
            &["text/html, */*;q=0"],
            &["*/*, text/event-stream;q=0"],
            &["*/*, application/*;q=0.000"],
            &["application/jsonx, text/event-stream"],
            &["\"application/json\", text/event-stream"],
            &["application/json;q=2, text/event-stream"],
            &["application/json;a=\", text/event-stream\""],
        ] {
            assert_eq!(
                check_accept_post(&with(ACCEPT, values)),
                Err(Refusal::NotAcceptablePost),
                "{values:?}"
            );
        }
    }

    #[test]
    fn get_accepts_an_event_stream() {
        assert_eq!(check_accept_get(&with(ACCEPT, &["text/event-stream"])), Ok(()));
        assert_eq!(check_accept_get(&with(ACCEPT, &["application/json"])), Err(Refusal::NotAcceptableGet));
        assert_eq!(check_accept_get(&HeaderMap::new()), Err(Refusal::NotAcceptableGet));
    }

    #[test]
    fn forms_follow_what_is_accepted() {
        for (values, forms) in [
            (&[][..], Forms::Both),
            (&[""], Forms::Both),
            (&[" ", "\t"], Forms::Both),
            (&["*/*"], Forms::Both),
            (&["application/json, text/event-stream"], Forms::Both),
            (&["application/json", "text/*"], Forms::Both),
            (&["application/json"], Forms::Json),
            (&["application/*, text/html"], Forms::Json),
            (&["*/*, text/event-stream;q=0"], Forms::Json),
            (&["text/event-stream"], Forms::Stream),
            (&["text/html, text/*;q=0.1"], Forms::Stream),
        ] {
            assert_eq!(accepted_forms(&with(ACCEPT, values)), Ok(forms), "{values:?}");
            let stream = accepts_stream(&with(ACCEPT, values));
            assert_eq!(stream.is_ok(), forms != Forms::Json, "{values:?}");
        }
        for values in [&["text/html"][..], &["*/*;q=0"], &["image/*"], &["application/jsonx"], &["x"]] {
            let refused = accepted_forms(&with(ACCEPT, values));
            assert_eq!(refused, Err(Refusal::NotAcceptablePost), "{values:?}");
            assert_eq!(accepts_stream(&with(ACCEPT, values)), Err(Refusal::NotAcceptableGet), "{values:?}");
        }
    }

    #[test]
    fn body_is_json_in_utf8() {
        for value in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\";x",
            "application/json; charset=utf8;",
            "application/json; profile=\"; charset=latin1\"",
        ] {
            assert_eq!(check_content_type(&with(CONTENT_TYPE, &[value])), Ok(()), "{value}");
        }
        for value in [
            "",
            "text/plain",
            "application/json-rpc",
            "application/json, text/plain",
            "text/plain; a=application/json",
            "application/json; charset=latin1",
            "application/json; charset=utf-8; CHARSET=utf-16",
            "application/json; charset=",
        ] {
            let refusal = check_content_type(&with(CONTENT_TYPE, &[value]));
            assert_eq!(refusal, Err(Refusal::UnsupportedContentType), "{value}");
        }
        assert_eq!(check_content_type(&HeaderMap::new()), Err(Refusal::UnsupportedContentType));
    }

    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#protocol-version-header
    //= type=test
    //# If the server receives a request with an invalid or unsupported MCP-Protocol-Version, it MUST respond
    //# with 400 Bad Request.
    #[test]
    fn unknown_version_is_a_bad_request() {
        assert_eq!(protocol_version(&HeaderMap::new()), Ok(None));
        for version in ProtocolVersion::ALL {
            assert_eq!(
                protocol_version(&with(MCP_PROTOCOL_VERSION, &[version.as_str()])),
                Ok(Some(*version))
            );
        }
        for values in [&["2024-11-05"][..], &[""], &["é"], &["2025-03-26", "2025-06-18"]] {
            let refusal = protocol_version(&with(MCP_PROTOCOL_VERSION, values)).unwrap_err();
            assert_eq!(refusal.status(), 400, "{values:?}");
        }
    }

    #[test]
    fn session_id_of_another_form_is_not_found() {
        let id = SessionId::generate();
        assert_eq!(session_id(&HeaderMap::new()), Ok(None));
        assert_eq!(session_id(&with(MCP_SESSION_ID, &[&id.to_string()])), Ok(Some(id)));
        for value in ["", "1868a90c", "é", &id.to_string().replace(|_| true, "A")] {
            assert_eq!(
                session_id(&with(MCP_SESSION_ID, &[value])),
                Err(Refusal::MalformedSessionId),
                "{value}"
            );
        }
        let two = [SessionId::from_u128(1).to_string(), SessionId::from_u128(2).to_string()];
        let refusal = session_id(&with(MCP_SESSION_ID, &[&two[0], &two[1]])).unwrap_err();
        assert_eq!(refusal, Refusal::ConflictingHeaders { name: MCP_SESSION_ID });
    }

    #[test]
    fn bodies_are_plain_and_framed_one_way() {
        for codings in [&[][..], &[""], &["identity"], &["Identity, "], &["identity", "identity"]] {
            assert_eq!(check_content_encoding(&with(CONTENT_ENCODING, codings)), Ok(()), "{codings:?}");
        }
        for codings in [&["gzip"][..], &["identity, br"], &["identity", "zstd"], &["é"], &["identity;q=1"]] {
            let refused = check_content_encoding(&with(CONTENT_ENCODING, codings));
            assert_eq!(refused, Err(Refusal::UnsupportedContentEncoding), "{codings:?}");
        }
        for codings in [&[][..], &["chunked"], &["Chunked"]] {
            assert_eq!(check_transfer_encoding(&with(TRANSFER_ENCODING, codings)), Ok(()), "{codings:?}");
        }
        for codings in [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked", "chunked"], &[""], &["é"]]
        {
            let refused = check_transfer_encoding(&with(TRANSFER_ENCODING, codings));
            assert_eq!(refused, Err(Refusal::UnsupportedTransferCoding), "{codings:?}");
        }
        assert_eq!(content_length(&HeaderMap::new()), Ok(None));
        assert_eq!(content_length(&with(CONTENT_LENGTH, &["44", "44"])), Ok(Some(44)));
        for lengths in [&["44", "4"][..], &["44, 44"], &["+4"], &[""], &["99999999999999999999"]] {
            assert_eq!(content_length(&with(CONTENT_LENGTH, lengths)).unwrap_err().status(), 400);
        }
    }

    #[test]
    fn empty_last_event_id_is_none_and_any_other_is_one_of_ours() {
        assert_eq!(last_event_id(&with(LAST_EVENT_ID, &[""])), Ok(None));
        let text = "9f3c21ab-2-000000000000002a";
        assert_eq!(last_event_id(&with(LAST_EVENT_ID, &[text])), Ok(Some(text.parse().unwrap())));
        assert_eq!(last_event_id(&with(LAST_EVENT_ID, &["nonsense"])), Err(Refusal::MalformedEventId));
    }

    proptest! {
        #[test]
        fn any_list_is_read(value in "[ -~]{0,60}") {
            let _ = check_accept_post(&with(ACCEPT, &[&value]));
            let _ = check_content_type(&with(CONTENT_TYPE, &[&value]));
        }
    }
}
