//! A cluster as it is looked at: its ledger beside its planned nodes.

use crate::check::case::{Block, is_live};
use crate::cidr::Prefix;
use crate::fleet::Node;
use crate::ids::{ClusterName, LinkName, NodeId, NodeName};
use crate::ledger::{Ledger, LedgerName, Owner, State, Use};
use crate::plan::NodePlan;

/// A cluster as it is looked at.
pub(super) struct Cluster<'a> {
    pub(super) name: &'a ClusterName,
    /// Its link, where that is applied now.
    pub(super) link: Option<&'a LinkName>,
    /// What the hub grants to it.
    pub(super) blocks: Vec<Block<'a>>,
    /// Its ledger.
    pub(super) ledger: Option<(&'a LedgerName, &'a Ledger)>,
    /// Its planned nodes, by name.
    pub(super) nodes: Vec<(&'a NodeId, &'a NodePlan)>,
    /// Its nodes as they are, by name.
    pub(super) objects: Vec<(&'a NodeId, &'a Node)>,
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
            while let [first, others @ ..] = rest
                && *first.node < id.node
            {
                rest = others;
            }
            let own = rest.iter().take_while(|share| *share.node == id.node);
            let (held, others) = rest.split_at(own.count());
            rest = others;
            (*id, *node, held)
        })
    }
}
