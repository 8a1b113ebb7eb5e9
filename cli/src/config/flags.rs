//! Builds the command-line flags from the table of options.

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, ValueHint};

use super::Options;
use super::table::{KEYS, Key};
use super::value::Kind;

/// Returns a flag for each key.
pub fn arguments() -> impl Iterator<Item = Arg> {
    let defaults = Options::default();
    KEYS.iter().enumerate().map(move |(order, key)| argument(key, &defaults).display_order(order))
}

fn argument(key: &'static Key, defaults: &Options) -> Arg {
    let shown = key.show(defaults);
    let default = match shown.trim_matches('"') {
        "" | "[]" | "none" => String::new(),
        shown => format!(" [default: {shown}]"),
    };
    let argument = Arg::new(key.name)
        .long(key.flag())
        .value_name(key.kind.word())
        .help(format!("{}{default}", key.help))
        .help_heading(key.heading)
        // Values are checked with those of the file and the environment, so that all errors are shown together.
        .value_parser(ValueParser::string())
        .action(ArgAction::Append);
    match key.kind {
        Kind::Switch => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Kind::File => argument.value_hint(ValueHint::FilePath),
        _ => argument.allow_hyphen_values(true),
    }
}

/// Returns the flags that were given, with their values, for [`Sources::flags`](super::Sources::flags).
#[must_use]
pub fn given(matches: &ArgMatches) -> Vec<(&'static str, String)> {
    let values = |key: &'static Key| {
        let values = matches.get_many::<String>(key.name).into_iter().flatten();
        values.map(move |value| (key.name, value.clone()))
    };
    KEYS.iter().flat_map(values).collect()
}
