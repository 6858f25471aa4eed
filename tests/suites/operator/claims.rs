//! What agents claim, and what of it becomes accepted truth.

use crate::Tests;
use crate::stage::{NODES, Stage, key};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

pub(crate) fn tests() -> Tests {
    vec![
        (
            "claims: keys are accepted, and with all agents up the link is Ready",
            accepted,
        ),
        (
            "claims: a key that another node holds is refused, and the first owner keeps it",
            duplicate,
        ),
        (
            "claims: an endpoint inside a planned range and a low-order key are refused with words",
            refused,
        ),
        (
            "claims: the link says which node is not ready, and why",
            not_ready,
        ),
    ]
}

fn plan_revision(stage: &Stage) -> Result<u64> {
    Ok(
        stage.get("networkplans.tieline.dev", "acme")?["spec"]["revision"]
            .as_u64()
            .unwrap_or(0),
    )
}

/// Every agent claims and carries the plan.
pub(crate) fn all_agents(stage: &Stage) -> Result<()> {
    let revision = plan_revision(stage)?;
    for (seed, (node, _)) in (1_u8..).zip(NODES) {
        stage.claim(node, seed, revision)?;
    }
    // Accepted endpoints may have changed the plan.
    stage.settled()?;
    let revision = plan_revision(stage)?;
    for (seed, (node, _)) in (1_u8..).zip(NODES) {
        stage.claim(node, seed, revision)?;
    }
    Ok(())
}

fn accepted() -> Result<()> {
    let stage = Stage::three_sites()?;
    all_agents(&stage)?;
    stage.eventually("keys are accepted", || {
        let peer = stage.get("peers.tieline.dev", "shop.oslo-1")?;
        Ok(peer["spec"]["acceptedKeys"]
            == json!([{"device": "tie0", "key": key(3)}, {"device": "tiei0", "key": key(103)}]))
    })?;
    stage.eventually_condition(
        "clusterlinks.tieline.dev",
        "acme",
        "Ready",
        "True/Ready: all 2 members are ready",
    )?;
    stage.eventually_condition(
        "clusterlinks.tieline.dev",
        "acme",
        "Converged",
        "True/Converged: all 6 nodes carry the plan",
    )?;
    stage.eventually_condition("clusters.tieline.dev", "shop", "Ready", "True/")?;
    stage.eventually_condition("sites.tieline.dev", "berlin", "Reachable", "True/")?;
    let link = stage.get("clusterlinks.tieline.dev", "acme")?;
    ensure!(
        link["status"]["members"] == json!({"total": 2, "ready": 2}),
        "{:#}",
        link["status"]
    );
    ensure!(
        link["status"]["paths"] == json!({"up": 12, "total": 12}),
        "{:#}",
        link["status"]
    );
    let plan = stage.get("networkplans.tieline.dev", "acme")?;
    ensure!(
        plan["status"]["appliedBy"] == json!({"nodes": 6, "total": 6}),
        "{:#}",
        plan["status"]
    );
    Ok(())
}

fn duplicate() -> Result<()> {
    let stage = Stage::three_sites()?;
    stage.claim("paris-1", 7, 0)?;
    stage.eventually("the first owner is accepted", || {
        Ok(
            stage.get("peers.tieline.dev", "shop.paris-1")?["spec"]["acceptedKeys"][0]["key"]
                == key(7),
        )
    })?;
    // berlin-1 comes before paris-1 in every order, and is late all the same.
    stage.claim("berlin-1", 7, 0)?;
    let told = |stage: &Stage| -> Result<String> {
        Ok(stage.get("clusterlinks.tieline.dev", "acme")?["status"]["notReady"].to_string())
    };
    stage.eventually("the refusal is told", || {
        let text: String = told(&stage)?;
        Ok(text.contains("DuplicateKey") && text.contains("shop.paris-1"))
    })?;
    stage.settled()?;
    let first = stage.get("peers.tieline.dev", "shop.paris-1")?;
    let second = stage.get("peers.tieline.dev", "shop.berlin-1")?;
    ensure!(
        first["spec"]["acceptedKeys"][0]["key"] == key(7),
        "the first owner lost its key: {:#}",
        first["spec"]
    );
    ensure!(
        second["spec"]["acceptedKeys"].is_null(),
        "the second got it too: {:#}",
        second["spec"]
    );
    let events = stage.kubectl(&[
        "get",
        "events",
        "-A",
        "-o",
        "jsonpath={range .items[*]}{.reason} {end}",
    ])?;
    ensure!(
        events.contains("DuplicateKey"),
        "no Event tells of it: {events}"
    );
    // With a key of its own it is accepted after all.
    stage.claim("berlin-1", 8, 0)?;
    stage.eventually("the second is accepted with another key", || {
        Ok(
            stage.get("peers.tieline.dev", "shop.berlin-1")?["spec"]["acceptedKeys"][0]["key"]
                == key(8)
                && !told(&stage)?.contains("DuplicateKey"),
        )
    })
}

