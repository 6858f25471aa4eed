//! What people read: the status of every object, the label on what is in use, and Events. Pure.
//!
//! Conditions are few, their messages sorted and without times, so that nothing is written when nothing happened. A
//! transition time is kept while the condition's status stays.

mod cluster;
mod due;
mod entries;
mod events;
mod hold;
mod judged;
mod judgement;
mod lacking;
mod ledger;
mod link;
mod ranges;
mod readiness;
mod site;
mod vpn;

pub use due::Due;
pub use entries::Entries;
pub use events::{Happening, done, happenings};
pub use hold::Hold;
pub use judged::Judged;
pub use readiness::{GatewayState, Readiness, paths_of};

use crate::write::{IN_USE, differs};
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use std::sync::Arc;
use tieline_crds::{
    AddressLedger, AddressLedgerStatus, Cluster, ClusterLink, ClusterLinkStatus, ClusterStatus,
    NetworkPlan, NetworkPlanStatus, Site, SiteStatus, VpnAttachment, VpnAttachmentStatus,
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

#[cfg(test)]
mod tests;
