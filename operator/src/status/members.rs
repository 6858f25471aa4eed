//! Which members are ready, and why the others are not.

use crate::index::Index;
use crate::reconcile::Decided;
use crate::world::some_of;
use std::collections::{BTreeMap, BTreeSet};
use tieline_core::ids::{ClusterName, LinkName, NodeId, PeerName, SiteName};
use tieline_crds::Peer;
use tieline_crds::cluster_link::{NotReady, PathCount};

/// Type of the condition in which an agent reports its paths, with a message that begins `n of m paths`.
const PATHS_UP: &str = "PathsUp";

/// What is known about all members.
#[derive(Debug, Clone, Default)]
pub struct Members {
    /// For each link: what is not ready, in order of kind and name.
    pub not_ready: BTreeMap<LinkName, Vec<NotReady>>,
    /// For each link: members that are not ready, as kind and name.
    pub missing: BTreeMap<LinkName, BTreeSet<(&'static str, String)>>,
    /// For each link: paths.
    pub paths: BTreeMap<LinkName, PathCount>,
    /// For each link: nodes that carry the plan, and all planned ones.
    pub applied: BTreeMap<LinkName, (u32, u32)>,
    /// For each cluster: nodes that are not ready.
    pub nodes: BTreeMap<ClusterName, BTreeMap<String, NotReady>>,
    /// For each site: gateways with a path, and all gateways.
    pub sites: BTreeMap<SiteName, (u32, u32)>,
}

impl Members {
    /// Judges everything.
    #[must_use]
    pub fn judge(index: &Index, decided: &Decided) -> Self {
        let mut members = Self::default();
        members.judge_nodes(index, decided);
        for (link, spec) in &decided.world.fleet.links {
            let mut entries: Vec<NotReady> = Vec::new();
            for cluster in &spec.clusters {
                entries.extend(
                    members
                        .nodes
                        .get(cluster)
                        .into_iter()
                        .flat_map(BTreeMap::values)
                        .cloned(),
                );
            }
            for notice in decided
                .notices()
                .filter(|it| it.link.as_ref() == Some(link) && it.kind != "ClusterLink")
            {
                entries.push(not_ready(
                    &notice.kind,
                    &notice.name,
                    &notice.reason,
                    notice.message.clone(),
                ));
            }
            for cluster in &spec.clusters {
                let any = decided.proposal.nodes.values().any(|node| {
                    node.link == *link
                        && segment_cluster(decided, link, &node.segment) == Some(cluster)
                });
                let told = entries.iter().any(|it| {
                    it.kind == "Cluster" && it.name == cluster.as_str() || it.kind == "Node"
                });
                if !any && !told {
                    entries.push(not_ready(
                        "Cluster",
                        cluster.as_str(),
                        "NoNodes",
                        format!("Cluster {cluster} has no node that takes part yet"),
                    ));
                }
            }
            for vpn in &spec.vpns {
                if let Some((reason, message)) = super::vpn::obstacle(vpn, decided, &members) {
                    entries.push(not_ready("VpnAttachment", vpn.as_str(), &reason, message));
                }
            }
            for site in &spec.sites {
                if let Some((reason, message)) = super::site::obstacle(site, decided, &members) {
                    entries.push(not_ready("Site", site.as_str(), &reason, message));
                }
            }
            entries.sort_by(|a, b| {
                (&a.kind, &a.name, &a.reason, &a.message)
                    .cmp(&(&b.kind, &b.name, &b.reason, &b.message))
            });
            entries.dedup();
            members
                .missing
                .insert(link.clone(), missing(&entries, spec, decided));
            members.not_ready.insert(link.clone(), entries);
        }
        members
    }

    /// Why a gateway's node is not ready, if it is not.
    pub(super) fn gateway(&self, gateway: &PeerName, decided: &Decided) -> Option<&NotReady> {
        let (id, _) = decided
            .proposal
            .nodes
            .iter()
            .find(|(_, node)| node.peer == *gateway)?;
        self.nodes.get(&id.cluster)?.get(id.node.as_str())
    }

