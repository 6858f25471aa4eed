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
use crate::plan::NodePlan;
use view::{Cluster, shares};

pub(super) use singly::check as check_singly;

/// Proves it of every cluster that has a ledger, a node or a link. Everything is in order of cluster, so each list is walked once.
pub(super) fn check_all(case: &mut Case<'_>) {
    let (fleet, proposal) = (case.fleet, case.proposal);
    let ledgers = proposal.ledgers.iter();
    let mut ledgers = ledgers
        .filter_map(|(name, ledger)| match name {
            LedgerName::Cluster(cluster) => Some((cluster, name, ledger.as_ref())),
            LedgerName::Hub => None,
        })
        .peekable();
    let mut links = case.links.clone().into_iter().peekable();
    let mut blocks = case.blocks().into_iter().peekable();
    let mut nodes = proposal.nodes.iter().peekable();
    let mut objects = fleet.nodes.iter().peekable();
    loop {
        let heads = [
            ledgers.peek().map(|(cluster, ..)| *cluster),
            links.peek().map(|(cluster, _)| *cluster),
            nodes.peek().map(|(id, _)| &id.cluster),
        ];
        let Some(name) = heads.into_iter().flatten().min() else {
            break;
        };
        while blocks.next_if(|(cluster, ..)| *cluster < name).is_some() {}
        while objects.next_if(|(id, _)| id.cluster < *name).is_some() {}
        let own = |(id, _): &(&NodeId, &NodePlan)| id.cluster == *name;
        let ledger = ledgers.next_if(|(cluster, ..)| *cluster == name);
        let cluster = Cluster {
            name,
            link: links
                .next_if(|(cluster, _)| *cluster == name)
                .map(|(_, link)| link),
            blocks: std::iter::from_fn(|| blocks.next_if(|(cluster, ..)| *cluster == name))
                .collect(),
            nodes: std::iter::from_fn(|| nodes.next_if(own)).collect(),
            objects: std::iter::from_fn(|| objects.next_if(|(id, _)| id.cluster == *name))
                .collect(),
            shares: ledger
                .map(|(.., ledger)| shares(ledger))
                .unwrap_or_default(),
            ledger: ledger.map(|(_, key, ledger)| (key, ledger)),
        };
        prove(case, &cluster);
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
