//! Pod and mesh prefixes of a cluster's segments are what the ledgers grant to their sites and nodes, all of it.

use super::view::{Cluster, Share};
use crate::check::case::{Case, is_live};
use crate::check::sweep::Cover;
use crate::cidr::{Prefix, PrefixSet};
use crate::fleet::Granularity;
use crate::ids::{ClusterName, SegmentName, SiteName};
use crate::ledger::{Owner, Use};
use crate::network_plan::{Class, NetworkPlan, Segment};
use std::collections::BTreeMap;

/// Proves it of one cluster's segments.
pub(super) fn check(case: &mut Case<'_>, cluster: &Cluster<'_>, plan: &NetworkPlan) {
    let (link, name) = (&plan.link, cluster.name);
    let granted = case.blocks(name).iter();
    let granted: PrefixSet = granted
        .filter(|(used_for, _)| *used_for == Use::Pod)
        .map(|(_, prefix)| *prefix)
        .collect();
    if let Some(own) = plan.cluster(name).filter(|own| own.pod_cidrs != granted) {
        case.find(format!(
            "plan {link}: Cluster {name} has pod ranges {}, but the hub granted others",
            own.pod_cidrs
        ));
    }
    let chunks = chunks(cluster);
    let mut shares: BTreeMap<&SegmentName, Vec<(Use, Prefix)>> = BTreeMap::new();
    for (_, node, held) in cluster.held() {
        let own = shares.entry(&node.segment).or_default();
        own.extend(held.iter().map(
            |Share {
                 used_for, prefix, ..
             }| (*used_for, *prefix),
        ));
    }
    for segment in own_segments(plan, name) {
        let Some(own) = shares.get(&segment.name) else {
            case.find(format!("plan {link}: segment {} has no node", segment.name));
            continue;
        };
        for (used_for, class) in [(Use::Pod, Class::Pod), (Use::Mesh, Class::Mesh)] {
            let shares = own.iter().filter(|(of, _)| *of == used_for);
            let shares = shares.map(|(_, prefix)| *prefix);
            let carried = segment.prefixes.iter().filter(|entry| entry.class == class);
            let carried = carried.map(|entry| entry.prefix);
            let chunks = match plan.granularity {
                Granularity::Site => chunks.get(&(&segment.site, used_for)).map(Vec::as_slice),
                Granularity::Node => None,
            };
            let chunks = chunks.unwrap_or_default().iter().copied();
            let may = Cover::of(shares.clone().chain(chunks));
            for prefix in carried.clone().filter(|prefix| !may.covers(*prefix)) {
                case.find(format!(
                    "plan {link}: segment {} carries {prefix}, which no ledger grants to its site or nodes",
                    segment.name
                ));
            }
            let does = Cover::of(carried);
            for share in shares.filter(|share| !does.covers(*share)) {
                case.find(format!(
                    "plan {link}: segment {} does not carry {share} of one of its nodes",
                    segment.name
                ));
            }
        }
    }
}

/// The cluster's segments. Their names begin with the cluster's and a dot, which no other cluster's do.
fn own_segments<'a>(
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
    let grants = cluster.ledger.iter().flat_map(|ledger| &ledger.grants);
    for grant in grants.filter(|grant| is_live(grant)) {
        if let Owner::Site(site) = &grant.owner {
            let own = chunks.entry((site, grant.used_for)).or_default();
            own.push(grant.prefix);
        }
    }
    chunks
}
