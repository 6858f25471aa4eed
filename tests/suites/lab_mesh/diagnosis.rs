//! `tieline doctor` on a mesh that works, and with a filter of a host in its way.

use anyhow::{Context, Result, ensure};
use e2e::wait::eventually;
use e2e::world::World;
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

use crate::three_sites;

/// What doctor says of a mesh that works, and of chains that drop on one host.
pub(crate) fn diagnosis() -> Result<()> {
    three_sites(|world| {
        let patience = Duration::from_secs(90);
        eventually("doctor finds nothing wrong", patience, || {
            let findings = doctor(world)?;
            // No kubelet runs in this lab: operator and agents are not pods, so the workloads of the manifests stand still.
            let wrong: Vec<String> = problems(&findings)
                .into_iter()
                .filter(|it| !it.contains("Deployment tieline-operator"))
                .collect();
            ensure!(wrong.is_empty(), "{wrong:#?}");
            for (id, severity) in [
                ("host", "ok"),
                ("paths", "ok"),
                ("pod-cidrs", "ok"),
                ("conditions", "ok"),
                ("permissions", "ok"),
            ] {
                let found = findings
                    .iter()
                    .any(|it| it["id"] == id && it["severity"] == severity);
                ensure!(found, "{id} is not {severity}: {findings:#?}");
            }
            Ok(())
        })?;
        told_by_every_host(world)?;

        for fault in FAULTS {
            told_and_cured(world, fault, patience)?;
        }
        Ok(())
    })
}

/// A firewall of a host that drops what is forwarded.
struct Fault {
    table: &'static str,
    chain: &'static str,
    /// What makes its only chain.
    rules: &'static str,
    /// One of the rules to add, as doctor names it.
    remedy: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault {
        table: "ip filter",
        chain: "FORWARD",
        rules: "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
        remedy: "iptables -I FORWARD -i tie+ -j ACCEPT",
    },
    // firewalld's has an innocent policy, and a last rule.
    Fault {
        table: "inet firewalld",
        chain: "filter_FORWARD",
        rules: "add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }; \
                add rule inet firewalld filter_FORWARD ct state established accept; \
                add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited",
        remedy: "nft insert rule inet firewalld filter_FORWARD iifname \"tie*\" accept",
    },
];

/// Doctor names the chain and what to do, and is content when that is done.
fn told_and_cured(world: &World, fault: &Fault, patience: Duration) -> Result<()> {
    let Fault {
        table,
        chain,
        rules,
        remedy,
    } = fault;
    nft(&format!("add table {table}; {rules}"))?;
    let told = eventually("doctor names the chain", patience, || {
        let findings = doctor(world)?;
        let drop = findings
            .iter()
            .find(|it| it["id"] == "forward-drop" && it["where"] == "Node paris-1");
        let drop = drop.with_context(|| format!("{:#?}", problems(&findings)))?;
        Ok(drop["action"].as_str().unwrap_or_default().to_owned())
    });
    // The rules that doctor names, in nft's words.
    let cured = told.and_then(|told| {
        for device in ["iifname", "oifname"] {
            nft(&format!(
                "insert rule {table} {chain} {device} \"tie*\" accept"
            ))?;
        }
        eventually("doctor is content with the rules", patience, || {
            let findings = doctor(world)?;
            let drops = findings.iter().any(|it| it["id"] == "forward-drop");
            ensure!(!drops, "{:#?}", problems(&findings));
            Ok(())
        })?;
        Ok(told)
    });
    nft(&format!("delete table {table}"))?;
    let told = cured?;
    ensure!(told.contains(remedy), "{told}");
    Ok(())
}

fn nft(text: &str) -> Result<()> {
    let status = Command::new("ip")
        .args(["netns", "exec", "paris-1", "nft", text])
        .status()
        .context("run nft")?;
    ensure!(status.success(), "nft {text}");
    Ok(())
}

/// Every agent has published what its host is like.
fn told_by_every_host(world: &World) -> Result<()> {
    let text =
        world
            .control_plane
            .kubectl(&["get", "peers", "-n", "tieline-system", "-o", "json"])?;
    let peers: Value = serde_json::from_str(&text).context("parse the Peers")?;
    let peers = peers["items"].as_array().context("items")?;
    ensure!(!peers.is_empty(), "there is no Peer");
    for peer in peers {
        let host = &peer["status"]["host"];
        ensure!(
            host["kernel"].is_string(),
            "{}: {host}",
            peer["metadata"]["name"]
        );
        ensure!(
            host["forwardsIpv4"] == true,
            "{}: {host}",
            peer["metadata"]["name"]
        );
        ensure!(
            host["underlay"][0]["mtu"]
                .as_u64()
                .is_some_and(|mtu| mtu >= 1280),
            "{host}"
        );
        ensure!(
            host.get("clockAheadSeconds").is_none(),
            "one clock is two: {host}"
        );
    }
    Ok(())
}

fn doctor(world: &World) -> Result<Vec<Value>> {
    let output = Command::new("nsenter")
        .args(["--net=/run/netns/api", "--"])
        .arg(&world.programs().cli)
        .args(["doctor", "-o", "json", "--kubeconfig"])
        .arg(world.control_plane.kubeconfig())
        .output()
        .context("run tieline doctor")?;
    let value: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok(value["findings"].as_array().context("findings")?.clone())
}

fn problems(findings: &[Value]) -> Vec<String> {
    findings
        .iter()
        .filter(|it| it["severity"] == "problem")
        .map(Value::to_string)
        .collect()
}
