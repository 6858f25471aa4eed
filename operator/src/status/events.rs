//! Events: only when something happened, told from what is written and what was there before.

use super::{Announcement, judgement::clipped, link::new_entries};
use crate::decided::Decided;
use crate::index::Index;
use crate::reconcile::Stored;
use crate::touched::Target;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, ResourceExt};
use tieline_core::ids::NodeId;
use tieline_core::notice::Reason;
use tieline_core::peer::AcceptedPeers;
use tieline_crds::condition::{ObjectCondition, Occurrence, Standing};
use tieline_crds::{
    AddressLedger, AddressLedgerStatus, ClusterLink, ClusterLinkStatus, Site, SiteStatus,
};

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Happening {
    /// The object that it happened to.
    pub regarding: ObjectReference,
    /// Whether somebody has to look.
    pub warning: bool,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub note: String,
    /// What the operator was doing.
    pub action: &'static str,
}

/// What a pass did, told from what it stored.
#[must_use]
pub fn done(index: &Index, decided: &Decided, stored: &Stored) -> Vec<Happening> {
    let mut happened = Vec::new();
    if decided.trouble.is_some() {
        return happened;
    }
    let local = &decided.world.local;
    for target in stored {
        let id = match target {
            Target::PodCidrs(name) => name.parse().ok().map(|node| NodeId {
                cluster: local.clone(),
                node,
            }),
            Target::Peer(name) => decided.accepted.peers.get(name.as_str()).map(|it| NodeId {
                cluster: it.cluster.clone(),
                node: it.node.clone(),
            }),
            _ => None,
        };
        let Some((id, node)) = id.and_then(|id| decided.proposal().nodes.get_key_value(&id)) else {
            continue;
        };
        if let Target::PodCidrs(name) = target
            && node.assign
            && let Some(object) = index.nodes.get(name)
        {
            let cidrs: Vec<String> = node.pod_cidrs.iter().map(ToString::to_string).collect();
            happened.push(Happening {
                regarding: object.object_ref(&()),
                warning: false,
                reason: Occurrence::PodCidrAssigned.to_string(),
                note: format!("podCIDRs {} in site {}", cidrs.join(", "), node.site),
                action: "Assign",
            });
        }
        let keyless = |peers: &AcceptedPeers| {
            peers
                .get(&node.peer)
                .is_none_or(|peer| peer.keys.is_empty())
        };
        if let Target::Peer(name) = target
            && keyless(&decided.world.peers)
            && !keyless(&decided.accepted.peers)
            && let Some(object) = index.peers.get(name)
        {
            happened.push(Happening {
                regarding: object.object_ref(&()),
                warning: false,
                reason: Standing::Accepted.to_string(),
                note: format!(
                    "the keys of Node {} were accepted into segment {}",
                    id.node, node.segment
                ),
                action: "Accept",
            });
        }
    }
    happened
}

/// What happened, judging from statuses that are about to change.
#[must_use]
pub fn happenings(wanted: &[Announcement]) -> Vec<Happening> {
    let mut happened = Vec::new();
    for announcement in wanted {
        match announcement {
            Announcement::Link(link, status) => of_link(link, status, &mut happened),
            Announcement::Site(site, status) => of_site(site, status, &mut happened),
            Announcement::Ledger(ledger, status) => happened.extend(frozen(ledger, status)),
            _ => {}
        }
    }
    happened
}

fn of_link(object: &ClusterLink, status: &ClusterLinkStatus, happened: &mut Vec<Happening>) {
    let held = object.status.clone().unwrap_or_default();
    let about = object.object_ref(&());
    for entry in new_entries(&held.not_ready, &status.not_ready) {
        // Agents that are about to catch up are the normal course of things.
        if Reason::parse(&entry.reason).is_some_and(Reason::passes_by_itself) {
            continue;
        }
        happened.push(Happening {
            regarding: about.clone(),
            warning: true,
            reason: entry.reason.clone(),
            note: format!("{} {}: {}", entry.kind, entry.name, entry.message),
            action: "Judge",
        });
    }
    for wanted in &status.conditions {
        let before = held.conditions.iter().find(|it| it.type_ == wanted.type_);
        let was = before.is_some_and(|it| it.status == "True");
        let turned = before.is_some_and(|it| it.status != wanted.status)
            || (before.is_none() && wanted.status == "True");
        let failed =
            before.is_none() && wanted.status == "False" && ObjectCondition::Accepted.is(wanted);
        if ObjectCondition::Converged.is(wanted) || !(turned || failed) {
            continue;
        }
        happened.push(Happening {
            regarding: about.clone(),
            warning: was || failed,
            reason: if wanted.status == "True" {
                wanted.type_.clone()
            } else {
                wanted.reason.clone()
            },
            note: clipped(wanted.message.clone(), 1000),
            action: "Judge",
        });
    }
}

fn of_site(object: &Site, status: &SiteStatus, happened: &mut Vec<Happening>) {
    let held = object.status.as_ref().map(|held| &held.gateways[..]);
    let held = held.unwrap_or_default();
    for gateway in status.gateways.iter().filter(|it| !held.contains(it)) {
        happened.push(Happening {
            regarding: object.object_ref(&()),
            warning: false,
            reason: Occurrence::GatewayElected.to_string(),
            note: format!(
                "Node {} is gateway {} of site {}",
                gateway.node,
                gateway.rank,
                object.name_any()
            ),
            action: "Elect",
        });
    }
}

/// That a ledger takes no new grants from now on.
fn frozen(object: &AddressLedger, status: &AddressLedgerStatus) -> Option<Happening> {
    let frozen = |status: &AddressLedgerStatus| {
        let frozen = ObjectCondition::Frozen.of(&status.conditions);
        frozen.filter(|it| it.status == "True").cloned()
    };
    if object.status.as_ref().and_then(frozen).is_some() {
        return None;
    }
    Some(Happening {
        regarding: object.object_ref(&()),
        warning: true,
        reason: Standing::RevisionBehind.to_string(),
        note: clipped(frozen(status)?.message, 1000),
        action: "Freeze",
    })
}
