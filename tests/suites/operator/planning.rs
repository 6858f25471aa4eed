//! From intents and Nodes to ledgers, plan, podCIDRs and Peers, and what is said when that is not possible.

use crate::Tests;
use crate::claims::all_agents;
use crate::stage::{NODES, Stage, repository};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

pub(crate) fn tests() -> Tests {
    vec![
        (
            "planning: three sites become ledgers, a plan, podCIDRs and Peers",
            three_sites,
        ),
        ("planning: without a change nothing is written", quiet),
        (
            "planning: a node that joins gets its podCIDR and Peer, and changes nobody else's",
            join,
        ),
        (
            "planning: the taint of a node whose agent is not ready goes when the agent carries a plan, and no other",
            taint,
        ),
        (
            "planning: what a link uses is labelled and kept, and freed when the link is gone; grants stay",
            removal,
        ),
        (
            "planning: a podCIDR of another manager makes pods.assign refused, and is respected",
            other_manager,
        ),
        (
            "planning: overlapping ranges are refused with both sides named, and the others go on",
            overlap,
        ),
        (
            "planning: a deleted NetworkPlan is written again above the revision that agents carry",
            deleted_plan,
        ),
        (
            "planning: mode Plan shows what would change and changes nothing",
            plan_mode,
        ),
    ]
}

fn pod_cidrs(stage: &Stage) -> Result<Vec<(String, String)>> {
    let nodes = stage.list("nodes")?;
    Ok(nodes
        .iter()
        .filter_map(|node| {
            Some((
                node["metadata"]["name"].as_str()?.to_owned(),
                node["spec"]["podCIDR"].as_str()?.to_owned(),
            ))
        })
        .collect())
}

fn three_sites() -> Result<()> {
    let stage = Stage::three_sites()?;
    nobody_has_an_agent(&stage)?;
    let early = pod_cidrs(&stage)?;
    ensure!(early.is_empty(), "given before any agent spoke: {early:?}");
    all_agents(&stage)?;
    stage.settled()?;
    let cidrs = pod_cidrs(&stage)?;
    ensure!(cidrs.len() == 6, "podCIDRs: {cidrs:?}");
    let distinct: BTreeSet<&String> = cidrs.iter().map(|(_, cidr)| cidr).collect();
    ensure!(
        distinct.len() == 6 && cidrs.iter().all(|(_, cidr)| cidr.starts_with("10.64.")),
        "podCIDRs: {cidrs:?}"
    );

    let hub = stage.get("addressledgers.tieline.dev", "hub")?;
    ensure!(
        grants(&hub, "Cluster", "shop")
            .iter()
            .any(|it| it["prefix"] == "10.64.0.0/16"),
        "hub: {hub:#}"
    );
    let ledger = stage.get("addressledgers.tieline.dev", "cluster-shop")?;
    for (node, cidr) in &cidrs {
        let held = grants(&ledger, "Node", node);
        ensure!(
            held.iter()
                .any(|it| it["prefix"] == json!(cidr) && it["use"] == "Pod"),
            "{node} holds {held:?}, not {cidr}"
        );
        let peer = stage.get("peers.tieline.dev", &format!("shop.{node}"))?;
        ensure!(
            peer["spec"]["podCidrs"] == json!([cidr]),
            "Peer of {node}: {peer:#}"
        );
    }
    for (node, site) in NODES {
        let peer = stage.get("peers.tieline.dev", &format!("shop.{node}"))?;
        ensure!(
            peer["spec"]["site"] == site && peer["spec"]["segment"] == format!("shop.{site}"),
            "Peer of {node}: {peer:#}"
        );
    }
    let plan = stage.get("networkplans.tieline.dev", "acme")?;
    ensure!(
        plan["spec"]["segments"].as_array().map(Vec::len) == Some(3),
        "plan: {plan:#}"
    );
    ensure!(plan["spec"]["vpns"][0]["name"] == "hq", "plan: {plan:#}");

    let cluster = stage.get("clusters.tieline.dev", "shop")?;
    ensure!(
        cluster["status"]["granted"]["podCidrs"] == json!(["10.64.0.0/16"]),
        "cluster: {:#}",
        cluster["status"]
    );
    ensure!(
        cluster["status"]["nodes"]["total"] == 6,
        "cluster: {:#}",
        cluster["status"]
    );
    let site = stage.get("sites.tieline.dev", "berlin")?;
    ensure!(
        site["status"]["gateways"].as_array().map(Vec::len) == Some(1),
        "site: {:#}",
        site["status"]
    );
    let events = stage.kubectl(&[
        "get",
        "events",
        "-A",
        "-o",
        "jsonpath={range .items[*]}{.reason} {end}",
    ])?;
    ensure!(
        events.contains("PodCidrAssigned") && events.contains("GatewayElected"),
        "Events: {events}"
    );
    Ok(())
}

