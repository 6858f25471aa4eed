//! Pod and mesh prefixes of a cluster's segments are what the ledgers grant to their sites and nodes, all of it.

use super::view::Cluster;
use crate::check::case::{Case, is_live};
use crate::check::invariant::Invariant;
use crate::check::sweep::Cover;
use crate::cidr::{Prefix, PrefixSet};
use crate::fleet::Granularity;
use crate::ids::{ClusterName, SegmentName, SiteName};
use crate::ledger::{Owner, Use};
use crate::network_plan::{Class, Gateway, NetworkPlan, Segment};
use std::collections::BTreeMap;

/// Proves it of one cluster's segments.
pub(super) fn check(case: &mut Case<'_>, cluster: &Cluster<'_>, plan: &NetworkPlan) {
    let (link, name) = (&plan.link, cluster.name);
    let granted = cluster.blocks.iter();
    let granted: PrefixSet = granted
        .filter(|(_, used_for, _)| *used_for == Use::Pod)
        .map(|(.., prefix)| *prefix)
        .collect();
    if let Some(own) = plan.cluster(name).filter(|own| own.pod_cidrs != granted) {
        case.find(
            Invariant::ClusterAsGranted,
            format!(
                "plan {link}: Cluster {name} has pod ranges {}, but the hub granted others",
                own.pod_cidrs
            ),
        );
    }
    let chunks = chunks(cluster);
    let mut shares: Vec<(&SegmentName, Use, Prefix)> = Vec::with_capacity(cluster.shares.len());
    let mut inhabited: Vec<&SegmentName> = Vec::new();
    for (_, node, held) in cluster.held() {
        if inhabited.last() != Some(&&node.segment) {
            inhabited.push(&node.segment);
        }
        let own = held.iter();
        shares.extend(own.map(|share| (&node.segment, share.used_for, share.prefix)));
    }
    shares.sort();
    inhabited.sort_unstable();
    let selector = case
        .fleet
        .clusters
        .get(name)
        .map(|own| &own.gateway_selector);
    for segment in own_segments(plan, name) {
        gateways(case, cluster, plan, segment, selector);
        if inhabited.binary_search(&&segment.name).is_err() {
            case.find(
                Invariant::SegmentHasNode,
                format!("plan {link}: segment {} has no node", segment.name),
            );
            continue;
        }
        for (used_for, class) in [(Use::Pod, Class::Pod), (Use::Mesh, Class::Mesh)] {
            let key = (&segment.name, used_for);
            let from = shares.partition_point(|(of, used, _)| (*of, *used) < key);
            let shares = shares[from..].iter();
            let shares = shares.take_while(|(of, used, _)| (*of, *used) == key);
            let shares = shares.map(|(.., prefix)| *prefix);
            let carried = segment.prefixes.iter().filter(|entry| entry.class == class);
            let carried = carried.map(|entry| entry.prefix);
            let chunks = match plan.granularity {
                Granularity::Site => chunks.get(&(&segment.site, used_for)).map(Vec::as_slice),
                Granularity::Node => None,
            };
            let chunks = chunks.unwrap_or_default().iter().copied();
            let may = Cover::of(shares.clone().chain(chunks));
            for prefix in carried.clone().filter(|prefix| !may.covers(*prefix)) {
                let message = format!(
                    "plan {link}: segment {} carries {prefix}, which no ledger grants to its site or nodes",
                    segment.name
                );
                case.find(Invariant::CarriesGranted, message);
            }
            let does = Cover::of(carried);
            for share in shares.filter(|share| !does.covers(*share)) {
                case.find(
                    Invariant::CarriesShares,
                    format!(
                        "plan {link}: segment {} does not carry {share} of one of its nodes",
                        segment.name
                    ),
                );
            }
        }
    }
}

/// Gateways are nodes of their segment that the cluster's selector selects.
fn gateways(
    case: &mut Case<'_>,
    cluster: &Cluster<'_>,
    plan: &NetworkPlan,
    segment: &Segment,
    selector: Option<&BTreeMap<String, String>>,
) {
    let link = &plan.link;
    for Gateway { peer, .. } in &segment.gateways {
        // Nodes are in order of name, and so are their Peers' names, which begin alike.
        let at = cluster
            .nodes
            .binary_search_by(|(_, node)| node.peer.cmp(peer));
        let node = at.ok().map(|at| cluster.nodes[at]);
        let Some((id, _)) = node.filter(|(_, node)| node.segment == segment.name) else {
            case.find(
                Invariant::GatewayInSegment,
                format!(
                    "plan {link}: gateway {peer} is no node of segment {}",
                    segment.name
                ),
            );
            continue;
        };
        let at = cluster
            .objects
            .binary_search_by(|(other, _)| (*other).cmp(id));
        let labels = at.ok().map(|at| &cluster.objects[at].1.labels);
        let is_selected = match (selector, labels) {
            (Some(selector), Some(labels)) => chosen(selector, labels),
            _ => false,
        };
        if plan.granularity == Granularity::Site && !is_selected {
            let message = format!(
                "plan {link}: gateway {peer} of segment {} does not match gateways.nodeSelector",
                segment.name
            );
            case.find(Invariant::GatewayIsSelected, message);
        }
    }
}

/// Whether labels are those that a selector asks for.
pub(super) fn chosen(
    selector: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
) -> bool {
    let mut wanted = selector.iter();
    wanted.all(|(key, value)| labels.get(key).is_some_and(|own| own == value))
}

/// The cluster's segments. Their names begin with the cluster's and a dot, which no other cluster's do.
pub(super) fn own_segments<'a>(
    plan: &'a NetworkPlan,
    cluster: &'a ClusterName,
) -> impl Iterator<Item = &'a Segment> {
    let begins = |segment: &Segment| {
        let rest = segment.name.as_str().strip_prefix(cluster.as_str());
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    let from = plan
        .segments
        .partition_point(|segment| segment.name.as_str() < cluster.as_str() && !begins(segment));
    // Between the cluster's name and the name with a dot there may be names with a hyphen.
    let rest = plan.segments[from..].iter();
    rest.skip_while(move |segment| !begins(segment))
        .take_while(move |segment| begins(segment))
        .filter(move |segment| segment.cluster.as_ref() == Some(cluster))
}

/// Chunks by site and use.
fn chunks<'a>(cluster: &Cluster<'a>) -> BTreeMap<(&'a SiteName, Use), Vec<Prefix>> {
    let mut chunks: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let grants = cluster.ledger.iter().flat_map(|(_, ledger)| &ledger.grants);
    for grant in grants.filter(|grant| is_live(grant)) {
        if let Owner::Site(site) = &grant.owner {
            let own = chunks.entry((site, grant.used_for)).or_default();
            own.push(grant.prefix);
        }
    }
    chunks
}
