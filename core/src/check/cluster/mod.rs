//! A cluster's level: its ledger, its nodes and its segments.

mod ledger;
mod nodes;
mod segments;

use super::case::{Case, is_live};
use super::record;
use crate::cidr::Prefix;
use crate::ids::{ClusterName, LinkName, NodeId, NodeName};
use crate::ledger::{Ledger, LedgerName, Owner, State, Use};
use crate::plan::NodePlan;

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

/// A cluster as it is looked at.
struct Cluster<'a> {
    name: &'a ClusterName,
    /// Its link, where that is applied now.
    link: Option<&'a LinkName>,
    ledger: Option<&'a Ledger>,
    /// Its planned nodes, by name.
    nodes: Vec<(&'a NodeId, &'a NodePlan)>,
    /// What nodes hold by the ledger, by name.
    shares: Vec<Share<'a>>,
}

/// What a node holds by the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Share<'a> {
    node: &'a NodeName,
    used_for: Use,
    prefix: Prefix,
    state: State,
}

fn shares(ledger: &Ledger) -> Vec<Share<'_>> {
    let live = ledger.grants.iter().filter(|grant| is_live(grant));
    let mut shares: Vec<Share<'_>> = live
        .filter_map(|grant| match &grant.owner {
            Owner::Node(node) => Some(Share {
                node,
                used_for: grant.used_for,
                prefix: grant.prefix,
                state: grant.state,
            }),
            _ => None,
        })
        .collect();
    shares.sort_unstable();
    shares
}

impl<'a> Cluster<'a> {
    /// Its planned nodes, each with what it holds.
    fn held(&self) -> impl Iterator<Item = (&'a NodeId, &'a NodePlan, &[Share<'a>])> {
        let mut rest = &self.shares[..];
        self.nodes.iter().map(move |(id, node)| {
            let skipped = rest.partition_point(|share| *share.node < id.node);
            let own = rest[skipped..]
                .iter()
                .take_while(|share| *share.node == id.node);
            let end = skipped + own.count();
            let held = &rest[skipped..end];
            rest = &rest[end..];
            (*id, *node, held)
        })
    }
}
