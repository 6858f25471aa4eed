//! Grants to network plans: segments with prefixes by class, gateways, VPNs, super-nets.
//!
//! A plan is derived, but three things in it are sticky: gateways' ranks, which segment carries a service, LAN or VPN
//! range, and VPN indexes.

use super::Before;
use super::book::Book;
use super::carriers::VpnIndexes;
use super::exports::Memory;
use super::gateways::{Candidate, elect};
use super::hub::Hub;
use super::members::{Members, carries};
use super::report::{Reporter, listed};
use super::work::{ClusterWork, NodeWork};
use crate::cidr::{Prefix, PrefixSet};
use crate::fleet::{Fleet, Granularity, Link};
use crate::ids::{LinkName, NodeId, PeerName, SegmentName, SiteName};
use crate::ledger::{LedgerName, Use};
use crate::network_plan::{
    Class, ClassPrefix, Gateway, NetworkPlan, PlanCluster, PlanSite, PlanVpn, Segment,
};
use crate::peer::{EndpointHost, Scope};
use std::collections::{BTreeMap, BTreeSet};

/// Plans of all links: new ones of the planned links, old ones of the others.
pub(super) fn plans<'a>(
    fleet: &'a Fleet,
    before: &'a Before,
    members: &Members<'a>,
    memory: &Memory<'a>,
    hub: &Hub<'a>,
    clusters: &[ClusterWork<'a>],
    report: &mut Reporter,
) -> BTreeMap<LinkName, NetworkPlan> {
    let mut indexes = VpnIndexes::reserve(before, memory);
    let hub_ledger = before.ledgers.get(&LedgerName::Hub);
    let lineage = hub_ledger.map_or(&before.lineage, |ledger| &ledger.lineage);
    let next = highest_revision(before) + 1;
    let mut plans = BTreeMap::new();
    for name in fleet.links.keys() {
        let old = before.plans.get(name);
        if !members.links.contains(&name) {
            plans.extend(old.map(|plan| (name.clone(), plan.clone())));
            continue;
        }
        let draft = Draft {
            fleet,
            name,
            link: &fleet.links[name],
            old,
            members,
            hub,
            clusters: clusters.iter().filter(|work| work.link == name).collect(),
        };
        let mut plan = draft.plan(&mut indexes, report);
        plan.lineage = lineage.clone();
        if old != Some(&plan) {
            plan.revision = next;
        }
        plans.insert(name.clone(), plan);
    }
    plans
}

/// The highest revision that any plan of this lineage can have had. Plans of a lineage share one counter, because whoever
/// remembers a revision compares it with the next plan of that lineage, which is another link's when a cluster has moved.
/// Of plans that are gone the hub's ledger keeps the height.
fn highest_revision(before: &Before) -> u64 {
    let hub = before.ledgers.get(&LedgerName::Hub);
    let plans = before.plans.values().map(|plan| plan.revision);
    plans
        .chain(hub.map(|ledger| ledger.revision))
        .max()
        .unwrap_or(0)
}

/// Site, peer and segment of a node that takes part.
pub(super) fn names<'a>(
    node: &NodeWork<'a>,
    granularity: Granularity,
) -> Option<(&'a SiteName, PeerName, SegmentName)> {
    let site = node.site?;
    let peer = node.id.peer().ok()?;
    let segment = match granularity {
        Granularity::Site => format!("{}.{site}", node.id.cluster),
        Granularity::Node => format!("{}.{site}.{}", node.id.cluster, node.id.node),
    };
    Some((site, peer, SegmentName::new(segment).ok()?))
}

/// Rank of each gateway.
pub(super) fn ranks(plan: &NetworkPlan) -> BTreeMap<&PeerName, u8> {
    plan.segments
        .iter()
        .flat_map(|segment| &segment.gateways)
        .map(|gateway| (&gateway.peer, gateway.rank))
        .collect()
}

/// One link's plan while it is made.
pub(super) struct Draft<'d, 'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) name: &'a LinkName,
    pub(super) link: &'a Link,
    pub(super) old: Option<&'a NetworkPlan>,
    pub(super) members: &'d Members<'a>,
    pub(super) hub: &'d Hub<'a>,
    pub(super) clusters: Vec<&'d ClusterWork<'a>>,
}

