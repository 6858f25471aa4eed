//! Who is a member of which link, and which node stands in which site.
//!
//! A member belongs to one link. Where two name it, the link that has it already keeps it, else the first by name.

use super::exports::StandingExports;
use super::ranges::Relations;
use crate::fleet::{Cluster, Fleet, SiteSource};
use crate::ids::{ClusterName, LinkName, SiteName, VpnName};
use crate::network_plan::{Class, NetworkPlan};
use crate::notice::{About, Reason};
use crate::plan::proposal::Before;
use crate::plan::report::Reporter;
use std::collections::{BTreeMap, BTreeSet};

/// Membership by link.
pub(super) struct Membership<'a> {
    fleet: &'a Fleet,
    /// Links that are planned, by name.
    pub(super) links: Vec<&'a LinkName>,
    /// The link of each cluster, links that are not planned now included.
    clusters: BTreeMap<&'a ClusterName, &'a LinkName>,
    /// The link of each member site.
    sites: BTreeMap<&'a SiteName, &'a LinkName>,
    /// The link of each VPN.
    vpns: BTreeMap<&'a VpnName, &'a LinkName>,
    /// Sites that clusters name or have nodes in.
    own_sites: BTreeMap<&'a ClusterName, Vec<SiteName>>,
}

impl<'a> Membership<'a> {
    /// Settles who belongs where. `active` are the links that are planned now; others hold what their plan has.
    pub(super) fn settle(
        fleet: &'a Fleet,
        before: &'a Before,
        active: &BTreeSet<&'a LinkName>,
        standing: &StandingExports<'a>,
        report: &mut Reporter,
    ) -> Self {
        let links: Vec<&LinkName> = fleet
            .links
            .keys()
            .filter(|link| active.contains(link))
            .collect();
        let frozen: Vec<&NetworkPlan> = fleet
            .links
            .keys()
            .filter(|link| !active.contains(link))
            .filter_map(|link| before.plans.get(link))
            .collect();
        let planned = |link: &LinkName| before.plans.get(link);

        let mut settler = Settler {
            links: &links,
            fleet,
            report,
        };
        let clusters = settler.settle(
            About::Cluster,
            Reason::ClusterNotFound,
            frozen
                .iter()
                .flat_map(|plan| plan.clusters.iter().map(|c| (&c.name, &plan.link)))
                .collect(),
            |link| &link.clusters,
            |link, name| {
                planned(link).is_some_and(|plan| {
                    plan.clusters.binary_search_by(|c| c.name.cmp(name)).is_ok()
                })
            },
            |name| fleet.clusters.contains_key(name),
        );
        let sites = settler.settle(
            About::Site,
            Reason::SiteNotFound,
            frozen
                .iter()
                .flat_map(|plan| lan_sites(plan).map(|site| (site, &plan.link)))
                .collect(),
            |link| &link.sites,
            |link, name| standing.has_lan(link, name),
            |name| fleet.sites.contains_key(name),
        );
        let vpns = settler.settle(
            About::VpnAttachment,
            Reason::VpnAttachmentNotFound,
            frozen
                .iter()
                .flat_map(|plan| plan.vpns.iter().map(|v| (&v.name, &plan.link)))
                .collect(),
            |link| &link.vpns,
            |link, name| standing.has_vpn(link, name),
            |name| fleet.vpns.contains_key(name),
        );
        let own_sites = fleet
            .clusters
            .iter()
            .map(|(name, cluster)| (name, named_sites(cluster).into_iter().cloned().collect()))
            .collect();
        Self {
            fleet,
            links,
            clusters,
            sites,
            vpns,
            own_sites,
        }
    }

    /// Records that a cluster has nodes in some sites.
    pub(super) fn adopt_sites(&mut self, cluster: &'a ClusterName, sites: &[SiteName]) {
        let own = self.own_sites.entry(cluster).or_default();
        own.extend(sites.iter().cloned());
    }

