//! Nodes: what each is told fits the ledgers, the plan and its Node object.

use super::{Case, is_live};
use crate::cidr::{Family, Prefix};
use crate::ids::NodeId;
use crate::ledger::{LedgerName, Owner, Use};
use crate::plan::NodePlan;
use std::collections::{BTreeMap, BTreeSet};

/// What one node holds: pod ranges and mesh addresses.
type Shares = (Vec<Prefix>, Vec<Prefix>);

pub(super) fn check(case: &mut Case<'_>) {
    let proposal = case.proposal;
    let mut shares: BTreeMap<(&str, &str), Shares> = BTreeMap::new();
    for (name, ledger) in &proposal.ledgers {
        let LedgerName::Cluster(cluster) = name else {
            continue;
        };
        for grant in ledger.grants.iter().filter(|grant| is_live(grant)) {
            if let Owner::Node(node) = &grant.owner {
                let (pods, mesh) = shares.entry((cluster.as_str(), node.as_str())).or_default();
                if grant.used_for == Use::Pod {
                    pods
                } else {
                    mesh
                }
                .push(grant.prefix);
            }
        }
    }
    let mut peers = BTreeSet::new();
    for (id, node) in &proposal.nodes {
        if !peers.insert(&node.peer) || id.peer().as_ref() != Ok(&node.peer) {
            case.find(format!(
                "node {id}: its peer {} is another node's",
                node.peer
            ));
        }
        let held = shares.get(&(id.cluster.as_str(), id.node.as_str()));
        holds(case, id, node, held);
        stands(case, id, node);
        if case.is_applied(&node.link) {
            observed(case, id, node);
        }
    }
}

fn holds(case: &mut Case<'_>, id: &NodeId, node: &NodePlan, held: Option<&Shares>) {
    let nothing = (Vec::new(), Vec::new());
    let (pods, mesh) = held.unwrap_or(&nothing);
    let same = |a: &[Prefix], b: &[Prefix]| {
        a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>() && a.len() == b.len()
    };
    if !same(pods, &node.pod_cidrs) {
        case.find(format!(
            "node {id} has pod ranges {:?}, its ledger {pods:?}",
            node.pod_cidrs
        ));
    }
    let addresses: Vec<Prefix> = node
        .mesh_addresses
        .iter()
        .map(|address| Prefix::host(*address))
        .collect();
    if !same(mesh, &addresses) {
        case.find(format!(
            "node {id} has mesh addresses {:?}, its ledger {mesh:?}",
            node.mesh_addresses
        ));
    }
    let families: BTreeSet<Family> = node
        .mesh_addresses
        .iter()
        .map(|address| Family::of(*address))
        .collect();
    if families.len() != node.mesh_addresses.len() || families.is_empty() {
        case.find(format!(
            "node {id} has {} mesh addresses: one of each family is wanted",
            node.mesh_addresses.len()
        ));
    }
}

fn stands(case: &mut Case<'_>, id: &NodeId, node: &NodePlan) {
    let Some(plan) = case.proposal.plans.get(&node.link) else {
        case.find(format!(
            "node {id} is in ClusterLink {}, which has no plan",
            node.link
        ));
        return;
    };
    let segment = plan
        .segments
        .binary_search_by(|segment| segment.name.cmp(&node.segment))
        .ok()
        .map(|at| &plan.segments[at]);
    let Some(segment) = segment.filter(|segment| {
        segment.site == node.site && segment.cluster.as_ref() == Some(&id.cluster)
    }) else {
        case.find(format!(
            "node {id} is in segment {}, which is not one of Cluster {} in Site {}",
            node.segment, id.cluster, node.site
        ));
        return;
    };
    let rank = segment
        .gateways
        .iter()
        .find(|gateway| gateway.peer == node.peer)
        .map(|gateway| gateway.rank);
    if rank != node.gateway_rank {
        case.find(format!(
            "node {id} has gateway rank {:?}, its segment says {rank:?}",
            node.gateway_rank
        ));
    }
}

fn observed(case: &mut Case<'_>, id: &NodeId, node: &NodePlan) {
    let Some(object) = case.fleet.nodes.get(id) else {
        case.find(format!("node {id} is planned, but does not exist"));
        return;
    };
    let seen: BTreeSet<&Prefix> = object.pod_cidrs.iter().collect();
    let told: BTreeSet<&Prefix> = node.pod_cidrs.iter().collect();
    if !seen.is_empty() && seen != told {
        case.find(format!(
            "node {id} has podCIDRs {seen:?}, but {told:?} are planned for it"
        ));
    }
    let assigns = case
        .fleet
        .clusters
        .get(&id.cluster)
        .is_some_and(|cluster| cluster.assign);
    if seen.is_empty() && (node.assign != node.pod_cidrs || node.assign.is_empty() || !assigns) {
        case.find(format!(
            "node {id} has no podCIDR, and {:?} is to be written",
            node.assign
        ));
    }
    if !seen.is_empty() && !node.assign.is_empty() {
        case.find(format!(
            "node {id} has podCIDRs already, and {:?} is to be written",
            node.assign
        ));
    }
}
