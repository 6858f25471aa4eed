//! A cluster's level: its ledger, its nodes and its segments.

mod ledger;
mod nodes;
mod segments;
mod singly;
mod view;

use super::case::Case;
use super::record;
use crate::ids::{ClusterName, NodeId};
use crate::ledger::LedgerName;
use rayon::iter::ParallelIterator;
use rayon::slice::ParallelSlice;
use view::{Cluster, shares};

pub(super) use singly::check as check_singly;

/// Clusters that are looked at in one go, beside others.
const AT_ONCE: usize = 64;

/// Proves it of every cluster that has a ledger, a node or a link, on as many processors as there are.
pub(super) fn check_all(case: &mut Case<'_>) {
    let proposal = case.proposal;
    let ledgers = proposal.ledgers.keys().filter_map(|name| match name {
        LedgerName::Cluster(cluster) => Some(cluster),
        LedgerName::Hub => None,
    });
    let mut names: Vec<&ClusterName> = ledgers.chain(case.links.keys().copied()).collect();
    for id in proposal.nodes.keys() {
        if names.last() != Some(&&id.cluster) {
            names.push(&id.cluster);
        }
    }
    names.sort_unstable();
    names.dedup();
    let looks: Vec<Case<'_>> = names
        .par_chunks(AT_ONCE)
        .map(|names| {
            let mut look = case.beside();
            for name in names {
                check(&mut look, name);
            }
            look
        })
        .collect();
    for look in looks {
        case.join(look);
    }
}

/// Proves it of one cluster.
pub(super) fn check(case: &mut Case<'_>, name: &ClusterName) {
    let (fleet, proposal) = (case.fleet, case.proposal);
    let key = LedgerName::Cluster(name.clone());
    let ledger = proposal.ledgers.get(&key).map(AsRef::as_ref);
    let nodes = proposal.nodes.range(NodeId::first_of(name)..);
    let cluster = Cluster {
        name,
        link: case.links.get(name).copied(),
        blocks: case.blocks_of(name),
        nodes: nodes.take_while(|(id, _)| id.cluster == *name).collect(),
        objects: fleet.nodes_of(name).collect(),
        shares: ledger.map(shares).unwrap_or_default(),
        ledger: ledger.map(|ledger| (&key, ledger)),
    };
    prove(case, &cluster);
}

fn prove(case: &mut Case<'_>, cluster: &Cluster<'_>) {
    if let Some((key, ledger)) = cluster.ledger {
        record::check(case, key, ledger, cluster.link.is_some());
        if cluster.link.is_some() {
            ledger::check(case, cluster, key, ledger);
        }
    }
    nodes::check(case, cluster);
    let proposal = case.proposal;
    if let Some(plan) = cluster.link.and_then(|link| proposal.plans.get(link)) {
        segments::check(case, cluster, plan);
    }
}
