//! What has to be written, as ordered steps. Pure: each step's writes are independent, and a step is begun when the one before
//! has ended.
//!
//! Ledgers come first, the hub's before those that split what it grants: what they do not record is granted to nobody. Plans
//! come before Peers, whose spec names the least plan revision they go with; an attachment's key is stored before anything that
//! is sealed with it. Plans that no node here waits for come last, and a pass may end before them.

use crate::decided::Decided;
use crate::index::{AGENT_NOT_READY, Index};
use crate::ledgers::{self, Ledgers};
use crate::touched::Extent;
use crate::vpn;
use crate::write::{Write, differs};
use k8s_openapi::api::core::v1::{Node, Secret, Taint};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tieline_core::ids::{ClusterName, LinkName, NodeId, PeerName};
use tieline_core::ledger::LedgerName;
use tieline_core::slices::Stored;
use tieline_crds::{NetworkPlanSpec, Peer, convert};

/// What a decision writes.
#[derive(Debug, Clone, Default)]
pub struct Steps {
    /// In this order, and before anything else is decided.
    pub urgent: Vec<Vec<Write>>,
    /// In this order afterwards; what touches a node meanwhile is written in between.
    pub late: Vec<Write>,
    /// A ledger that has to exist before its slices: everything is decided again once the steps are done.
    pub begun: Option<String>,
    /// How the ledgers that are written are stored afterwards.
    pub stored: BTreeMap<LedgerName, Stored>,
}

/// Everything that has to be written, beginning with the Secrets of new attachments' keys in `keys`.
#[must_use]
pub fn steps(index: &Index, decided: &Decided, extent: &Extent, keys: Vec<Secret>) -> Steps {
    if decided.trouble.is_some() {
        return Steps::default();
    }
    let Ledgers {
        steps: mut urgent,
        superseded,
        begun,
        stored,
    } = ledgers::steps(index, decided, extent);
    if begun.is_some() {
        return Steps {
            urgent,
            late: Vec::new(),
            begun,
            stored,
        };
    }
    let Plans {
        gaining,
        mut awaited,
        late: later_plans,
    } = plans(index, decided, extent);
    awaited.extend(keys.into_iter().map(Write::NewSecret));
    let mut last = peers(decided, extent);
    last.extend(pod_cidrs(index, decided, extent));
    last.extend(untainted(index, decided, extent));
    last.extend(gone(index, decided, extent));
    if !matches!(extent, Extent::Only(touched) if !touched.attachments) {
        let plans = &decided.proposal().plans;
        let configurations = vpn::configurations(index, plans, &decided.attachments);
        last.extend(configurations.into_iter().map(Write::Secret));
        last.extend(vpn::obsolete(index).into_iter().map(Write::DeleteSecret));
    }
    urgent.extend([gaining, awaited]);
    let late = match extent {
        // What everybody gets gives way to what somebody waits for meanwhile.
        Extent::All => last
            .into_iter()
            .chain(later_plans)
            .chain(superseded)
            .collect(),
        Extent::Only(_) => {
            last.extend(superseded);
            urgent.push(last);
            later_plans
        }
    };
    urgent.retain(|step| !step.is_empty());
    Steps {
        urgent,
        late,
        begun: None,
        stored,
    }
}

/// The link that a write is for. Ledgers are everybody's.
#[must_use]
pub fn link_of(decided: &Decided, write: &Write) -> Option<LinkName> {
    let of_cluster = |cluster: &str| decided.uses.links_of_cluster(cluster).next().cloned();
    let of_vpn = |vpn: &str| decided.uses.links_of_vpn(vpn).next().cloned();
    match write {
        Write::Ledger(_) | Write::DeleteSlice(_) => None,
        Write::Plan(name, _) => LinkName::new(name.as_str()).ok(),
        Write::DeletePlan(plan) => LinkName::new(plan.spec.link.as_str()).ok(),
        Write::Peer(_, spec) => of_cluster(&spec.cluster),
        Write::DeletePeer(peer) => of_cluster(&peer.spec.cluster),
        Write::PodCidrs(..) | Write::Taints(..) => of_cluster(decided.world.local.as_str()),
        Write::NewSecret(secret) | Write::Secret(secret) => of_vpn(vpn::attachment_of(secret)?),
        Write::DeleteSecret(secret) => of_vpn(vpn::attachment_of(secret)?),
    }
}

/// Plans that changed.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    /// Those that a cluster moves to. They are written before the ones that lose it, because agents of a cluster that is in no
    /// plan withdraw.
    pub(crate) gaining: Vec<Write>,
    /// Those of nodes here.
    pub(crate) awaited: Vec<Write>,
    /// All others.
    pub(crate) late: Vec<Write>,
}

