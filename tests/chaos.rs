//! Connections cut at random places while events flow, with stalled and half-open readers among them: nothing doubled,
//! order kept, memory bounded, and nothing lost but what retention evicted, which is announced. Where retention
//! suffices, every event arrives.
//!
//! The short forms take some seconds. `RINGMAIN_TEST_LONG=1` makes each 1,000 connections and 1,000,000 events over
//! five minutes. What each client does is drawn from the seed, which is printed; `RINGMAIN_TEST_SEED` sets it.

#![cfg(feature = "server")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringmain::server::Config;
use ringmain::session::Session;
use serde_json::{Value, json};
use support::{Client, Control, TestServer, note, number, publish_json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Events that a stream retains.
const CAPACITY: u64 = 64;
/// Of a chunk more may be retained.
const CHUNK: u64 = 16;
/// An event on the wire, roughly.
const PADDING: usize = 400;
/// How far a publisher that takes care is ahead of its reader, at most.
const AHEAD: u64 = CAPACITY - CHUNK;
/// Notifications of each call, before its result.
const STEPS: u64 = 20;
/// How long a client may wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of everything.
struct Size {
    clients: u64,
    events: u64,
    /// How long publishing is spread over.
    time: Duration,
}

fn size() -> Size {
    if std::env::var_os("RINGMAIN_TEST_LONG").is_some() {
        Size { clients: 1000, events: 1_000_000, time: Duration::from_secs(300) }
    } else {
        Size { clients: 200, events: 100_000, time: Duration::from_secs(10) }
    }
}

/// Numbers that look random: xorshift64*.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn of(seed: u64, stream: u64) -> Self {
        let mut random = Self((seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
        (0..8).for_each(|_| _ = random.next());
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// What a client does with its events.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// Its publisher waits for it: it must miss nothing.
    Waited,
    /// Its publisher does not wait: it may miss something, and must be told.
    Hurried,
    /// It reads nothing until the end.
    Stalled,
}

fn habit(client: u64) -> Habit {
    match client % 8 {
        0 => Habit::Stalled,
        1 | 2 => Habit::Hurried,
        _ => Habit::Waited,
    }
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The end, in order.
    Fin,
    /// A reset.
    Reset,
    /// Nobody reads any more, and nobody says so, for a while.
    HalfOpen,
    /// The client sends no more, reads a little, and goes.
    HalfClose,
}

impl Cut {
    fn draw(random: &mut Random) -> Self {
        [Self::Fin, Self::Reset, Self::HalfOpen, Self::HalfClose][random.below(4) as usize]
    }
}

/// The bytes of one answer, as far as they came.
#[derive(Default)]
struct Answer {
    raw: Vec<u8>,
    has_head: bool,
    /// Bytes of the body that are still to come, if its length was told: a short answer that is sent whole.
    left: Option<usize>,
    /// Bytes of the chunk that are still to come, its end included; 0 between chunks.
    chunk: usize,
    text: Vec<u8>,
    is_over: bool,
}

impl Answer {
    /// Takes what came, and gives the events that are whole by now.
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        self.raw.extend_from_slice(bytes);
        if !self.has_head {
            let Some(end) = self.raw.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Vec::new();
            };
            let head = String::from_utf8(self.raw.drain(..end + 4).collect()).expect("a head is text");
            let is_stream = head.contains("content-type: text/event-stream");
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && is_stream, "{head}");
            self.has_head = true;
            self.left = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        }
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(self.raw.len()).expect("no more comes than was told");
            self.is_over = *left == 0;
            self.text.append(&mut self.raw);
        }
        while !self.raw.is_empty() && !self.is_over {
            if self.chunk == 0 {
                let Some(end) = self.raw.windows(2).position(|two| two == b"\r\n") else { break };
                let size = String::from_utf8(self.raw.drain(..end + 2).take(end).collect()).expect("a size");
                let size = usize::from_str_radix(&size, 16).expect("the size of a chunk");
                self.is_over = size == 0;
                self.chunk = size + 2;
            } else if self.chunk > 2 {
                let count = self.raw.len().min(self.chunk - 2);
                self.text.extend(self.raw.drain(..count));
                self.chunk -= count;
            } else if self.raw.len() >= 2 {
                assert_eq!(self.raw.drain(..2).collect::<Vec<_>>(), b"\r\n", "a chunk ends as it says");
                self.chunk = 0;
            } else {
                break;
            }
        }
        let mut events = Vec::new();
        while let Some(end) = self.text.windows(2).position(|two| two == b"\n\n") {
            events.push(String::from_utf8(self.text.drain(..end + 2).take(end).collect()).expect("UTF-8"));
        }
        events
    }
}

