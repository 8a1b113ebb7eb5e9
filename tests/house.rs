//! The order of the house: which room may use which, and where the primitives come from.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of the core, each using only those before it.
const CORE: [&str; 8] = ["sync", "ring", "wake", "sse", "protocol", "stream", "session", "handler"];
/// The rooms between: they may use the core, and each other in this order.
const MIDDLE: [&str; 1] = ["identity"];
/// The rooms above it, which do not know each other.
const TOP: [&str; 3] = ["server", "adapter", "everything"];
/// The room that speaks of the others' options, for the binary.
const LAST: [&str; 1] = ["config"];

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
        let room = Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        (room, path, text)
    };
    let product = |(room, path, _): &(String, PathBuf, String)| {
        room != "lib" && room != "main" && path.file_name().is_some_and(|name| name != "tests.rs")
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
fn a_room_uses_only_rooms_before_it() {
    let rank = |room: &str| {
        let ordered = CORE.iter().chain(&MIDDLE);
        let last = ordered.clone().count() + usize::from(LAST.contains(&room));
        ordered.clone().position(|ordered| *ordered == room).unwrap_or(last)
    };
    for (room, path, text) in sources() {
        let is_room =
            |name: &str| CORE.iter().chain(&MIDDLE).chain(&TOP).chain(&LAST).any(|room| *room == name);
        assert!(is_room(&room), "an unknown room: {room}");
        for line in code(&text) {
            for (at, _) in line.match_indices("crate::") {
                let other = line[at + 7..].split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                let allowed = other == room || rank(other) < rank(&room);
                assert!(!is_room(other) || allowed, "{}: {room} uses {other}: {line}", path.display());
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
    for (room, path, text) in
        sources().into_iter().filter(|(room, ..)| CORE.contains(&&**room) && room != "sync")
    {
        for line in code(&text) {
            for word in forbidden {
                assert!(!line.contains(word), "{}: {room} uses {word}: {line}", path.display());
            }
        }
    }
}