impl<'a> Draft<'_, 'a> {
    fn plan(&self, indexes: &mut VpnIndexes<'a>, report: &mut Reporter) -> NetworkPlan {
        let mut segments = BTreeMap::new();
        for work in &self.clusters {
            self.add_segments(work, &mut segments, report);
        }
        let mut prefixes: BTreeMap<SegmentName, Vec<ClassPrefix>> = BTreeMap::new();
        self.carry_services(&segments, &mut prefixes);
        self.carry_lans(&segments, &mut prefixes, report);
        let vpns = self.vpns(&segments, &mut prefixes, indexes, report);
        for (name, extra) in prefixes {
            if let Some(segment) = segments.get_mut(&name) {
                segment.prefixes.extend(extra);
                segment.prefixes.sort_unstable();
            }
        }
        let clusters: Vec<PlanCluster> = self
            .clusters
            .iter()
            .map(|work| PlanCluster {
                name: work.name.clone(),
                pod_cidrs: self.hub.held(work.name, Use::Pod).iter().copied().collect(),
                service_cidrs: work.cluster.service_cidrs.clone(),
            })
            .collect();
        let sites = self.sites(&segments, &vpns);
        let super_nets = self.super_nets(&clusters, &vpns);
        let bypass = self.bypass(&super_nets, &segments, &sites, &vpns);
        NetworkPlan {
            link: self.name.clone(),
            // Both are set by the caller, who knows what was before.
            lineage: self
                .old
                .map_or(self.hub.lineage, |old| &old.lineage)
                .clone(),
            revision: self.old.map_or(0, |old| old.revision),
            super_nets,
            clusters,
            transit: self.transit(&segments, report),
            sites,
            segments: segments.into_values().collect(),
            vpns,
            bypass,
            granularity: self.link.topology.granularity,
        }
    }

    /// One cluster's segments with pods, mesh addresses and gateways.
    fn add_segments(
        &self,
        work: &ClusterWork<'a>,
        segments: &mut BTreeMap<SegmentName, Segment>,
        report: &mut Reporter,
    ) {
        let granularity = self.link.topology.granularity;
        let mut nodes_of: BTreeMap<(&SiteName, Option<&NodeId>), Vec<&NodeWork<'a>>> =
            BTreeMap::new();
        for node in work.nodes.iter().filter(|node| node.planned) {
            if let Some(site) = node.site {
                let own = (granularity == Granularity::Node).then_some(node.id);
                nodes_of.entry((site, own)).or_default().push(node);
            }
        }
        let mut chunks: BTreeMap<(&SiteName, Use), Vec<Prefix>> = BTreeMap::new();
        if granularity == Granularity::Site {
            chunks = site_chunks(work);
        }
        for ((site, _), nodes) in nodes_of {
            let Some((_, _, name)) = nodes.first().and_then(|node| names(node, granularity)) else {
                continue;
            };
            let mut prefixes = Vec::new();
            for (used_for, class) in [(Use::Pod, Class::Pod), (Use::Mesh, Class::Mesh)] {
                let shares = nodes.iter().flat_map(|node| {
                    if used_for == Use::Pod {
                        &node.pods
                    } else {
                        &node.mesh
                    }
                });
                let set: PrefixSet = match granularity {
                    Granularity::Node => shares.copied().collect(),
                    Granularity::Site => chunks
                        .remove(&(site, used_for))
                        .unwrap_or_default()
                        .into_iter()
                        .chain(
                            shares
                                .copied()
                                .filter(|prefix| !work.book.is_own(site, *prefix)),
                        )
                        .collect(),
                };
                prefixes.extend(set.iter().map(|prefix| ClassPrefix { prefix, class }));
            }
            prefixes.sort_unstable();
            let gateways = self.gateways(work, &name, &nodes, report);
            segments.insert(
                name.clone(),
                Segment {
                    name,
                    site: site.clone(),
                    cluster: Some(work.name.clone()),
                    prefixes,
                    gateways,
                },
            );
        }
    }

    fn gateways(
        &self,
        work: &ClusterWork<'a>,
        segment: &SegmentName,
        nodes: &[&NodeWork<'a>],
        report: &mut Reporter,
    ) -> Vec<Gateway> {
        let node_granularity = self.link.topology.granularity == Granularity::Node;
        let selector = &work.cluster.gateway_selector;
        let candidates: Vec<Candidate> = nodes
            .iter()
            .filter(|node| node_granularity || carries(node.node, selector))
            .filter_map(|node| {
                Some(Candidate {
                    peer: node.id.peer().ok()?,
                    public: node
                        .node
                        .addresses
                        .iter()
                        .any(|(_, scope)| *scope == Scope::Public),
                    ready: node.node.ready,
                })
            })
            .collect();
        if candidates.is_empty() {
            let labels = listed(selector.iter().map(|(key, value)| format!("{key}={value}")));
            report.wait(
                "Cluster",
                work.name.as_str(),
                Some(self.name),
                "NoGateway",
                format!("no node of segment {segment} carries the labels of gateways.nodeSelector ({labels}), so nothing reaches it: label a node, or change the selector"),
            );
        }
        let wanted = if node_granularity {
            1
        } else {
            self.link.topology.gateways_per_site.clamp(1, 4)
        };
        let sitting = self
            .old
            .and_then(|old| find(old, segment))
            .map_or(&[][..], |old| &old.gateways);
        elect(candidates, sitting, wanted)
    }

    fn transit(
        &self,
        segments: &BTreeMap<SegmentName, Segment>,
        report: &mut Reporter,
    ) -> Option<SiteName> {
        let site = self.link.topology.transit_site.as_ref()?;
        if segments.values().any(|segment| segment.site == *site) {
            return Some(site.clone());
        }
        if self.fleet.sites.contains_key(site) {
            report.wait(
                "ClusterLink",
                self.name.as_str(),
                Some(self.name),
                "TransitSiteEmpty",
                format!("no node of a member cluster stands in topology.transitSite {site} yet, so sites that need it cannot reach each other"),
            );
        } else {
            let sites: BTreeSet<&SiteName> =
                segments.values().map(|segment| &segment.site).collect();
            report.refuse(
                "ClusterLink",
                self.name.as_str(),
                Some(self.name),
                "TransitSiteUnknown",
                format!("topology.transitSite {site} is no site of this link and no Site object: write one of {}", listed(sites)),
            );
        }
        None
    }

    fn sites(&self, segments: &BTreeMap<SegmentName, Segment>, vpns: &[PlanVpn]) -> Vec<PlanSite> {
        let names: BTreeSet<&SiteName> = segments
            .values()
            .map(|segment| &segment.site)
            .chain(vpns.iter().map(|vpn| &vpn.site))
            .chain(self.members.sites_of(self.name))
            .collect();
        names
            .into_iter()
            .map(|name| {
                let site = self.fleet.sites.get(name);
                PlanSite {
                    name: name.clone(),
                    cidrs: site.map(|site| site.cidrs.clone()).unwrap_or_default(),
                    behind_nat: site.is_some_and(|site| site.behind_nat),
                    public_addresses: site
                        .map(|site| site.public_addresses.clone())
                        .unwrap_or_default(),
                }
            })
            .collect()
    }

    fn super_nets(&self, clusters: &[PlanCluster], vpns: &[PlanVpn]) -> PrefixSet {
        let mut all: Vec<Prefix> = self.hub.pools(self.name, Use::Pod).to_vec();
        let mesh: Vec<Prefix> = self
            .clusters
            .iter()
            .flat_map(|work| self.hub.held(work.name, Use::Mesh))
            .copied()
            .collect();
        all.extend(self.hub.pools(self.name, Use::Mesh).iter().filter(|pool| {
            self.link.addressing.mesh_pools.contains(pool)
                || mesh.iter().any(|block| pool.contains(*block))
        }));
        all.extend(mesh);
        for cluster in clusters {
            all.extend(cluster.pod_cidrs.iter());
            all.extend(
                cluster
                    .service_cidrs
                    .iter()
                    .filter(|prefix| self.hub.exports_service(&cluster.name, *prefix)),
            );
        }
        for site in self.members.sites_of(self.name) {
            all.extend(
                self.fleet.sites[site]
                    .cidrs
                    .iter()
                    .filter(|prefix| self.hub.exports_lan(site, *prefix)),
            );
        }
        for vpn in vpns {
            all.extend(vpn.prefixes.iter());
        }
        all.into_iter().collect()
    }

    /// What planned ranges cover, but no planned host can have: addresses of gateways, sites and foreign boxes, and clusters'
    /// own service ranges.
    fn bypass(
        &self,
        super_nets: &PrefixSet,
        segments: &BTreeMap<SegmentName, Segment>,
        sites: &[PlanSite],
        vpns: &[PlanVpn],
    ) -> PrefixSet {
        let inner: PrefixSet = segments
            .values()
            .flat_map(|segment| &segment.prefixes)
            .filter(|entry| entry.class != Class::Lan)
            .map(|entry| entry.prefix)
            .collect();
        let gateways: BTreeSet<&PeerName> = segments
            .values()
            .flat_map(|segment| &segment.gateways)
            .map(|gateway| &gateway.peer)
            .collect();
        let nodes = self
            .clusters
            .iter()
            .flat_map(|work| &work.nodes)
            .filter(|node| {
                node.planned && node.id.peer().is_ok_and(|peer| gateways.contains(&peer))
            });
        let endpoints = sites
            .iter()
            .flat_map(|site| &site.public_addresses)
            .chain(vpns.iter().filter_map(|vpn| vpn.endpoint.as_ref()))
            .filter_map(|endpoint| match endpoint.host {
                EndpointHost::Address(address) => Some(address),
                EndpointHost::Name(_) => None,
            });
        let services = self
            .clusters
            .iter()
            .filter_map(|work| self.fleet.services_in_use.get(work.name))
            .flat_map(|ranges| ranges.minus(&inner).iter().collect::<Vec<_>>())
            .filter(|prefix| super_nets.overlapping(*prefix).is_some());
        nodes
            .flat_map(|node| node.node.addresses.iter().map(|(address, _)| *address))
            .chain(endpoints)
            .filter(|address| {
                super_nets.contains_address(*address) && !inner.contains_address(*address)
            })
            .map(Prefix::host)
            .chain(services)
            .collect()
    }
}