/// The fields of an event that count here.
fn fields(event: &str) -> (Option<&str>, Option<&str>) {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
    (field("id: "), field("data: "))
}

/// What happened to one client.
#[derive(Debug, Default)]
struct Tally {
    received: u64,
    missed: u64,
    gaps: u64,
    connections: u64,
    cuts: u64,
    calls: u64,
    /// Calls cut off before the client had an ID to come back with.
    unfetched: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.missed += other.missed;
        self.gaps += other.gaps;
        self.connections += other.connections;
        self.cuts += other.cuts;
        self.calls += other.calls;
        self.unfetched += other.unfetched;
    }
}

/// One client: its choices, and the connections that it left half-open.
struct Wild {
    address: SocketAddr,
    client: Client,
    control: Control,
    random: Random,
    tally: Tally,
    half_open: Vec<TcpStream>,
}

impl Wild {
    async fn connect(&mut self) -> TcpStream {
        self.tally.connections += 1;
        let socket = TcpSocket::new_v4().expect("a socket");
        if self.random.below(3) == 0 {
            // A kernel that takes little: the server is cut in the middle of a write.
            socket.set_recv_buffer_size(4096).expect("it is a TCP socket");
        }
        timeout(PATIENCE, socket.connect(self.address))
            .await
            .expect("a connection")
            .expect("the server listens")
    }

    /// Ends a connection one way or another.
    async fn cut(&mut self, mut socket: TcpStream) {
        self.tally.cuts += 1;
        match Cut::draw(&mut self.random) {
            Cut::Fin => drop(socket),
            Cut::Reset => {
                socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("it is a TCP socket");
            }
            Cut::HalfOpen => {
                self.half_open.push(socket);
                if self.half_open.len() > 2 {
                    self.half_open.remove(0);
                }
            }
            Cut::HalfClose => {
                let _ = socket.shutdown().await;
                let _ = timeout(Duration::from_millis(5), socket.read(&mut [0; 512])).await;
            }
        }
    }

    /// Sends a request and reads its answer up to a place drawn at random; `see` is given each whole event and says
    /// whether to go on. Never cut if `gently`.
    async fn exchange(&mut self, request: &[u8], gently: bool, mut see: impl FnMut(&str) -> bool) {
        let mut socket = self.connect().await;
        if !gently && self.random.below(16) == 0 {
            // Not even the request is whole.
            let end = 1 + self.random.below(request.len() as u64 - 1) as usize;
            let _ = socket.write_all(&request[..end]).await;
            return self.cut(socket).await;
        }
        socket.write_all(request).await.expect("the server reads");
        // In the head, in a frame, or some frames on.
        let mut left = match self.random.below(4) {
            _ if gently => usize::MAX,
            0 => self.random.below(300) as usize,
            1 => self.random.below(3000) as usize,
            _ => self.random.below(60_000) as usize,
        };
        let (mut answer, mut piece) = (Answer::default(), vec![0; 16 << 10]);
        loop {
            if left == 0 {
                return self.cut(socket).await;
            }
            if self.random.below(64) == 0 {
                // It stalls, and goes on.
                tokio::time::sleep(Duration::from_millis(self.random.below(50))).await;
            }
            let most = left.min(piece.len());
            let count = match timeout(PATIENCE, socket.read(&mut piece[..most])).await {
                Ok(Ok(count)) if count > 0 => count,
                // The server ended it: another connection of this client took over, or the stream is over.
                Ok(_) => return,
                Err(_) => panic!("nothing came for {PATIENCE:?}: {:?}", self.tally),
            };
            left -= count;
            for event in answer.take(&piece[..count]) {
                if !see(&event) {
                    return;
                }
            }
            if answer.is_over {
                return;
            }
        }
    }

