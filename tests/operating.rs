//! What the operator sees: the page of numbers, and whether the server is ready.

#![cfg(feature = "server")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringmain::internals::protocol::Refusal;
use ringmain::server::{Admin, Config, Drained};
use serde_json::{Value, json};
use support::{Client, Http2, POST_HEADERS, TestServer, Wire, publish, request, test, until};

/// The operator's address of a server.
fn operate(server: &TestServer) -> SocketAddr {
    let admin =
        Admin::bind((Ipv4Addr::LOCALHOST, 0).into(), server.metrics.clone()).expect("loopback has a port");
    let address = admin.local_addr();
    tokio::spawn(admin.run());
    address
}

async fn ask(admin: SocketAddr, target: &str) -> (u16, Option<String>, String) {
    let mut wire = Wire::connect(admin).await;
    let bytes = String::from_utf8(request("GET", &[], b"")).unwrap();
    wire.send(bytes.replacen("/mcp", target, 1).as_bytes()).await;
    let mut reply = wire.reply().await;
    let content_type = reply.header("content-type").map(str::to_owned);
    (reply.status, content_type, String::from_utf8(reply.bytes().await).unwrap())
}

/// A page of numbers that keeps to the format, strictly.
#[derive(Debug, Default)]
struct Page {
    /// The type and the labels of each family.
    families: BTreeMap<String, (String, BTreeSet<String>)>,
    samples: BTreeMap<String, f64>,
}

impl Page {
    /// Reads a page; panics where it departs from OpenMetrics 1.0.
    fn read(text: &str) -> Self {
        let (mut page, mut family, mut helped) = (Self::default(), None::<(String, String)>, None);
        let body = text.strip_suffix("# EOF\n").expect("the page ends with its end");
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("help has words");
                assert!(
                    help.ends_with('.') && helped.replace(name.to_owned()).as_deref() != Some(name),
                    "{line}"
                );
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
                assert!(is_name(name) && helped.as_deref() == Some(name), "{line}");
                let first = page.families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
                assert!(first.is_none(), "a family stands in one place: {line}");
                family = Some((name.to_owned(), kind.to_owned()));
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                let (name, unit) = rest.split_once(' ').expect("a unit");
                assert!(name.ends_with(&format!("_{unit}")), "{line}");
            } else {
                let (name, kind) = family.as_ref().expect("a sample belongs to a family");
                page.sample(line, name, kind);
            }
        }
        page
    }

    fn sample(&mut self, line: &str, family: &str, kind: &str) {
        let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("labels end")),
            None => (series, ""),
        };
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} is not of {family}"));
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            _ => &["_bucket", "_sum", "_count"],
        };
        assert!(suffixes.contains(&suffix), "{line} in a {kind}");
        assert!(kind == "gauge" || value >= 0.0, "{line}");
        for label in labels.split_terminator(',') {
            let (label, value) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label), "{line}");
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect("quotes");
            // Nothing that a client chose: short words of our own, and numbers.
            let plain = |letter: char| letter.is_ascii_alphanumeric() || "_.+".contains(letter);
            assert!(value.len() <= 32 && value.chars().all(plain), "{line}");
            self.families.get_mut(family).expect("it is there").1.insert(label.to_owned());
        }
        assert!(self.samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
    }

    fn value(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("{series} in {:#?}", self.samples))
    }

    /// The buckets of a histogram, which count up.
    fn buckets(&self, name: &str) -> Vec<(f64, f64)> {
        let start = format!("{name}_bucket{{le=\"");
        let bucket = |(series, count): (&String, &f64)| {
            let end = series.strip_prefix(&start)?.strip_suffix("\"}")?;
            Some((if end == "+Inf" { f64::INFINITY } else { end.parse().ok()? }, *count))
        };
        let mut buckets: Vec<_> = self.samples.iter().filter_map(bucket).collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        buckets
    }
}

fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_lowercase())
        && letters.all(|letter| letter.is_ascii_lowercase() || letter == '_' || letter.is_ascii_digit())
}

