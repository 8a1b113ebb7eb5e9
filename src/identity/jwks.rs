//! The key set of an authorization server: fetched, kept, and renewed when it has to be.
//!
//! One task fetches, so that at most one fetch is under way. It does so when the set is old, and when a token names a
//! key that is not in it, but never sooner than [`Pace::between`] after the fetch before: tokens with invented
//! keys cause no flood. A request whose key may be among newer ones waits for the fetch under way and looks again.
//!
//! While no new set can be had, the old one goes on for [`Pace::stale`]. Then nothing can be checked, and requests are
//! told to come later: a key that its owner withdrew would be good for ever otherwise.

use core::fmt;
use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::keys::KeySet;
use super::resource::check_url;
use crate::sync::{Arc, AtomicU64, Ordering};

/// A larger answer is no set of keys.
const MAX_BYTES: usize = 256 << 10;
/// How long a fetch may take, all told.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// A set that says it is good for longer is fetched again all the same.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// Where the keys are published.
///
/// # Examples
///
/// ```
/// use ringmain::identity::KeySource;
///
/// assert_eq!(KeySource::from("keys.json"), KeySource::File("keys.json".into()));
/// assert!(matches!(KeySource::from("https://auth.example.com/jwks"), KeySource::Url(_)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In a file, which is read again as a URL is.
    File(PathBuf),
    /// At a URL: `https`, or `http` on loopback. The authorities trusted are those of the system. Redirects are not
    /// followed.
    Url(String),
}

impl From<&str> for KeySource {
    fn from(text: &str) -> Self {
        if text.contains("://") { Self::Url(text.to_owned()) } else { Self::File(text.into()) }
    }
}

/// How often, how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Until the set is fetched again, unless its answer says how long it is good.
    pub(super) refresh: Duration,
    /// Between two fetches at least.
    pub(super) between: Duration,
    /// For how long a set goes on that ought to have been renewed.
    pub(super) stale: Duration,
}

/// The set, renewed for as long as this is there.
pub(super) struct Jwks {
    shared: Arc<Cache>,
    keeper: JoinHandle<()>,
}

struct Cache {
    source: Source,
    times: Pace,
    current: ArcSwap<Current>,
    fetches: watch::Sender<Fetches>,
    wanted: Notify,
    failed: AtomicU64,
}

/// The set as it is now.
pub(super) struct Current {
    pub(super) keys: KeySet,
    /// Counts the sets: two of the same number are the same.
    pub(super) serial: u64,
    good_until: Instant,
}

impl Current {
    /// Whether it may still be used.
    pub(super) fn is_good(&self) -> bool {
        Instant::now() < self.good_until
    }
}

/// What became of fetches so far.
#[derive(Clone, Copy, Debug)]
struct Fetches {
    ended: u64,
    under_way: bool,
    begun: Instant,
}

impl Jwks {
    /// Fetches the set, and begins to keep it. A file that cannot be used is an error; a server that does not answer
    /// yet is asked again, and until then nothing can be checked.
    pub(super) async fn start(source: &KeySource, times: Pace) -> Result<Self, KeysError> {
        let source = Source::new(source)?;
        let first = source.fetch().await;
        let now = Instant::now();
        let failed = match &first {
            Ok(_) => 0,
            Err(error) if matches!(source, Source::File(_)) => return Err(error.clone()),
            Err(error) => {
                tracing::warn!(%error, "no key set yet; until it is fetched, requests with tokens get 503");
                1
            }
        };
        let (current, pause) = match first {
            Ok(fetched) => Current::new(fetched, 1, now, times),
            Err(_) => (Current { keys: KeySet::default(), serial: 0, good_until: now }, times.between),
        };
        let shared = Arc::new(Cache {
            source,
            times,
            current: ArcSwap::from_pointee(current),
            fetches: watch::Sender::new(Fetches { ended: 1, under_way: false, begun: now }),
            wanted: Notify::new(),
            failed: AtomicU64::new(failed),
        });
        let keeper = tokio::spawn(shared.clone().keep(pause));
        Ok(Self { shared, keeper })
    }

    /// The set as it is now.
    pub(super) fn current(&self) -> Guard<Arc<Current>> {
        self.shared.current.load()
    }

    /// Whether there may be a newer set than number `serial` soon, or is already.
    pub(super) fn may_renew(&self, serial: u64) -> bool {
        let fetches = *self.shared.fetches.borrow();
        fetches.under_way
            || fetches.begun.elapsed() >= self.shared.times.between
            || self.current().serial != serial
    }

    /// Asks for a fetch, and does not wait for it.
    pub(super) fn want(&self) {
        self.shared.wanted.notify_one();
    }

    /// Waits until it is known whether there is a newer set than number `serial`.
    pub(super) async fn renew(&self, serial: u64) -> bool {
        let mut fetches = self.shared.fetches.subscribe();
        let seen = *fetches.borrow_and_update();
        if self.current().serial == serial && self.may_renew(serial) {
            self.want();
            let ended = fetches.wait_for(|fetches| fetches.ended > seen.ended);
            let _ = tokio::time::timeout(FETCH_TIMEOUT, ended).await;
        }
        self.current().serial != serial
    }

    /// How often the set was fetched, and how often that failed.
    pub(super) fn fetches(&self) -> (u64, u64) {
        // Relaxed: a number for whoever looks, which orders nothing.
        (self.shared.fetches.borrow().ended, self.shared.failed.load(Ordering::Relaxed))
    }
}

