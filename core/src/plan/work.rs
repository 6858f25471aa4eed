//! One planning run, top to bottom.
//!
//! ```text
//!  members ─► what stands ─► what is claimed and in use ─► blocks ─► nodes' shares ─► mesh ─► ledgers ─► plans
//! ```
//! Everything in use is recorded before anything new is cut.

use super::book::{Ask, Book};
use super::exports::Memory;
use super::hub::{Clash, Hub, Lengths};
use super::members::{Members, all_sites, site_of};
use super::ranges::Holder;
use super::report::{Reporter, listed};
use super::{Before, NodePlan, Proposal, network};
use crate::cidr::{Family, Prefix};
use crate::fleet::{Addressing, Cluster, Fleet, Granularity, Node, SiteSource};
use crate::ids::{ClusterName, LinkName, MAX_OBJECT_NAME, NodeId, NodeName, SiteName};
use crate::ledger::{LedgerName, Use};
use std::collections::{BTreeMap, BTreeSet};

/// A cluster while it is planned.
pub(super) struct ClusterWork<'a> {
    /// Its name.
    pub(super) name: &'a ClusterName,
    /// What the user wants.
    pub(super) cluster: &'a Cluster,
    /// Its link.
    pub(super) link: &'a LinkName,
    addressing: &'a Addressing,
    /// Its nodes by name.
    pub(super) nodes: Vec<NodeWork<'a>>,
    /// Its ledger.
    pub(super) book: Book<'a>,
    /// Its `pods.cidrs` that somebody else has.
    lost: Vec<Prefix>,
    /// Whether nodes get their podCIDR from us.
    assign: Assign,
    /// Shares that could not be cut.
    missing: BTreeMap<(Use, Family), Vec<&'a NodeName>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Assign {
    No,
    Refused,
    Yes,
}

/// A node while it is planned.
pub(super) struct NodeWork<'a> {
    /// Its name.
    pub(super) id: &'a NodeId,
    /// What is known about it.
    pub(super) node: &'a Node,
    /// Its site.
    pub(super) site: Option<&'a SiteName>,
    /// Pod ranges that it holds.
    pub(super) pods: Vec<Prefix>,
    /// Mesh addresses that it holds.
    pub(super) mesh: Vec<Prefix>,
    /// Whether a pod range of it is somebody else's.
    clashes: bool,
    /// Whether it takes part.
    pub(super) planned: bool,
    /// Whether its pod ranges are to be written into its Node object.
    pub(super) assign: bool,
}

impl NodeWork<'_> {
    /// What it holds for a use.
    pub(super) fn shares(&mut self, used_for: Use) -> &mut Vec<Prefix> {
        match used_for {
            Use::Pod => &mut self.pods,
            Use::Mesh => &mut self.mesh,
        }
    }

    fn has(&self, used_for: Use, family: Family) -> bool {
        let shares = match used_for {
            Use::Pod => &self.pods,
            Use::Mesh => &self.mesh,
        };
        shares.iter().any(|prefix| prefix.family() == family)
    }
}

/// Plans the active links; all others keep what they have.
pub(super) fn run(fleet: &Fleet, before: &Before, active: &BTreeSet<&LinkName>) -> Proposal {
    let mut memory = Memory::of(fleet, before, active);
    loop {
        let proposal = attempt(fleet, before, active, &memory);
        // Ends: each further attempt remembers less.
        if !memory.forget_lost(&proposal.plans) {
            return proposal;
        }
    }
}

