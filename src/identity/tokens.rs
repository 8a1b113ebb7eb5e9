//! Bearer tokens from a file.
//!
//! # The file
//!
//! One token a line, with what belongs to it, separated by spaces or tabs: the token, the name of its principal, and
//! the scopes it has, if any. Empty lines, and lines that begin with `#`, count for nothing.
//!
//! ```text
//! # who        token                             principal   scopes
//! N6kJ8ycWT3xqfVw5ZbUeRm2DhGpLsAtQ               ci          mcp:read mcp:write
//! sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  ada
//! ```
//!
//! A token is 20 characters at least, of those that [`bearer`](super::bearer) reads. Written as `sha256:` and 64
//! hexadecimal digits it is the SHA-256 digest of a token, so that the file need not hold what opens the door. Several
//! tokens may name the same principal, which is then one and the same, with the same sessions.
//!
//! # What is kept
//!
//! A digest of each token, keyed by random bytes that this process drew. A token that comes is digested, found by the
//! first bytes, and compared as a whole in constant time: how long that takes tells something about digests under a key
//! that nobody knows, and nothing about tokens.

use core::fmt;
use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fs, io};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::bearer::is_token;
use super::resource::is_scope;
use super::{Authenticator, Checked, Denial, Head, Verdict, bearer};
use crate::session::Principal;
use crate::sync::Arc;

/// A shorter token is guessed too soon.
const MIN_TOKEN_BYTES: usize = 20;
/// A larger file is none of tokens.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Who vouches for the principals of a file.
const ISSUER: &str = "tokens";

/// Lets in whoever has a token that stands in a file.
///
/// `Debug` shows neither tokens nor names.
///
/// # Examples
///
/// ```
/// use ringmain::identity::Tokens;
///
/// let tokens = Tokens::parse("N6kJ8ycWT3xqfVw5ZbUeRm2DhGpLsAtQ ci mcp:read")?;
/// assert_eq!(tokens.len(), 1);
/// # Ok::<(), ringmain::identity::TokensError>(())
/// ```
pub struct Tokens {
    /// Where they stand; `None` if they came as text.
    path: Option<PathBuf>,
    key: [u8; 32],
    needs: Vec<String>,
    /// Read by every request, replaced now and then.
    table: ArcSwap<Table>,
}

/// Tokens by the first eight bytes of their digest.
type Table = HashMap<u64, Vec<Accepted>>;

struct Accepted {
    digest: [u8; 32],
    principal: Principal,
    scopes: Box<[Box<str>]>,
}

impl Tokens {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// It cannot be read, is too large, has a line that is malformed or a token twice, or has no token at all.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, TokensError> {
        let path = path.into();
        Self::new(&read(&path)?, Some(path))
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn parse(text: &str) -> Result<Self, TokensError> {
        Self::new(text, None)
    }

    fn new(text: &str, path: Option<PathBuf>) -> Result<Self, TokensError> {
        let mut key = [0; 32];
        let at = |fault| TokensError { path: path.clone(), fault };
        getrandom::fill(&mut key).map_err(|error| at(Fault::Read(io::Error::other(error))))?;
        let table = parse(text, &key).map_err(at)?;
        Ok(Self { path, key, needs: Vec::new(), table: ArcSwap::from_pointee(table) })
    }

    /// Asks for one more scope: a token without it is refused with 403.
    #[must_use]
    pub fn needing(mut self, scope: impl Into<String>) -> Self {
        self.needs.push(scope.into());
        self
    }

    /// Reads the file again. The tokens that stand there now are those that are let in from here on; returns how many.
    /// Sessions stay with their principals.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open); then everything stays as it was. Tokens that came as text cannot be read again.
    pub fn reload(&self) -> Result<usize, TokensError> {
        let at = |fault| TokensError { path: self.path.clone(), fault };
        let path = self.path.as_ref().ok_or_else(|| at(Fault::Read(io::ErrorKind::Unsupported.into())))?;
        let table = parse(&read(path)?, &self.key).map_err(at)?;
        let count = count(&table);
        self.table.store(Arc::new(table));
        Ok(count)
    }