pub(crate) fn plans(index: &Index, decided: &Decided, extent: &Extent) -> Plans {
    let mut found = Plans::default();
    let world = &decided.world;
    if let Extent::Only(touched) = extent {
        // Their members are the same, so none gains a cluster.
        let specs = touched.plans.iter();
        let specs = specs.filter_map(|link| Some((link, decided.plan_specs.get(link)?)));
        found.awaited = specs.map(|(link, spec)| write(link, spec)).collect();
        return found;
    }
    let mut carried: BTreeMap<&ClusterName, BTreeSet<&LinkName>> = BTreeMap::new();
    for (link, plan) in &world.before.plans {
        for cluster in &plan.clusters {
            carried.entry(&cluster.name).or_default().insert(link);
        }
    }
    for (link, spec) in &decided.plan_specs {
        if !differs(spec, index.plans.get(link.as_str()).map(|held| &held.spec)) {
            continue;
        }
        let Some(plan) = decided.proposal().plans.get(link) else {
            continue;
        };
        let gains = plan.clusters.iter().any(|cluster| {
            let mut carriers = carried.get(&cluster.name).into_iter().flatten();
            carriers.any(|other| *other != link)
        });
        let step = if gains {
            &mut found.gaining
        } else if plan.cluster(&world.local).is_some() {
            &mut found.awaited
        } else {
            &mut found.late
        };
        step.push(write(link, spec));
    }
    found
}

fn write(link: &LinkName, spec: &NetworkPlanSpec) -> Write {
    Write::Plan(link.to_string(), Box::new(spec.clone()))
}

/// Peers that changed.
pub(crate) fn peers(decided: &Decided, extent: &Extent) -> Vec<Write> {
    let (wanted, held) = (&decided.accepted.peers, &decided.world.peers);
    let write = |name: &PeerName| {
        let peer = wanted.get(name)?;
        (held.get(name) != Some(peer))
            .then(|| Write::Peer(name.to_string(), Box::new(convert::peer_spec(peer))))
    };
    match extent {
        Extent::All => wanted.keys().filter_map(write).collect(),
        Extent::Only(touched) => touched
            .peers()
            .filter_map(|(name, _)| write(&name))
            .collect(),
    }
}

/// Nodes that get their podCIDRs: those whose agent carries a plan. Before, what the node's first pods send to planned ranges
/// would leave it in clear.
pub(crate) fn pod_cidrs(index: &Index, decided: &Decided, extent: &Extent) -> Vec<Write> {
    let write = |id: &NodeId| {
        let node = decided.proposal().nodes.get(id)?;
        if !node.assign || !decided.carries_a_plan(&node.peer) {
            return None;
        }
        let object = index.nodes.get(id.node.as_str())?;
        Some(Write::PodCidrs(object.clone(), node.pod_cidrs.clone()))
    };
    match extent {
        Extent::All => decided.proposal().nodes.keys().filter_map(write).collect(),
        Extent::Only(touched) => touched.nodes.iter().filter_map(write).collect(),
    }
}

/// Nodes whose taint [`AGENT_NOT_READY`] has done its work: their agent carries a plan, or no link names their cluster, so
/// that nothing is planned there.
pub(crate) fn untainted(index: &Index, decided: &Decided, extent: &Extent) -> Vec<Write> {
    let is_ours = |taint: &Taint| taint.key == AGENT_NOT_READY;
    let is_member = decided.is_member(decided.world.local.as_str());
    let write = |(id, node): (NodeId, &Arc<Node>)| {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        let taints = taints.filter(|taints| taints.iter().any(is_ours))?;
        let planned = decided.proposal().nodes.get(&id);
        if is_member && !planned.is_some_and(|node| decided.carries_a_plan(&node.peer)) {
            return None;
        }
        let others = taints.iter().filter(|taint| !is_ours(taint)).cloned();
        Some(Write::Taints(node.clone(), others.collect()))
    };
    let cluster = &decided.world.local;
    let id = |name: &str| {
        let node = name.parse().ok()?;
        let cluster = cluster.clone();
        Some(NodeId { cluster, node })
    };
    match extent {
        Extent::All => {
            let nodes = index.nodes.iter();
            nodes
                .filter_map(|(name, node)| write((id(name)?, node)))
                .collect()
        }
        Extent::Only(touched) => {
            let own = touched.nodes.iter().filter(|id| id.cluster == *cluster);
            own.filter_map(|id| write((id.clone(), index.nodes.get(id.node.as_str())?)))
                .collect()
        }
    }
}

/// Plans of links that are gone, and Peers of nodes that are gone or whose cluster no link names. A node that merely
/// waits keeps its Peer.
pub(crate) fn gone(index: &Index, decided: &Decided, extent: &Extent) -> Vec<Write> {
    let peer = |name: &str, peer: &Arc<Peer>| {
        let waits =
            index.nodes.get(&peer.spec.node).is_some() && decided.is_member(&peer.spec.cluster);
        (!decided.accepted.peers.contains_key(name) && !waits)
            .then(|| Write::DeletePeer(peer.clone()))
    };
    match extent {
        Extent::All => {
            let plans = index.plans.iter();
            let plans = plans
                .filter(|(_, plan)| index.links.get(&plan.spec.link).is_none())
                .map(|(_, plan)| Write::DeletePlan(plan.clone()));
            let peers = index.peers.iter();
            plans
                .chain(peers.filter_map(|(name, it)| peer(name, it)))
                .collect()
        }
        Extent::Only(touched) => {
            let names = touched.peers().map(|(name, _)| name);
            names
                .filter_map(|name| peer(name.as_str(), index.peers.get(name.as_str())?))
                .collect()
        }
    }
}