    /// The member clusters of a planned link, by name.
    pub(super) fn clusters_of<'s>(
        &'s self,
        link: &'s LinkName,
    ) -> impl Iterator<Item = &'a ClusterName> + 's {
        self.fleet.links[link]
            .clusters
            .iter()
            .filter(|name| is(&self.clusters, name, link))
    }

    /// The member sites of a planned link that exist, by name.
    pub(super) fn sites_of<'s>(
        &'s self,
        link: &'s LinkName,
    ) -> impl Iterator<Item = &'a SiteName> + 's {
        self.fleet.links[link]
            .sites
            .iter()
            .filter(|name| is(&self.sites, name, link))
    }

    /// The VPNs of a planned link, by name.
    pub(super) fn vpns_of<'s>(
        &'s self,
        link: &'s LinkName,
    ) -> impl Iterator<Item = &'a VpnName> + 's {
        self.fleet.links[link]
            .vpns
            .iter()
            .filter(|name| is(&self.vpns, name, link))
    }

    /// The link that a member site belongs to.
    pub(super) fn link_of_site(&self, site: &SiteName) -> Option<&'a LinkName> {
        self.sites.get(site).copied()
    }

    /// The link that a VPN belongs to.
    pub(super) fn link_of_vpn(&self, vpn: &VpnName) -> Option<&'a LinkName> {
        self.vpns.get(vpn).copied()
    }

    /// The link that a cluster belongs to.
    pub(super) fn link_of(&self, cluster: &ClusterName) -> Option<&'a LinkName> {
        self.clusters.get(cluster).copied()
    }
}

impl Relations for Membership<'_> {
    fn is_own_site(&self, cluster: &ClusterName, site: &SiteName) -> bool {
        let own = self.own_sites.get(cluster);
        own.is_some_and(|own| own.contains(site))
    }

    fn is_member(&self, cluster: &ClusterName, link: &LinkName) -> bool {
        self.clusters.get(cluster).is_some_and(|own| *own == link)
    }
}

fn is<N: Ord>(owners: &BTreeMap<&N, &LinkName>, name: &N, link: &LinkName) -> bool {
    owners.get(name).is_some_and(|owner| *owner == link)
}

/// Sites whose LAN a plan exports.
fn lan_sites(plan: &NetworkPlan) -> impl Iterator<Item = &SiteName> {
    plan.segments
        .iter()
        .filter(|segment| {
            segment
                .prefixes
                .iter()
                .any(|entry| entry.class == Class::Lan)
        })
        .map(|segment| &segment.site)
}

struct Settler<'s, 'a> {
    links: &'s [&'a LinkName],
    fleet: &'a Fleet,
    report: &'s mut Reporter,
}

impl<'a> Settler<'_, 'a> {
    fn settle<N: Ord + Clone>(
        &mut self,
        about: fn(N) -> About,
        not_found: Reason,
        frozen: BTreeMap<&'a N, &'a LinkName>,
        members: impl Fn(&'a crate::fleet::Link) -> &'a BTreeSet<N>,
        had: impl Fn(&LinkName, &N) -> bool,
        exists: impl Fn(&N) -> bool,
    ) -> BTreeMap<&'a N, &'a LinkName> {
        let mut owners = frozen;
        let links: Vec<_> = self
            .links
            .iter()
            .map(|link| (*link, members(&self.fleet.links[*link])))
            .collect();
        for (link, names) in &links {
            for name in names.iter().filter(|name| had(link, name) && exists(name)) {
                owners.entry(name).or_insert(link);
            }
        }
        for (link, names) in &links {
            for name in *names {
                if !exists(name) {
                    let about = about(name.clone());
                    let message = format!(
                        "ClusterLink {link} names {about}, which does not exist: create it, or take it out of spec.members"
                    );
                    self.report.wait(about, Some(link), not_found, message);
                    continue;
                }
                let owner = *owners.entry(name).or_insert(link);
                if owner != *link {
                    let about = about(name.clone());
                    let message = format!(
                        "{about} is a member of ClusterLink {owner} already and is left out of ClusterLink {link}: a member belongs to one link, so take it out of one of the two"
                    );
                    let reason = Reason::MemberOfAnotherLink;
                    self.report.refuse(about, Some(link), reason, message);
                }
            }
        }
        owners
    }
}

/// Sites that a cluster's spec names.
fn named_sites(cluster: &Cluster) -> Vec<&SiteName> {
    match &cluster.sites {
        SiteSource::Name(site) => vec![site],
        SiteSource::FromNodeLabel(_) => Vec::new(),
        SiteSource::BySelector(rules) => rules.iter().map(|rule| &rule.site).collect(),
    }
}
