//! Fleet and ledgers to plan: addresses, segments, gateways, and a report of what could not be done.
//!
//! Pure, deterministic, sticky. What is granted stays granted; planning twice changes nothing; adding never moves.

mod book;
mod carriers;
mod clash;
mod exports;
mod gateways;
mod hub;
mod intake;
mod kept;
mod members;
mod network;
mod ranges;
mod report;
mod shares;
mod space;
mod words;
mod work;

pub use report::listed;

use crate::cidr::Prefix;
use crate::fleet::{Fleet, Mode};
use crate::ids::{Lineage, LinkName, NodeId, PeerName, SegmentName, SiteName};
use crate::ledger::Ledgers;
use crate::network_plan::NetworkPlan;
use crate::peer::Scope;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// What was decided before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    /// Lineage for ledgers that do not exist yet.
    pub lineage: Lineage,
    /// The ledgers as they stand.
    pub ledgers: Ledgers,
    /// The plans as they stand: gateways, VPN indexes and service carriers are sticky.
    pub plans: BTreeMap<LinkName, NetworkPlan>,
}

/// What is to be written, and why some things are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// All ledgers after the change; a changed one has the next revision.
    pub ledgers: Ledgers,
    /// All plans after the change; a new or changed one has a revision above all that were before, of whichever plan.
    pub plans: BTreeMap<LinkName, NetworkPlan>,
    /// What each planned node is.
    pub nodes: BTreeMap<NodeId, NodePlan>,
    /// What could not be done.
    pub report: PlanReport,
}

/// What one node is in the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlan {
    /// Its link.
    pub link: LinkName,
    /// Its Peer's name.
    pub peer: PeerName,
    /// Its site.
    pub site: SiteName,
    /// Its segment.
    pub segment: SegmentName,
    /// Its pods' ranges.
    pub pod_cidrs: Vec<Prefix>,
    /// Its mesh addresses, at most one of each family.
    pub mesh_addresses: Vec<IpAddr>,
    /// Its rank when it is a gateway.
    pub gateway_rank: Option<u8>,
    /// Its addresses on the underlay, as they stand in Node.status.
    pub addresses: Vec<(IpAddr, Scope)>,
    /// podCIDRs to be written into Node.spec, because it has none and `pods.assign` is true.
    pub assign: Vec<Prefix>,
}

/// What could not be done, as data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanReport {
    /// What the user must change.
    pub refusals: Vec<Notice>,
    /// What is expected to come, and what it waits for.
    pub waiting: Vec<Notice>,
    /// For links with mode Plan: what would change, in words.
    pub withheld: BTreeMap<LinkName, Vec<String>>,
}

/// One thing that could not be done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Notice {
    /// Kind of the object concerned: ClusterLink, Cluster, Site, VpnAttachment, Node, AddressLedger.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The link concerned, when it is known.
    pub link: Option<LinkName>,
    /// One CamelCase word for machines.
    pub reason: String,
    /// A sentence for people: what is wrong, where, what would help. Stable: no times, sorted lists.
    pub message: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: {}: {}",
            self.kind, self.name, self.reason, self.message
        )
    }
}

/// Plans everything.
///
/// Links with mode `Plan` are computed on top of the others and only shown: their ledgers, plans and nodes stay as they
/// were, and the report says what would change.
#[must_use]
pub fn plan(fleet: &Fleet, before: &Before) -> Proposal {
    let (applied, shown): (BTreeSet<_>, BTreeSet<_>) = fleet
        .links
        .keys()
        .partition(|link| fleet.links[*link].mode == Mode::Apply);
    let mut proposal = work::run(fleet, before, &applied);
    if !shown.is_empty() {
        let next = Before {
            lineage: before.lineage.clone(),
            ledgers: proposal.ledgers.clone(),
            plans: proposal.plans.clone(),
        };
        let trial = work::run(fleet, &next, &applied.union(&shown).copied().collect());
        words::withhold(&mut proposal, &trial, &shown);
    }
    proposal
}