    /// Calls a tool and fetches everything that belongs to the call, however often it is cut off.
    async fn call(&mut self) {
        self.tally.calls += 1;
        let label = format!("{}-{}", &self.client.session[..8], self.tally.calls);
        // It may end before anybody asks.
        self.control.release(&label);
        let arguments = json!({"label": label, "before": STEPS, "padding": 100});
        let call = json!({"jsonrpc": "2.0", "id": label, "method": "tools/call",
                          "params": {"name": "steps", "arguments": arguments}});
        let (mut last, mut steps, mut done) = (None::<String>, 0, false);
        let mut request = self.client.post_bytes(&call);
        loop {
            self.exchange(&request, false, |event| {
                let (id, data) = fields(event);
                last = id.map(ToOwned::to_owned).or(last.take());
                let Some(data) = data.filter(|data| !data.is_empty()) else { return true };
                let message: Value = serde_json::from_str(data).expect("JSON");
                assert!(!done, "nothing comes behind the result");
                if message["method"] == "test/step" {
                    steps += 1;
                    assert_eq!(message["params"]["number"], steps, "each step once, in order: {message}");
                    assert_eq!(message["params"]["label"], label, "its own");
                } else {
                    assert_eq!((&message["result"]["done"], steps), (&json!(label), STEPS), "{message}");
                    done = true;
                }
                true
            })
            .await;
            if done {
                return;
            }
            let Some(last) = &last else {
                self.tally.unfetched += 1;
                return;
            };
            request = self.client.get_bytes(Some(last));
        }
    }

    /// Reads the standalone stream to event `end`, however often it is cut off.
    async fn listen(mut self, habit: Habit, end: u64, seen: Arc<AtomicU64>) -> Tally {
        let (mut last, mut reached, mut missed, mut gaps) = (None::<String>, 0, 0, 0);
        // The first connection is there for its ID: before there is one nobody can come back.
        let request = self.client.get_bytes(None);
        self.exchange(&request, true, |event| {
            last = fields(event).0.map(ToOwned::to_owned);
            false
        })
        .await;
        seen.store(1, Ordering::Release);
        while reached < end {
            if habit == Habit::Stalled && seen.load(Ordering::Acquire) <= 1 {
                let mut socket = self.connect().await;
                let request = self.client.get_bytes(last.as_deref());
                socket.write_all(&request).await.expect("the server reads");
                // Nothing is read until everything was published.
                while seen.load(Ordering::Acquire) <= 1 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                self.half_open.push(socket);
            }
            if self.random.below(12) == 0 {
                self.call().await;
            }
            let request = self.client.get_bytes(last.as_deref());
            self.exchange(&request, false, |event| {
                let (id, data) = fields(event);
                last = id.map(ToOwned::to_owned).or(last.take());
                let Some(data) = data.filter(|data| !data.is_empty()) else { return true };
                let message: Value = serde_json::from_str(data).expect("JSON");
                if message["params"]["logger"] == "ringmain" {
                    let skipped = message["params"]["data"]["missed"].as_u64().expect("how many");
                    (reached, missed, gaps) = (reached + skipped, missed + skipped, gaps + 1);
                } else {
                    assert_eq!(number(&message), reached + 1, "each once, in order, and gaps are told");
                    reached += 1;
                }
                seen.fetch_max(1 + reached, Ordering::AcqRel);
                reached < end
            })
            .await;
        }
        assert_eq!(reached, end, "no more than was published");
        assert!(habit != Habit::Waited || missed == 0, "{missed} lost though its publisher waited");
        self.tally.received = reached - missed;
        self.tally.missed = missed;
        self.tally.gaps = gaps;
        self.tally
    }
}

/// Bytes of this process in memory, and of its sockets.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}

/// One of the streams that are published to.
struct Published {
    session: Arc<Session>,
    habit: Habit,
    count: u64,
    /// One more than the last event that its client has; 0 before it listens.
    seen: Arc<AtomicU64>,
}

/// Publishes `each` events to each stream over `time`, in bursts, and watches what is retained.
async fn publish_all(
    streams: &mut [Published],
    each: u64,
    time: Duration,
    capacity: u64,
    mut random: Random,
) -> u64 {
    let (began, all) = (Instant::now(), each * streams.len() as u64);
    let (mut done, mut most) = (0, 0);
    while done < all {
        for _ in 0..256 {
            let index = random.below(streams.len() as u64) as usize;
            let Published { session, habit, count, seen } = &mut streams[index];
            let most = if *habit == Habit::Hurried { 4 * CAPACITY } else { CAPACITY / 3 };
            let burst = (1 + random.below(most)).min(each - *count);
            let has = seen.load(Ordering::Acquire);
            if has == 0 || (*habit == Habit::Waited && *count + burst > has - 1 + AHEAD) {
                continue;
            }
            for _ in 0..burst {
                *count += 1;
                publish_json(session, &note(*count, PADDING));
            }
            done += burst;
            let stream = session.standalone();
            assert!(stream.tail() - stream.oldest() <= capacity + CHUNK, "more is retained than the limit");
        }
        most = most.max(resident());
        let due = time.mul_f64(done as f64 / all as f64);
        tokio::time::sleep(due.saturating_sub(began.elapsed()).max(Duration::from_millis(1))).await;
        assert!(began.elapsed() < time + PATIENCE * 2, "readers keep up: {done} of {all}");
    }
    most
}

