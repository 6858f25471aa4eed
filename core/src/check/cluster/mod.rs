//! A cluster's level: its ledger, its nodes and its segments.

mod ledger;
mod nodes;
mod segments;

use super::case::{Block, Case, is_live};
use super::record;
use crate::cidr::Prefix;
use crate::fleet::Node;
use crate::ids::{ClusterName, LinkName, NodeId, NodeName};
use crate::ledger::{Ledger, LedgerName, Owner, State, Use};
use crate::plan::NodePlan;

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

/// A cluster as it is looked at.
struct Cluster<'a> {
    name: &'a ClusterName,
    /// Its link, where that is applied now.
    link: Option<&'a LinkName>,
    /// What the hub grants to it.
    blocks: Vec<Block<'a>>,
    /// Its ledger.
    ledger: Option<(&'a LedgerName, &'a Ledger)>,
    /// Its planned nodes, by name.
    nodes: Vec<(&'a NodeId, &'a NodePlan)>,
    /// Its nodes as they are, by name.
    objects: Vec<(&'a NodeId, &'a Node)>,
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
