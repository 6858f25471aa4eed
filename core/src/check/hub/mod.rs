//! The hub's level: its ledger and the network plans.

mod blocks;
mod carriers;
mod gateways;
mod plans;

use super::case::Case;
use super::invariant::Invariant;
use super::record;
use crate::ledger::{Ledger, LedgerName};

/// Proves it.
pub(super) fn check(case: &mut Case<'_>) {
    for name in case.before.ledgers.keys() {
        if !case.proposal.ledgers.contains_key(name) {
            case.find(
                Invariant::LedgerStays,
                format!("ledger {name} is gone: a ledger is never taken away"),
            );
        }
    }
    let empty = Ledger::empty(case.before.lineage.clone());
    let hub = case.proposal.ledgers.get(&LedgerName::Hub);
    if let Some(hub) = hub {
        record::check(case, &LedgerName::Hub, hub, true);
    }
    let hub = hub.map_or(&empty, |hub| hub);
    blocks::level(case, hub);
    blocks::new(case, hub);
    plans::check(case);
}
