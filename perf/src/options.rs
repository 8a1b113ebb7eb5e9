//! The command line of `perf`.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Sizes of a scenario, and where its result goes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    given: BTreeMap<String, usize>,
    /// Names of rivals to measure; all if empty. The yardstick always is.
    pub only: Vec<String>,
    /// Small sizes, to see whether everything works.
    pub quick: bool,
    /// Where results go; by default `perf/results`.
    pub out: Option<PathBuf>,
}

/// Options that take a number.
const NUMBERS: [&str; 9] =
    ["connections", "deliveries", "burst", "batch", "rounds", "rate", "seconds", "requests", "sessions"];
/// What `--quick` divides sizes by.
const QUICK: usize = 20;

impl Options {
    /// Reads what stands behind the scenario's name.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.strip_prefix("--") {
                Some("quick") => options.quick = true,
                Some("only") => options.only = value()?.split(',').map(str::to_owned).collect(),
                Some("out") => options.out = Some(value()?.into()),
                Some(name) if NUMBERS.contains(&name) => {
                    let number = value()?.replace('_', "");
                    let number = number.parse().map_err(|_| format!("{argument} {number}: not a number"))?;
                    options.given.insert(name.to_owned(), number);
                }
                _ => return Err(format!("unknown option {argument}")),
            }
        }
        Ok(options)
    }

    /// The number given as `name`, if it was.
    #[must_use]
    pub fn given(&self, name: &str) -> Option<usize> {
        self.given.get(name).copied()
    }

    /// The number given as `name`, or `default`, smaller with `--quick`.
    #[must_use]
    pub fn size(&self, name: &str, default: usize) -> usize {
        self.given(name).unwrap_or(if self.quick { (default / QUICK).max(1) } else { default })
    }

    /// How many rounds.
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.given("rounds").unwrap_or(if self.quick { 1 } else { 3 })
    }

    /// Whether the number of rounds was asked for, or is fixed by what is measured.
    #[must_use]
    pub fn are_rounds_given(&self) -> bool {
        self.quick || self.given("rounds").is_some()
    }

    /// The same with no more than `most` rounds unless more were asked for: for what hardly varies or takes long.
    #[must_use]
    pub fn at_most_rounds(&self, most: usize) -> Self {
        let mut options = self.clone();
        options.given.entry("rounds".to_owned()).or_insert_with(|| self.rounds().min(most));
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Options, String> {
        Options::parse(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn numbers_are_read_and_what_is_unknown_is_refused() {
        let options = parsed(&["--connections", "1_000", "--quick"]).unwrap();
        assert_eq!((options.size("connections", 5), options.size("burst", 40)), (1000, 2));
        for wrong in [&["--connections"][..], &["--connections", "many"], &["--colour", "1"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
