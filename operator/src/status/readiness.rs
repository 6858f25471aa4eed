//! Which members are ready, and why the others are not. Sums are kept, and follow the nodes that changed.

use super::ranges::{self, SiteRanges};
use crate::decided::Decided;
use crate::index::Index;
use std::collections::{BTreeMap, BTreeSet};
use tieline_core::cidr::{Prefix, PrefixSet};
use tieline_core::ids::{ClusterName, LinkName, NodeId, NodeName, PeerName, SiteName, VpnName};
use tieline_core::ledger::LedgerName;
use tieline_core::notice::{About, Notice, Reason};
use tieline_core::plan::{NodePlan, listed};
use tieline_crds::Peer;
use tieline_crds::cluster::Granted;
use tieline_crds::cluster_link::{NotReady, PathCount};
use tieline_crds::peer::{PeerPaths, VpnSessions};

/// What is known about all members.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Readiness {
    nodes: BTreeMap<NodeId, JudgedNode>,
    links: BTreeMap<LinkName, OfLink>,
    clusters: BTreeMap<ClusterName, OfCluster>,
    sessions: BTreeMap<VpnName, Sum>,
    gateways: BTreeMap<SiteName, BTreeMap<NodeId, GatewayState>>,
    ranges: BTreeMap<ClusterName, SiteRanges>,
    /// Every cluster's blocks, once there is a hub's ledger.
    blocks: Option<BTreeMap<ClusterName, PrefixSet>>,
}

/// What one node adds to the sums.
#[derive(Debug, Clone, PartialEq)]
struct JudgedNode {
    is_known: bool,
    planned: Option<PlannedNode>,
}

#[derive(Debug, Clone, PartialEq)]
struct PlannedNode {
    link: LinkName,
    site: SiteName,
    pods: Vec<Prefix>,
    carries: bool,
    paths: Option<PeerPaths>,
    sessions: Vec<(VpnName, PathCount)>,
    gateway: Option<(SiteName, GatewayState)>,
    entry: Option<Notice>,
}

/// Counts, and how many told them. Agents tell what they like, so sums have room.
#[derive(Debug, Clone, Default, PartialEq)]
struct Sum {
    tellers: usize,
    up: u64,
    total: u64,
}

impl Sum {
    fn add(&mut self, count: PathCount) {
        self.tellers += 1;
        self.up += u64::from(count.up);
        self.total += u64::from(count.total);
    }

    fn take(&mut self, count: PathCount) {
        self.tellers -= 1;
        self.up -= u64::from(count.up);
        self.total -= u64::from(count.total);
    }

