//! Which members are ready, and why the others are not.

use crate::index::Index;
use crate::reconcile::Decided;
use std::collections::{BTreeMap, BTreeSet};
use tieline_core::fleet::Link;
use tieline_core::ids::{ClusterName, LinkName, NodeId, PeerName, SiteName, VpnName};
use tieline_core::plan::Notice;
use tieline_core::plan::listed;
use tieline_crds::Peer;
use tieline_crds::cluster_link::{NotReady, PathCount};
use tieline_crds::peer::{PeerPaths, VpnSessions};

/// What is known about all members.
#[derive(Debug, Clone, Default)]
pub struct Members {
    /// For each link: what is not ready, in order of kind and name.
    pub not_ready: BTreeMap<LinkName, Vec<NotReady>>,
    /// For each link: how many members are not ready.
    pub missing: BTreeMap<LinkName, usize>,
    /// For each link: paths.
    pub paths: BTreeMap<LinkName, PathCount>,
    /// For each link: nodes that carry the plan, and all planned ones.
    pub applied: BTreeMap<LinkName, (u32, u32)>,
    /// For each cluster: planned nodes that are not ready.
    pub nodes: BTreeMap<ClusterName, BTreeMap<String, NotReady>>,
    /// For each cluster: its planned nodes.
    pub planned: BTreeMap<ClusterName, Vec<NodeId>>,
    /// For each cluster: how many nodes are known.
    pub known: BTreeMap<ClusterName, usize>,
    /// For each VPN whose active gateway reports: sessions.
    pub sessions: BTreeMap<VpnName, PathCount>,
    /// For each site: its gateways.
    pub gateways: BTreeMap<SiteName, Vec<GatewayState>>,
}

/// A gateway and what its agent says of its paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayState {
    /// The node.
    pub id: NodeId,
    /// Its rank.
    pub rank: u8,
    /// Its Peer.
    pub peer: PeerName,
    /// Its paths, when it reports any.
    pub paths: Option<PeerPaths>,
}

impl Members {
    /// Judges everything. Every list is walked once, so that a large fleet costs no more than its size.
    #[must_use]
    pub fn judge(index: &Index, decided: &Decided) -> Self {
        let mut members = Self::default();
        members.judge_nodes(index, decided);
        let mut owners: BTreeMap<&str, BTreeSet<&ClusterName>> = BTreeMap::new();
        for id in decided.world.fleet.nodes.keys() {
            *members.known.entry(id.cluster.clone()).or_default() += 1;
            owners
                .entry(id.node.as_str())
                .or_default()
                .insert(&id.cluster);
        }
        let mut notices: BTreeMap<&LinkName, Vec<&Notice>> = BTreeMap::new();
        for notice in decided.notices().filter(|it| it.kind != "ClusterLink") {
            if let Some(link) = &notice.link {
                notices.entry(link).or_default().push(notice);
            }
        }
        for (link, spec) in &decided.world.fleet.links {
            let notices = notices.get(link).map(Vec::as_slice).unwrap_or_default();
            let entries = members.entries(spec, notices, decided);
            let missing = missing(&entries, spec, &owners);
            members.missing.insert(link.clone(), missing);
            members.not_ready.insert(link.clone(), entries);
        }
        members
    }

    /// What is not ready in one link.
    fn entries(&self, spec: &Link, notices: &[&Notice], decided: &Decided) -> Vec<NotReady> {
        let mut entries: Vec<NotReady> = Vec::new();
        for cluster in &spec.clusters {
            entries.extend(
                self.nodes
                    .get(cluster)
                    .into_iter()
                    .flat_map(BTreeMap::values)
                    .cloned(),
            );
        }
        for it in notices {
            entries.push(not_ready(
                &it.kind,
                &it.name,
                &it.reason,
                it.message.clone(),
            ));
        }
        for cluster in spec
            .clusters
            .iter()
            .filter(|it| !self.planned.contains_key(*it))
        {
            let name = cluster.as_str();
            let told = notices
                .iter()
                .any(|it| it.kind == "Node" || (it.kind == "Cluster" && it.name == name));
            if !told {
                let local = &decided.world.local;
                let message = if cluster == local {
                    format!("Cluster {cluster} has no node that takes part yet")
                } else {
                    format!(
                        "this operator runs in cluster {local} (its --cluster-name) and knows the Nodes of that cluster only"
                    )
                };
                entries.push(not_ready("Cluster", name, "NoNodes", message));
            }
        }
        for vpn in &spec.vpns {
            if let Some((reason, message)) = super::vpn::obstacle(vpn, decided, self) {
                entries.push(not_ready("VpnAttachment", vpn.as_str(), &reason, message));
            }
        }
        for site in &spec.sites {
            if let Some((reason, message)) = super::site::obstacle(site, self) {
                entries.push(not_ready("Site", site.as_str(), &reason, message));
            }
        }
        entries.sort_by(|a, b| {
            (&a.kind, &a.name, &a.reason, &a.message)
                .cmp(&(&b.kind, &b.name, &b.reason, &b.message))
        });
        entries.dedup();
        entries
    }

