//! A process that may open few files: it refuses in time, and where it cannot, it waits and goes on.

#![cfg(unix)]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmain::server::Config;
use serde_json::json;
use support::{Client, TestServer, Wire, soon, test, until};

/// Descriptors that the process may have.
const FEW: usize = 64;
/// More connections than that.
const MANY: usize = 100;

/// A process with few descriptors, and what it says.
struct Process {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `command` with few descriptors and listens to what it says on both of its outputs.
    fn start(program: &str, arguments: &[&str]) -> Self {
        let script = format!("ulimit -n {FEW}; exec \"$0\" \"$@\"");
        let mut child = Command::new("sh")
            .args(["-c", &script, program])
            .args(arguments)
            .env("RINGMAIN_LOG", "ringmain=info")
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let said = Arc::new(Mutex::new(Vec::new()));
        let outputs: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().expect("a pipe")), Box::new(child.stderr.take().expect("a pipe"))];
        for output in outputs {
            let said = said.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    said.lock().unwrap().push(line);
                }
            });
        }
        Self { child, said }
    }

    /// How many of its lines hold `words`.
    fn count(&self, words: &str) -> usize {
        self.said.lock().unwrap().iter().filter(|line| line.contains(words)).count()
    }

    /// The address it says it serves.
    async fn address(&self) -> SocketAddr {
        until("the address", || self.count("http://") > 0).await;
        let said = self.said.lock().unwrap();
        let line = said.iter().find(|line| line.contains("http://")).expect("it was there");
        let text = line.split("http://").nth(1).expect("an address").split('/').next().expect("an address");
        text.parse().expect("an address")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// By default so many connections are let in that descriptors are left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_refused_before_descriptors_run_out() {
    test(async {
        let process = Process::start(env!("CARGO_BIN_EXE_ringmain"), &["--listen", "127.0.0.1:0"]);
        let address = process.address().await;
        let client = Client::initialize(address, "2025-11-25").await;
        let mut listening = client.listen(None).await;
        listening.primed().await;
        let mut held = Vec::new();
        for _ in 0..MANY {
            held.push(Wire::connect(address).await);
        }
        // The last ones see the refusal.
        let reply = held.pop().expect("many").reply().await;
        assert_eq!(reply.status, 503);
        assert!(reply.header("retry-after").is_some());
        assert_eq!(process.count("refused a connection"), 1, "once for all of them: {:?}", process.said);
        assert_eq!(process.count("max_connections"), 1, "and it names the setting: {:?}", process.said);
        assert_eq!(process.count("cannot accept"), 0, "{:?}", process.said);
        drop(held);
        let mut reply = None;
        while reply.is_none() {
            let mut wire = Wire::connect(address).await;
            wire.send_while_open(&client.post_bytes(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})))
                .await;
            reply = wire.try_reply().await.ok().filter(|reply| reply.status == 200);
        }
    })
    .await;
}

/// Whatever uses them up, it is said once, those inside are served on, and those outside as soon as it passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptor_exhaustion_is_survived() {
    test(async {
        let this = std::env::current_exe().expect("it runs");
        let this = this.to_str().expect("a path of words");
        let process = Process::start(this, &["--exact", "child", "--ignored", "--nocapture"]);
        let address = process.address().await;
        let client = Client::initialize(address, "2025-11-25").await;
        let ping = |id: u64| client.post_bytes(&json!({"jsonrpc": "2.0", "id": id, "method": "ping"}));
        let mut inside = Wire::connect(address).await;
        inside.send(&ping(0)).await;
        let mut reply = inside.reply().await;
        reply.json().await;
        let mut inside = reply.body.into_wire();
        let mut held = Vec::new();
        for _ in 0..MANY {
            held.push(Wire::connect(address).await);
        }
        until("it to be said", || process.count("cannot accept connections") > 0).await;
        for id in 1..=20 {
            inside.send(&ping(id)).await;
            let mut reply = inside.reply().await;
            assert_eq!(reply.json().await["id"], id);
            inside = reply.body.into_wire();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        assert_eq!(process.count("cannot accept connections"), 1, "not for each try: {:?}", process.said);
        // One that waits outside is served once those before it are gone.
        let mut outside = held.pop().expect("many");
        outside.send(&ping(99)).await;
        drop(held);
        let mut reply = soon("an answer", outside.reply()).await;
        assert_eq!(reply.json().await["id"], 99);
        client.ping(100).await;
    })
    .await;
}

/// What `descriptor_exhaustion_is_survived` starts: a server that would let everybody in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "another test starts it, in a process of its own"]
async fn child() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut config = Config::default();
    config.connections.max = Some(usize::MAX);
    let server = TestServer::start(config);
    println!("http://{}/", server.address);
    // Until the parent goes.
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
}