fn attempt(
    fleet: &Fleet,
    before: &Before,
    active: &BTreeSet<&LinkName>,
    memory: &Memory<'_>,
) -> Proposal {
    let sites = all_sites(fleet);
    let mut report = Reporter::default();
    let mut members = Members::settle(fleet, before, active, memory, &mut report);
    let mut hub = Hub::open(fleet, before, &members, memory, &mut report);
    let mut clusters = open_clusters(fleet, before, &mut members, &sites, &mut report);

    claim_lans(fleet, &members, &clusters, &mut hub);
    for cluster in &mut clusters {
        import_cluster(cluster, &mut hub, &members);
    }
    for cluster in &mut clusters {
        import_nodes(cluster, &mut hub, &members, &mut report);
    }
    claim_services_and_vpns(fleet, &members, &mut hub);
    avoid_node_addresses(fleet, &members, &mut hub);

    for cluster in &mut clusters {
        assign_pods(cluster, &mut hub, &members, &mut report);
    }
    let families = mesh_families(fleet, &members, &hub);
    for cluster in &mut clusters {
        give_mesh_addresses(cluster, &families, &mut hub, &members);
        report_missing(cluster, &mut hub, &mut report);
    }
    for cluster in &clusters {
        report_clashing_nodes(cluster, &mut hub, &members, &mut report);
    }
    hub.report_clashes(&members, &mut report);

    let plans = network::plans(
        fleet,
        before,
        &members,
        memory,
        &hub,
        &clusters,
        &mut report,
    );
    let mut nodes = network::kept_nodes(fleet, before, &members);
    let mut ledgers = before.ledgers.clone();
    for mut work in clusters {
        let granularity = fleet.links[work.link].topology.granularity;
        nodes.extend(node_plans(&work, granularity, &plans));
        for node in &work.nodes {
            work.book.mark_strays(node);
        }
        let name = LedgerName::Cluster(work.name.clone());
        match work.book.close(&hub, &before.lineage) {
            Some(ledger) => ledgers.insert(name, ledger),
            None => ledgers.remove(&name),
        };
    }
    // A plan that comes back must not count from below what agents remember: the hub's revision keeps the height.
    let withdrawn = before
        .plans
        .iter()
        .filter(|(link, _)| !plans.contains_key(*link));
    let height = withdrawn.map(|(_, plan)| plan.revision).max().unwrap_or(0);
    let hub = hub.close(&before.lineage, height);
    if hub.revision > 0 {
        ledgers.insert(LedgerName::Hub, hub);
    }
    Proposal {
        ledgers,
        plans,
        nodes,
        report: report.finish(),
    }
}

/// Finds every node's site and opens the ledgers.
fn open_clusters<'a>(
    fleet: &'a Fleet,
    before: &'a Before,
    members: &mut Members<'a>,
    sites: &'a BTreeSet<SiteName>,
    report: &mut Reporter,
) -> Vec<ClusterWork<'a>> {
    let mut names: Vec<(&ClusterName, &LinkName)> = Vec::new();
    for link in &members.links {
        names.extend(members.clusters_of(link).map(|name| (name, *link)));
    }
    names.sort_unstable();
    let mut nodes_of: BTreeMap<&ClusterName, Vec<NodeWork<'a>>> =
        names.iter().map(|(name, _)| (*name, Vec::new())).collect();
    for (id, node) in &fleet.nodes {
        if let Some(nodes) = nodes_of.get_mut(&id.cluster) {
            nodes.push(NodeWork {
                id,
                node,
                site: None,
                pods: Vec::new(),
                mesh: Vec::new(),
                clashes: false,
                planned: false,
                assign: false,
            });
        }
    }
    let mut clusters = Vec::with_capacity(names.len());
    for (name, link) in names {
        let cluster = &fleet.clusters[name];
        let granularity = fleet.links[link].topology.granularity;
        let mut nodes = nodes_of.remove(name).unwrap_or_default();
        for work in &mut nodes {
            match place(cluster, work, granularity, sites) {
                Ok(site) => {
                    members.adopt_site(name, site);
                    work.site = Some(site);
                    work.planned = true;
                }
                Err(Unplaced::NoSite(why)) => report.wait(
                    "Node",
                    work.id.node.as_str(),
                    Some(link),
                    "NoSite",
                    format!("node {} of Cluster {name} belongs to no site: {why}", work.id.node),
                ),
                Err(Unplaced::TooLong) => report.refuse(
                    "Node",
                    work.id.node.as_str(),
                    Some(link),
                    "NameTooLong",
                    format!(
                        "the names of Cluster {name}, its site and node {} make more than {MAX_OBJECT_NAME} characters together: give the cluster or the site a shorter name",
                        work.id.node
                    ),
                ),
            }
        }
        let ledger = before.ledgers.get(&LedgerName::Cluster(name.clone()));
        let book = Book::open(name, link, ledger, &mut nodes);
        clusters.push(ClusterWork {
            name,
            cluster,
            link,
            addressing: &fleet.links[link].addressing,
            nodes,
            book,
            lost: Vec::new(),
            assign: Assign::No,
            missing: BTreeMap::new(),
        });
    }
    clusters
}

enum Unplaced {
    NoSite(String),
    TooLong,
}

fn place<'a>(
    cluster: &'a Cluster,
    work: &NodeWork<'a>,
    granularity: Granularity,
    sites: &'a BTreeSet<SiteName>,
) -> Result<&'a SiteName, Unplaced> {
    let site = site_of(cluster, work.node, sites).map_err(Unplaced::NoSite)?;
    let (cluster, node) = (work.id.cluster.as_str().len(), work.id.node.as_str().len());
    let longest = match granularity {
        Granularity::Site => cluster + 1 + node,
        Granularity::Node => cluster + 1 + site.as_str().len() + 1 + node,
    };
    if longest > MAX_OBJECT_NAME {
        Err(Unplaced::TooLong)
    } else {
        Ok(site)
    }
}

