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
use kube::core::object::HasStatus;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use std::sync::Arc;
use tieline_crds::{
    AddressLedger, AddressLedgerStatus, Cluster, ClusterLink, ClusterLinkStatus, ClusterStatus,
    NetworkPlan, NetworkPlanStatus, Site, SiteStatus, VpnAttachment, VpnAttachmentStatus,
};

/// An object of a kind and the status that it is to have, or whether the label on it says that a link uses it.
#[derive(Debug, Clone, PartialEq)]
pub enum Announcement {
    /// A ClusterLink's status.
    Link(Arc<ClusterLink>, ClusterLinkStatus),
    /// A Cluster's status.
    Cluster(Arc<Cluster>, ClusterStatus),
    /// A Site's status.
    Site(Arc<Site>, SiteStatus),
    /// A VpnAttachment's status.
    Vpn(Arc<VpnAttachment>, VpnAttachmentStatus),
    /// An AddressLedger's status.
    Ledger(Arc<AddressLedger>, AddressLedgerStatus),
    /// A NetworkPlan's status.
    Plan(Arc<NetworkPlan>, NetworkPlanStatus),
    /// A Cluster's label.
    ClusterInUse(Arc<Cluster>, bool),
    /// A Site's label.
    SiteInUse(Arc<Site>, bool),
    /// A VpnAttachment's label.
    VpnInUse(Arc<VpnAttachment>, bool),
}

/// What is due and differs from what is there. Labels come first: they keep an object from being deleted. `now` becomes the transition
/// time of what changes.
#[must_use]
pub fn announcements(from: &Judged<'_>, due: &Due, now: Timestamp) -> Vec<Announcement> {
    use Announcement as It;
    let (index, uses) = (from.index, &from.decided.uses);
    let (mut labels, mut statuses) = (Vec::new(), Vec::new());
    for object in due.links.iter().filter_map(|it| index.links.get(it)) {
        let status = link::status(object, from, now);
        statuses.extend(changed(object, status, It::Link));
    }
    for object in due.clusters.iter().filter_map(|it| index.clusters.get(it)) {
        let status = cluster::status(object, from, now);
        statuses.extend(changed(object, status, It::Cluster));
        let used = uses.uses_cluster(&object.name_any());
        labels.extend(relabelled(object, used, It::ClusterInUse));
    }
    for object in due.sites.iter().filter_map(|it| index.sites.get(it)) {
        let used: Vec<&String> = uses.of_site(&object.name_any()).collect();
        labels.extend(relabelled(object, !used.is_empty(), It::SiteInUse));
        let status = site::status(object, from, &used, now);
        statuses.extend(changed(object, status, It::Site));
    }
    for object in due.vpns.iter().filter_map(|it| index.vpns.get(it)) {
        let status = vpn::status(object, from, now);
        statuses.extend(changed(object, status, It::Vpn));
        let used = uses.uses_vpn(&object.name_any());
        labels.extend(relabelled(object, used, It::VpnInUse));
    }
    // A slice is part of its ledger, whose head has the status.
    let heads = due.ledgers.iter().filter(|name| !name.contains('.'));
    for object in heads.filter_map(|it| index.ledgers.get(it)) {
        let status = ledger::status(object, from.decided, now);
        statuses.extend(changed(object, status, It::Ledger));
    }
    for object in due.plans.iter().filter_map(|it| index.plans.get(it)) {
        let status = link::plan_status(object, from.members);
        statuses.extend(changed(object, status, It::Plan));
    }
    labels.append(&mut statuses);
    labels
}

fn changed<K: HasStatus>(
    object: &Arc<K>,
    wanted: K::Status,
    announcement: fn(Arc<K>, K::Status) -> Announcement,
) -> Option<Announcement>
where
    K::Status: Serialize + PartialEq,
{
    let held = object.status();
    let changed = held != Some(&wanted) && differs(&wanted, held);
    changed.then(|| announcement(object.clone(), wanted))
}

fn relabelled<K: Resource>(
    object: &Arc<K>,
    used: bool,
    announcement: fn(Arc<K>, bool) -> Announcement,
) -> Option<Announcement> {
    let label = object.labels().get(IN_USE);
    let labelled = label.is_some_and(|value| value == "true");
    (used != labelled).then(|| announcement(object.clone(), used))
}

#[cfg(test)]
mod tests;
