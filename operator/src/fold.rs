//! The world, carried forward: what some Nodes and Peers changed, and the echo of own writes. Pure.
//!
//! ```text
//!  news ─► every other kind, trouble, a refusal, a restore ─► Whole: the world is read anew
//!       └► Nodes, Peers, own records ─► world, and what is touched
//! ```
//!
//! It may do less than a full pass, never something else: whatever it cannot tell from the changed objects alone is left to the full
//! pass. A test drives random histories through both.

use crate::decided::Decided;
use crate::index::{Change, News, Origin};
use crate::ledgers::is_nearly_full;
use crate::restore::{ACCEPT, Seen};
use crate::touched::{Folded, Whole, peer_of};
use crate::world::{LastReadable, disbelief, is_believed, pod_cidr_managers};
use crate::write::MANAGER;
use k8s_openapi::api::core::v1::Node;
use kube::{Resource, ResourceExt};
use std::collections::BTreeSet;
use std::sync::Arc;
use tieline_core::ids::{LinkName, NodeId, PeerName};
use tieline_core::ledger::LedgerName;
use tieline_core::notice::{Kind, Reason};
use tieline_crds::convert;
use tieline_crds::{AddressLedger, NetworkPlan, Peer};

/// Carries a world forward. After an error `decided` is of no use any more.
///
/// # Errors
/// [`Whole`] when the change concerns more than nodes.
pub fn fold(
    news: &News,
    decided: &mut Decided,
    memory: &mut LastReadable,
    seen: &mut Seen,
) -> Result<Folded, Whole> {
    is_calm(decided)?;
    only_status(news)?;
    for change in &news.ledgers {
        ledger(change, decided, seen)?;
    }
    for change in &news.plans {
        network_plan(change, decided)?;
    }
    let mut folded = Folded::default();
    for change in &news.nodes {
        node(change, decided, memory, &mut folded)?;
    }
    for change in &news.peers {
        peer(change, decided, &mut folded)?;
    }
    Ok(folded)
}

/// Whether nothing is waited for that a full pass would have to judge again.
fn is_calm(decided: &Decided) -> Result<(), Whole> {
    let world = &decided.world;
    let calm = decided.trouble.is_none()
        && decided.frozen.is_empty()
        && decided.disagreements.is_empty()
        && decided.spent.is_empty()
        && world.broken.is_empty()
        && world.aside.is_empty()
        && world.behind.is_empty()
        && world.lost.is_empty()
        && !world
            .notices
            .iter()
            .any(|it| it.reason == Reason::LedgerFull);
    if calm {
        Ok(())
    } else {
        Err(Whole("something waits for a user"))
    }
}

/// Whether users' objects changed in nothing but what is written by this program.
fn only_status(news: &News) -> Result<(), Whole> {
    let same = all_same(&news.links, |it| &it.spec)
        && all_same(&news.clusters, |it| &it.spec)
        && all_same(&news.sites, |it| &it.spec)
        && all_same(&news.vpns, |it| &it.spec)
        && all_same(&news.services, |it| &it.spec)
        && news.secrets.is_empty();
    if same {
        Ok(())
    } else {
        Err(Whole("a user's object changed"))
    }
}

fn all_same<K: Resource, S: PartialEq>(changes: &[Change<K>], spec: fn(&K) -> &S) -> bool {
    changes.iter().all(|change| is_same(change, spec))
}

/// Whether an object is the same but for its status and labels.
fn is_same<K: Resource, S: PartialEq>(change: &Change<K>, spec: fn(&K) -> &S) -> bool {
    let (Some(before), Some(now)) = (&change.before, &change.now) else {
        return false;
    };
    let (was, is) = (before.meta(), now.meta());
    was.uid == is.uid
        && was.annotations == is.annotations
        && was.deletion_timestamp == is.deletion_timestamp
        && spec(before) == spec(now)
}

/// A ledger is what was proposed, or only its status changed.
fn ledger(
    change: &Change<AddressLedger>,
    decided: &mut Decided,
    seen: &mut Seen,
) -> Result<(), Whole> {
    let other = Whole("somebody else wrote a ledger");
    if change.name.contains('.') && change.origin == Origin::Own {
        return Ok(()); // an own slice: its head says what it is
    }
    let object = change.now.as_ref().ok_or(other)?;
    if object.annotations().contains_key(ACCEPT) {
        return Err(Whole("an administrator's word may have done its work"));
    }
    let mark = |it: &Arc<AddressLedger>| (it.spec.lineage.clone(), it.spec.revision);
    let is_own_status =
        change.origin == Origin::Own && change.before.as_ref().map(mark) == Some(mark(object));
    if is_own_status || is_same(change, |it| &it.spec) {
        return Ok(());
    }
    let name = LedgerName::parse(&change.name).ok_or(other)?;
    let proposed = decided.proposal().ledgers.get(&name).ok_or(other)?;
    let is_echo = change.origin == Origin::Own
        && object.spec.revision == proposed.revision
        && object.spec.lineage == proposed.lineage.as_str()
        || is_stored_head(object, &name, decided);
    if !is_echo {
        return Err(other);
    }
    seen.note_ledger(&name, proposed);
    let revision = proposed.revision;
    match name {
        LedgerName::Hub => raise(decided, revision),
        LedgerName::Cluster(_) => Ok(()),
    }
}

/// Whether an object is the head that is stored by now.
fn is_stored_head(object: &AddressLedger, name: &LedgerName, decided: &Decided) -> bool {
    let head = convert::ledger_head(object).ok();
    let stored = decided.world.stored.get(name);
    head.is_some_and(|(_, head)| stored.is_some_and(|it| it.head == head))
}

