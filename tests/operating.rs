//! What the operator sees: the page of numbers, and whether the server is ready.

#![cfg(feature = "server")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringmain::server::{Admin, Config, Drained};
use serde_json::{Value, json};
use support::{Client, Http2, POST_HEADERS, TestServer, Wire, publish, request, test, until};

/// The operator's address of a server.
fn operate(server: &TestServer) -> SocketAddr {
    let admin =
        Admin::bind((Ipv4Addr::LOCALHOST, 0).into(), server.metrics.clone()).expect("loopback has a port");
    let address = admin.local_addr().expect("it is bound");
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
            assert!(value.len() <= 24 && value.chars().all(plain), "{line}");
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
                assert_eq!(buckets.last().unwrap().1, page.value(&format!("{name}_count")));
            }
        }
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
        let mut server = TestServer::start(config);
        let admin = operate(&server);
        let ready = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        let client = server.client().await;
        let (status, content_type, text) = ask(admin, "/readyz").await;
        assert_eq!((status, content_type.as_deref()), (200, Some("application/json")));
        assert_eq!(ready(&text), json!({"ready": true, "state": "serving"}));

        let mut call = client.call_stream(1, "steps", json!({"label": "call"})).await;
        call.primed().await;
        server.begin_stop();
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
    assert_eq!(server.metrics().readiness(), ringmain::server::Readiness::Starting);
}

/// Every kind of refusal stands in the documentation beside its status.
#[test]
fn every_refusal_is_documented() {
    let (table, docs) = (include_str!("../src/protocol/mod.rs"), include_str!("../docs/operations.md"));
    let start = docs.find("<!-- refusals -->").expect("the table begins");
    let end = docs.find("<!-- end of refusals -->").expect("the table ends");
    let mut kinds = 0;
    for row in table.lines().filter_map(|line| line.strip_prefix("//! | `")) {
        let columns: Vec<&str> = row.split(" | ").collect();
        let (kind, status) = (columns[0].trim_end_matches('`'), columns[2]);
        let found = docs[start..end].lines().find(|line| line.contains(&format!("`{kind}`")));
        let found =
            found.unwrap_or_else(|| panic!("docs/operations.md needs `{kind}` in the row of {status}"));
        assert!(found.starts_with(&format!("| {status} | ")), "{kind} is {status}: {found}");
        kinds += 1;
    }
    assert!(kinds > 30, "the table was read");
}
