//! Planning with links whose decisions are only shown.

use super::proposal::{Before, Proposal};
use super::{single, withheld};
use crate::fleet::{Fleet, Mode};
use crate::ids::LinkName;
use std::collections::BTreeSet;

/// Plans everything.
///
/// Links with mode `Plan` are computed on top of the others and only shown: their ledgers, plans and nodes stay as they
/// were, and the report says what would change.
#[must_use]
pub fn plan(fleet: &Fleet, before: &Before) -> Proposal {
    let (applied, shown): (BTreeSet<&LinkName>, BTreeSet<&LinkName>) = fleet
        .links
        .keys()
        .partition(|link| fleet.links[*link].mode == Mode::Apply);
    let mut proposal = single::run(fleet, before, &applied);
    if !shown.is_empty() {
        let next = Before {
            lineage: before.lineage.clone(),
            ledgers: proposal.ledgers.clone(),
            plans: proposal.plans.clone(),
        };
        let trial = single::run(fleet, &next, &applied.union(&shown).copied().collect());
        withheld::withhold(&mut proposal, &trial, &shown);
    }
    proposal
}
