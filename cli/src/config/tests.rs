//! Tests of precedence and of error messages, and of the table of options against the documentation.

use super::*;

fn file(text: &str) -> Result<Loaded, Problems> {
    load(&Sources { file: Some(("r.toml", text)), ..Sources::default() })
}

fn problems(text: &str) -> String {
    file(text).unwrap_err().to_string()
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let text = "idle = \"1m\"\ndrain = \"1s\"\nkeep_alive = \"2s\"\n";
    let environment =
        [("RINGMAIN_IDLE".to_owned(), "2m".to_owned()), ("RINGMAIN_DRAIN".to_owned(), "2s".to_owned())];
    let flags = [("idle", "3m".to_owned())];
    let sources =
        Sources { file: Some(("r.toml", text)), environment: &environment, flags: &flags, memory: u64::MAX };
    let loaded = load(&sources).unwrap();
    let server = &loaded.options.server;
    assert_eq!(server.sessions.idle_ms, 3 * 60_000);
    assert_eq!(server.drain.as_secs(), 2);
    assert_eq!(server.keep_alive.as_secs(), 2);
    assert_eq!(server.sweep.as_secs(), 5);
    let shown = loaded.show();
    for line in ["# --idle", "# RINGMAIN_DRAIN", "# r.toml:3", "# default"] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
}

#[test]
fn every_mistake_is_told_at_once_with_its_place() {
    let text = "idle = 30\nmax_body = 5\npath = \"mcp\"\n[gateway]\nx = 1\n";
    assert_eq!(
        problems(text),
        "r.toml:1: idle: 30 has no unit; write \"30s\" or \"30ms\"\n\
         r.toml:2: unknown key `max_body`; did you mean `max_body_bytes`?\n\
         r.toml:3: path: \"mcp\" is not a path; a path begins with a slash and has no query\n\
         r.toml:4: unknown table [gateway]; all keys are at the top level"
    );
    let environment = [("RINGMAIN_SWEEP".to_owned(), "0".to_owned())];
    let flags = [("keep_alive", "2h".to_owned()), ("listen", "here".to_owned())];
    let sources = Sources { file: None, environment: &environment, flags: &flags, memory: u64::MAX };
    assert_eq!(
        load(&sources).unwrap_err().to_string(),
        "RINGMAIN_SWEEP: 0 is below the minimum of 100ms\n\
         --listen: \"here\" is not an address with a port; write 127.0.0.1:8080 or [::1]:8080\n\
         --keep-alive: 2h is above the maximum of 1h"
    );
}

#[test]
fn broken_syntax_is_told_with_its_line() {
    let told = problems("idle = \"5m\"\ndrain = = 5\n");
    assert!(told.starts_with("r.toml:2: "), "{told}");
    assert!(problems("idle = \"5m\"\nidle = \"6m\"\n").contains("duplicate key"));
}

#[test]
fn impossible_limits_are_refused_by_name() {
    for key in KEYS {
        let zero = match key.kind {
            Kind::Count { min, .. } if min > 0 => "0",
            Kind::Bytes(min, _) if min > 0 => "0",
            Kind::Time(min, _) if min > 0 => "\"0s\"",
            _ => continue,
        };
        let told = problems(&format!("{} = {zero}\n", key.name));
        assert!(
            told.contains(&format!("r.toml:1: {}: ", key.name)) && told.contains("below the minimum"),
            "{told}"
        );
    }
    let text = "standalone_bytes = \"8GiB\"\n";
    let told = load(&Sources { file: Some(("r.toml", text)), memory: 4 << 30, ..Sources::default() });
    assert!(
        told.unwrap_err().to_string().contains("standalone_bytes: needs up to 8.0 GiB of memory, more than")
    );
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let told = problems("keep_alive = \"2m\"\nallow_host = [\"a b\"]\n");
    assert!(told.contains("stalled_after: must be at least keep_alive"), "{told}");
    assert!(told.contains("r.toml:2: allow_host: "), "{told}");
}

#[test]
fn what_is_shown_is_a_file_that_says_the_same() {
    let text = "idle = \"90s\"\nallow_host = [\"*.example.com\"]\nmax_body_bytes = 5000\nlag = \"wait\"\nstream = true\n";
    let loaded = file(text).unwrap();
    let again = file(&loaded.show()).unwrap();
    assert_eq!(again.changes(&loaded).len(), 0);
    let changed = loaded.changes(&file("").unwrap());
    let names: Vec<_> = changed.iter().map(|key| key.name).collect();
    assert_eq!(names, ["allow_host", "stream", "max_body_bytes", "idle", "lag"]);
}

#[test]
fn variables_of_others_are_not_ours() {
    let environment = [("HOME", "/"), ("RINGMAIN_PORT", "tcp://10.0.0.1:80"), ("RINGMAIN_ADMIN", "")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let loaded = load(&Sources { environment: &environment, ..Sources::default() }).unwrap();
    assert_eq!(loaded.unknown_variables, ["RINGMAIN_PORT"]);
    assert_eq!(loaded.options.admin, None);
}

#[test]
fn defaults_are_within_their_ranges() {
    let loaded = load(&Sources { memory: 1 << 30, ..Sources::default() }).unwrap();
    assert_eq!(file(&loaded.show()).unwrap().changes(&loaded).len(), 0);
}

/// Names of all fields of the options, from their debug form: `server.sessions.idle_ms`.
fn fields() -> Vec<String> {
    let shown = format!("{:#?}", Options::default());
    let (mut path, mut found) = (Vec::new(), Vec::new());
    for line in shown.lines() {
        let (depth, line) = ((line.len() - line.trim_start().len()) / 4, line.trim());
        let Some((name, value)) = line.split_once(": ") else { continue };
        path.truncate(depth.saturating_sub(1));
        path.push(name.to_owned());
        let is_room = ["Config {", "Settings {", "Limits {", "Allowed {", "Connections {", "Proxies {"]
            .contains(&value);
        if !is_room && name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_') {
            found.push(path.join("."));
        }
    }
    found
}

