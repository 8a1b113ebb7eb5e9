//! Who sends a request: tokens, principals, and what those are told who may not come in.

#![cfg(feature = "tokens")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringmain::identity::{Authenticator, Checked, Denial, Head, Resource, Tokens, bearer};
use ringmain::internals::session::Principals;
use ringmain::internals::stream::Moment;
use ringmain::protocol::AllowList;
use ringmain::server::{Config, Server};
use ringmain::session::{Principal, Session};
use serde_json::{Value, json};
use support::{Client, Http2, POST_HEADERS, Reply, TestServer, Wire, hello, publish, soon, test, until};

const ADA: &str = "ada-ada-ada-ada-ada-ada";
/// A second token of hers.
const ADA_TOO: &str = "ada-too-ada-too-ada-too";
const BOB: &str = "bob-bob-bob-bob-bob-bob";
/// It lacks a scope.
const EVE: &str = "eve-eve-eve-eve-eve-eve";
const METADATA: &str = "/.well-known/oauth-protected-resource";

fn tokens() -> Tokens {
    let text = format!("{ADA} ada mcp\n{ADA_TOO} ada mcp\n{BOB} bob mcp\n{EVE} eve other\n");
    Tokens::parse(&text).unwrap().needing("mcp")
}

fn config(authenticator: impl Authenticator) -> Config {
    let mut config = Config::default();
    config.authenticator = Some(Arc::new(authenticator));
    config.resource = Some(
        Resource::new("https://mcp.example.com/mcp", ["https://login.example.com"])
            .and_then(|resource| resource.with_scope("mcp"))
            .unwrap(),
    );
    config
}

/// Sends `initialize` with these headers beside the usual ones.
async fn knock(server: &TestServer, headers: &[(&str, &str)]) -> Reply {
    let mut wire = Wire::connect(server.address).await;
    let headers = [&POST_HEADERS[..], headers].concat();
    wire.send(&support::request("POST", &headers, &hello("2025-11-25"))).await;
    wire.reply().await
}

async fn knock_as(server: &TestServer, token: &str) -> Reply {
    knock(server, &[("Authorization", &format!("Bearer {token}"))]).await
}

