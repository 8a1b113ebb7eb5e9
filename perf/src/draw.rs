//! Pictures of results: a bar for each rival, with the range of its rounds.

use std::error::Error;
use std::path::{Path, PathBuf};

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Report, Row, Spread, Table};

const WIDTH: u32 = 760;
const ROW: i32 = 30;
const TOP: i32 = 56;
/// Where the bars begin and end at most; left of them stand the names, right of them the figures.
const BARS: (i32, i32) = (150, 560);

const INK: RGBColor = RGBColor(40, 44, 52);
const QUIET: RGBColor = RGBColor(120, 126, 136);
const OURS: RGBColor = RGBColor(0, 110, 150);
const OTHERS: RGBColor = RGBColor(176, 184, 194);

/// Draws every table of the result in `file` into a picture beside it.
///
/// # Errors
///
/// The file is no result, or a picture cannot be written.
pub fn draw(file: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let report = Report::load(file)?;
    let mut pictures = Vec::new();
    for (number, table) in report.tables.iter().enumerate() {
        let name = format!("{}-{}-{}.svg", report.date, report.scenario, number + 1);
        let path = file.with_file_name(name);
        draw_table(&report, table, &path)?;
        pictures.push(path);
    }
    Ok(pictures)
}

fn draw_table(report: &Report, table: &Table, path: &Path) -> Result<(), Box<dyn Error>> {
    let bars: Vec<(&Row, Spread)> =
        table.rows.iter().filter_map(|row| Some((row, table.spread(row, &table.figure)?))).collect();
    let height = TOP + ROW * bars.len() as i32 + 30;
    let area = SVGBackend::new(path, (WIDTH, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let text = |size: i32, ink: &RGBColor, side: HPos| {
        ("sans-serif", size).into_font().color(ink).pos(Pos::new(side, VPos::Center))
    };
    let heading = format!("{}: {}", report.scenario, table.title);
    area.draw_text(&heading, &text(15, &INK, HPos::Left), (12, 18))?;
    let below =
        format!("{}, median and range; in brackets, times the first row in the same round", table.figure);
    area.draw_text(&below, &text(12, &QUIET, HPos::Left), (12, 38))?;

    let most = bars.iter().map(|(_, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let at = |figure: f64| BARS.0 + (f64::from(BARS.1 - BARS.0) * figure / most) as i32;
    for (number, (row, spread)) in bars.iter().enumerate() {
        let middle = TOP + ROW * number as i32 + ROW / 2;
        area.draw_text(&row.rival, &text(13, &INK, HPos::Right), (BARS.0 - 8, middle))?;
        let colour = if row.rival.starts_with("ringmain") { OURS } else { OTHERS };
        let bar = [(BARS.0, middle - 9), (at(spread.median), middle + 9)];
        area.draw(&Rectangle::new(bar, colour.filled()))?;
        for line in [
            [(at(spread.min), middle), (at(spread.max), middle)],
            [(at(spread.min), middle - 4), (at(spread.min), middle + 4)],
            [(at(spread.max), middle - 4), (at(spread.max), middle + 4)],
        ] {
            area.draw(&PathElement::new(line.to_vec(), INK.stroke_width(1)))?;
        }
        let ratio = table.ratio(row).map(|ratio| format!(" [{:.2}]", ratio.median)).unwrap_or_default();
        let label = format!("{}{ratio}", Spread { min: spread.median, max: spread.median, ..*spread });
        area.draw_text(&label, &text(13, &INK, HPos::Left), (at(spread.max) + 8, middle))?;
    }
    let machine = &report.machine;
    let foot =
        format!("{}; {}, {} cores; commit {}", report.date, machine.cpu, machine.cores, machine.commit);
    area.draw_text(&foot, &text(11, &QUIET, HPos::Left), (12, height - 14))?;
    area.present()?;
    Ok(())
}
