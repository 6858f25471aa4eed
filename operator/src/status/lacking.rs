//! What a link lacks: its members that are not ready, nodes and others, each with its reason.

use super::entries::Entries;
use super::members::{Members, not_ready};
use super::site::obstacle as site_obstacle;
use super::vpn::obstacle as vpn_obstacle;
use crate::decided::Decided;
use tieline_core::fleet::Link;
use tieline_core::ids::{ClusterName, LinkName, NodeId};
use tieline_crds::cluster_link::NotReady;

impl Members {
    /// What is not ready in one link.
    #[must_use]
    pub fn entries(&self, link: &LinkName, spec: &Link, decided: &Decided) -> Entries {
        let maps = spec.clusters.iter().filter_map(|it| self.not_ready(it));
        let mut others: Vec<NotReady> = Vec::new();
        for (it, _) in decided.objections.of_link(link) {
            let message = it.message.clone();
            others.push(not_ready(&it.kind, &it.name, &it.reason, message));
        }
        let told = |cluster: &ClusterName| {
            decided.objections.of_link(link).any(|(it, _)| {
                it.kind == "Node" || (it.kind == "Cluster" && it.name == cluster.as_str())
            })
        };
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
            others.push(not_ready("Cluster", cluster.as_str(), "NoNodes", message));
        }
        for vpn in &spec.vpns {
            if let Some((reason, message)) = vpn_obstacle(vpn, decided, self) {
                others.push(not_ready("VpnAttachment", vpn.as_str(), &reason, message));
            }
        }
        for site in &spec.sites {
            if let Some((reason, message)) = site_obstacle(site, self) {
                others.push(not_ready("Site", site.as_str(), &reason, message));
            }
        }
        Entries::of(maps, others)
    }

    /// How many members of a link are not ready, a cluster for its nodes too.
    #[must_use]
    pub fn missing(&self, spec: &Link, entries: &Entries, decided: &Decided) -> usize {
        let node_of = |cluster: &ClusterName, name: &str| {
            let node = name.parse().ok();
            let id = node.map(|node| NodeId {
                cluster: cluster.clone(),
                node,
            });
            id.is_some_and(|id| decided.world.fleet.nodes.contains_key(&id))
        };
        let clusters = spec.clusters.iter().filter(|cluster| {
            self.not_ready(cluster).is_some_and(|map| !map.is_empty())
                || entries.has("Cluster", cluster.as_str())
                || entries.other_nodes().any(|name| node_of(cluster, name))
        });
        let sites = spec.sites.iter();
        let sites = sites.filter(|it| entries.has("Site", it.as_str()));
        let vpns = spec.vpns.iter();
        let vpns = vpns.filter(|it| entries.has("VpnAttachment", it.as_str()));
        clusters.count() + sites.count() + vpns.count()
    }
}
