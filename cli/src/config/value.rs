//! Parses, checks and prints the values of options, and stores them in the fields they belong to.

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;

use super::LogFormat;
use ringmain::protocol::ForwardedHeader;
use ringmain::server::{Accept, AccessLog, Answer};
use ringmain::session::{AtLimit, LagPolicy, Rate};

/// A value before it is parsed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    /// From a flag or the environment, where everything is text.
    Word(String),
    /// From a file: a string.
    Text(String),
    /// From a file: a number.
    Number(String),
    /// From a file, or from a flag without a value.
    Switch(bool),
    /// From a file, or from a flag that occurs more than once.
    List(Vec<String>),
    /// From a file: a type that no option takes.
    Other(&'static str),
}

/// A value after it is parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// The word that stands for no value.
    Nothing,
    /// Milliseconds, bytes, or a count.
    Number(u64),
    /// Text, an address, a path, or a name of a choice.
    Text(String),
    Switch(bool),
    List(Vec<String>),
}

/// The type of an option's values, and their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An IP address and a port.
    Address,
    /// The path of a URL.
    Path,
    /// The name of a file.
    File,
    /// Any text.
    Text,
    /// A list of strings, perhaps empty.
    List,
    /// `true` or `false`.
    Switch,
    /// One of these names.
    Choice(&'static [&'static str]),
    /// A rate a minute, optionally with a burst.
    Rate,
    /// A duration; its limits in milliseconds, inclusive.
    Time(u64, u64),
    /// A number of bytes; its limits, inclusive. Never more than the memory of the machine.
    Bytes(u64, u64),
    /// A word that stands for no value, or a value of another kind.
    Or {
        /// The word.
        word: &'static str,
        /// The other kind.
        kind: &'static Self,
    },
    /// A number of things.
    Count {
        /// Smallest allowed number.
        min: u64,
        /// Largest allowed number.
        max: u64,
        /// Bytes that each of them takes. All together must fit into the memory of the machine.
        each: u64,
    },
}

impl Kind {
    /// The placeholder for a value in `--help`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Address => "ADDR",
            Self::Path => "PATH",
            Self::File => "FILE",
            Self::Text => "TEXT",
            Self::List => "LIST",
            Self::Switch => "BOOL",
            Self::Choice(_) => "NAME",
            Self::Rate => "RATE",
            Self::Time(..) => "TIME",
            Self::Bytes(..) => "BYTES",
            Self::Count { .. } => "COUNT",
            Self::Or { kind, .. } => kind.word(),
        }
    }

    /// Describes the allowed values, for the table of options in the documentation.
    #[must_use]
    pub fn range(self) -> String {
        match self {
            Self::Address => "address with port".to_owned(),
            Self::Path => "path".to_owned(),
            Self::File => "file".to_owned(),
            Self::Text => "string".to_owned(),
            Self::List => "list of strings".to_owned(),
            Self::Switch => "true, false".to_owned(),
            Self::Choice(names) => names.join(", "),
            Self::Rate => "rate: `600/min`, `600/min burst 50`".to_owned(),
            Self::Time(min, max) => format!("{} to {}", show_time(min), show_time(max)),
            Self::Bytes(min, max) => format!("{} to {}", show_bytes(min), show_bytes(max)),
            Self::Count { min, max, .. } => format!("{min} to {max}"),
            Self::Or { word, kind } => format!("{word}, or {}", kind.range()),
        }
    }

    /// Parses a value. The error says what is wrong and what to write instead.
    pub(super) fn parse(self, raw: &Raw, memory: u64) -> Result<Value, String> {
        match (self, raw) {
            (Self::Or { word, .. }, Raw::Text(text) | Raw::Word(text)) if text == word => Ok(Value::Nothing),
            (Self::Or { word, kind }, raw) => {
                kind.parse(raw, memory).map_err(|message| format!("{message} (or \"{word}\")"))
            }
            (_, Raw::Other(what)) => Err(format!("expected {}, found {what}", self.expected())),
            (Self::Switch, Raw::Switch(on)) => Ok(Value::Switch(*on)),
            (Self::Switch, Raw::Word(word)) => match word.as_str() {
                "true" | "1" | "yes" | "on" => Ok(Value::Switch(true)),
                "false" | "0" | "no" | "off" => Ok(Value::Switch(false)),
                _ => Err(format!("\"{word}\" is not true or false")),
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
                Err(format!("{number} has no unit; write \"{number}s\" or \"{number}ms\""))
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
                    format!("\"{text}\" is not an address with a port; write 127.0.0.1:8080 or [::1]:8080")
                })?;
            }
            Self::Path if !text.starts_with('/') || text.contains(['?', '#', ' ']) => {
                return Err(format!("\"{text}\" is not a path; a path begins with a slash and has no query"));
            }
            Self::Rate if rate(text).is_none() => {
                return Err(format!("\"{text}\" is not a rate; write 600/min, or 600/min burst 50"));
            }
            Self::Choice(names) if !names.contains(&text) => {
                return Err(format!("\"{text}\" is not one of {}", names.join(", ")));
            }
            _ => {}
        }
        Ok(text.to_owned())
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Address => "an address with a port in quotes",
            Self::Path | Self::File | Self::Text | Self::Choice(_) => "a string in quotes",
            Self::Rate => "a rate in quotes, as in \"600/min\"",
            Self::List => "a list of strings in brackets",
            Self::Switch => "true or false",
            Self::Time(..) => "a duration in quotes, as in \"30s\"",
            Self::Bytes(..) => "a number of bytes, or a size in quotes, as in \"4MiB\"",
            Self::Count { .. } => "a whole number",
            Self::Or { kind, .. } => kind.expected(),
        }
    }

    /// Writes a value as in a file.
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

