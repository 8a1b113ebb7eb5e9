//! Figures of several rounds as rows of a table, and as a file.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::machine::{self, Machine};
use crate::options::Options;
use crate::rivals::{HYPER, OURS, Rival};

/// What one round gave, by name.
pub type Figures = BTreeMap<String, f64>;

/// The least, the middle and the largest of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Sorts `figures` out; `None` if there are none.
    #[must_use]
    pub fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
        Some(Self { min, median, max })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, median, max } = *self;
        // As many decimals as the figure can bear.
        let decimals = match median.abs() {
            large if large >= 1000.0 || large.fract() == 0.0 && min.fract() == 0.0 && max.fract() == 0.0 => 0,
            middle if middle >= 100.0 => 1,
            _ => 2,
        };
        let text = if min == max {
            format!("{median:.decimals$}")
        } else {
            format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})")
        };
        f.pad(&text)
    }
}

/// Rounds beyond those of the other rivals for who is compared in a budget: the yardstick, ringmain, plain hyper.
const MORE: usize = 2;

/// All rounds of one rival.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// The rival.
    pub rival: String,
    /// One set of figures for each round; empty where the round failed.
    pub rounds: Vec<Figures>,
    /// Why it was given up, if it was.
    pub error: Option<String>,
}

/// One table: some rivals doing the same.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Table {
    /// What they do, with its sizes.
    pub title: String,
    /// The figure that ratios are of, and that pictures show.
    pub figure: String,
    /// The rows; ratios are to the first one.
    pub rows: Vec<Row>,
}

impl Table {
    /// Makes an empty table that compares by `figure`.
    pub fn new(title: impl Into<String>, figure: &str) -> Self {
        Self { title: title.into(), figure: figure.to_owned(), rows: Vec::new() }
    }

    /// Measures `rivals`, the first of which is the yardstick, one after the other, for as many rounds as the options
    /// say. Who is compared in a budget goes on for two more, unless a number was asked for. A rival that fails is
    /// given up, the yardstick is not.
    ///
    /// # Errors
    ///
    /// The yardstick fails.
    pub fn measure(
        mut self,
        options: &Options,
        rivals: &[Rival],
        mut round: impl FnMut(&Rival) -> io::Result<Figures>,
    ) -> io::Result<Self> {
        let wanted =
            |rival: &&Rival| options.only.is_empty() || options.only.iter().any(|name| name == rival.name);
        let rest = rivals.iter().skip(1).filter(wanted);
        let rivals: Vec<&Rival> = rivals.iter().take(1).chain(rest).collect();
        for rival in &rivals {
            let error = (!rival.is_there()).then(|| "not installed".to_owned());
            self.rows.push(Row { rival: rival.name.to_owned(), rounds: Vec::new(), error });
        }
        let more = if options.are_rounds_given() { 0 } else { MORE };
        for number in 1..=options.rounds() + more {
            for (at, rival) in rivals.iter().enumerate() {
                let is_compared = at == 0 || [OURS.name, HYPER.name].contains(&rival.name);
                if self.rows[at].error.is_some() || number > options.rounds() && !is_compared {
                    continue;
                }
                progress(&format!("{}, round {number}: {}", self.title, rival.name));
                match round(rival) {
                    Ok(figures) => self.rows[at].rounds.push(figures),
                    Err(error) if at == 0 => {
                        return Err(io::Error::new(error.kind(), format!("{}: {error}", rival.name)));
                    }
                    Err(error) => self.rows[at].error = Some(error.to_string()),
                }
            }
        }
        progress("");
        println!("{self}");
        Ok(self)
    }

