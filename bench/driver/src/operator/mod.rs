//! Operators on a real API server, with nodes and agents that are only written: what one join costs, and how long it takes.
//!
//! Each operator has a control plane of its own, with its own definitions, one after the other in the same run. Costs are CPU time of
//! the operator's process: a busy machine changes it little.

mod agents;
mod objects;
mod process;
mod stage;

use crate::builds::{BASELINE, Builds, OperatorBuild};
use crate::row::Row;
use crate::samples::median;
use agents::link;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use stage::Stage;

/// Nodes that the baseline still carries.
const SMALL: u32 = 1_500;
/// Nodes that one cluster may have.
const LARGE: u32 = 10_000;
/// Nodes that join one by one, and are measured.
const JOINS: u32 = 20;
/// Nodes beside which an innocent one joins.
const FEW: u32 = 10;
/// Nodes whose Peers are waited for.
const DELAYS: u32 = 5;
/// Links of others.
const LINKS: u32 = 10_000;

/// What one join costs at 1,500 nodes.
pub(crate) fn joins(builds: &Builds, rows: &mut Vec<Row>) -> Result<()> {
    let [baseline, now] = both(builds)?;
    let before = cost_of_a_join(&baseline, SMALL)?;
    rows.push(cost(&format!("join at {SMALL} nodes, {BASELINE}"), before));
    let now = cost_of_a_join(&now, SMALL)?;
    let row = cost(&format!("join at {SMALL} nodes"), now);
    rows.push(row.versus(BASELINE, before).at_most(0.05));
    Ok(())
}

/// What one join costs at 10,000 nodes, where the baseline's ledger is too large to be written.
pub(crate) fn large(builds: &Builds, rows: &mut Vec<Row>) -> Result<()> {
    builds.control_plane()?;
    let build = builds.operator()?;
    let small = cost_of_a_join(&build, SMALL)?;
    let large = cost_of_a_join(&build, LARGE)?;
    let row = cost(&format!("join at {LARGE} nodes"), large);
    rows.push(row.versus(format!("itself at {SMALL}"), small).at_most(2.0));
    Ok(())
}

/// How long a node of a small link waits for its Peer beside 10,000 links of others.
pub(crate) fn innocent(builds: &Builds, rows: &mut Vec<Row>) -> Result<()> {
    let what = format!("Peer of a new node beside {LINKS} other links");
    for build in both(builds)? {
        let [alone, beside] = delays(&build)?;
        let row = Row::new("operator", &format!("{what}, {}", build.name), beside, "s")
            .versus("itself beside none", alone);
        // The baseline's is for information.
        rows.push(if build.name == BASELINE {
            row
        } else {
            row.at_most(2.0)
        });
    }
    Ok(())
}

/// Everything is built before anything is measured.
fn both(builds: &Builds) -> Result<[OperatorBuild; 2]> {
    builds.control_plane()?;
    Ok([builds.baseline_operator()?, builds.operator()?])
}

fn cost(what: &str, value: f64) -> Row {
    Row::new("operator", what, value, "cpu-s")
}

/// Seconds of CPU time for each node that joins, from its creation until nothing is left to do: its Peer, its accepted claim, its
/// podCIDR, and the statuses that tell of it.
fn cost_of_a_join(build: &OperatorBuild, nodes: u32) -> Result<f64> {
    let stage = Stage::populated(build, nodes)?;
    let revision = stage.objects.plan_revision()?;
    let before = stage.cpu()?;
    for number in nodes..nodes + JOINS {
        stage.join(number)?;
    }
    let each = (stage.cpu()? - before).as_secs_f64() / f64::from(JOINS);
    ensure!(
        stage.objects.plan_revision()? == revision,
        "the joins have changed the plan: every agent would have to carry it, and that is not measured"
    );
    eprintln!(
        "   {}: {:.1} ms of CPU time for each join at {nodes} nodes",
        build.name,
        each * 1e3
    );
    Ok(each)
}

/// Seconds from a Node's creation to its Peer: without links of others, and with them.
fn delays(build: &OperatorBuild) -> Result<[f64; 2]> {
    let mut stage = Stage::populated(build, FEW)?;
    let alone = delay(&stage, FEW)?;
    stage.stop()?;
    let others = (0..LINKS).map(|number| {
        let name = format!("other-{number:05}");
        link(&name, &name, &json!({}))
    });
    stage.objects.create(&others.collect::<Vec<_>>())?;
    stage.start()?;
    stage.settled()?;
    let beside = delay(&stage, FEW + DELAYS)?;
    eprintln!(
        "   {}: a Peer after {alone:.3} s, beside {LINKS} links after {beside:.3} s",
        build.name
    );
    Ok([alone, beside])
}

fn delay(stage: &Stage, first: u32) -> Result<f64> {
    let mut delays = Vec::new();
    for number in first..first + DELAYS {
        delays.push(stage.join(number)?.as_secs_f64());
    }
    median(&delays).context("nothing was measured")
}
