//! What was decided before, and what is proposed now.

use super::report::PlanReport;
use crate::cidr::Prefix;
use crate::ids::{Lineage, LinkName, NodeId, PeerName, SegmentName, SiteName};
use crate::ledger::{Ledger, LedgerName, Ledgers};
use crate::network_plan::NetworkPlan;
use crate::peer::Scope;
use std::collections::BTreeMap;
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

impl Before {
    /// The hub's ledger.
    #[must_use]
    pub fn hub(&self) -> Option<&Ledger> {
        self.ledgers.get(&LedgerName::Hub).map(AsRef::as_ref)
    }

    /// Identity of the history that goes on: the hub's, or the fresh one.
    #[must_use]
    pub fn lineage(&self) -> &Lineage {
        self.hub().map_or(&self.lineage, |hub| &hub.lineage)
    }

    /// The highest revision that any plan of this lineage can have had. Plans of a lineage share one counter, because whoever
    /// remembers a revision compares it with the next plan of that lineage, which is another link's when a cluster has moved.
    /// Of plans that are gone the hub's ledger keeps the height.
    #[must_use]
    pub fn highest_revision(&self) -> u64 {
        let plans = self.plans.values().map(|plan| plan.revision);
        let hub = self.hub().map(|hub| hub.revision);
        plans.chain(hub).max().unwrap_or(0)
    }
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

impl Proposal {
    /// What stands once all of this is stored.
    #[must_use]
    pub fn written(&self, before: &Before) -> Before {
        Before {
            lineage: before.lineage.clone(),
            ledgers: self.ledgers.clone(),
            plans: self.plans.clone(),
        }
    }
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
    /// Its pods' ranges, sorted.
    pub pod_cidrs: Vec<Prefix>,
    /// Whether these are to be written into Node.spec, which has none while `pods.assign` is true.
    pub assign: bool,
    /// Its mesh addresses, at most one of each family.
    pub mesh_addresses: Vec<IpAddr>,
    /// Its rank when it is a gateway.
    pub gateway_rank: Option<u8>,
    /// Its addresses on the underlay, as they stand in Node.status.
    pub addresses: Vec<(IpAddr, Scope)>,
}