/// Few events are retained: readers that stall, and those whose publisher does not wait, miss some and are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_anywhere_what_is_missed_is_announced() {
    let size = size();
    let (clients, sum) = (size.clients, run(&size, CAPACITY).await);
    assert!(sum.missed > 0 && sum.cuts > clients, "the test does what it says");
}

/// Every event of a stream can be retained: nobody misses any, readers that read nothing until the end included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_anywhere_every_event_arrives_where_retention_suffices() {
    let mut size = size();
    if std::env::var_os("RINGMAIN_TEST_LONG").is_none() {
        size = Size { clients: 100, events: 20_000, time: Duration::from_secs(2) };
    }
    let sum = run(&size, (size.events / size.clients).next_power_of_two()).await;
    assert_eq!((sum.received, sum.missed, sum.gaps), (size.events, 0, 0), "every event arrives");
    assert!(sum.cuts > size.clients, "the test does what it says");
}

/// Publishes to clients that are cut at random, to streams that retain `capacity` events, until every client has
/// reached the end of its own. Each client checks what it receives.
async fn run(&Size { clients, events, time }: &Size, capacity: u64) -> Tally {
    /// One run at a time: each measures the memory of the process.
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _alone = ALONE.lock().await;
    let seed = match std::env::var("RINGMAIN_TEST_SEED") {
        Ok(seed) => seed.parse().expect("a seed is a number"),
        Err(_) => uuid::Uuid::new_v4().as_u64_pair().0,
    };
    println!("RINGMAIN_TEST_SEED={seed}");
    let mut config = Config::default();
    config.sessions.standalone.capacity = capacity as usize;
    // Events are limited by their number alone.
    config.sessions.standalone.max_weight = u64::MAX;
    config.sessions.standalone.max_age_ms = i32::MAX as u32;
    // Comments stand among the events.
    config.keep_alive = Duration::from_secs(2);
    let server = TestServer::start(config);
    let each = events / clients;
    let (mut streams, mut running) = (Vec::new(), JoinSet::new());
    let mut connected = Vec::new();
    for _ in 0..clients {
        connected.push(server.client().await);
    }
    for (index, client) in (0..clients).zip(connected) {
        let seen = Arc::<AtomicU64>::default();
        let session = server.session(&client);
        streams.push(Published { session, habit: habit(index), count: 0, seen: seen.clone() });
        let wild = Wild {
            address: server.address,
            client,
            control: server.control.clone(),
            random: Random::of(seed, index + 1),
            tally: Tally::default(),
            half_open: Vec::new(),
        };
        running.spawn(wild.listen(habit(index), each, seen));
    }
    let before = resident();
    let most = publish_all(&mut streams, each, time, capacity, Random::of(seed, 0)).await;
    // Now those who stalled come back.
    let stalled = streams.iter().filter(|stream| stream.habit == Habit::Stalled);
    stalled.for_each(|stream| _ = stream.seen.fetch_max(2, Ordering::AcqRel));
    let mut sum = Tally::default();
    while let Some(tally) =
        timeout(PATIENCE * 2, running.join_next()).await.expect("every client gets to the end")
    {
        sum.add(&tally.expect("its failure is told above"));
    }
    let grown = most.saturating_sub(before) >> 10;
    let counters = server.sessions.counters();
    println!(
        "{sum:?}, {grown} KiB grown, {} resumed, {} superseded",
        counters.resumed(),
        counters.superseded()
    );
    assert_eq!(sum.received + sum.missed, each * clients);
    assert!(counters.missed() >= sum.missed, "gaps are counted");
    // What is retained, twice over for what is on its way, and 64 KiB for both sides of a connection.
    let retained = clients * (capacity + CHUNK) * (PADDING as u64 + 200);
    assert!(grown << 10 < 2 * retained + clients * (64 << 10), "{grown} KiB");
    assert_eq!(server.sessions.len() as u64, clients);
    sum
}
