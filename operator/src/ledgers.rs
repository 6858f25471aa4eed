//! Which AddressLedgers have to be written, and in which order. Pure.
//!
//! ```text
//!  hub's new slices ─► hub's head ─► clusters' new slices ─► clusters' heads ─► … plans, Peers … ─► superseded slices go
//! ```
//!
//! A change takes place when its head is replaced, and at no other moment: a slice counts while a head names it, and a head
//! is replaced only if it is still the one that was decided from. So it does no harm to end anywhere in this order, nor
//! that two operators believe to lead: the slices of the one that comes late are named by nobody.
//!
//! A slice says at which revision of the head it was to be named. At a head of that revision or above it either is named or
//! never will be, and then it may go.

mod limit;

pub use limit::{LEDGER_FULL, restrict};

use crate::index::Index;
use crate::reconcile::Decided;
use crate::restore;
use crate::write::Write;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use tieline_core::ledger::LedgerName;
use tieline_core::slices::Stored;
use tieline_crds::address_ledger::SLICE_COUNT;
use tieline_crds::convert;

/// What has to be written of the ledgers.
#[derive(Debug, Default)]
pub struct Steps {
    /// One after the other; each holds independent writes. The hub's slices and head, the clusters' slices and heads.
    pub steps: [Vec<Write>; 4],
    /// A ledger that has to exist before its slices, so that they are never without a head. The pass ends with it.
    pub begun: Option<String>,
    /// How the ledgers are stored afterwards.
    stored: BTreeMap<LedgerName, Stored>,
}

/// What has to be written so that the decided ledgers are stored.
#[must_use]
pub fn steps(index: &Index, decided: &Decided) -> Steps {
    let mut all = Steps::default();
    for (name, ledger) in &decided.proposal.ledgers {
        let held = decided.world.stored.get(name);
        let spent = decided.spent.contains(name);
        // Every change of a ledger raises its revision.
        let changed = held.is_none_or(|held| held.head.revision != ledger.revision);
        let Some(held) = held.filter(|_| !changed && !spent) else {
            let before = held.cloned();
            let before = before.unwrap_or_else(|| Stored::empty(ledger.lineage.clone()));
            let next = if changed { before.next(ledger) } else { before };
            all.store(index, name, next, spent);
            continue;
        };
        all.stored.insert(name.clone(), held.clone());
    }
    if all.begun.as_deref() == Some("hub") {
        // What the hub grants comes before what splits it, also here.
        all.steps[2].clear();
        all.steps[3].clear();
    }
    all
}

impl Steps {
    fn store(&mut self, index: &Index, name: &LedgerName, next: Stored, spent: bool) {
        let level = match name {
            LedgerName::Hub => 0,
            LedgerName::Cluster(_) => 2,
        };
        let held = index.ledgers.get(&name.to_string());
        let mut head = next.head.clone();
        if held.is_none() && !head.slices.is_empty() {
            head = Stored::empty(head.lineage).head;
            self.begun.get_or_insert(name.to_string());
        } else {
            for slice in next.slices.all() {
                let object = convert::ledger_slice_object(name, slice);
                // One that was stored by a pass that ended early is as good as a new one.
                if index.ledgers.get(&object.name_any()).is_none() {
                    self.steps[level].push(Write::Ledger(Box::new(object)));
                }
            }
        }
        let mut object = convert::ledger_head_object(name, &head);
        if let Some(held) = held {
            let count = object.annotations_mut().remove(SLICE_COUNT);
            object.metadata = held.metadata.clone();
            match count {
                Some(count) => {
                    let count = (SLICE_COUNT.to_owned(), count);
                    object.annotations_mut().extend([count]);
                }
                None if held.annotations().contains_key(SLICE_COUNT) => {
                    object.annotations_mut().remove(SLICE_COUNT);
                }
                None => {}
            }
        }
        if spent {
            object.annotations_mut().remove(restore::ACCEPT);
        }
        self.steps[level + 1].push(Write::Ledger(Box::new(object)));
        self.stored.insert(name.clone(), next);
    }

    /// Slices that no head names any more. They go only after this process has replaced their head, which proves that what it
    /// read is what there is.
    #[must_use]
    pub fn superseded(&self, index: &Index, decided: &Decided) -> Vec<Write> {
        let named: BTreeSet<String> = self
            .stored
            .iter()
            .flat_map(|(name, it)| it.head.slices.iter().map(move |id| format!("{name}.{id}")))
            .collect();
        let is_left_over = |name: &str, revision: u64| {
            let head = name.split_once('.').map(|(head, _)| head);
            let ledger = head.and_then(LedgerName::parse);
            let stored = ledger.and_then(|ledger| self.stored.get(&ledger));
            let replaced = head.is_some_and(|head| {
                let written = ("AddressLedger", head.to_owned());
                decided.stored.contains(&written)
            });
            replaced
                && !named.contains(name)
                && stored.is_some_and(|it| revision <= it.head.revision)
        };
        let slices = index.ledgers.iter();
        slices
            .filter(|(name, slice)| is_left_over(name, slice.spec.revision))
            .map(|(_, slice)| Write::DeleteSlice(slice.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests;