/// The status says that agents are missing, and what waits for them.
fn nobody_has_an_agent(stage: &Stage) -> Result<()> {
    stage.eventually_condition(
        "clusterlinks.tieline.dev",
        "acme",
        "Planned",
        "True/Planned",
    )?;
    stage.eventually_condition(
        "clusterlinks.tieline.dev",
        "acme",
        "Ready",
        "False/AgentsBehind: 0 of 6 nodes carry the plan",
    )?;
    let link = stage.get("clusterlinks.tieline.dev", "acme")?;
    ensure!(
        link["status"]["members"] == json!({"total": 2, "ready": 0}),
        "link: {:#}",
        link["status"]
    );
    let reasons: BTreeSet<&str> = link["status"]["notReady"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| it["reason"].as_str())
        .collect();
    ensure!(reasons.contains("NoAgent"), "link: {:#}", link["status"]);
    ensure!(
        link["status"]["notReady"]
            .to_string()
            .contains("gets its podCIDR when"),
        "link: {:#}",
        link["status"]
    );
    Ok(())
}

fn grants<'a>(ledger: &'a Value, kind: &str, name: &str) -> Vec<&'a Value> {
    let all = ledger["spec"]["grants"].as_array().into_iter().flatten();
    all.filter(|it| it["owner"]["kind"] == kind && it["owner"]["name"] == name)
        .collect()
}

fn patch_link(stage: &Stage, patch: &Value) -> Result<()> {
    stage.patch("clusterlinks.tieline.dev", "acme", patch)
}

fn quiet() -> Result<()> {
    let mut stage = Stage::three_sites()?;
    stage.quiet_for(Duration::from_secs(10))?;
    // A heartbeat of a kubelet is no change.
    let mark = stage.audit_mark();
    stage.kubectl(&["annotate", "node", "oslo-1", "example.com/heartbeat=1"])?;
    // Nor is a start.
    stage.hand_over(&["--resync", "1"])?;
    stage.quiet_since(mark, Duration::from_secs(4))
}

fn join() -> Result<()> {
    let stage = Stage::three_sites()?;
    let before = stage.list("peers.tieline.dev")?;
    let plan = stage.get("networkplans.tieline.dev", "acme")?;
    stage.node("oslo-3", "oslo")?;
    stage.eventually("a seventh Peer", || {
        Ok(!stage.get("peers.tieline.dev", "shop.oslo-3")?.is_null())
    })?;
    stage.settled()?;
    let pod_cidr =
        || Ok::<_, anyhow::Error>(stage.get("nodes", "oslo-3")?["spec"]["podCIDR"].clone());
    ensure!(pod_cidr()?.is_null(), "given before its agent spoke");
    let revision = plan["spec"]["revision"].as_u64().unwrap_or(0);
    stage.claim("oslo-3", 9, revision)?;
    stage.eventually("oslo-3's podCIDR", || Ok(!pod_cidr()?.is_null()))?;
    let after = stage.list("peers.tieline.dev")?;
    for peer in before {
        ensure!(
            after.iter().any(|it| it["spec"] == peer["spec"]),
            "changed: {:#}",
            peer["spec"]
        );
    }
    let now = stage.get("networkplans.tieline.dev", "acme")?;
    ensure!(
        now["spec"] == plan["spec"],
        "a join inside the site's chunk changed the plan"
    );

    stage.kubectl(&["delete", "node", "oslo-3"])?;
    stage.eventually("the Peer of a deleted node is gone", || {
        Ok(stage.get("peers.tieline.dev", "shop.oslo-3")?.is_null())
    })
}

fn taint() -> Result<()> {
    let stage = Stage::three_sites()?;
    let waits = json!({"key": "tieline.dev/agent-not-ready", "effect": "NoSchedule"});
    let other = json!({"key": "example.com/gpu", "value": "true", "effect": "NoSchedule"});
    let taints =
        |node: &str| -> Result<Value> { Ok(stage.get("nodes", node)?["spec"]["taints"].clone()) };
    stage.create(&json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "oslo-3", "labels": {"topology.kubernetes.io/region": "oslo"}},
        "spec": {"taints": [waits, other]},
    }))?;
    stage.ready("oslo-3", true, "192.0.2.33")?;
    stage.eventually("a seventh Peer", || {
        Ok(!stage.get("peers.tieline.dev", "shop.oslo-3")?.is_null())
    })?;
    stage.settled()?;
    let before = taints("oslo-3")?;
    ensure!(
        before.as_array().is_some_and(|it| it.contains(&waits)),
        "gone already: {before}"
    );
    let revision = stage.get("networkplans.tieline.dev", "acme")?["spec"]["revision"].as_u64();
    stage.claim("oslo-3", 9, revision.unwrap_or(0))?;
    stage.eventually("the taint is gone", || {
        Ok(!taints("oslo-3")?.to_string().contains("tieline.dev"))
    })?;
    let after = taints("oslo-3")?;
    ensure!(
        after.as_array().is_some_and(|it| it.contains(&other)),
        "others went too: {after}"
    );

    // Without a link nothing is planned, so nothing waits.
    stage.kubectl(&["delete", "clusterlinks.tieline.dev", "acme"])?;
    stage.create(&json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "oslo-4"}, "spec": {"taints": [waits]},
    }))?;
    stage.eventually("the taint is gone", || {
        Ok(!taints("oslo-4")?.to_string().contains("tieline.dev"))
    })
}

