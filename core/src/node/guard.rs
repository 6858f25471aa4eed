//! The guard: super-nets are unreachable outside the tunnels, and what belongs to the host stays the host's.
//!
//! Every node has it, also one whose peer is not accepted yet; then it is all that there is.

use super::config::{ConfigFirewall, ConfigTarget, NodeConfig, SiteCandidate};
use super::numbers::{PREF_CNI, PREF_GUARD, PREF_REMOTE};
use super::reach::Reach;
use crate::cidr::{Prefix, PrefixSet};
use crate::host::firewall::SetName;
use crate::host::{
    METRIC_GUARD, METRIC_REMOTE, RouteKey, Rule, Selector, TABLE_GUARD, TABLE_INNER, TABLE_MAIN,
    TABLE_REMOTE,
};
use crate::ids::{ClusterName, SiteName};
use crate::network_plan::{Class, NetworkPlan, PlanCluster, Segment};
use crate::peer::AcceptedPeer;
use std::collections::BTreeMap;

/// What the guard is made of.
#[derive(Default)]
pub(super) struct Guard {
    super_nets: PrefixSet,
    /// Own cluster's pods: the CNI's routes win (rule 104).
    cluster_pods: PrefixSet,
    /// Thrown in the remote table alone.
    own_pods: PrefixSet,
    /// Thrown in both tables.
    native: PrefixSet,
    /// On a gateway, the pods of its segment: what arrived encrypted for them goes on encrypted or not at all ...
    inner: PrefixSet,
    /// ... except to its own.
    here: PrefixSet,
    firewall: ConfigFirewall,
}

impl Guard {
    /// The guard of a node whose place is known.
    pub(super) fn of_member(
        plan: &NetworkPlan,
        reach: &Reach<'_>,
        me: &AcceptedPeer,
        segment: &Segment,
        rank: Option<u8>,
    ) -> Self {
        let cluster = plan.cluster(&me.cluster);
        let site = reach
            .site(&me.site)
            .map(|site| site.cidrs.clone())
            .unwrap_or_default();
        let services = cluster.map(services).unwrap_or_default();
        let node_pods: PrefixSet = me.pod_cidrs.iter().copied().collect();
        let mesh: PrefixSet = me
            .mesh_addresses
            .iter()
            .map(|&address| Prefix::host(address))
            .collect();
        let segment_pods = segment.of(&[Class::Pod]).union(&node_pods);
        let native_site = without_remote(&site, plan, segment);
        let mut guard = Self::of_plan(plan, cluster);
        if rank.is_some() {
            guard.inner = segment_pods.clone();
            guard.here = node_pods.clone();
        }
        guard.own_pods = segment_pods.clone();
        guard.native = guard.native.union(&site);
        // A VPN's prefixes lie behind a tunnel also for the segment that terminates it: its pods keep their sources there.
        let nearby: PrefixSet = segment
            .prefixes
            .iter()
            .filter(|entry| entry.class != Class::Vpn)
            .map(|entry| entry.prefix)
            .collect();
        let only_gateway = |classes: &[Class]| {
            if rank.is_some() {
                segment.of(classes)
            } else {
                PrefixSet::new()
            }
        };
        let firewall = &mut guard.firewall;
        let lan = only_gateway(&[Class::Lan]);
        for (name, parts) in [
            (
                SetName::Native,
                vec![&native_site, &segment_pods, &plan.bypass],
            ),
            (SetName::Own, vec![&nearby, &site, &services, &segment_pods]),
            (SetName::Stateful, vec![&node_pods, &mesh, &services, &lan]),
            (SetName::Lan, vec![&lan]),
            (SetName::Services, vec![&only_gateway(&[Class::Service])]),
            (SetName::Site, vec![&site]),
        ] {
            for part in parts {
                firewall.add(name, part);
            }
        }
        firewall.rank = rank;
        if rank.is_some() && reach.is_transit(segment) {
            let natted = plan
                .segments
                .iter()
                .filter(|other| !reach.dialable(&other.site) && other.name != segment.name);
            let mut groups: BTreeMap<&SiteName, Vec<Prefix>> = BTreeMap::new();
            for other in natted {
                let prefixes = other.prefixes.iter().map(|entry| entry.prefix);
                groups.entry(&other.site).or_default().extend(prefixes);
            }
            firewall.transit = groups
                .into_iter()
                .map(|(site, prefixes)| (site.clone(), prefixes.into()))
                .collect();
        }
        guard
    }