fn refused() -> Result<()> {
    let stage = Stage::three_sites()?;
    stage.patch_peer_status(
        "oslo-1",
        &json!({"status": {
            "keys": [{"device": "tie0", "key": key(9)}],
            "endpoints": [{"address": "10.64.0.9", "scope": "Site"}, {"address": "198.51.100.7", "scope": "Public"}],
        }}),
    )?;
    stage.patch_peer_status(
        "oslo-2",
        &json!({"status": {"keys": [{"device": "tie0", "key": key(0)}]}}),
    )?;
    stage.eventually("both refusals are told", || {
        let text = stage.get("clusterlinks.tieline.dev", "acme")?["status"]["notReady"].to_string();
        Ok(text.contains("EndpointInPlannedRange")
            && text.contains("10.64.0.9")
            && text.contains("ClaimInvalid")
            && text.contains("low-order"))
    })?;
    stage.settled()?;
    let oslo = stage.get("peers.tieline.dev", "shop.oslo-1")?;
    ensure!(
        !oslo["spec"]["acceptedEndpoints"]
            .to_string()
            .contains("10.64.0.9"),
        "{:#}",
        oslo["spec"]
    );
    ensure!(
        oslo["spec"]["acceptedKeys"][0]["key"] == key(9),
        "a bad endpoint must not cost the key: {:#}",
        oslo["spec"]
    );
    let second = stage.get("peers.tieline.dev", "shop.oslo-2")?;
    ensure!(
        second["spec"]["acceptedKeys"].is_null(),
        "{:#}",
        second["spec"]
    );
    Ok(())
}

fn not_ready() -> Result<()> {
    let stage = Stage::three_sites()?;
    all_agents(&stage)?;
    stage.eventually_condition("clusterlinks.tieline.dev", "acme", "Ready", "True/")?;
    let reason = |wanted: &str| -> Result<()> {
        stage.eventually(wanted, || {
            let link = stage.get("clusterlinks.tieline.dev", "acme")?;
            let entries = link["status"]["notReady"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            Ok(entries.len() == 1
                && entries[0]["kind"] == "Node"
                && entries[0]["name"] == "oslo-2"
                && entries[0]["reason"] == wanted)
        })
    };
    stage.ready("oslo-2", false, "192.0.2.14")?;
    reason("NodeNotReady")?;
    stage.eventually_condition(
        "clusterlinks.tieline.dev",
        "acme",
        "Ready",
        "False/MembersNotReady: 1 of 2 members are ready (Node oslo-2: NodeNotReady)",
    )?;
    stage.ready("oslo-2", true, "192.0.2.14")?;
    stage.eventually_condition("clusterlinks.tieline.dev", "acme", "Ready", "True/")?;
    stage.patch_peer_status(
        "oslo-2",
        &json!({"status": {"paths": {"up": 0, "total": 2}}}),
    )?;
    reason("NoPath")?;
    // A path that has never been up keeps the node waiting; one that went down does not.
    let paths =
        |paths: Value| stage.patch_peer_status("oslo-2", &json!({"status": {"paths": paths}}));
    paths(json!({"up": 1, "total": 2, "connecting": 1}))?;
    reason("Connecting")?;
    paths(json!({"up": 1, "total": 2, "connecting": null}))?;
    stage.eventually_condition("clusterlinks.tieline.dev", "acme", "Ready", "True/")
}
