//! Plans: they say what the ledgers say, and what is in them fits together.

use super::{carriers, gateways};
use crate::check::case::Case;
use crate::check::invariant::Invariant;
use crate::check::sweep::{Cover, nested};
use crate::cidr::Prefix;
use crate::ids::{ClusterName, LinkName};
use crate::ledger::LedgerName;
use crate::network_plan::{Class, ClassPrefix, NetworkPlan, Segment};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(case: &mut Case<'_>) {
    let proposal = case.proposal;
    let highest = highest(case);
    for link in proposal.plans.keys() {
        if !case.fleet.links.contains_key(link) {
            case.find(
                Invariant::LinkExists,
                format!("plan {link}: its ClusterLink does not exist"),
            );
        }
    }
    for link in case.fleet.links.keys() {
        if case.is_applied(link) {
            match proposal.plans.get(link) {
                Some(plan) => one(case, plan, highest),
                None => case.find(
                    Invariant::LinkHasPlan,
                    format!("ClusterLink {link} has no plan"),
                ),
            }
        } else if proposal.plans.get(link) != case.before.plans.get(link) {
            case.find(
                Invariant::UnplannedRests,
                format!("plan {link} changes, though its ClusterLink has mode Plan"),
            );
        }
    }
    one_link_each(case);
    carriers::vpn_indexes(case);
}

fn one(case: &mut Case<'_>, plan: &NetworkPlan, highest: u64) {
    revision(case, plan, highest);
    order(case, plan);
    gateways::check(case, plan);
    carriers::check(case, plan);
    disjoint(case, plan);
    coverage(case, plan);
}

/// One counter for the lineage: whoever carries another link's plan must not take this one for an older one.
fn highest(case: &Case<'_>) -> u64 {
    let plans = case.before.plans.values().map(|plan| plan.revision);
    let hub = case.old(&LedgerName::Hub).map(|hub| hub.revision);
    plans.chain(hub).max().unwrap_or(0)
}

fn revision(case: &mut Case<'_>, plan: &NetworkPlan, highest: u64) {
    let link = &plan.link;
    let hub = case
        .proposal
        .ledgers
        .get(&LedgerName::Hub)
        .map(AsRef::as_ref)
        .or_else(|| case.old(&LedgerName::Hub));
    let lineage = hub.map_or(&case.before.lineage, |hub| &hub.lineage);
    if plan.lineage != *lineage {
        case.find(
            Invariant::LineageStays,
            format!(
                "plan {link} has lineage {}, the hub's ledger {lineage}",
                plan.lineage
            ),
        );
    }
    match case.before.plans.get(link) {
        Some(old) if old == plan => {}
        _ if plan.revision <= highest => {
            let message = format!(
                "plan {link} is new or changes, but its revision {} is not above {highest}, the highest before",
                plan.revision
            );
            case.find(Invariant::RevisionRises, message);
        }
        Some(old)
            if (NetworkPlan {
                revision: plan.revision,
                ..old.clone()
            }) == *plan =>
        {
            let message = format!(
                "plan {link} goes from revision {} to {} without a change",
                old.revision, plan.revision
            );
            case.find(Invariant::RevisionRests, message);
        }
        _ => {}
    }
}

fn order(case: &mut Case<'_>, plan: &NetworkPlan) {
    let link = &plan.link;
    let sorted = plan.clusters.is_sorted_by(|a, b| a.name < b.name)
        && plan.sites.is_sorted_by(|a, b| a.name < b.name)
        && plan.segments.is_sorted_by(|a, b| a.name < b.name)
        && plan.vpns.is_sorted_by(|a, b| a.name < b.name)
        && plan.segments.iter().all(|segment| {
            segment.prefixes.is_sorted_by(|a, b| a < b)
                && segment.gateways.is_sorted_by(|a, b| a.rank <= b.rank)
        });
    if !sorted {
        case.find(
            Invariant::ListsAreSorted,
            format!("plan {link}: a list is not sorted, or a name stands twice"),
        );
    }
    for segment in &plan.segments {
        if plan
            .sites
            .binary_search_by(|site| site.name.cmp(&segment.site))
            .is_err()
        {
            case.find(
                Invariant::PartsAreListed,
                format!(
                    "plan {link}: segment {} is in Site {}, which the plan does not list",
                    segment.name, segment.site
                ),
            );
        }
        if let Some(cluster) = &segment.cluster
            && plan
                .clusters
                .binary_search_by(|own| own.name.cmp(cluster))
                .is_err()
        {
            case.find(
                Invariant::PartsAreListed,
                format!(
                    "plan {link}: segment {} is of Cluster {cluster}, which the plan does not list",
                    segment.name
                ),
            );
        }
    }
    if let Some(transit) = &plan.transit
        && !plan.segments.iter().any(|segment| segment.site == *transit)
    {
        case.find(
            Invariant::TransitHasSegment,
            format!("plan {link}: no segment is in the transit site {transit}"),
        );
    }
}

