//! A ledger that is full takes nobody new, and everybody else goes on. Pure.

use std::collections::BTreeSet;
use tieline_core::fleet::Fleet;
use tieline_core::ids::{ClusterName, LinkName};
use tieline_core::ledger::{Ledger, LedgerName, Ledgers, Owner, State, Use};
use tieline_core::notice::{About, Notice, Reason};
use tieline_core::slices::{MOST_GRANTS, room};

/// Grants that one newcomer may take: pods and mesh in both families, and a new chunk of its site for each.
const PER_NEWCOMER: usize = 8;

/// More nodes than join in the time between two passes.
const MANY_NEWCOMERS: usize = 1_000;

/// Whether a cluster's ledger has so little room that newcomers have to be counted.
pub fn is_nearly_full(ledgers: &Ledgers, cluster: &ClusterName) -> bool {
    let ledger = ledgers.get(&LedgerName::Cluster(cluster.clone()));
    ledger.is_some_and(|ledger| room(ledger) < MANY_NEWCOMERS * PER_NEWCOMER)
}

/// Takes newcomers out of the fleet for whom a ledger has no room, and says so. The first in order of name are admitted.
pub fn restrict(fleet: &mut Fleet, ledgers: &Ledgers) -> Vec<Notice> {
    let mut notices = Vec::new();
    for (name, ledger) in ledgers {
        let mut left = room(ledger) / PER_NEWCOMER;
        match name {
            LedgerName::Hub => {
                let wanted: usize = fleet.links.values().map(|link| link.clusters.len()).sum();
                if wanted <= left {
                    continue;
                }
                let holders = holders(ledger);
                for (link, spec) in &mut fleet.links {
                    spec.clusters.retain(|cluster| {
                        let stays = admitted(&holders, &Owner::Cluster(cluster.clone()), &mut left);
                        if !stays {
                            let link = Some(link.clone());
                            let about = About::Cluster(cluster.clone());
                            notices.push(full(about, link, name, ledger));
                        }
                        stays
                    });
                }
            }
            LedgerName::Cluster(cluster) => {
                if fleet.nodes.len() <= left {
                    continue;
                }
                let holders = holders(ledger);
                let link = link_of(fleet, cluster);
                fleet.nodes.retain(|id, _| {
                    let stays = id.cluster != *cluster
                        || admitted(&holders, &Owner::Node(id.node.clone()), &mut left);
                    if !stays {
                        let about = About::Node(id.clone());
                        notices.push(full(about, link.clone(), name, ledger));
                    }
                    stays
                });
            }
        }
    }
    notices
}

/// Whoever takes part has a mesh address, whatever its pods use.
fn holders(ledger: &Ledger) -> BTreeSet<&Owner> {
    let live = ledger.grants.iter();
    let live = live.filter(|it| it.used_for == Use::Mesh && it.state != State::Released);
    live.map(|it| &it.owner).collect()
}

fn admitted(holders: &BTreeSet<&Owner>, owner: &Owner, left: &mut usize) -> bool {
    if holders.contains(owner) {
        return true;
    }
    let room = *left > 0;
    *left = left.saturating_sub(1);
    room
}

fn link_of(fleet: &Fleet, cluster: &ClusterName) -> Option<LinkName> {
    let mut links = fleet.links.iter();
    let found = links.find(|(_, link)| link.clusters.contains(cluster));
    found.map(|(name, _)| name.clone())
}

fn full(about: About, link: Option<LinkName>, name: &LedgerName, ledger: &Ledger) -> Notice {
    let what = match name {
        LedgerName::Hub => "use fewer clusters, or remove unused ones",
        LedgerName::Cluster(_) => "use another cluster for more nodes",
    };
    Notice {
        about,
        link,
        reason: Reason::LedgerFull,
        message: format!(
            "waits: AddressLedger {name} holds {} grants and takes new holders up to {MOST_GRANTS}, {PER_NEWCOMER} for each; \
             those that take part go on. {what}",
            ledger.grants.len()
        ),
    }
}
