//! What happens when a ledger is older than what others have seen of it: it came back from a backup. Pure.
//!
//! Grants made after the backup are unknown then, and giving the same prefix out again would break its holder. So *new* grants of
//! that ledger wait ([`restrict`]); what it holds goes on. It ends when the ledger catches up or when an administrator accepts
//! the restore by the annotation [`ACCEPT`], whose value is the revision that is given up.
//!
//! Who can tell: this process ([`Seen`]), the status of the ledger and of its Cluster, and agents that carry a newer plan
//! than there is. Such a plan is left as it stands meanwhile: its next revision would be above what agents carry.
//!
//! A plan that is gone while its link is there was deleted, not restored: it comes back above everything that is known of
//! it ([`freeze`] raises the hub's ledger to that height).
//!
//! The word counts once: when nothing is left to accept, the annotation is removed ([`spent`]).

mod frozen;
mod levels;

pub use frozen::{ACCEPT, Carried, Frozen};
pub use levels::{Disagreement, agree};

use crate::index::Index;
use crate::world::World;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tieline_core::fleet::Fleet;
use tieline_core::ids::{ClusterName, Lineage, LinkName, PeerName};
use tieline_core::ledger::{Ledger, LedgerName, Ledgers, Owner, State, Use};
use tieline_core::network_plan::NetworkPlan;
use tieline_core::notice::{About, Notice, Reason};

/// Highest revisions that this process has seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    ledgers: BTreeMap<LedgerName, (Lineage, u64)>,
    plans: BTreeMap<LinkName, (Lineage, u64)>,
}

impl Seen {
    /// Remembers plans as they are, or are about to be.
    pub fn note_plans(&mut self, plans: &BTreeMap<LinkName, NetworkPlan>) {
        for (link, plan) in plans {
            self.note_plan(link, plan);
        }
    }

    /// Remembers a plan as it is, or is about to be.
    pub fn note_plan(&mut self, link: &LinkName, plan: &NetworkPlan) {
        raise(&mut self.plans, link, &plan.lineage, plan.revision);
    }

    /// Remembers a ledger as it is.
    pub fn note_ledger(&mut self, name: &LedgerName, ledger: &Ledger) {
        raise(&mut self.ledgers, name, &ledger.lineage, ledger.revision);
    }
}

/// Keeps the highest revision of the current lineage.
fn raise<N: Ord + Clone>(
    seen: &mut BTreeMap<N, (Lineage, u64)>,
    name: &N,
    lineage: &Lineage,
    revision: u64,
) {
    let entry = seen
        .entry(name.clone())
        .or_insert_with(|| (lineage.clone(), 0));
    if entry.0 != *lineage {
        *entry = (lineage.clone(), 0);
    }
    entry.1 = entry.1.max(revision);
}

/// How the records and what others have seen of them fit together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Ledgers that give no new grants.
    pub frozen: BTreeMap<LedgerName, Frozen>,
    /// Where a cluster's ledger splits what the hub's does not hold.
    pub disagreements: Vec<Disagreement>,
    /// Ledgers whose word of an accepted restore has done its work.
    pub spent: BTreeSet<LedgerName>,
    /// Clusters that wait for a frozen ledger, and keep what they have meanwhile.
    pub protected: BTreeSet<ClusterName>,
}

/// Settles what may be decided: where a restore was accepted, `world` is raised above what was seen; what has to wait is
/// taken out of its fleet and noted.
pub fn settle(index: &Index, world: &mut World, seen: &mut Seen) -> Settled {
    let frozen = freeze(index, world, seen);
    let disagreements = agree(index, world, &frozen);
    let spent = spent(index, world, &frozen, &disagreements);
    let (waiting, protected) = restrict(&mut world.fleet, &world.before.ledgers, &frozen);
    world.notices.extend(waiting);
    Settled {
        frozen,
        disagreements,
        spent,
        protected,
    }
}

