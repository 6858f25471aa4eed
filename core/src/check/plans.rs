//! Plans: they say what the ledgers say, and what is in them fits together.

use super::sweep::{Cover, nested};
use super::{Case, is_live};
use crate::cidr::Prefix;
use crate::fleet::Granularity;
use crate::ids::{ClusterName, LinkName, NodeId, PeerName, SegmentName, SiteName};
use crate::ledger::{LedgerName, Owner, Use};
use crate::network_plan::{Class, ClassPrefix, NetworkPlan, Segment};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(case: &mut Case<'_>) {
    let proposal = case.proposal;
    for link in proposal.plans.keys() {
        if !case.fleet.links.contains_key(link) {
            case.find(format!("plan {link}: its ClusterLink does not exist"));
        }
    }
    for link in case.fleet.links.keys() {
        if case.is_applied(link) {
            match proposal.plans.get(link) {
                Some(plan) => one(case, plan),
                None => case.find(format!("ClusterLink {link} has no plan")),
            }
        } else if proposal.plans.get(link) != case.before.plans.get(link) {
            case.find(format!(
                "plan {link} changes, though its ClusterLink has mode Plan"
            ));
        }
    }
    one_link_each(case);
    vpn_indexes(case);
}

fn one(case: &mut Case<'_>, plan: &NetworkPlan) {
    revision(case, plan);
    order(case, plan);
    gateways(case, plan);
    addresses(case, plan);
    carriers(case, plan);
    vpns(case, plan);
    disjoint(case, plan);
    coverage(case, plan);
}

fn revision(case: &mut Case<'_>, plan: &NetworkPlan) {
    let link = &plan.link;
    let hub = case
        .proposal
        .ledgers
        .get(&LedgerName::Hub)
        .map(AsRef::as_ref)
        .or_else(|| case.old(&LedgerName::Hub));
    let lineage = hub.map_or(&case.before.lineage, |hub| &hub.lineage);
    if plan.lineage != *lineage {
        case.find(format!(
            "plan {link} has lineage {}, the hub's ledger {lineage}",
            plan.lineage
        ));
    }
    // One counter for the lineage: whoever carries another link's plan must not take this one for an older one.
    let plans = case.before.plans.values().map(|plan| plan.revision);
    let hub = case.old(&LedgerName::Hub).map(|hub| hub.revision);
    let highest = plans.chain(hub).max().unwrap_or(0);
    match case.before.plans.get(link) {
        Some(old) if old == plan => {}
        _ if plan.revision <= highest => case.find(format!(
            "plan {link} is new or changes, but its revision {} is not above {highest}, the highest before",
            plan.revision
        )),
        Some(old)
            if (NetworkPlan {
                revision: plan.revision,
                ..old.clone()
            }) == *plan =>
        {
            case.find(format!(
                "plan {link} goes from revision {} to {} without a change",
                old.revision, plan.revision
            ));
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
        case.find(format!(
            "plan {link}: a list is not sorted, or a name stands twice"
        ));
    }
    for segment in &plan.segments {
        if plan
            .sites
            .binary_search_by(|site| site.name.cmp(&segment.site))
            .is_err()
        {
            case.find(format!(
                "plan {link}: segment {} is in Site {}, which the plan does not list",
                segment.name, segment.site
            ));
        }
        if let Some(cluster) = &segment.cluster
            && plan
                .clusters
                .binary_search_by(|own| own.name.cmp(cluster))
                .is_err()
        {
            case.find(format!(
                "plan {link}: segment {} is of Cluster {cluster}, which the plan does not list",
                segment.name
            ));
        }
    }
    if let Some(transit) = &plan.transit
        && !plan.segments.iter().any(|segment| segment.site == *transit)
    {
        case.find(format!(
            "plan {link}: no segment is in the transit site {transit}"
        ));
    }
}

/// Ranks are unique, in bounds, held by nodes of the segment, and nobody who may stay is replaced.
fn gateways(case: &mut Case<'_>, plan: &NetworkPlan) {
    let link = &plan.link;
    let topology = &case.fleet.links[link].topology;
    let wanted = if topology.granularity == Granularity::Node {
        1
    } else {
        topology.gateways_per_site
    };
    let nodes: BTreeMap<&PeerName, (&NodeId, &SegmentName)> = case
        .proposal
        .nodes
        .iter()
        .map(|(id, node)| (&node.peer, (id, &node.segment)))
        .collect();
    for segment in &plan.segments {
        let mut ranks = BTreeSet::new();
        let mut peers = BTreeSet::new();
        for gateway in &segment.gateways {
            let (rank, peer) = (gateway.rank, &gateway.peer);
            if !ranks.insert(rank) || !peers.insert(peer) {
                case.find(format!(
                    "plan {link}: segment {} has rank {rank} or gateway {peer} twice",
                    segment.name
                ));
            }
            if rank >= wanted {
                case.find(format!("plan {link}: segment {} has a gateway of rank {rank}, but {wanted} gateway(s) are wanted", segment.name));
            }
            match nodes.get(peer) {
                Some((id, own)) if **own == segment.name => {
                    if topology.granularity == Granularity::Site && !selected(case, id) {
                        case.find(format!("plan {link}: gateway {peer} of segment {} does not match gateways.nodeSelector", segment.name));
                    }
                }
                _ => case.find(format!(
                    "plan {link}: gateway {peer} is no node of segment {}",
                    segment.name
                )),
            }
        }
        let old = case
            .before
            .plans
            .get(link)
            .and_then(|old| segment_of(old, &segment.name));
        for sitting in old.into_iter().flat_map(|old| &old.gateways) {
            let stays = sitting.rank < wanted
                && nodes.get(&sitting.peer).is_some_and(|(id, own)| {
                    **own == segment.name
                        && (topology.granularity == Granularity::Node || selected(case, id))
                });
            if stays && !segment.gateways.contains(sitting) {
                case.find(format!(
                    "plan {link}: {} had rank {} of segment {} and could keep it",
                    sitting.peer, sitting.rank, segment.name
                ));
            }
        }
    }
}

fn selected(case: &Case<'_>, id: &NodeId) -> bool {
    match (
        case.fleet.clusters.get(&id.cluster),
        case.fleet.nodes.get(id),
    ) {
        (Some(cluster), Some(node)) => cluster
            .gateway_selector
            .iter()
            .all(|(key, value)| node.labels.get(key).is_some_and(|own| own == value)),
        _ => false,
    }
}

fn segment_of<'p>(plan: &'p NetworkPlan, name: &SegmentName) -> Option<&'p Segment> {
    plan.segments
        .binary_search_by(|segment| segment.name.cmp(name))
        .ok()
        .map(|at| &plan.segments[at])
}

