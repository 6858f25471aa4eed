//! What belongs to no node: services, LANs and VPNs are carried where they may be.

use crate::check::case::Case;
use crate::check::invariant::Invariant;
use crate::ids::{ClusterName, SegmentName, SiteName};
use crate::network_plan::{Class, ClassPrefix, NetworkPlan};
use std::collections::BTreeMap;

/// Proves it of one plan.
pub(super) fn check(case: &mut Case<'_>, plan: &NetworkPlan) {
    exports(case, plan);
    vpns(case, plan);
}

/// Services and LANs are exported by members only, each from one segment that may.
fn exports(case: &mut Case<'_>, plan: &NetworkPlan) {
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
                case.find(
                    Invariant::MayCarry,
                    format!(
                        "plan {link}: segment {} may not carry {} ({:?})",
                        segment.name, entry.prefix, entry.class
                    ),
                );
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
            case.find(
                Invariant::IsMember,
                format!("plan {link}: VpnAttachment {name} is no member"),
            );
            continue;
        };
        if vpn.site != wanted.site
            || vpn.allow.clusters != wanted.allow_clusters
            || vpn.allow.sites != wanted.allow_sites
        {
            let message = format!(
                "plan {link}: VpnAttachment {name} has another site or other allow lists than its object"
            );
            case.find(Invariant::VpnAsWanted, message);
        }
        let Some(segment) = plan
            .segment(&vpn.segment)
            .filter(|segment| segment.site == vpn.site)
        else {
            case.find(
                Invariant::VpnEndsInSite,
                format!(
                    "plan {link}: VpnAttachment {name} ends in {}, which is no segment of Site {}",
                    vpn.segment, vpn.site
                ),
            );
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
                let message = format!(
                    "plan {link}: VpnAttachment {name} has {prefix}, but its object or segment {} has not",
                    segment.name
                );
                case.find(Invariant::VpnIsCarried, message);
            }
        }
    }
}

/// Device indexes are in bounds, one VPN's each within a site, and stay.
pub(super) fn vpn_indexes(case: &mut Case<'_>) {
    let mut taken: BTreeMap<(&SiteName, u8), &str> = BTreeMap::new();
    for (link, plan) in &case.proposal.plans {
        for vpn in &plan.vpns {
            if vpn.index > 15 {
                case.find(
                    Invariant::VpnIndexInBounds,
                    format!(
                        "plan {link}: VpnAttachment {} has index {}, above 15",
                        vpn.name, vpn.index
                    ),
                );
            }
            if let Some(other) = taken.insert((&vpn.site, vpn.index), vpn.name.as_str()) {
                case.find(
                    Invariant::VpnIndexIsUnique,
                    format!(
                        "VpnAttachments {other} and {} share index {} of Site {}",
                        vpn.name, vpn.index, vpn.site
                    ),
                );
            }
            let old = case
                .before
                .plans
                .get(link)
                .and_then(|old| old.vpns.iter().find(|old| old.name == vpn.name));
            if old.is_some_and(|old| old.site == vpn.site && old.index != vpn.index) {
                case.find(
                    Invariant::VpnIndexStays,
                    format!("plan {link}: VpnAttachment {} changes its index", vpn.name),
                );
            }
        }
    }
}
