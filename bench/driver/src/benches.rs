//! Benches that start programs and compare what these print.

use crate::builds::{BASELINE, Builds};
use crate::row::Row;
use crate::samples::in_turn;
use anyhow::Result;

/// 100,000 nodes: from nothing, and one that joins.
pub(crate) fn plan(builds: &Builds, rows: &mut Vec<Row>) -> Result<()> {
    let [now, baseline] = in_turn([
        builds.core("bench-core", "plan")?,
        builds.baseline("bench-baseline", "plan")?,
    ])?;
    let beside = |what| now.beside("plan", what, BASELINE, &baseline);
    rows.extend([
        beside("plan from nothing")?,
        beside("check")?,
        beside("plan from nothing and check")?.at_most(0.25),
        beside("one node joins, planned and checked")?.at_most(0.01),
    ]);
    Ok(())
}

/// A gateway with 10,000 peers.
pub(crate) fn node(builds: &Builds, rows: &mut Vec<Row>) -> Result<()> {
    let [now, baseline] = in_turn([
        builds.core("bench-core", "node")?,
        builds.baseline("bench-baseline", "node")?,
    ])?;
    let beside = |what| now.beside("node", what, BASELINE, &baseline);
    rows.extend([
        beside("node_config, resolve and diff: nothing to do")?.at_most(0.2),
        beside("one peer's change")?.at_most(0.02),
    ]);
    Ok(())
}

/// What 100,000 nodes hold while they are planned and checked.
pub(crate) fn memory(builds: &Builds, rows: &mut Vec<Row>) -> Result<()> {
    let [now, baseline] = in_turn([
        builds.core("bench-core-memory", "")?,
        builds.baseline("bench-baseline-memory", "")?,
    ])?;
    let beside = |what| now.beside("memory", what, BASELINE, &baseline);
    rows.extend([
        beside("peak of plan and check")?.at_most(1.0),
        beside("peak for each node")?,
    ]);
    Ok(())
}

/// Node ranges beside the allocator of Kubernetes' node IPAM.
pub(crate) fn cidrset(builds: &Builds, rows: &mut Vec<Row>) -> Result<()> {
    let [now, cidrset] = in_turn([builds.core("bench-core", "ranges")?, builds.cidrset()?])?;
    let what = "100,000 node ranges from one pool";
    rows.push(now.beside("cidrset", what, "Kubernetes' cidrset", &cidrset)?);
    Ok(())
}