    /// How many tokens there are.
    #[must_use]
    pub fn len(&self) -> usize {
        count(&self.table.load())
    }

    /// Whether there is none: never, as that is an error.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn check(&self, token: &str) -> Verdict {
        let digest = keyed(&self.key, &Sha256::digest(token).into());
        let table = self.table.load();
        let candidates = table.get(&first_bytes(&digest)).map(Vec::as_slice).unwrap_or_default();
        let known = candidates.iter().find(|known| bool::from(known.digest.ct_eq(&digest)));
        let known = known.ok_or(Denial::UNKNOWN)?;
        if self.needs.iter().all(|scope| known.scopes.iter().any(|has| **has == **scope)) {
            return Ok(known.principal.clone());
        }
        Err(Denial::InsufficientScope { needs: self.needs.join(" ").into() })
    }
}

impl Authenticator for Tokens {
    fn authenticate<'a>(&'a self, head: Head<'a>) -> Checked<'a> {
        bearer(head.headers).and_then(|token| self.check(token)).into()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("path", &self.path).field("len", &self.len()).finish_non_exhaustive()
    }
}

fn count(table: &Table) -> usize {
    table.values().map(Vec::len).sum()
}

fn read(path: &Path) -> Result<String, TokensError> {
    let at = |fault| TokensError { path: Some(path.to_owned()), fault };
    let metadata = fs::metadata(path).map_err(|error| at(Fault::Read(error)))?;
    if metadata.len() > MAX_FILE_BYTES {
        return Err(at(Fault::TooLarge));
    }
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o004 != 0 {
        tracing::warn!(path = %path.display(), "every user of this machine can read the tokens file");
    }
    fs::read_to_string(path).map_err(|error| at(Fault::Read(error)))
}

fn parse(text: &str, key: &[u8; 32]) -> Result<Table, Fault> {
    let mut principals = HashMap::new();
    let mut table = Table::new();
    for (index, line) in text.lines().enumerate() {
        let fault = |reason| Fault::Line { number: index + 1, reason };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_ascii_whitespace();
        let (Some(token), Some(name)) = (words.next(), words.next()) else {
            return Err(fault("a line is a token, a principal, and scopes"));
        };
        let digest = keyed(key, &digest(token).map_err(fault)?);
        let scopes: Box<[Box<str>]> = words.map(Into::into).collect();
        if !scopes.iter().all(|scope| is_scope(scope)) {
            return Err(fault("a scope has characters that no scope has"));
        }
        let principal = principals.entry(name).or_insert_with(|| Principal::new(ISSUER, name)).clone();
        let same = table.entry(first_bytes(&digest)).or_default();
        if same.iter().any(|known| known.digest == digest) {
            return Err(fault("the token stands there already"));
        }
        same.push(Accepted { digest, principal, scopes });
    }
    if table.is_empty() { Err(Fault::Empty) } else { Ok(table) }
}

/// The digest of a token, which stands there in plain or digested already.
fn digest(token: &str) -> Result<[u8; 32], &'static str> {
    if let Some(digits) = token.strip_prefix("sha256:") {
        let mut digest = [0; 32];
        let is_hex = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = str::from_utf8(pair).unwrap_or_default();
            *byte = u8::from_str_radix(pair, 16).unwrap_or_default();
        }
        return if is_hex { Ok(digest) } else { Err("behind sha256: belong 64 hexadecimal digits") };
    }
    if !is_token(token.as_bytes()) {
        return Err("a token has letters, digits and -._~+/ only");
    }
    if token.len() < MIN_TOKEN_BYTES {
        return Err("the token is too short: 20 characters at least");
    }
    Ok(Sha256::digest(token).into())
}