fn find<'p>(plan: &'p NetworkPlan, name: &SegmentName) -> Option<&'p Segment> {
    plan.segments
        .binary_search_by(|segment| segment.name.cmp(name))
        .ok()
        .map(|at| &plan.segments[at])
}

/// Chunks of each site, without what nodes took along to other sites.
fn site_chunks<'w, 'a>(work: &'w ClusterWork<'a>) -> BTreeMap<(&'w SiteName, Use), Vec<Prefix>> {
    let book: &Book<'a> = &work.book;
    let mut taken: BTreeMap<(&SiteName, Use), Vec<Prefix>> = BTreeMap::new();
    for node in work.nodes.iter().filter(|node| node.planned) {
        for &prefix in node.pods.iter().chain(&node.mesh) {
            if let Some(chunk) = book.chunk_of(prefix)
                && Some(chunk.site) != node.site
            {
                taken
                    .entry((chunk.site, chunk.used_for))
                    .or_default()
                    .push(prefix);
            }
        }
    }
    let mut chunks: BTreeMap<(&SiteName, Use), Vec<Prefix>> = BTreeMap::new();
    for (prefix, chunk) in book.chunks() {
        chunks
            .entry((chunk.site, chunk.used_for))
            .or_default()
            .push(prefix);
    }
    for (key, strays) in taken {
        if let Some(own) = chunks.get_mut(&key) {
            let rest = own
                .iter()
                .copied()
                .collect::<PrefixSet>()
                .minus(&strays.into_iter().collect());
            *own = rest.iter().collect();
        }
    }
    chunks
}