/// A life with a bit of everything in it.
async fn live(server: &TestServer) -> Vec<Client> {
    let client = server.client().await;
    let mut listening = client.listen(None).await;
    let primed = listening.primed().await;
    publish(&server.session(&client), 1);
    listening.message().await;
    client.listen(Some(&primed)).await.primed().await;
    listening.ended().await;
    let over_http2 = Client::initialize_over(Http2::connect(server.address).await, "2025-11-25").await;
    let mut call = over_http2.call_stream(1, "steps", json!({"label": "call", "after": 2})).await;
    call.primed().await;
    server.control.release("call");
    call.rest().await;
    client.send("PATCH", &[], b"").await.error(405).await;
    client.send("POST", &POST_HEADERS, b"{").await.error(400).await;
    vec![client, over_http2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_of_numbers_keeps_to_its_format_and_names_nobody() {
    test(async {
        let server = TestServer::start(Config::default());
        let admin = operate(&server);
        let clients = live(&server).await;
        let (status, content_type, text) = ask(admin, "/metrics").await;
        assert_eq!(status, 200);
        assert_eq!(
            content_type.as_deref(),
            Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
        );
        for client in &clients {
            assert!(!text.contains(&client.session));
        }
        let page = Page::read(&text);
        assert_eq!(page.value("ringmain_sessions"), 2.0);
        assert_eq!(page.value("ringmain_ready"), 1.0);
        assert_eq!(page.value("ringmain_streams_opened_total"), 3.0);
        assert_eq!(page.value("ringmain_streams_resumed_total"), 1.0);
        assert_eq!(page.value("ringmain_streams_ended_total{reason=\"superseded\"}"), 1.0);
        assert_eq!(page.value("ringmain_streams_ended_total{reason=\"finished\"}"), 1.0);
        assert_eq!(page.value("ringmain_requests_total{method=\"other\",status=\"405\"}"), 1.0);
        assert_eq!(page.value("ringmain_refusals_total{kind=\"parse_error\",status=\"400\"}"), 1.0);
        // One message, and the two and the response of the call; the results of initialize went as JSON.
        assert_eq!(page.value("ringmain_events_published_total"), 6.0);
        assert!(page.value("process_resident_memory_bytes") > 1e6);
        assert!(page.value("process_open_fds") > 3.0);
        for (name, (kind, _)) in &page.families {
            if kind == "histogram" {
                let buckets = page.buckets(name);
                assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{buckets:?}");
                // Without a last bucket of this name Prometheus computes no quantile.
                let all = page.value(&format!("{name}_bucket{{le=\"+Inf\"}}"));
                assert_eq!(all, page.value(&format!("{name}_count")));
            }
        }
    })
    .await;
}

/// `rate()` sees nothing of a series that is born at 1: what can happen is shown before it happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_series_stands_at_zero_from_the_start() {
    test(async {
        let server = TestServer::start(Config::default());
        let before = Page::read(&server.metrics.text());
        for series in [
            "ringmain_requests_total{method=\"POST\",status=\"500\"}",
            "ringmain_requests_total{method=\"other\",status=\"other\"}",
            "ringmain_refusals_total{kind=\"bad_host\",status=\"403\"}",
            "ringmain_refusals_total{kind=\"draining\",status=\"503\"}",
            "ringmain_denials_total{reason=\"expired_token\"}",
            "ringmain_connections_refused_total{reason=\"total\"}",
        ] {
            assert_eq!(before.value(series), 0.0, "{series}");
        }
        live(&server).await;
        let after = Page::read(&server.metrics.text());
        let born: Vec<_> =
            after.samples.keys().filter(|series| !before.samples.contains_key(*series)).collect();
        assert!(born.is_empty(), "{born:?}");
        let started = after.value("process_start_time_seconds");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - 3600.0..=now + 1.0).contains(&started), "{started} of {now}");
    })
    .await;
}

/// What is answered to one client must not be given to another by a cache on the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_of_the_endpoint_is_stored() {
    test(async {
        let server = TestServer::start(Config::default());
        let over_http1 = server.client().await;
        let over_http2 = Client::initialize_over(Http2::connect(server.address).await, "2025-11-25").await;
        let mut seen = BTreeSet::new();
        for (index, client) in [over_http1, over_http2].iter().enumerate() {
            let label = format!("call {index}");
            let mut stream = client.call_stream(1, "steps", json!({"label": label})).await;
            let primed = stream.primed().await;
            server.control.release(&label);
            let last = stream.rest().await.last().expect("a response").id.clone().expect("it has an id");
            let notification = json!({"jsonrpc": "2.0", "method": "notifications/x"});
            for reply in [
                client.get(None).await,
                client.get(Some(&primed)).await,
                client.get(Some(&last)).await,
                client.post(&notification).await,
                client.request(2, "ping", json!({})).await,
                client.send("OPTIONS", &[], b"").await,
                client.send("PATCH", &[], b"").await,
                client.send("POST", &POST_HEADERS, b"{").await,
                client.send("GET", &[("Origin", "https://elsewhere.example")], b"").await,
                client.delete().await,
            ] {
                let stored = reply.header("cache-control").unwrap_or_default().to_owned();
                assert!(stored.split(", ").any(|word| word == "no-store"), "{}: {stored:?}", reply.status);
                seen.insert(reply.status);
            }
        }
        assert_eq!(Vec::from_iter(seen), [200, 202, 204, 400, 403, 405]);
    })
    .await;
}

