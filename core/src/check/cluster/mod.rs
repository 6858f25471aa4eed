//! A cluster's level: its ledger, its nodes and its segments.

mod ledger;
mod nodes;
mod segments;
mod view;

use super::case::Case;
use super::record;
use crate::ids::{ClusterName, NodeId};
use crate::ledger::LedgerName;
use view::{Cluster, shares};

/// Proves it of every cluster that has a ledger, a node or a link.
pub(super) fn check_all(case: &mut Case<'_>) {
    let proposal = case.proposal;
    let ledgers = proposal.ledgers.keys().filter_map(|name| match name {
        LedgerName::Cluster(cluster) => Some(cluster),
        LedgerName::Hub => None,
    });
    let mut clusters: Vec<&ClusterName> = ledgers.chain(case.links.keys().copied()).collect();
    clusters.extend(proposal.nodes.keys().map(|id| &id.cluster));
    clusters.sort_unstable();
    clusters.dedup();
    for cluster in clusters {
        check(case, cluster);
    }
}

/// Proves it of one cluster.
pub(super) fn check(case: &mut Case<'_>, name: &ClusterName) {
    let proposal = case.proposal;
    let key = LedgerName::Cluster(name.clone());
    let ledger = proposal.ledgers.get(&key).map(AsRef::as_ref);
    let from = NodeId::first_of(name);
    let nodes = proposal.nodes.range(from..);
    let cluster = Cluster {
        name,
        link: case.links.get(name).copied(),
        nodes: nodes.take_while(|(id, _)| id.cluster == *name).collect(),
        shares: ledger.map(shares).unwrap_or_default(),
        ledger,
    };
    if let Some(ledger) = ledger {
        record::check(case, &key, ledger);
        if cluster.link.is_some() {
            ledger::check(case, &cluster, &key, ledger);
        }
    }
    nodes::check(case, &cluster);
    if let Some(plan) = cluster.link.and_then(|link| proposal.plans.get(link)) {
        segments::check(case, &cluster, plan);
    }
}
