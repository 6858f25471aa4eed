//! What a cluster brings to the network: its segments with prefixes and gateways, and what each of its nodes is.

use super::book::Book;
use super::gateways::{Candidate, elect};
use super::node::{NodeWork, carries};
use crate::cidr::{Prefix, PrefixSet};
use crate::fleet::Granularity;
use crate::ids::{NodeId, SegmentName, SiteName};
use crate::ledger::Use;
use crate::network_plan::{Class, ClassPrefix, Gateway, NetworkPlan};
use crate::notice::{About, Reason};
use crate::peer::Scope;
use crate::plan::exchange::{SegmentOffer, Wish};
use crate::plan::proposal::NodePlan;
use crate::plan::report::{Reporter, listed};
use std::collections::BTreeMap;

/// Segments with pods, mesh addresses and gateways.
pub(super) fn segments(
    wish: &Wish<'_>,
    nodes: &[NodeWork<'_>],
    book: &Book<'_>,
    strays: &[(Prefix, bool)],
    old: Option<&NetworkPlan>,
    report: &mut Reporter,
) -> Vec<SegmentOffer> {
    let mut chunks = match wish.topology.granularity {
        Granularity::Site => site_chunks(book, strays),
        Granularity::Node => BTreeMap::new(),
    };
    let mut segments = Vec::new();
    for ((site, own), nodes) in members(wish, nodes) {
        let Some(name) = segment_name(wish, site, own) else {
            continue;
        };
        let mut prefixes = Vec::new();
        for (used_for, class) in [(Use::Pod, Class::Pod), (Use::Mesh, Class::Mesh)] {
            let shares = nodes.iter().flat_map(|node| node.shares(used_for)).copied();
            let set: PrefixSet = match wish.topology.granularity {
                Granularity::Node => shares.collect(),
                Granularity::Site => {
                    let own = chunks.remove(&(site, used_for)).unwrap_or_default();
                    let is_stray = |share: &Prefix| {
                        strays
                            .binary_search_by_key(share, |(stray, _)| *stray)
                            .is_ok()
                    };
                    own.into_iter().chain(shares.filter(is_stray)).collect()
                }
            };
            prefixes.extend(set.iter().map(|prefix| ClassPrefix { prefix, class }));
        }
        prefixes.sort_unstable();
        let sitting = old
            .and_then(|old| old.segment(&name))
            .map_or(&[][..], |old| &old.gateways);
        let elected = elected(wish, &name, &nodes, sitting, report);
        let mut gateways = Vec::with_capacity(elected.len());
        let mut underlay = Vec::new();
        for (rank, node) in elected {
            if let Ok(peer) = node.id.peer() {
                underlay.extend(node.node.addresses.iter().map(|(address, _)| *address));
                gateways.push(Gateway { rank, peer });
            }
        }
        underlay.sort_unstable();
        segments.push(SegmentOffer {
            name,
            site: site.clone(),
            prefixes,
            gateways,
            underlay,
        });
    }
    segments.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    segments
}

/// What each node that takes part is.
pub(super) fn nodes(
    wish: &Wish<'_>,
    nodes: &[NodeWork<'_>],
    segments: &[SegmentOffer],
    plans: &mut Vec<(NodeId, NodePlan)>,
) {
    let mut names: BTreeMap<(&SiteName, Option<&NodeId>), SegmentName> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.planned) {
        let (Some(site), Ok(peer)) = (&node.site, node.id.peer()) else {
            continue;
        };
        let key = (site, own(wish, node));
        let segment = match names.get(&key) {
            Some(name) => name.clone(),
            None => {
                let Some(name) = segment_name(wish, key.0, key.1) else {
                    continue;
                };
                names.insert(key, name.clone());
                name
            }
        };
        let offer = segments.binary_search_by(|offer| offer.name.cmp(&segment));
        let gateways = offer.map_or(&[][..], |at| &segments[at].gateways);
        let rank = gateways.iter().find(|gateway| gateway.peer == peer);
        let mut pod_cidrs = node.pods.to_vec();
        pod_cidrs.sort_unstable();
        let mut mesh = node.mesh.clone();
        mesh.sort_unstable();
        let mut addresses = node.node.addresses.clone();
        addresses.sort_unstable();
        let plan = NodePlan {
            link: wish.link.clone(),
            gateway_rank: rank.map(|gateway| gateway.rank),
            peer,
            site: site.clone(),
            segment,
            assign: node.assign,
            pod_cidrs,
            mesh_addresses: mesh.iter().map(|prefix| prefix.address()).collect(),
            addresses,
        };
        plans.push((node.id.clone(), plan));
    }
}

/// The node, where it is a segment of its own.
fn own<'a>(wish: &Wish<'_>, node: &NodeWork<'a>) -> Option<&'a NodeId> {
    (wish.topology.granularity == Granularity::Node).then_some(node.id)
}

/// `<cluster>.<site>`, or `<cluster>.<site>.<node>`.
fn segment_name(wish: &Wish<'_>, site: &SiteName, own: Option<&NodeId>) -> Option<SegmentName> {
    let (cluster, site) = (wish.name.as_str(), site.as_str());
    match own {
        None => SegmentName::joined(&[cluster, site]).ok(),
        Some(id) => SegmentName::joined(&[cluster, site, id.node.as_str()]).ok(),
    }
}

/// Nodes that take part, by segment.
fn members<'n, 'a>(
    wish: &Wish<'_>,
    nodes: &'n [NodeWork<'a>],
) -> BTreeMap<(&'n SiteName, Option<&'a NodeId>), Vec<&'n NodeWork<'a>>> {
    let mut members: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.planned) {
        if let Some(site) = &node.site {
            let key = (site, own(wish, node));
            members.entry(key).or_default().push(node);
        }
    }
    members
}