/// Sites' own ranges come before new imports: hosts cannot be renumbered.
fn claim_lans<'a>(
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
fn import_cluster<'a>(work: &mut ClusterWork<'a>, hub: &mut Hub<'a>, members: &Members<'a>) {
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
fn import_nodes<'a>(
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
fn report_clashing_nodes<'a>(
    work: &ClusterWork<'a>,
    hub: &mut Hub<'a>,
    members: &Members<'a>,
    report: &mut Reporter,
) {
    let mut clashes: BTreeMap<Vec<(Prefix, Holder<'a>)>, Vec<(Prefix, &NodeName)>> =
        BTreeMap::new();
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

fn claim_services_and_vpns<'a>(fleet: &'a Fleet, members: &Members<'a>, hub: &mut Hub<'a>) {
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
            if hub.services.contains(&(name, prefix)) {
                continue;
            }
            let new = Holder::Services(name);
            match hub.claim(prefix, new, members) {
                Ok(()) => {
                    hub.services.insert((name, prefix));
                }
                Err(_) => {
                    let subject = format!("serviceCidrs of Cluster {name}:");
                    hub.note(Clash {
                        new,
                        subject,
                        prefix,
                        link: Some(link),
                    });
                }
            }
        }
    }
    for (name, link) in vpns {
        for prefix in fleet.vpns[name].prefixes.iter() {
            if hub.vpns.contains(&(name, prefix)) {
                continue;
            }
            let new = Holder::Vpn(name);
            match hub.claim(prefix, new, members) {
                Ok(()) => {
                    hub.vpns.insert((name, prefix));
                }
                Err(_) => {
                    let subject = format!("prefixes of VpnAttachment {name}:");
                    hub.note(Clash {
                        new,
                        subject,
                        prefix,
                        link: Some(link),
                    });
                }
            }
        }
    }
    // What is not exported is not to be given away either; it clashes with nobody.
    for (name, cluster) in &fleet.clusters {
        for prefix in cluster.service_cidrs.iter() {
            hub.avoid(prefix, Holder::Services(name));
        }
    }
    for (name, vpn) in &fleet.vpns {
        for prefix in vpn.prefixes.iter() {
            hub.avoid(prefix, Holder::Vpn(name));
        }
    }
}

/// Blocks are not cut over addresses that nodes have, also where nobody wrote down the site's ranges.
fn avoid_node_addresses<'a>(fleet: &'a Fleet, members: &Members<'a>, hub: &mut Hub<'a>) {
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

/// Gives nodes without podCIDR a range, or says why they have none.
fn assign_pods<'a>(
    work: &mut ClusterWork<'a>,
    hub: &mut Hub<'a>,
    members: &Members<'a>,
    report: &mut Reporter,
) {
    let mut families: Vec<Family> = Vec::new();
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
fn mesh_families<'a>(
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

fn give_mesh_addresses<'a>(
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

fn report_missing<'a>(work: &mut ClusterWork<'a>, hub: &mut Hub<'a>, report: &mut Reporter) {
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

fn node_plans(
    work: &ClusterWork<'_>,
    granularity: Granularity,
    plans: &BTreeMap<LinkName, crate::network_plan::NetworkPlan>,
) -> Vec<(NodeId, NodePlan)> {
    let Some(plan) = plans.get(work.link) else {
        return Vec::new();
    };
    let ranks = network::ranks(plan);
    let mut nodes = Vec::with_capacity(work.nodes.len());
    for node in work.nodes.iter().filter(|node| node.planned) {
        let Some((site, peer, segment)) = network::names(node, granularity) else {
            continue;
        };
        let mut pod_cidrs = node.pods.clone();
        pod_cidrs.sort_unstable();
        let mut mesh: Vec<Prefix> = node.mesh.clone();
        mesh.sort_unstable();
        let mut addresses = node.node.addresses.clone();
        addresses.sort_unstable();
        let plan = NodePlan {
            link: work.link.clone(),
            gateway_rank: ranks.get(&peer).copied(),
            peer,
            site: site.clone(),
            segment,
            assign: if node.assign {
                pod_cidrs.clone()
            } else {
                Vec::new()
            },
            pod_cidrs,
            mesh_addresses: mesh.iter().map(|prefix| prefix.address()).collect(),
            addresses,
        };
        nodes.push((node.id.clone(), plan));
    }
    nodes
}
