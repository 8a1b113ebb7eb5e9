//! Server-sent events, read strictly: what a lenient parser would forgive is a failure here.

use serde_json::Value;

use super::{Broken, Reply, Wire};

/// The fields of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: Option<String>,
    pub retry: Option<u64>,
}

impl Event {
    /// The JSON-RPC message that the event carries.
    pub fn message(&self) -> Value {
        let data = self.data.as_deref().unwrap_or_else(|| panic!("no data in {self:?}"));
        assert_eq!(self.event.as_deref(), Some("message"), "{self:?}");
        assert_eq!(self.retry, None, "{self:?}");
        serde_json::from_str(data).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Whether it primes the client: an ID and empty data.
    pub fn is_priming(&self) -> bool {
        self.id.is_some() && self.data.as_deref() == Some("")
    }

    pub fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_else(|| panic!("no id in {self:?}"))
    }

    /// The position that the ID names; on a standalone stream, that of the session's own events.
    pub fn position(&self) -> u64 {
        let position = self.id().split('-').nth(2).expect("an id has three parts");
        let position = position.split(['.', ':']).next().expect("there is a first part");
        u64::from_str_radix(position, 16).expect("the position is hexadecimal")
    }
}

/// What stands between two empty lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    Event(Event),
    Comment(String),
}

fn parse(block: &str) -> Block {
    if let Some(comment) = block.strip_prefix(':') {
        assert!(!comment.contains('\n'), "a comment stands alone: {block:?}");
        return Block::Comment(comment.trim().to_owned());
    }
    let mut event = Event::default();
    for line in block.split('\n') {
        let (field, value) =
            line.split_once(": ").unwrap_or_else(|| panic!("not a field: {line:?} in {block:?}"));
        let twice = match field {
            "id" => {
                assert!(!value.contains('\0'), "{block:?}");
                event.id.replace(value.to_owned()).is_some()
            }
            "event" => event.event.replace(value.to_owned()).is_some(),
            "data" => event.data.replace(value.to_owned()).is_some(),
            "retry" => event.retry.replace(value.parse().expect("digits")).is_some(),
            _ => panic!("unknown field in {block:?}"),
        };
        assert!(!twice, "a field stands twice in {block:?}");
    }
    Block::Event(event)
}

/// The events of one answer.
pub struct Stream {
    reply: Reply,
    text: Vec<u8>,
}

impl Stream {
    pub fn new(reply: Reply) -> Self {
        Self { reply, text: Vec::new() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.reply.header(name)
    }

    /// The next block; `None` at the proper end of the body.
    pub async fn try_block(&mut self) -> Result<Option<Block>, Broken> {
        loop {
            if let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
                let block = self.text.drain(..end + 2).take(end).collect();
                let block = String::from_utf8(block).expect("events are UTF-8");
                assert!(!block.contains('\r') && !block.starts_with('\n'), "{block:?}");
                return Ok(Some(parse(&block)));
            }
            match self.reply.body.more().await? {
                Some(piece) => self.text.extend(piece),
                None => {
                    assert_eq!(self.text, b"", "the stream ends in the middle of an event");
                    return Ok(None);
                }
            }
        }
    }

    /// The next event, comments left out; `None` at the proper end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.try_block().await.expect("the stream does not break") {
                None => return None,
                Some(Block::Event(event)) => return Some(event),
                Some(Block::Comment(_)) => {}
            }
        }
    }

    /// The ID of the priming event, which is next.
    pub async fn primed(&mut self) -> String {
        let event = self.next().await.expect("a priming event");
        assert!(event.is_priming() && event.event.is_none() && event.retry.is_some(), "{event:?}");
        event.id.expect("a priming event has an id")
    }

    /// The next event, which carries a message, and the message.
    pub async fn message(&mut self) -> (Event, Value) {
        let event = self.next().await.expect("a message");
        let message = event.message();
        (event, message)
    }

    /// The end of the stream, which is next.
    pub async fn ended(&mut self) {
        let next = self.next().await;
        assert_eq!(next, None, "the end");
    }

    /// `retry` alone and then the end, which are next: the server closes the connection, not the stream.
    pub async fn told_to_come_back(&mut self) {
        let event = self.next().await.expect("a retry field");
        assert!(event.retry.is_some(), "{event:?}");
        assert_eq!(event, Event { retry: event.retry, ..Event::default() }, "nothing else with it");
        self.ended().await;
    }

    /// Everything up to the proper end.
    pub async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    /// Waits for the end, proper or not, whatever comes before it.
    pub async fn gone(&mut self) {
        while let Ok(Some(_)) = self.try_block().await {}
    }

    /// The HTTP/1.1 connection below.
    pub fn into_wire(self) -> Wire {
        self.reply.body.into_wire()
    }
}
