//! A cluster as it is looked at: its ledger beside its planned nodes.

use crate::check::case::is_live;
use crate::cidr::Prefix;
use crate::ids::{ClusterName, LinkName, NodeId, NodeName};
use crate::ledger::{Ledger, Owner, State, Use};
use crate::plan::NodePlan;

/// A cluster as it is looked at.
pub(super) struct Cluster<'a> {
    pub(super) name: &'a ClusterName,
    /// Its link, where that is applied now.
    pub(super) link: Option<&'a LinkName>,
    pub(super) ledger: Option<&'a Ledger>,
    /// Its planned nodes, by name.
    pub(super) nodes: Vec<(&'a NodeId, &'a NodePlan)>,
    /// What nodes hold by the ledger, by name.
    pub(super) shares: Vec<Share<'a>>,
}

/// What a node holds by the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Share<'a> {
    pub(super) node: &'a NodeName,
    pub(super) used_for: Use,
    pub(super) prefix: Prefix,
    pub(super) state: State,
}

/// What the nodes of a ledger's cluster hold, by name.
pub(super) fn shares(ledger: &Ledger) -> Vec<Share<'_>> {
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
    pub(super) fn held(&self) -> impl Iterator<Item = (&'a NodeId, &'a NodePlan, &[Share<'a>])> {
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
