//! Keys that signed tokens are checked with: which of a published set can be used, and for what.

use core::fmt;
use core::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Shortest RSA modulus, in bytes.
const MIN_MODULUS_BYTES: usize = 256;

/// An algorithm that tokens are signed by: with a private key that only the issuer has. Those with a shared secret are
/// not among them, so that nobody can pass a public key off as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of RFC 7518")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// The name, as in the head of a token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    pub(super) const fn theirs(self) -> jsonwebtoken::Algorithm {
        use jsonwebtoken::Algorithm as Theirs;
        match self {
            Self::RS256 => Theirs::RS256,
            Self::RS384 => Theirs::RS384,
            Self::RS512 => Theirs::RS512,
            Self::PS256 => Theirs::PS256,
            Self::PS384 => Theirs::PS384,
            Self::PS512 => Theirs::PS512,
            Self::ES256 => Theirs::ES256,
            Self::ES384 => Theirs::ES384,
            Self::EdDSA => Theirs::EdDSA,
        }
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text).ok_or(UnknownAlgorithm)
    }
}

/// The text names no algorithm that tokens may be signed by here.
///
/// # Examples
///
/// ```
/// use ringmain::identity::{Algorithm, UnknownAlgorithm};
///
/// // Anybody who knows the public key could sign with it.
/// assert_eq!("HS256".parse::<Algorithm>(), Err(UnknownAlgorithm));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownAlgorithm;

impl fmt::Display for UnknownAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA")
    }
}

impl std::error::Error for UnknownAlgorithm {}

/// One key, and what it may be used for.
pub(super) struct Key {
    id: Option<Box<str>>,
    algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

/// What a token is to be checked with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// No key has that ID: there may be newer ones.
    UnknownId,
    /// The key with that ID is for other algorithms.
    OtherAlgorithm,
}

/// The keys of an issuer that can be used.
#[derive(Default)]
pub(super) struct KeySet(Vec<Key>);

