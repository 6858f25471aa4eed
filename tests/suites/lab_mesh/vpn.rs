//! A VPN reaches what its `allow` names, and nothing else, even when the other side is hostile.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::lab::{Endpoint, Family, Flows, Protocol};
use e2e::world::World;

use crate::three_sites;

pub(crate) fn vpn_allow() -> Result<()> {
    three_sites(|world| {
        let vpn = world.lab.vpn()?;
        let host = vpn.endpoint();
        let gateway = world
            .gateways("paris")?
            .first()
            .context("paris has no gateway")?
            .clone();
        let distant = world
            .gateways("oslo")?
            .first()
            .context("oslo has no gateway")?
            .clone();
        // The box turns hostile: it routes what its configuration does not name into the tunnel.
        let peer = vpn
            .ns()
            .cmd("wg", &["show", "wg0", "peers"])?
            .trim()
            .to_owned();
        let before = vpn.ns().cmd("wg", &["show", "wg0", "allowed-ips"])?;
        let named = before
            .split_once('\t')
            .context("no allowed IPs")?
            .1
            .trim()
            .replace(' ', ",");
        vpn.ns().cmd(
            "wg",
            &[
                "set",
                "wg0",
                "peer",
                &peer,
                "allowed-ips",
                &format!("{named},100.64.0.0/10"),
            ],
        )?;
        vpn.ns().ip("route replace 100.64.0.0/10 dev wg0")?;

        let mut servers = Vec::new();
        let mut ends = vec![host.clone()];
        for node in [&gateway, &distant] {
            let end = Endpoint {
                name: format!("{node} itself"),
                segment: node.clone(),
                addresses: world
                    .mesh_addresses(node)?
                    .into_iter()
                    .filter(IpAddr::is_ipv4)
                    .collect(),
                ns: world.lab.node(node)?.ns(),
            };
            // Something listens: only the firewall can keep it silent.
            servers.push(world.lab.serve(&end)?);
            ends.push(end);
        }
        let dropped = |world: &World| -> Result<u64> { vpn_drops(world, &gateway) };
        let count = dropped(world)?;
        let flows = Flows {
            each: 2,
            patience: Duration::from_millis(1500),
            families: vec![Family::V4],
            protocols: vec![Protocol::Udp, Protocol::Tcp],
        };
        let report = world.lab.matrix_of(&ends, &flows)?;
        let from_host: Vec<_> = report
            .answered()
            .into_iter()
            .filter(|pair| pair.from == host.name)
            .collect();
        ensure!(
            from_host.is_empty(),
            "the VPN reached a node: {from_host:?}"
        );
        let counted = dropped(world)? - count;
        ensure!(counted >= 4, "{counted} packets were counted as dropped");

        vpn.ns()
            .cmd("wg", &["set", "wg0", "peer", &peer, "allowed-ips", &named])?;
        vpn.ns().ip("route del 100.64.0.0/10 dev wg0")?;
        // And what it may reach it still reaches.
        let pair = [host, world.lab.endpoint("oslo-2-p0")?];
        world.lab.matrix_of(&pair, &Flows::default())?.expect_all()
    })
}

/// Packets that drop rules about VPN devices have counted on a node.
fn vpn_drops(world: &World, node: &str) -> Result<u64> {
    let text = world
        .lab
        .node(node)?
        .cmd("nft", &["list", "table", "inet", "tieline"])?;
    let rules: Vec<_> = text
        .lines()
        .filter(|line| line.contains("tiev") && line.contains("drop"))
        .collect();
    ensure!(
        !rules.is_empty(),
        "{node} has no rule that drops what comes from a VPN:\n{text}"
    );
    let count = |line: &&str| {
        let mut words = line
            .split_whitespace()
            .skip_while(|word| *word != "packets");
        words.nth(1)?.parse::<u64>().ok()
    };
    Ok(rules.iter().filter_map(count).sum())
}
