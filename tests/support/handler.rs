//! A handler that does what a call asks for, when the test lets it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ringmain::handler::{Context, Handler, Notification, Outlet, PublishError, Request, Response, RpcError};
use ringmain::session::Session;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use super::soon;

/// The test's hand on the handler: what it noted, and the gates it waits at.
#[derive(Clone)]
pub struct Control {
    log: watch::Sender<Vec<String>>,
    gates: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
}

impl Default for Control {
    fn default() -> Self {
        Self { log: watch::Sender::new(Vec::new()), gates: Arc::default() }
    }
}

impl Control {
    /// Lets one call labelled `label` go on, now or when it comes to its gate.
    pub fn release(&self, label: &str) {
        self.gate(label).add_permits(1);
    }

    /// Waits until the handler has noted `entry`.
    pub async fn noted(&self, entry: &str) {
        let mut log = self.log.subscribe();
        soon(entry, log.wait_for(|log| log.iter().any(|noted| noted == entry)))
            .await
            .expect("the log is open");
    }

    /// Whether the handler has noted `entry`.
    pub fn has_noted(&self, entry: &str) -> bool {
        self.count(entry) > 0
    }

    /// How often the handler has noted `entry`.
    pub fn count(&self, entry: &str) -> usize {
        self.log.borrow().iter().filter(|noted| *noted == entry).count()
    }

    fn gate(&self, label: &str) -> Arc<Semaphore> {
        let mut gates = self.gates.lock().unwrap();
        gates.entry(label.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(0))).clone()
    }

    async fn pass(&self, label: &str) {
        self.gate(label).acquire().await.expect("gates stay").forget();
    }

    fn note(&self, entry: impl Into<String>) {
        self.log.send_modify(|log| log.push(entry.into()));
    }
}

/// The arguments of a call. What a tool does not use it ignores.
#[derive(Deserialize)]
#[serde(default)]
struct Arguments {
    /// Names the call in the log, and its gate.
    label: String,
    /// Notifications before the gate.
    before: u64,
    /// Notifications behind the gate.
    after: u64,
    /// Bytes of padding in each, and in the result.
    padding: usize,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { label: "call".to_owned(), before: 0, after: 0, padding: 0 }
    }
}

#[derive(Deserialize)]
struct Call {
    name: String,
    #[serde(default)]
    arguments: Arguments,
}

/// See the [module documentation](self).
pub struct Script {
    control: Control,
}

impl Script {
    pub fn new(control: Control) -> Self {
        Self { control }
    }

    async fn initialize(&self, request: &Request, context: Context) {
        let params: Value = request.params().expect("params are an object");
        match params["test"].as_str() {
            Some("fail") => return context.fail(&RpcError::new(-32602, "not today")),
            Some("early") => {
                let _ = context.notify("test/early", &json!({}));
                self.control.pass("early").await;
            }
            Some("slow") => {
                self.control.note("slow:ready");
                self.control.pass("slow").await;
            }
            Some("panic") => panic!("initialize panics, as asked"),
            _ => {}
        }
        let version = context.version().as_str();
        context.respond(&json!({
            "protocolVersion": version,
            "capabilities": {},
            "serverInfo": {"name": "script", "version": "0"},
        }));
    }

    async fn call(&self, call: Call, context: Context) {
        let Call { name, arguments } = call;
        let label = arguments.label.as_str();
        let notify = |outlet: &Outlet, numbers: std::ops::Range<u64>| {
            let padding = "x".repeat(arguments.padding);
            for number in numbers {
                let params = json!({"label": label, "number": number + 1, "padding": padding});
                let _ = outlet.notify("test/step", &params);
            }
        };
        let result = json!({"done": label, "padding": "x".repeat(arguments.padding)});
        let all = arguments.before + arguments.after;
        match name.as_str() {
            "quick" => context.respond(&result),
            // Notifies, waits for its gate or its cancellation, notifies again, answers.
            "steps" | "hang_up" => {
                notify(&context, 0..arguments.before);
                if name == "hang_up" {
                    let hung_up = context.close_connection();
                    self.control.note(format!("{label}:hung_up={hung_up}"));
                }
                self.control.note(format!("{label}:ready"));
                tokio::select! {
                    biased;
                    () = context.cancelled() => {
                        self.control.note(format!("{label}:cancelled"));
                        // Whatever comes now is too late.
                        let late = context.notify("test/late", &json!({}));
                        assert_eq!(late, Err(PublishError::Closed), "a cancelled request takes no event");
                        return context.respond(&result);
                    }
                    () = self.control.pass(label) => {}
                }
                notify(&context, arguments.before..all);
                context.respond(&result);
                self.control.note(format!("{label}:answered"));
            }
            "progress" => {
                for step in 0..all {
                    let _ = context.progress(step as f64, Some(all as f64), None);
                }
                context.respond(&result);
            }
            "ask" => match context.ask("sampling/createMessage", &json!({"label": label})).await {
                Ok(answer) => context.respond(&json!({"answer": answer})),
                Err(error) => context.respond(&json!({"refused": error.to_string()})),
            },
            "publish" => {
                super::publish_json(
                    context.session().unwrap(),
                    &json!({"jsonrpc": "2.0", "method": "test/aside"}),
                );
                context.respond(&result);
            }
            "panic" => panic!("the handler panics, as asked"),
            "panic_later" => {
                self.control.note(format!("{label}:ready"));
                self.control.pass(label).await;
                panic!("the handler panics later, as asked");
            }
            "drop" => drop(context),
            "drop_later" => {
                self.control.note(format!("{label}:ready"));
                self.control.pass(label).await;
                drop(context);
            }
            name => context.fail(&RpcError::invalid_params(format!("no tool {name}"))),
        }
    }
}

impl Handler for Script {
    async fn request(&self, request: Request, context: Context) {
        match request.method() {
            "initialize" => self.initialize(&request, context).await,
            "ping" => context.respond(&json!({})),
            "tools/call" => match request.params() {
                Ok(call) => self.call(call, context).await,
                Err(error) => context.fail(&error),
            },
            method => context.fail(&RpcError::method_not_found(method)),
        }
    }

    async fn notification(&self, notification: Notification, _session: Arc<Session>) {
        self.control.note(format!("notification:{}", notification.method()));
        assert_ne!(notification.method(), "test/panic", "the handler panics, as asked");
    }

    fn response(&self, response: Response, session: &Arc<Session>) {
        let text = String::from_utf8_lossy(response.json());
        assert!(!text.contains("please panic"), "the handler panics, as asked");
        let delivered = response.deliver(session);
        self.control.note(format!("response:{delivered}"));
    }

    fn closed(&self, _session: &Session) {
        self.control.note("closed");
    }
}