fn elected<'n, 'a>(
    wish: &Wish<'_>,
    segment: &SegmentName,
    nodes: &[&'n NodeWork<'a>],
    sitting: &[Gateway],
    report: &mut Reporter,
) -> Vec<(u8, &'n NodeWork<'a>)> {
    let alone = wish.topology.granularity == Granularity::Node;
    let selector = &wish.cluster.gateway_selector;
    let candidates: Vec<Candidate<'a>> = nodes
        .iter()
        .filter(|node| alone || carries(node.node, selector))
        .map(|node| {
            let mut scopes = node.node.addresses.iter().map(|(_, scope)| *scope);
            Candidate {
                id: node.id,
                public: scopes.any(|scope| scope == Scope::Public),
                ready: node.node.ready,
            }
        })
        .collect();
    if candidates.is_empty() {
        let labels = listed(selector.iter().map(|(key, value)| format!("{key}={value}")));
        report.wait(
            About::Cluster(wish.name.clone()),
            Some(wish.link),
            Reason::NoGateway,
            format!("no node of segment {segment} carries the labels of gateways.nodeSelector ({labels}), so nothing reaches it: label a node, or change the selector"),
        );
    }
    let wanted = if alone {
        1
    } else {
        wish.topology.gateways_per_site.clamp(1, 4)
    };
    let work = |id: &NodeId| nodes.iter().find(|node| node.id == id).copied();
    elect(candidates, sitting, wanted)
        .into_iter()
        .filter_map(|(rank, id)| Some((rank, work(id)?)))
        .collect()
}

/// Chunks of each site, without what nodes took along to other sites.
fn site_chunks<'b>(
    book: &'b Book<'_>,
    strays: &[(Prefix, bool)],
) -> BTreeMap<(&'b SiteName, Use), Vec<Prefix>> {
    let mut chunks: BTreeMap<(&SiteName, Use), Vec<Prefix>> = BTreeMap::new();
    for (prefix, chunk) in book.chunks() {
        let own = chunks.entry((&chunk.site, chunk.used_for)).or_default();
        own.push(prefix);
    }
    let mut taken: BTreeMap<(&SiteName, Use), Vec<Prefix>> = BTreeMap::new();
    for (prefix, _) in strays.iter().filter(|(_, planned)| *planned) {
        if let Some(chunk) = book.chunk_of(*prefix) {
            let strays = taken.entry((&chunk.site, chunk.used_for)).or_default();
            strays.push(*prefix);
        }
    }
    for (key, strays) in taken {
        if let Some(own) = chunks.get_mut(&key) {
            let all: PrefixSet = own.iter().copied().collect();
            *own = all.minus(&strays.into_iter().collect()).iter().collect();
        }
    }
    chunks
}