impl Drop for Jwks {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Current {
    /// A set that was fetched just now, and when to fetch the next.
    fn new(fetched: Fetched, serial: u64, now: Instant, times: Pace) -> (Self, Duration) {
        let pause = fetched.max_age.unwrap_or(times.refresh).min(MAX_AGE).max(times.between);
        (Self { keys: fetched.keys, serial, good_until: now + pause + times.stale }, pause)
    }
}

impl Cache {
    async fn keep(self: Arc<Self>, mut pause: Duration) {
        let mut due = Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = self.wanted.notified() => {
                    // Somebody asked while the last fetch was under way, and has its answer.
                    if self.fetches.borrow().begun.elapsed() < self.times.between {
                        continue;
                    }
                }
            }
            self.fetches.send_modify(|fetches| {
                fetches.under_way = true;
                fetches.begun = Instant::now();
            });
            match self.source.fetch().await {
                Ok(fetched) => {
                    let (current, next) =
                        Current::new(fetched, self.current.load().serial + 1, Instant::now(), self.times);
                    tracing::debug!(keys = current.keys.len(), "fetched the key set");
                    self.current.store(Arc::new(current));
                    pause = next;
                }
                Err(error) => {
                    // Relaxed: as in `fetches`.
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "cannot renew the key set");
                    pause = self.times.between;
                }
            }
            due = Instant::now() + pause;
            self.fetches.send_modify(|fetches| {
                fetches.under_way = false;
                fetches.ended += 1;
            });
        }
    }
}

struct Fetched {
    keys: KeySet,
    max_age: Option<Duration>,
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

enum Source {
    File(PathBuf),
    Url { client: Box<HttpClient>, uri: Uri },
}

impl Source {
    fn new(source: &KeySource) -> Result<Self, KeysError> {
        match source {
            KeySource::File(path) => Ok(Self::File(path.clone())),
            KeySource::Url(url) => {
                let uri = check_url("key set", url).map_err(|error| KeysError(error.to_string()))?;
                let client = Box::new(client(uri.scheme_str() == Some("https"))?);
                Ok(Self::Url { client, uri })
            }
        }
    }

    async fn fetch(&self) -> Result<Fetched, KeysError> {
        match self {
            Self::File(path) => {
                let at =
                    |reason: &dyn fmt::Display| KeysError(format!("key set {}: {reason}", path.display()));
                let (reading, shown) = (path.clone(), at);
                let read = tokio::task::spawn_blocking(move || {
                    if std::fs::metadata(&reading)?.len() > MAX_BYTES as u64 {
                        return Err(std::io::Error::other("the file is larger than 256 KiB"));
                    }
                    std::fs::read(&reading)
                });
                let json = read.await.map_err(|error| shown(&error))?.map_err(|error| shown(&error))?;
                Ok(Fetched { keys: KeySet::parse(&json).map_err(|reason| at(&reason))?, max_age: None })
            }
            Self::Url { client, uri } => {
                let fetched = tokio::time::timeout(FETCH_TIMEOUT, get(client, uri)).await;
                fetched.unwrap_or_else(|_| Err("no answer in time".to_owned())).map_err(|reason| {
                    // Without the path: it is the operator's, and may be a secret.
                    KeysError(format!(
                        "key set of {}: {reason}",
                        uri.authority().map_or("", |at| at.as_str())
                    ))
                })
            }
        }
    }
}

/// A client that trusts whom the system trusts, and keeps no connection open.
fn client(secure: bool) -> Result<HttpClient, KeysError> {
    let wrong = |error: &dyn fmt::Display| KeysError(format!("key set: cannot speak TLS: {error}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| wrong(&error))?;
    let config = if secure {
        config.with_native_roots().map_err(|error| wrong(&error))?.with_no_client_auth()
    } else {
        config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
    };
    let connector = HttpsConnectorBuilder::new().with_tls_config(config);
    let connector = if secure { connector.https_only() } else { connector.https_or_http() };
    Ok(Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector.enable_http1().build()))
}

async fn get(client: &HttpClient, uri: &Uri) -> Result<Fetched, String> {
    let request = Request::get(uri).header(ACCEPT, "application/jwk-set+json, application/json");
    let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
    let answer = client.request(request).await.map_err(|error| with_sources(&error))?;
    if answer.status() != StatusCode::OK {
        return Err(format!("the answer was {}", answer.status().as_u16()));
    }
    let max_age = max_age(answer.headers());
    let json =
        Limited::new(answer.into_body(), MAX_BYTES).collect().await.map_err(|error| error.to_string())?;
    Ok(Fetched { keys: KeySet::parse(&json.to_bytes())?, max_age })
}

/// How long the answer says that it is good.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives = values.flat_map(|value| value.split(',')).map(str::trim);
    directives.find_map(|directive| directive.strip_prefix("max-age=")?.parse().ok()).map(Duration::from_secs)
}

/// An error with what is behind it: the client's own says little.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Why there are no keys.
#[derive(Clone, Debug)]
pub(super) struct KeysError(String);

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn an_answer_says_how_long_it_is_good() {
        for (value, expected) in [
            ("max-age=60", Some(60)),
            ("public, max-age=300, must-revalidate", Some(300)),
            ("no-store", None),
            ("max-age=", None),
            ("max-age=-1", None),
            ("s-maxage=5", None),
        ] {
            let headers = HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_static(value))]);
            assert_eq!(max_age(&headers), expected.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn keys_are_fetched_from_where_nobody_listens_in() {
        for url in
            ["http://login.example.com/keys", "ftp://a/b", "https://a.example/k?token=secret", "https://"]
        {
            assert!(Source::new(&KeySource::from(url)).is_err(), "{url}");
        }
        assert!(Source::new(&KeySource::from("http://127.0.0.1:1/keys")).is_ok());
        assert_eq!(KeySource::from("/etc/keys.json"), KeySource::File("/etc/keys.json".into()));
    }
}