/// Splits a list in one word at its commas.
fn words(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn number(text: &str) -> Result<u64, String> {
    // TOML allows a plus sign, and underscores between digits, which its parser has removed.
    text.trim_start_matches('+').parse().map_err(|_| format!("\"{text}\" is not a non-negative whole number"))
}

fn time(text: &str) -> Result<u64, String> {
    let wrong = |_| format!("\"{text}\" is not a duration; write 500ms, 30s, 5m or 1h 30m");
    let duration = humantime::parse_duration(text).map_err(wrong)?;
    Ok(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Parses `600/min`, whose burst is 600, or `600/min burst 50`.
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
        return Err(format!("{} is below the minimum of {}", show(number), show(min)));
    }
    if number > max {
        return Err(format!("{} is above the maximum of {}", show(number), show(max)));
    }
    Ok(())
}

fn fits(bytes: u64, memory: u64) -> Result<(), String> {
    if bytes <= memory {
        return Ok(());
    }
    let (bytes, memory) = (ByteSize(bytes), ByteSize(memory));
    Err(format!("needs up to {bytes} of memory, more than the {memory} available"))
}

fn show_time(ms: u64) -> String {
    show(ms, &[(24 * 60 * 60 * 1000, "d"), (60 * 60 * 1000, "h"), (60 * 1000, "m"), (1000, "s"), (1, "ms")])
}

fn show_bytes(bytes: u64) -> String {
    show(bytes, &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")])
}

/// Writes a number in the largest unit that divides it.
fn show(number: u64, units: &[(u64, &str)]) -> String {
    let fits = units.iter().find(|(size, _)| number >= *size && number.is_multiple_of(*size));
    fits.map_or_else(|| "0".to_owned(), |(size, unit)| format!("{}{unit}", number / size))
}

/// Writes a basic string of TOML.
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

/// A type that a field of [`Options`](super::Options) may have.
pub(super) trait Field: Sized {
    /// The value of the field.
    fn read(&self) -> Value;
    /// Converts a value; `None` if it is of another kind, which [`Kind::parse`] does not let through.
    fn of(value: Value) -> Option<Self>;
    /// Sets the field.
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

/// For [`Kind::Or`].
impl<F: Field> Field for Option<F> {
    fn read(&self) -> Value {
        self.as_ref().map_or(Value::Nothing, Field::read)
    }

    fn of(value: Value) -> Option<Self> {
        if value == Value::Nothing { Some(None) } else { F::of(value).map(Some) }
    }
}

/// The names of a choice.
pub(super) trait Names {
    const NAMES: &'static [&'static str];
}

/// Implements [`Field`] and [`Names`] for enums, from the name of each variant.
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
    AccessLog { "off" => Self::Off, "on" => Self::On, "with-principal" => Self::WithPrincipal }
    ForwardedHeader { "x-forwarded-for" => Self::XForwardedFor, "forwarded" => Self::Forwarded }
    Accept { "lenient" => Self::Lenient, "strict" => Self::Strict }
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
        assert!(word(sessions, "1000000000").unwrap_err().contains("of memory, more than the"));
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
