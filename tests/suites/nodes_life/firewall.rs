//! A host whose own firewall drops what it does not know: told by a condition, and cured by the words of its message.

use anyhow::{Context, Result, ensure};
use e2e::nodes::NodeLab;
use e2e::wait::eventually;

use super::stage::{PATIENCE, Ranges, Stage, condition, peer_name, within};
use std::time::{Duration, Instant};

/// Lets through what the node's own network needs, and nothing of the mesh.
const NFT: &str = r#"
table inet lockdown {
    chain forward_all {
        type filter hook forward priority 10; policy drop;
        iifname "cni0" oifname { "cni0", "eth0" } accept
        iifname "eth0" oifname "cni0" accept
    }
}
"#;
/// The same for iptables.
const IPTABLES: &str = "iptables -P FORWARD DROP
iptables -A FORWARD -i cni0 -o cni0 -j ACCEPT
iptables -A FORWARD -i cni0 -o eth0 -j ACCEPT
iptables -A FORWARD -i eth0 -o cni0 -j ACCEPT";
const IPTABLES_END: &str = "iptables -P FORWARD ACCEPT
iptables -F FORWARD";

pub(crate) fn nft_chain() -> Result<()> {
    within(Ranges::Imported, |stage| {
        stage.installed()?;
        let node = stage.gateway("paris")?;
        dropped(
            stage,
            &node,
            "inet lockdown forward_all",
            |lab| lab.lab().node(&node)?.nft(NFT),
            |lab| lab.lab().node(&node)?.nft("delete table inet lockdown"),
        )
    })
}

pub(crate) fn iptables_policy() -> Result<()> {
    within(Ranges::Imported, |stage| {
        stage.installed()?;
        let node = stage.gateway("oslo")?;
        dropped(
            stage,
            &node,
            "ip filter FORWARD",
            |lab| shell(lab, &node, IPTABLES),
            |lab| shell(lab, &node, IPTABLES_END),
        )
    })
}

fn shell(lab: &NodeLab, node: &str, script: &str) -> Result<()> {
    lab.on_node(node, "sh", &["-ec", script]).map(drop)
}

fn dropped(
    stage: &mut Stage,
    node: &str,
    chain: &str,
    close: impl Fn(&NodeLab) -> Result<()>,
    open: impl Fn(&NodeLab) -> Result<()>,
) -> Result<()> {
    let told = |stage: &Stage| -> Result<Option<String>> {
        let peers = stage.peers()?;
        let peer = peers
            .get(node)
            .with_context(|| format!("no Peer {}", peer_name(node)))?;
        Ok(condition(peer, "ForwardDropped")
            .filter(|condition| condition["status"] == "True")
            .and_then(|condition| condition["message"].as_str())
            .map(str::to_owned))
    };
    ensure!(told(stage)?.is_none(), "reported before it is so");
    close(&stage.lab)?;
    let begun = Instant::now();
    let message = eventually("the chain to be reported", PATIENCE, || {
        told(stage)?.context("no condition ForwardDropped")
    })?;
    println!("reported after {:.1?}: {message}", begun.elapsed());
    ensure!(
        message.contains(chain),
        "it does not name {chain}: {message}"
    );
    ensure!(
        stage.matrix().is_err(),
        "nothing is dropped, so the test shows nothing"
    );

    // Word for word, and the same words from doctor.
    let commands: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    ensure!(!commands.is_empty(), "it names no rule to add: {message}");
    let advice = doctor(stage, node)?;
    for command in &commands {
        ensure!(
            advice.contains(command),
            "doctor does not say {command}: {advice}"
        );
    }
    for command in commands {
        shell(&stage.lab, node, command)?;
    }
    stage.matrix()?;
    let begun = Instant::now();
    eventually("the report to be taken back", PATIENCE, || {
        ensure!(told(stage)?.is_none(), "reported although the mesh passes");
        Ok(())
    })?;
    println!("withdrawn after {:.1?}", begun.elapsed());
    open(&stage.lab)?;
    std::thread::sleep(Duration::from_millis(200));
    stage.matrix()
}

/// What doctor says is to be done about a node's forward chain.
fn doctor(stage: &Stage, node: &str) -> Result<String> {
    let findings = stage.tieline.doctor()?;
    let place = format!("Node {node}");
    let found = findings
        .iter()
        .find(|it| it["id"] == "forward-drop" && it["where"] == place.as_str());
    let found = found.with_context(|| format!("doctor is silent about {place}: {findings:?}"))?;
    Ok(found["action"].as_str().unwrap_or_default().to_owned())
}
