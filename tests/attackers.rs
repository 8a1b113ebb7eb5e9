//! Attackers at full speed beside honest clients, who are served all the same.
//!
//! Each attacker is a thread of its own, as fast as it can be, from an address of its own. A few seconds; with
//! `RINGMAIN_TEST_LONG=1`, a minute. Prints how long the honest clients waited (`--nocapture`); they share the cores
//! with the attackers. None of them waits for ten seconds for anything, or the test fails.

#![cfg(all(feature = "server", target_os = "linux"))]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringmain::server::{Config, Drained};
use support::frames::{END_HEADERS, HEADERS, RST_STREAM, SETTINGS, frame, request_block};
use support::{Client, POST_HEADERS, TestServer, number, publish, request};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Connections that one address may have.
const PER_ADDRESS: usize = 150;
/// What each attacker that holds connections would like to have.
const GREED: usize = 400;
const HONEST: usize = 12;

/// What all attackers know.
#[derive(Clone)]
struct Attack {
    server: SocketAddr,
    from: Ipv4Addr,
    stop: Arc<AtomicBool>,
    /// Connections, or requests, that were begun.
    begun: Arc<AtomicU64>,
}

impl Attack {
    fn is_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    async fn connect(&self) -> Option<TcpStream> {
        let socket = TcpSocket::new_v4().ok()?;
        socket.bind((self.from, 0).into()).ok()?;
        let socket = timeout(Duration::from_secs(2), socket.connect(self.server)).await.ok()?.ok()?;
        self.count();
        Some(socket)
    }

    /// Runs `attack` on a thread of its own until it is told to stop.
    fn start<F: Future<Output = ()>>(self, attack: impl Fn(Self) -> F + Send + 'static) -> JoinHandle<()> {
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                while self.is_on() {
                    // One that ran into a limit tries again.
                    let _ = timeout(Duration::from_secs(5), attack(self.clone())).await;
                }
            });
        })
    }

    /// Opens as many connections as it gets, says `begin` on each, and then a byte at a time.
    async fn slow(self, begin: Vec<u8>) {
        let mut held = Vec::new();
        while self.is_on() {
            if held.len() < GREED
                && let Some(mut socket) = self.connect().await
                && socket.write_all(&begin).await.is_ok()
            {
                held.push(socket);
            }
            if held.len() >= GREED || self.begun.load(Ordering::Relaxed).is_multiple_of(16) {
                held.retain(|socket| {
                    let mut answer = [0; 256];
                    let is_open = match socket.try_read(&mut answer) {
                        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
                        Ok(_) => false,
                    };
                    is_open && socket.try_write(b"x").is_ok()
                });
                tokio::task::yield_now().await;
            }
        }
    }

    /// Begins requests and resets them.
    async fn resets(self) {
        let Some(mut socket) = self.connect().await else { return };
        let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
        let fields = request_block("POST", &POST_HEADERS);
        if socket.write_all(&hello).await.is_err() {
            return;
        }
        let mut answers = vec![0; 64 << 10];
        for batch in 0..1_000_000_u32 {
            let mut many = Vec::new();
            for stream in (0..50).map(|number| (batch * 50 + number) * 2 + 1) {
                many.extend(frame(HEADERS, END_HEADERS, stream, &fields));
                many.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
            }
            if !self.is_on() || socket.write_all(&many).await.is_err() {
                return;
            }
            self.count();
            if matches!(socket.try_read(&mut answers), Ok(0)) {
                return;
            }
        }
    }

    /// Connects, and connects again.
    async fn connections(self) {
        let mut held = Vec::new();
        while self.is_on() && held.len() < GREED {
            held.extend(self.connect().await);
        }
    }
}

/// What honest clients waited for.
#[derive(Default)]
struct Waited {
    /// A connection, a request and its answer.
    answers: Vec<Duration>,
    /// An event, from its publication.
    events: Vec<Duration>,
}

