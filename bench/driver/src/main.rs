//! `make bench`: what this checkout costs, beside its rivals in the same run.
//!
//! ```text
//!  bench ──► builds (this checkout, the baseline commit, Kubernetes' allocator)
//!        ──► each bench: programs in turn, or operators on a real API server ──► rows ──► table, target/bench/report.json
//! ```
//!
//! A bench is a file in `benches/` and a line in [`BENCHES`]. It adds rows: what was measured, against what, and which ratio it must
//! reach. Benches are no tests: they are not part of `make test`, and numbers of different runs are never compared.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod benches;
mod builds;
mod operator;
mod report;
mod row;
mod samples;

use anyhow::{Result, ensure};
use builds::Builds;
use clap::Parser;
use row::Row;
use std::process::ExitCode;

/// Every bench, in the order in which they run.
const BENCHES: [Bench; 7] = [
    Bench("plan", benches::plan),
    Bench("node", benches::node),
    Bench("memory", benches::memory),
    Bench("cidrset", benches::cidrset),
    Bench("operator-joins", operator::joins),
    Bench("operator-innocent", operator::innocent),
    Bench("operator-large", operator::large),
];

/// A name, and what measures and adds rows. Rows that were added before a failure count.
struct Bench(&'static str, fn(&Builds, &mut Vec<Row>) -> Result<()>);

/// Measures this checkout beside its rivals.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Runs these benches only: every one whose name begins with a given word.
    only: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let Arguments { only } = Arguments::parse();
    let chosen: Vec<&Bench> = BENCHES
        .iter()
        .filter(|bench| {
            only.is_empty() || only.iter().any(|word| bench.0.starts_with(word.as_str()))
        })
        .collect();
    ensure!(
        !chosen.is_empty(),
        "no bench is called {}: there are {}",
        only.join(" or "),
        BENCHES.map(|bench| bench.0).join(", ")
    );
    let builds = Builds::new()?;
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for Bench(name, measure) in chosen {
        eprintln!("== {name}");
        if let Err(failure) = measure(&builds, &mut rows) {
            eprintln!("{name} failed: {failure:#}");
            failed.push(*name);
        }
    }
    println!("\n{}", report::table(&rows));
    let path = report::write(&builds.checkout().join("target/bench"), &rows)?;
    println!("{}", path.display());
    let missed = rows.iter().filter(|row| row.met == Some(false)).count();
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
    }
    if missed > 0 {
        println!("bars that are not met: {missed}");
    }
    Ok(if failed.is_empty() && missed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
