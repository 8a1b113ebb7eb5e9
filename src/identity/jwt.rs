//! Signed tokens (JWT) of an authorization server.
//!
//! A token is accepted if it is signed by a key of the issuer, by an algorithm on the list, names the issuer and this
//! server as an audience, has not expired and is not for later, and has the scopes that are asked for. Its `iss` and
//! `sub` are the principal.
//!
//! # What is kept
//!
//! Tokens that were found good, by their SHA-256 digest, until they expire or the key set changes, and a few thousand
//! at most: a client sends the same token with every request, and checking a signature costs more than the rest of the
//! request.

use core::fmt;
use std::error::Error;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Validation;
use jsonwebtoken::errors::ErrorKind;
use scc::HashCache;
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

use super::jwks::{Current, Jwks, KeySource, KeysError, Pace};
use super::keys::{Algorithm, NoKey};
use super::resource::is_scope;
use super::{Authenticator, Checked, Denial, Flaw, Head, Verdict, bearer};
use crate::session::Principal;
use crate::sync::Arc;

/// Keys that are tried for a token which does not name one.
const MAX_TRIES: usize = 4;

/// What tokens must be like.
///
/// # Examples
///
/// ```
/// use ringmain::identity::{Algorithm, JwtConfig};
///
/// let keys = "https://issuer.example/jwks.json".into();
/// let mut config = JwtConfig::new("https://issuer.example", "https://mcp.example/", keys);
/// config.algorithms = vec![Algorithm::ES256, Algorithm::EdDSA];
/// config.scopes = vec!["mcp:read".into()];
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JwtConfig {
    /// Who gives them out: the `iss` claim, to the letter.
    pub issuer: String,
    /// Whom they are for: one of these is among the `aud` claim. Nearly always the URI of the
    /// [`Resource`](super::Resource), alone.
    pub audiences: Vec<String>,
    /// Where the keys are published.
    pub keys: KeySource,
    /// What they may be signed by. Default: all of [`Algorithm::ALL`].
    pub algorithms: Vec<Algorithm>,
    /// Scopes they must have, all of them: in `scope`, or in `scp`. Default: none.
    pub scopes: Vec<String>,
    /// How far the issuer's clock and this one may be apart. Default 30 seconds, at most 5 minutes.
    pub leeway: Duration,
    /// How long a key set is good that does not say so itself. Default 5 minutes.
    pub refresh: Duration,
    /// Between two fetches of the key set at least, whatever tokens say. Default 30 seconds, at least 100 milliseconds.
    pub fetch_interval: Duration,
    /// For how long a key set goes on that ought to have been renewed and could not be. Then requests are refused with
    /// 503. Default 1 hour.
    pub max_stale: Duration,
    /// How many good tokens are remembered. Default 4096, about 200 bytes each. 0: none, each is checked each time.
    pub remembered: usize,
}

impl JwtConfig {
    /// Tokens that `issuer` gives out for `audience`, signed by one of `keys`.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>, keys: KeySource) -> Self {
        Self {
            issuer: issuer.into(),
            audiences: vec![audience.into()],
            keys,
            algorithms: Algorithm::ALL.to_vec(),
            scopes: Vec::new(),
            leeway: Duration::from_secs(30),
            refresh: Duration::from_secs(5 * 60),
            fetch_interval: Duration::from_secs(30),
            max_stale: Duration::from_secs(60 * 60),
            remembered: 4096,
        }
    }

    fn check(&self) -> Result<(), JwtError> {
        let wrong = |what: &str| Err(JwtError(what.to_owned()));
        if self.issuer.is_empty() {
            return wrong("issuer: it is empty");
        }
        //= https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#access-token-privilege-restriction
        //# MCP servers MUST only accept tokens specifically intended for themselves and MUST reject tokens that do not
        //# include them in the audience claim or otherwise verify that they are the intended recipient of the token.
        if self.audiences.is_empty() || self.audiences.iter().any(String::is_empty) {
            return wrong("audiences: a token must be for this server, so that one is needed");
        }
        if self.algorithms.is_empty() {
            return wrong("algorithms: there is none, so that nobody could be let in");
        }
        if !self.scopes.iter().all(|scope| is_scope(scope)) {
            return wrong("scopes: one has characters that no scope has");
        }
        if self.leeway > Duration::from_secs(5 * 60) {
            return wrong("leeway: more than 5 minutes lets in who should be out");
        }
        if self.fetch_interval < Duration::from_millis(100) {
            return wrong(
                "fetch_interval: less than 100 milliseconds lets clients flood the authorization server",
            );
        }
        if self.max_stale > Duration::from_secs(30 * 24 * 60 * 60) {
            return wrong("max_stale: more than 30 days keeps withdrawn keys alive");
        }
        Ok(())
    }
}

