//! What people read: the status of every object, the label on what is in use, and Events. Pure.
//!
//! Conditions are few, their messages sorted and without times, so that nothing is written when nothing happened. A
//! transition time is kept while the condition's status stays.

mod cluster;
mod due;
mod entries;
mod events;
mod hold;
mod ledger;
mod link;
mod members;
mod ranges;
mod site;
mod vpn;

pub use due::Due;
pub use entries::Entries;
pub use events::{Happening, done, happenings};
pub use hold::Hold;
pub use members::{GatewayState, Members, paths_of};

use crate::decided::{Decided, Refused};
use crate::index::Index;
use crate::write::{IN_USE, differs};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use std::sync::Arc;
use tieline_crds::{
    AddressLedger, AddressLedgerStatus, Cluster, ClusterLink, ClusterLinkStatus, ClusterStatus,
    Condition, NetworkPlan, NetworkPlanStatus, Site, SiteStatus, VpnAttachment,
    VpnAttachmentStatus,
};

/// Every status and label that has to be written, because it differs from what is there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// ClusterLinks.
    pub links: Vec<(Arc<ClusterLink>, ClusterLinkStatus)>,
    /// Clusters.
    pub clusters: Vec<(Arc<Cluster>, ClusterStatus)>,
    /// Sites.
    pub sites: Vec<(Arc<Site>, SiteStatus)>,
    /// VpnAttachments.
    pub vpns: Vec<(Arc<VpnAttachment>, VpnAttachmentStatus)>,
    /// AddressLedgers.
    pub ledgers: Vec<(Arc<AddressLedger>, AddressLedgerStatus)>,
    /// NetworkPlans.
    pub plans: Vec<(Arc<NetworkPlan>, NetworkPlanStatus)>,
    /// Clusters whose label has to be set or removed.
    pub clusters_in_use: Vec<(Arc<Cluster>, bool)>,
    /// Sites likewise.
    pub sites_in_use: Vec<(Arc<Site>, bool)>,
    /// VpnAttachments likewise.
    pub vpns_in_use: Vec<(Arc<VpnAttachment>, bool)>,
}

/// What statuses are judged from.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// The objects.
    pub index: &'a Index,
    /// What was decided on them.
    pub decided: &'a Decided,
    /// Which members are ready.
    pub members: &'a Members,
    /// What the API server refused.
    pub refused: &'a Refused,
}

impl Changes {
    /// Whether nothing has to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What has to be written of what is due. `now` becomes the transition time of what changes.
#[must_use]
pub fn changes(from: &Judged<'_>, due: &Due, now: Timestamp) -> Changes {
    let index = from.index;
    let mut changes = Changes::default();
    for object in due.links.iter().filter_map(|it| index.links.get(it)) {
        let status = link::status(object, from, now);
        keep_changed(&mut changes.links, object, object.status.as_ref(), status);
    }
    for object in due.clusters.iter().filter_map(|it| index.clusters.get(it)) {
        let status = cluster::status(object, from, now);
        keep_changed(
            &mut changes.clusters,
            object,
            object.status.as_ref(),
            status,
        );
        let used = from.decided.uses.uses_cluster(&object.name_any());
        keep_label(&mut changes.clusters_in_use, object, used);
    }
    for object in due.sites.iter().filter_map(|it| index.sites.get(it)) {
        let used: Vec<&String> = from.decided.uses.of_site(&object.name_any()).collect();
        keep_label(&mut changes.sites_in_use, object, !used.is_empty());
        let status = site::status(object, from, &used, now);
        keep_changed(&mut changes.sites, object, object.status.as_ref(), status);
    }
    for object in due.vpns.iter().filter_map(|it| index.vpns.get(it)) {
        let status = vpn::status(object, from, now);
        keep_changed(&mut changes.vpns, object, object.status.as_ref(), status);
        let used = from.decided.uses.uses_vpn(&object.name_any());
        keep_label(&mut changes.vpns_in_use, object, used);
    }
    // A slice is part of its ledger, whose head has the status.
    let heads = due.ledgers.iter().filter(|name| !name.contains('.'));
    for object in heads.filter_map(|it| index.ledgers.get(it)) {
        let status = ledger::status(object, from.decided, now);
        keep_changed(&mut changes.ledgers, object, object.status.as_ref(), status);
    }
    for object in due.plans.iter().filter_map(|it| index.plans.get(it)) {
        let status = link::plan_status(object, from.members);
        keep_changed(&mut changes.plans, object, object.status.as_ref(), status);
    }
    changes
}

fn keep_changed<K, S: Serialize + PartialEq>(
    into: &mut Vec<(Arc<K>, S)>,
    object: &Arc<K>,
    held: Option<&S>,
    wanted: S,
) {
    if held != Some(&wanted) && differs(&wanted, held) {
        into.push((object.clone(), wanted));
    }
}

fn keep_label<K: Resource>(into: &mut Vec<(Arc<K>, bool)>, object: &Arc<K>, used: bool) {
    let labelled = object
        .labels()
        .get(IN_USE)
        .is_some_and(|value| value == "true");
    if used != labelled {
        into.push((object.clone(), used));
    }
}

/// One condition before it has a time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Judgement {
    kind: &'static str,
    holds: Option<bool>,
    reason: String,
    message: String,
}

impl Judgement {
    fn new(
        kind: &'static str,
        holds: bool,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            holds: Some(holds),
            reason: reason.into(),
            message: message.into(),
        }
    }

    fn unknown(kind: &'static str, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            holds: None,
            reason: reason.into(),
            message: message.into(),
        }
    }

    fn holds(&self) -> bool {
        self.holds == Some(true)
    }
}

/// Conditions of an object: the time of one that keeps its status is kept.
fn conditions(
    held: &[Condition],
    judgements: Vec<Judgement>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    judgements
        .into_iter()
        .map(|judgement| {
            let status = match judgement.holds {
                Some(true) => "True",
                Some(false) => "False",
                None => "Unknown",
            };
            let before = held
                .iter()
                .find(|it| it.type_ == judgement.kind && it.status == status);
            Condition {
                type_: judgement.kind.to_owned(),
                status: status.to_owned(),
                reason: judgement.reason,
                message: clipped(judgement.message, 32_000),
                observed_generation: generation,
                // The API keeps whole seconds: more would look like a change at every pass.
                last_transition_time: before.map_or_else(
                    || Time(whole_seconds(now)),
                    |it| it.last_transition_time.clone(),
                ),
            }
        })
        .collect()
}

fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// A number as statuses hold it.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A text of at most `limit` bytes.
fn clipped(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let mut end = limit - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Accepted, for an object that is or is not readable.
fn accepted(kind: &'static str, name: &str, decided: &Decided) -> Judgement {
    if let Some(invalid) = decided.objections.invalid(kind, name) {
        let message = format!("{}: {}", invalid.field, invalid.message);
        return Judgement::new("Accepted", false, "Invalid", message);
    }
    let refusals = decided.objections.refusals(kind, name);
    match refusals.first() {
        None => Judgement::new("Accepted", true, "Accepted", "nothing to object to"),
        Some(first) => {
            let mut messages: Vec<&str> = refusals.iter().map(|it| it.message.as_str()).collect();
            messages.sort_unstable();
            Judgement::new("Accepted", false, first.reason.clone(), messages.join("; "))
        }
    }
}

#[cfg(test)]
mod tests;
