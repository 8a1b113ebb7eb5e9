//! TLS: both versions of HTTP by ALPN, and a certificate that is replaced under open streams.

#![cfg(feature = "tls")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ringmain::server::{Config, Drained, Server, Tls};
use serde_json::json;
use support::{Client, Control, Http2, Script, Wire, publish, soon, test, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A certificate of its own in files of its own.
struct Files {
    folder: PathBuf,
    tls: Tls,
}

impl Files {
    fn new(name: &str) -> Self {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let tls = Tls { certificates: folder.join("chain.pem"), key: folder.join("key.pem") };
        let files = Self { folder, tls };
        files.renew();
        files
    }

    /// Puts another certificate there, and returns it.
    fn renew(&self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(&self.tls.certificates, made.cert.pem()).expect("it can be written");
        std::fs::write(&self.tls.key, made.signing_key.serialize_pem()).expect("it can be written");
        made.cert.der().clone()
    }

    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.tls.certificates).expect("a certificate")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A server with TLS.
struct Secured {
    address: SocketAddr,
    server: support::TestServer,
}

impl Secured {
    fn start(files: &Files, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.tls = Some(files.tls.clone());
        change(&mut config);
        let server = support::TestServer::start(config);
        Self { address: server.address, server }
    }
}

/// Shakes hands with the server, trusting this certificate alone.
async fn connect(address: SocketAddr, trusted: CertificateDer<'static>, alpn: &str) -> TlsStream<TcpStream> {
    let socket = soon("a connection", TcpStream::connect(address)).await.expect("the server listens");
    soon("a handshake", connector(trusted, alpn).connect(name(), socket)).await.expect("a handshake")
}

fn connector(trusted: CertificateDer<'static>, alpn: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).expect("a certificate");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    TlsConnector::from(Arc::new(config))
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

/// An address without TLS, each of whose connections is one to the server with TLS: the clients of the other tests
/// know none.
async fn unwrapped(address: SocketAddr, trusted: CertificateDer<'static>, alpn: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let unwrapped = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut plain, _)) = listener.accept().await {
            let trusted = trusted.clone();
            tokio::spawn(async move {
                let mut secured = connect(address, trusted, alpn).await;
                assert_eq!(secured.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
                let _ = tokio::io::copy_bidirectional(&mut plain, &mut secured).await;
            });
        }
    });
    unwrapped
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_of_http_are_spoken_over_tls() {
    test(async {
        let files = Files::new("both");
        let secured = Secured::start(&files, |_| {});
        let http1 = unwrapped(secured.address, files.certificate(), "http/1.1").await;
        let http2 = unwrapped(secured.address, files.certificate(), "h2").await;
        let http2 = Http2::connect(http2).await;
        let clients = [
            Client::initialize(http1, "2025-11-25").await,
            Client::initialize_over(http2, "2025-11-25").await,
        ];
        for client in clients {
            let mut listening = client.listen(None).await;
            listening.primed().await;
            let mut place = String::new();
            for number in 1..=20 {
                publish(&secured.server.session(&client), number);
                let (event, message) = listening.message().await;
                assert_eq!(support::number(&message), number);
                place = event.id().to_owned();
            }
            let mut call =
                client.call_stream(1, "steps", json!({"label": "big", "after": 40, "padding": 20_000})).await;
            call.primed().await;
            secured.server.control.release("big");
            let events = call.rest().await;
            assert_eq!(events.len(), 41);
            assert_eq!(events.last().expect("a response").message()["result"]["done"], "big");
            // Cut and resumed over another connection.
            drop(listening);
            publish(&secured.server.session(&client), 21);
            let mut again = client.listen(Some(&place)).await;
            again.primed().await;
            assert_eq!(support::number(&again.message().await.1), 21);
            client.ping(2).await;
        }
        assert_eq!(secured.server.stop().await, Drained::Complete);
    })
    .await;
}

/// Streams outlive the certificate they began with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificate_is_replaced_under_open_streams() {
    test(async {
        let files = Files::new("reload");
        let first = files.certificate();
        let secured = Secured::start(&files, |_| {});
        let mut open = Vec::new();
        for alpn in ["http/1.1", "h2"] {
            let address = unwrapped(secured.address, first.clone(), alpn).await;
            let client = match alpn {
                "h2" => Client::initialize_over(Http2::connect(address).await, "2025-11-25").await,
                _ => Client::initialize(address, "2025-11-25").await,
            };
            let mut listening = client.listen(None).await;
            listening.primed().await;
            open.push((secured.server.session(&client), client, listening));
        }
        let shown = |stream: &TlsStream<TcpStream>| {
            stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone().into_owned()
        };
        assert_eq!(shown(&connect(secured.address, first.clone(), "h2").await), first);

        let second = files.renew();
        secured.server.handle.reload_tls().expect("the new one is as good");
        assert_ne!(first, second);
        assert_eq!(shown(&connect(secured.address, second.clone(), "h2").await), second);
        let socket = TcpStream::connect(secured.address).await.expect("the server listens");
        let refused = connector(first, "h2").connect(name(), socket).await;
        assert!(refused.is_err(), "the old one is not shown any more");

        // What cannot be used changes nothing, and says which file.
        std::fs::write(&files.tls.key, "-----BEGIN NOTHING-----").expect("it can be written");
        let error = secured.server.handle.reload_tls().expect_err("there is no key").to_string();
        assert!(error.contains("key.pem"), "{error}");
        let other = Files::new("other");
        std::fs::copy(&other.tls.key, &files.tls.key).expect("it can be copied");
        let error =
            secured.server.handle.reload_tls().expect_err("the key of another certificate").to_string();
        assert!(error.contains("chain.pem") && error.contains("key.pem"), "{error}");
        std::fs::remove_file(&files.tls.certificates).expect("it was there");
        let error = secured.server.handle.reload_tls().expect_err("there is no certificate").to_string();
        assert!(error.contains("chain.pem"), "{error}");
        connect(secured.address, second, "http/1.1").await;

        for (session, _client, listening) in &mut open {
            publish(session, 1);
            assert_eq!(support::number(&listening.message().await.1), 1, "the stream went on");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusable_certificate_is_an_error_at_start() {
    let files = Files::new("start");
    let bind = || {
        let mut config = Config::default();
        config.tls = Some(files.tls.clone());
        Server::bind((Ipv4Addr::LOCALHOST, 0).into(), Script::new(Control::default()), config)
    };
    drop(bind().expect("it is good"));
    for (path, text) in [
        (&files.tls.certificates, ""),
        (&files.tls.certificates, "not a certificate"),
        (&files.tls.certificates, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        (&files.tls.key, ""),
        (&files.tls.key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
    ] {
        files.renew();
        std::fs::write(path, text).expect("it can be written");
        let error = bind().expect_err("it cannot be used").to_string();
        let file = path.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(error.contains(file), "{error} does not name {file}, which holds {text:?}");
        assert!(!error.contains("AAAA"), "no key in a message: {error}");
    }
}

/// Who says nothing, or something else, is gone by the deadline, and nobody else notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_have_a_deadline() {
    test(async {
        let files = Files::new("slow");
        let secured = Secured::start(&files, |config| config.read_timeout = Duration::from_millis(500));
        let metrics = secured.server.metrics.clone();
        let counters = metrics.connections();
        let mut silent = Wire::connect(secured.address).await;
        let mut half = Wire::connect(secured.address).await;
        half.send(&[0x16, 3, 1, 2, 0, 1]).await;
        let mut plain = Wire::connect(secured.address).await;
        plain.send(b"GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        // Shakes hands, and then says nothing: its first head is late.
        let mut shaken = connect(secured.address, files.certificate(), "http/1.1").await;
        plain.closed().await;
        silent.closed().await;
        half.closed().await;
        let mut rest = Vec::new();
        let _ = soon("the end", AsyncReadExt::read_to_end(&mut shaken, &mut rest)).await;
        assert_eq!(rest, b"");
        until("all of it to be counted", || {
            (counters.refused_handshake(), counters.closed_deadline(), counters.open()) == (1, 3, 0)
        })
        .await;
        let address = unwrapped(secured.address, files.certificate(), "http/1.1").await;
        Client::initialize(address, "2025-11-25").await.ping(1).await;
    })
    .await;
}

/// A client that is still sending sees why it was refused, over TLS too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusal_reaches_a_sending_client_over_tls() {
    test(async {
        let files = Files::new("refused");
        let secured = Secured::start(&files, |_| {});
        let mut stream = connect(secured.address, files.certificate(), "http/1.1").await;
        let request = support::request("POST", &support::POST_HEADERS, &vec![b' '; 5 << 20]);
        soon("the server to read", stream.write_all(&request))
            .await
            .expect("the server takes what it refuses");
        let mut answer = String::new();
        soon("the end", stream.read_to_string(&mut answer))
            .await
            .expect("the connection ends without a reset");
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    })
    .await;
}