fn removal() -> Result<()> {
    let stage = Stage::three_sites()?;
    all_agents(&stage)?;
    for (kind, name) in [
        ("clusters.tieline.dev", "shop"),
        ("sites.tieline.dev", "berlin"),
        ("vpnattachments.tieline.dev", "hq"),
    ] {
        let object = stage.get(kind, name)?;
        ensure!(
            object["metadata"]["labels"]["tieline.dev/in-use"] == "true",
            "{kind} {name}: {:#}",
            object["metadata"]
        );
        let refusal = stage.kubectl(&["delete", kind, name, "--wait=false"]);
        ensure!(refusal.is_err(), "{kind} {name} was deleted while in use");
    }
    // A tool that restores objects brings their labels along.
    stage.create(&json!({
        "apiVersion": "tieline.dev/v1alpha1", "kind": "Site",
        "metadata": {"name": "attic", "labels": {"tieline.dev/in-use": "true"}}, "spec": {},
    }))?;
    stage.eventually("the label of what nobody uses is gone", || {
        let site = stage.get("sites.tieline.dev", "attic")?;
        Ok(site["metadata"]["labels"]["tieline.dev/in-use"].is_null())
    })?;
    stage.kubectl(&["delete", "sites.tieline.dev", "attic"])?;
    let ledger = stage.get("addressledgers.tieline.dev", "cluster-shop")?["spec"]["grants"].clone();
    stage.kubectl(&["delete", "clusterlinks.tieline.dev", "acme"])?;
    stage.eventually("plan and Peers are withdrawn", || {
        Ok(stage.list("peers.tieline.dev")?.is_empty()
            && stage.list("networkplans.tieline.dev")?.is_empty())
    })?;
    stage.settled()?;
    let after = stage.get("addressledgers.tieline.dev", "cluster-shop")?["spec"]["grants"].clone();
    ensure!(
        after == ledger,
        "grants changed with the link's end:\n{ledger:#}\n{after:#}"
    );
    for (kind, name) in [
        ("clusters.tieline.dev", "shop"),
        ("sites.tieline.dev", "berlin"),
        ("vpnattachments.tieline.dev", "hq"),
    ] {
        stage.kubectl(&["delete", kind, name])?;
    }

    stage.eventually("the VPN's configuration is gone with it", || {
        Ok(stage.get("secrets", "tieline-vpn-hq-config")?.is_null())
    })?;
    ensure!(
        !stage.get("secrets", "tieline-vpn-hq")?.is_null(),
        "the VPN's key is kept for its return"
    );

    // Back again, with the same addresses.
    let cidrs = pod_cidrs(&stage)?;
    ensure!(cidrs.len() == 6, "podCIDRs: {cidrs:?}");
    stage.apply_path(&repository().join("examples/three-sites/network.yaml"))?;
    stage.eventually("six Peers again", || {
        Ok(stage.list("peers.tieline.dev")?.len() == 6)
    })?;
    for (node, cidr) in cidrs {
        let peer = stage.get("peers.tieline.dev", &format!("shop.{node}"))?;
        ensure!(
            peer["spec"]["podCidrs"] == json!([cidr]),
            "{node} had {cidr}: {:#}",
            peer["spec"]
        );
    }
    Ok(())
}

fn other_manager() -> Result<()> {
    let stage = Stage::with_operator()?;
    stage.create(&json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "berlin-1", "labels": {"topology.kubernetes.io/region": "berlin"}},
        "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]},
    }))?;
    stage.ready("berlin-1", true, "192.0.2.11")?;
    stage.node("oslo-1", "oslo")?;
    stage.preshared_key("hq-psk")?;
    stage.apply_path(&repository().join("examples/three-sites/network.yaml"))?;
    stage.eventually_condition(
        "clusters.tieline.dev",
        "shop",
        "Accepted",
        "False/OtherPodCidrManager",
    )?;
    stage.eventually_condition(
        "clusters.tieline.dev",
        "shop",
        "Accepted",
        "owns the podCIDR of berlin-1",
    )?;
    stage.settled()?;
    ensure!(
        stage.get("nodes", "oslo-1")?["spec"]["podCIDR"].is_null(),
        "oslo-1 was given a podCIDR beside another manager's"
    );
    let peer = stage.get("peers.tieline.dev", "shop.berlin-1")?;
    ensure!(
        peer["spec"]["podCidrs"] == json!(["10.244.0.0/24"]),
        "the range in use was not imported: {peer:#}"
    );
    let link = stage.get("clusterlinks.tieline.dev", "acme")?;
    let text = link["status"]["notReady"].to_string();
    ensure!(
        text.contains("oslo-1"),
        "nothing says why oslo-1 waits: {text}"
    );
    Ok(())
}

