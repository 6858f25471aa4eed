//! 100,000 nodes planned and checked: from nothing, and after one of them has joined.

use anyhow::{Result, ensure};
use bench_core::fleet::{CLUSTERS, NODES, cluster, fleet, join, nothing, outcome};
use bench_core::{SAMPLES, print_time, sample};
use std::collections::BTreeSet;
use std::time::Instant;
use tieline_core::check::{check, touched};
use tieline_core::plan::{Planner, plan};

pub(crate) fn measure() -> Result<()> {
    let mut fleet = fleet(CLUSTERS, NODES, 22)?;
    let nothing = nothing()?;
    // Not measured: the first one also fills caches and the allocator.
    let work = outcome(&plan(&fleet, &nothing));
    for _ in 0..SAMPLES {
        let start = Instant::now();
        let proposal = sample("plan from nothing", &work, || plan(&fleet, &nothing));
        let findings = sample("check", &work, || check(&fleet, &nothing, &proposal));
        print_time("plan from nothing and check", &work, start.elapsed());
        ensure!(findings.is_empty(), "{} findings", findings.len());
    }

    let mut planner = Planner::new(&fleet, nothing);
    for number in 0..SAMPLES as u32 {
        let cluster = cluster(CLUSTERS / 2 + number)?;
        let changed = BTreeSet::from([join(&mut fleet, &cluster, NODES)?]);
        let start = Instant::now();
        planner.nodes_changed(&fleet, &changed);
        let findings = touched(
            &fleet,
            planner.before(),
            planner.proposal(),
            planner.touched(),
            &changed,
        );
        let time = start.elapsed();
        ensure!(findings.is_empty(), "{} findings", findings.len());
        print_time(
            "one node joins, planned and checked",
            &outcome(planner.proposal()),
            time,
        );
    }
    Ok(())
}
