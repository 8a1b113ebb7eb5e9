//! The token in the headers of a request.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::{Denial, Flaw};

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#token-requirements
//# MCP client MUST use the Authorization request header field defined in OAuth 2.1 Section 5.1.1
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#token-requirements
//# Access tokens MUST NOT be included in the URI query string
/// Reads the token of `Authorization: Bearer`. Nothing else of the request is looked at.
///
/// # Errors
///
/// [`Denial::Missing`] if there is none, or credentials of another scheme; [`Denial::Malformed`] if it is there more
/// than once or empty; [`Flaw::Form`] if it has characters that no token has.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Denial> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Denial::Missing)?;
    //= https://www.rfc-editor.org/rfc/rfc6750#section-3.1
    //# The request is missing a required parameter, includes an unsupported parameter or parameter value, repeats the
    //# same parameter, uses more than one method for including an access token, or is otherwise malformed.
    if values.next().is_some() {
        return Err(Denial::Malformed);
    }
    let value = value.as_bytes();
    let (scheme, token) = value.split_at(value.iter().position(|byte| *byte == b' ').unwrap_or(value.len()));
    //= https://www.rfc-editor.org/rfc/rfc6750#section-3
    //# If the request lacks any authentication information (e.g., the client was unaware that authentication is
    //# necessary or attempted using an unsupported authentication method), the resource server SHOULD NOT include an
    //# error code or other error information.
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Denial::Missing);
    }
    let token = token.trim_ascii_start();
    if token.is_empty() {
        return Err(Denial::Malformed);
    }
    if !is_token(token) {
        return Err(Denial::Invalid(Flaw::Form));
    }
    str::from_utf8(token).map_err(|_| Denial::Invalid(Flaw::Form))
}

/// Whether the bytes are a `b64token`: letters, digits, `-._~+/`, and `=` at the end.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    let padding = bytes.iter().rev().take_while(|byte| **byte == b'=').count();
    let (token, _) = bytes.split_at(bytes.len() - padding);
    let is_token_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    !token.is_empty() && token.iter().all(is_token_byte)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(values: &[&str]) -> Result<String, Denial> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        bearer(&headers).map(str::to_owned)
    }

    #[test]
    fn reads_one_token_and_nothing_else() {
        for value in ["Bearer a.b-c_d~e+f/0==", "bearer a.b-c_d~e+f/0==", "BEARER   a.b-c_d~e+f/0=="] {
            assert_eq!(read(&[value]).as_deref(), Ok("a.b-c_d~e+f/0=="));
        }
        for values in [&[][..], &["Basic YTpi"], &["Bearertoken"], &["token"], &[""], &["Digest a=b"]] {
            assert_eq!(read(values), Err(Denial::Missing), "{values:?}");
        }
        for values in [&["Bearer"][..], &["Bearer "], &["Bearer a", "Bearer a"], &["Basic a", "Bearer a"]] {
            assert_eq!(read(values), Err(Denial::Malformed), "{values:?}");
        }
        for value in
            ["Bearer a b", "Bearer a,b", "Bearer \"a\"", "Bearer =", "Bearer a=b", "Bearer ä", "Bearer a\tb"]
        {
            assert_eq!(read(&[value]), Err(Denial::Invalid(Flaw::Form)), "{value:?}");
        }
    }
}