impl Waited {
    fn say(&mut self, when: &str) {
        let quantile = |waited: &mut Vec<Duration>, q: f64| {
            waited.sort_unstable();
            waited[((waited.len() - 1) as f64 * q) as usize]
        };
        let (count, events) = (self.answers.len(), self.events.len());
        println!(
            "{when}: {count} requests over new connections, p50 {:?}, p99 {:?}; {events} events, p50 {:?}, p99 {:?}",
            quantile(&mut self.answers, 0.5),
            quantile(&mut self.answers, 0.99),
            quantile(&mut self.events, 0.5),
            quantile(&mut self.events, 0.99),
        );
    }
}

/// Honest clients for a while: each asks over a new connection, and gets an event on its stream, again and again.
async fn honest(server: &TestServer, span: Duration) -> Waited {
    let until = Instant::now() + span;
    let clients = (0..HONEST).map(|_| {
        let (address, sessions) = (server.address, server.sessions.clone());
        tokio::spawn(async move {
            let client = Client::initialize(address, "2025-11-25").await;
            let id = ringmain::protocol::SessionId::parse(&client.session).expect("an id");
            let session = sessions.find(id, None).expect("the session is there");
            let mut listening = client.listen(None).await;
            listening.primed().await;
            let mut waited = Waited::default();
            let mut turn = 0;
            while Instant::now() < until || turn == 0 {
                turn += 1;
                let began = Instant::now();
                client.ping(turn).await;
                waited.answers.push(began.elapsed());
                let began = Instant::now();
                publish(&session, turn);
                assert_eq!(number(&listening.message().await.1), turn);
                waited.events.push(began.elapsed());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            waited
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut all = Waited::default();
    for client in clients {
        let waited = client.await.expect("every honest client is served");
        all.answers.extend(waited.answers);
        all.events.extend(waited.events);
    }
    all
}

#[test]
fn honest_clients_are_served_among_attackers() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let long = std::env::var_os("RINGMAIN_TEST_LONG").is_some();
        let span = Duration::from_secs(if long { 60 } else { 4 });
        let mut config = Config::default();
        config.connections.count_loopback = true;
        config.connections.max_per_address = Some(PER_ADDRESS);
        config.connections.max = Some(1000);
        config.read_timeout = Duration::from_secs(2);
        config.drain = Duration::from_secs(2);
        let server = TestServer::start(config);
        honest(&server, Duration::from_secs(1)).await.say("alone");

        let stop = Arc::new(AtomicBool::new(false));
        let from = |last: u8| Attack {
            server: server.address,
            from: Ipv4Addr::new(127, 0, 0, last),
            stop: stop.clone(),
            begun: Arc::default(),
        };
        let half_head = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".to_vec();
        let whole = request("POST", &POST_HEADERS, &[b'x'; 100]);
        let half_body = whole[..whole.len() - 90].to_vec();
        let attacks = [from(2), from(3), from(4), from(5)];
        let begun: Vec<_> = attacks.iter().map(|attack| attack.begun.clone()).collect();
        let [heads, bodies, resets, connections] = attacks;
        let threads = [
            heads.start(move |attack| attack.slow(half_head.clone())),
            bodies.start(move |attack| attack.slow(half_body.clone())),
            resets.start(Attack::resets),
            connections.start(Attack::connections),
        ];
        honest(&server, span).await.say("among attackers");
        stop.store(true, Ordering::Relaxed);
        for (name, begun) in
            ["slow heads", "slow bodies", "batches of 50 resets", "connections"].iter().zip(&begun)
        {
            println!("{name}: {}", begun.load(Ordering::Relaxed));
        }
        println!("{:?}", server.metrics.connections());
        assert!(begun.iter().all(|begun| begun.load(Ordering::Relaxed) > 100), "each attacker attacked");
        let metrics = server.metrics.clone();
        let counters = metrics.connections();
        assert!(counters.refused_address() > 0 && counters.closed_deadline() > 0, "{counters:?}");
        assert!(counters.open() <= 5 * PER_ADDRESS);
        for thread in threads {
            tokio::task::spawn_blocking(|| thread.join()).await.expect("it ends").expect("it does not panic");
        }
        let client = Client::initialize(server.address, "2025-11-25").await;
        client.ping(1).await;
        assert_eq!(server.stop().await, Drained::Complete);
    });
}