/// No address is in two segments, but for pods inside their site's LAN; nor twice in one under classes that differ.
fn disjoint(case: &mut Case<'_>, plan: &NetworkPlan) {
    let link = &plan.link;
    let old: BTreeSet<ClassPrefix> = case
        .before
        .plans
        .get(link)
        .into_iter()
        .flat_map(|old| &old.segments)
        .flat_map(|segment| segment.prefixes.iter().copied())
        .collect();
    let mut items: Vec<(Prefix, (&Segment, Class))> = plan
        .segments
        .iter()
        .flat_map(|segment| {
            segment
                .prefixes
                .iter()
                .map(move |entry| (entry.prefix, (segment, entry.class)))
        })
        .collect();
    let mut found = Vec::new();
    nested(&mut items, |(outer, (a, of)), (inner, (b, class))| {
        let (pods, lan) = match (of, class) {
            (Class::Lan, Class::Pod) => (b, a),
            (Class::Pod, Class::Lan) => (a, b),
            _ => {
                found.push(format!("plan {link}: {inner} of segment {} ({class:?}) overlaps {outer} of segment {} ({of:?})", b.name, a.name));
                return;
            }
        };
        // What both were reachable already stays so: the first owner keeps, and here both were.
        let stood = old.contains(&ClassPrefix {
            prefix: *outer,
            class: *of,
        }) && old.contains(&ClassPrefix {
            prefix: *inner,
            class: *class,
        });
        let own = plan
            .segments
            .iter()
            .any(|segment| segment.cluster == pods.cluster && segment.site == lan.site)
            || pods
                .cluster
                .as_ref()
                .is_some_and(|cluster| case.is_own_site(cluster, &lan.site));
        if !own && !stood {
            found.push(format!(
                "plan {link}: pods {inner} or {outer} of segment {} overlap the LAN of Site {}",
                pods.name, lan.site
            ));
        }
    });
    for message in found {
        case.find(Invariant::NoOverlap, message);
    }
}

/// Super-nets cover everything that is planned, and the bypass nothing that only the mesh reaches.
fn coverage(case: &mut Case<'_>, plan: &NetworkPlan) {
    let link = &plan.link;
    let segments = plan.segments.iter().flat_map(|segment| {
        segment
            .prefixes
            .iter()
            .map(move |entry| (entry.prefix, &segment.name))
    });
    for (prefix, segment) in segments {
        if !plan.super_nets.contains(prefix) {
            case.find(
                Invariant::InSuperNets,
                format!("plan {link}: {prefix} of segment {segment} is in no super-net"),
            );
        }
    }
    let granted = plan
        .clusters
        .iter()
        .flat_map(|cluster| cluster.pod_cidrs.iter());
    for prefix in granted.chain(plan.vpns.iter().flat_map(|vpn| vpn.prefixes.iter())) {
        if !plan.super_nets.contains(prefix) {
            case.find(
                Invariant::InSuperNets,
                format!("plan {link}: {prefix} is planned, but in no super-net"),
            );
        }
    }
    let inner = Cover::of(
        plan.segments
            .iter()
            .flat_map(|segment| &segment.prefixes)
            .filter(|entry| entry.class != Class::Lan)
            .map(|entry| entry.prefix),
    );
    for prefix in plan.bypass.iter().filter(|prefix| inner.touches(*prefix)) {
        let message = format!(
            "plan {link}: {prefix} is bypassed, but belongs to pods, services, a VPN or the mesh"
        );
        case.find(Invariant::BypassIsForeign, message);
    }
}

fn one_link_each(case: &mut Case<'_>) {
    let mut clusters: BTreeMap<&ClusterName, &LinkName> = BTreeMap::new();
    let plans = &case.proposal.plans;
    for (link, plan) in plans {
        for cluster in &plan.clusters {
            if let Some(other) = clusters.insert(&cluster.name, link) {
                case.find(
                    Invariant::OneLinkEach,
                    format!(
                        "Cluster {} is in the plans of ClusterLinks {other} and {link}",
                        cluster.name
                    ),
                );
            }
            let wanted = case
                .fleet
                .links
                .get(link)
                .is_some_and(|wanted| wanted.clusters.contains(&cluster.name));
            if case.is_applied(link) && !wanted {
                case.find(
                    Invariant::IsMember,
                    format!(
                        "plan {link} has Cluster {}, which is no member",
                        cluster.name
                    ),
                );
            }
        }
    }
}