/// A plan is what was proposed, or only its status changed.
fn network_plan(change: &Change<NetworkPlan>, decided: &mut Decided) -> Result<(), Whole> {
    if is_same(change, |it| &it.spec) {
        return Ok(());
    }
    let other = Whole("somebody else wrote a plan");
    let object = change.now.as_ref().ok_or(other)?;
    let link = LinkName::new(object.spec.link.as_str()).map_err(|_| other)?;
    let proposed = decided.proposal().plans.get(&link).ok_or(other)?;
    let is_echo = decided.plan_specs.get(&link) == Some(&object.spec)
        || convert::network_plan(object).is_ok_and(|plan| plan == *proposed);
    if !is_echo {
        return Err(other);
    }
    let revision = proposed.revision;
    raise(decided, revision)
}

/// A higher revision than all before: what is disbelieved may be believed now.
fn raise(decided: &mut Decided, revision: u64) -> Result<(), Whole> {
    if revision > decided.world.highest {
        if !decided.world.bad_claims.is_empty() {
            return Err(Whole("a claim may be believed now"));
        }
        decided.world.highest = revision;
    }
    Ok(())
}

fn node(
    change: &Change<Node>,
    decided: &mut Decided,
    memory: &mut LastReadable,
    folded: &mut Folded,
) -> Result<(), Whole> {
    let world = &mut decided.world;
    let is_it = |it: &convert::Invalid| it.kind == Kind::Node && it.name == change.name;
    if world.invalid.iter().any(is_it) {
        return Err(Whole("a Node could not be read"));
    }
    let cluster = world.local.clone();
    let [was, is] = [&change.before, &change.now].map(|object| foreign_managers(object.as_deref()));
    let assigns = world
        .fleet
        .clusters
        .get(&cluster)
        .is_some_and(|it| it.assign);
    if was != is && (assigns || !world.notices.is_empty()) {
        return Err(Whole("the owner of a podCIDR changed"));
    }
    let read = match &change.now {
        Some(object) => {
            let read = convert::node(&cluster, object);
            Some(read.map_err(|_| Whole("a Node cannot be read"))?)
        }
        None => None,
    };
    let id = match &read {
        Some((id, _)) => id.clone(),
        None => NodeId {
            node: change
                .name
                .parse()
                .map_err(|_| Whole("a Node has no name"))?,
            cluster,
        },
    };
    let node = read.map(|(_, node)| node);
    if world.fleet.nodes.get(&id) != node.as_ref() {
        if node.is_some() && is_nearly_full(&world.before.ledgers, &id.cluster) {
            return Err(Whole("a ledger may have no room for a newcomer"));
        }
        memory.note_node(&id, node.as_ref());
        match node {
            Some(node) => drop(world.fleet.nodes.insert(id.clone(), node)),
            None => drop(world.fleet.nodes.remove(&id)),
        }
        folded.replan.insert(id.clone());
    }
    folded.touched.nodes.insert(id);
    Ok(())
}

fn foreign_managers(node: Option<&Node>) -> BTreeSet<&str> {
    let managers = node.into_iter().flat_map(pod_cidr_managers);
    managers.filter(|manager| *manager != MANAGER).collect()
}

fn peer(change: &Change<Peer>, decided: &mut Decided, folded: &mut Folded) -> Result<(), Whole> {
    let world = &mut decided.world;
    let unreadable = Whole("a Peer cannot be read");
    let is_it = |it: &convert::Invalid| it.kind == Kind::Peer && it.name == change.name;
    if world.invalid.iter().any(is_it) {
        return Err(unreadable);
    }
    let name = PeerName::new(change.name.as_str()).map_err(|_| unreadable)?;
    let Some(object) = &change.now else {
        if let Some(peer) = world.peers.remove(&name) {
            let (cluster, node) = (peer.cluster.clone(), peer.node.clone());
            folded.touched.nodes.insert(NodeId { cluster, node });
        }
        world.claims.remove(&name);
        world.bad_claims.remove(&name);
        return Ok(());
    };
    let before = change.before.as_ref();
    if before.is_none_or(|it| it.spec != object.spec) {
        let (name, peer) = convert::accepted_peer(object).map_err(|_| unreadable)?;
        world.peers.insert(name, peer);
    }
    let id = world.peers.get(&name).map(|peer| NodeId {
        cluster: peer.cluster.clone(),
        node: peer.node.clone(),
    });
    let id = id
        .filter(|id| peer_of(id).as_ref() == Some(&name))
        .ok_or(unreadable)?;
    match convert::claim(object) {
        Ok((_, claim)) if is_believed(&claim, world.highest) => {
            let links = decided.uses.links_of_cluster(id.cluster.as_str());
            let plans = links.filter_map(|link| world.before.plans.get(link));
            let mut own = plans.filter(|plan| plan.cluster(&id.cluster).is_some());
            // Only a restore, or a plan that was deleted, explains an agent that carries more.
            if !own.any(|plan| plan.revision >= claim.applied_revision) {
                return Err(Whole("an agent carries what is not there"));
            }
            world.bad_claims.remove(&name);
            world.claims.insert(name, claim);
        }
        Ok((_, claim)) => {
            let error = disbelief(&name, &claim, world.highest);
            world.claims.remove(&name);
            world.bad_claims.insert(name, error);
        }
        Err(error) => {
            world.claims.remove(&name);
            world.bad_claims.insert(name, error);
        }
    }
    folded.touched.nodes.insert(id);
    Ok(())
}
