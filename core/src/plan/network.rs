//! Grants to network plans: segments with prefixes by class, gateways, VPNs, super-nets.
//!
//! A plan is derived, but three things in it are sticky: gateways' ranks, which segment carries a service, LAN or VPN
//! range, and VPN indexes.

use super::book::Book;
use super::exports::Memory;
use super::gateways::{Candidate, elect};
use super::hub::Hub;
use super::members::{Members, carries};
use super::report::{Reporter, listed};
use super::work::{ClusterWork, NodeWork};
use super::{Before, NodePlan};
use crate::cidr::{Prefix, PrefixSet};
use crate::fleet::{Fleet, Granularity, Link};
use crate::ids::{ClusterName, LinkName, NodeId, PeerName, SegmentName, SiteName, VpnName};
use crate::ledger::{LedgerName, Owner, State, Use};
use crate::network_plan::{
    Allow, Class, ClassPrefix, Gateway, NetworkPlan, PlanCluster, PlanSite, PlanVpn, Segment,
};
use crate::peer::{EndpointHost, Scope};
use std::collections::{BTreeMap, BTreeSet};

/// VPNs that a site can have: device indexes 0 to 15.
const VPNS_PER_SITE: u8 = 16;

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
    let floor = hub_ledger.map_or(0, |ledger| ledger.revision);
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
        plan.revision = old.map_or(floor + 1, |old| old.revision);
        if old.is_some_and(|old| *old != plan) {
            plan.revision += 1;
        }
        plans.insert(name.clone(), plan);
    }
    plans
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
struct Draft<'d, 'a> {
    fleet: &'a Fleet,
    name: &'a LinkName,
    link: &'a Link,
    old: Option<&'a NetworkPlan>,
    members: &'d Members<'a>,
    hub: &'d Hub<'a>,
    clusters: Vec<&'d ClusterWork<'a>>,
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
            lineage: crate::ids::Lineage::clone(
                self.old.map_or(&self.hub.lineage, |old| &old.lineage),
            ),
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

    /// Each cluster's services go to one of its segments.
    fn carry_services(
        &self,
        segments: &BTreeMap<SegmentName, Segment>,
        prefixes: &mut BTreeMap<SegmentName, Vec<ClassPrefix>>,
    ) {
        let mut first: BTreeMap<&ClusterName, &SegmentName> = BTreeMap::new();
        for (name, segment) in segments {
            if let Some(cluster) = &segment.cluster {
                first.entry(cluster).or_insert(name);
            }
        }
        for (_, segment) in self.sitting(segments) {
            if let Some(cluster) = &segment.cluster
                && segment
                    .prefixes
                    .iter()
                    .any(|entry| entry.class == Class::Service)
                && let Some(carrier) = first.get_mut(cluster)
            {
                *carrier = &segment.name;
            }
        }
        for (cluster, carrier) in first {
            let exported = self.fleet.clusters[cluster]
                .service_cidrs
                .iter()
                .filter(|prefix| self.hub.exports_service(cluster, *prefix));
            prefixes
                .entry(carrier.clone())
                .or_default()
                .extend(exported.map(|prefix| ClassPrefix {
                    prefix,
                    class: Class::Service,
                }));
        }
    }

    /// Each member site's LAN goes to one of the segments there.
    fn carry_lans(
        &self,
        segments: &BTreeMap<SegmentName, Segment>,
        prefixes: &mut BTreeMap<SegmentName, Vec<ClassPrefix>>,
        report: &mut Reporter,
    ) {
        for site in self.members.sites_of(self.name) {
            let sitting = self.sitting(segments).map(|(_, old)| old).find(|old| {
                old.site == *site && old.prefixes.iter().any(|entry| entry.class == Class::Lan)
            });
            let first = || segments.values().find(|segment| segment.site == *site);
            let Some(carrier) = sitting.or_else(first) else {
                report.wait(
                    "Site",
                    site.as_str(),
                    Some(self.name),
                    "NoSegment",
                    format!("Site {site} is a member of ClusterLink {}, but no node of a member cluster stands in it, so its cidrs are not reachable yet", self.name),
                );
                continue;
            };
            let exported = self.fleet.sites[site]
                .cidrs
                .iter()
                .filter(|prefix| self.hub.exports_lan(site, *prefix));
            prefixes
                .entry(carrier.name.clone())
                .or_default()
                .extend(exported.map(|prefix| ClassPrefix {
                    prefix,
                    class: Class::Lan,
                }));
        }
    }

