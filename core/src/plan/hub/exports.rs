//! Service, LAN and VPN ranges that plans export already: they keep their place while they are wanted.
//!
//! What stops being carried in a run (its segment is gone) must not keep others out of that very run, or the next run
//! would decide otherwise. So a run that loses an export is done again without the memory of it.

use crate::cidr::{Family, Prefix};
use crate::fleet::{Fleet, Mode};
use crate::ids::{ClusterName, LinkName, SiteName, VpnName};
use crate::network_plan::{Class, NetworkPlan};
use crate::plan::proposal::Before;
use std::collections::{BTreeMap, BTreeSet};

/// Who exports a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::plan) enum Exporter<'a> {
    /// A cluster its services.
    Services(&'a ClusterName),
    /// A site its LAN.
    Lan(&'a SiteName),
    /// A VPN what lies behind it.
    Vpn(&'a VpnName),
}

/// A range that a link's plan exports.
pub(in crate::plan) type Export<'a> = (&'a LinkName, Exporter<'a>, Prefix);

/// What plans export and users still want.
#[derive(Debug, Clone, Default)]
pub(in crate::plan) struct StandingExports<'a> {
    exports: BTreeSet<Export<'a>>,
    /// VPNs that plans have, also where all their ranges are new: they keep their link and their index.
    vpns: BTreeSet<(&'a LinkName, &'a VpnName)>,
}

impl<'a> StandingExports<'a> {
    /// Reads the plans as they stand. A link that is only shown is applied as it was, wanted or not.
    pub(in crate::plan) fn of(
        fleet: &'a Fleet,
        before: &'a Before,
        active: &BTreeSet<&LinkName>,
    ) -> Self {
        let mut standing = Self::default();
        for (name, plan) in &before.plans {
            let Some(link) = fleet.links.get(name) else {
                continue;
            };
            let frozen = link.mode == Mode::Plan && !active.contains(name);
            let keeps = |vpn: &VpnName, site: &SiteName| {
                frozen
                    || (link.vpns.contains(vpn)
                        && fleet.vpns.get(vpn).is_some_and(|own| own.site == *site))
            };
            let vpns = plan
                .vpns
                .iter()
                .filter(|vpn| keeps(&vpn.name, &vpn.site))
                .map(|vpn| (name, &vpn.name));
            standing.vpns.extend(vpns);
            let known = &standing.vpns;
            standing
                .exports
                .extend(exports(plan).filter(|(_, exporter, prefix)| {
                    frozen
                        || match exporter {
                            Exporter::Services(cluster) => {
                                link.clusters.contains(*cluster)
                                    && fleet
                                        .clusters
                                        .get(*cluster)
                                        .is_some_and(|own| own.service_cidrs.contains(*prefix))
                            }
                            Exporter::Lan(site) => {
                                link.sites.contains(*site)
                                    && fleet
                                        .sites
                                        .get(*site)
                                        .is_some_and(|own| own.cidrs.contains(*prefix))
                            }
                            Exporter::Vpn(vpn) => {
                                known.contains(&(name, *vpn))
                                    && fleet
                                        .vpns
                                        .get(*vpn)
                                        .is_some_and(|own| own.prefixes.contains(*prefix))
                            }
                        }
                }));
        }
        standing
    }

    /// All exports.
    pub(in crate::plan) fn iter(&self) -> impl Iterator<Item = Export<'a>> + '_ {
        self.exports.iter().copied()
    }

    /// Whether a link's plan exports anything for a site.
    pub(in crate::plan) fn has_lan(&self, link: &LinkName, site: &SiteName) -> bool {
        let from = (link, Exporter::Lan(site), Prefix::everything(Family::V4));
        self.exports
            .range(from..)
            .next()
            .is_some_and(|(own, other, _)| *own == link && *other == from.1)
    }

    /// Whether a link's plan has a VPN.
    pub(in crate::plan) fn has_vpn(&self, link: &LinkName, vpn: &VpnName) -> bool {
        self.vpns.contains(&(link, vpn))
    }

    /// Forgets what the new plans do not have; whether there was anything to forget.
    pub(in crate::plan) fn forget_lost(&mut self, plans: &BTreeMap<LinkName, NetworkPlan>) -> bool {
        let carried: BTreeSet<Export<'_>> = plans.values().flat_map(exports).collect();
        let vpns: BTreeSet<_> = plans
            .values()
            .flat_map(|plan| plan.vpns.iter().map(|vpn| (&plan.link, &vpn.name)))
            .collect();
        let before = (self.exports.len(), self.vpns.len());
        self.exports.retain(|export| carried.contains(export));
        self.vpns.retain(|vpn| vpns.contains(vpn));
        (self.exports.len(), self.vpns.len()) != before
    }
}

fn exports(plan: &NetworkPlan) -> impl Iterator<Item = Export<'_>> {
    let link = &plan.link;
    let ordered = plan.segments.iter().flat_map(move |segment| {
        segment
            .prefixes
            .iter()
            .filter_map(move |entry| match (entry.class, &segment.cluster) {
                (Class::Service, Some(cluster)) => {
                    Some((link, Exporter::Services(cluster), entry.prefix))
                }
                (Class::Lan, _) => Some((link, Exporter::Lan(&segment.site), entry.prefix)),
                _ => None,
            })
    });
    let vpns = plan.vpns.iter().flat_map(move |vpn| {
        vpn.prefixes
            .iter()
            .map(move |prefix| (link, Exporter::Vpn(&vpn.name), prefix))
    });
    ordered.chain(vpns)
}
