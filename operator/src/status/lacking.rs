//! What a link lacks: its members that are not ready, nodes and others, each with its reason.

use super::entries::Entries;
use super::readiness::Readiness;
use super::site::obstacle as site_obstacle;
use super::vpn::obstacle as vpn_obstacle;
use crate::decided::Decided;
use tieline_core::fleet::Link;
use tieline_core::ids::{ClusterName, LinkName, NodeId};
use tieline_core::notice::{About, Notice, Reason};

impl Readiness {
    /// What is not ready in one link.
    #[must_use]
    pub fn entries(&self, link: &LinkName, spec: &Link, decided: &Decided) -> Entries {
        let maps = spec.clusters.iter().filter_map(|it| self.not_ready(it));
        let objections = || decided.objections.of_link(link).map(|(it, _)| it);
        let mut others: Vec<Notice> = objections().cloned().collect();
        let told = |cluster: &ClusterName| objections().any(|it| it.about.is_of(cluster));
        for cluster in &spec.clusters {
            if self.planned(cluster).is_some_and(|nodes| !nodes.is_empty()) || told(cluster) {
                continue;
            }
            let local = &decided.world.local;
            let message = if cluster == local {
                format!("Cluster {cluster} has no node that takes part yet")
            } else {
                format!(
                    "this operator runs in cluster {local} (its --cluster-name) and knows the Nodes of that cluster only"
                )
            };
            others.push(Notice {
                about: About::Cluster(cluster.clone()),
                link: Some(link.clone()),
                reason: Reason::NoNodes,
                message,
            });
        }
        let vpns = spec.vpns.iter();
        others.extend(vpns.filter_map(|vpn| vpn_obstacle(vpn, decided, self)));
        let sites = spec.sites.iter();
        others.extend(sites.filter_map(|site| site_obstacle(link, site, self)));
        Entries::of(maps, others)
    }

    /// How many members of a link are not ready, a cluster for its nodes too.
    #[must_use]
    pub fn missing(&self, spec: &Link, entries: &Entries, decided: &Decided) -> usize {
        let exists = |id: &NodeId| decided.world.fleet.nodes.contains_key(id);
        let clusters = spec.clusters.iter().filter(|cluster| {
            self.not_ready(cluster).is_some_and(|map| !map.is_empty())
                || entries.has(&About::Cluster((*cluster).clone()))
                || entries
                    .other_nodes()
                    .any(|id| id.cluster == **cluster && exists(id))
        });
        let sites = spec.sites.iter();
        let sites = sites.filter(|it| entries.has(&About::Site((*it).clone())));
        let vpns = spec.vpns.iter();
        let vpns = vpns.filter(|it| entries.has(&About::VpnAttachment((*it).clone())));
        clusters.count() + sites.count() + vpns.count()
    }
}
