//! Values of options: how each kind is read, checked and shown, and how it stands in a field.

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;

use super::LogFormat;
use crate::server::Answer;
use crate::session::{AtLimit, Rate};
use crate::stream::LagPolicy;

/// A value as it was given.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    /// Of a flag or the environment, where everything is text.
    Word(String),
    /// Of a file.
    Text(String),
    /// Of a file.
    Number(String),
    /// Of a file, or of a flag without a value.
    Switch(bool),
    /// Of a file, or of a flag that stands more than once.
    List(Vec<String>),
    /// Of a file: something that no option takes.
    Other(&'static str),
}

/// A value as it was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// The word that stands for nothing.
    Nothing,
    /// Milliseconds, bytes, or a count.
    Number(u64),
    /// One of the names of a choice, an address, a path; empty where there is none.
    Text(String),
    Switch(bool),
    List(Vec<String>),
}

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An IP address and a port.
    Address,
    /// The path of a URL.
    Path,
    /// A name of a file.
    File,
    /// Any text.
    Text,
    /// List of hosts or origins, none or more.
    List,
    /// `true` or `false`.
    Switch,
    /// One of these names.
    Choice(&'static [&'static str]),
    /// So many a minute, and perhaps how many of them at once.
    Rate,
    /// A duration of at least and at most so many milliseconds.
    Time(u64, u64),
    /// A number of bytes, at least and at most so many, and less than the machine has.
    Bytes(u64, u64),
    /// A word, or something else.
    Or {
        /// What stands for nothing.
        word: &'static str,
        /// What may stand there instead.
        kind: &'static Self,
    },
    /// A number of things, at least and at most so many.
    Count {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
        /// Bytes that each of them takes: all of them together must fit into the machine.
        each: u64,
    },
}

