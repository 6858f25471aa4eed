//! What is newly cut: blocks of clusters, and nodes' pod ranges and mesh addresses.

use super::book::Ask;
use super::hub::{Hub, Lengths};
use super::members::Members;
use super::report::{Reporter, listed};
use super::work::{Assign, ClusterWork};
use crate::cidr::{Family, Prefix};
use crate::fleet::Fleet;
use crate::ids::LinkName;
use crate::ledger::Use;
use std::collections::{BTreeMap, BTreeSet};

/// Gives every cluster that assigns its first block in each family, before anyone gets a second one.
pub(super) fn take_blocks<'a>(
    work: &mut ClusterWork<'a>,
    hub: &mut Hub<'a>,
    report: &mut Reporter,
) {
    let families = &mut work.families;
    if work.assign == Assign::Yes {
        let own_ranges = !work.cluster.pod_cidrs.is_empty();
        for family in Family::BOTH {
            let in_family = |prefix: &Prefix| prefix.family() == family;
            let has_block = hub.blocks(work.name).iter().any(in_family);
            let has_pool = !own_ranges && hub.pools(work.link, Use::Pod).iter().any(in_family);
            if has_block || has_pool {
                families.push(family);
            }
            let len = Lengths::of(work.addressing, Use::Pod, family).block;
            if has_pool
                && !has_block
                && hub
                    .grab(work.link, work.name, Use::Pod, family, len)
                    .is_none()
            {
                let why = hub.exhausted(work.link, Use::Pod, family, len);
                report.refuse(
                    "Cluster",
                    work.name.as_str(),
                    Some(work.link),
                    "PoolExhausted",
                    format!(
                        "Cluster {} needs one more {family} block, a /{len}, but {why}",
                        work.name
                    ),
                );
            }
        }
        if families.is_empty() {
            report.refuse(
                "Cluster",
                work.name.as_str(),
                Some(work.link),
                "NoPool",
                format!(
                    "pods.assign is true, but there is nothing to assign from: set addressing.podPools of ClusterLink {}, or pods.cidrs of Cluster {}",
                    work.link, work.name
                ),
            );
        }
    }
}

/// Gives nodes without podCIDR a range, or says why they have none.
pub(super) fn assign_pods<'a>(
    work: &mut ClusterWork<'a>,
    hub: &mut Hub<'a>,
    members: &Members<'a>,
    report: &mut Reporter,
) {
    let families = work.families.clone();
    let mut asks = Vec::new();
    for (at, node) in work.nodes.iter().enumerate() {
        let (Some(site), true, true) = (node.site, node.planned, node.node.pod_cidrs.is_empty())
        else {
            continue;
        };
        for &family in &families {
            if !node.has(Use::Pod, family) {
                let lengths = Lengths::of(work.addressing, Use::Pod, family);
                asks.push((
                    at,
                    Ask {
                        node: &node.id.node,
                        site,
                        used_for: Use::Pod,
                        family,
                        lengths,
                    },
                ));
            }
        }
    }
    serve(work, asks, hub, members);
    for node in &mut work.nodes {
        if !node.planned || !node.node.pod_cidrs.is_empty() {
            continue;
        }
        let complete =
            !families.is_empty() && families.iter().all(|family| node.has(Use::Pod, *family));
        node.assign = work.assign == Assign::Yes && complete;
        node.planned = node.assign;
        let message = match work.assign {
            Assign::No => format!(
                "node {} of Cluster {} has no podCIDR: set pods.assign: true, so that Tieline assigns one, or let kube-controller-manager do it (--allocate-node-cidrs)",
                node.id.node, work.name
            ),
            Assign::Refused => format!(
                "node {} of Cluster {} has no podCIDR, and none is assigned while somebody else gives podCIDRs in this cluster",
                node.id.node, work.name
            ),
            Assign::Yes if complete => continue,
            Assign::Yes => format!(
                "node {} of Cluster {} has no podCIDR, and there is no range left to assign",
                node.id.node, work.name
            ),
        };
        report.wait(
            "Node",
            node.id.node.as_str(),
            Some(work.link),
            "NoPodCidr",
            message,
        );
    }
}