/// Which ledgers are frozen. Where a restore was accepted, the revisions of `world` are raised above what was seen, so that
/// agents, who apply no lower one, follow. Plans that wait for that word are noted in `world.behind`.
pub fn freeze(index: &Index, world: &mut World, seen: &mut Seen) -> BTreeMap<LedgerName, Frozen> {
    let mut frozen = BTreeMap::new();
    let newer = newer_plans(world);
    for (name, ledger) in &mut world.before.ledgers {
        let accepted = accepted(index, name).unwrap_or(0);
        let highest = highest_seen(index, seen, name, ledger);
        if highest > ledger.revision {
            if accepted >= highest {
                Arc::make_mut(ledger).revision = highest;
            } else {
                frozen.insert(name.clone(), behind(name, ledger.revision, highest, None));
            }
        }
        for (link, plan) in &newer {
            let concerned = match name {
                LedgerName::Hub => true,
                LedgerName::Cluster(cluster) => plan.clusters.contains(cluster),
            };
            if concerned && accepted < plan.applied {
                let carried = Carried {
                    link: link.clone(),
                    by: plan.by.clone(),
                };
                let found = behind(name, plan.has, plan.applied, Some(carried));
                world.behind.insert(link.clone(), found.to_string());
                frozen.entry(name.clone()).or_insert(found);
            }
        }
        seen.note_ledger(name, ledger);
    }
    for (link, newer) in newer {
        let held = world.behind.contains_key(&link);
        if let Some(plan) = world.before.plans.get_mut(&link).filter(|_| !held) {
            plan.revision = newer.applied + 1;
        }
    }
    seen.note_plans(&world.before.plans);
    if frozen.is_empty() {
        keep_height(index, world, seen);
    }
    frozen
}

/// The revision that an administrator gives up, where one has said so.
fn accepted(index: &Index, name: &LedgerName) -> Option<u64> {
    let object = index.ledgers.get(&name.to_string())?;
    object.annotations().get(ACCEPT)?.parse().ok()
}

/// The highest revision of a ledger that anybody has seen.
fn highest_seen(index: &Index, seen: &Seen, name: &LedgerName, ledger: &Ledger) -> u64 {
    let known = seen
        .ledgers
        .get(name)
        .filter(|(lineage, _)| *lineage == ledger.lineage)
        .map_or(0, |(_, revision)| *revision);
    let told = index
        .ledgers
        .get(&name.to_string())
        .and_then(|it| it.status.as_ref()?.acknowledged_revision)
        .unwrap_or(0);
    let noted = match name {
        LedgerName::Cluster(cluster) => noted(index, cluster, &ledger.lineage),
        LedgerName::Hub => 0,
    };
    known.max(told).max(noted)
}

/// Raises the hub's ledger to the height of plans that are gone, from which the next plan counts. Who knows it: this
/// process, the status of the link, and Peers of clusters that no plan has.
fn keep_height(index: &Index, world: &mut World, seen: &Seen) {
    let before = &world.before;
    let remembered = seen
        .plans
        .iter()
        .filter(|(link, (lineage, _))| {
            *lineage == before.lineage && !before.plans.contains_key(*link)
        })
        .map(|(_, (_, revision))| *revision);
    let told = index
        .links
        .iter()
        .filter(|(name, _)| index.plans.get(name).is_none())
        .filter_map(|(_, link)| link.status.as_ref()?.plan_revision);
    let planned: BTreeSet<&ClusterName> = before
        .plans
        .values()
        .flat_map(|plan| &plan.clusters)
        .map(|cluster| &cluster.name)
        .collect();
    let carried = world
        .peers
        .iter()
        .filter(|(_, peer)| !planned.contains(&peer.cluster))
        .map(|(name, peer)| {
            let claim = world.claims.get(name);
            let applied = claim.map_or(0, |claim| claim.applied_revision);
            peer.plan_revision.max(applied)
        });
    let height = remembered.chain(told).chain(carried).max().unwrap_or(0);
    if let Some(hub) = world.before.ledgers.get_mut(&LedgerName::Hub)
        && hub.revision < height
    {
        Arc::make_mut(hub).revision = height;
    }
}

/// Ledgers whose annotation [`ACCEPT`] has done its work: nothing waits for it, and what it raised has been stored. Left
/// there it would accept the next restore too.
#[must_use]
pub fn spent(
    index: &Index,
    world: &World,
    frozen: &BTreeMap<LedgerName, Frozen>,
    disagreements: &[Disagreement],
) -> BTreeSet<LedgerName> {
    let before = &world.before;
    let ledgers_stored = before.ledgers.iter().all(|(name, ledger)| {
        let object = index.ledgers.get(&name.to_string());
        object.is_some_and(|object| object.spec.revision == ledger.revision)
    });
    let plans_stored = before.plans.iter().all(|(link, plan)| {
        let object = index.plans.get(link.as_str());
        object.is_some_and(|object| object.spec.revision == plan.revision)
    });
    if !(ledgers_stored && plans_stored && frozen.is_empty() && disagreements.is_empty()) {
        return BTreeSet::new();
    }
    let annotated = |name: &&LedgerName| {
        let object = index.ledgers.get(&name.to_string());
        object.is_some_and(|object| object.annotations().contains_key(ACCEPT))
    };
    before.ledgers.keys().filter(annotated).cloned().collect()
}

