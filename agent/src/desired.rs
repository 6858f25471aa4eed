//! What this node is to be, from what the API server and the disk say. Pure.
//!
//! ```text
//!  lists complete, plan admitted ────────────────────► Mesh        plan and peers of the API
//!  own link's plan is not older, without this cluster ► Withdrawn   everything of ours goes
//!  no plan of the own link, and no own Peer either ──► Withdrawn
//!  no plan, and the own Peer is still there ─────────► Mesh        the last good plan *and its peers*, from disk
//!  plan refused (older), unreadable, or API silent ──► Mesh        the same
//!  nothing known ────────────────────────────────────► Unknown     what the kernel holds stays
//! ```
//!
//! A plan that is missing is not yet a withdrawal: the operator that withdraws takes the Peers too, so a Peer without a plan
//! means that somebody else deleted the plan, or that the list is wrong.
//!
//! A refused plan brings its peers down with it: both come from the same restored API server, so its Peers may lack
//! nodes that joined since.

use crate::index::{Own, Plans, Snapshot};
use crate::store::{LastGood, Revisions};
use std::fmt;
use std::sync::Arc;
use tieline_core::ids::{ClusterName, Lineage, LinkName};
use tieline_core::network_plan::NetworkPlan;
use tieline_core::peer::{AcceptedPeer, AcceptedPeers};

/// What this node is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Desired {
    /// Nothing is known, so nothing is changed.
    Unknown,
    /// This node's cluster is in no link any more: everything of ours goes.
    Withdrawn,
    /// Part of this mesh, or its guard alone while the own Peer is not accepted.
    Mesh(Mesh),
}

/// A plan and the peers that go with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// All that is needed to restore it.
    pub inputs: LastGood,
    /// Whether the inputs come from the API, else from disk.
    pub fresh: bool,
}

impl Mesh {
    /// All accepted peers; a local one wins over a foreign one of the same name.
    #[must_use]
    pub fn peers(&self) -> Arc<AcceptedPeers> {
        if self.inputs.foreign.is_empty() {
            return Arc::clone(&self.inputs.local);
        }
        let mut peers = (*self.inputs.foreign).clone();
        peers.extend(
            self.inputs
                .local
                .iter()
                .map(|(name, peer)| (name.clone(), peer.clone())),
        );
        Arc::new(peers)
    }
}

/// What the API server says and this node does not follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// A plan that is older than one that was seen before.
    Older {
        /// The history that both belong to.
        lineage: Lineage,
        /// Revision of the plan that the API server offers.
        offered: u64,
        /// Highest revision that this node saw.
        highest: u64,
    },
    /// No plan, while this node's Peer is still there.
    Missing {
        /// The link whose plan it was.
        link: LinkName,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Older {
                lineage,
                offered,
                highest,
            } => write!(
                f,
                "the API server offers plan revision {offered} of lineage {lineage}, and this node has seen {highest}: it was \
                 probably restored from a backup. The last good plan stays; the operator has to publish a higher revision"
            ),
            Self::Missing { link } => write!(
                f,
                "NetworkPlan {link} is gone, and this node's Peer is still there: the last good plan stays until the operator \
                 writes the plan again, or takes the Peer away because the link is gone"
            ),
        }
    }
}

/// The decision, with what speaks against the API's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What this node is to be.
    pub desired: Desired,
    /// What was not followed.
    pub refused: Option<Refused>,
    /// Lists that have not been read completely yet.
    pub awaiting: Vec<&'static str>,
}

/// Decides.
#[must_use]
pub fn decide(
    snapshot: &Snapshot,
    last_good: Option<&LastGood>,
    highest: &Revisions,
    own: &Own,
) -> Decision {
    let awaiting = awaiting(snapshot);
    let from_disk = |refused: Option<Refused>| Decision {
        desired: last_good.map_or(Desired::Unknown, |inputs| {
            Desired::Mesh(Mesh {
                inputs: inputs.clone(),
                fresh: false,
            })
        }),
        refused,
        awaiting: awaiting.clone(),
    };
    let (Some(plans), Some(local), Some(foreign)) =
        (&snapshot.plans, &snapshot.local, &snapshot.foreign)
    else {
        return from_disk(None);
    };
    let peer = own.find(local).map(|(_, peer)| peer);
    let Some(plan) = own_plan(plans, own, peer) else {
        let undecided = peer.is_none() && own.cluster.is_none() && !plans.is_empty();
        if undecided || snapshot.unreadable_plans > 0 {
            return from_disk(None);
        }
        let doubt = last_good.and_then(|last| doubt(plans, &last.plan.link, highest, peer));
        return match doubt {
            Some(refused) => from_disk(Some(refused)),
            None => Decision {
                desired: Desired::Withdrawn,
                refused: None,
                awaiting,
            },
        };
    };
    match older(plan, highest) {
        Some(refused) => from_disk(Some(refused)),
        None => Decision {
            desired: Desired::Mesh(Mesh {
                inputs: LastGood {
                    plan: Arc::clone(plan),
                    local: Arc::clone(local),
                    foreign: Arc::clone(foreign),
                },
                fresh: true,
            }),
            refused: None,
            awaiting,
        },
    }
}

/// Why a node without a plan is not withdrawn: what is left of its last plan's link does not say so.
fn doubt(
    plans: &Plans,
    link: &LinkName,
    highest: &Revisions,
    peer: Option<&AcceptedPeer>,
) -> Option<Refused> {
    match plans.values().find(|plan| plan.link == *link) {
        // It says that this cluster has left, unless it is of before the cluster came.
        Some(plan) => older(plan, highest),
        None => peer.map(|_| Refused::Missing { link: link.clone() }),
    }
}

fn older(plan: &NetworkPlan, highest: &Revisions) -> Option<Refused> {
    let &highest = highest.get(&plan.lineage)?;
    (plan.revision < highest).then(|| Refused::Older {
        lineage: plan.lineage.clone(),
        offered: plan.revision,
        highest,
    })
}

fn awaiting(snapshot: &Snapshot) -> Vec<&'static str> {
    [
        ("NetworkPlans", snapshot.plans.is_some()),
        ("Peers of this cluster", snapshot.local.is_some()),
        ("Peers of other clusters", snapshot.foreign.is_some()),
    ]
    .into_iter()
    .filter_map(|(what, complete)| (!complete).then_some(what))
    .collect()
}

/// The plan that this node belongs to: the one with its segment, else the one with its cluster. While its cluster moves from
/// one link to another both have it, and the newer one counts. A node without a Peer goes by the name of its cluster; without
/// that name only a plan that is alone can be its own.
///
/// Another link's plan is never taken in its place: its revision would count as seen, and the own one could be below it.
fn own_plan<'a>(
    plans: &'a Plans,
    own: &Own,
    peer: Option<&AcceptedPeer>,
) -> Option<&'a Arc<NetworkPlan>> {
    let newest = |of: &dyn Fn(&NetworkPlan) -> bool| {
        plans
            .values()
            .filter(|plan| of(plan))
            .max_by_key(|plan| plan.revision)
    };
    let of_cluster =
        |cluster: &ClusterName| newest(&|plan: &NetworkPlan| plan.cluster(cluster).is_some());
    match (peer, &own.cluster) {
        (Some(peer), _) => newest(&|plan: &NetworkPlan| plan.segment(&peer.segment).is_some())
            .or_else(|| of_cluster(&peer.cluster)),
        (None, Some(cluster)) => of_cluster(cluster),
        (None, None) => plans.values().next().filter(|_| plans.len() == 1),
    }
}

#[cfg(test)]
mod tests;