/// Families in which a link's nodes have mesh addresses.
pub(super) fn mesh_families<'a>(
    fleet: &'a Fleet,
    members: &Members<'a>,
    hub: &Hub<'a>,
) -> BTreeMap<&'a LinkName, Vec<Family>> {
    members
        .links
        .iter()
        .map(|link| {
            let addressing = &fleet.links[*link].addressing;
            let mut seen: BTreeSet<Family> = addressing
                .pod_pools
                .iter()
                .chain(&addressing.mesh_pools)
                .map(|prefix| prefix.family())
                .collect();
            for cluster in members.clusters_of(link) {
                seen.extend(
                    hub.held(cluster, Use::Pod)
                        .iter()
                        .map(|prefix| prefix.family()),
                );
            }
            (*link, seen.into_iter().collect())
        })
        .collect()
}

pub(super) fn give_mesh_addresses<'a>(
    work: &mut ClusterWork<'a>,
    families: &BTreeMap<&'a LinkName, Vec<Family>>,
    hub: &mut Hub<'a>,
    members: &Members<'a>,
) {
    let families = families.get(work.link).map_or(&[][..], Vec::as_slice);
    let mut asks = Vec::new();
    for (at, node) in work.nodes.iter().enumerate() {
        let (Some(site), true) = (node.site, node.planned) else {
            continue;
        };
        for &family in families {
            if !node.has(Use::Mesh, family) {
                let lengths = Lengths::of(work.addressing, Use::Mesh, family);
                asks.push((
                    at,
                    Ask {
                        node: &node.id.node,
                        site,
                        used_for: Use::Mesh,
                        family,
                        lengths,
                    },
                ));
            }
        }
    }
    serve(work, asks, hub, members);
    for node in work.nodes.iter_mut().filter(|node| node.planned) {
        node.planned = families.iter().all(|family| node.has(Use::Mesh, *family));
    }
}

/// Serves those who return first, so that nobody gets what they had.
fn serve<'a>(
    work: &mut ClusterWork<'a>,
    asks: Vec<(usize, Ask<'a>)>,
    hub: &mut Hub<'a>,
    members: &Members<'a>,
) {
    let mut new = Vec::new();
    for (at, ask) in asks {
        match work.book.bring_back(ask) {
            Some(prefix) => work.nodes[at].shares(ask.used_for).push(prefix),
            None => new.push((at, ask)),
        }
    }
    for (at, ask) in new {
        match work.book.cut(ask, hub, members) {
            Some(prefix) => work.nodes[at].shares(ask.used_for).push(prefix),
            None => work
                .missing
                .entry((ask.used_for, ask.family))
                .or_default()
                .push(ask.node),
        }
    }
}

pub(super) fn report_missing<'a>(
    work: &mut ClusterWork<'a>,
    hub: &mut Hub<'a>,
    report: &mut Reporter,
) {
    for ((used_for, family), nodes) in std::mem::take(&mut work.missing) {
        let has_block = used_for == Use::Mesh
            || hub
                .blocks(work.name)
                .iter()
                .any(|block| block.family() == family);
        if !has_block {
            continue; // the missing block is reported already
        }
        let lengths = Lengths::of(work.addressing, used_for, family);
        let what = if used_for == Use::Pod {
            "pods"
        } else {
            "the mesh"
        };
        let why = hub.exhausted(work.link, used_for, family, lengths.block);
        report.refuse(
            "Cluster",
            work.name.as_str(),
            Some(work.link),
            "PoolExhausted",
            format!(
                "{} node(s) of Cluster {} have no {family} range for {what}, a /{} each: {}. The cluster's blocks are full, and {why}",
                nodes.len(),
                work.name,
                lengths.node,
                listed(nodes)
            ),
        );
    }
}