impl Kind {
    /// The word for a value in `--help`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Address => "ADDR",
            Self::Path => "PATH",
            Self::File => "FILE",
            Self::Text => "TEXT",
            Self::List => "TEXT",
            Self::Switch => "BOOL",
            Self::Choice(_) => "NAME",
            Self::Rate => "RATE",
            Self::Time(..) => "TIME",
            Self::Bytes(..) => "BYTES",
            Self::Count { .. } => "COUNT",
            Self::Or { kind, .. } => kind.word(),
        }
    }

    /// What may stand there, for the table of options in the documentation.
    #[must_use]
    pub fn range(self) -> String {
        match self {
            Self::Address => "address and port".to_owned(),
            Self::Path => "path".to_owned(),
            Self::File => "file".to_owned(),
            Self::Text => "text".to_owned(),
            Self::List => "list of texts".to_owned(),
            Self::Switch => "true, false".to_owned(),
            Self::Choice(names) => names.join(", "),
            Self::Rate => "rate: `600/min`, `600/min burst 50`".to_owned(),
            Self::Time(min, max) => format!("{} to {}", show_time(min), show_time(max)),
            Self::Bytes(min, max) => format!("{} to {}", show_bytes(min), show_bytes(max)),
            Self::Count { min, max, .. } => format!("{min} to {max}"),
            Self::Or { word, kind } => format!("{word}, or {}", kind.range()),
        }
    }

    /// Reads a value; the error says what is wrong and what would be right.
    pub(super) fn parse(self, raw: &Raw, memory: u64) -> Result<Value, String> {
        match (self, raw) {
            (Self::Or { word, .. }, Raw::Text(text) | Raw::Word(text)) if text == word => Ok(Value::Nothing),
            (Self::Or { word, kind }, raw) => {
                kind.parse(raw, memory).map_err(|message| format!("{message} (or \"{word}\")"))
            }
            (_, Raw::Other(what)) => Err(format!("is {what}; expected {}", self.expected())),
            (Self::Switch, Raw::Switch(on)) => Ok(Value::Switch(*on)),
            (Self::Switch, Raw::Word(word)) => match word.as_str() {
                "true" | "1" | "yes" | "on" => Ok(Value::Switch(true)),
                "false" | "0" | "no" | "off" => Ok(Value::Switch(false)),
                _ => Err(format!("\"{word}\" is neither true nor false")),
            },
            (Self::List, Raw::List(list)) => Ok(Value::List(list.clone())),
            (Self::List, Raw::Word(word)) => Ok(Value::List(words(word))),
            (Self::Count { min, max, each }, Raw::Number(text) | Raw::Word(text)) => {
                let count = number(text)?;
                within(count, min, max, |number| number.to_string())?;
                fits(count.saturating_mul(each), memory)?;
                Ok(Value::Number(count))
            }
            (Self::Bytes(min, max), Raw::Number(text) | Raw::Text(text) | Raw::Word(text)) => {
                let bytes = match text.parse::<ByteSize>() {
                    Ok(bytes) => bytes.as_u64(),
                    Err(_) => return Err(format!("\"{text}\" is not a size; write 65536, 64KiB or 4MiB")),
                };
                within(bytes, min, max, show_bytes)?;
                fits(bytes, memory)?;
                Ok(Value::Number(bytes))
            }
            (Self::Time(min, max), Raw::Text(text) | Raw::Word(text)) => {
                let ms = match (raw, text.parse::<u64>()) {
                    (Raw::Word(_), Ok(seconds)) => seconds.saturating_mul(1000),
                    (_, Ok(_)) if text != "0" => {
                        return Err(format!("\"{text}\" has no unit; write \"{text}s\" or \"{text}ms\""));
                    }
                    _ => time(text)?,
                };
                within(ms, min, max, show_time)?;
                Ok(Value::Number(ms))
            }
            (Self::Time(..), Raw::Number(number)) => {
                Err(format!("has no unit; write \"{number}s\" or \"{number}ms\""))
            }
            (
                Self::Address | Self::Path | Self::File | Self::Text | Self::Choice(_) | Self::Rate,
                Raw::Text(text) | Raw::Word(text),
            ) => self.text(text).map(Value::Text),
            _ => Err(format!("expected {}", self.expected())),
        }
    }

    fn text(self, text: &str) -> Result<String, String> {
        match self {
            Self::Address => {
                text.parse::<SocketAddr>().map_err(|_| {
                    format!("\"{text}\" is not an address and a port; write 127.0.0.1:8080 or [::1]:8080")
                })?;
            }
            Self::Path if !text.starts_with('/') || text.contains(['?', '#', ' ']) => {
                return Err(format!("\"{text}\" is not a path; it begins with a slash and has no query"));
            }
            Self::Rate if rate(text).is_none() => {
                return Err(format!("\"{text}\" is not a rate; write 600/min, or 600/min burst 50"));
            }
            Self::Choice(names) if !names.contains(&text) => {
                return Err(format!("\"{text}\" is none of {}", names.join(", ")));
            }
            _ => {}
        }
        Ok(text.to_owned())
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Address => "an address and a port in quotes",
            Self::Path | Self::File | Self::Text | Self::Choice(_) => "text in quotes",
            Self::Rate => "a rate in quotes, as in \"600/min\"",
            Self::List => "a list of texts in brackets",
            Self::Switch => "true or false",
            Self::Time(..) => "a duration in quotes, as in \"30s\"",
            Self::Bytes(..) => "a number of bytes, or a size in quotes, as in \"4MiB\"",
            Self::Count { .. } => "a whole number",
            Self::Or { kind, .. } => kind.expected(),
        }
    }

    /// Shows a value as it stands in a file.
    pub(super) fn show(self, value: &Value) -> String {
        match (self, value) {
            (Self::Or { word, .. }, Value::Nothing) => quoted(word),
            (Self::Or { kind, .. }, value) => kind.show(value),
            (_, Value::Nothing) => quoted(""),
            (Self::Time(..), Value::Number(ms)) => quoted(&show_time(*ms)),
            (Self::Bytes(..), Value::Number(bytes)) => quoted(&show_bytes(*bytes)),
            (_, Value::Number(number)) => number.to_string(),
            (_, Value::Switch(on)) => on.to_string(),
            (_, Value::Text(text)) => quoted(text),
            (_, Value::List(list)) => {
                format!("[{}]", list.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// The parts of a list in one word.
fn words(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn number(text: &str) -> Result<u64, String> {
    // TOML allows a plus sign and, between digits, underscores; the parser has taken the latter out.
    text.trim_start_matches('+').parse().map_err(|_| format!("\"{text}\" is not a whole number from 0 on"))
}

fn time(text: &str) -> Result<u64, String> {
    let wrong = |_| format!("\"{text}\" is not a duration; write 500ms, 30s, 5m or 1h 30m");
    let duration = humantime::parse_duration(text).map_err(wrong)?;
    Ok(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// `600/min`, any of them at once, or `600/min burst 50`.
fn rate(text: &str) -> Option<Rate> {
    let (per_minute, burst) = text.split_once("/min")?;
    let per_minute = per_minute.trim().parse().ok()?;
    let burst = match burst.trim() {
        "" => per_minute,
        burst => burst.strip_prefix("burst ")?.trim().parse().ok()?,
    };
    Rate::new(per_minute, burst)
}

fn within(number: u64, min: u64, max: u64, show: impl Fn(u64) -> String) -> Result<(), String> {
    if number < min {
        return Err(format!("{} is too little; the least is {}", show(number), show(min)));
    }
    if number > max {
        return Err(format!("{} is too much; the most is {}", show(number), show(max)));
    }
    Ok(())
}

fn fits(bytes: u64, memory: u64) -> Result<(), String> {
    if bytes <= memory {
        return Ok(());
    }
    let (bytes, memory) = (ByteSize(bytes), ByteSize(memory));
    Err(format!("takes up to {bytes}, which is more than the memory of this machine, {memory}"))
}

fn show_time(ms: u64) -> String {
    show(ms, &[(24 * 60 * 60 * 1000, "d"), (60 * 60 * 1000, "h"), (60 * 1000, "m"), (1000, "s"), (1, "ms")])
}

fn show_bytes(bytes: u64) -> String {
    show(bytes, &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")])
}

/// In the largest unit that divides it.
fn show(number: u64, units: &[(u64, &str)]) -> String {
    let fits = units.iter().find(|(size, _)| number >= *size && number.is_multiple_of(*size));
    fits.map_or_else(|| "0".to_owned(), |(size, unit)| format!("{}{unit}", number / size))
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            _ if character.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

/// What can stand in the place of an option.
pub(super) trait Field: Sized {
    /// What stands there.
    fn read(&self) -> Value;
    /// What a value comes to; `None` if it is of another kind, which [`Kind::parse`] lets through to no place.
    fn of(value: Value) -> Option<Self>;
    /// Puts a value there.
    fn write(&mut self, value: Value) {
        if let Some(new) = Self::of(value) {
            *self = new;
        }
    }
}

macro_rules! numbers {
    ($($number:ty)+) => {$(
        impl Field for $number {
            fn read(&self) -> Value {
                Value::Number(u64::try_from(*self).unwrap_or(u64::MAX))
            }

            fn of(value: Value) -> Option<Self> {
                let Value::Number(number) = value else { return None };
                Some(Self::try_from(number).unwrap_or(Self::MAX))
            }
        }
    )+};
}

numbers! { u32 u64 usize }

impl Field for Duration {
    fn read(&self) -> Value {
        Value::Number(u64::try_from(self.as_millis()).unwrap_or(u64::MAX))
    }

    fn of(value: Value) -> Option<Self> {
        u64::of(value).map(Self::from_millis)
    }
}

impl Field for bool {
    fn read(&self) -> Value {
        Value::Switch(*self)
    }

    fn of(value: Value) -> Option<Self> {
        let Value::Switch(on) = value else { return None };
        Some(on)
    }
}

/// `stream = true` is [`Answer::Stream`].
impl Field for Answer {
    fn read(&self) -> Value {
        Value::Switch(*self == Self::Stream)
    }

    fn of(value: Value) -> Option<Self> {
        bool::of(value).map(|stream| if stream { Self::Stream } else { Self::Auto })
    }
}

impl Field for Vec<String> {
    fn read(&self) -> Value {
        Value::List(self.clone())
    }

    fn of(value: Value) -> Option<Self> {
        let Value::List(list) = value else { return None };
        Some(list)
    }
}

impl Field for String {
    fn read(&self) -> Value {
        Value::Text(self.clone())
    }

    fn of(value: Value) -> Option<Self> {
        let Value::Text(text) = value else { return None };
        Some(text)
    }
}

impl Field for Rate {
    fn read(&self) -> Value {
        Value::Text(if self.burst == self.per_minute {
            format!("{}/min", self.per_minute)
        } else {
            format!("{}/min burst {}", self.per_minute, self.burst)
        })
    }

    fn of(value: Value) -> Option<Self> {
        rate(&String::of(value)?)
    }
}

impl Field for SocketAddr {
    fn read(&self) -> Value {
        Value::Text(self.to_string())
    }

    fn of(value: Value) -> Option<Self> {
        String::of(value)?.parse().ok()
    }
}

/// Of a kind that is a word or something else.
impl<F: Field> Field for Option<F> {
    fn read(&self) -> Value {
        self.as_ref().map_or(Value::Nothing, Field::read)
    }

    fn of(value: Value) -> Option<Self> {
        if value == Value::Nothing { Some(None) } else { F::of(value).map(Some) }
    }
}

/// The names that a choice goes by.
pub(super) trait Names {
    const NAMES: &'static [&'static str];
}

/// Names of a choice, and what each stands for.
macro_rules! choices {
    ($($choice:ty { $($name:literal => $value:path),+ })+) => {$(
        impl Field for $choice {
            fn read(&self) -> Value {
                Value::Text(match self { $($value => $name),+ }.to_owned())
            }

            fn of(value: Value) -> Option<Self> {
                match String::of(value)?.as_str() {
                    $($name => Some($value),)+
                    _ => None,
                }
            }
        }

        impl Names for $choice {
            const NAMES: &'static [&'static str] = &[$($name),+];
        }
    )+};
}

choices! {
    LagPolicy { "signal" => Self::Signal, "end" => Self::End, "wait" => Self::Wait }
    AtLimit { "refuse" => Self::Refuse, "evict-oldest" => Self::EvictOldest, "evict-longest-idle" => Self::EvictLongestIdle }
    LogFormat { "text" => Self::Text, "json" => Self::Json }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MEMORY: u64 = 1 << 34;

    fn word(kind: Kind, text: &str) -> Result<Value, String> {
        kind.parse(&Raw::Word(text.to_owned()), MEMORY)
    }

    #[test]
    fn sizes_and_durations_are_read_as_people_write_them() {
        let bytes = Kind::Bytes(1, 1 << 40);
        for (text, size) in
            [("1", 1), ("64KiB", 1 << 16), ("4 MiB", 4 << 20), ("4MB", 4_000_000), ("1.5KiB", 1536)]
        {
            assert_eq!(word(bytes, text), Ok(Value::Number(size)), "{text}");
        }
        let time = Kind::Time(1, u64::MAX);
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("1h 30m", 5_400_000), ("7", 7000)] {
            assert_eq!(word(time, text), Ok(Value::Number(ms)), "{text}");
        }
        for text in ["", "-1", "4XiB", "0", "99999TiB", "1e3", "20GiB"] {
            assert!(word(bytes, text).is_err(), "{text}");
        }
        for text in ["", "-1s", "soon", "0", "0s", "s", "5 x"] {
            assert!(word(time, text).is_err(), "{text}");
        }
        let file = time.parse(&Raw::Text("30".to_owned()), MEMORY);
        assert_eq!(file, Err("\"30\" has no unit; write \"30s\" or \"30ms\"".to_owned()));
    }

    #[test]
    fn rates_are_read_and_shown() {
        for (text, shown) in
            [("600/min", "600/min"), ("600 /min burst 50", "600/min burst 50"), ("9/min burst 9", "9/min")]
        {
            let value = word(Kind::Rate, text).unwrap();
            assert_eq!(
                Rate::of(value).map(|rate| rate.read()),
                Some(Value::Text(shown.to_owned())),
                "{text}"
            );
        }
        for text in ["", "600", "0/min", "5/min burst 0", "5/min burst", "5/s", "-1/min", "5/min 3"] {
            assert!(word(Kind::Rate, text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_the_machine_is_refused() {
        let sessions = Kind::Count { min: 1, max: 1 << 40, each: 280 };
        assert!(word(sessions, "1000000").is_ok());
        assert!(word(sessions, "1000000000").unwrap_err().contains("memory of this machine"));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(number in 1..MEMORY) {
            for kind in [Kind::Time(0, u64::MAX), Kind::Bytes(0, u64::MAX), Kind::Count { min: 0, max: u64::MAX, each: 0 }] {
                let shown = kind.show(&Value::Number(number));
                let raw = match shown.strip_prefix('"') {
                    Some(text) => Raw::Text(text.trim_end_matches('"').to_owned()),
                    None => Raw::Number(shown),
                };
                prop_assert_eq!(kind.parse(&raw, MEMORY), Ok(Value::Number(number)));
            }
        }

        #[test]
        fn no_value_panics(text in ".*") {
            for kind in [Kind::Time(0, 9), Kind::Bytes(0, 9), Kind::Address, Kind::Path, Kind::List, Kind::Switch, Kind::Rate] {
                for raw in [Raw::Word(text.clone()), Raw::Text(text.clone()), Raw::Number(text.clone())] {
                    let _ = kind.parse(&raw, MEMORY);
                }
            }
        }
    }
}