/// Fields that are made from others.
const MADE: [&str; 8] = [
    "server.proxies.trusted",
    "server.tls",
    "server.allowed.hosts",
    "server.allowed.origins",
    "server.allowed.cors",
    "server.allowed.cors_headers",
    "server.authenticator",
    "server.resource",
];

#[test]
fn every_option_has_a_key() {
    let fields = fields();
    assert!(fields.iter().any(|field| field == "server.sessions.standalone.capacity"), "{fields:?}");
    let is_covered = |field: &str| {
        let within = |place: &str| {
            field == place || field.strip_prefix(place).is_some_and(|rest| rest.starts_with('.'))
        };
        KEYS.iter().any(|key| within(key.place.trim_start_matches("options.")))
            || MADE.iter().any(|made| within(made))
    };
    let forgotten: Vec<_> = fields.iter().filter(|field| !is_covered(field)).collect();
    assert!(forgotten.is_empty(), "give each a line in src/config/table.rs: {forgotten:?}");
}

#[test]
fn names_are_distinct_and_plain() {
    for (index, key) in KEYS.iter().enumerate() {
        assert!(
            key.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
        );
        assert!(!["config", "help", "version"].contains(&key.name), "{}", key.name);
        assert!(!KEYS[..index].iter().any(|other| other.name == key.name), "{} stands twice", key.name);
        assert!(key.help.ends_with('.'), "{}", key.name);
    }
}

/// The row of the documentation's table for one option.
fn row(key: &Key) -> String {
    let reload = if key.reload == Reload::Restart { "no" } else { "yes" };
    let (name, default, range) = (key.name, key.show(&Options::default()), key.kind.range());
    format!("| `{name}` | `{default}` | {range} | {reload} | {} |", key.help)
}

#[test]
fn table_in_the_docs_is_true() {
    let docs = include_str!("../../../docs/operations.md");
    let start = docs.find("<!-- options -->").expect("the table begins");
    let end = docs.find("<!-- end of options -->").expect("the table ends");
    let written: Vec<&str> = docs[start..end].lines().filter(|line| line.starts_with("| `")).collect();
    for key in KEYS {
        let row = row(key);
        assert!(written.contains(&row.as_str()), "docs/operations.md needs this row:\n{row}");
    }
    assert_eq!(written.len(), KEYS.len(), "docs/operations.md has a row for an option that does not exist");
}

#[test]
#[ignore = "prints the rows of the table for docs/operations.md"]
fn rows() {
    let mut heading = "";
    for key in KEYS {
        if key.heading != heading {
            heading = key.heading;
            println!(
                "\n**{heading}**\n\n| key | default | range | reload | description |\n|---|---|---|---|---|"
            );
        }
        println!("{}", row(key));
    }
}

/// Texts between quotes in a piece of code.
fn quotes(code: &str) -> Vec<String> {
    let (mut found, mut text) = (Vec::new(), None::<String>);
    let mut letters = code.chars();
    while let Some(letter) = letters.next() {
        match (&mut text, letter) {
            (Some(open), '\\') => open.extend(letters.next()),
            (Some(_), '"') => found.extend(text.take()),
            (Some(open), _) => open.push(letter),
            (None, '"') => text = Some(String::new()),
            (None, _) => {}
        }
    }
    found
}

/// Everything that the log and the refusals say to a person, by the file that says it.
fn sayings() -> Vec<(String, String)> {
    fn walk(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut files = Vec::new();
    // Those of the library, and of this package.
    for folder in ["../src", "src"] {
        walk(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
    }
    let mut said = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let name = path.display().to_string();
        // Of log lines, and of those functions whose texts become part of one or are a refusal.
        for start in
            ["tracing::error!(", "tracing::warn!(", "tracing::info!(", "tracing::debug!(", "fn setting("]
        {
            for piece in code.split(start).skip(1) {
                let end = piece.find(if start.starts_with("fn") { "\n    }" } else { ");\n" });
                let texts = quotes(&piece[..end.unwrap_or(piece.len())]);
                said.extend(texts.into_iter().map(|text| (name.clone(), text)));
            }
        }
        if path.ends_with("protocol/refusal/table.rs") {
            let texts = quotes(code.split("\nrefusals! {").nth(1).unwrap());
            said.extend(texts.into_iter().filter(|text| text.contains(' ')).map(|text| (name.clone(), text)));
        }
    }
    said
}

/// A log line that names a key which does not exist sends its reader on a search.
#[test]
fn options_named_in_log_lines_and_refusals_exist() {
    let mut named = 0;
    for (file, text) in sayings() {
        let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || "_-.:".contains(letter)));
        for word in words.map(|word| word.trim_matches(|letter| ".:".contains(letter))) {
            let is_option = word.starts_with("--") || word.contains('_') && !word.contains("::");
            if is_option && word.len() > 2 {
                let is_there = KEYS.iter().any(|key| key.name == word || format!("--{}", key.flag()) == word);
                assert!(is_there, "{file}: there is no option {word}: {text:?}");
                named += 1;
            }
        }
    }
    assert!(named >= 8, "the sources were read: {named}");
    let setting = sayings().into_iter().any(|(_, text)| text == "max_connections_per_address");
    assert!(setting, "what a log line is given is looked at too");
}
