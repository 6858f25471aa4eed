//! 100,000 node ranges from one pool: one cluster of 100,000 nodes, planned from nothing. The plan holds more than ranges (mesh addresses,
//! a segment, a gateway), so this is an upper bound of what ranges cost.

use anyhow::{Result, ensure};
use bench_baseline::fleet::{CLUSTERS, NODES, fleet, nothing};
use bench_baseline::{SAMPLES, sample};
use tieline_core::plan::plan;

pub(crate) fn measure() -> Result<()> {
    let nodes = CLUSTERS * NODES;
    let fleet = fleet(1, nodes, 8)?;
    let nothing = nothing()?;
    let first = plan(&fleet, &nothing);
    let given = first
        .nodes
        .values()
        .filter(|node| !node.pod_cidrs.is_empty());
    let work = format!("{} ranges", given.count());
    ensure!(
        work == format!("{nodes} ranges"),
        "only {work}: {:?}",
        first.report.refusals.first()
    );
    for _ in 0..SAMPLES {
        sample("100,000 node ranges from one pool", &work, || {
            plan(&fleet, &nothing)
        });
    }
    Ok(())
}