fn keyed(key: &[u8; 32], digest: &[u8; 32]) -> [u8; 32] {
    // Of fixed length, so that nobody can say more behind it.
    Sha256::new().chain_update(key).chain_update(digest).finalize().into()
}

fn first_bytes(digest: &[u8; 32]) -> u64 {
    digest.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// Why a file of tokens cannot be used. Names the file and the line, and shows nothing of what stands there.
#[derive(Debug)]
pub struct TokensError {
    path: Option<PathBuf>,
    fault: Fault,
}

#[derive(Debug)]
enum Fault {
    Read(io::Error),
    TooLarge,
    Empty,
    Line { number: usize, reason: &'static str },
}

impl fmt::Display for TokensError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "tokens of {}: ", path.display())?,
            None => f.write_str("tokens: ")?,
        }
        match &self.fault {
            Fault::Read(error) => write!(f, "cannot be read: {error}"),
            Fault::TooLarge => f.write_str("the file is larger than 16 MiB"),
            Fault::Empty => f.write_str("there is no token, so that nobody could be let in"),
            Fault::Line { number, reason } => write!(f, "line {number}: {reason}"),
        }
    }
}

impl Error for TokensError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.fault {
            Fault::Read(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: &str = "adaadaadaadaadaadaada";
    const BOB: &str = "bobbobbobbobbobbobbob==";

    #[test]
    fn a_token_stands_for_its_principal() {
        // The digest of "plain-as-day-and-long-enough".
        let digest: [u8; 32] = Sha256::digest("plain-as-day-and-long-enough").into();
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!(
            "# people\n\n {ADA}\tada mcp:read\n{BOB} bob mcp:read mcp:write \r\nsha256:{hex} ada mcp:read\n"
        );
        let tokens = Tokens::parse(&text).unwrap();
        let ada = Principal::new(ISSUER, "ada");
        assert_eq!(tokens.len(), 3);
        assert_eq!(tokens.check(ADA), Ok(ada.clone()));
        assert_eq!(tokens.check("plain-as-day-and-long-enough"), Ok(ada.clone()));
        assert_eq!(tokens.check(BOB), Ok(Principal::new(ISSUER, "bob")));
        for wrong in ["", "ada", &ADA[1..], &hex, &format!("sha256:{hex}"), "adaadaadaadaadaadaadb"] {
            assert_eq!(tokens.check(wrong), Err(Denial::UNKNOWN), "{wrong:?}");
        }
        let tokens = tokens.needing("mcp:read").needing("mcp:write");
        assert_eq!(tokens.check(ADA), Err(Denial::InsufficientScope { needs: "mcp:read mcp:write".into() }));
        assert!(tokens.check(BOB).is_ok());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_without_what_stands_there() {
        let (twice, short_digest) = (format!("{ADA} ada\n{ADA} bob"), format!("sha256:{ADA} ada"));
        for (text, said) in [
            ("", "there is no token"),
            ("# nobody\n", "there is no token"),
            ("secretsecretsecretsecret", "line 1: a line is a token"),
            ("\nsecret ada", "line 2: the token is too short"),
            ("secret,secret,secret,secret ada", "line 1: a token has letters"),
            ("secretsecretsecretsecret ada sco\"pe", "line 1: a scope has"),
            (&twice, "line 2: the token stands there already"),
            (&short_digest, "line 1: behind sha256:"),
        ] {
            let error = Tokens::parse(text).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
        let error = Tokens::open("/nowhere/at/all").unwrap_err();
        assert!(error.to_string().starts_with("tokens of /nowhere/at/all: cannot be read"), "{error}");
        assert!(Tokens::parse(&format!("{ADA} ada")).unwrap().reload().is_err());
    }

    #[test]
    fn tokens_are_not_shown() {
        let tokens = Tokens::parse(&format!("{ADA} secretname secretscope")).unwrap();
        let text = format!("{tokens:?}");
        assert!(!text.contains("secret") && !text.contains("ada"), "{text}");
    }
}