/// Lets in whoever has a signed token. `Debug` shows no token.
///
/// # Examples
///
/// ```no_run
/// # use std::sync::Arc;
/// use ringmain::identity::{Jwt, JwtConfig};
/// use ringmain::server::Config;
///
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// let keys = "https://issuer.example/jwks.json".into();
/// let jwt = Jwt::start(JwtConfig::new("https://issuer.example", "https://mcp.example/", keys)).await?;
/// let mut config = Config::default();
/// config.authenticator = Some(Arc::new(jwt));
/// # Ok(())
/// # }
/// ```
pub struct Jwt {
    config: JwtConfig,
    /// What is asked for by the word `needs`.
    needs: Arc<str>,
    keys: Jwks,
    validations: Vec<(Algorithm, Validation)>,
    remembered: Option<HashCache<[u8; 32], Remembered>>,
}

/// A token that was found good.
struct Remembered {
    principal: Principal,
    /// Seconds since 1970.
    until: u64,
    /// Number of the key set.
    serial: u64,
}

/// What a look at a token came to.
enum Looked {
    Done(Verdict),
    /// It names a key that is not in the set of this number.
    NewKey(u64),
}

#[derive(Deserialize)]
struct TokenHead<'a> {
    alg: &'a str,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims {
    iss: Box<str>,
    sub: Box<str>,
    exp: f64,
    #[serde(default)]
    scope: Option<Scopes>,
    #[serde(default)]
    scp: Option<Scopes>,
}

/// Authorization servers write them one way or the other.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scopes {
    Text(String),
    List(Vec<String>),
}

impl Scopes {
    fn has(&self, wanted: &str) -> bool {
        match self {
            Self::Text(text) => text.split(' ').any(|scope| scope == wanted),
            Self::List(list) => list.iter().any(|scope| scope == wanted),
        }
    }
}

impl Jwt {
    /// Fetches the keys and begins to check tokens. Call it within a tokio runtime.
    ///
    /// A server that does not answer yet is no error: it is asked again, and until then requests are refused with 503.
    ///
    /// # Errors
    ///
    /// An option is impossible, the URL of the keys is not safe, or their file cannot be used.
    pub async fn start(config: JwtConfig) -> Result<Self, JwtError> {
        config.check()?;
        // Whichever features others chose, there is a provider; one that is installed stays.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let times = Pace { refresh: config.refresh, between: config.fetch_interval, stale: config.max_stale };
        let keys = Jwks::start(&config.keys, times).await?;
        let validations =
            config.algorithms.iter().map(|algorithm| (*algorithm, validation(&config, *algorithm)));
        let remembered = (config.remembered > 0).then(|| HashCache::with_capacity(0, config.remembered));
        Ok(Self {
            needs: config.scopes.join(" ").into(),
            validations: validations.collect(),
            keys,
            remembered,
            config,
        })
    }

    /// Asks for the key set to be fetched now rather than when it is old; not sooner than
    /// [`JwtConfig::fetch_interval`] after the fetch before. For an operator who knows that it changed.
    pub fn renew(&self) {
        self.keys.want();
    }

    /// How often the key set was fetched so far.
    #[must_use]
    pub fn fetches(&self) -> u64 {
        self.keys.fetches().0
    }

    /// How often that failed.
    #[must_use]
    pub fn failed_fetches(&self) -> u64 {
        self.keys.fetches().1
    }

