//! "It works": every pair, sources kept, nothing clear; bare, and among the rules of real nodes.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::lab::{CaptureReport, Flows, NodeRules, RuleFlavour};
use e2e::world::World;

use crate::support::listening;

/// Every pair, twice in each protocol, all sources kept, and nothing clear meanwhile.
pub(crate) fn everything_works(world: &World) -> Result<CaptureReport> {
    let oracle = listening(world)?;
    let flows = Flows {
        // Ready means that every path has had its handshake; one lost SYN is forgiven.
        patience: Duration::from_secs(2),
        ..Flows::default()
    };
    world.lab.matrix(&flows)?.expect_all()?;
    let report = oracle.report()?;
    report.expect_nothing_clear()?;
    ensure!(
        report.frames > 100,
        "the traffic did not cross the underlay: {report}"
    );
    Ok(report)
}

/// As [`everything_works`], with the rules of real nodes on every node while it runs.
pub(crate) fn works_with_rules(world: &World, flavour: RuleFlavour) -> Result<()> {
    let v6 = world.lab.topology().dual_stack;
    let services: &[&str] = if v6 {
        &["10.96.0.0/16", "fd96::/112"]
    } else {
        &["10.96.0.0/16"]
    };
    let rules = NodeRules {
        flavour,
        cluster_cidrs: world.cluster_cidrs()?,
        service_cidrs: services
            .iter()
            .map(|net| net.parse())
            .collect::<Result<_, _>>()?,
    };
    world.lab.install_rules(&rules)?;
    for node in world.lab.nodes() {
        let dump = node.dump()?;
        let masquerades = dump.mentions("masquerade").len() + dump.mentions("MASQUERADE").len();
        let invalid = dump
            .area("nft")
            .iter()
            .any(|line| line.to_lowercase().contains("invalid"));
        ensure!(
            masquerades >= 3 && invalid,
            "{} has no such rules: {dump}",
            node.name()
        );
    }
    let result = everything_works(world);
    for node in world.lab.nodes() {
        let tables: &[&str] = match flavour {
            RuleFlavour::Iptables => &["ip nat", "ip filter", "ip6 nat", "ip6 filter"],
            RuleFlavour::Nft => &[
                "ip kube-proxy",
                "ip flannel-ipv4",
                "ip6 kube-proxy",
                "ip6 flannel-ipv6",
                "inet cni_plugins_masquerade",
            ],
        };
        // Adding first makes the deletion succeed also where the family was not used.
        let script: String = tables
            .iter()
            .map(|table| format!("add table {table}\ndelete table {table}\n"))
            .collect();
        node.nft(&script)?;
    }
    result.map(drop)
}
