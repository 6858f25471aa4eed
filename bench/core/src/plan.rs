//! 100,000 nodes planned and checked: from nothing, and after one of them has joined.

use anyhow::{Result, ensure};
use bench_core::fleet::{CLUSTERS, NODES, cluster, fleet, join, nothing, outcome};
use bench_core::{SAMPLES, print_time, sample};
use std::time::Instant;
use tieline_core::check::check;
use tieline_core::plan::{Before, plan};

pub(crate) fn measure() -> Result<()> {
    let mut fleet = fleet(CLUSTERS, NODES, 22)?;
    let nothing = nothing()?;
    // Not measured: the first one also fills caches and the allocator.
    let first = plan(&fleet, &nothing);
    let work = outcome(&first);
    for _ in 0..SAMPLES {
        let start = Instant::now();
        let proposal = sample("plan from nothing", &work, || plan(&fleet, &nothing));
        let findings = sample("check", &work, || check(&fleet, &nothing, &proposal));
        print_time("plan from nothing and check", &work, start.elapsed());
        ensure!(findings.is_empty(), "{} findings", findings.len());
    }

    let mut before = Before {
        lineage: nothing.lineage,
        ledgers: first.ledgers,
        plans: first.plans,
    };
    for number in 0..SAMPLES as u32 {
        join(&mut fleet, &cluster(CLUSTERS / 2 + number)?, NODES)?;
        let start = Instant::now();
        let proposal = plan(&fleet, &before);
        let findings = check(&fleet, &before, &proposal);
        let time = start.elapsed();
        ensure!(findings.is_empty(), "{} findings", findings.len());
        print_time(
            "one node joins, planned and checked",
            &outcome(&proposal),
            time,
        );
        before.ledgers = proposal.ledgers;
        before.plans = proposal.plans;
    }
    Ok(())
}
