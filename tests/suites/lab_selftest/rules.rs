//! The rules that a CNI and kube-proxy bring to a real node.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use e2e::lab::{Family, NodeRules, RuleFlavour, SiteKind, Topology};

use super::stage::{quick, with_lab};

pub(crate) fn iptables_rules() -> Result<()> {
    masquerade(RuleFlavour::Iptables, "iptables")
}

pub(crate) fn nft_rules() -> Result<()> {
    masquerade(RuleFlavour::Nft, "nft")
}

/// With the CNI's own rules, another node's pod sees the node and not the pod: what a cross-site
/// packet has to survive is really there.
fn masquerade(flavour: RuleFlavour, name: &'static str) -> Result<()> {
    let topology = Topology::empty()
        .dual_stack()
        .site("oslo", SiteKind::Routed, [172, 22, 5, 0], 24)
        .nodes("oslo", "shop", 2);
    with_lab(name, topology, |lab| {
        lab.matrix(&quick(1))?.expect_all()?;
        lab.install_rules(&NodeRules {
            flavour,
            cluster_cidrs: vec!["10.64.0.0/16".parse()?, "fd64::/32".parse()?],
            service_cidrs: vec!["10.96.0.0/16".parse()?, "fd96::/112".parse()?],
        })?;
        let report = lab.matrix(&quick(2))?;
        ensure!(report.failures().is_empty(), "{report}");
        for pair in &report.pairs {
            let node = lab.node(pair.from.trim_end_matches("-p0"))?;
            let wanted = match pair.family {
                Family::V4 => IpAddr::from(node.address4()),
                Family::V6 => node.address6().context("dual-stack")?.into(),
            };
            ensure!(pair.seen == BTreeSet::from([wanted]), "{pair}");
        }
        for node in lab.nodes() {
            let dump = node.dump()?;
            ensure!(
                dump.mentions("masquerade").len() + dump.mentions("MASQUERADE").len() >= 4,
                "{dump}"
            );
            ensure!(
                dump.area("nft")
                    .iter()
                    .any(|line| line.to_lowercase().contains("invalid")),
                "{dump}"
            );
        }
        Ok(())
    })
}