/// What the Cluster's status remembers of its ledger.
fn noted(index: &Index, cluster: &ClusterName, lineage: &Lineage) -> u64 {
    index
        .clusters
        .get(cluster.as_str())
        .and_then(|it| it.status.as_ref())
        .filter(|status| status.lineage.as_deref() == Some(lineage.as_str()))
        .and_then(|status| status.observed_revision)
        .unwrap_or(0)
}

fn behind(name: &LedgerName, has: u64, seen: u64, plan: Option<Carried>) -> Frozen {
    Frozen {
        ledger: name.to_string(),
        seen,
        has,
        plan,
    }
}

/// A plan that is older than what an agent carries.
struct Newer {
    has: u64,
    applied: u64,
    by: PeerName,
    clusters: Vec<ClusterName>,
}

/// Plans that are older than what an agent carries.
fn newer_plans(world: &World) -> BTreeMap<LinkName, Newer> {
    // Of several agents with the same revision the first is named.
    let mut highest: BTreeMap<&ClusterName, (u64, &PeerName)> = BTreeMap::new();
    for (name, peer) in &world.peers {
        let Some(claim) = world.claims.get(name) else {
            continue;
        };
        let carried = (claim.applied_revision, name);
        let held = highest.entry(&peer.cluster).or_insert(carried);
        if carried.0 > held.0 {
            *held = carried;
        }
    }
    let mut newer = BTreeMap::new();
    for (link, plan) in &world.before.plans {
        let carried = plan.clusters.iter().filter_map(|it| highest.get(&it.name));
        let carried = carried.max_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(a.1)));
        if let Some((applied, by)) = carried.filter(|(applied, _)| *applied > plan.revision) {
            let found = Newer {
                has: plan.revision,
                applied: *applied,
                by: (*by).clone(),
                clusters: plan.clusters.iter().map(|it| it.name.clone()).collect(),
            };
            newer.insert(link.clone(), found);
        }
    }
    newer
}

/// Takes out of the fleet what would need a new grant of a frozen ledger, says so, and names the clusters among it.
fn restrict(
    fleet: &mut Fleet,
    ledgers: &Ledgers,
    frozen: &BTreeMap<LedgerName, Frozen>,
) -> (Vec<Notice>, BTreeSet<ClusterName>) {
    let (mut notices, mut protected) = (Vec::new(), BTreeSet::new());
    for (name, why) in frozen {
        let Some(ledger) = ledgers.get(name) else {
            continue;
        };
        // Whoever takes part has a mesh address, whatever its pods use.
        let held = ledger.grants.iter().filter(|it| it.used_for == Use::Mesh);
        let holders: BTreeSet<&Owner> = held
            .filter(|it| it.state != State::Released)
            .map(|it| &it.owner)
            .collect();
        let mut waits = |about: About, link: Option<LinkName>| {
            notices.push(Notice {
                about,
                link,
                reason: Reason::LedgerFrozen,
                message: format!("waits for a grant: {why}"),
            });
        };
        match name {
            LedgerName::Hub => {
                for (link, spec) in &mut fleet.links {
                    spec.clusters.retain(|cluster| {
                        let stays = holders.contains(&Owner::Cluster(cluster.clone()));
                        if !stays {
                            waits(About::Cluster(cluster.clone()), Some(link.clone()));
                            protected.insert(cluster.clone());
                        }
                        stays
                    });
                }
            }
            LedgerName::Cluster(cluster) => {
                let mut links = fleet.links.iter();
                let link = links.find(|(_, link)| link.clusters.contains(cluster));
                let link = link.map(|(name, _)| name.clone());
                fleet.nodes.retain(|id, _| {
                    let stays =
                        id.cluster != *cluster || holders.contains(&Owner::Node(id.node.clone()));
                    if !stays {
                        waits(About::Node(id.clone()), link.clone());
                    }
                    stays
                });
            }
        }
    }
    (notices, protected)
}

#[cfg(test)]
mod tests;
