//! What is claimed and what is in use: sites' networks, pod ranges of clusters and nodes, services, VPNs.
//!
//! Each claim is checked against everything before it; the first owner keeps. Nothing new is cut here.

use super::hub::{Clash, Hub};
use super::members::Members;
use super::ranges::Holder;
use super::report::{Reporter, listed};
use super::work::{Assign, ClusterWork};
use crate::cidr::Prefix;
use crate::fleet::{Fleet, SiteSource};
use crate::ids::{ClusterName, LinkName, NodeName, SiteName};
use crate::ledger::Use;
use std::collections::BTreeMap;

/// Sites' own ranges come before new imports: hosts cannot be renumbered.
pub(super) fn claim_lans<'a>(
    fleet: &'a Fleet,
    members: &Members<'a>,
    clusters: &[ClusterWork<'a>],
    hub: &mut Hub<'a>,
) {
    let member_sites: BTreeMap<&SiteName, &LinkName> = members
        .links
        .iter()
        .flat_map(|link| members.sites_of(link).map(move |site| (site, *link)))
        .collect();
    let inhabited: BTreeMap<&SiteName, &LinkName> = clusters
        .iter()
        .flat_map(|work| {
            work.nodes
                .iter()
                .filter_map(|node| node.site)
                .map(|site| (site, work.link))
        })
        .collect();
    for (name, site) in &fleet.sites {
        let (new, link) = match member_sites.get(name) {
            Some(link) => (Holder::Lan(name), Some(*link)),
            // What a link that is only shown exports is recorded already.
            None if members.link_of_site(name).is_some() => continue,
            None => (Holder::Ground(name), inhabited.get(name).copied()),
        };
        for prefix in site.cidrs.iter() {
            if hub.lans.contains(&(name, prefix)) {
                continue;
            }
            match hub.claim(prefix, new, members) {
                Ok(()) if matches!(new, Holder::Lan(_)) => {
                    hub.lans.insert((name, prefix));
                }
                Ok(()) => {}
                Err(_) => {
                    // Not reachable, but nothing new is to lie there either.
                    hub.avoid(prefix, Holder::Ground(name));
                    if link.is_some() {
                        let subject = format!("cidrs of Site {name}:");
                        hub.note(Clash {
                            new,
                            subject,
                            prefix,
                            link,
                        });
                    }
                }
            }
        }
    }
}

/// Records `pods.cidrs`.
pub(super) fn import_cluster<'a>(
    work: &mut ClusterWork<'a>,
    hub: &mut Hub<'a>,
    members: &Members<'a>,
) {
    for prefix in work.cluster.pod_cidrs.iter() {
        match hub.import(work.name, prefix, members) {
            Ok(()) => {
                hub.add_block(work.name, prefix);
                if let (SiteSource::Name(site), false) = (&work.cluster.sites, work.cluster.assign)
                {
                    work.book.dedicate(site, prefix);
                }
            }
            Err(_) => {
                work.lost.push(prefix);
                let subject = format!("pods.cidrs of Cluster {}:", work.name);
                hub.note(Clash {
                    new: Holder::Pods(work.name),
                    subject,
                    prefix,
                    link: Some(work.link),
                });
            }
        }
    }
}

/// Records the pod ranges that nodes have, and decides whether nodes may be given some.
pub(super) fn import_nodes<'a>(
    work: &mut ClusterWork<'a>,
    hub: &mut Hub<'a>,
    members: &Members<'a>,
    report: &mut Reporter,
) {
    work.assign = assign_decision(work, hub, report);
    for node in &mut work.nodes {
        if node.site.is_some() {
            work.book.release_unseen(node);
        }
    }
    for node in work.nodes.iter_mut().filter(|node| node.planned) {
        node.clashes = work.book.observe(node, hub, members).is_err();
        node.planned = !node.clashes;
    }
}

/// Says what the pod ranges of left-out nodes meet. At the end of the run, so that the next run says the same.
pub(super) fn report_clashing_nodes<'a>(
    work: &ClusterWork<'a>,
    hub: &mut Hub<'a>,
    members: &Members<'a>,
    report: &mut Reporter,
) {
    type Sides<'a> = Vec<(Prefix, Holder<'a>)>;
    let mut clashes: BTreeMap<Sides<'a>, Vec<(Prefix, &NodeName)>> = BTreeMap::new();
    for node in work.nodes.iter().filter(|node| node.clashes) {
        let mut seen = node.node.pod_cidrs.clone();
        seen.sort_unstable();
        // The clash of a whole range is reported once, with the cluster.
        if seen
            .iter()
            .any(|prefix| work.lost.iter().any(|lost| lost.contains(*prefix)))
        {
            continue;
        }
        let elsewhere = seen.iter().find_map(|prefix| {
            let held = hub.clashing(*prefix, Holder::Pods(work.name), members);
            (!held.is_empty()).then_some((*prefix, held))
        });
        if let Some((prefix, held)) = elsewhere {
            clashes
                .entry(held)
                .or_default()
                .push((prefix, &node.id.node));
            continue;
        }
        let here = seen
            .iter()
            .find_map(|prefix| Some((*prefix, work.book.share_over(*prefix, &node.id.node)?)));
        if let Some((prefix, (other, owner))) = here {
            report.refuse(
                "Node",
                node.id.node.as_str(),
                Some(work.link),
                "RangeClash",
                format!(
                    "podCIDR {prefix} of node {} overlaps {other} of node {owner} in Cluster {}, which was first; the node is left out: delete one of the two Node objects, and let it register again with a podCIDR of its own",
                    node.id.node, work.name
                ),
            );
        }
    }
    for nodes in clashes.into_values() {
        let names = listed(nodes.iter().map(|(_, node)| node));
        let subject = format!("podCIDR of node {names} in Cluster {}:", work.name);
        hub.note(Clash {
            new: Holder::Pods(work.name),
            subject,
            prefix: nodes[0].0,
            link: Some(work.link),
        });
    }
}