/// The documentation lists every family with its type and labels, and none that is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_number_is_documented() {
    test(async {
        let server = TestServer::start(Config::default());
        live(&server).await;
        let page = Page::read(&server.metrics.text());
        let docs = include_str!("../docs/operations.md");
        let start = docs.find("<!-- metrics -->").expect("the table begins");
        let end = docs.find("<!-- end of metrics -->").expect("the table ends");
        let rows: Vec<&str> = docs[start..end].lines().filter(|line| line.starts_with("| `")).collect();
        for (name, (kind, labels)) in &page.families {
            let name = if kind == "counter" { format!("{name}_total") } else { name.clone() };
            let name = if kind == "info" { format!("{name}_info") } else { name };
            let labels: Vec<_> = labels.iter().filter(|label| *label != "le").map(String::as_str).collect();
            let row = format!("| `{name}` | {kind} | {} | ", labels.join(", "));
            assert!(rows.iter().any(|found| found.starts_with(&row)), "docs/operations.md needs: {row}...");
        }
        assert_eq!(rows.len(), page.families.len(), "a row is of something that is not there");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_timed_from_their_publication_to_the_socket() {
    if support::inside_hyper() {
        return;
    }
    test(async {
        let server = TestServer::start(Config::default());
        let client = server.client().await;
        let mut listening = client.listen(None).await;
        listening.primed().await;
        for number in 1..=300 {
            publish(&server.session(&client), number);
            listening.message().await;
        }
        let page = Page::read(&server.metrics.text());
        let count = page.value("ringmain_publish_to_write_seconds_count");
        assert!((2.0..=100.0).contains(&count), "{count} of 300 were timed");
        let sum = page.value("ringmain_publish_to_write_seconds_sum");
        assert!(sum > 0.0 && sum / count < 5.0, "{sum} seconds");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_means_that_clients_should_come() {
    test(async {
        let mut config = Config::default();
        config.drain = Duration::from_secs(30);
        let server = TestServer::start(config);
        let admin = operate(&server);
        let ready = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        let client = server.client().await;
        let (status, content_type, text) = ask(admin, "/readyz").await;
        assert_eq!((status, content_type.as_deref()), (200, Some("application/json")));
        assert_eq!(ready(&text), json!({"ready": true, "state": "serving"}));

        let mut call = client.call_stream(1, "steps", json!({"label": "call"})).await;
        call.primed().await;
        server.handle.drain();
        let metrics = server.metrics.clone();
        until("the drain", || metrics.readiness() == ringmain::server::Readiness::Draining).await;
        let (status, _, text) = ask(admin, "/readyz").await;
        assert_eq!((status, ready(&text)), (503, json!({"ready": false, "state": "draining"})));
        assert_eq!(ask(admin, "/healthz").await.0, 200, "it lives");
        assert_eq!(Page::read(&ask(admin, "/metrics").await.2).value("ringmain_ready"), 0.0);
        server.control.release("call");
        call.rest().await;
        assert_eq!(server.stopped().await, Drained::Complete);
    })
    .await;
}

/// Bound, and not serving yet.
#[tokio::test]
async fn a_server_that_does_not_serve_yet_is_not_ready() {
    let handler = support::Script::new(support::Control::default());
    let server =
        ringmain::server::Server::bind((Ipv4Addr::LOCALHOST, 0).into(), handler, Config::default()).unwrap();
    assert_eq!(server.handle().metrics().readiness(), ringmain::server::Readiness::Starting);
}

/// The rules of `docs/alerts.yml` name series and labels that there are. What they say is tested with promtool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_name_series_that_exist() {
    test(async {
        let server = TestServer::start(Config::default());
        let text = server.metrics.text();
        let rules = include_str!("../docs/alerts.yml");
        let mut named = 0;
        for line in rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")) {
            let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            for word in line.split(|letter| !is_part(letter)) {
                if word.starts_with("ringmain_") || word.starts_with("process_") {
                    let is_there = text
                        .lines()
                        .any(|line| line.strip_prefix(word).is_some_and(|rest| rest.starts_with([' ', '{'])));
                    assert!(is_there, "{word} in {line}");
                    named += 1;
                }
            }
            for (label, value) in [("kind", "draining"), ("reason", "address"), ("status", "500")] {
                if line.contains(value) {
                    assert!(text.contains(&format!("{label}=\"{value}\"")), "{line}");
                }
            }
        }
        assert!(named >= 10, "the rules were read: {named}");
    })
    .await;
}

/// Every refusal can be seen in the metrics before it was met, and its status has a series of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_is_counted_by_kind_and_status() {
    test(async {
        let server = TestServer::start(Config::default());
        let text = server.metrics.text();
        let has = |name: &str, labels: [String; 2]| {
            let mut series = text.lines().filter(|line| line.starts_with(name));
            series.any(|line| labels.iter().all(|label| line.contains(label)))
        };
        for (kind, status) in Refusal::KINDS {
            let (kind, status) = (format!("kind=\"{kind}\""), format!("status=\"{status}\""));
            assert!(has("ringmain_requests_total{", [r#"method="POST""#.into(), status.clone()]), "{status}");
            assert!(has("ringmain_refusals_total{", [kind.clone(), status]), "{kind}");
        }
    })
    .await;
}
