//! Who names what: which link uses a cluster, a site or a VPN. Made once for each plan, so that no question about one object
//! walks all links. Pure.

use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use tieline_core::ids::{ClusterName, LinkName, SiteName, VpnName};
use tieline_core::network_plan::NetworkPlan;
use tieline_core::plan::Proposal;

/// The users of each object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses {
    named: BTreeMap<ClusterName, BTreeSet<LinkName>>,
    kept: BTreeSet<ClusterName>,
    vpns: BTreeMap<VpnName, BTreeSet<LinkName>>,
    kept_vpns: BTreeSet<VpnName>,
    member_sites: BTreeMap<SiteName, BTreeSet<LinkName>>,
    sites: BTreeMap<SiteName, BTreeSet<String>>,
}

impl Uses {
    /// Reads what links say, what plans carry, and what plans keep whose link cannot be read.
    #[must_use]
    pub fn of(world: &World, proposal: &Proposal) -> Self {
        let mut uses = Self::default();
        for (link, spec) in &world.fleet.links {
            let user = format!("ClusterLink {link}");
            for cluster in &spec.clusters {
                note(&mut uses.named, cluster, link.clone());
            }
            for site in &spec.sites {
                note(&mut uses.member_sites, site, link.clone());
                note(&mut uses.sites, site, user.clone());
            }
            if let Some(site) = &spec.topology.transit_site {
                note(&mut uses.sites, site, user.clone());
            }
            let planned = proposal.plans.get(link);
            for site in planned.iter().flat_map(|plan| &plan.sites) {
                note(&mut uses.sites, &site.name, user.clone());
            }
            for name in &spec.vpns {
                note(&mut uses.vpns, name, link.clone());
                let Some(vpn) = world.fleet.vpns.get(name) else {
                    continue;
                };
                for site in vpn.allow_sites.iter().chain([&vpn.site]) {
                    note(&mut uses.sites, site, format!("VpnAttachment {name}"));
                }
            }
        }
        for plan in kept_plans(world) {
            let user = format!("ClusterLink {}", plan.link);
            uses.kept
                .extend(plan.clusters.iter().map(|it| it.name.clone()));
            uses.kept_vpns
                .extend(plan.vpns.iter().map(|it| it.name.clone()));
            for site in &plan.sites {
                note(&mut uses.sites, &site.name, user.clone());
            }
        }
        uses
    }

    /// Links that name a cluster.
    pub fn links_of_cluster(&self, cluster: &str) -> impl Iterator<Item = &LinkName> {
        self.named.get(cluster).into_iter().flatten()
    }

    /// Links that name a VPN.
    pub fn links_of_vpn(&self, vpn: &str) -> impl Iterator<Item = &LinkName> {
        self.vpns.get(vpn).into_iter().flatten()
    }

    /// Links of which a site is a member.
    pub fn links_of_site(&self, site: &SiteName) -> impl Iterator<Item = &LinkName> {
        self.member_sites.get(site).into_iter().flatten()
    }

    /// Whether a link names the cluster, or a plan keeps it.
    #[must_use]
    pub fn uses_cluster(&self, cluster: &str) -> bool {
        self.named.contains_key(cluster) || self.kept.contains(cluster)
    }

    /// Whether a link names the VPN, or a plan keeps it.
    #[must_use]
    pub fn uses_vpn(&self, vpn: &str) -> bool {
        self.vpns.contains_key(vpn) || self.kept_vpns.contains(vpn)
    }

    /// Who uses a site, in words.
    pub fn of_site(&self, site: &str) -> impl Iterator<Item = &String> {
        self.sites.get(site).into_iter().flatten()
    }
}

/// Plans that stay as they are, because their link cannot be read.
fn kept_plans(world: &World) -> impl Iterator<Item = &NetworkPlan> {
    let plans = world.before.plans.iter();
    plans
        .filter(|(link, _)| world.aside.contains_key(*link))
        .map(|(_, plan)| plan)
}

fn note<K: Ord + Clone, V: Ord>(users: &mut BTreeMap<K, BTreeSet<V>>, of: &K, user: V) {
    match users.get_mut(of) {
        Some(held) => drop(held.insert(user)),
        None => drop(users.insert(of.clone(), BTreeSet::from([user]))),
    }
}