    /// Why a node is not ready, if it is not.
    pub(super) fn node(&self, id: &NodeId) -> Option<&NotReady> {
        self.nodes.get(&id.cluster)?.get(id.node.as_str())
    }

    /// The gateways of a site.
    pub(super) fn gateways(&self, site: &SiteName) -> &[GatewayState] {
        self.gateways
            .get(site)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    fn judge_nodes(&mut self, index: &Index, decided: &Decided) {
        for (id, node) in &decided.proposal.nodes {
            let peer = index.peers.get(node.peer.as_str()).map(AsRef::as_ref);
            let revision = decided
                .proposal
                .plans
                .get(&node.link)
                .map_or(0, |plan| plan.revision);
            let count = self.applied.entry(node.link.clone()).or_default();
            count.1 += 1;
            count.0 += u32::from(applied_revision(peer) >= revision && revision > 0);
            let paths = peer.and_then(paths_of);
            if let Some(paths) = paths {
                let sum = self.paths.entry(node.link.clone()).or_default();
                sum.up += paths.up;
                sum.total += paths.total;
            }
            for sessions in peer.map(sessions_of).unwrap_or_default() {
                // A node speaks for the attachments that it is a gateway of, and for no other.
                let known = decided.attachments.iter().find(|(name, it)| {
                    name.as_str() == sessions.name && it.gateways.contains(&node.peer)
                });
                if let Some((name, _)) = known {
                    let sum = self.sessions.entry(name.clone()).or_default();
                    sum.total += sessions.total;
                    sum.up += sessions.up.min(sessions.total);
                }
            }
            if let Some(rank) = node.gateway_rank {
                let gateway = GatewayState {
                    id: id.clone(),
                    rank,
                    peer: node.peer.clone(),
                    paths,
                };
                self.gateways
                    .entry(node.site.clone())
                    .or_default()
                    .push(gateway);
            }
            if let Some(entry) = judge_node(id, peer, decided, &node.peer, revision) {
                let of_cluster = self.nodes.entry(id.cluster.clone()).or_default();
                of_cluster.insert(id.node.to_string(), entry);
            }
            self.planned
                .entry(id.cluster.clone())
                .or_default()
                .push(id.clone());
        }
    }
}

/// Why one node is not ready; the first reason that applies, from the bottom up.
fn judge_node(
    id: &NodeId,
    peer: Option<&Peer>,
    decided: &Decided,
    name: &PeerName,
    revision: u64,
) -> Option<NotReady> {
    let node = id.node.as_str();
    let no = |reason: &str, message: String| Some(not_ready("Node", node, reason, message));
    if let Some(refusals) = decided.accepted.refused.get(name)
        && let Some(first) = refusals.first()
    {
        let messages: BTreeSet<&str> = refusals.iter().map(|it| it.message.as_str()).collect();
        return no(
            &first.reason,
            messages.into_iter().collect::<Vec<_>>().join("; "),
        );
    }
    if let Some(invalid) = decided.world.bad_claims.get(name) {
        return no(
            "ClaimInvalid",
            format!(
                "what its agent says is refused: {}: {}",
                invalid.field, invalid.message
            ),
        );
    }
    let planned = decided.proposal.nodes.get(id);
    if planned.is_some_and(|node| !node.assign.is_empty()) && !decided.carries_a_plan(name) {
        return no(
            "NoAgent",
            "it gets its podCIDR when its agent has closed planned ranges there, and none has said so yet: see that tieline-agent runs there"
                .to_owned(),
        );
    }
    if decided
        .world
        .fleet
        .nodes
        .get(id)
        .is_some_and(|node| !node.ready)
    {
        return no(
            "NodeNotReady",
            "Kubernetes reports the Node as not ready".to_owned(),
        );
    }
    let applied = applied_revision(peer);
    if peer.and_then(|peer| peer.status.as_ref()).is_none() {
        return no(
            "NoAgent",
            "no agent has reported from this node: see that tieline-agent runs there".to_owned(),
        );
    }
    if applied < revision {
        return no(
            "AgentBehind",
            format!("its agent has not applied plan revision {revision} yet"),
        );
    }
    if let Some(paths) = peer.and_then(paths_of)
        && paths.total > 0
        && paths.up == 0
    {
        return no("NoPath", format!("none of its {} paths is up", paths.total));
    }
    // Who is not accepted wants no path yet, and who is no gateway wants one to each of its own.
    let is_gateway = planned.is_some_and(|node| node.gateway_rank.is_some());
    let is_accepted = peer.is_some_and(|peer| !peer.spec.accepted_keys.is_empty());
    if let Some(paths) = peer.and_then(paths_of)
        && paths.total == 0
        && !(is_gateway && is_accepted)
    {
        return no(
            "Connecting",
            "it does not know the keys of its gateways yet, or they do not know its own".to_owned(),
        );
    }
    // A path that has never been up is not ready yet; one that went down is the others' to bear.
    if let Some(paths) = peer.and_then(paths_of)
        && paths.connecting > 0
    {
        return no(
            "Connecting",
            format!(
                "{} of its {} paths have not had their first handshake yet",
                paths.connecting, paths.total
            ),
        );
    }
    None
}

/// How many members of the link have an entry, a cluster by its nodes too.
fn missing(
    entries: &[NotReady],
    spec: &Link,
    owners: &BTreeMap<&str, BTreeSet<&ClusterName>>,
) -> usize {
    let has: BTreeSet<(&str, &str)> = entries
        .iter()
        .map(|it| (it.kind.as_str(), it.name.as_str()))
        .collect();
    let by_nodes: BTreeSet<&ClusterName> = entries
        .iter()
        .filter(|it| it.kind == "Node")
        .flat_map(|it| owners.get(it.name.as_str()).into_iter().flatten().copied())
        .collect();
    let clusters = spec
        .clusters
        .iter()
        .filter(|it| by_nodes.contains(it) || has.contains(&("Cluster", it.as_str())));
    let sites = spec
        .sites
        .iter()
        .filter(|it| has.contains(&("Site", it.as_str())));
    let vpns = spec
        .vpns
        .iter()
        .filter(|it| has.contains(&("VpnAttachment", it.as_str())));
    clusters.count() + sites.count() + vpns.count()
}

/// An entry within the bounds of the schema.
pub(super) fn not_ready(kind: &str, name: &str, reason: &str, message: String) -> NotReady {
    NotReady {
        kind: kind.to_owned(),
        name: name.to_owned(),
        reason: reason.to_owned(),
        message: super::clipped(message, 1024),
    }
}

/// The plan revision that a node carries; 0: none.
fn applied_revision(peer: Option<&Peer>) -> u64 {
    peer.and_then(|peer| peer.status.as_ref()?.applied_revision)
        .unwrap_or(0)
}

/// The paths that an agent reports.
#[must_use]
pub fn paths_of(peer: &Peer) -> Option<PeerPaths> {
    peer.status.as_ref()?.paths
}

/// The VPN sessions that a gateway's agent reports.
pub(super) fn sessions_of(peer: &Peer) -> &[VpnSessions] {
    peer.status
        .as_ref()
        .map(|it| it.sessions.as_slice())
        .unwrap_or_default()
}

/// "2 of 6 nodes: a, b" for messages.
pub(super) fn summary(entries: &BTreeMap<String, NotReady>, total: usize) -> String {
    format!(
        "{} of {total} nodes are not ready: {}",
        entries.len(),
        listed(
            entries
                .values()
                .map(|it| format!("{} ({})", it.name, it.reason))
        )
    )
}