/// Whether nodes get their podCIDR from us: only while nobody else gives them any.
fn assign_decision(work: &ClusterWork<'_>, hub: &Hub<'_>, report: &mut Reporter) -> Assign {
    if !work.cluster.assign {
        return Assign::No;
    }
    let blocks = hub.blocks(work.name);
    let foreign: Vec<String> = work
        .nodes
        .iter()
        .filter_map(|node| {
            let outside = node.node.pod_cidrs.iter().filter(|prefix| {
                !blocks.iter().any(|block| block.contains(**prefix))
                    && work.book.chunk_of(**prefix).is_none()
            });
            let outside = outside.min()?;
            Some(format!("{} ({outside})", node.id.node))
        })
        .collect();
    if foreign.is_empty() {
        return Assign::Yes;
    }
    report.refuse(
        "Cluster",
        work.name.as_str(),
        Some(work.link),
        "PodCidrsOwnedElsewhere",
        format!(
            "pods.assign is true, but somebody else gave nodes their podCIDR: {}. Set pods.assign to false, or stop the other manager (kube-controller-manager --allocate-node-cidrs=false) and register these nodes again without podCIDR",
            listed(foreign)
        ),
    );
    Assign::Refused
}

pub(super) fn claim_services_and_vpns<'a>(
    fleet: &'a Fleet,
    members: &Members<'a>,
    hub: &mut Hub<'a>,
) {
    let mut clusters: Vec<(&ClusterName, &LinkName)> = Vec::new();
    let mut vpns = Vec::new();
    for link in &members.links {
        clusters.extend(members.clusters_of(link).map(|name| (name, *link)));
        vpns.extend(members.vpns_of(link).map(|name| (name, *link)));
    }
    clusters.sort_unstable();
    vpns.sort_unstable();
    for (name, link) in clusters {
        for prefix in fleet.clusters[name].service_cidrs.iter() {
            let known = hub.services.contains(&(name, prefix));
            let subject = || format!("serviceCidrs of Cluster {name}:");
            if !known && claim(hub, members, prefix, Holder::Services(name), link, subject) {
                hub.services.insert((name, prefix));
            }
        }
    }
    for (name, link) in vpns {
        for prefix in fleet.vpns[name].prefixes.iter() {
            let known = hub.vpns.contains(&(name, prefix));
            let subject = || format!("prefixes of VpnAttachment {name}:");
            if !known && claim(hub, members, prefix, Holder::Vpn(name), link, subject) {
                hub.vpns.insert((name, prefix));
            }
        }
    }
    // What is not exported is not to be given away either; it clashes with nobody.
    for (name, cluster) in &fleet.clusters {
        for prefix in cluster.service_cidrs.iter() {
            hub.avoid(prefix, Holder::Services(name));
        }
    }
    for (name, ranges) in &fleet.services_in_use {
        for prefix in ranges.iter() {
            hub.avoid(prefix, Holder::Services(name));
        }
    }
    for (name, vpn) in &fleet.vpns {
        for prefix in vpn.prefixes.iter() {
            hub.avoid(prefix, Holder::Vpn(name));
        }
    }
}

/// Claims a range that stands in a spec. Who had it first keeps it, and the other is told.
fn claim<'a>(
    hub: &mut Hub<'a>,
    members: &Members<'a>,
    prefix: Prefix,
    new: Holder<'a>,
    link: &'a LinkName,
    subject: impl Fn() -> String,
) -> bool {
    let claimed = hub.claim(prefix, new, members).is_ok();
    if !claimed {
        hub.note(Clash {
            new,
            subject: subject(),
            prefix,
            link: Some(link),
        });
    }
    claimed
}

/// Blocks are not cut over addresses that nodes have, also where nobody wrote down the site's ranges.
pub(super) fn avoid_node_addresses<'a>(fleet: &'a Fleet, members: &Members<'a>, hub: &mut Hub<'a>) {
    let pools: Vec<Prefix> = members
        .links
        .iter()
        .flat_map(|link| [Use::Pod, Use::Mesh].map(|used_for| hub.pools(link, used_for).to_vec()))
        .flatten()
        .collect();
    for (id, node) in &fleet.nodes {
        for (address, _) in &node.addresses {
            if pools.iter().any(|pool| pool.contains_address(*address)) {
                hub.ranges
                    .insert(Prefix::host(*address), Holder::Address(&id.cluster));
            }
        }
    }
}
