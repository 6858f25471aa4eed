//! The reconcile: one pass over everything, level-triggered. What it decides depends on the index alone, so a pass that was
//! interrupted is simply made again.
//!
//! ```text
//!  index ─► world ─► plan ─► check ─► ledgers ─► podCIDRs, plans ─► Peers ─► Secrets ─► (status lane)
//!           pure     pure    pure     compare     server-side        accepted             people read it;
//!                                     and swap    apply              claims               nobody waits for it
//! ```
//!
//! Ledgers come first: what they do not record is granted to nobody. Plans come before Peers, whose spec names the least
//! plan revision they go with.

use crate::index::Index;
use crate::restore::{self, Frozen, Seen};
use crate::store::Store;
use crate::vpn::{self, Attachment};
use crate::world::{self, Memory, World};
use crate::write::{WriteError, Writer, differs};
use crypto_box::aead::OsRng;
use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::Node;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use tieline_core::cidr::Prefix;
use tieline_core::claims::{Accepted, accept};
use tieline_core::ids::{ClusterName, Lineage, LinkName, VpnName};
use tieline_core::ledger::LedgerName;
use tieline_core::network_plan::NetworkPlan;
use tieline_core::plan::{Notice, Proposal, plan};
use tieline_core::{check, peer::AcceptedPeers};
use tieline_crds::convert::{self, Invalid};
use tieline_crds::{AddressLedger, NetworkPlanSpec, Peer, PeerSpec};

/// How many independent writes run at once.
const PARALLEL: usize = 8;

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
}

/// The outcome of a pass, from which statuses follow.
#[derive(Debug, Clone)]
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
    /// Plans that are too large to be written.
    pub too_large: BTreeMap<LinkName, String>,
    /// Why nothing was written: reason and message.
    pub trouble: Option<(&'static str, String)>,
}

impl Decided {
    /// Everything that a user must change.
    pub fn refusals(&self) -> impl Iterator<Item = &Notice> {
        self.world
            .notices
            .iter()
            .filter(|it| it.reason != "LedgerFrozen")
            .chain(&self.proposal.report.refusals)
    }

    /// Everything that could not be done.
    pub fn notices(&self) -> impl Iterator<Item = &Notice> {
        self.world
            .notices
            .iter()
            .chain(&self.proposal.report.refusals)
            .chain(&self.proposal.report.waiting)
    }

    /// Plans that stay as they are, because their link cannot be read.
    pub fn kept_plans(&self) -> impl Iterator<Item = &NetworkPlan> {
        self.world
            .before
            .plans
            .values()
            .filter(|plan| self.world.aside.contains_key(&plan.link))
    }
}

/// One pass. Ends early when this process does not lead or a write fails; then it has to be made again.
///
/// # Errors
/// The first [`WriteError`].
pub async fn reconcile(
    store: &Store,
    writer: &Writer,
    keeper: &mut Keeper,
) -> Result<Decided, WriteError> {
    let index = store.snapshot(); //                                                             pure from here …
    let mut decided = decide(&index, keeper);
    if decided.trouble.is_some() {
        return Ok(decided);
    }
    all(ledgers(&index, &decided.proposal), |it| writer.ledger(it)).await?; //                    IO: compare-and-swap
    let plans = plans(&index, &mut decided); //                                                  pure
    let (cidrs, plans) = tokio::join!(
        all(
            pod_cidrs(&index, &decided.proposal),
            |(node, cidrs)| async move { writer.pod_cidrs(&node, &cidrs).await }
        ), // IO
        all(plans, |(name, spec)| async move {
            writer.spec::<tieline_crds::NetworkPlan>(&name, &spec).await
        }), //          IO
    );
    cidrs.and(plans)?;
    let (attachments, new) = vpn::attachments(
        &index,
        &decided.proposal.plans,
        &decided.accepted.peers,
        &mut OsRng,
    ); // pure
    all(
        new,
        |secret| async move { writer.new_secret(&secret).await },
    )
    .await?; //                 IO: once per attachment
    vpn::seal(
        &attachments,
        &mut decided.accepted.peers,
        &decided.world.claims,
        &mut OsRng,
    ); //   pure
    all(
        peers(&index, &decided.accepted.peers),
        |(name, spec)| async move { writer.spec::<Peer>(&name, &spec).await },
    )
    .await?; // IO
    all(gone(&index, &decided), |gone| async move {
        gone.delete(writer).await
    })
    .await?; //        IO
    let configurations = vpn::configurations(&index, &decided.proposal.plans, &attachments); //   pure
    all(configurations, |secret| async move {
        writer.secret(&secret).await
    })
    .await?; //          IO
    decided.attachments = attachments;
    Ok(decided)
}

