//! AddressLedgers, read together: heads with the slices that they name.
//!
//! A slice that is missing or was edited means that grants are unknown, and what is unknown could be given out twice: such a
//! ledger is not read as if it were whole. Slices that no head names are left-overs and are not looked at.

use super::{Invalid, ledger_head, ledger_slice};
use crate::AddressLedger;
use crate::address_ledger::ACCEPT_RESTORE;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use tieline_core::ledger::{LedgerName, Ledgers};
use tieline_core::notice::Kind;
use tieline_core::slices::{Head, Slice, SliceId, Slices, Stored};

/// Reads ledgers again and again. A slice never changes, so it is parsed once.
#[derive(Debug, Clone, Default)]
pub struct LedgerReader {
    /// Slices by object name, with the resourceVersion that they were parsed from.
    parsed: BTreeMap<String, (Option<String>, Arc<Slice>)>,
    sorted: BTreeMap<LedgerName, Arc<Slices>>,
}

/// What was read.
#[derive(Debug, Clone, Default)]
pub struct StoredLedgers {
    /// The ledgers, whole. One whose lost slices were given up has a revision above what is stored.
    pub ledgers: Ledgers,
    /// The same as they are stored, to write the next form from.
    pub stored: BTreeMap<LedgerName, Stored>,
    /// Ledgers of which slices are missing.
    pub lost: Vec<LostSlices>,
    /// Objects that cannot be read.
    pub broken: Vec<Invalid>,
}

/// Slices that a head names and that do not exist. Nothing may be decided without them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostSlices {
    /// The ledger.
    pub ledger: LedgerName,
    /// Names of the missing AddressLedgers.
    pub names: Vec<String>,
    /// The least revision that a word of giving them up has to name.
    pub revision: u64,
}

impl fmt::Display for LostSlices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ledger,
            names,
            revision,
        } = self;
        write!(
            f,
            "AddressLedger {ledger} consists of other AddressLedgers too, and {} of them {} gone: {}. Put back what is gone from a \
             backup. Where there is none, go on without: tieline ledger accept-restore {ledger} --yes (or kubectl annotate \
             addressledgers.tieline.dev {ledger} --overwrite {ACCEPT_RESTORE}={revision}). Nodes then keep the podCIDRs that their \
             Node has, and get other addresses inside the tunnels",
            names.len(),
            if names.len() == 1 { "is" } else { "are" },
            names.join(", ")
        )
    }
}

impl LedgerReader {
    /// Reads all AddressLedgers, by their names.
    pub fn read(&mut self, objects: &BTreeMap<&str, &AddressLedger>) -> StoredLedgers {
        let mut read = StoredLedgers::default();
        let mut named = BTreeSet::new();
        let heads = objects.iter().filter(|(name, _)| !name.contains('.'));
        for (_, object) in heads {
            match ledger_head(object) {
                Ok((name, head)) => {
                    self.assemble(objects, object, name, head, &mut read, &mut named)
                }
                Err(error) => read.broken.push(error),
            }
        }
        self.parsed.retain(|name, _| named.contains(name));
        let left = &read.stored;
        self.sorted.retain(|name, _| left.contains_key(name));
        read.broken.extend(headless(objects));
        read
    }

    fn assemble(
        &mut self,
        objects: &BTreeMap<&str, &AddressLedger>,
        object: &AddressLedger,
        name: LedgerName,
        head: Head,
        read: &mut StoredLedgers,
        named: &mut BTreeSet<String>,
    ) {
        let (mut slices, mut lost) = (Vec::new(), Vec::new());
        for id in &head.slices {
            let full = slice_name(&name, id);
            match objects.get(full.as_str()).map(|it| self.slice(&full, it)) {
                Some(Ok(slice)) => slices.push(slice),
                Some(Err(error)) => read.broken.push(error),
                None => lost.push(full.clone()),
            }
            named.insert(full);
        }
        let stored = Stored {
            slices: self.sorted(&name, slices),
            head,
        };
        let mut ledger = stored.ledger();
        if !lost.is_empty() {
            let annotations = object.metadata.annotations.as_ref();
            let word = annotations.and_then(|it| it.get(ACCEPT_RESTORE)?.parse::<u64>().ok());
            if word.is_some_and(|word| word >= ledger.revision) {
                ledger.revision += 1;
            } else {
                read.lost.push(LostSlices {
                    ledger: name.clone(),
                    names: lost,
                    revision: ledger.revision,
                });
            }
        }
        read.ledgers.insert(name.clone(), ledger.into());
        read.stored.insert(name, stored);
    }

    fn slice(&mut self, name: &str, object: &AddressLedger) -> Result<Arc<Slice>, Invalid> {
        let version = &object.metadata.resource_version;
        if let Some((parsed, slice)) = self.parsed.get(name)
            && parsed == version
        {
            return Ok(slice.clone());
        }
        let slice = Arc::new(ledger_slice(object)?.1);
        let entry = (version.clone(), slice.clone());
        self.parsed.insert(name.to_owned(), entry);
        Ok(slice)
    }

    /// The slices in order, as before where they are those of before.
    fn sorted(&mut self, name: &LedgerName, slices: Vec<Arc<Slice>>) -> Arc<Slices> {
        if let Some(held) = self.sorted.get(name)
            && held.all().len() == slices.len()
            && held
                .all()
                .iter()
                .zip(&slices)
                .all(|(a, b)| Arc::ptr_eq(a, b))
        {
            return held.clone();
        }
        let slices = Arc::new(Slices::new(slices));
        self.sorted.insert(name.clone(), slices.clone());
        slices
    }
}

/// Name of the AddressLedger that holds a slice.
fn slice_name(ledger: &LedgerName, id: &SliceId) -> String {
    format!("{ledger}.{id}")
}

/// Ledgers whose head is gone while slices are there. To begin such a ledger anew would give out again what they record.
fn headless(objects: &BTreeMap<&str, &AddressLedger>) -> Vec<Invalid> {
    let slices = objects.keys().filter_map(|name| name.split_once('.'));
    let heads: BTreeSet<&str> = slices.map(|(head, _)| head).collect();
    let gone = heads.into_iter().filter(|head| !objects.contains_key(head));
    gone.map(|head| Invalid {
        kind: Kind::AddressLedger,
        name: head.to_owned(),
        field: "metadata.name".to_owned(),
        message: format!(
            "it is gone, and parts of it are there, whose names begin with {head}. and a digest: put {head} back from a backup; or, to \
             begin anew, delete those parts too"
        ),
    })
    .collect()
}
