//! Signed tokens: what is accepted, what is not, and what becomes of the keys.

#![cfg(feature = "auth")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ringmain::identity::{Authenticator, Checked, Head, Jwt, JwtConfig, KeySource, Resource};
use ringmain::server::Config;
use serde_json::{Value, json};
use support::{Client, POST_HEADERS, Reply, TestServer, Wire, hello, test, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const ISSUER: &str = "https://login.example.com";
const AUDIENCE: &str = "https://mcp.example.com/mcp";

/// A private key, and how its public part is published.
struct Key {
    id: &'static str,
    algorithm: Algorithm,
    private: EncodingKey,
    public: Value,
}

impl Key {
    fn new(id: &'static str, algorithm: Algorithm) -> Self {
        let random = SystemRandom::new();
        let private = match algorithm {
            Algorithm::ES256 => {
                let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
                EncodingKey::from_ec_der(key.as_ref())
            }
            Algorithm::EdDSA => {
                EncodingKey::from_ed_der(Ed25519KeyPair::generate_pkcs8v1(&random).unwrap().as_ref())
            }
            _ => {
                let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
                // The key proper stands behind 26 bytes that say what it is.
                EncodingKey::from_rsa_der(&key.as_der().unwrap().as_ref()[26..])
            }
        };
        let mut public = serde_json::to_value(Jwk::from_encoding_key(&private, algorithm).unwrap()).unwrap();
        public["kid"] = json!(id);
        public["use"] = json!("sig");
        // Then it may be used for whatever its type is good for.
        public.as_object_mut().unwrap().remove("alg");
        Self { id, algorithm, private, public }
    }

    fn head(&self) -> Header {
        let mut head = Header::new(self.algorithm);
        head.kid = Some(self.id.to_owned());
        head
    }

    fn sign(&self, claims: &Value) -> String {
        jsonwebtoken::encode(&self.head(), claims, &self.private).unwrap()
    }

    fn sign_with(&self, change: impl FnOnce(&mut Header), claims: &Value) -> String {
        let mut head = self.head();
        change(&mut head);
        jsonwebtoken::encode(&head, claims, &self.private).unwrap()
    }
}

/// A number of seconds from now.
fn at(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}

/// Claims that are accepted.
fn claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": at(600), "scope": "openid mcp"})
}

/// Claims with one of them changed, or taken out.
fn but(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

/// An authorization server, as far as its keys go.
#[derive(Clone)]
struct Issuer {
    address: SocketAddr,
    /// What it answers: a head without the length, and a body.
    answer: Arc<Mutex<(String, String)>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer =
            Self { address: listener.local_addr().unwrap(), answer: Arc::default(), asked: Arc::default() };
        issuer.publish(keys);
        let serving = issuer.clone();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let _ = socket.read(&mut [0; 4096]).await;
                serving.asked.fetch_add(1, Ordering::SeqCst);
                // Long enough for others to come meanwhile.
                tokio::time::sleep(Duration::from_millis(30)).await;
                let (head, body) = serving.answer.lock().unwrap().clone();
                let length = body.len();
                let _ = socket
                    .write_all(format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())
                    .await;
            }
        });
        issuer
    }

    fn publish(&self, keys: &[&Key]) {
        let keys: Vec<_> = keys.iter().map(|key| &key.public).collect();
        self.say("HTTP/1.1 200 OK", json!({ "keys": keys }).to_string());
    }

    fn say(&self, head: &str, body: String) {
        *self.answer.lock().unwrap() = (head.to_owned(), body);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn config(&self) -> JwtConfig {
        let mut config =
            JwtConfig::new(ISSUER, AUDIENCE, KeySource::Url(format!("http://{}/keys", self.address)));
        config.scopes = vec!["mcp".to_owned()];
        config
    }
}

fn serve(jwt: Arc<Jwt>) -> TestServer {
    let mut config = Config::default();
    config.authenticator = Some(jwt);
    config.resource = Some(Resource::new(AUDIENCE, [ISSUER]).unwrap());
    TestServer::start(config)
}

async fn knock(server: &TestServer, token: &str) -> Reply {
    let authorization = format!("Bearer {token}");
    let headers = [&POST_HEADERS[..], &[("Authorization", &*authorization)]].concat();
    let mut wire = Wire::connect(server.address).await;
    wire.send(&support::request("POST", &headers, &hello("2025-11-25"))).await;
    wire.reply().await
}

async fn is_let_in(server: &TestServer, token: &str) -> bool {
    knock(server, token).await.status == 200
}

fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#token-handling
//= type=test
//# MCP servers MUST validate that access tokens were issued specifically for them as the intended audience, according to
//# RFC 8707 Section 2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_bad_token_is_refused_and_told_why() {
    test(async {
        let (ec, rsa, ed) = (
            Key::new("ec", Algorithm::ES256),
            Key::new("rsa", Algorithm::RS256),
            Key::new("ed", Algorithm::EdDSA),
        );
        let stranger = Key::new("ec", Algorithm::ES256);
        // It says what it is for, and is for nothing else.
        let mut narrow = Key::new("narrow", Algorithm::RS256);
        narrow.public["alg"] = json!("RS256");
        let issuer = Issuer::start(&[&ec, &rsa, &ed, &narrow]).await;
        let server = serve(Arc::new(Jwt::start(issuer.config()).await.unwrap()));

        let nameless = |head: &mut Header| head.kid = None;
        for (what, token) in [
            ("elliptic curve", ec.sign(&claims())),
            ("RSA", rsa.sign(&claims())),
            ("RSA-PSS", rsa.sign_with(|head| head.alg = Algorithm::PS512, &claims())),
            ("Edwards curve", ed.sign(&claims())),
            ("no key ID", rsa.sign_with(nameless, &claims())),
            ("no type", ec.sign_with(|head| head.typ = None, &claims())),
            ("access token type", ec.sign_with(|head| head.typ = Some("at+JWT".to_owned()), &claims())),
            ("several audiences", ec.sign(&but("aud", json!(["https://other.example", AUDIENCE])))),
            ("just expired", ec.sign(&but("exp", json!(at(-10))))),
            ("soon valid", ec.sign(&but("nbf", json!(at(10))))),
            ("a fraction", ec.sign(&but("exp", json!(at(600) as f64 + 0.5)))),
        ] {
            assert!(is_let_in(&server, &token).await, "{what}");
            // And again, from memory.
            assert!(is_let_in(&server, &token).await, "{what}");
        }
        let mut scopes = but("scope", Value::Null);
        for scp in [json!("mcp other"), json!(["other", "mcp"])] {
            scopes["scp"] = scp;
            assert!(is_let_in(&server, &ec.sign(&scopes)).await);
        }

        let good = ec.sign(&claims());
        let parts: Vec<_> = good.split('.').collect();
        let unsigned = |alg: &str| {
            let head = encode(&format!(r#"{{"alg":"{alg}","kid":"ec","typ":"JWT"}}"#));
            format!("{head}.{}.", encode(&claims().to_string()))
        };
        // The public key as a shared secret, in the forms in which it is known.
        let confused = |secret: &[u8]| {
            let mut head = Header::new(Algorithm::HS256);
            head.kid = Some("rsa".to_owned());
            jsonwebtoken::encode(&head, &claims(), &EncodingKey::from_secret(secret)).unwrap()
        };
        let modulus = URL_SAFE_NO_PAD.decode(rsa.public["n"].as_str().unwrap()).unwrap();
        let (invalid, form, algorithm) = ("invalid_token", "cannot be read", "not signed by an algorithm");
        for (what, token, status, error, why) in [
            ("expired", ec.sign(&but("exp", json!(at(-40)))), 401, invalid, "the access token expired"),
            ("early", ec.sign(&but("nbf", json!(at(40)))), 401, invalid, "not valid yet"),
            ("issuer", ec.sign(&but("iss", json!("https://evil.example"))), 401, invalid, "another issuer"),
            (
                "issuer and more",
                ec.sign(&but("iss", json!(format!("{ISSUER}/")))),
                401,
                invalid,
                "another issuer",
            ),
            ("issuers", ec.sign(&but("iss", json!([ISSUER, "x"]))), 401, invalid, "a claim"),
            (
                "audience",
                ec.sign(&but("aud", json!("https://mcp.example.com"))),
                401,
                invalid,
                "another audience",
            ),
            ("audiences", ec.sign(&but("aud", json!(["a", "b"]))), 401, invalid, "another audience"),
            ("no audience", ec.sign(&but("aud", Value::Null)), 401, invalid, "a claim"),
            ("empty audience", ec.sign(&but("aud", json!([]))), 401, invalid, "another audience"),
            ("no end", ec.sign(&but("exp", Value::Null)), 401, invalid, "a claim"),
            ("end in words", ec.sign(&but("exp", json!("never"))), 401, invalid, "a claim"),
            ("end far out", ec.sign(&but("exp", json!(1e300))), 401, invalid, "a claim"),
            ("nobody", ec.sign(&but("sub", Value::Null)), 401, invalid, "a claim"),
            ("empty name", ec.sign(&but("sub", json!(""))), 401, invalid, "a claim"),
            ("number for a name", ec.sign(&but("sub", json!(7))), 401, invalid, "a claim"),
            ("no issuer", ec.sign(&but("iss", Value::Null)), 401, invalid, "a claim"),
            ("none", unsigned("none"), 401, invalid, algorithm),
            ("None", unsigned("None"), 401, invalid, algorithm),
            ("unsigned", unsigned("ES256"), 401, invalid, "signature"),
            ("secret modulus", confused(&modulus), 401, invalid, algorithm),
            ("secret text", confused(rsa.public.to_string().as_bytes()), 401, invalid, algorithm),
            (
                "secret base64",
                confused(rsa.public["n"].as_str().unwrap().as_bytes()),
                401,
                invalid,
                algorithm,
            ),
            (
                "key for another algorithm",
                rsa.sign_with(|head| head.kid = Some("ec".to_owned()), &claims()),
                401,
                invalid,
                algorithm,
            ),
            (
                "key that is for one algorithm",
                narrow.sign_with(|head| head.alg = Algorithm::PS256, &claims()),
                401,
                invalid,
                algorithm,
            ),
            ("stranger of the same ID", stranger.sign(&claims()), 401, invalid, "signature"),
            (
                "stranger without ID",
                stranger.sign_with(|head| head.kid = None, &claims()),
                401,
                invalid,
                "signature",
            ),
            (
                "other claims",
                format!("{}.{}.{}", parts[0], encode(&but("sub", json!("root")).to_string()), parts[2]),
                401,
                invalid,
                "signature",
            ),
            (
                "critical",
                ec.sign_with(|head| head.crit = Some(vec!["b64".to_owned()]), &claims()),
                401,
                invalid,
                form,
            ),
            (
                "another type",
                ec.sign_with(|head| head.typ = Some("logout+jwt".to_owned()), &claims()),
                401,
                invalid,
                form,
            ),
            ("two parts", format!("{}.{}", parts[0], parts[1]), 401, invalid, form),
            ("four parts", format!("{good}.{}", parts[2]), 401, invalid, form),
            ("not JSON", format!("{}.{}.{}", encode("nonsense"), parts[1], parts[2]), 401, invalid, form),
            ("not base64", "a.b.c".to_owned(), 401, invalid, form),
            ("no parts", "opaque-token-of-another-kind".to_owned(), 401, invalid, form),
            ("scope", ec.sign(&but("scope", json!("mcpx openid"))), 403, "insufficient_scope", "scopes"),
            ("no scope", ec.sign(&but("scope", Value::Null)), 403, "insufficient_scope", "scopes"),
        ] {
            for _ in 0..2 {
                let reply = knock(&server, &token).await;
                let said = reply.header("www-authenticate").unwrap_or_default().to_owned();
                let expected = format!(r#"error="{error}", error_description=""#);
                assert!(said.contains(&expected) && said.contains(why), "{what}: {said}");
                assert!(
                    said.contains(r#"resource_metadata="https://mcp.example.com/.well-known/"#),
                    "{what}: {said}"
                );
                assert_eq!(reply.status, status, "{what}");
                reply.error(status).await;
            }
        }
    })
    .await;
}

/// No character of a token can be another, nor be left out: not even those whose last bits mean nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_with_one_change_is_refused() {
    test(async {
        let keys = [Key::new("ec", Algorithm::ES256), Key::new("ed", Algorithm::EdDSA)];
        let issuer = Issuer::start(&[&keys[0], &keys[1]]).await;
        let jwt = Jwt::start(issuer.config()).await.unwrap();
        let is_let_in = |token: &str| {
            let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
            let address = Ipv4Addr::LOCALHOST.into();
            match jwt.authenticate(Head::new(&Method::POST, "/mcp", &headers, address)) {
                Checked::Now(verdict) => verdict.is_ok(),
                // The change made another key ID of it.
                Checked::Later(_) => false,
            }
        };
        for key in keys {
            let good = key.sign(&claims());
            assert!(is_let_in(&good));
            for at in 0..good.len() {
                let (before, after) = (&good[..at], &good[at + 1..]);
                assert!(!is_let_in(&format!("{before}{after}")), "without character {at}");
                for other in
                    ["A", "B", "-", "_", ".", "=", "9"].into_iter().filter(|other| *other != &good[at..=at])
                {
                    assert!(!is_let_in(&format!("{before}{other}{after}")), "{other} as character {at}");
                }
                assert!(!is_let_in(before), "cut at {at}");
            }
            assert!(!is_let_in(&format!("{good}A")) && !is_let_in(&format!("{good}=")));
            assert!(is_let_in(&good));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn principals_are_those_of_the_issuer() {
    test(async {
        let key = Key::new("one", Algorithm::ES256);
        let issuer = Issuer::start(&[&key]).await;
        let server = serve(Arc::new(Jwt::start(issuer.config()).await.unwrap()));
        let mut client = Client::initialize_as(server.address, "2025-11-25", &key.sign(&claims())).await;
        let session = server.session(&client);
        let principal = session.principal().unwrap();
        assert_eq!((principal.issuer(), principal.subject()), (ISSUER, "ada"));
        // A fresh token of hers goes on where the last one was.
        client.authorization = Some(format!("Bearer {}", key.sign(&but("exp", json!(at(700))))));
        client.ping(1).await;
        client.authorization = Some(format!("Bearer {}", key.sign(&but("sub", json!("bob")))));
        client.get(None).await.error(404).await;
    })
    .await;
}

/// A token that names a new key is let in once the key is known; who invents keys causes one fetch and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_key_is_fetched_once_and_invented_ones_cause_no_flood() {
    test(async {
        let (old, new) = (Key::new("old", Algorithm::ES256), Key::new("new", Algorithm::ES256));
        let issuer = Issuer::start(&[&old]).await;
        let mut config = issuer.config();
        config.fetch_interval = Duration::from_secs(1);
        let jwt = Arc::new(Jwt::start(config).await.unwrap());
        let server = serve(jwt.clone());
        let (by_old, by_new) = (old.sign(&claims()), new.sign(&claims()));
        assert!(is_let_in(&server, &by_old).await);
        // So soon after the first fetch there is none.
        assert!(!is_let_in(&server, &by_new).await);
        assert_eq!((issuer.asked(), jwt.fetches()), (1, 1));

        issuer.publish(&[&old, &new]);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let at_once = (0..20).map(|_| is_let_in(&server, &by_new));
        assert!(futures_util::future::join_all(at_once).await.into_iter().all(|is_in| is_in));
        assert_eq!(issuer.asked(), 2);
        assert!(is_let_in(&server, &by_old).await);

        for round in 0..30 {
            let invented = new.sign_with(|head| head.kid = Some(format!("invented-{round}")), &claims());
            knock(&server, &invented).await.error(401).await;
        }
        assert_eq!(issuer.asked(), 2);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let invented = |round| new.sign_with(|head| head.kid = Some(format!("again-{round}")), &claims());
        let tokens: Vec<_> = (0..30).map(invented).collect();
        let at_once = tokens.iter().map(|token| is_let_in(&server, token));
        assert!(futures_util::future::join_all(at_once).await.into_iter().all(|is_in| !is_in));
        assert_eq!(issuer.asked(), 3);
    })
    .await;
}

/// A key that is not published any more is good for nothing, also for tokens that were let in before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawn_key_shuts_the_door() {
    test(async {
        let (old, new) = (Key::new("old", Algorithm::ES256), Key::new("new", Algorithm::ES256));
        let issuer = Issuer::start(&[&old]).await;
        let mut config = issuer.config();
        (config.fetch_interval, config.refresh) = (Duration::from_millis(100), Duration::from_millis(200));
        let jwt = Arc::new(Jwt::start(config).await.unwrap());
        let server = serve(jwt.clone());
        let by_old = old.sign(&claims());
        assert!(is_let_in(&server, &by_old).await);
        issuer.publish(&[&new]);
        let fetches = jwt.fetches();
        jwt.renew();
        until("the next fetches", || jwt.fetches() >= fetches + 2).await;
        knock(&server, &by_old).await.error(401).await;
        assert!(is_let_in(&server, &new.sign(&claims())).await);
    })
    .await;
}

/// While new keys cannot be had the old ones go on, for a while; then nobody can be let in, until they can be had
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_key_set_refuses_until_it_is_renewed() {
    test(async {
        let key = Key::new("one", Algorithm::ES256);
        let issuer = Issuer::start(&[&key]).await;
        let mut config = issuer.config();
        config.fetch_interval = Duration::from_millis(100);
        config.refresh = Duration::from_millis(100);
        config.max_stale = Duration::from_millis(1500);
        let jwt = Arc::new(Jwt::start(config).await.unwrap());
        let server = serve(jwt.clone());
        let token = key.sign(&claims());
        assert!(is_let_in(&server, &token).await);
        let large = json!({"keys": [key.public], "padding": "x".repeat(300 << 10)}).to_string();
        let good = json!({"keys": [key.public]}).to_string();
        for (head, body) in [
            ("HTTP/1.1 500 Oh No", good.clone()),
            // Whoever is somewhere else may be somebody else.
            ("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/keys", good.clone()),
            ("HTTP/1.1 200 OK", large),
            ("HTTP/1.1 200 OK", "<html>sign in</html>".to_owned()),
            ("HTTP/1.1 200 OK", r#"{"keys": []}"#.to_owned()),
        ] {
            issuer.say(head, body);
            let failed = jwt.failed_fetches();
            until("a fetch to fail", || jwt.failed_fetches() > failed + 1).await;
            if head.contains("500") {
                assert!(is_let_in(&server, &token).await, "the old keys go on for a while");
            }
        }
        until("the keys to expire", || !jwt.is_ready()).await;
        let reply = knock(&server, &token).await;
        assert_eq!((reply.header("retry-after"), reply.header("www-authenticate")), (Some("5"), None));
        reply.error(503).await;
        issuer.publish(&[&key]);
        until("the keys to be there again", || jwt.is_ready()).await;
        assert!(is_let_in(&server, &token).await);
    })
    .await;
}

/// A server that is not there yet when this one starts is asked again, and until then nobody is let in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_come_late_let_nobody_in_before() {
    test(async {
        let key = Key::new("one", Algorithm::ES256);
        let issuer = Issuer::start(&[&key]).await;
        issuer.say("HTTP/1.1 503 Not Yet", String::new());
        let mut config = issuer.config();
        config.fetch_interval = Duration::from_millis(100);
        let jwt = Arc::new(Jwt::start(config).await.unwrap());
        let server = serve(jwt.clone());
        let token = key.sign(&claims());
        knock(&server, &token).await.error(503).await;
        issuer.publish(&[&key]);
        until("the keys", || jwt.is_ready()).await;
        assert!(is_let_in(&server, &token).await);
    })
    .await;
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ringmain-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_an_error_at_the_start() {
    test(async {
        let key = Key::new("one", Algorithm::ES256);
        let good = file("good-keys.json", &json!({"keys": [key.public]}).to_string());
        let config = |keys: &PathBuf| JwtConfig::new(ISSUER, AUDIENCE, KeySource::File(keys.clone()));
        let error = async |config: JwtConfig| Jwt::start(config).await.unwrap_err().to_string();
        let missing = PathBuf::from("/nowhere/keys.json");
        let said = error(config(&missing)).await;
        assert!(said.starts_with("key set /nowhere/keys.json: ") && said.contains("No such file"), "{said}");
        for (name, text, why) in [
            ("html.json", "<html>", "it is no set of keys"),
            ("empty.json", r#"{"keys": []}"#, "no key in it can be used"),
            (
                "secret.json",
                r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}]}"#,
                "no key in it can be used",
            ),
        ] {
            let path = file(name, text);
            let said = error(config(&path)).await;
            assert!(said.contains(name) && said.contains(why), "{said}");
            std::fs::remove_file(path).unwrap();
        }
        let change = |change: fn(&mut JwtConfig)| {
            let mut config = config(&good);
            change(&mut config);
            error(config)
        };
        for (said, field) in [
            (change(|config| config.issuer.clear()).await, "issuer"),
            (change(|config| config.audiences.clear()).await, "audiences"),
            (change(|config| config.audiences.push(String::new())).await, "audiences"),
            (change(|config| config.algorithms.clear()).await, "algorithms"),
            (change(|config| config.scopes.push("a b".to_owned())).await, "scopes"),
            (change(|config| config.leeway = Duration::from_secs(3600)).await, "leeway"),
            (change(|config| config.fetch_interval = Duration::ZERO).await, "fetch_interval"),
            (change(|config| config.max_stale = Duration::MAX).await, "max_stale"),
            (change(|config| config.keys = "http://login.example.com/keys".into()).await, "key set"),
        ] {
            assert!(said.starts_with(field), "{said}");
        }
        // With a good file it works, and a file that changed is read again.
        let mut config = config(&good);
        (config.fetch_interval, config.refresh) = (Duration::from_millis(100), Duration::from_millis(100));
        let jwt = Arc::new(Jwt::start(config).await.unwrap());
        let server = serve(jwt.clone());
        assert!(is_let_in(&server, &key.sign(&claims())).await);
        let other = Key::new("other", Algorithm::EdDSA);
        std::fs::write(&good, json!({"keys": [other.public]}).to_string()).unwrap();
        let fetches = jwt.fetches();
        until("the file to be read again", || jwt.fetches() >= fetches + 2).await;
        assert!(is_let_in(&server, &other.sign(&claims())).await);
        std::fs::remove_file(good).unwrap();
    })
    .await;
}
