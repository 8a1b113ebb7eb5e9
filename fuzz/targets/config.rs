//! The configuration: any file, environment and flags are taken, or refused in words; what is shown says the same again.
//!
//! The input is three parts: the file, lines of `NAME=VALUE` for the environment, lines of `KEY=VALUE` for flags.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmain_cli::config::{KEYS, Sources, load};

/// A machine of 8 GiB.
const MEMORY: u64 = 8 << 30;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |byte| *byte == 0xff).map(|part| str::from_utf8(part).unwrap_or_default());
    let file = parts.next().unwrap_or_default();
    let mut pairs = || {
        let lines = parts.next().unwrap_or_default().lines().take(16);
        lines.filter_map(|line| line.split_once('=')).collect::<Vec<_>>()
    };
    let environment: Vec<(String, String)> =
        pairs().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let key = |name: &str| KEYS.iter().find(|key| key.name == name).map(|key| key.name);
    let flags: Vec<(&str, String)> =
        pairs().into_iter().filter_map(|(name, value)| Some((key(name)?, value.to_owned()))).collect();
    let sources = Sources {
        file: Some(("ringmain.toml", file)),
        environment: &environment,
        flags: &flags,
        memory: MEMORY,
    };
    match load(&sources) {
        Err(problems) => assert!(!problems.to_string().is_empty(), "a refusal says why"),
        Ok(loaded) => {
            let shown = loaded.show();
            let again = Sources { file: Some(("shown.toml", &shown)), memory: MEMORY, ..Sources::default() };
            let again =
                load(&again).unwrap_or_else(|problems| panic!("what is shown is taken: {problems}\n{shown}"));
            let differing: Vec<&str> = loaded.changes(&again).iter().map(|key| key.name).collect();
            assert!(differing.is_empty(), "{differing:?} differ in what is shown:\n{shown}");
        }
    }
});