    fn vpns(
        &self,
        segments: &BTreeMap<SegmentName, Segment>,
        prefixes: &mut BTreeMap<SegmentName, Vec<ClassPrefix>>,
        indexes: &mut VpnIndexes<'a>,
        report: &mut Reporter,
    ) -> Vec<PlanVpn> {
        let mut vpns = Vec::new();
        for name in self.members.vpns_of(self.name) {
            let vpn = &self.fleet.vpns[name];
            let exported: PrefixSet = vpn
                .prefixes
                .iter()
                .filter(|prefix| self.hub.exports_vpn(name, *prefix))
                .collect();
            if exported.is_empty() {
                continue; // every range clashes, which is reported
            }
            let old = self.old.and_then(|old| {
                old.vpns
                    .iter()
                    .find(|old| old.name == *name && old.site == vpn.site)
            });
            let sitting = old
                .and_then(|old| segments.get(&old.segment))
                .filter(|segment| segment.site == vpn.site);
            let Some(carrier) =
                sitting.or_else(|| segments.values().find(|segment| segment.site == vpn.site))
            else {
                report.wait(
                    "VpnAttachment",
                    name.as_str(),
                    Some(self.name),
                    "NoSegment",
                    format!("site {} of VpnAttachment {name} has no node of a member cluster of ClusterLink {} yet, so nothing terminates the VPN", vpn.site, self.name),
                );
                continue;
            };
            let Some(index) = indexes.of(name, &vpn.site) else {
                report.refuse(
                    "VpnAttachment",
                    name.as_str(),
                    Some(self.name),
                    "TooManyVpns",
                    format!("site {} has {VPNS_PER_SITE} VPNs already: move VpnAttachment {name} to another site", vpn.site),
                );
                continue;
            };
            self.check_allow(name, report);
            prefixes
                .entry(carrier.name.clone())
                .or_default()
                .extend(exported.iter().map(|prefix| ClassPrefix {
                    prefix,
                    class: Class::Vpn,
                }));
            vpns.push(PlanVpn {
                name: name.clone(),
                site: vpn.site.clone(),
                segment: carrier.name.clone(),
                index,
                prefixes: exported,
                allow: Allow {
                    clusters: vpn.allow_clusters.clone(),
                    sites: vpn.allow_sites.clone(),
                },
                peer_public_key: vpn.peer_public_key,
                endpoint: vpn.endpoint.clone(),
                preshared_key: vpn.preshared_key,
            });
        }
        vpns
    }

    fn check_allow(&self, name: &VpnName, report: &mut Reporter) {
        let vpn = &self.fleet.vpns[name];
        let clusters: BTreeSet<_> = self.members.clusters_of(self.name).collect();
        let sites: BTreeSet<_> = self.members.sites_of(self.name).collect();
        let strangers: Vec<String> = vpn
            .allow_clusters
            .iter()
            .filter(|cluster| !clusters.contains(cluster))
            .map(|cluster| format!("Cluster {cluster}"))
            .chain(
                vpn.allow_sites
                    .iter()
                    .filter(|site| !sites.contains(site))
                    .map(|site| format!("Site {site}")),
            )
            .collect();
        if !strangers.is_empty() {
            report.wait(
                "VpnAttachment",
                name.as_str(),
                Some(self.name),
                "AllowNotMember",
                format!("allow names {}, no member of ClusterLink {}: add it to the link's members, or take it out of allow", listed(strangers), self.name),
            );
        }
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

    /// Addresses of gateways, sites and foreign boxes that planned ranges cover, but that no planned host can have.
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
        nodes
            .flat_map(|node| node.node.addresses.iter().map(|(address, _)| *address))
            .chain(endpoints)
            .filter(|address| {
                super_nets.contains_address(*address) && !inner.contains_address(*address)
            })
            .map(Prefix::host)
            .collect()
    }

