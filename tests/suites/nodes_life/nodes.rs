//! What happens to nodes in the life of a cluster that has its pod ranges from Tieline: after each, every pod reaches every pod,
//! nothing was in clear, and nobody was renumbered.

use e2e::wait::eventually;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::lab::Family;

use super::stage::{NAMESPACE, OPERATORS, PATIENCE, Ranges, Stage, across, within};

/// From a node's Ready to its pod's first packet across sites.
const FIRST_PACKET: Duration = Duration::from_secs(5);

/// What a node that is to wait for its agent registers with.
const AGENT_NOT_READY: &str = "tieline.dev/agent-not-ready";

/// From the change of its node's address until an operator sees and writes again: its connections are given up after 20 s.
const SEEN_AGAIN: Duration = Duration::from_secs(45);

/// From a gateway's power off and the deletion of its Node to its site's next answer: a second, and the 15 s of a Lease before that
/// where the leading operator ran on it.
const TAKEN_OVER: Duration = Duration::from_secs(30);

pub(crate) fn rebooted() -> Result<()> {
    within(Ranges::Planned, |stage| {
        let node = stage.gateway("berlin")?;
        let before = stage.holdings()?;
        let begun = Instant::now();
        stage.hush();
        stage.lab.reboot(&node)?;
        let guard = format!("{node}-tieline-guard.service-0.log");
        ensure!(
            stage.lab.lab().logs().join(guard).exists(),
            "the guard's unit did not run at boot"
        );
        stage.follows()?;
        println!(
            "{node} rebooted, every pod reaches every pod after {:.1?}",
            begun.elapsed()
        );
        stage.nothing_renumbered(&before, None)
    })
}

pub(crate) fn joined() -> Result<()> {
    within(Ranges::Planned, |stage| {
        let before = stage.holdings()?;
        let ends = stage.ends()?;
        let abroad = ends
            .iter()
            .find(|end| end.segment.contains("berlin"))
            .context("no pod in berlin")?
            .clone();
        let stream = stage.ping(&across(&ends), Duration::from_millis(50))?;
        let begun = Instant::now();
        let node = stage.lab.join("paris")?;
        let ready = eventually("the new node to be Ready", PATIENCE, || {
            stage.lab.wait_ready(Duration::ZERO)?;
            Ok(Instant::now())
        })?;
        let own = eventually("a pod of the node to run", PATIENCE, || {
            let pods = stage.lab.pods("default", "app=web")?;
            let pod = pods.iter().find(|pod| pod.node == node);
            let pod = pod.filter(|pod| !pod.addresses.is_empty());
            stage.lab.endpoint(pod.context("its pod does not run")?)
        })?;
        let running = ready.elapsed();
        for family in [Family::V4, Family::V6] {
            let lab = stage.lab.lab();
            lab.first_answer(&own, &abroad, family, PATIENCE)?;
        }
        let first = ready.elapsed();
        let took = format!(
            "Ready {:.1?} after power on; {running:.1?} later its pod runs, {first:.1?} later its first packets of both families are answered",
            ready - begun
        );
        println!("{node}: {took}");
        ensure!(first <= FIRST_PACKET, "{node}: {took}");
        stage.follows()?;
        let others = stream.stop();
        println!("the others meanwhile: {others}");
        others.expect_no_loss()?;
        stage.nothing_renumbered(&before, None)
    })
}

/// Where somebody else gives pod ranges, a new node's pods could start before its first agent: with the taint they wait.
pub(crate) fn tainted() -> Result<()> {
    within(Ranges::Imported, |stage| {
        stage.installed()?;
        let before = stage.holdings()?;
        let begun = Instant::now();
        let known = stage.tieline.planned()?;
        let node = stage.lab.join_tainted("oslo", AGENT_NOT_READY)?;
        eventually("the node with its taint", PATIENCE, || {
            let tainted = tainted_nodes(stage)?;
            ensure!(tainted.contains(&node), "it registered without the taint");
            Ok(())
        })?;
        // Its pods wait until its agent carries the plan: what they send inside the site is told from a leak in time.
        eventually("the node's pod ranges in the plan", PATIENCE, || {
            let planned = stage.tieline.planned()?;
            ensure!(planned != known, "its pod ranges are not in the plan");
            Ok(())
        })?;
        stage.hear_of_plan()?;
        eventually("every node without its taint", PATIENCE, || {
            nobody_tainted(stage)
        })?;
        println!(
            "{node} is free of its taint {:.1?} after power on",
            begun.elapsed()
        );

        // Where every node has it, the operator that is to take it away has to start all the same.
        stage.operators(0)?;
        let taint = format!("{AGENT_NOT_READY}=:NoSchedule");
        let kubectl = ["taint", "nodes", "--all", &taint];
        stage.lab.control_plane().kubectl(&kubectl)?;
        let tainted = tainted_nodes(stage)?;
        ensure!(
            tainted.len() == stage.lab.running().len(),
            "tainted are {tainted:?} only"
        );
        stage.operators(2)?;
        eventually("every node without its taint", PATIENCE, || {
            nobody_tainted(stage)
        })?;
        stage.follows()?;
        stage.nothing_renumbered(&before, None)
    })
}

