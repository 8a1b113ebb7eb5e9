//! The order of the modules: which one may use which, and where the primitives come from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the core, each using only those before it.
const CORE: [&str; 11] = [
    "sync", "options", "ring", "wake", "sse", "protocol", "stream", "topic", "request", "session", "handler",
];
/// The modules between: they may use the core, and each other in this order.
const MIDDLE: [&str; 2] = ["error", "identity"];
/// The modules above it, which do not know each other.
const TOP: [&str; 3] = ["server", "adapter", "everything"];
/// Crates that the program uses and the library does not: command line, configuration file, log, allocator.
const OF_THE_PROGRAM: [&str; 7] =
    ["bytesize", "clap", "humantime", "mimalloc", "strsim", "toml", "tracing_subscriber"];

/// The files of `server/request/`, each using only those after it: the way of a request.
const REQUEST: [&str; 20] = [
    "route",
    "admit",
    "authenticate",
    "cors",
    "get",
    "delete",
    "post",
    "read",
    "initialize",
    "batch",
    "caller",
    "deliver",
    "run",
    "answer",
    "body",
    "record",
    "keep_alive",
    "ends",
    "pending",
    "warned",
];
/// What names a socket, or what one is read and written with.
const SOCKETS: [&str; 9] = [
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "tokio::net",
    "mio",
    "rustix",
    "socket2",
    "AsyncRead",
    "AsyncWrite",
];

fn sources() -> Vec<(String, PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let read = |path: PathBuf| {
        let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
        let module = Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        (module, path, text)
    };
    let product = |(module, path, _): &(String, PathBuf, String)| {
        module != "lib" && module != "internals" && path.file_name().is_some_and(|name| name != "tests.rs")
    };
    found.into_iter().map(read).filter(product).collect()
}

/// The lines that are code of the product: no comments, nothing of the tests at the foot of the file.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let end =
        text.find("#[cfg(test)]").into_iter().chain(text.find("#[cfg(all(test")).min().unwrap_or(text.len());
    text[..end].lines().map(|line| line.split("//").next().unwrap_or_default())
}

#[test]
fn a_module_uses_only_modules_before_it() {
    let rank = |module: &str| {
        let mut ordered = CORE.iter().chain(&MIDDLE);
        ordered.position(|ordered| *ordered == module).unwrap_or(CORE.len() + MIDDLE.len())
    };
    for (module, path, text) in sources() {
        let is_module = |name: &str| CORE.iter().chain(&MIDDLE).chain(&TOP).any(|module| *module == name);
        assert!(is_module(&module), "an unknown module: {module}");
        for line in code(&text) {
            for (at, _) in line.match_indices("crate::") {
                let other = line[at + 7..].split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                let allowed = other == module || rank(other) < rank(&module);
                assert_ne!(other, "internals", "{}: {line}", path.display());
                assert!(!is_module(other) || allowed, "{}: {module} uses {other}: {line}", path.display());
            }
        }
    }
}

#[test]
fn the_core_takes_its_primitives_from_sync_and_reads_no_clock() {
    let forbidden = [
        "std::sync::",
        "core::sync::",
        "std::thread::",
        "Instant::now",
        "SystemTime::now",
        "tokio::",
        "hyper::",
    ];
    for (module, path, text) in
        sources().into_iter().filter(|(module, ..)| CORE.contains(&&**module) && module != "sync")
    {
        for line in code(&text) {
            for word in forbidden {
                assert!(!line.contains(word), "{}: {module} uses {word}: {line}", path.display());
            }
        }
    }
}

#[test]
fn the_library_names_no_crate_of_the_program() {
    for (module, path, text) in sources() {
        for line in code(&text) {
            for name in OF_THE_PROGRAM {
                assert!(!line.contains(name), "{}: {module} uses {name}: {line}", path.display());
            }
        }
    }
}

#[test]
fn files_of_server_use_each_other_without_circles() {
    assert_eq!(circle("server"), None);
}

#[test]
fn files_of_session_and_request_use_each_other_without_circles() {
    assert_eq!([circle("session"), circle("request")], [None, None]);
}

#[test]
fn a_request_goes_down_through_the_files_of_request_once() {
    let rank = |file: &str| REQUEST.iter().position(|ordered| *ordered == file);
    for (file, used) in uses("server") {
        let Some(file) = file.strip_prefix("server::request::") else { continue };
        let own = rank(file).unwrap_or_else(|| panic!("request/ has a file without a rank: {file}"));
        for used in used {
            if let Some(used) = used.strip_prefix("server::request::") {
                assert!(rank(used) > Some(own), "request/{file} uses {used}, which comes before it");
            }
            let second = used.split("::").nth(1).unwrap_or_default();
            let is_above = ["connection", "writer", "admin", "upkeep"].contains(&second);
            assert!(!is_above, "request/{file} uses {used}");
        }
    }
}