    fn told(&self) -> Option<PathCount> {
        let number = |sum: u64| u32::try_from(sum).unwrap_or(u32::MAX);
        (self.tellers > 0).then(|| PathCount {
            up: number(self.up),
            total: number(self.total),
        })
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
struct OfLink {
    /// Nodes that carry the plan.
    carrying: u32,
    /// Planned nodes.
    planned: u32,
    paths: Sum,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct OfCluster {
    known: usize,
    planned: BTreeSet<NodeId>,
    /// Planned nodes that are not ready, by name.
    not_ready: BTreeMap<NodeName, Notice>,
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

/// What the sums of one node's change concern beside its cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Concerned {
    pub(super) links: BTreeSet<LinkName>,
    pub(super) sites: BTreeSet<SiteName>,
    pub(super) vpns: BTreeSet<VpnName>,
}

impl Readiness {
    /// Judges everything.
    #[must_use]
    pub fn judge(index: &Index, decided: &Decided) -> Self {
        let mut members = Self::default();
        members.follow_ledgers(decided.proposal().ledgers.keys(), decided);
        let planned = decided.proposal().nodes.keys();
        let all: BTreeSet<&NodeId> = decided.world.fleet.nodes.keys().chain(planned).collect();
        for id in all {
            members.update(id, index, decided);
        }
        members
    }

    /// Judges one node again. Plans must be the same as before.
    pub(super) fn update(&mut self, id: &NodeId, index: &Index, decided: &Decided) -> Concerned {
        let mut concerned = Concerned::default();
        let now = JudgedNode {
            is_known: decided.world.fleet.nodes.contains_key(id),
            planned: judge(id, index, decided),
        };
        if self.nodes.get(id) == Some(&now) {
            return concerned;
        }
        if let Some(before) = self.nodes.remove(id) {
            concerned.note(&before);
            self.take(id, before);
        }
        if now.is_known || now.planned.is_some() {
            concerned.note(&now);
            self.add(id, &now);
            self.nodes.insert(id.clone(), now);
        }
        concerned
    }

    /// Reads ledgers again that have changed.
    pub(super) fn follow_ledgers<'l>(
        &mut self,
        names: impl IntoIterator<Item = &'l LedgerName>,
        decided: &Decided,
    ) {
        for name in names {
            let LedgerName::Cluster(cluster) = name else {
                self.blocks = ranges::blocks(decided);
                continue;
            };
            let chunks = ranges::chunks(cluster, decided);
            let held = self.ranges.get(cluster);
            if held.is_some_and(|held| *held.chunks() == chunks) {
                continue;
            }
            let mut fresh = SiteRanges::new(chunks);
            let of_cluster = self.clusters.get(cluster);
            let planned = of_cluster.into_iter().flat_map(|it| &it.planned);
            for node in planned.filter_map(|id| self.nodes.get(id)?.planned.as_ref()) {
                fresh.add(&node.site, &node.pods);
            }
            self.ranges.insert(cluster.clone(), fresh);
        }
    }

    fn add(&mut self, id: &NodeId, node: &JudgedNode) {
        let of_cluster = self.clusters.entry(id.cluster.clone()).or_default();
        of_cluster.known += usize::from(node.is_known);
        let Some(planned) = &node.planned else { return };
        of_cluster.planned.insert(id.clone());
        let ranges = self.ranges.entry(id.cluster.clone()).or_default();
        ranges.add(&planned.site, &planned.pods);
        if let Some(entry) = &planned.entry {
            of_cluster.not_ready.insert(id.node.clone(), entry.clone());
        }
        let of_link = self.links.entry(planned.link.clone()).or_default();
        of_link.planned += 1;
        of_link.carrying += u32::from(planned.carries);
        if let Some(paths) = planned.paths {
            of_link.paths.add(count_of(paths));
        }
        for (vpn, count) in &planned.sessions {
            self.sessions.entry(vpn.clone()).or_default().add(*count);
        }
        if let Some((site, gateway)) = &planned.gateway {
            let of_site = self.gateways.entry(site.clone()).or_default();
            of_site.insert(id.clone(), gateway.clone());
        }
    }

    fn take(&mut self, id: &NodeId, node: JudgedNode) {
        let of_cluster = self.clusters.entry(id.cluster.clone()).or_default();
        of_cluster.known -= usize::from(node.is_known);
        let Some(planned) = node.planned else { return };
        of_cluster.planned.remove(id);
        let ranges = self.ranges.entry(id.cluster.clone()).or_default();
        ranges.take(&planned.site, &planned.pods);
        of_cluster.not_ready.remove(&id.node);
        let of_link = self.links.entry(planned.link).or_default();
        of_link.planned -= 1;
        of_link.carrying -= u32::from(planned.carries);
        if let Some(paths) = planned.paths {
            of_link.paths.take(count_of(paths));
        }
        for (vpn, count) in planned.sessions {
            self.sessions.entry(vpn).or_default().take(count);
        }
        if let Some((site, _)) = planned.gateway {
            self.gateways.entry(site).or_default().remove(id);
        }
    }

    /// Why a node is not ready, if it is not.
    pub(super) fn node(&self, id: &NodeId) -> Option<&Notice> {
        self.not_ready(&id.cluster)?.get(&id.node)
    }

    /// The planned nodes of a cluster that are not ready, by name.
    pub(super) fn not_ready(&self, cluster: &ClusterName) -> Option<&BTreeMap<NodeName, Notice>> {
        Some(&self.clusters.get(cluster)?.not_ready)
    }

    /// The planned nodes of a cluster.
    pub(super) fn planned(&self, cluster: &ClusterName) -> Option<&BTreeSet<NodeId>> {
        Some(&self.clusters.get(cluster)?.planned)
    }

    /// How many nodes of a cluster are known.
    pub(super) fn known(&self, cluster: &ClusterName) -> usize {
        self.clusters.get(cluster).map_or(0, |it| it.known)
    }

    /// The ranges of a cluster and of its sites, once there is a hub's ledger.
    pub(super) fn granted(&self, cluster: &ClusterName) -> Option<Granted> {
        let blocks = self.blocks.as_ref()?;
        let none = (PrefixSet::new(), SiteRanges::default());
        let ranges = self.ranges.get(cluster).unwrap_or(&none.1);
        Some(ranges.told(blocks.get(cluster).unwrap_or(&none.0)))
    }

    /// Nodes that carry a link's plan, and all planned ones.
    pub(super) fn applied(&self, link: &LinkName) -> (u32, u32) {
        let of_link = self.links.get(link);
        of_link.map_or((0, 0), |it| (it.carrying, it.planned))
    }

    /// The paths of a link, when anybody reports some.
    pub(super) fn paths(&self, link: &LinkName) -> Option<PathCount> {
        self.links.get(link)?.paths.told()
    }

    /// The sessions of a VPN, when its active gateway reports some.
    pub(super) fn sessions(&self, vpn: &VpnName) -> Option<PathCount> {
        self.sessions.get(vpn)?.told()
    }

    /// The gateways of a site, in order of their nodes.
    pub(super) fn gateways(&self, site: &SiteName) -> impl Iterator<Item = &GatewayState> {
        self.gateways
            .get(site)
            .into_iter()
            .flat_map(BTreeMap::values)
    }
}

impl Concerned {
    fn note(&mut self, node: &JudgedNode) {
        let Some(planned) = &node.planned else { return };
        self.links.insert(planned.link.clone());
        let vpns = planned.sessions.iter();
        self.vpns.extend(vpns.map(|(vpn, _)| vpn.clone()));
        let site = planned.gateway.iter();
        self.sites.extend(site.map(|(site, _)| site.clone()));
    }
}

fn count_of(paths: PeerPaths) -> PathCount {
    PathCount {
        up: paths.up,
        total: paths.total,
    }
}

/// What a planned node adds to the sums.
fn judge(id: &NodeId, index: &Index, decided: &Decided) -> Option<PlannedNode> {
    let node = decided.proposal().nodes.get(id)?;
    let peer = index.peers.get(node.peer.as_str()).map(AsRef::as_ref);
    let plan = decided.proposal().plans.get(&node.link);
    let revision = plan.map_or(0, |plan| plan.revision);
    let paths = peer.and_then(paths_of);
    // A node speaks for the attachments that it is a gateway of, and for no other.
    let own = |it: &VpnSessions| {
        let (name, attachment) = decided.attachments.get_key_value(it.name.as_str())?;
        let count = PathCount {
            up: it.up.min(it.total),
            total: it.total,
        };
        let speaks = attachment.gateways.contains(&node.peer);
        speaks.then(|| (name.clone(), count))
    };
    let sessions = peer.map(sessions_of).unwrap_or_default();
    let gateway = node.gateway_rank.map(|rank| {
        let state = GatewayState {
            id: id.clone(),
            rank,
            peer: node.peer.clone(),
            paths,
        };
        (node.site.clone(), state)
    });
    Some(PlannedNode {
        link: node.link.clone(),
        site: node.site.clone(),
        pods: node.pod_cidrs.clone(),
        carries: applied_revision(peer) >= revision && revision > 0,
        paths,
        sessions: sessions.iter().filter_map(own).collect(),
        gateway,
        entry: judge_node(id, node, peer, decided, revision),
    })
}

/// Why one node is not ready; the first reason that applies, from the bottom up.
fn judge_node(
    id: &NodeId,
    node: &NodePlan,
    peer: Option<&Peer>,
    decided: &Decided,
    revision: u64,
) -> Option<Notice> {
    let no = |reason: Reason, message: String| {
        Some(Notice {
            about: About::Node(id.clone()),
            link: Some(node.link.clone()),
            reason,
            message,
        })
    };
    let name = &node.peer;
    if let Some(refusals) = decided.accepted.refused.get(name)
        && let Some(first) = refusals.first()
    {
        let messages: BTreeSet<&str> = refusals.iter().map(|it| it.message.as_str()).collect();
        return no(
            first.reason,
            messages.into_iter().collect::<Vec<_>>().join("; "),
        );
    }
    if let Some(invalid) = decided.world.bad_claims.get(name) {
        return no(
            Reason::ClaimInvalid,
            format!(
                "what its agent says is refused: {}: {}",
                invalid.field, invalid.message
            ),
        );
    }
    if node.assign && !decided.carries_a_plan(name) {
        return no(
            Reason::NoAgent,
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
            Reason::NodeNotReady,
            "Kubernetes reports the Node as not ready".to_owned(),
        );
    }
    let applied = applied_revision(peer);
    if peer.and_then(|peer| peer.status.as_ref()).is_none() {
        return no(
            Reason::NoAgent,
            "no agent has reported from this node: see that tieline-agent runs there".to_owned(),
        );
    }
    if applied < revision {
        return no(
            Reason::AgentBehind,
            format!("its agent has not applied plan revision {revision} yet"),
        );
    }
    if peer.is_none_or(|peer| peer.spec.accepted_keys.is_empty()) {
        return no(
            Reason::Connecting,
            "its keys are not accepted yet".to_owned(),
        );
    }
    // Its agent counts paths once it has seen that its keys are accepted. Of two gateways, the one accepted later has then seen
    // the other's keys, so that no pair of them is missing from both counts. That a node counts a second gateway that has just
    // come is left to the hold on Ready.
    let Some(paths) = peer.and_then(paths_of) else {
        return no(
            Reason::Connecting,
            "its agent counts no paths yet; if that stays, the conditions of its Peer say why"
                .to_owned(),
        );
    };
    if paths.total > 0 && paths.up == 0 {
        return no(
            Reason::NoPath,
            format!("none of its {} paths is up", paths.total),
        );
    }
    // A gateway may be alone; every other node wants a path to each of its own gateways.
    if paths.total == 0 && node.gateway_rank.is_none() {
        return no(
            Reason::Connecting,
            "it does not know the keys of its gateways yet".to_owned(),
        );
    }
    // A path that has never been up is not ready yet; one that went down is the others' to bear.
    if paths.connecting > 0 {
        return no(
            Reason::Connecting,
            format!(
                "{} of its {} paths have not had their first handshake yet",
                paths.connecting, paths.total
            ),
        );
    }
    None
}

/// An entry of a status, within the bounds of the schema.
pub(super) fn not_ready(notice: &Notice) -> NotReady {
    NotReady {
        kind: notice.about.kind().to_string(),
        name: notice.about.name().into_owned(),
        reason: notice.reason.to_string(),
        message: super::judgement::clipped(notice.message.clone(), 1024),
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
pub(super) fn summary(entries: &BTreeMap<NodeName, Notice>, total: usize) -> String {
    format!(
        "{} of {total} nodes are not ready: {}",
        entries.len(),
        listed(
            entries
                .iter()
                .map(|(name, it)| format!("{name} ({})", it.reason))
        )
    )
}
