//! The binary as an operator meets it: options, signals, exit codes, and what it logs.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::{Client, Http2, Wire, request, soon, test, until};
use tempfile::TempDir;

fn ringmain() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RINGMAIN_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it to its end.
fn output(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        ringmain().args(arguments).envs(environment.iter().copied()).output().expect("it is built");
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A file of options.
struct File {
    folder: TempDir,
}

impl File {
    fn new(text: &str) -> Self {
        let file = Self { folder: TempDir::new().unwrap() };
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ringmain.toml")
    }

    fn name(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }
}

/// A running server.
struct Program {
    child: Child,
    log: Arc<Mutex<String>>,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Program {
    async fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = ringmain()
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(arguments)
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("it is built");
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, sink) = (BufReader::new(child.stderr.take().unwrap()), log.clone());
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut sink = sink.lock().unwrap();
                sink.push_str(&line);
                sink.push('\n');
            }
        });
        let unknown = ([0, 0, 0, 0], 0).into();
        let mut program = Self { child, log, address: unknown, admin: unknown };
        program.says("the admin endpoints on http://").await;
        program.address = program.told("demonstration server on http://");
        program.admin = program.told("the admin endpoints on http://");
        program
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log has this.
    async fn says(&self, what: &str) {
        let mut look = tokio::time::interval(std::time::Duration::from_millis(5));
        let found = async {
            while !self.log().contains(what) {
                look.tick().await;
            }
        };
        if tokio::time::timeout(support::PATIENCE, found).await.is_err() {
            panic!("the log does not say {what:?}:\n{}", self.log());
        }
    }

    /// The address behind these words of the log.
    fn told(&self, before: &str) -> SocketAddr {
        let log = self.log();
        let rest = log.split(before).nth(1).expect("it was said");
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && !".:".contains(letter));
        rest[..end.unwrap_or(rest.len())].parse().expect("an address")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for the end; the exit code.
    async fn ended(&mut self) -> Option<i32> {
        let mut look = tokio::time::interval(std::time::Duration::from_millis(5));
        soon("the program to end", async {
            loop {
                if let Some(status) = self.child.try_wait().expect("it is ours") {
                    return status.code();
                }
                look.tick().await;
            }
        })
        .await
    }

    async fn client(&self) -> Client {
        Client::initialize(self.address, "2025-11-25").await
    }

    async fn ask(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let mut wire = Wire::connect(self.admin).await;
        let bytes = String::from_utf8(request(method, &[], body.as_bytes())).unwrap();
        wire.send(bytes.replacen("/mcp", target, 1).as_bytes()).await;
        let mut reply = wire.reply().await;
        (reply.status, String::from_utf8(reply.bytes().await).unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn help_and_version_answer() {
    let (code, help, _) = output(&["--help"], &[]);
    assert_eq!(code, Some(0));
    for word in ["--max-body-bytes", "RINGMAIN_", "check-config", "Exit codes", "[default: 30m]", "HUP"] {
        assert!(help.contains(word), "{word} in {help}");
    }
    assert_eq!(output(&["--version"], &[]).1, format!("ringmain {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(output(&["--no-such-flag"], &[]).0, Some(2));
    assert_eq!(output(&["check-config"], &[]).0, Some(2));
}

#[test]
fn check_config_shows_what_is_in_effect_or_all_that_is_wrong() {
    let file = File::new("idle = \"10m\"\nmax_body_bytes = \"1MiB\"\n");
    let (code, shown, told) = output(&["check-config", &file.name()], &[("RINGMAIN_IDLE", "20m")]);
    assert_eq!((code, told.as_str()), (Some(0), ""));
    assert!(shown.contains("idle = \"20m\"") && shown.contains("# RINGMAIN_IDLE"), "{shown}");
    assert!(
        shown.contains("max_body_bytes = \"1MiB\"") && shown.contains(&format!("# {}:2", file.name())),
        "{shown}"
    );
    // What it shows is a file that says the same.
    let again = File::new(&shown);
    let (code, shown_again, _) = output(&["check-config", &again.name()], &[]);
    assert_eq!(code, Some(0));
    assert!(shown_again.contains("idle = \"20m\""), "{shown_again}");

    file.write("max_body = 5\nidle = \"0s\"\n\nlog = \"=\"\n");
    let (code, shown, told) = output(&["check-config", &file.name()], &[]);
    let name = file.name();
    assert_eq!((code, shown.as_str()), (Some(1), ""));
    assert!(
        told.starts_with(&format!(
            "ringmain: {name}:1: unknown key `max_body`; did you mean `max_body_bytes`?\n\
         ringmain: {name}:2: idle: 0 is below the minimum of 1s\n\
         ringmain: {name}:4: log: "
        )),
        "{told}"
    );
    let (code, _, told) = output(&["check-config", "/nowhere/ringmain.toml"], &[]);
    assert_eq!(code, Some(1));
    assert!(told.starts_with("ringmain: cannot read /nowhere/ringmain.toml: "), "{told}");
}

#[test]
fn it_does_not_start_with_what_cannot_work() {
    let file = File::new("max_requests = 0\n");
    for (arguments, told) in [
        (vec!["--config", &file.name()], "max_requests: 0 is below the minimum of 1"),
        (vec!["--idle", "soon"], "--idle: \"soon\" is not a duration"),
        (vec!["--allow-host", "a b"], "--allow-host: "),
        (vec!["--standalone-bytes", "60000TiB"], "--standalone-bytes: "),
        (vec!["--tls-cert", "/nowhere/cert.pem"], "--tls-cert: must be set together with tls_key"),
        (vec!["--tls-cert", "/nowhere/cert.pem", "--tls-key", "/nowhere/key.pem"], "/nowhere/cert.pem"),
        (vec!["--tokens-file", "/nowhere/tokens"], "tokens_file: "),
        (
            vec!["--resource", "https://mcp.example.com/mcp"],
            "--resource: must be set together with authorization_servers",
        ),
        (
            vec!["--jwks", "https://login.example.com/keys"],
            "--jwks: must be set together with issuer and audiences",
        ),
        (vec!["--algorithms", "none"], "--algorithms: \"none\" is not one of "),
        (vec!["--max-connections", "0"], "--max-connections: 0 is below the minimum of 1 (or \"auto\")"),
        (vec!["--listen", "192.0.2.1:1"], "cannot listen on 192.0.2.1:1: "),
    ] {
        let (code, _, said) = output(&arguments, &[]);
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        assert!(said.contains(told), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_win_over_environment_over_file() {
    test(async {
        let file = File::new("path = \"/file\"\nmax_body_bytes = 2000\nmax_header_bytes = \"2KiB\"\n");
        let environment = [("RINGMAIN_CONFIG", file.name()), ("RINGMAIN_MAX_BODY_BYTES", "3000".to_owned())];
        let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
        let program = Program::start(&["--path", "/mcp", "--max-body-bytes=4000"], &environment).await;
        let client = program.client().await;
        let padded = |size: usize| json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": "x".repeat(size)}});
        assert_eq!(client.post(&padded(3500)).await.status, 200, "the flag's limit holds, not the variable's");
        client.post(&padded(4000)).await.error(413).await;
        let long = "x".repeat(2100);
        let headers = [("Accept", "text/event-stream"), ("X-Long", long.as_str())];
        client.send("GET", &headers, b"").await.error(431).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hup_reads_the_file_again() {
    test(async {
        let file = File::new("retry = \"1s\"\n");
        let program = Program::start(&["--config", &file.name()], &[]).await;
        let ask_as = |host: &'static str| async {
            let mut wire = Wire::connect(program.address).await;
            let bytes = String::from_utf8(request("GET", &[], b"")).unwrap();
            wire.send(bytes.replacen("localhost", host, 1).as_bytes()).await;
            wire.reply().await.status
        };
        assert_eq!(ask_as("mcp.example.com").await, 403);
        file.write(
            "idle = \"11m\"\nretry = \"2s\"\nallow_host = [\"mcp.example.com\"]\nlog = \"ringmain=debug\"\n",
        );
        program.signal(Signal::HUP);
        program.says("these changes need a restart: retry\n").await;
        assert!(program.log().contains("reloaded; changed: allow_host, idle, log\n"), "{}", program.log());
        assert_eq!(ask_as("mcp.example.com").await, 400, "the host is allowed, the request incomplete");
        assert_eq!(ask_as("localhost").await, 403);
        program.says("refused a request before its body").await;

        file.write("allow_host = [\"mcp.example.org\"]\nidel = \"12m\"\n");
        program.signal(Signal::HUP);
        program.says("the configuration is unchanged").await;
        assert!(program.log().contains("unknown key `idel`; did you mean `idle`?"), "{}", program.log());
        assert_eq!(ask_as("mcp.example.com").await, 400);
        // What waits for a restart is named again, until it is taken back.
        file.write(
            "idle = \"11m\"\nretry = \"2s\"\nallow_host = [\"mcp.example.com\"]\nlog = \"ringmain=debug\"\n",
        );
        let before = program.log().len();
        program.signal(Signal::HUP);
        until("the reload", || program.log()[before..].contains("need a restart: retry\n")).await;
    })
    .await;
}

/// It killed the process until the server was bound, which fetching a key set can delay for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hup_during_the_start_reads_the_file_again() {
    test(async {
        // A pipe: the start waits for what it reads from it.
        let name = std::env::temp_dir().join(format!("ringmain-pipe-{}", std::process::id()));
        assert!(Command::new("mkfifo").arg(&name).status().unwrap().success());
        let file = name.to_str().unwrap().to_owned();
        let starting = tokio::spawn({
            let file = file.clone();
            async move { Program::start(&["--config", &file], &[]).await }
        });
        // Opens once the program reads.
        let mut pipe = tokio::task::spawn_blocking({
            let file = file.clone();
            move || fs::OpenOptions::new().write(true).open(file).unwrap()
        })
        .await
        .unwrap();
        let child = reader_of(&file);
        kill_process(child, Signal::HUP).expect("it runs");
        // From now on a file like any other has this name, with something else in it.
        fs::remove_file(&name).unwrap();
        fs::write(&name, "idle = \"12m\"\n").unwrap();
        std::io::Write::write_all(&mut pipe, b"idle = \"11m\"\n").unwrap();
        drop(pipe);
        let program = starting.await.expect("it started");
        program.says("reloaded; changed: idle").await;
        fs::remove_file(name).unwrap();
    })
    .await;
}

/// The child of this process that was started with this argument.
fn reader_of(argument: &str) -> Pid {
    let of_process = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        line.split('\0').any(|given| given == argument).then(|| Pid::from_raw(number)).flatten()
    };
    fs::read_dir("/proc").unwrap().find_map(of_process).expect("the program runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_finishes_everything_exits_with_0() {
    test(async {
        let mut program = Program::start(&["--drain", "30s"], &[]).await;
        let client = program.client().await;
        let mut listening = client.listen(None).await;
        listening.primed().await;
        let mut call =
            client.call_stream(1, "test_progress_stream", json!({"count": 10, "interval_ms": 50})).await;
        call.primed().await;
        program.signal(Signal::TERM);
        listening.told_to_come_back().await;
        let rest = call.rest().await;
        assert!(rest.last().unwrap().message()["result"].is_object(), "the request in flight finished");
        assert_eq!(program.ended().await, Some(0), "{}", program.log());
    })
    .await;
}

/// A call that goes on for an hour.
async fn endless(client: &Client) -> support::Stream {
    let mut call =
        client.call_stream(1, "test_progress_stream", json!({"count": 60, "interval_ms": 60_000})).await;
    call.primed().await;
    call
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_is_cut_off_exits_with_2() {
    test(async {
        let mut program = Program::start(&["--drain", "300ms"], &[]).await;
        let client = program.client().await;
        let mut call = endless(&client).await;
        program.signal(Signal::INT);
        call.gone().await;
        assert_eq!(program.ended().await, Some(2), "{}", program.log());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    test(async {
        let mut program = Program::start(&["--drain", "1h"], &[]).await;
        let client = program.client().await;
        let _call = endless(&client).await;
        program.signal(Signal::TERM);
        program.says("draining").await;
        program.signal(Signal::TERM);
        assert_eq!(program.ended().await, Some(2), "{}", program.log());
        assert!(program.log().contains("second signal"), "{}", program.log());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_json_where_asked_for() {
    test(async {
        let mut program = Program::start(&["--log-format", "json"], &[]).await;
        program.signal(Signal::TERM);
        assert_eq!(program.ended().await, Some(0));
        until("the last line", || program.log().contains("draining")).await;
        for line in program.log().lines() {
            let line: Value = serde_json::from_str(line).expect("each line is JSON");
            assert!(line["message"].is_string() && line["level"].is_string(), "{line}");
        }
    })
    .await;
}

/// Words that stand in bodies only.
const SAID: [&str; 3] = ["word-of-the-client", "word-of-the-operator", "word-of-http2"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_holds_a_session_id_or_a_body() {
    test(async {
        let mut program = Program::start(&["--log", "trace"], &[]).await;
        let client = program.client().await;
        let mut listening = client.listen(None).await;
        let primed = listening.primed().await;
        client.call(1, "test_custom_header", json!({"region": SAID[0]})).await;
        client.call(2, SAID[0], json!({})).await;
        client.call_stream(3, "test_tool_with_progress", json!({"x": SAID[0]})).await.rest().await;
        client.notify("notifications/cancelled", json!({"requestId": 9, "reason": SAID[0]})).await;
        let note = json!({"jsonrpc": "2.0", "method": "x", "params": {"x": SAID[1]}}).to_string();
        assert_eq!(program.ask("POST", "/publish?session=all", &note).await.0, 200);
        let target = format!("/publish?session={}", client.session);
        assert_eq!(program.ask("POST", &target, &note).await.0, 200);
        assert_eq!(listening.message().await.1["params"]["x"], SAID[1]);
        client.listen(Some(&primed)).await.primed().await;

        let over_http2 = Client::initialize_over(Http2::connect(program.address).await, "2025-11-25").await;
        over_http2.call(1, "test_custom_header", json!({"region": SAID[2]})).await;
        over_http2.listen(None).await.primed().await;
        over_http2.send("POST", &support::POST_HEADERS, br#"{"word-of-http2":"#).await.error(400).await;
        for client in [&client, &over_http2] {
            assert_eq!(client.delete().await.status, 204);
            client.get(None).await.error(404).await;
        }
        program.signal(Signal::TERM);
        program.ended().await;
        let log = program.log();
        assert!(log.contains("DEBUG") && log.contains("refused"), "it says what happens: {log}");
        let secrets = [client.session.as_str(), &over_http2.session];
        for secret in secrets.into_iter().chain(SAID) {
            let told = log.lines().find(|line| line.contains(secret));
            assert!(told.is_none(), "{told:?}");
        }
    })
    .await;
}