#[test]
fn request_names_no_socket_and_connection_no_json() {
    assert!(has_word("use tokio::net::TcpStream;", "tokio::net") && !has_word("an axiom", "mio"));
    for (_, path, text) in sources() {
        let is_in = |folder: &str| path.parent().is_some_and(|parent| parent.ends_with(folder));
        for line in code(&text) {
            if is_in("server/request") {
                let named = SOCKETS.iter().find(|word| has_word(line, word));
                assert_eq!(named, None, "{}: {line}", path.display());
                assert!(!has_word(line, "hyper"), "{}: {line}", path.display());
            }
            if is_in("server/connection") {
                let named = ["json", "RawValue"].iter().find(|word| line.contains(*word));
                assert_eq!(named, None, "{}: {line}", path.display());
            }
        }
    }
}

/// Whether `word` stands in `line` as a word, or as words.
fn has_word(line: &str, word: &str) -> bool {
    let is_inside = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_inside) && !line[at + word.len()..].starts_with(is_inside))
}

/// The first circle found among the files of a module of the crate.
fn circle(module: &str) -> Option<Vec<String>> {
    fn search(
        file: &str,
        uses: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> bool {
        if let Some(first) = way.iter().position(|passed| passed == file) {
            way.drain(..first);
            return true;
        }
        if done.contains(file) {
            return false;
        }
        way.push(file.to_owned());
        if uses[file].iter().any(|used| search(used, uses, way, done)) {
            return true;
        }
        way.pop();
        done.insert(file.to_owned());
        false
    }
    let uses = uses(module);
    let mut done = BTreeSet::new();
    uses.keys().find_map(|file| {
        let mut way = Vec::new();
        search(file, &uses, &mut way, &mut done).then_some(way)
    })
}

/// The files of a module of the crate, as paths of modules (`server::request::post`), and which of them each uses. A
/// name that a `mod.rs` passes on counts as a use of that `mod.rs`.
fn uses(module: &str) -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let name = |path: &Path| {
        let path = path.strip_prefix(&root).unwrap().with_extension("");
        let parts = path.iter().map(|part| part.to_str().unwrap()).filter(|part| *part != "mod");
        parts.collect::<Vec<_>>().join("::")
    };
    let files: BTreeMap<_, _> = sources()
        .into_iter()
        .filter(|(first, ..)| first == module)
        .map(|(_, path, text)| (name(&path), code(&text).collect::<Vec<_>>().join("\n")))
        .collect();
    let is_file = |parts: &[&str]| files.contains_key(&parts.join("::"));
    let used = |file: &str, text: &str| {
        let mut used = BTreeSet::new();
        for path in paths(text) {
            let parts: Vec<_> = path.split("::").collect();
            let own: Vec<_> = file.split("::").collect();
            let mut target = match parts[0] {
                "crate" => Vec::new(),
                "self" | "super" => own,
                first if is_file(&[&own[..], &[first]].concat()) => own,
                _of_another_crate => continue,
            };
            for part in parts {
                match part {
                    "crate" | "self" => {}
                    "super" => drop(target.pop()),
                    part if target.is_empty() || is_file(&[&target[..], &[part]].concat()) => {
                        target.push(part)
                    }
                    // It is no file, so it is a name within the last one.
                    _ => break,
                }
            }
            let target = target.join("::");
            if target != file && files.contains_key(&target) {
                used.insert(target);
            }
        }
        used
    };
    files.iter().map(|(file, text)| (file.clone(), used(file, text))).collect()
}

/// The paths in a text of Rust, those in the braces of a `use` written out.
fn paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    // What stands before each brace that is open.
    let mut open: Vec<String> = Vec::new();
    let mut path = String::new();
    // `pub(in …)` says who may use something, and uses nothing.
    let text = ["server", "session", "request"]
        .iter()
        .fold(text.to_owned(), |text, module| text.replace(&format!("pub(in crate::{module})"), "pub"));
    for c in text.chars().chain([' ']) {
        if c.is_alphanumeric() || c == '_' || c == ':' {
            path.push(c);
            continue;
        }
        let before = open.last().cloned().unwrap_or_default();
        if c == '{' {
            // `a::{` goes on within its braces; whatever else has braces does not.
            open.push(if path.ends_with("::") { before + &path } else { String::new() });
        } else {
            let whole = before + &path;
            if whole.contains("::") && !path.is_empty() {
                found.push(whole.trim_end_matches(':').to_owned());
            }
            if c == '}' {
                open.pop();
            }
        }
        path.clear();
    }
    found
}

#[test]
fn paths_are_read_out_of_braces() {
    let text = "use super::{a, b::{self, C}};\nfn f(x: crate::d::E) { g::h(); x }";
    assert_eq!(paths(text), ["super::a", "super::b::self", "super::b::C", "crate::d::E", "g::h"]);
}