    /// Whether tokens can be checked at the moment.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.keys.current().is_good()
    }

    fn look(&self, token: &str) -> Looked {
        let current = self.keys.current();
        if !current.is_good() {
            return Looked::Done(Err(Denial::Unavailable));
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        let remembered = self.remembered.as_ref().and_then(|remembered| {
            let good = |known: &Remembered| known.serial == current.serial && now() < known.until;
            remembered.read_sync(&digest, |_, known| good(known).then(|| known.principal.clone())).flatten()
        });
        match remembered {
            Some(principal) => Looked::Done(Ok(principal)),
            None => self.verify(token, digest, &current),
        }
    }

    fn verify(&self, token: &str, digest: [u8; 32], current: &Current) -> Looked {
        let denied = |flaw| Looked::Done(Err(Denial::Invalid(flaw)));
        let Some(head) = token.split('.').next().and_then(|head| URL_SAFE_NO_PAD.decode(head).ok()) else {
            return denied(Flaw::Form);
        };
        let Ok(head) = serde_json::from_slice::<TokenHead<'_>>(&head) else { return denied(Flaw::Form) };
        let listed = self.validations.iter().find(|(algorithm, _)| algorithm.as_str() == head.alg);
        let Some((algorithm, validation)) = listed else { return denied(Flaw::Algorithm) };
        //= https://www.rfc-editor.org/rfc/rfc7515#section-4.1.11
        //# If any of the listed extension Header Parameters are not understood and supported by the recipient, then the
        //# JWS is invalid.
        if head.crit.is_some() || !head.typ.as_deref().is_none_or(is_access_token) {
            return denied(Flaw::Form);
        }
        let keys = match current.keys.find(head.kid.as_deref(), *algorithm) {
            Ok(keys) => keys,
            Err(NoKey::UnknownId) => return Looked::NewKey(current.serial),
            Err(NoKey::OtherAlgorithm) => return denied(Flaw::Algorithm),
        };
        let mut verdict = Err(Denial::Invalid(Flaw::Signature));
        for key in keys.take(MAX_TRIES) {
            verdict = match jsonwebtoken::decode::<Claims>(token, &key.key, validation) {
                Ok(data) => self.admit(data.claims, digest, current.serial),
                Err(error) => Err(denial(error.kind())),
            };
            if verdict != Err(Denial::Invalid(Flaw::Signature)) {
                break;
            }
        }
        Looked::Done(verdict)
    }

    /// What a good token means.
    fn admit(&self, claims: Claims, digest: [u8; 32], serial: u64) -> Verdict {
        if claims.sub.is_empty() {
            return Err(Denial::Invalid(Flaw::Claims));
        }
        let has = |wanted: &String| {
            [&claims.scope, &claims.scp].into_iter().flatten().any(|scopes| scopes.has(wanted))
        };
        if !self.config.scopes.iter().all(has) {
            return Err(Denial::InsufficientScope { needs: self.needs.clone() });
        }
        let principal = Principal::new(claims.iss, claims.sub);
        if let Some(remembered) = &self.remembered {
            let until = (claims.exp as u64).saturating_add(self.config.leeway.as_secs());
            let known = Remembered { principal: principal.clone(), until, serial };
            // One of an older key set makes space.
            remembered.remove_if_sync(&digest, |old| old.serial != serial);
            let _ = remembered.put_sync(digest, known);
        }
        Ok(principal)
    }
}

impl Authenticator for Jwt {
    fn authenticate<'a>(&'a self, head: Head<'a>) -> Checked<'a> {
        let token = match bearer(head.headers) {
            Ok(token) => token,
            Err(denial) => return Checked::Now(Err(denial)),
        };
        let unknown = Err(Denial::Invalid(Flaw::Key));
        match self.look(token) {
            Looked::Done(verdict) => Checked::Now(verdict),
            Looked::NewKey(serial) if !self.keys.may_renew(serial) => Checked::Now(unknown),
            Looked::NewKey(serial) => Checked::later(async move {
                if !self.keys.renew(serial).await {
                    return unknown;
                }
                match self.look(token) {
                    Looked::Done(verdict) => verdict,
                    Looked::NewKey(_) => unknown,
                }
            }),
        }
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("config", &self.config).finish_non_exhaustive()
    }
}

fn validation(config: &JwtConfig, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm.theirs());
    validation.leeway = config.leeway.as_secs();
    validation.validate_nbf = true;
    validation.set_issuer(&[&config.issuer]);
    validation.set_audience(&config.audiences);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation
}

//= https://www.rfc-editor.org/rfc/rfc9068#section-4
//# The resource server MUST verify that the "typ" header value is "at+jwt" or "application/at+jwt" and reject tokens
//# carrying any other value.
// A departure: many authorization servers write `JWT`, or nothing. A token of another kind, such as for logging out, is
// refused; one for signing in has another audience.
fn is_access_token(kind: &str) -> bool {
    ["at+jwt", "application/at+jwt", "jwt", "application/jwt"]
        .iter()
        .any(|known| kind.eq_ignore_ascii_case(known))
}

fn denial(error: &ErrorKind) -> Denial {
    Denial::Invalid(match error {
        ErrorKind::ExpiredSignature => return Denial::Expired,
        ErrorKind::ImmatureSignature => Flaw::Early,
        ErrorKind::InvalidIssuer => Flaw::Issuer,
        ErrorKind::InvalidAudience => Flaw::Audience,
        ErrorKind::InvalidAlgorithm => Flaw::Algorithm,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => {
            Flaw::Claims
        }
        ErrorKind::InvalidToken | ErrorKind::Base64(_) | ErrorKind::Utf8(_) => Flaw::Form,
        _ => Flaw::Signature,
    })
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

/// Why tokens cannot be checked.
#[derive(Debug)]
pub struct JwtError(String);

impl From<KeysError> for JwtError {
    fn from(error: KeysError) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for JwtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for JwtError {}
