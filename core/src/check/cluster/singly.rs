//! Nodes that came, left or changed in a cluster of which everything else was proved before and is the same.
//!
//! It looks itself for what is not the same, and knows only the plain case: grants that were cut for newcomers out of chunks of
//! their site, and grants that are released because their node is gone. Whatever else it meets it leaves to the proof of the whole cluster,
//! which then says what is wrong.

use super::nodes;
use super::segments::{chosen, own_segments};
use super::view::{Cluster, Share};
use crate::check::case::{Case, is_live};
use crate::differences::differences;
use crate::ids::{ClusterName, NodeId, NodeName};
use crate::ledger::{Grant, Ledger, LedgerName, Owner, State};
use crate::network_plan::NetworkPlan;
use std::collections::BTreeSet;

/// Whether it could be proved by a look at these nodes; false: the whole cluster has to be.
pub(in crate::check) fn check(
    case: &mut Case<'_>,
    name: &ClusterName,
    nodes: &BTreeSet<&NodeId>,
) -> bool {
    let (fleet, proposal) = (case.fleet, case.proposal);
    let key = LedgerName::Cluster(name.clone());
    let (Some(old), Some(new)) = (case.old(&key), proposal.ledgers.get(&key)) else {
        return false;
    };
    let link = case.links.get(name).copied();
    let Some(plan) = link.and_then(|link| proposal.plans.get(link)) else {
        return false;
    };
    if !std::ptr::eq(old, &**new) && !follows(case, name, old, new, nodes) {
        return false;
    }
    let own: BTreeSet<&NodeName> = nodes.iter().map(|id| &id.node).collect();
    let mut shares: Vec<Share<'_>> = Vec::new();
    for grant in new.grants.iter().filter(|grant| is_live(grant)) {
        if let Owner::Node(node) = &grant.owner
            && own.contains(node)
        {
            shares.push(Share {
                node,
                used_for: grant.used_for,
                prefix: grant.prefix,
                state: grant.state,
            });
        }
    }
    shares.sort_unstable();
    let cluster = Cluster {
        name,
        link,
        blocks: Vec::new(),
        ledger: Some((&key, new)),
        nodes: nodes
            .iter()
            .filter_map(|id| proposal.nodes.get_key_value(*id))
            .collect(),
        objects: nodes
            .iter()
            .filter_map(|id| fleet.nodes.get_key_value(*id))
            .collect(),
        shares,
    };
    // Everybody who holds something is planned, and has it in a chunk of its site.
    let at_home = cluster.shares.iter().all(|share| {
        let own = cluster
            .nodes
            .binary_search_by(|(id, _)| id.node.cmp(share.node));
        own.is_ok_and(|at| {
            let plan = cluster.nodes[at].1;
            let mut above = above(new, share);
            let mut chunks = 0;
            above.all(|grant| match &grant.owner {
                Owner::Site(site) => {
                    chunks += 1;
                    *site == plan.site && grant.used_for == share.used_for && is_live(grant)
                }
                _ => false,
            }) && chunks > 0
        })
    });
    if !at_home || !seats_stand(case, name, plan) {
        return false;
    }
    nodes::check(case, &cluster);
    true
}

/// Whether a ledger follows from another by nothing but newcomers' grants and released ones of nodes that are gone.
fn follows(
    case: &Case<'_>,
    name: &ClusterName,
    old: &Ledger,
    new: &Ledger,
    nodes: &BTreeSet<&NodeId>,
) -> bool {
    let rises =
        old.lineage == new.lineage && old.parents == new.parents && new.revision > old.revision;
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    // A ledger that somebody sorted by hand differs nearly everywhere.
    let most = 16 * nodes.len();
    let [before, now] = [old, new].map(|ledger| ledger.grants.iter().map(|grant| (grant, ())));
    for (grant, was, _) in differences(before, now, |(), ()| true) {
        let side = if was.is_some() { &mut gone } else { &mut come };
        side.push(grant);
        if gone.len() + come.len() > most {
            return false;
        }
    }
    let id_of = |node: &NodeName| NodeId {
        cluster: name.clone(),
        node: node.clone(),
    };
    let is_released = |it: &&Grant| {
        let was = Grant {
            state: State::Released,
            ..(**it).clone()
        };
        let is_gone = |node: &NodeName| {
            let id = id_of(node);
            !case.fleet.nodes.contains_key(&id) && !case.proposal.nodes.contains_key(&id)
        };
        come.binary_search(&&was).is_ok() && matches!(&it.owner, Owner::Node(node) if is_gone(node))
    };
    let is_cut = |it: &Grant| {
        let is_known = matches!(&it.owner, Owner::Node(node) if nodes.contains(&id_of(node)));
        it.state == State::Active && is_known && is_alone(new, it)
    };
    let was_live = |it: &Grant| {
        // In order of prefix, use and owner before anything else.
        let place = |it: &Grant| (it.prefix, it.used_for, it.owner.clone());
        let was = || gone.binary_search_by(|was| place(was).cmp(&place(it)));
        it.state == State::Released && was().is_ok()
    };
    let is_sorted = new
        .grants
        .windows(2)
        .all(|pair| pair[0].prefix <= pair[1].prefix);
    rises
        && is_sorted
        && gone.iter().all(|it| is_live(it) && is_released(it))
        && come.iter().all(|it| was_live(it) || is_cut(it))
}

/// Whether nothing lies in a grant, and nobody else has its prefix.
fn is_alone(ledger: &Ledger, grant: &Grant) -> bool {
    let from = ledger.grants.partition_point(|it| it.prefix < grant.prefix);
    let mut inside = ledger.grants[from..].iter();
    let mut inside = inside
        .by_ref()
        .take_while(|it| grant.prefix.contains(it.prefix));
    inside.all(|it| it == grant)
}

/// Everything around a share, but for the share itself.
fn above<'l>(ledger: &'l Ledger, share: &Share<'_>) -> impl Iterator<Item = &'l Grant> {
    let prefix = share.prefix;
    let node = share.node.clone();
    let around = std::iter::successors(Some(prefix), |inner| inner.parent());
    around
        .flat_map(|outer| {
            let from = ledger.grants.partition_point(|it| it.prefix < outer);
            let same = ledger.grants[from..].iter();
            same.take_while(move |it| it.prefix == outer)
        })
        .filter(move |it| it.prefix != prefix || it.owner != Owner::Node(node.clone()))
}

/// Whether every segment's gateways are nodes of it that the cluster's selector selects: so each has a node.
fn seats_stand(case: &Case<'_>, name: &ClusterName, plan: &NetworkPlan) -> bool {
    let Some(cluster) = case.fleet.clusters.get(name) else {
        return false;
    };
    let mut segments = own_segments(plan, name);
    segments.all(|segment| {
        let mut gateways = segment.gateways.iter();
        !segment.gateways.is_empty()
            && gateways.all(|gateway| {
                let node = gateway.peer.as_str().split_once('.');
                let node = node.and_then(|(_, node)| NodeName::new(node).ok());
                let id = node.map(|node| NodeId {
                    cluster: name.clone(),
                    node,
                });
                id.is_some_and(|id| {
                    let planned = case.proposal.nodes.get(&id);
                    let object = case.fleet.nodes.get(&id);
                    planned.is_some_and(|it| {
                        it.segment == segment.name && it.gateway_rank == Some(gateway.rank)
                    }) && object.is_some_and(|it| chosen(&cluster.gateway_selector, &it.labels))
                })
            })
    })
}