fn overlap() -> Result<()> {
    let stage = Stage::three_sites()?;
    all_agents(&stage)?;
    stage.settled()?;
    let cidrs = pod_cidrs(&stage)?;
    ensure!(cidrs.len() == 6, "podCIDRs: {cidrs:?}");
    stage.apply(
        "{apiVersion: tieline.dev/v1alpha1, kind: Cluster, metadata: {name: depot}, spec: {sites: {name: rome}, pods: {cidrs: [10.64.0.0/16]}}}",
    )?;
    let members =
        json!({"spec": {"members": {"clusters": ["shop", "depot"], "vpnAttachments": ["hq"]}}});
    patch_link(&stage, &members)?;
    stage.eventually_condition("clusters.tieline.dev", "depot", "Accepted", "False/")?;
    let message = stage.condition("clusters.tieline.dev", "depot", "Accepted")?;
    ensure!(
        message.contains("10.64.0.0/16") && message.contains("shop"),
        "both sides must be named: {message}"
    );
    stage.settled()?;
    ensure!(
        pod_cidrs(&stage)? == cidrs && stage.list("peers.tieline.dev")?.len() == 6,
        "the refusal of depot moved shop"
    );
    stage.eventually_condition("clusterlinks.tieline.dev", "acme", "Ready", "False/")
}

fn deleted_plan() -> Result<()> {
    let stage = Stage::three_sites()?;
    // A plan that has changed since the hub's ledger did.
    for gateways in [2, 1] {
        let before = revision(&stage)?;
        patch_link(
            &stage,
            &json!({"spec": {"topology": {"gatewaysPerSite": gateways}}}),
        )?;
        stage.eventually("a new revision", || Ok(revision(&stage)? > before))?;
    }
    all_agents(&stage)?;
    stage.eventually_condition("clusterlinks.tieline.dev", "acme", "Ready", "True/")?;
    let carried = revision(&stage)?;
    let hub = stage.get("addressledgers.tieline.dev", "hub")?;
    ensure!(
        hub["spec"]["revision"].as_u64() < Some(carried),
        "the ledger alone would do: {hub:#}"
    );
    stage.kubectl(&[
        "delete",
        "networkplans.tieline.dev",
        "acme",
        "-n",
        "tieline-system",
    ])?;
    stage.eventually("the plan is there again", || Ok(revision(&stage)? > 0))?;
    let again = revision(&stage)?;
    ensure!(
        again > carried,
        "agents that carry {carried} would refuse {again}"
    );
    stage.settled()?;
    for ledger in ["hub", "cluster-shop"] {
        let frozen = stage.condition("addressledgers.tieline.dev", ledger, "Frozen")?;
        ensure!(frozen.starts_with("False/"), "{ledger}: {frozen}");
    }
    Ok(())
}

/// The plan's revision; 0 without a plan.
fn revision(stage: &Stage) -> Result<u64> {
    let plan = stage.get("networkplans.tieline.dev", "acme")?;
    Ok(plan["spec"]["revision"].as_u64().unwrap_or(0))
}

fn plan_mode() -> Result<()> {
    let stage = Stage::three_sites()?;
    let plan = stage.get("networkplans.tieline.dev", "acme")?;
    let patch = json!({"spec": {"mode": "Plan", "topology": {"gatewaysPerSite": 2}}});
    patch_link(&stage, &patch)?;
    stage.eventually_condition(
        "clusterlinks.tieline.dev",
        "acme",
        "Planned",
        "False/Withheld: mode is Plan: set it to Apply for:",
    )?;
    stage.settled()?;
    ensure!(
        stage.get("networkplans.tieline.dev", "acme")?["spec"] == plan["spec"],
        "mode Plan changed the plan"
    );
    ensure!(
        stage.list("peers.tieline.dev")?.len() == 6,
        "mode Plan withdrew Peers"
    );
    patch_link(&stage, &json!({"spec": {"mode": "Apply"}}))?;
    stage.eventually("two gateways in each segment", || {
        let plan = stage.get("networkplans.tieline.dev", "acme")?;
        let segments = plan["spec"]["segments"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        Ok(segments
            .iter()
            .all(|it| it["gateways"].as_array().map(Vec::len) == Some(2)))
    })
}