/// Pod and mesh prefixes of segments are what the ledgers grant to their sites and nodes, all of it.
fn addresses(case: &mut Case<'_>, plan: &NetworkPlan) {
    let link = &plan.link;
    let mut nodes: BTreeMap<&SegmentName, Vec<&NodeId>> = BTreeMap::new();
    for (id, node) in case
        .proposal
        .nodes
        .iter()
        .filter(|(_, node)| node.link == *link)
    {
        nodes.entry(&node.segment).or_default().push(id);
    }
    let mut grants: BTreeMap<&ClusterName, Holdings<'_>> = BTreeMap::new();
    for cluster in &plan.clusters {
        grants.insert(&cluster.name, Holdings::of(case, &cluster.name));
    }
    for cluster in &plan.clusters {
        let granted = &grants[&cluster.name].hub;
        if cluster.pod_cidrs != granted.iter().copied().collect() {
            case.find(format!(
                "plan {link}: Cluster {} has pod ranges {}, but the hub granted others",
                cluster.name, cluster.pod_cidrs
            ));
        }
    }
    let nobody = Vec::new();
    for segment in &plan.segments {
        let Some(holdings) = segment
            .cluster
            .as_ref()
            .and_then(|cluster| grants.get(cluster))
        else {
            continue;
        };
        let own = nodes.get(&segment.name).unwrap_or(&nobody);
        if own.is_empty() {
            case.find(format!("plan {link}: segment {} has no node", segment.name));
        }
        for (used_for, class) in [(Use::Pod, Class::Pod), (Use::Mesh, Class::Mesh)] {
            let shares: Vec<Prefix> = own
                .iter()
                .flat_map(|id| holdings.shares.get(id.node.as_str()).into_iter().flatten())
                .filter(|(of, _)| *of == used_for)
                .map(|(_, prefix)| *prefix)
                .collect();
            let chunks = holdings
                .chunks
                .get(&(&segment.site, used_for))
                .cloned()
                .unwrap_or_default();
            let carried = || {
                segment
                    .prefixes
                    .iter()
                    .filter(|entry| entry.class == class)
                    .map(|entry| entry.prefix)
            };
            let may = Cover::of(shares.iter().copied().chain(
                if plan.granularity == Granularity::Site {
                    chunks
                } else {
                    Vec::new()
                },
            ));
            for prefix in carried().filter(|prefix| !may.covers(*prefix)) {
                case.find(format!("plan {link}: segment {} carries {prefix}, which no ledger grants to its site or nodes", segment.name));
            }
            let does = Cover::of(carried());
            for share in shares.iter().filter(|share| !does.covers(**share)) {
                case.find(format!(
                    "plan {link}: segment {} does not carry {share} of one of its nodes",
                    segment.name
                ));
            }
        }
    }
}