fn challenge(reply: &Reply) -> String {
    reply.header("www-authenticate").unwrap_or_default().to_owned()
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#error-handling
//= type=test
//# Servers MUST return appropriate HTTP status codes for authorization errors
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_bad_credentials_has_its_status_and_its_challenge() {
    test(async {
        let server = TestServer::start(config(tokens()));
        let where_to_go =
            format!(r#"Bearer resource_metadata="https://mcp.example.com{METADATA}/mcp", scope="mcp""#);
        let invalid = format!(r#"{where_to_go}, error="invalid_token""#);
        let malformed = format!(r#"{where_to_go}, error="invalid_request""#);
        let bearer = |token: &str| format!("Bearer {token}");
        let unknown = bearer("nobody-nobody-nobody");
        for (headers, status, start) in [
            (vec![], 401, &*where_to_go),
            (vec!["Basic YWRhOmFkYQ=="], 401, &where_to_go),
            (vec![ADA], 401, &where_to_go),
            (vec!["Bearer"], 400, &malformed),
            (vec!["Bearer ada-ada-ada-ada-ada-ada", "Bearer ada-ada-ada-ada-ada-ada"], 400, &malformed),
            (vec![&unknown], 401, &invalid),
            (vec!["Bearer ada-ada-ada-ada-ada-ad"], 401, &invalid),
            (vec!["Bearer ada-ada-ada-ada-ada-ada-"], 401, &invalid),
            (vec!["Bearer ada-ada-ada-ada-ada-ada x"], 401, &invalid),
            (vec!["Bearer \"quoted\""], 401, &invalid),
        ] {
            let sent: Vec<_> = headers.iter().map(|value| ("Authorization", *value)).collect();
            let reply = knock(&server, &sent).await;
            assert!(challenge(&reply).starts_with(start), "{headers:?}: {}", challenge(&reply));
            // Who sent no credentials is not told of an error.
            assert_eq!(challenge(&reply).contains("error="), start != where_to_go, "{headers:?}");
            assert_eq!(reply.header("mcp-session-id"), None);
            reply.error(status).await;
        }
        let reply = knock_as(&server, EVE).await;
        assert!(challenge(&reply).contains(r#"scope="mcp", error="insufficient_scope""#));
        reply.error(403).await;
        for token in [ADA, ADA_TOO, BOB] {
            let mut reply = knock_as(&server, token).await;
            assert_eq!(reply.status, 200);
            assert!(reply.json().await["result"].is_object());
        }
        // The scheme is read in any case.
        assert_eq!(knock(&server, &[("Authorization", "bEARER  bob-bob-bob-bob-bob-bob")]).await.status, 200);
    })
    .await;
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/security_best_practices#session-hijacking
//= type=test
//# MCP servers that implement authorization MUST verify all inbound requests. MCP Servers MUST NOT use sessions for
//# authentication.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_needs_its_token_whatever_the_session() {
    test(async {
        let server = TestServer::start(config(tokens()));
        let mut client = Client::initialize_as(server.address, "2025-11-25", ADA).await;
        client.ping(1).await;
        client.authorization = None;
        let ping = json!({"jsonrpc": "2.0", "id": 2, "method": "ping"});
        client.post(&ping).await.error(401).await;
        client.get(None).await.error(401).await;
        client.delete().await.error(401).await;
        // Neither a query nor a body stands for the header.
        let mut wire = Wire::connect(server.address).await;
        let mut request = String::from_utf8(client.get_bytes(None)).unwrap();
        request = request.replace("GET /mcp ", &format!("GET /mcp?access_token={ADA} "));
        wire.send(request.as_bytes()).await;
        wire.reply().await.error(401).await;
        assert_eq!(server.sessions.len(), 1);
        // Another token of the same principal will do.
        client.authorization = Some(format!("Bearer {ADA_TOO}"));
        client.ping(3).await;
        client.delete().await.nothing(204).await;
    })
    .await;
}

/// The body of a 404, which must be the same whoever asks, and why.
async fn not_found(mut reply: Reply) -> Value {
    assert_eq!((reply.status, reply.header("www-authenticate")), (404, None));
    reply.json().await
}

/// Contract, line 24.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_principal_sees_404() {
    test(async {
        let server = TestServer::start(config(tokens()));
        let ada = Client::initialize_as(server.address, "2025-11-25", ADA).await;
        let mut stream = ada.call_stream(1, "steps", json!({"before": 2, "after": 1})).await;
        let event_id = stream.primed().await;
        let mut listening = ada.listen(None).await;
        listening.primed().await;

        let mut bob = Client::initialize_as(server.address, "2025-11-25", BOB).await;
        // An ID that was never given out, and one that is hers: he cannot tell them apart.
        let unknown = ada.session.chars().rev().collect::<String>();
        let mut bodies = Vec::new();
        for session in [&unknown, &ada.session] {
            bob.session.clone_from(session);
            let ping = json!({"jsonrpc": "2.0", "id": 5, "method": "ping"});
            let notification =
                json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
            let response = json!({"jsonrpc": "2.0", "id": 1, "result": {}});
            let mut said = Vec::new();
            for message in [ping, notification, response] {
                said.push(not_found(bob.post(&message).await).await);
            }
            said.push(not_found(bob.get(None).await).await);
            said.push(not_found(bob.get(Some(&event_id)).await).await);
            said.push(not_found(bob.delete().await).await);
            let headers = [bob.headers(), POST_HEADERS.to_vec()].concat();
            said.push(not_found(bob.send("POST", &headers, &hello("2025-11-25")).await).await);
            bodies.push(said);
        }
        assert_eq!(bodies[0], bodies[1]);

        // Nothing of it touched her session.
        publish(&server.session(&ada), 1);
        assert_eq!(support::number(&listening.message().await.1), 1);
        server.control.release("call");
        let steps: Vec<_> = stream.rest().await.iter().map(|event| event.message()).collect();
        assert_eq!(steps.len(), 4);
        assert_eq!(steps[3]["result"]["done"], "call");
        // She may resume it, he may not.
        assert_eq!(ada.listen(Some(&event_id)).await.rest().await.len(), 5);
        assert_eq!(server.session(&ada).principal().map(Principal::subject), Some("ada"));
        assert_eq!(server.sessions.principals().len(), 2);
    })
    .await;
}

/// The same over HTTP/2, whose requests share a connection and not a principal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_one_connection_have_each_their_principal() {
    test(async {
        let server = TestServer::start(config(tokens()));
        let ada = Client::initialize_as(server.address, "2025-11-25", ADA).await;
        let http2 = Http2::connect(server.address).await;
        let (of_ada, of_bob) = (format!("Bearer {ADA}"), format!("Bearer {BOB}"));
        for (authorization, status) in [(&of_bob, 404), (&of_ada, 204), (&of_ada, 404)] {
            let headers = [("Mcp-Session-Id", &*ada.session), ("Authorization", authorization)];
            assert_eq!(http2.send("DELETE", &headers, b"").await.status, status);
        }
    })
    .await;
}

//= https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#protected-resource-metadata-discovery-requirements
//= type=test
//# Well-Known URI: Serve metadata at a well-known URI as specified in RFC9728.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_there_without_a_token() {
    test(async {
        let server = TestServer::start(config(tokens()));
        let ask = async |method: &str, path: &str| {
            let mut wire = Wire::connect(server.address).await;
            let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            wire.send(request.as_bytes()).await;
            wire.reply().await
        };
        for path in [METADATA.to_owned(), format!("{METADATA}/mcp")] {
            let mut reply = ask("GET", &path).await;
            assert_eq!(reply.status, 200);
            let document = reply.json().await;
            assert_eq!(document["resource"], "https://mcp.example.com/mcp");
            assert_eq!(document["authorization_servers"], json!(["https://login.example.com"]));
            assert_eq!(document["scopes_supported"], json!(["mcp"]));
            assert_eq!(ask("HEAD", &path).await.status, 200);
            let refused = ask("POST", &path).await;
            assert!(refused.header("allow").is_some());
            refused.error(405).await;
        }
        ask("GET", &format!("{METADATA}/other")).await.error(404).await;
        // Without anything to say there is nothing.
        let plain = TestServer::start(Config::default());
        let mut wire = Wire::connect(plain.address).await;
        wire.send(format!("GET {METADATA} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
        wire.reply().await.error(404).await;
    })
    .await;
}

/// A page may read why it was not let in, and where to get a token; its preflight needs none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_can_read_the_challenge() {
    test(async {
        let mut config = config(tokens());
        config.allowed.cors = AllowList::parse(["https://app.example.com"]).unwrap();
        let server = TestServer::start(config);
        let page = ("Origin", "https://app.example.com");
        let reply = knock(&server, &[page]).await;
        assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example.com"));
        let exposed = reply.header("access-control-expose-headers").unwrap().to_owned();
        for name in ["mcp-session-id", "www-authenticate", "retry-after"] {
            assert!(exposed.split(", ").any(|exposed| exposed == name), "{exposed}");
        }
        reply.error(401).await;
        let mut wire = Wire::connect(server.address).await;
        let asks = [
            page,
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "authorization"),
        ];
        wire.send(&support::request("OPTIONS", &asks, b"")).await;
        let reply = wire.reply().await;
        let allowed = reply.header("access-control-allow-headers").unwrap();
        assert!(allowed.split(", ").any(|allowed| allowed == "authorization"), "{allowed}");
        reply.nothing(204).await;
    })
    .await;
}

/// An authenticator of one's own, which may take its time.
struct Slow;

impl Authenticator for Slow {
    fn authenticate<'a>(&'a self, head: Head<'a>) -> Checked<'a> {
        assert!(head.address.is_loopback() && head.path == "/mcp" && head.method.as_str() == "POST");
        let token = match bearer(head.headers) {
            Ok(token) => token,
            Err(denial) => return Checked::Now(Err(denial)),
        };
        assert_ne!(token, "panic", "as asked");
        Checked::later(async move {
            tokio::task::yield_now().await;
            assert_ne!(token, "panic-later", "as asked");
            match token {
                "never" => std::future::pending().await,
                "forbidden" => Err(Denial::Forbidden),
                "unavailable" => Err(Denial::Unavailable),
                name => Ok(Principal::new("slow", name)),
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authenticator_may_take_its_time_and_may_fail() {
    test(async {
        let mut config = config(Slow);
        config.read_timeout = Duration::from_millis(200);
        let script = support::Script::new(support::Control::default());
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), script, config).unwrap();
        let handle = server.handle();
        let (address, metrics) = (handle.local_addr(), handle.metrics());
        let denials = metrics.denials();
        let running = tokio::spawn(server.run(std::future::pending()));
        let knock = async |token: &str| {
            let mut wire = Wire::connect(address).await;
            let authorization = format!("Bearer {token}");
            let headers = [&POST_HEADERS[..], &[("Authorization", &*authorization)]].concat();
            wire.send(&support::request("POST", &headers, &hello("2025-11-25"))).await;
            wire.reply().await
        };
        assert_eq!(knock("somebody").await.status, 200);
        let forbidden = knock("forbidden").await;
        assert_eq!(forbidden.header("www-authenticate"), None);
        forbidden.error(403).await;
        for token in ["unavailable", "never", "panic", "panic-later"] {
            let reply = knock(token).await;
            assert_eq!(
                (reply.header("www-authenticate"), reply.header("retry-after")),
                (None, Some("5")),
                "{token}"
            );
            reply.error(503).await;
        }
        knock("").await.error(400).await;
        let counted: Vec<_> = denials.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(
            counted,
            [("malformed_credentials", 1), ("not_permitted", 1), ("identity_unavailable", 4)]
        );
        running.abort();
        let _ = soon("the server to end", running).await;
    })
    .await;
}

/// Who has a session keeps their number, and for a while after the last of them; then it is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn principals_are_forgotten_a_while_after_their_sessions() {
    test(async {
        let server = TestServer::start(config(Slow));
        for name in 0..50 {
            assert_eq!(knock_as(&server, &format!("client-{name}")).await.status, 200);
        }
        let mut sessions = Vec::new();
        server.sessions.for_each(|session| sessions.push(session.clone()));
        let principals = server.sessions.principals();
        let number = |session: &Session| principals.hold(session.principal().unwrap()).id();
        for session in &sessions {
            assert_eq!(number(session), session.principal_id());
            assert!(server.sessions.terminate(session));
            assert_eq!(number(session), session.principal_id());
        }
        assert_eq!(principals.len(), 50);
        drop(sessions);
        // The map of sessions lets go of what was taken out of it when it is next worked on.
        let later = AtomicU64::new(1);
        let forgotten = || {
            drop(server.sessions.create(None));
            let times = later.fetch_add(1, Ordering::Relaxed);
            server.sessions.clock().advance(Moment(times * Principals::LINGER_MS));
            principals.forget();
            principals.is_empty()
        };
        until("the principals to be forgotten", forgotten).await;
    })
    .await;
}

/// The file is read again while the server runs; a bad file changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_reloaded() {
    test(async {
        let path = std::env::temp_dir().join(format!("ringmain-tokens-{}", std::process::id()));
        std::fs::write(&path, format!("{ADA} ada\n{BOB} bob\n")).unwrap();
        let tokens = Arc::new(Tokens::open(&path).unwrap());
        let mut config = Config::default();
        config.authenticator = Some(tokens.clone());
        let server = TestServer::start(config);
        let mut ada = Client::initialize_as(server.address, "2025-11-25", ADA).await;
        std::fs::write(&path, format!("{ADA_TOO} ada\n{BOB}")).unwrap();
        let error = tokens.reload().unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains(BOB), "{error}");
        ada.ping(1).await;
        std::fs::write(&path, format!("{ADA_TOO} ada\n")).unwrap();
        assert_eq!(tokens.reload().unwrap(), 1);
        std::fs::remove_file(&path).unwrap();
        assert!(tokens.reload().is_err());
        let reply = knock_as(&server, BOB).await;
        // Nobody gives out tokens, so that nobody is named.
        let text = r#"Bearer error="invalid_token", error_description="the access token is not known here""#;
        assert_eq!(challenge(&reply), text);
        reply.error(401).await;
        ada.get(None).await.error(401).await;
        ada.authorization = Some(format!("Bearer {ADA_TOO}"));
        ada.ping(2).await;
    })
    .await;
}

/// Takes whatever it finds first.
struct Careless;

impl Authenticator for Careless {
    fn authenticate<'a>(&'a self, head: Head<'a>) -> Checked<'a> {
        let name = head.headers.get("authorization").and_then(|value| value.to_str().ok());
        Checked::Now(name.map(|name| Principal::new("careless", name)).ok_or(Denial::Missing))
    }
}

/// An authenticator is not asked about credentials that others may read differently.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_credentials_are_refused_for_every_authenticator() {
    test(async {
        let server = TestServer::start(config(Careless));
        assert_eq!(knock(&server, &[("Authorization", "ada")]).await.status, 200);
        for both in [["ada", "bob"], ["ada", "ada"]] {
            let reply = knock(&server, &both.map(|name| ("Authorization", name))).await;
            reply.error(400).await;
        }
        assert_eq!(server.sessions.len(), 1);
    })
    .await;
}
