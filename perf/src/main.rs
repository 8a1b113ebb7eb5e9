//! Measures ringmain beside its rivals, turn by turn. See README.md for the method.
//!
//! ```text
//! cargo build --release --workspace
//! target/release/perf all [--quick]
//! target/release/perf SCENARIO [--connections N] [--rounds N] ...
//! target/release/perf draw RESULT.json...
//! ```

use std::io;
use std::path::Path;
use std::process::ExitCode;

use ringmain_perf::machine::Machine;
use ringmain_perf::options::Options;
use ringmain_perf::process::end_together;
use ringmain_perf::report::Report;
use ringmain_perf::scenario::{ALL, Scenario};
use ringmain_perf::socket::raise_descriptors;

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = given.split_first() else { return usage("say what to measure") };
    if name == "draw" {
        return draw(rest);
    }
    let scenarios: Vec<&Scenario> =
        ALL.iter().filter(|scenario| name == "all" || scenario.name == name).collect();
    if scenarios.is_empty() {
        return usage(&format!("there is no scenario {name}"));
    }
    let options = match Options::parse(rest) {
        Ok(options) => options,
        Err(error) => return usage(&error),
    };
    if let Err(error) = end_together() {
        eprintln!("perf: servers may be left behind: {error}");
    }
    if let Err(error) = raise_descriptors() {
        eprintln!("perf: cannot raise the limit of descriptors: {error}");
    }
    let mut code = ExitCode::SUCCESS;
    for scenario in scenarios {
        if let Err(error) = run(scenario, &options) {
            eprintln!("perf {}: {error}", scenario.name);
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn run(scenario: &Scenario, options: &Options) -> io::Result<()> {
    println!("# {}: {}\n", scenario.name, scenario.about);
    let machine = Machine::this();
    let report = Report::new(scenario.name, machine, (scenario.run)(options)?);
    // A quick run shows that things work and is no result, unless somebody says where to put it.
    if !options.quick || options.out.is_some() {
        println!("written to {}\n", report.save(options.out.as_deref())?.display());
    }
    Ok(())
}

/// Draws pictures of result files.
fn draw(files: &[String]) -> ExitCode {
    for file in files {
        match ringmain_perf::draw::draw(Path::new(file)) {
            Ok(pictures) => pictures.iter().for_each(|picture| println!("{}", picture.display())),
            Err(error) => {
                eprintln!("perf draw {file}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn usage(error: &str) -> ExitCode {
    eprintln!(
        "perf: {error}\n\nusage: perf all|SCENARIO [--quick] [--rounds N] [--only RIVAL,...] [--out DIRECTORY]"
    );
    eprintln!(
        "       [--connections N] [--sessions N] [--deliveries N] [--burst N] [--batch N] [--requests N]"
    );
    eprintln!("       [--rate N] [--seconds N]");
    eprintln!("       perf draw RESULT.json...\n");
    for Scenario { name, about, .. } in ALL {
        eprintln!("  {name:12} {about}");
    }
    ExitCode::from(2)
}
