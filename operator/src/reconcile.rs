//! The reconcile: one pass over everything, level-triggered. What it decides depends on the index alone, so a pass that was
//! interrupted is simply made again.
//!
//! ```text
//!  index ─► world ─► plan ─► check ─► accept ─► ledgers ─► plans, keys ─► Peers, podCIDRs, the rest ─► status lane
//!           └──────────── pure ────────────┘    compare    server-side apply, without force           people read it;
//!                                               and swap                                              nobody waits
//! ```
//!
//! Ledgers come first: what they do not record is granted to nobody. Plans come before Peers, whose spec names the least
//! plan revision they go with; an attachment's key is stored before anything is sealed with it.

use crate::index::Index;
use crate::ledgers;
use crate::restore::{self, Disagreement, Frozen, Seen};
use crate::store::Store;
use crate::vpn::{self, Attachment};
use crate::world::{self, Memory, World};
use crate::write::{AGENT_NOT_READY, Write, WriteError, Writer, differs};
use crypto_box::aead::OsRng;
use k8s_openapi::api::core::v1::Taint;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use tieline_core::check::{Finding, check};
use tieline_core::claims::{Accepted, accept};
use tieline_core::ids::{ClusterName, Lineage, LinkName, PeerName, VpnName};
use tieline_core::ledger::LedgerName;
use tieline_core::network_plan::NetworkPlan;
use tieline_core::plan::{Notice, Proposal, listed, plan};
use tieline_crds::convert::{self, Invalid, LostSlices};

/// One pass. Ends early when this process does not lead, when a ledger has changed since it was read, or when the API
/// server does not answer; then it has to be made again. What the API server refuses is kept in
/// [`Decided::refused`] and stops nothing else.
///
/// # Errors
/// The first [`WriteError`] that ends the pass.
pub async fn reconcile(
    store: &Store,
    writer: &Writer,
    keeper: &mut Keeper,
) -> Result<Decided, WriteError> {
    // Pure: everything that follows from what was read.
    let started = Instant::now();
    let index = store.snapshot();
    let mut decided = decide(&index, keeper);
    let (attachments, keys) = vpn::attachments(
        &index,
        &decided.proposal.plans,
        &decided.accepted.peers,
        keeper.agent_port,
        &mut OsRng,
    );
    decided.attachments = attachments;
    writer.decided_in(started.elapsed());
    if decided.trouble.is_some() {
        return Ok(decided);
    }

    // IO: ledgers, by compare-and-swap. The hub's goes first: a cluster's ledger splits what the hub has granted, so it
    // must never be ahead of it, not even when a pass ends half-way.
    let mut stored = ledgers::steps(&index, &decided);
    for step in std::mem::take(&mut stored.steps) {
        send(writer, &mut decided, step).await?;
        if decided.ledger_refused() {
            return Ok(decided);
        }
    }
    if let Some(ledger) = stored.begun {
        let object = format!("AddressLedger {ledger}, which exists now,");
        return Err(WriteError::Conflict { object });
    }

    // IO: plans, and the keys of new attachments.
    keeper.seen.note_plans(&decided.proposal.plans);
    let [first, mut writes] = plans(&index, &mut decided);
    send(writer, &mut decided, first).await?;
    writes.extend(keys.into_iter().map(Write::NewSecret));
    send(writer, &mut decided, writes).await?;

    // Pure: secrets of gateways, sealed where something changed.
    let claims = &decided.world.claims;
    vpn::seal(
        &decided.attachments,
        &mut decided.accepted.peers,
        claims,
        &mut OsRng,
    );

    // IO: Peers, podCIDRs, configurations for the other sides, and what has no reason to exist any more.
    let mut writes = peers(&decided);
    writes.extend(pod_cidrs(&index, &decided));
    writes.extend(untainted(&index, &decided));
    writes.extend(gone(&index, &decided));
    let plans = &decided.proposal.plans;
    let configurations = vpn::configurations(&index, plans, &decided.attachments);
    writes.extend(configurations.into_iter().map(Write::Secret));
    writes.extend(vpn::obsolete(&index).into_iter().map(Write::DeleteSecret));
    writes.extend(stored.superseded(&index, &decided));
    send(writer, &mut decided, writes).await?;
    Ok(decided)
}

