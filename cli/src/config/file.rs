//! Parses the TOML file into keys and values, each with its line number.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::table::{KEYS, Key};
use super::value::Raw;

/// The contents of a file.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) entries: Vec<Entry>,
    pub(super) faults: Vec<Fault>,
}

/// One key and its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: &'static Key,
    pub(super) line: usize,
    pub(super) raw: Raw,
}

/// An error in a file.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Reads a whole file, also where parts of it have errors.
pub(super) fn read(text: &str) -> Read {
    let mut read = Read::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let line = error.span().map_or(1, |span| line_of(text, &span));
        read.faults.push(Fault { line, message: one_line(error.message()) });
    }
    for (name, value) in table.get_ref() {
        let line = line_of(text, &name.span());
        match (Key::find(name.get_ref()), value.get_ref()) {
            (None, DeValue::Table(_)) => {
                let message = format!("unknown table [{}]; all keys are at the top level", name.get_ref());
                read.faults.push(Fault { line, message });
            }
            (None, _) => read.faults.push(Fault { line, message: unknown(name.get_ref()) }),
            // Behind a syntax error a value may be incomplete.
            (Some(key), value) => read.entries.push(Entry { key, line, raw: raw(value) }),
        }
    }
    read.entries.sort_by_key(|entry| entry.line);
    read
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Raw::Number(number.as_str().to_owned()),
        DeValue::Integer(_) => Raw::Other("a number in another base"),
        DeValue::Boolean(on) => Raw::Switch(*on),
        DeValue::Array(list) => {
            let texts: Option<Vec<_>> =
                list.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
            texts.map_or(Raw::Other("a list with other values"), Raw::List)
        }
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

/// The message about a name that is no key.
pub(super) fn unknown(name: &str) -> String {
    let nearest = nearest(name, KEYS.iter().map(|key| key.name.to_owned()));
    format!("unknown key `{name}`{nearest}")
}

/// Suggests the candidate that is most like `name`, if one is close enough.
pub(super) fn nearest(name: &str, candidates: impl Iterator<Item = String>) -> String {
    // Jaro-Winkler prefers a common prefix: `max_body` finds `max_body_bytes`.
    let alike = candidates.map(|candidate| (strsim::jaro_winkler(name, &candidate), candidate));
    match alike.max_by(|(one, _), (other, _)| one.total_cmp(other)) {
        Some((alike, candidate)) if alike > 0.75 => format!("; did you mean `{candidate}`?"),
        _ => String::new(),
    }
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    let start = span.start.min(text.len());
    text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
