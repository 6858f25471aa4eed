//! When the hub's ledger does not hold what a cluster's ledger splits: it was restored alone, deleted, or edited by hand.
//!
//! Nothing may be decided then: the planner would give the cluster another block, and the old one to somebody else. What
//! helps is to record the blocks in the hub's ledger again, which an administrator has to say, by the annotation
//! [`ACCEPT`] with at least the hub's revision. Pure.

use super::frozen::{ACCEPT, Frozen};
use crate::index::Index;
use crate::world::World;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use tieline_core::cidr::{Prefix, PrefixSet};
use tieline_core::ids::ClusterName;
use tieline_core::ledger::{Grant, Ledger, LedgerName, Owner, State, Use};

/// Blocks that a cluster's ledger splits and the hub's does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disagreement {
    /// The cluster.
    pub cluster: ClusterName,
    /// What the hub's ledger lacks.
    pub missing: Vec<(Prefix, Use)>,
    /// What the hub's ledger holds in their place, which makes it impossible to record them again.
    pub taken: Vec<String>,
    /// The ledger that the word is written on: the hub's, or the cluster's where there is no other.
    pub on: LedgerName,
    /// The least revision that the word has to name.
    pub revision: u64,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cluster,
            taken,
            on,
            revision,
            ..
        } = self;
        let missing = self.missing.iter();
        let missing: Vec<String> = missing
            .map(|(prefix, used)| format!("{prefix} ({used:?})"))
            .collect();
        write!(
            f,
            "AddressLedger hub does not hold {} for Cluster {cluster}, which AddressLedger cluster-{cluster} splits: hub was \
             restored alone, or edited by hand. ",
            missing.join(", ")
        )?;
        if taken.is_empty() {
            write!(
                f,
                "To record it in hub again: tieline ledger accept-restore {on} --yes (or kubectl annotate \
                 addressledgers.tieline.dev {on} --overwrite {ACCEPT}={revision})"
            )
        } else {
            write!(
                f,
                "It cannot be recorded again, because hub holds {} in its place: correct one of the two ledgers by hand, with a \
                 higher revision",
                taken.join(", ")
            )
        }
    }
}

/// Finds where the levels disagree. What an administrator has accepted is recorded in `world` again, under a new revision;
/// the rest is returned.
pub fn agree(
    index: &Index,
    world: &mut World,
    frozen: &BTreeMap<LedgerName, Frozen>,
) -> Vec<Disagreement> {
    let mut left = Vec::new();
    let clusters: Vec<(ClusterName, Arc<Ledger>)> = world
        .before
        .ledgers
        .iter()
        .filter_map(|(name, ledger)| match name {
            LedgerName::Cluster(cluster) => Some((cluster.clone(), ledger.clone())),
            LedgerName::Hub => None,
        })
        .collect();
    let mut recorded = Vec::new();
    for (cluster, ledger) in clusters {
        let Some(found) = disagreement(world, frozen, &cluster, &ledger) else {
            continue;
        };
        let word = index.ledgers.get(&found.on.to_string());
        let word = word.and_then(|it| it.annotations().get(ACCEPT)?.parse::<u64>().ok());
        if found.taken.is_empty() && word.is_some_and(|word| word >= found.revision) {
            let owner = Owner::Cluster(cluster);
            recorded.extend(found.missing.into_iter().map(|(prefix, used_for)| Grant {
                prefix,
                used_for,
                owner: owner.clone(),
                state: State::Active,
            }));
        } else {
            left.push(found);
        }
    }
    if !recorded.is_empty() {
        let lineage = world.before.lineage.clone();
        let hub = world
            .before
            .ledgers
            .entry(LedgerName::Hub)
            .or_insert_with(|| Arc::new(Ledger::empty(lineage)));
        let hub = Arc::make_mut(hub);
        hub.grants.extend(recorded);
        hub.grants.sort();
        hub.revision += 1;
    }
    left
}

fn disagreement(
    world: &World,
    frozen: &BTreeMap<LedgerName, Frozen>,
    cluster: &ClusterName,
    ledger: &Ledger,
) -> Option<Disagreement> {
    let hub = world.before.hub();
    let grants = hub.map(|hub| hub.grants.as_slice()).unwrap_or_default();
    let live = || grants.iter().filter(|it| it.state != State::Released);
    let owner = Owner::Cluster(cluster.clone());
    let held: PrefixSet = live()
        .filter(|it| it.owner == owner)
        .map(|it| it.prefix)
        .collect();
    // Ranges that the cluster brings along are recorded from its spec, without anybody's word.
    let own = world.fleet.clusters.get(cluster);
    let brought = own.map(|it| it.pod_cidrs.clone()).unwrap_or_default();
    let lacking = ledger.parents.minus(&held).minus(&brought);
    let missing: Vec<(Prefix, Use)> = lacking
        .iter()
        .filter_map(|block| {
            // A block that nothing was taken from is nobody's loss.
            let inside = ledger
                .grants
                .iter()
                .find(|it| it.state != State::Released && block.overlaps(it.prefix))?;
            Some((block, inside.used_for))
        })
        .collect();
    if missing.is_empty() {
        return None;
    }
    let taken: BTreeSet<String> = live()
        .filter(|it| missing.iter().any(|(block, _)| block.overlaps(it.prefix)))
        .map(|it| format!("{} of {}", it.prefix, it.owner))
        .collect();
    let on = match hub {
        Some(_) => LedgerName::Hub,
        None => LedgerName::Cluster(cluster.clone()),
    };
    Some(Disagreement {
        cluster: cluster.clone(),
        missing,
        taken: taken.into_iter().collect(),
        revision: frozen
            .get(&on)
            .map_or(0, |frozen| frozen.seen)
            .max(hub.unwrap_or(ledger).revision),
        on,
    })
}