    /// The guard of a node of which nothing is known but (perhaps) its cluster: super-nets are closed, the CNI stays alive.
    pub(super) fn alone(plan: &NetworkPlan, cluster: Option<&ClusterName>) -> Self {
        let cluster = cluster.and_then(|name| plan.cluster(name));
        let mut guard = Self::of_plan(plan, cluster);
        guard.own_pods = guard.cluster_pods.clone();
        // What the CNI has a route to may pass; `resolve` takes other sites' pods away where it sees the own site.
        let firewall = &mut guard.firewall;
        firewall.add(SetName::Native, &plan.bypass);
        firewall.add(SetName::Native, &guard.cluster_pods);
        firewall.add(SetName::Own, &guard.cluster_pods);
        firewall.add(SetName::Own, &cluster.map(services).unwrap_or_default());
        guard
    }

    fn of_plan(plan: &NetworkPlan, cluster: Option<&PlanCluster>) -> Self {
        Self {
            super_nets: plan.super_nets.clone(),
            cluster_pods: cluster
                .map(|cluster| cluster.pod_cidrs.clone())
                .unwrap_or_default(),
            own_pods: PrefixSet::new(),
            native: cluster
                .map(services)
                .unwrap_or_default()
                .union(&plan.bypass),
            inner: PrefixSet::new(),
            here: PrefixSet::new(),
            firewall: ConfigFirewall {
                sets: BTreeMap::from([(SetName::Planned, plan.super_nets.clone())]),
                ..ConfigFirewall::default()
            },
        }
    }

    /// Adds rules, routes and firewall sets to a configuration.
    pub(super) fn apply(self, config: &mut NodeConfig) {
        for &family in &config.families {
            let mut rule = |preference, selector, table, suppress_prefix_len| {
                config.rules.insert(Rule {
                    preference,
                    family,
                    selector,
                    table,
                    suppress_prefix_len,
                });
            };
            rule(PREF_REMOTE, Selector::All, TABLE_REMOTE, None);
            rule(PREF_GUARD, Selector::All, TABLE_GUARD, None);
            for prefix in self.cluster_pods.of(family) {
                // A route as long as the range is the CNI's too: the range may be one node's.
                let shorter = prefix.len().saturating_sub(1);
                rule(PREF_CNI, Selector::To(prefix), TABLE_MAIN, Some(shorter));
            }
        }
        let mut put = |table, prefix, metric, target| {
            let key = RouteKey {
                table,
                prefix,
                metric,
            };
            config.routes.insert(key, target);
        };
        for table in [TABLE_REMOTE, TABLE_GUARD] {
            for prefix in self.super_nets.iter() {
                put(table, prefix, METRIC_GUARD, ConfigTarget::Unreachable);
            }
        }
        // A throw outside the super-nets would change nothing.
        let thrown = |prefix: &Prefix| self.super_nets.overlapping(*prefix).is_some();
        for prefix in self.native.iter().filter(thrown) {
            for table in [TABLE_REMOTE, TABLE_GUARD] {
                put(table, prefix, METRIC_REMOTE, ConfigTarget::Throw);
            }
        }
        for prefix in self.inner.iter() {
            put(TABLE_INNER, prefix, METRIC_GUARD, ConfigTarget::Unreachable);
        }
        for prefix in self.here.iter() {
            put(TABLE_INNER, prefix, METRIC_REMOTE, ConfigTarget::Throw);
        }
        for prefix in self.own_pods.iter().filter(thrown) {
            put(TABLE_REMOTE, prefix, METRIC_REMOTE, ConfigTarget::Throw);
        }
        config.firewall = self.firewall;
    }
}

/// The sites that a node of a cluster may be in, when its own is not known yet.
pub(super) fn candidates(
    plan: &NetworkPlan,
    cluster: Option<&ClusterName>,
    config: &mut NodeConfig,
) {
    for site in &plan.sites {
        let segments = plan
            .segments
            .iter()
            .filter(|segment| segment.site == site.name);
        let own = segments
            .filter(|segment| segment.cluster.is_some() && segment.cluster.as_ref() == cluster);
        let pods = own
            .flat_map(|segment| segment.of(&[Class::Pod]).iter().collect::<Vec<_>>())
            .collect();
        config.site_candidates.insert(
            site.name.clone(),
            SiteCandidate {
                cidrs: site.cidrs.clone(),
                pods,
            },
        );
    }
}

fn services(cluster: &PlanCluster) -> PrefixSet {
    cluster.service_cidrs.clone()
}

/// A site's ranges without what lies elsewhere: a narrow remote prefix inside a wide site range is still remote.
pub(super) fn without_remote(site: &PrefixSet, plan: &NetworkPlan, own: &Segment) -> PrefixSet {
    let mut rest = site.clone();
    for segment in &plan.segments {
        for entry in &segment.prefixes {
            let at_home = segment.name == own.name && entry.class != Class::Vpn
                || segment.site == own.site && entry.class == Class::Lan;
            if !at_home && rest.overlapping(entry.prefix).is_some() {
                rest.remove(entry.prefix);
            }
        }
    }
    rest
}