#[derive(Deserialize)]
struct Published<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl KeySet {
    /// Reads a set as it is published.
    //= https://www.rfc-editor.org/rfc/rfc7517#section-5
    //# Implementations SHOULD ignore JWKs within a JWK Set that use "kty" (key type) values that are not understood by
    //# them, that are missing required members, or for which values are out of the supported ranges.
    pub(super) fn parse(json: &[u8]) -> Result<Self, &'static str> {
        let published: Published<'_> = serde_json::from_slice(json).map_err(|_| "it is no set of keys")?;
        let read = |key: &&RawValue| serde_json::from_str(key.get()).ok().and_then(|jwk| usable(&jwk));
        let keys: Vec<_> = published.keys.iter().filter_map(read).collect();
        if keys.is_empty() { Err("no key in it can be used") } else { Ok(Self(keys)) }
    }

    /// The keys that a token may be signed by which names `id` and `algorithm`.
    pub(super) fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<impl Iterator<Item = &Key>, NoKey> {
        if id.is_some() && !self.0.iter().any(|key| key.id.as_deref() == id) {
            return Err(NoKey::UnknownId);
        }
        let fits = move |key: &&Key| {
            key.algorithms.contains(&algorithm) && id.is_none_or(|id| key.id.as_deref() == Some(id))
        };
        if self.0.iter().any(|key| fits(&key)) {
            return Ok(self.0.iter().filter(fits));
        }
        Err(NoKey::OtherAlgorithm)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The key, if tokens can be checked with it: a public one, for signatures, long enough.
fn usable(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    let for_signatures =
        common.public_key_use.as_ref().is_none_or(|is_for| *is_for == PublicKeyUse::Signature);
    let to_verify = common.key_operations.as_ref().is_none_or(|can| can.contains(&KeyOperations::Verify));
    if !for_signatures || !to_verify {
        return None;
    }
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let by_type: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[ES256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => &[ES384],
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[EdDSA],
        // A shared secret, above all, is no public key.
        _ => return None,
    };
    // A key that says what it is for is for nothing else.
    let algorithms = match common.key_algorithm {
        None => by_type.to_vec(),
        Some(named) => by_type.iter().copied().filter(|one| one.as_str() == named.to_string()).collect(),
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let is_long_enough = match &jwk.algorithm {
        AlgorithmParameters::RSA(key) => URL_SAFE_NO_PAD
            .decode(&key.n)
            .is_ok_and(|n| n.iter().skip_while(|byte| **byte == 0).count() >= MIN_MODULUS_BYTES),
        _ => true,
    };
    (is_long_enough && !algorithms.is_empty()).then(|| Key {
        id: common.key_id.as_deref().map(Into::into),
        algorithms,
        key,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The key of RFC 7517, appendix A.1.
    fn ec() -> Value {
        json!({
            "kty": "EC", "crv": "P-256", "kid": "ec",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        })
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn parse(keys: &[Value]) -> Result<KeySet, &'static str> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn only_public_keys_for_signatures_are_used() {
        let secret =
            json!({"kty": "oct", "kid": "secret", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "alg": "HS256"});
        let short = json!({"kty": "RSA", "kid": "short", "n": "u1SU1LfVLPHCozMxH2Mo4lgOEePzNm0tRgeLezV6ffAt0gun", "e": "AQAB"});
        let zeros = "A".repeat(400);
        let padded = json!({"kty": "RSA", "n": zeros, "e": "AQAB"});
        for unusable in [
            secret.clone(),
            with(secret, "alg", json!("RS256")),
            short,
            padded,
            with(ec(), "use", json!("enc")),
            with(ec(), "key_ops", json!(["sign"])),
            with(ec(), "alg", json!("RS256")),
            with(ec(), "alg", json!("none")),
            with(ec(), "crv", json!("secp256k1")),
            with(ec(), "crv", json!("P-521")),
            with(ec(), "kty", json!("XX")),
            json!({}),
            json!(7),
            json!(null),
        ] {
            assert_eq!(
                parse(std::slice::from_ref(&unusable)).err(),
                Some("no key in it can be used"),
                "{unusable}"
            );
            // It does not spoil the others.
            assert_eq!(parse(&[unusable, ec()]).unwrap().len(), 1);
        }
        for usable in [ec(), with(ec(), "use", json!("sig")), with(ec(), "key_ops", json!(["verify"]))] {
            assert_eq!(parse(&[usable]).unwrap().len(), 1);
        }
        for text in ["", "{}", "[]", "null", r#"{"keys": {}}"#, r#"{"keys": []}"#, "<html>"] {
            assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_is_found_by_its_id_and_for_its_algorithm() {
        let named = with(ec(), "kid", json!("other"));
        let mut nameless = ec();
        nameless.as_object_mut().unwrap().remove("kid");
        let set = parse(&[ec(), named, nameless]).unwrap();
        let count = |id, algorithm| set.find(id, algorithm).map(Iterator::count);
        assert_eq!(count(Some("ec"), Algorithm::ES256), Ok(1));
        assert_eq!(count(None, Algorithm::ES256), Ok(3));
        assert_eq!(count(Some("ec"), Algorithm::RS256), Err(NoKey::OtherAlgorithm));
        assert_eq!(count(None, Algorithm::EdDSA), Err(NoKey::OtherAlgorithm));
        assert_eq!(count(Some("new"), Algorithm::ES256), Err(NoKey::UnknownId));
    }

    #[test]
    fn algorithms_are_read_as_they_are_written() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
            assert_eq!(format!("{:?}", algorithm.theirs()), algorithm.as_str());
        }
        for text in ["none", "None", "HS256", "HS512", "ES512", "rs256", ""] {
            assert_eq!(text.parse::<Algorithm>(), Err(UnknownAlgorithm), "{text}");
        }
    }
}
