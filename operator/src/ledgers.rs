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

pub use limit::{is_nearly_full, restrict};

use crate::decided::Decided;
use crate::index::Index;
use crate::restore;
use crate::touched::Extent;
use crate::write::Write;
use kube::ResourceExt;
use std::collections::BTreeMap;
use tieline_core::ledger::LedgerName;
use tieline_core::slices::Stored;
use tieline_crds::address_ledger::SLICE_COUNT;
use tieline_crds::convert;

/// What has to be written of the ledgers.
#[derive(Debug, Default)]
pub struct Ledgers {
    /// One after the other; each holds independent writes. The hub's slices and head, the clusters' slices and heads.
    pub steps: Vec<Vec<Write>>,
    /// Slices that no head names any more, to go once all steps are done: that their head could be replaced proves that what
    /// this process read is what there is.
    pub superseded: Vec<Write>,
    /// A ledger that has to exist before its slices, so that they are never without a head. The pass ends with it.
    pub begun: Option<String>,
    /// How the ledgers that are written are stored afterwards.
    pub stored: BTreeMap<LedgerName, Stored>,
}

/// What has to be written so that the decided ledgers are stored.
#[must_use]
pub fn steps(index: &Index, decided: &Decided, extent: &Extent) -> Ledgers {
    let mut all = Ledgers {
        steps: vec![Vec::new(); 4],
        ..Ledgers::default()
    };
    let ledgers = &decided.proposal().ledgers;
    let concerned: Vec<_> = match extent {
        Extent::All => ledgers.iter().collect(),
        Extent::Only(touched) => {
            let names = touched.ledgers.iter();
            names
                .filter_map(|name| ledgers.get_key_value(name))
                .collect()
        }
    };
    for (name, ledger) in concerned {
        let held = decided.world.stored.get(name);
        let spent = decided.spent.contains(name);
        // Every change of a ledger raises its revision.
        let changed = held.is_none_or(|held| held.head.revision != ledger.revision);
        if !changed && !spent {
            continue;
        }
        let before = held.cloned();
        let before = before.unwrap_or_else(|| Stored::empty(ledger.lineage.clone()));
        let next = if changed { before.next(ledger) } else { before };
        all.store(index, name, next, spent);
    }
    if all.begun.as_deref() == Some("hub") {
        // What the hub grants comes before what splits it, also here.
        all.steps.truncate(2);
    }
    all.superseded = all.superseded(index);
    all
}

impl Ledgers {
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
            // One that was stored by a pass that ended early is as good as a new one.
            let new = next.slices.all().iter().filter(|slice| {
                let name = convert::ledger_slice_name(name, slice.id());
                index.ledgers.get(&name).is_none()
            });
            let objects = new.map(|slice| convert::ledger_slice_object(name, slice));
            self.steps[level].extend(objects.map(|object| Write::Ledger(Box::new(object))));
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

    /// Slices of the ledgers that are written that their heads do not name.
    fn superseded(&self, index: &Index) -> Vec<Write> {
        if self.begun.is_some() {
            return Vec::new();
        }
        let is_left_over = |name: &str, revision: u64| {
            let (head, id) = name.split_once('.')?;
            let stored = self.stored.get(&LedgerName::parse(head)?)?;
            let mut named = stored.head.slices.iter();
            let is_named = named.any(|it| it.to_string() == id);
            (!is_named && revision <= stored.head.revision).then_some(())
        };
        let slices = index.ledgers.iter();
        slices
            .filter(|(name, slice)| is_left_over(name, slice.spec.revision).is_some())
            .map(|(_, slice)| Write::DeleteSlice(slice.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests;