/// Names of the nodes that have the taint.
fn tainted_nodes(stage: &Stage) -> Result<Vec<String>> {
    let nodes = stage.list(&["nodes"])?;
    let tainted = nodes
        .iter()
        .filter(|node| node["spec"]["taints"].to_string().contains(AGENT_NOT_READY))
        .filter_map(|node| node["metadata"]["name"].as_str());
    Ok(tainted.map(Into::into).collect())
}

fn nobody_tainted(stage: &Stage) -> Result<()> {
    let tainted = tainted_nodes(stage)?;
    ensure!(
        tainted.is_empty(),
        "agents run, and tainted are {tainted:?}"
    );
    Ok(())
}

pub(crate) fn address_changed() -> Result<()> {
    within(Ranges::Planned, |stage| {
        let before = stage.holdings()?;
        let gateway = stage.gateway("paris")?;
        changes_address(stage, &gateway)?;
        // The only operator's connections are from the old address, and no packet says that they are dead.
        stage.operators(1)?;
        let operator = stage.lab.pods(NAMESPACE, OPERATORS)?;
        let operator = operator.first().context("no operator runs")?.node.clone();
        let took = changes_address(stage, &operator)?;
        ensure!(
            took < SEEN_AGAIN,
            "the operator saw nothing for {took:.1?} after its own node's address had changed"
        );
        stage.operators(2)?;
        stage.nothing_renumbered(&before, None)
    })
}

/// Gives a node another address; returns how long it took until that is what others dial.
fn changes_address(stage: &mut Stage, node: &str) -> Result<Duration> {
    let old = stage.lab.lab().node(node)?.address4();
    let begun = Instant::now();
    stage.lab.change_addresses(node)?;
    let new = stage.lab.lab().node(node)?.address4();
    ensure!(old != new, "the address is the old one");
    eventually("the new address to be accepted", PATIENCE, || {
        let peers = stage.peers()?;
        let peer = peers.get(node).context("its Peer is gone")?;
        let accepted = peer["spec"]["acceptedEndpoints"].to_string();
        ensure!(accepted.contains(&new.to_string()), "accepted: {accepted}");
        ensure!(
            !accepted.contains(&format!("{old}\"")),
            "accepted still: {accepted}"
        );
        Ok(())
    })?;
    let accepted = begun.elapsed();
    println!("{node}: {old} is {new}, accepted after {accepted:.1?}");
    stage.follows()?;
    println!("every pod reaches every pod after {:.1?}", begun.elapsed());
    Ok(accepted)
}

pub(crate) fn gateway_deleted() -> Result<()> {
    within(Ranges::Planned, |stage| {
        let node = stage.gateway("oslo")?;
        let before = stage.holdings()?;
        let pods = stage.lab.pods("default", "app=web")?;
        let others = pods.iter().filter(|pod| pod.node != node);
        let others: Vec<_> = others
            .map(|pod| stage.lab.endpoint(pod))
            .collect::<Result<_>>()?;
        stage.hush();
        // Their servers have gone this moment, and so have their ports.
        let stream = eventually("pings that are answered", PATIENCE, || {
            stage.ping(&across(&others), Duration::from_millis(50))
        })?;
        let begun = Instant::now();
        stage.lab.delete(&node)?;
        eventually("another gateway", PATIENCE, || {
            let gateway = stage.gateway("oslo")?;
            ensure!(gateway != node, "{node} is the gateway still");
            Ok(())
        })?;
        stage.follows()?;
        let gap = stream.stop().longest_gap();
        println!(
            "without {node}, its site is cut off for {gap:.1?}; its pods are gone and every pod reaches every pod after {:.1?}",
            begun.elapsed()
        );
        ensure!(gap <= TAKEN_OVER, "cut off for {gap:?}");
        ensure!(!stage.peers()?.contains_key(&node), "its Peer is left");
        stage.nothing_renumbered(&before, Some(&node))
    })
}

pub(crate) fn created_again() -> Result<()> {
    within(Ranges::Planned, |stage| {
        let node = "berlin-2";
        let keys = |stage: &Stage| -> Result<(String, String)> {
            let peers = stage.peers()?;
            let peer = peers.get(node).context("no Peer")?;
            let keys = peer["spec"]["acceptedKeys"].to_string();
            ensure!(keys.len() > 10, "no keys: {keys}");
            Ok((keys, peer["metadata"]["uid"].to_string()))
        };
        let before = stage.holdings()?;
        let old = keys(stage)?;
        let begun = Instant::now();
        stage.hush();
        stage.lab.delete(node)?;
        stage.lab.create_again(node)?;
        eventually("other keys to be accepted", PATIENCE, || {
            ensure!(
                keys(stage)?.0 != old.0,
                "the accepted keys are the old ones"
            );
            Ok(())
        })?;
        stage.follows()?;
        println!(
            "{node} created again, every pod reaches every pod after {:.1?}",
            begun.elapsed()
        );
        stage.nothing_renumbered(&before, Some(node))
    })
}
