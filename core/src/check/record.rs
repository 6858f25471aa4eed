//! Of any ledger: it is in order, its revisions rise, and what is granted stays granted.

use super::case::{Case, is_live};
use super::invariant::Invariant;
use crate::ids::NodeId;
use crate::ledger::{Grant, Ledger, LedgerName, Owner, State, Use};

/// Proves it of one ledger; `planned` says whether it may change now.
pub(super) fn check(case: &mut Case<'_>, name: &LedgerName, ledger: &Ledger, planned: bool) {
    revision(case, name, ledger);
    // What is passed on as it was is not looked through.
    if !case.old(name).is_some_and(|old| std::ptr::eq(old, ledger)) {
        shape(case, name, ledger);
        kept(case, name, ledger, planned);
    }
}

/// Order, owners, one grant for each prefix and kind of owner.
fn shape(case: &mut Case<'_>, name: &LedgerName, ledger: &Ledger) {
    let unchanged = case
        .old(name)
        .is_some_and(|old| old.grants == ledger.grants);
    if unchanged {
        return; // hand-made order is no finding while nobody touches it
    }
    for pair in ledger.grants.windows(2) {
        if pair[0] > pair[1] {
            case.find(
                Invariant::GrantsAreSorted,
                format!(
                    "ledger {name}: {} stands before {}: grants must be sorted",
                    pair[0].prefix, pair[1].prefix
                ),
            );
        }
        if pair[0].prefix == pair[1].prefix && pair[0].owner.kind() == pair[1].owner.kind() {
            case.find(
                Invariant::OneHolder,
                format!(
                    "ledger {name}: {} is granted to {} and to {}",
                    pair[0].prefix, pair[0].owner, pair[1].owner
                ),
            );
        }
    }
}

/// A change raises the revision, and nothing lowers it.
fn revision(case: &mut Case<'_>, name: &LedgerName, ledger: &Ledger) {
    let Some(old) = case.old(name) else {
        if ledger.revision == 0 {
            case.find(
                Invariant::RevisionRises,
                format!("ledger {name} is new and has revision 0: revisions count from 1"),
            );
        }
        return;
    };
    if old.lineage != ledger.lineage {
        case.find(
            Invariant::LineageStays,
            format!(
                "ledger {name} changes its lineage from {} to {}",
                old.lineage, ledger.lineage
            ),
        );
    }
    let same =
        std::ptr::eq(old, ledger) || old.grants == ledger.grants && old.parents == ledger.parents;
    // The hub keeps the height of plans that are withdrawn.
    let plans = (*name == LedgerName::Hub).then_some(&case.before.plans);
    let height = plans
        .into_iter()
        .flatten()
        .filter(|(link, _)| !case.proposal.plans.contains_key(*link))
        .map(|(_, plan)| plan.revision)
        .max();
    let least = old.revision.max(height.unwrap_or(0));
    if same && ledger.revision != least {
        case.find(
            Invariant::RevisionRests,
            format!(
                "ledger {name} goes from revision {} to {} without a change",
                old.revision, ledger.revision
            ),
        );
    }
    if !same && (ledger.revision <= old.revision || ledger.revision < least) {
        case.find(
            Invariant::RevisionRises,
            format!(
                "ledger {name} changes, but its revision goes from {} to {}",
                old.revision, ledger.revision
            ),
        );
    }
}

/// Every grant of before is still held, unless its node is gone or has another range.
fn kept(case: &mut Case<'_>, name: &LedgerName, ledger: &Ledger, planned: bool) {
    let Some(old) = case.old(name) else { return };
    if !planned {
        if old != ledger {
            case.find(
                Invariant::UnplannedRests,
                format!("ledger {name} changes, though its cluster is not planned"),
            );
        }
        return;
    }
    if old.grants == ledger.grants {
        return;
    }
    let now = sorted_by_owner(ledger);
    for grant in old.grants.iter().filter(|grant| is_live(grant)) {
        let still = of_owner(&now, &grant.owner)
            .iter()
            .find(|other| other.prefix == grant.prefix && other.used_for == grant.used_for);
        let state = still.map(|other| other.state);
        match state {
            Some(State::Active | State::Imported) => {}
            _ if may_go(case, name, grant) => {}
            Some(State::Released) => {
                case.find(
                    Invariant::GrantStaysLive,
                    format!(
                        "ledger {name}: {} of {} is released, though its owner is there",
                        grant.prefix, grant.owner
                    ),
                );
            }
            None => case.find(
                Invariant::GrantStays,
                format!(
                    "ledger {name}: {} was granted to {} and is taken away",
                    grant.prefix, grant.owner
                ),
            ),
        }
    }
    // Where a site or a cluster holds something, it goes on holding it as it did.
    let was = sorted_by_owner(old);
    for grant in ledger
        .grants
        .iter()
        .filter(|grant| !matches!(grant.owner, Owner::Node(_)))
    {
        let changed = of_owner(&was, &grant.owner).iter().any(|other| {
            other.prefix == grant.prefix
                && is_live(other)
                && other.state != grant.state
                && other.used_for == grant.used_for
        });
        if changed {
            case.find(
                Invariant::StateStays,
                format!(
                    "ledger {name}: the state of {} of {} changes",
                    grant.prefix, grant.owner
                ),
            );
        }
    }
}

fn may_go(case: &Case<'_>, name: &LedgerName, grant: &Grant) -> bool {
    let (LedgerName::Cluster(cluster), Owner::Node(node)) = (name, &grant.owner) else {
        return false;
    };
    let id = NodeId {
        cluster: cluster.clone(),
        node: node.clone(),
    };
    match case.fleet.nodes.get(&id) {
        None => true,
        Some(node) => {
            grant.used_for == Use::Pod
                && !node.pod_cidrs.is_empty()
                && !node.pod_cidrs.contains(&grant.prefix)
        }
    }
}

/// Grants by owner, use and prefix, for look-ups by binary search.
fn sorted_by_owner(ledger: &Ledger) -> Vec<&Grant> {
    let mut grants: Vec<&Grant> = ledger.grants.iter().collect();
    grants.sort_unstable_by_key(|grant| (&grant.owner, grant.used_for, grant.prefix));
    grants
}

fn of_owner<'g, 'a>(grants: &'g [&'a Grant], owner: &Owner) -> &'g [&'a Grant] {
    let from = grants.partition_point(|grant| grant.owner < *owner);
    let to = grants.partition_point(|grant| grant.owner <= *owner);
    &grants[from..to]
}