/// Sends independent writes. What was stored and what was refused is kept; the first error that ends a pass is passed on.
async fn send(
    writer: &Writer,
    decided: &mut Decided,
    writes: Vec<Write>,
) -> Result<(), WriteError> {
    let about: Vec<_> = writes
        .iter()
        .map(|write| (write.object(), link_of(&decided.world, write)))
        .collect();
    for ((object, link), result) in about.into_iter().zip(writer.send_all(writes).await) {
        match result {
            Ok(()) => drop(decided.stored.insert(object)),
            Err(error @ WriteError::Refused { .. }) => {
                decided.refused.push(RefusedWrite { link, error });
            }
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// The link that a write is for. Ledgers are everybody's.
fn link_of(world: &World, write: &Write) -> Option<LinkName> {
    let of_cluster = |cluster: &str| {
        let mut links = world.fleet.links.iter();
        let found = links.find(|(_, link)| link.clusters.iter().any(|it| it.as_str() == cluster));
        found.map(|(name, _)| name.clone())
    };
    let of_vpn = |vpn: &str| {
        let mut links = world.fleet.links.iter();
        let found = links.find(|(_, link)| link.vpns.iter().any(|it| it.as_str() == vpn));
        found.map(|(name, _)| name.clone())
    };
    match write {
        Write::Ledger(_) | Write::DeleteSlice(_) => None,
        Write::Plan(name, _) => LinkName::new(name.as_str()).ok(),
        Write::DeletePlan(plan) => LinkName::new(plan.spec.link.as_str()).ok(),
        Write::Peer(_, spec) => of_cluster(&spec.cluster),
        Write::DeletePeer(peer) => of_cluster(&peer.spec.cluster),
        Write::PodCidrs(..) | Write::Taints(..) => of_cluster(world.local.as_str()),
        Write::NewSecret(secret) | Write::Secret(secret) => of_vpn(vpn::attachment_of(secret)?),
        Write::DeleteSecret(secret) => of_vpn(vpn::attachment_of(secret)?),
    }
}

/// What outlives a pass.
#[derive(Debug)]
pub struct Keeper {
    /// The local cluster, whose Nodes are in the index.
    pub cluster: ClusterName,
    /// Lineage of a history that begins now.
    pub fresh: Lineage,
    /// Last readable forms.
    pub memory: Memory,
    /// Highest revisions seen.
    pub seen: Seen,
    /// The agents' first UDP port.
    pub agent_port: u16,
}

/// A write that the API server refused.
#[derive(Debug)]
pub struct RefusedWrite {
    /// The link that it was for; without one it concerns all.
    pub link: Option<LinkName>,
    /// What the API server said.
    pub error: WriteError,
}

/// The outcome of a pass, from which statuses follow.
#[derive(Debug)]
pub struct Decided {
    /// What was decided on.
    pub world: World,
    /// What was decided.
    pub proposal: Proposal,
    /// Accepted peers and refused claims.
    pub accepted: Accepted,
    /// VPN attachments.
    pub attachments: BTreeMap<VpnName, Attachment>,
    /// Ledgers that give no new grants.
    pub frozen: BTreeMap<LedgerName, Frozen>,
    /// Ledgers whose word of an accepted restore has done its work.
    pub spent: BTreeSet<LedgerName>,
    /// Where a cluster's ledger splits what the hub's does not hold.
    pub disagreements: Vec<Disagreement>,
    /// Plans that are too large to be written.
    pub too_large: BTreeMap<LinkName, String>,
    /// Why nothing was written: reason and message.
    pub trouble: Option<(&'static str, String)>,
    /// Kind and name of what was stored.
    pub stored: BTreeSet<(&'static str, String)>,
    /// Writes that the API server refused.
    pub refused: Vec<RefusedWrite>,
}

impl Decided {
    /// Everything that a user must change.
    pub fn refusals(&self) -> impl Iterator<Item = &Notice> {
        let own = self.world.notices.iter();
        own.filter(|it| it.reason != restore::LEDGER_FROZEN && it.reason != ledgers::LEDGER_FULL)
            .chain(&self.proposal.report.refusals)
    }

    /// Everything that could not be done.
    pub fn notices(&self) -> impl Iterator<Item = &Notice> {
        let report = &self.proposal.report;
        self.world
            .notices
            .iter()
            .chain(&report.refusals)
            .chain(&report.waiting)
    }

    /// Plans that stay as they are, because their link cannot be read.
    pub fn kept_plans(&self) -> impl Iterator<Item = &NetworkPlan> {
        self.world
            .before
            .plans
            .values()
            .filter(|plan| self.world.aside.contains_key(&plan.link))
    }

    /// Whether a node's agent has said that its kernel carries a plan: from then on planned ranges are closed there.
    #[must_use]
    pub fn carries_a_plan(&self, peer: &PeerName) -> bool {
        let claim = self.world.claims.get(peer);
        claim.is_some_and(|claim| claim.applied_revision > 0)
    }

    /// Nothing may follow a ledger that was not stored.
    fn ledger_refused(&mut self) -> bool {
        let Some(RefusedWrite { error, .. }) = self.refused.first() else {
            return false;
        };
        self.trouble = Some(("LedgerRefused", format!("nothing else is written: {error}")));
        true
    }
}

/// Everything that can be decided before anything is written.
fn decide(index: &Index, keeper: &mut Keeper) -> Decided {
    let mut world = world::read(index, &mut keeper.memory, &keeper.cluster, &keeper.fresh);
    let frozen = restore::freeze(index, &mut world, &mut keeper.seen);
    let disagreements = restore::agree(index, &mut world, &frozen);
    let spent = restore::spent(index, &world, &frozen, &disagreements);
    let waiting = restore::restrict(&mut world.fleet, &world.before.ledgers, &frozen);
    world.notices.extend(waiting);
    let full = ledgers::restrict(&mut world.fleet, &world.before.ledgers);
    world.notices.extend(full);
    let proposal = plan(&world.fleet, &world.before);
    let trouble = trouble(
        &world.broken,
        &world.lost,
        &disagreements,
        &check(&world.fleet, &world.before, &proposal),
    );
    let accepted = accept(&proposal, &world.peers, &world.claims);
    Decided {
        world,
        proposal,
        accepted,
        attachments: BTreeMap::new(),
        frozen,
        spent,
        disagreements,
        too_large: BTreeMap::new(),
        trouble,
        stored: BTreeSet::new(),
        refused: Vec::new(),
    }
}

fn trouble(
    broken: &[Invalid],
    lost: &[LostSlices],
    disagreements: &[Disagreement],
    findings: &[Finding],
) -> Option<(&'static str, String)> {
    if !broken.is_empty() {
        let what = listed(broken);
        let message = format!("nothing is decided while this cannot be read: {what}");
        return Some(("RecordUnreadable", message));
    }
    if !lost.is_empty() {
        let what = listed(lost);
        return Some(("SliceMissing", format!("nothing is written: {what}")));
    }
    if !disagreements.is_empty() {
        let what = listed(disagreements);
        return Some(("LedgersDisagree", format!("nothing is written: {what}")));
    }
    if !findings.is_empty() {
        let what = listed(findings);
        let message = format!("the plan breaks invariants, so nothing is written: {what}");
        return Some(("CheckFailed", message));
    }
    None
}

/// Plans that changed and fit into an object, in two steps: a plan that a cluster moves to is written before the one that
/// loses it, because agents of a cluster that is in no plan withdraw.
fn plans(index: &Index, decided: &mut Decided) -> [Vec<Write>; 2] {
    let [mut gaining, mut others] = [Vec::new(), Vec::new()];
    let world = &decided.world;
    for (link, plan) in &decided.proposal.plans {
        if world.aside.contains_key(link) || world.behind.contains_key(link) {
            continue;
        }
        let spec = match convert::plan_spec(plan) {
            Ok(spec) => spec,
            Err(error) => {
                decided.too_large.insert(link.clone(), error.to_string());
                continue;
            }
        };
        if !differs(&spec, index.plans.get(link.as_str()).map(|held| &held.spec)) {
            continue;
        }
        let gains = plan.clusters.iter().any(|cluster| {
            let mut others = world.before.plans.values().filter(|it| it.link != *link);
            others.any(|other| other.cluster(&cluster.name).is_some())
        });
        let step = if gains { &mut gaining } else { &mut others };
        step.push(Write::Plan(link.to_string(), Box::new(spec)));
    }
    [gaining, others]
}

/// Peers that changed.
fn peers(decided: &Decided) -> Vec<Write> {
    let held = &decided.world.peers;
    let changed = decided
        .accepted
        .peers
        .iter()
        .filter(|(name, peer)| held.get(*name) != Some(*peer));
    changed
        .map(|(name, peer)| Write::Peer(name.to_string(), Box::new(convert::peer_spec(peer))))
        .collect()
}

/// Nodes that get their podCIDRs: those whose agent carries a plan. Before, what the node's first pods send to planned ranges
/// would leave it in clear.
fn pod_cidrs(index: &Index, decided: &Decided) -> Vec<Write> {
    let nodes = decided
        .proposal
        .nodes
        .iter()
        .filter(|(_, node)| !node.assign.is_empty() && decided.carries_a_plan(&node.peer));
    nodes
        .filter_map(|(id, node)| {
            let object = index.nodes.get(id.node.as_str())?;
            Some(Write::PodCidrs(object.clone(), node.assign.clone()))
        })
        .collect()
}

/// Nodes whose taint [`AGENT_NOT_READY`] has done its work: their agent carries a plan, or no link names their cluster, so
/// that nothing is planned there.
fn untainted(index: &Index, decided: &Decided) -> Vec<Write> {
    let is_ours = |taint: &Taint| taint.key == AGENT_NOT_READY;
    let is_member = members(decided).contains(decided.world.local.as_str());
    let mut writes = Vec::new();
    for (name, node) in index.nodes.iter() {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        let Some(taints) = taints.filter(|taints| taints.iter().any(is_ours)) else {
            continue;
        };
        let mut planned = decided.proposal.nodes.iter();
        let planned =
            planned.find(|(id, _)| id.cluster == decided.world.local && id.node.as_str() == name);
        if !is_member || planned.is_some_and(|(_, node)| decided.carries_a_plan(&node.peer)) {
            let others = taints.iter().filter(|taint| !is_ours(taint)).cloned();
            writes.push(Write::Taints(node.clone(), others.collect()));
        }
    }
    writes
}

/// Plans of links that are gone, and Peers of nodes that are gone or whose cluster no link names. A node that merely
/// waits keeps its Peer.
fn gone(index: &Index, decided: &Decided) -> Vec<Write> {
    let members = members(decided);
    let planned: BTreeSet<&str> = decided
        .accepted
        .peers
        .keys()
        .map(|name| name.as_str())
        .collect();

    let plans = index
        .plans
        .iter()
        .filter(|(_, plan)| index.links.get(&plan.spec.link).is_none())
        .map(|(_, plan)| Write::DeletePlan(plan.clone()));
    let peers = index
        .peers
        .iter()
        .filter(|(name, peer)| {
            let waits = index.nodes.get(&peer.spec.node).is_some()
                && members.contains(peer.spec.cluster.as_str());
            !planned.contains(name) && !waits
        })
        .map(|(_, peer)| Write::DeletePeer(peer.clone()));
    plans.chain(peers).collect()
}

/// Clusters that a link names, or that are left as they are.
fn members(decided: &Decided) -> BTreeSet<&str> {
    let world = &decided.world;
    let mut members: BTreeSet<&str> = BTreeSet::new();
    members.extend(
        world
            .fleet
            .links
            .values()
            .flat_map(|link| &link.clusters)
            .map(ClusterName::as_str),
    );
    members.extend(
        decided
            .kept_plans()
            .flat_map(|plan| &plan.clusters)
            .map(|it| it.name.as_str()),
    );
    // A cluster that waits for a frozen or full ledger is left as it is.
    let waiting = world
        .notices
        .iter()
        .filter(|it| it.reason == restore::LEDGER_FROZEN || it.reason == ledgers::LEDGER_FULL);
    members.extend(
        waiting
            .filter(|it| it.kind == "Cluster")
            .map(|it| it.name.as_str()),
    );
    members
}

#[cfg(test)]
mod tests;
