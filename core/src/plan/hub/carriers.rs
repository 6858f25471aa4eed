//! Which segment carries what belongs to no node: services, LANs, VPNs. Sticky: the segment that carries it goes on.

use super::book::HubBook;
use super::membership::Membership;
use super::vpn_indexes::{VPNS_PER_SITE, VpnIndexes};
use crate::cidr::PrefixSet;
use crate::fleet::Fleet;
use crate::ids::{ClusterName, LinkName, SegmentName, VpnName};
use crate::network_plan::{Allow, Class, ClassPrefix, NetworkPlan, PlanVpn, Segment};
use crate::notice::{About, Reason};
use crate::plan::report::{Reporter, listed};
use std::collections::{BTreeMap, BTreeSet};

/// What one link's carriers are chosen from.
pub(super) struct Carriers<'d, 'a> {
    /// What users want.
    pub(super) fleet: &'a Fleet,
    /// The link.
    pub(super) name: &'a LinkName,
    /// Its plan as it stands.
    pub(super) old: Option<&'a NetworkPlan>,
    /// Who belongs to it.
    pub(super) members: &'d Membership<'a>,
    /// What is exported.
    pub(super) hub: &'d HubBook<'a>,
}

impl<'a> Carriers<'_, 'a> {
    /// Each cluster's services go to one of its segments.
    pub(super) fn carry_services(
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
            for prefix in exported {
                let class = Class::Service;
                let carried = prefixes.entry(carrier.clone()).or_default();
                carried.push(ClassPrefix { prefix, class });
            }
        }
    }

    /// Each member site's LAN goes to one of the segments there.
    pub(super) fn carry_lans(
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
                    About::Site(site.clone()),
                    Some(self.name),
                    Reason::NoSegment,
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

    pub(super) fn vpns(
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
                    About::VpnAttachment(name.clone()),
                    Some(self.name),
                    Reason::NoSegment,
                    format!("site {} of VpnAttachment {name} has no node of a member cluster of ClusterLink {} yet, so nothing terminates the VPN", vpn.site, self.name),
                );
                continue;
            };
            let Some(index) = indexes.of(name, &vpn.site) else {
                report.refuse(
                    About::VpnAttachment(name.clone()),
                    Some(self.name),
                    Reason::TooManyVpns,
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
                About::VpnAttachment(name.clone()),
                Some(self.name),
                Reason::AllowNotMember,
                format!("allow names {}, no member of ClusterLink {}: add it to the link's members, or take it out of allow", listed(strangers), self.name),
            );
        }
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
