//! What happens when a ledger is older than what others have seen of it: it came back from a backup. Pure.
//!
//! Grants made after the backup are unknown then, and giving the same prefix out again would break its holder. So *new* grants of
//! that ledger wait ([`restrict`]); what it holds goes on. It ends when the ledger catches up or when an administrator accepts
//! the restore by the annotation [`ACCEPT`], whose value is the revision that is given up.
//!
//! Who can tell: this process ([`Seen`]), the status of the ledger and of its Cluster, and agents that carry a newer plan
//! than there is.

mod levels;

pub use levels::{Disagreement, agree};

use crate::index::Index;
use crate::world::World;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use tieline_core::fleet::Fleet;
use tieline_core::ids::{ClusterName, Lineage, LinkName};
use tieline_core::ledger::{Ledger, LedgerName, Ledgers, Owner, State, Use};
use tieline_core::plan::Notice;

/// Annotation on an AddressLedger: the revision that an administrator gives up.
pub const ACCEPT: &str = tieline_crds::address_ledger::ACCEPT_RESTORE;

/// Reason of what waits for a frozen ledger.
pub const LEDGER_FROZEN: &str = "LedgerFrozen";

/// Highest revisions that this process has seen.
#[derive(Debug, Clone, Default)]
pub struct Seen(BTreeMap<LedgerName, (Lineage, u64)>);

/// A ledger that gives no new grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// Name of the AddressLedger.
    pub ledger: String,
    /// What somebody has seen.
    pub seen: u64,
    /// What there is.
    pub has: u64,
    /// The plan that is older than what an agent carries; without it, it is the ledger itself that is older.
    pub plan: Option<LinkName>,
}

impl Frozen {
    /// The revision of the ledger that has been seen, when it is the ledger that is older.
    #[must_use]
    pub fn ledger_seen(&self) -> Option<u64> {
        self.plan.is_none().then_some(self.seen)
    }
}

impl fmt::Display for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.plan {
            Some(link) => write!(f, "NetworkPlan {link}")?,
            None => write!(f, "AddressLedger {}", self.ledger)?,
        }
        write!(
            f,
            " is at revision {}, but revision {} has been seen: it was restored from an older backup. What was granted since is \
             unknown, so new grants wait. To go on from what the ledger holds: tieline ledger accept-restore {} --yes (or kubectl annotate \
             addressledgers.tieline.dev {} --overwrite {ACCEPT}={})",
            self.has, self.seen, self.ledger, self.ledger, self.seen
        )
    }
}

/// Which ledgers are frozen. Where a restore was accepted, the revisions of `world` are raised above what was seen, so that
/// agents, who apply no lower one, follow.
pub fn freeze(index: &Index, world: &mut World, seen: &mut Seen) -> BTreeMap<LedgerName, Frozen> {
    let mut frozen = BTreeMap::new();
    let newer = newer_plans(world);
    for (name, ledger) in &mut world.before.ledgers {
        let object = index.ledgers.get(&name.to_string());
        let accepted: u64 = object
            .and_then(|it| it.annotations().get(ACCEPT)?.parse().ok())
            .unwrap_or(0);
        let known = seen
            .0
            .get(name)
            .filter(|(lineage, _)| *lineage == ledger.lineage)
            .map_or(0, |(_, revision)| *revision);
        let told = object
            .and_then(|it| it.status.as_ref()?.acknowledged_revision)
            .unwrap_or(0);
        let noted = match name {
            LedgerName::Cluster(cluster) => noted(index, cluster, &ledger.lineage),
            LedgerName::Hub => 0,
        };
        let highest = known.max(told).max(noted);
        if highest > ledger.revision {
            if accepted >= highest {
                ledger.revision = highest;
            } else {
                frozen.insert(name.clone(), behind(name, ledger.revision, highest, None));
            }
        }
        for (link, (has, applied, clusters)) in &newer {
            let concerned = match name {
                LedgerName::Hub => true,
                LedgerName::Cluster(cluster) => clusters.contains(cluster),
            };
            if concerned && accepted < *applied {
                frozen
                    .entry(name.clone())
                    .or_insert_with(|| behind(name, *has, *applied, Some(link.clone())));
            }
        }
        remember(seen, name, ledger);
    }
    for (link, (_, applied, _)) in newer {
        let held = frozen.values().any(|it| it.plan.as_ref() == Some(&link));
        if let Some(plan) = world.before.plans.get_mut(&link).filter(|_| !held) {
            plan.revision = applied + 1;
        }
    }
    frozen
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

fn behind(name: &LedgerName, has: u64, seen: u64, plan: Option<LinkName>) -> Frozen {
    Frozen {
        ledger: name.to_string(),
        seen,
        has,
        plan,
    }
}

fn remember(seen: &mut Seen, name: &LedgerName, ledger: &Ledger) {
    let entry = seen
        .0
        .entry(name.clone())
        .or_insert_with(|| (ledger.lineage.clone(), 0));
    if entry.0 != ledger.lineage {
        *entry = (ledger.lineage.clone(), 0);
    }
    entry.1 = entry.1.max(ledger.revision);
}

/// Plans that are older than what an agent carries: what there is, what is carried, and the clusters.
fn newer_plans(world: &World) -> BTreeMap<LinkName, (u64, u64, Vec<ClusterName>)> {
    let mut newer = BTreeMap::new();
    for (link, plan) in &world.before.plans {
        let clusters: Vec<ClusterName> = plan.clusters.iter().map(|it| it.name.clone()).collect();
        let members = world
            .peers
            .iter()
            .filter(|(_, peer)| clusters.contains(&peer.cluster));
        let applied = members
            .filter_map(|(name, _)| world.claims.get(name))
            .map(|claim| claim.applied_revision)
            .max()
            .unwrap_or(0);
        if applied > plan.revision {
            newer.insert(link.clone(), (plan.revision, applied, clusters));
        }
    }
    newer
}

/// Takes out of the fleet what would need a new grant of a frozen ledger, and says so.
pub fn restrict(
    fleet: &mut Fleet,
    ledgers: &Ledgers,
    frozen: &BTreeMap<LedgerName, Frozen>,
) -> Vec<Notice> {
    let mut notices = Vec::new();
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
        let mut waits = |kind: &str, object: String, link: Option<LinkName>| {
            notices.push(Notice {
                kind: kind.to_owned(),
                name: object,
                link,
                reason: LEDGER_FROZEN.to_owned(),
                message: format!("waits for a grant: {why}"),
            });
        };
        match name {
            LedgerName::Hub => {
                for (link, spec) in &mut fleet.links {
                    spec.clusters.retain(|cluster| {
                        let stays = holders.contains(&Owner::Cluster(cluster.clone()));
                        if !stays {
                            waits("Cluster", cluster.to_string(), Some(link.clone()));
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
                        waits("Node", id.node.to_string(), link.clone());
                    }
                    stays
                });
            }
        }
    }
    notices
}

#[cfg(test)]
mod tests;