    /// The names of the figures, the one that is compared by first.
    #[must_use]
    pub fn figures(&self) -> Vec<&str> {
        let mut names: Vec<&str> = vec![&self.figure];
        for name in self.rows.iter().flat_map(|row| &row.rounds).flat_map(Figures::keys) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    /// The spread of a figure of a row.
    #[must_use]
    pub fn spread(&self, row: &Row, figure: &str) -> Option<Spread> {
        let figures: Vec<f64> = row.rounds.iter().filter_map(|round| round.get(figure).copied()).collect();
        Spread::of(&figures)
    }

    /// The spread of the ratios of a row to the yardstick, each within its round.
    #[must_use]
    pub fn ratio(&self, row: &Row) -> Option<Spread> {
        let floor = &self.rows.first()?.rounds;
        let ratio =
            |(ours, floor): (&Figures, &Figures)| Some(ours.get(&self.figure)? / floor.get(&self.figure)?);
        let ratios: Vec<f64> = row.rounds.iter().zip(floor).filter_map(ratio).collect();
        Spread::of(&ratios).filter(|spread| spread.median.is_finite())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = || self.rows.iter().filter(|row| row.error.is_none()).map(|row| row.rounds.len());
        match (rounds().min().unwrap_or(0), rounds().max().unwrap_or(0)) {
            (few, many) if few < many => writeln!(f, "{}; median (range) of {few} to {many}", self.title)?,
            (_, many) => writeln!(f, "{}; median (range) of {many}", self.title)?,
        }
        let figures = self.figures();
        let mut lines = vec![vec![String::new(), "to the first row".to_owned()]];
        lines[0].extend(figures.iter().map(|&figure| figure.to_owned()));
        let cell =
            |spread: Option<Spread>| spread.map_or_else(|| "-".to_owned(), |spread| spread.to_string());
        for row in &self.rows {
            let mut line = vec![row.rival.clone(), cell(self.ratio(row))];
            line.extend(figures.iter().map(|figure| cell(self.spread(row, figure))));
            line.extend(row.error.clone());
            lines.push(line);
        }
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..figures.len() + 2).map(width).collect();
        for line in &lines {
            write!(f, "  {:width$}", line[0], width = widths[0])?;
            for (column, cell) in line.iter().enumerate().skip(1) {
                let width = widths.get(column).copied().unwrap_or(0);
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Says on a terminal what is going on, in place of what was said before.
pub(crate) fn progress(text: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}

/// A scenario that was run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    /// Its name.
    pub scenario: String,
    /// When it was run.
    pub date: String,
    /// How it was called.
    pub command: String,
    /// Where it was run.
    pub machine: Machine,
    /// What it gave.
    pub tables: Vec<Table>,
}

impl Report {
    /// Makes a report of what `tables` say.
    #[must_use]
    pub fn new(scenario: &str, machine: Machine, tables: Vec<Table>) -> Self {
        // Where it was written to is of no use to whoever repeats it.
        let given: Vec<String> = std::env::args().skip(1).collect();
        let out = given.iter().position(|argument| argument == "--out").unwrap_or(given.len());
        let arguments: Vec<&str> =
            given[..out].iter().chain(given.iter().skip(out + 2)).map(String::as_str).collect();
        let arguments = arguments.join(" ");
        Self {
            scenario: scenario.to_owned(),
            date: machine::today(),
            command: format!("perf {arguments}"),
            machine,
            tables,
        }
    }

    /// Writes it to a file in `directory`, by default `perf/results`.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn save(&self, directory: Option<&Path>) -> io::Result<PathBuf> {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        let directory = directory.unwrap_or(&results);
        std::fs::create_dir_all(directory)?;
        let path = directory.join(format!("{}-{}.json", self.date, self.scenario));
        std::fs::write(&path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(path)
    }

    /// Reads a file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// It is not there, or is something else.
    pub fn load(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let row = |rival: &str, figures: &[f64]| {
            let rounds = figures.iter().map(|&figure| Figures::from([("cpu".to_owned(), figure)])).collect();
            Row { rival: rival.to_owned(), rounds, error: None }
        };
        let mut table = Table::new("t", "cpu");
        table.rows = vec![row("raw", &[1.0, 4.0, 2.0]), row("ours", &[2.0, 4.0, 6.0])];
        assert_eq!(table.ratio(&table.rows[1]), Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
    }
}
