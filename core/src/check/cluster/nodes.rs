//! Nodes: what each is told fits the ledgers, the plan and its Node object.

use super::view::{Cluster, Share};
use crate::check::case::Case;
use crate::check::invariant::Invariant;
use crate::cidr::{Family, Prefix};
use crate::fleet::Node;
use crate::ids::NodeId;
use crate::ledger::Use;
use crate::network_plan::{NetworkPlan, Segment};
use crate::plan::NodePlan;
use smallvec::SmallVec;
use std::collections::BTreeSet;

/// Proves it of one cluster's nodes.
pub(super) fn check(case: &mut Case<'_>, cluster: &Cluster<'_>) {
    let mut objects = cluster.objects.iter().peekable();
    // Nodes that follow each other are often of one link and segment.
    let mut plan: Option<&NetworkPlan> = None;
    let mut segment: Option<&Segment> = None;
    for (id, node, held) in cluster.held() {
        // Names of clusters have no dot, so no other node is called like this.
        if !id.is_called(&node.peer) {
            case.find(
                Invariant::OwnPeer,
                format!("node {id}: its peer {} is another node's", node.peer),
            );
        }
        holds(case, id, node, held);
        if plan.is_none_or(|plan| plan.link != node.link) {
            plan = case.proposal.plans.get(&node.link);
            segment = None;
        }
        if segment.is_none_or(|segment| segment.name != node.segment) {
            segment = plan.and_then(|plan| plan.segment(&node.segment));
        }
        stands(case, id, node, plan, segment);
        if case.is_applied(&node.link) {
            while objects.next_if(|(other, _)| *other < id).is_some() {}
            let object = objects.peek().filter(|(other, _)| *other == id);
            observed(case, id, node, object.map(|(_, object)| *object));
        }
    }
}

/// What it is told is what its ledger grants.
fn holds(case: &mut Case<'_>, id: &NodeId, node: &NodePlan, held: &[Share<'_>]) {
    // Both in order of use and prefix.
    let mesh_from = held.partition_point(|share| share.used_for == Use::Pod);
    let (pods, mesh) = held.split_at(mesh_from);
    let same = |held: &[Share<'_>], mut told: SmallVec<[Prefix; 4]>| {
        told.sort_unstable();
        held.iter().map(|share| share.prefix).eq(told)
    };
    if !same(pods, SmallVec::from_slice(&node.pod_cidrs)) {
        case.find(
            Invariant::PodsAsGranted,
            format!(
                "node {id} has pod ranges {:?}, its ledger {pods:?}",
                node.pod_cidrs
            ),
        );
    }
    let addresses = node.mesh_addresses.iter();
    if !same(
        mesh,
        addresses.map(|address| Prefix::host(*address)).collect(),
    ) {
        case.find(
            Invariant::MeshAsGranted,
            format!(
                "node {id} has mesh addresses {:?}, its ledger {mesh:?}",
                node.mesh_addresses
            ),
        );
    }
    let of = |family: Family| {
        let addresses = node.mesh_addresses.iter();
        addresses
            .filter(move |address| Family::of(**address) == family)
            .count()
    };
    let [v4, v6] = Family::BOTH.map(of);
    if v4 > 1 || v6 > 1 || v4 + v6 == 0 {
        case.find(
            Invariant::OneMeshAddressEach,
            format!(
                "node {id} has {} mesh addresses: one of each family is wanted",
                node.mesh_addresses.len()
            ),
        );
    }
}

/// Its segment is one of its cluster, and has it as it says.
fn stands(
    case: &mut Case<'_>,
    id: &NodeId,
    node: &NodePlan,
    plan: Option<&NetworkPlan>,
    segment: Option<&Segment>,
) {
    if plan.is_none() {
        case.find(
            Invariant::LinkHasPlan,
            format!(
                "node {id} is in ClusterLink {}, which has no plan",
                node.link
            ),
        );
        return;
    }
    let Some(segment) = segment.filter(|segment| {
        segment.site == node.site && segment.cluster.as_ref() == Some(&id.cluster)
    }) else {
        case.find(
            Invariant::InOwnSegment,
            format!(
                "node {id} is in segment {}, which is not one of Cluster {} in Site {}",
                node.segment, id.cluster, node.site
            ),
        );
        return;
    };
    let rank = segment
        .gateways
        .iter()
        .find(|gateway| gateway.peer == node.peer)
        .map(|gateway| gateway.rank);
    if rank != node.gateway_rank {
        case.find(
            Invariant::RankAsInSegment,
            format!(
                "node {id} has gateway rank {:?}, its segment says {rank:?}",
                node.gateway_rank
            ),
        );
    }
}

/// What it is told fits its Node object.
fn observed(case: &mut Case<'_>, id: &NodeId, node: &NodePlan, object: Option<&Node>) {
    let Some(object) = object else {
        case.find(
            Invariant::NodeExists,
            format!("node {id} is planned, but does not exist"),
        );
        return;
    };
    let [seen, told] = [&object.pod_cidrs, &node.pod_cidrs];
    let same = || {
        let [seen, told] = [seen, told].map(|all| all.iter().collect::<BTreeSet<_>>());
        seen == told
    };
    if !seen.is_empty() && seen != told && !same() {
        case.find(
            Invariant::PodCidrsAsObserved,
            format!("node {id} has podCIDRs {seen:?}, but {told:?} are planned for it"),
        );
    }
    let assigns = case
        .fleet
        .clusters
        .get(&id.cluster)
        .is_some_and(|cluster| cluster.assign);
    if seen.is_empty() && !(node.assign && assigns && !told.is_empty()) {
        case.find(
            Invariant::AssignedOnce,
            format!("node {id} has no podCIDR, and {told:?} would not be written"),
        );
    }
    if !seen.is_empty() && node.assign {
        case.find(
            Invariant::AssignedOnce,
            format!("node {id} has podCIDRs already, and {told:?} would be written"),
        );
    }
}