/// What a cluster holds, by owner.
struct Holdings<'a> {
    hub: Vec<Prefix>,
    chunks: BTreeMap<(&'a SiteName, Use), Vec<Prefix>>,
    shares: BTreeMap<&'a str, Vec<(Use, Prefix)>>,
}

impl<'a> Holdings<'a> {
    fn of(case: &Case<'a>, cluster: &ClusterName) -> Self {
        let ledgers = &case.proposal.ledgers;
        let mut holdings = Self {
            hub: Vec::new(),
            chunks: BTreeMap::new(),
            shares: BTreeMap::new(),
        };
        if let Some(blocks) = case.blocks.get(cluster) {
            holdings.hub = blocks
                .iter()
                .filter(|(used_for, _)| *used_for == Use::Pod)
                .map(|(_, prefix)| *prefix)
                .collect();
        }
        let own = ledgers.get(&LedgerName::Cluster(cluster.clone()));
        for grant in own
            .iter()
            .flat_map(|ledger| &ledger.grants)
            .filter(|grant| is_live(grant))
        {
            match &grant.owner {
                Owner::Site(site) => holdings
                    .chunks
                    .entry((site, grant.used_for))
                    .or_default()
                    .push(grant.prefix),
                Owner::Node(node) => holdings
                    .shares
                    .entry(node.as_str())
                    .or_default()
                    .push((grant.used_for, grant.prefix)),
                Owner::Cluster(_) => {}
            }
        }
        holdings
    }
}

/// Services and LANs are exported by members only, each from one segment that may.
fn carriers(case: &mut Case<'_>, plan: &NetworkPlan) {
    let link = &plan.link;
    let wanted = &case.fleet.links[link];
    let mut services: BTreeMap<&ClusterName, &SegmentName> = BTreeMap::new();
    let mut lans: BTreeMap<&SiteName, &SegmentName> = BTreeMap::new();
    for segment in &plan.segments {
        for entry in &segment.prefixes {
            let fine = match (entry.class, &segment.cluster) {
                (Class::Service, Some(cluster)) => {
                    *services.entry(cluster).or_insert(&segment.name) == &segment.name
                        && case
                            .fleet
                            .clusters
                            .get(cluster)
                            .is_some_and(|own| own.service_cidrs.contains(entry.prefix))
                }
                (Class::Service, None) => false,
                (Class::Lan, _) => {
                    let site = &segment.site;
                    *lans.entry(site).or_insert(&segment.name) == &segment.name
                        && wanted.sites.contains(site)
                        && case
                            .fleet
                            .sites
                            .get(site)
                            .is_some_and(|own| own.cidrs.contains(entry.prefix))
                }
                (Class::Vpn, _) => plan
                    .vpns
                    .iter()
                    .any(|vpn| vpn.segment == segment.name && vpn.prefixes.contains(entry.prefix)),
                (Class::Pod | Class::Mesh, _) => true,
            };
            if !fine {
                case.find(format!(
                    "plan {link}: segment {} may not carry {} ({:?})",
                    segment.name, entry.prefix, entry.class
                ));
            }
        }
    }
}

