//! Offers to network plans: segments with prefixes by class, gateways, VPNs, super-nets.
//!
//! A plan is derived, but three things in it are sticky: gateways' ranks, which segment carries a service, LAN or VPN
//! range, and VPN indexes.

use super::book::HubBook;
use super::carriers::Carriers;
use super::exports::StandingExports;
use super::membership::Membership;
use super::vpn_indexes::VpnIndexes;
use crate::cidr::{Prefix, PrefixSet};
use crate::fleet::{Fleet, Link};
use crate::ids::{LinkName, SegmentName, SiteName};
use crate::ledger::Use;
use crate::network_plan::{
    Class, ClassPrefix, NetworkPlan, PlanCluster, PlanSite, PlanVpn, Segment,
};
use crate::notice::{About, Reason};
use crate::peer::EndpointHost;
use crate::plan::exchange::{Offer, SegmentOffer, Wish};
use crate::plan::proposal::Before;
use crate::plan::report::{Reporter, listed};
use std::collections::{BTreeMap, BTreeSet};

/// A cluster that takes part, and what it offers.
pub(super) type Offering<'d, 'a> = (&'d Wish<'a>, &'d Offer);

/// Plans of all links: new ones of the planned links, old ones of the others.
pub(super) fn plans<'d, 'a>(
    fleet: &'a Fleet,
    before: &'a Before,
    members: &'d Membership<'a>,
    standing: &StandingExports<'a>,
    hub: &'d HubBook<'a>,
    offerings: impl Iterator<Item = Offering<'d, 'a>>,
    report: &mut Reporter,
) -> BTreeMap<LinkName, NetworkPlan> {
    let mut indexes = VpnIndexes::reserve(before, standing);
    let next = before.highest_revision() + 1;
    let planned: BTreeSet<&LinkName> = members.links.iter().copied().collect();
    let mut clusters: BTreeMap<&LinkName, Vec<Offering<'d, 'a>>> = BTreeMap::new();
    for (wish, offer) in offerings {
        clusters.entry(wish.link).or_default().push((wish, offer));
    }
    let mut plans = BTreeMap::new();
    for (name, link) in &fleet.links {
        let old = before.plans.get(name);
        if !planned.contains(name) {
            plans.extend(old.map(|plan| (name.clone(), plan.clone())));
            continue;
        }
        let carriers = Carriers {
            fleet,
            name,
            old,
            members,
            hub,
        };
        let draft = Draft {
            fleet,
            name,
            link,
            members,
            hub,
            carriers,
            clusters: clusters.remove(name).unwrap_or_default(),
        };
        let mut plan = draft.plan(&mut indexes, report);
        plan.lineage = before.lineage().clone();
        plan.revision = old.map_or(0, |old| old.revision);
        if old != Some(&plan) {
            plan.revision = next;
        }
        plans.insert(name.clone(), plan);
    }
    plans
}

/// One link's plan while it is made.
struct Draft<'d, 'a> {
    fleet: &'a Fleet,
    name: &'a LinkName,
    link: &'a Link,
    members: &'d Membership<'a>,
    hub: &'d HubBook<'a>,
    carriers: Carriers<'d, 'a>,
    clusters: Vec<Offering<'d, 'a>>,
}

impl<'a> Draft<'_, 'a> {
    /// The plan; its lineage and revision are set by the caller, who knows what was before.
    fn plan(&self, indexes: &mut VpnIndexes<'a>, report: &mut Reporter) -> NetworkPlan {
        let mut segments = self.segments();
        let mut prefixes: BTreeMap<SegmentName, Vec<ClassPrefix>> = BTreeMap::new();
        self.carriers.carry_services(&segments, &mut prefixes);
        self.carriers.carry_lans(&segments, &mut prefixes, report);
        let vpns = self
            .carriers
            .vpns(&segments, &mut prefixes, indexes, report);
        for (name, extra) in prefixes {
            if let Some(segment) = segments.get_mut(&name) {
                segment.prefixes.extend(extra);
                segment.prefixes.sort_unstable();
            }
        }
        let clusters: Vec<PlanCluster> = self
            .clusters
            .iter()
            .map(|(wish, _)| PlanCluster {
                name: wish.name.clone(),
                pod_cidrs: self.hub.holdings(wish).pods.iter().copied().collect(),
                service_cidrs: wish.cluster.service_cidrs.clone(),
            })
            .collect();
        let sites = self.sites(&segments, &vpns);
        let super_nets = self.super_nets(&clusters, &vpns);
        let bypass = self.bypass(&super_nets, &segments, &sites, &vpns);
        NetworkPlan {
            link: self.name.clone(),
            lineage: self.hub.lineage.clone(),
            revision: 0,
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

    /// What clusters offer, as segments.
    fn segments(&self) -> BTreeMap<SegmentName, Segment> {
        let offers = self.clusters.iter().flat_map(|(wish, offer)| {
            let own = offer.segments.iter();
            own.map(|offer| (wish.name, offer))
        });
        offers
            .map(|(cluster, offer)| {
                let segment = Segment {
                    name: offer.name.clone(),
                    site: offer.site.clone(),
                    cluster: Some(cluster.clone()),
                    prefixes: offer.prefixes.clone(),
                    gateways: offer.gateways.clone(),
                };
                (offer.name.clone(), segment)
            })
            .collect()
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
                About::ClusterLink(self.name.clone()),
                Some(self.name),
                Reason::TransitSiteEmpty,
                format!("no node of a member cluster stands in topology.transitSite {site} yet, so sites that need it cannot reach each other"),
            );
        } else {
            let sites: BTreeSet<&SiteName> =
                segments.values().map(|segment| &segment.site).collect();
            report.refuse(
                About::ClusterLink(self.name.clone()),
                Some(self.name),
                Reason::TransitSiteUnknown,
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
        let mut all: Vec<Prefix> = self.hub.pools.of(self.name, Use::Pod).to_vec();
        let mesh: Vec<Prefix> = self
            .clusters
            .iter()
            .flat_map(|(wish, _)| &self.hub.holdings(wish).mesh)
            .copied()
            .collect();
        let blocks: BTreeSet<Prefix> = mesh.iter().copied().collect();
        let first = |pool: Prefix| blocks.range(pool..).next().copied();
        all.extend(
            self.hub
                .pools
                .of(self.name, Use::Mesh)
                .iter()
                .filter(|pool| {
                    self.link.addressing.mesh_pools.contains(pool)
                        || first(**pool).is_some_and(|block| pool.contains(block))
                }),
        );
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
        let offers = self.clusters.iter().flat_map(|(_, offer)| &offer.segments);
        let gateways = offers.flat_map(|offer: &SegmentOffer| &offer.underlay);
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
            .filter_map(|(wish, _)| self.fleet.services_in_use.get(wish.name))
            .flat_map(|ranges| ranges.minus(&inner).iter().collect::<Vec<_>>())
            .filter(|prefix| super_nets.overlapping(*prefix).is_some());
        gateways
            .copied()
            .chain(endpoints)
            .filter(|address| {
                super_nets.contains_address(*address) && !inner.contains_address(*address)
            })
            .map(Prefix::host)
            .chain(services)
            .collect()
    }
}
