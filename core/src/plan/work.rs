//! One planning run, top to bottom.
//!
//! ```text
//!  members ─► what stands ─► what is claimed and in use ─► blocks ─► nodes' shares ─► mesh ─► ledgers ─► plans
//! ```
//! Everything in use is recorded before anything new is cut.

use super::book::Book;
use super::exports::Memory;
use super::hub::Hub;
use super::intake::{
    avoid_node_addresses, claim_lans, claim_services_and_vpns, import_cluster, import_nodes,
    report_clashing_nodes,
};
use super::kept::kept_nodes;
use super::members::{Members, all_sites, site_of};
use super::report::Reporter;
use super::shares::{assign_pods, give_mesh_addresses, mesh_families, report_missing, take_blocks};
use super::{Before, NodePlan, Proposal, network};
use crate::cidr::{Family, Prefix};
use crate::fleet::{Addressing, Cluster, Fleet, Granularity, Node};
use crate::ids::{ClusterName, LinkName, MAX_OBJECT_NAME, NodeId, NodeName, PeerName, SiteName};
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
    pub(super) addressing: &'a Addressing,
    /// Its nodes by name.
    pub(super) nodes: Vec<NodeWork<'a>>,
    /// Its ledger.
    pub(super) book: Book<'a>,
    /// Its `pods.cidrs` that somebody else has.
    pub(super) lost: Vec<Prefix>,
    /// Whether nodes get their podCIDR from us.
    pub(super) assign: Assign,
    /// Families in which they get it.
    pub(super) families: Vec<Family>,
    /// Shares that could not be cut.
    pub(super) missing: BTreeMap<(Use, Family), Vec<&'a NodeName>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Assign {
    /// The user does not want it.
    No,
    /// Somebody else gives podCIDRs.
    Refused,
    /// Yes.
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
    pub(super) clashes: bool,
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

    /// Whether it holds anything for a use in a family.
    pub(super) fn has(&self, used_for: Use, family: Family) -> bool {
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
        take_blocks(cluster, &mut hub, &mut report);
    }
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
    let mut nodes = kept_nodes(fleet, before, &members);
    let mut ledgers = before.ledgers.clone();
    let ranks = plans.values().flat_map(network::ranks).collect();
    for mut work in clusters {
        let granularity = fleet.links[work.link].topology.granularity;
        nodes.extend(node_plans(&work, granularity, &ranks));
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
            families: Vec::new(),
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

fn node_plans(
    work: &ClusterWork<'_>,
    granularity: Granularity,
    ranks: &BTreeMap<&PeerName, u8>,
) -> Vec<(NodeId, NodePlan)> {
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
