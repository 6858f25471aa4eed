//! `bench-core-memory`: the most memory that planning and checking 100,000 nodes holds at once, beside the fleet. A program of its own:
//! an allocator that counts is slower.

use anyhow::{Result, ensure};
use bench_core::fleet::{CLUSTERS, NODES, fleet, nothing, outcome};
use bench_core::print;
use peak_alloc::PeakAlloc;
use tieline_core::check::check;
use tieline_core::plan::Planner;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn main() -> Result<()> {
    let fleet = fleet(CLUSTERS, NODES, 22)?;
    let nothing = nothing()?;
    ALLOCATOR.reset_peak_usage();
    let held = ALLOCATOR.current_usage();
    let planner = Planner::new(&fleet, nothing);
    let findings = check(&fleet, planner.before(), planner.proposal());
    let peak = ALLOCATOR.peak_usage() - held;
    ensure!(findings.is_empty(), "{} findings", findings.len());
    let work = outcome(planner.proposal());
    let nodes = f64::from(CLUSTERS * NODES);
    print("peak of plan and check", &work, peak as f64, "bytes");
    print("peak for each node", &work, peak as f64 / nodes, "bytes");
    Ok(())
}