    fn judge_nodes(&mut self, index: &Index, decided: &Decided) {
        let revisions: BTreeMap<&LinkName, u64> = decided
            .proposal
            .plans
            .iter()
            .map(|(link, plan)| (link, plan.revision))
            .collect();
        for (id, node) in &decided.proposal.nodes {
            let peer = index.peers.get(node.peer.as_str());
            let revision = revisions.get(&node.link).copied().unwrap_or(0);
            let applied = applied_revision(peer.map(AsRef::as_ref));
            let count = self.applied.entry(node.link.clone()).or_default();
            count.1 += 1;
            count.0 += u32::from(applied >= revision && revision > 0);
            let paths = peer.and_then(|peer| paths_of(peer));
            if let Some(paths) = paths {
                let sum = self.paths.entry(node.link.clone()).or_default();
                sum.up += paths.up;
                sum.total += paths.total;
            }
            if node.gateway_rank.is_some() {
                let gateways = self.sites.entry(node.site.clone()).or_default();
                gateways.1 += 1;
                gateways.0 += u32::from(paths.is_some_and(|paths| paths.up > 0));
            }
            if let Some(entry) =
                judge_node(id, peer.map(AsRef::as_ref), decided, &node.peer, revision)
            {
                self.nodes
                    .entry(id.cluster.clone())
                    .or_default()
                    .insert(id.node.to_string(), entry);
            }
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
    None
}

/// Members of the link that have an entry, a cluster by its nodes too.
fn missing(
    entries: &[NotReady],
    spec: &tieline_core::fleet::Link,
    decided: &Decided,
) -> BTreeSet<(&'static str, String)> {
    let mut missing = BTreeSet::new();
    let nodes: BTreeSet<&str> = entries
        .iter()
        .filter(|it| it.kind == "Node")
        .map(|it| it.name.as_str())
        .collect();
    for cluster in &spec.clusters {
        let own = decided
            .world
            .fleet
            .nodes
            .keys()
            .any(|id| id.cluster == *cluster && nodes.contains(id.node.as_str()));
        if own || has(entries, "Cluster", cluster.as_str()) {
            missing.insert(("Cluster", cluster.to_string()));
        }
    }
    missing.extend(
        spec.sites
            .iter()
            .filter(|it| has(entries, "Site", it.as_str()))
            .map(|it| ("Site", it.to_string())),
    );
    missing.extend(
        spec.vpns
            .iter()
            .filter(|it| has(entries, "VpnAttachment", it.as_str()))
            .map(|it| ("VpnAttachment", it.to_string())),
    );
    missing
}

fn has(entries: &[NotReady], kind: &str, name: &str) -> bool {
    entries.iter().any(|it| it.kind == kind && it.name == name)
}

fn segment_cluster<'a>(
    decided: &'a Decided,
    link: &LinkName,
    segment: &tieline_core::ids::SegmentName,
) -> Option<&'a ClusterName> {
    decided
        .proposal
        .plans
        .get(link)?
        .segment(segment)?
        .cluster
        .as_ref()
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

/// The paths that an agent reports: `n of m paths …`, or that it needs none.
#[must_use]
pub fn paths_of(peer: &Peer) -> Option<PathCount> {
    let conditions = &peer.status.as_ref()?.conditions;
    let condition = conditions.iter().find(|it| it.type_ == PATHS_UP)?;
    let mut words = condition.message.split_whitespace();
    let mut number = |skip: usize| words.nth(skip).and_then(|word| word.parse::<u32>().ok());
    match (number(0), number(1)) {
        (Some(up), Some(total)) if up <= total => Some(PathCount { up, total }),
        _ => (condition.status == "True").then(PathCount::default),
    }
}

/// "2 of 6 nodes: a, b" for messages.
pub(super) fn summary(entries: &BTreeMap<String, NotReady>, total: usize) -> String {
    format!(
        "{} of {total} nodes are not ready: {}",
        entries.len(),
        some_of(
            entries
                .values()
                .map(|it| format!("{} ({})", it.name, it.reason))
        )
    )
}