/// Everything that can be decided before anything is written.
fn decide(index: &Index, keeper: &mut Keeper) -> Decided {
    let mut world = world::read(index, &mut keeper.memory, &keeper.cluster, &keeper.fresh);
    let frozen = restore::freeze(index, &mut world, &mut keeper.seen);
    let waiting = restore::restrict(&mut world.fleet, &world.before.ledgers, &frozen);
    world.notices.extend(waiting);
    let proposal = plan(&world.fleet, &world.before);
    let findings = check::check(&world.fleet, &world.before, &proposal);
    let trouble = trouble(&world.broken, &findings);
    let accepted = accept(&proposal, &world.peers, &world.claims);
    Decided {
        world,
        proposal,
        accepted,
        attachments: BTreeMap::new(),
        frozen,
        too_large: BTreeMap::new(),
        trouble,
    }
}

fn trouble(broken: &[Invalid], findings: &[check::Finding]) -> Option<(&'static str, String)> {
    let texts = |all: Vec<String>| world::some_of(all.into_iter());
    if !broken.is_empty() {
        let message = texts(broken.iter().map(ToString::to_string).collect());
        return Some((
            "RecordUnreadable",
            format!("nothing is decided while this cannot be read: {message}"),
        ));
    }
    if !findings.is_empty() {
        let message = texts(findings.iter().map(ToString::to_string).collect());
        return Some((
            "CheckFailed",
            format!("the plan breaks invariants, so nothing is written: {message}"),
        ));
    }
    None
}

/// Ledgers that changed, with the version that they were decided from.
fn ledgers(index: &Index, proposal: &Proposal) -> Vec<AddressLedger> {
    let mut changed = Vec::new();
    for (name, ledger) in &proposal.ledgers {
        let mut object = convert::ledger_object(name, ledger);
        match index.ledgers.get(&name.to_string()) {
            Some(held) if !differs(&object.spec, Some(&held.spec)) => continue,
            Some(held) => object.metadata = held.metadata.clone(),
            None => {}
        }
        changed.push(object);
    }
    changed
}

/// Plans that changed and fit into an object.
fn plans(index: &Index, decided: &mut Decided) -> Vec<(String, NetworkPlanSpec)> {
    let mut changed = Vec::new();
    for (link, plan) in &decided.proposal.plans {
        if decided.world.aside.contains_key(link) {
            continue;
        }
        match convert::plan_spec(plan) {
            Ok(spec) => {
                if differs(&spec, index.plans.get(link.as_str()).map(|held| &held.spec)) {
                    changed.push((link.to_string(), spec));
                }
            }
            Err(error) => drop(decided.too_large.insert(link.clone(), error.to_string())),
        }
    }
    changed
}

fn pod_cidrs(index: &Index, proposal: &Proposal) -> Vec<(Arc<Node>, Vec<Prefix>)> {
    let nodes = proposal
        .nodes
        .iter()
        .filter(|(_, node)| !node.assign.is_empty());
    nodes
        .filter_map(|(id, node)| {
            Some((
                index.nodes.get(id.node.as_str())?.clone(),
                node.assign.clone(),
            ))
        })
        .collect()
}

fn peers(index: &Index, accepted: &AcceptedPeers) -> Vec<(String, PeerSpec)> {
    let specs = accepted
        .iter()
        .map(|(name, peer)| (name.to_string(), convert::peer_spec(peer)));
    specs
        .filter(|(name, spec)| differs(spec, index.peers.get(name).map(|held| &held.spec)))
        .collect()
}

/// What has no reason to exist any more.
enum Gone {
    Plan(Arc<tieline_crds::NetworkPlan>),
    Peer(Arc<Peer>),
}

impl Gone {
    async fn delete(self, writer: &Writer) -> Result<(), WriteError> {
        match self {
            Self::Plan(plan) => writer.delete(&*plan).await,
            Self::Peer(peer) => writer.delete(&*peer).await,
        }
    }
}

/// Plans of links that are gone, and Peers of nodes that are gone or whose cluster no link names. A node that merely
/// waits keeps its Peer.
fn gone(index: &Index, decided: &Decided) -> Vec<Gone> {
    let world = &decided.world;
    let member = |cluster: &str| {
        world
            .fleet
            .links
            .values()
            .any(|link| link.clusters.iter().any(|it| it.as_str() == cluster))
            || decided
                .kept_plans()
                .any(|plan| plan.clusters.iter().any(|it| it.name.as_str() == cluster))
            || world
                .notices
                .iter()
                .any(|it| it.kind == "Cluster" && it.name == cluster)
    };
    let plans = index
        .plans
        .iter()
        .filter(|(_, plan)| index.links.get(&plan.spec.link).is_none());
    let peers = index.peers.iter().filter(|(name, peer)| {
        let planned = decided.accepted.peers.keys().any(|it| it.as_str() == *name);
        !planned && !(index.nodes.get(&peer.spec.node).is_some() && member(&peer.spec.cluster))
    });
    plans
        .map(|(_, it)| Gone::Plan(it.clone()))
        .chain(peers.map(|(_, it)| Gone::Peer(it.clone())))
        .collect()
}

/// Runs independent writes, a few at once. All are tried; the first error is returned.
async fn all<T, F>(items: Vec<T>, write: impl Fn(T) -> F) -> Result<(), WriteError>
where
    F: Future<Output = Result<(), WriteError>>,
{
    let results: Vec<_> = stream::iter(items)
        .map(write)
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    results.into_iter().collect()
}

#[cfg(test)]
mod tests;