    /// Segments of the old plan that are there still.
    fn sitting<'s>(
        &'s self,
        segments: &'s BTreeMap<SegmentName, Segment>,
    ) -> impl Iterator<Item = (&'s Segment, &'a Segment)> + 's {
        self.old
            .into_iter()
            .flat_map(|old| &old.segments)
            .filter_map(|old| Some((segments.get(&old.name)?, old)))
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

/// Device indexes of VPNs, unique within a site over all links.
struct VpnIndexes<'a> {
    taken: BTreeMap<(&'a SiteName, u8), &'a VpnName>,
}

impl<'a> VpnIndexes<'a> {
    /// What plans use already.
    fn reserve(before: &'a Before, memory: &Memory<'a>) -> Self {
        let mut taken = BTreeMap::new();
        for plan in before.plans.values() {
            for vpn in plan
                .vpns
                .iter()
                .filter(|vpn| memory.has_vpn(&plan.link, &vpn.name))
            {
                taken.entry((&vpn.site, vpn.index)).or_insert(&vpn.name);
            }
        }
        Self { taken }
    }

    /// The index of a VPN: what it has, else the lowest free one.
    fn of(&mut self, name: &'a VpnName, site: &'a SiteName) -> Option<u8> {
        if let Some((_, index)) = self
            .taken
            .range((site, 0)..=(site, u8::MAX))
            .find(|(_, owner)| **owner == name)
            .map(|(key, _)| *key)
        {
            return Some(index);
        }
        let index = (0..VPNS_PER_SITE).find(|index| !self.taken.contains_key(&(site, *index)))?;
        self.taken.insert((site, index), name);
        Some(index)
    }
}

/// Nodes of links that are only shown: as their plan and their ledgers have them.
pub(super) fn kept_nodes(
    fleet: &Fleet,
    before: &Before,
    members: &Members<'_>,
) -> BTreeMap<NodeId, NodePlan> {
    let mut nodes = BTreeMap::new();
    for (link, plan) in &before.plans {
        if !fleet.links.contains_key(link) || members.links.contains(&link) {
            continue;
        }
        let ranks = ranks(plan);
        for cluster in &plan.clusters {
            let Some(ledger) = before
                .ledgers
                .get(&LedgerName::Cluster(cluster.name.clone()))
            else {
                continue;
            };
            let mut shares: BTreeMap<NodeId, (Vec<Prefix>, Vec<Prefix>)> = BTreeMap::new();
            for grant in ledger
                .grants
                .iter()
                .filter(|grant| grant.state != State::Released)
            {
                if let Owner::Node(node) = &grant.owner {
                    let id = NodeId {
                        cluster: cluster.name.clone(),
                        node: node.clone(),
                    };
                    let (pods, mesh) = shares.entry(id).or_default();
                    if grant.used_for == Use::Pod {
                        pods
                    } else {
                        mesh
                    }
                    .push(grant.prefix);
                }
            }
            for (id, (pods, mesh)) in shares {
                let Some(segment) = plan.segments.iter().find(|segment| {
                    segment.cluster.as_ref() == Some(&id.cluster)
                        && mesh
                            .first()
                            .is_some_and(|own| segment.of(&[Class::Mesh]).contains(*own))
                }) else {
                    continue;
                };
                let Ok(peer) = id.peer() else { continue };
                let kept = NodePlan {
                    link: link.clone(),
                    gateway_rank: ranks.get(&peer).copied(),
                    peer,
                    site: segment.site.clone(),
                    segment: segment.name.clone(),
                    pod_cidrs: pods,
                    mesh_addresses: mesh.iter().map(|prefix| prefix.address()).collect(),
                    assign: Vec::new(),
                    addresses: fleet
                        .nodes
                        .get(&id)
                        .map(|node| node.addresses.clone())
                        .unwrap_or_default(),
                };
                nodes.insert(id, kept);
            }
        }
    }
    nodes
}
