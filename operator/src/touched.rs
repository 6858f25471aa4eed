//! What a change concerns, as a value: of the folding, of the decision that is carried forward, and of what is written after it.
//! It decides nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use tieline_core::ids::{LinkName, NodeId, PeerName};
use tieline_core::ledger::{Ledger, LedgerName};
use tieline_core::network_plan::NetworkPlan;
use tieline_core::plan::Proposal;

/// Which objects a decision is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// All.
    All,
    /// What follows from these.
    Only(Touched),
}

/// What a write changes: an object by its name, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// An AddressLedger.
    AddressLedger(String),
    /// A NetworkPlan.
    NetworkPlan(String),
    /// A Peer.
    Peer(String),
    /// The podCIDRs of a Node.
    PodCidrs(String),
    /// A Secret.
    Secret(String),
    /// The taints of a Node.
    Taints(String),
}

/// What a change has touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Nodes that came, left or changed, or whose plan or Peer did.
    pub nodes: BTreeSet<NodeId>,
    /// Ledgers that are to be written.
    pub ledgers: BTreeSet<LedgerName>,
    /// Plans that are to be written.
    pub plans: BTreeSet<LinkName>,
    /// Links of which a notice came or went.
    pub links: BTreeSet<LinkName>,
    /// Whether a VPN attachment has changed.
    pub attachments: bool,
}

impl Touched {
    /// The ledgers that are to be written, as they are proposed.
    pub fn of_ledgers<'p>(
        &self,
        proposal: &'p Proposal,
    ) -> impl Iterator<Item = (&'p LedgerName, &'p Arc<Ledger>)> {
        let names = self.ledgers.iter();
        names.filter_map(|name| proposal.ledgers.get_key_value(name))
    }

    /// The plans that are to be written, as they are proposed.
    pub fn of_plans<'p>(
        &self,
        proposal: &'p Proposal,
    ) -> impl Iterator<Item = (&'p LinkName, &'p NetworkPlan)> {
        let links = self.plans.iter();
        links.filter_map(|link| proposal.plans.get_key_value(link))
    }

    /// What is written for the nodes.
    #[must_use]
    pub fn targets(&self) -> BTreeSet<Target> {
        let mut targets = BTreeSet::new();
        for (name, id) in self.peers() {
            targets.insert(Target::Peer(name.to_string()));
            targets.insert(Target::PodCidrs(id.node.to_string()));
            targets.insert(Target::Taints(id.node.to_string()));
        }
        targets
    }

    /// The Peers of the nodes.
    pub fn peers(&self) -> impl Iterator<Item = (PeerName, &NodeId)> {
        let nodes = self.nodes.iter();
        nodes.filter_map(|id| Some((peer_of(id)?, id)))
    }
}

/// The name of a node's Peer.
#[must_use]
pub fn peer_of(id: &NodeId) -> Option<PeerName> {
    PeerName::new(format!("{}.{}", id.cluster, id.node)).ok()
}

/// The world has to be read anew, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole(pub &'static str);

/// What was carried over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folded {
    /// Nodes that came, left or changed, themselves or by their Peer.
    pub touched: Touched,
    /// Nodes that the planner would read otherwise than before.
    pub replan: BTreeSet<NodeId>,
}