fn vpns(case: &mut Case<'_>, plan: &NetworkPlan) {
    let link = &plan.link;
    let members = &case.fleet.links[link].vpns;
    for vpn in &plan.vpns {
        let name = &vpn.name;
        let Some(wanted) = case.fleet.vpns.get(name).filter(|_| members.contains(name)) else {
            case.find(format!("plan {link}: VpnAttachment {name} is no member"));
            continue;
        };
        if vpn.site != wanted.site
            || vpn.allow.clusters != wanted.allow_clusters
            || vpn.allow.sites != wanted.allow_sites
        {
            case.find(format!("plan {link}: VpnAttachment {name} has another site or other allow lists than its object"));
        }
        let Some(segment) =
            segment_of(plan, &vpn.segment).filter(|segment| segment.site == vpn.site)
        else {
            case.find(format!(
                "plan {link}: VpnAttachment {name} ends in {}, which is no segment of Site {}",
                vpn.segment, vpn.site
            ));
            continue;
        };
        for prefix in vpn.prefixes.iter() {
            let carried = segment
                .prefixes
                .binary_search(&ClassPrefix {
                    prefix,
                    class: Class::Vpn,
                })
                .is_ok();
            if !carried || !wanted.prefixes.contains(prefix) {
                case.find(format!("plan {link}: VpnAttachment {name} has {prefix}, but its object or segment {} has not", segment.name));
            }
        }
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
                .is_some_and(|cluster| case.own_sites.contains(&(cluster, &lan.site)));
        if !own && !stood {
            found.push(format!(
                "plan {link}: pods {inner} or {outer} of segment {} overlap the LAN of Site {}",
                pods.name, lan.site
            ));
        }
    });
    found.into_iter().for_each(|message| case.find(message));
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
            case.find(format!(
                "plan {link}: {prefix} of segment {segment} is in no super-net"
            ));
        }
    }
    let granted = plan
        .clusters
        .iter()
        .flat_map(|cluster| cluster.pod_cidrs.iter());
    for prefix in granted.chain(plan.vpns.iter().flat_map(|vpn| vpn.prefixes.iter())) {
        if !plan.super_nets.contains(prefix) {
            case.find(format!(
                "plan {link}: {prefix} is planned, but in no super-net"
            ));
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
        case.find(format!(
            "plan {link}: {prefix} is bypassed, but belongs to pods, services, a VPN or the mesh"
        ));
    }
}

fn one_link_each(case: &mut Case<'_>) {
    let mut clusters: BTreeMap<&ClusterName, &LinkName> = BTreeMap::new();
    let plans = &case.proposal.plans;
    for (link, plan) in plans {
        for cluster in &plan.clusters {
            if let Some(other) = clusters.insert(&cluster.name, link) {
                case.find(format!(
                    "Cluster {} is in the plans of ClusterLinks {other} and {link}",
                    cluster.name
                ));
            }
            let wanted = case
                .fleet
                .links
                .get(link)
                .is_some_and(|wanted| wanted.clusters.contains(&cluster.name));
            if case.is_applied(link) && !wanted {
                case.find(format!(
                    "plan {link} has Cluster {}, which is no member",
                    cluster.name
                ));
            }
        }
    }
}

fn vpn_indexes(case: &mut Case<'_>) {
    let mut taken: BTreeMap<(&SiteName, u8), &str> = BTreeMap::new();
    for (link, plan) in &case.proposal.plans {
        for vpn in &plan.vpns {
            if vpn.index > 15 {
                case.find(format!(
                    "plan {link}: VpnAttachment {} has index {}, above 15",
                    vpn.name, vpn.index
                ));
            }
            if let Some(other) = taken.insert((&vpn.site, vpn.index), vpn.name.as_str()) {
                case.find(format!(
                    "VpnAttachments {other} and {} share index {} of Site {}",
                    vpn.name, vpn.index, vpn.site
                ));
            }
            let old = case
                .before
                .plans
                .get(link)
                .and_then(|old| old.vpns.iter().find(|old| old.name == vpn.name));
            if old.is_some_and(|old| old.site == vpn.site && old.index != vpn.index) {
                case.find(format!(
                    "plan {link}: VpnAttachment {} changes its index",
                    vpn.name
                ));
            }
        }
    }
}
