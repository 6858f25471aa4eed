//! The stored form of a large ledger: a head, and slices that never change.
//!
//! ```text
//!  head      lineage, revision, parents, the newest grants, and the ids of ─┐
//!            (compare-and-swap; the one place where a change takes place)   │
//!  slices    up to 1,000 grants each; written once, named by their content ◄┘
//! ```
//!
//! A ledger *is* what its head says: the head's own grants and those of the slices that it names. A slice that no head names
//! counts for nothing, so slices are stored first, in any order, and one replacement of the head makes all of a change
//! true at once. Whoever loses that race has changed nothing. A slice's id is a digest of all that it holds: nobody can
//! write another slice of that id, and one that was edited by hand is told from the real one.
//!
//! New grants go into the head. When it is full they move into slices, a node's side by side; a slice is written anew, under
//! another id, when a grant in it changes. So a node that joins costs the head alone, however large the cluster is. A ledger
//! of few grants has no slices: then the head is all of it.
//!
//! This module says what is to be stored, never how. It knows no object and no resourceVersion.

use crate::cidr::{Prefix, PrefixSet};
use crate::ids::Lineage;
use crate::ledger::{Grant, Ledger, Owner, Use};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;
use thiserror::Error;

/// Most grants of a ledger that is its head alone. With the longest names that Kubernetes allows this is about half of what
/// etcd takes in one request (1.5 MiB).
pub const MOST_WHOLE: usize = 2_000;
/// Most grants in a slice, and in the head of a ledger that has slices.
pub const MOST_IN_SLICE: usize = 1_000;
/// A slice that would be left with fewer grants is dissolved into the head.
const LEAST_IN_SLICE: usize = MOST_IN_SLICE / 2;
/// Most slices of a ledger.
pub const MOST_SLICES: usize = 256;
/// Grants of a ledger from which on nothing new is admitted. Slices are at least half full, so this many always fit.
pub const MOST_GRANTS: usize = 100_000;
/// Hexadecimal digits of a slice's id.
const ID_DIGITS: usize = 20;

const _: () = assert!(MOST_GRANTS / LEAST_IN_SLICE < MOST_SLICES);

/// Digest of a slice's content, which is the last part of its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SliceId(String);

/// A text that is no slice's id. A retry with the same text cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no slice: it is named by 20 hexadecimal digits, which the operator computes")]
pub struct NoSliceId(String);

impl SliceId {
    fn of(lineage: &Lineage, revision: u64, grants: &[Grant]) -> Self {
        let mut text = format!("{lineage} {revision}\n");
        for grant in grants {
            // Names and prefixes hold no space and no line end. Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{} {:?} {} {:?}",
                grant.prefix, grant.used_for, grant.owner, grant.state
            );
        }
        let mut id = String::with_capacity(ID_DIGITS);
        for byte in Sha256::digest(text).iter().take(ID_DIGITS / 2) {
            let _ = write!(id, "{byte:02x}");
        }
        Self(id)
    }
}

impl TryFrom<String> for SliceId {
    type Error = NoSliceId;
    fn try_from(text: String) -> Result<Self, NoSliceId> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == ID_DIGITS && text.bytes().all(is_digit) {
            Ok(Self(text))
        } else {
            Err(NoSliceId(text))
        }
    }
}

impl fmt::Display for SliceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Grants that are stored together and never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    id: SliceId,
    lineage: Lineage,
    revision: u64,
    grants: Vec<Grant>,
}

impl Slice {
    /// A slice that is to be named first by the head of this revision.
    #[must_use]
    pub fn new(lineage: Lineage, revision: u64, grants: Vec<Grant>) -> Self {
        Self {
            id: SliceId::of(&lineage, revision, &grants),
            lineage,
            revision,
            grants,
        }
    }

    /// Its name, which follows from the rest.
    #[must_use]
    pub fn id(&self) -> &SliceId {
        &self.id
    }

    /// The history that it belongs to.
    #[must_use]
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Revision of the first head that names it, if any does: one that is not named at that revision never will be.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Its grants, in order of prefix.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }
}

/// The changing part of a stored ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Identity of this history.
    pub lineage: Lineage,
    /// Grows with every change of head or slices.
    pub revision: u64,
    /// As in [`Ledger::parents`].
    pub parents: PrefixSet,
    /// All grants that are in no slice.
    pub grants: Vec<Grant>,
    /// The slices that hold the others.
    pub slices: Vec<SliceId>,
}

/// The slices that a head names, read together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slices {
    all: Vec<Arc<Slice>>,
    /// Which slice, and which grant of it, in order of grant.
    order: Vec<(usize, usize)>,
}

impl Slices {
    /// Reads slices, in the order in which the head names them.
    #[must_use]
    pub fn new(all: Vec<Arc<Slice>>) -> Self {
        let places = |(at, slice): (usize, &Arc<Slice>)| {
            let count = slice.grants.len();
            (0..count).map(move |grant| (at, grant))
        };
        let mut order: Vec<(usize, usize)> = all.iter().enumerate().flat_map(places).collect();
        order.sort_by(|a, b| all[a.0].grants[a.1].cmp(&all[b.0].grants[b.1]));
        Self { all, order }
    }

    /// The slices.
    #[must_use]
    pub fn all(&self) -> &[Arc<Slice>] {
        &self.all
    }

    /// Every grant with the number of its slice, in order of grant.
    fn grants(&self) -> impl Iterator<Item = (usize, &Grant)> {
        self.order
            .iter()
            .map(|(slice, at)| (*slice, &self.all[*slice].grants[*at]))
    }
}

/// A ledger as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The head.
    pub head: Head,
    /// The slices that the head names, as far as they could be read.
    pub slices: Arc<Slices>,
}

impl Stored {
    /// What a ledger is stored as before it holds anything.
    #[must_use]
    pub fn empty(lineage: Lineage) -> Self {
        let head = Head {
            lineage,
            revision: 0,
            parents: PrefixSet::new(),
            grants: Vec::new(),
            slices: Vec::new(),
        };
        Self {
            head,
            slices: Arc::default(),
        }
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        let mut own = self.head.grants.iter().peekable();
        let mut grants = Vec::with_capacity(self.head.grants.len() + self.slices.order.len());
        for (_, held) in self.slices.grants() {
            while let Some(grant) = own.next_if(|grant| *grant < held) {
                grants.push(grant.clone());
            }
            grants.push(held.clone());
        }
        grants.extend(own.cloned());
        Ledger {
            lineage: self.head.lineage.clone(),
            revision: self.head.revision,
            parents: self.head.parents.clone(),
            grants,
        }
    }

    /// How a ledger that follows this one is stored: slices in which nothing changes stay.
    #[must_use]
    pub fn next(&self, ledger: &Ledger) -> Self {
        let sliced = !self.slices.all.is_empty();
        let most_whole = if sliced { MOST_IN_SLICE } else { MOST_WHOLE };
        if ledger.grants.len() <= most_whole {
            return Self::of(ledger, ledger.grants.clone(), Slices::default().into());
        }
        let (mut kept, mut loose) = self.sort_out(ledger);
        if loose.len() > MOST_IN_SLICE || !sliced {
            // A node's grants side by side: when it leaves, one slice changes, or two.
            loose.sort_by(|a, b| a.owner.cmp(&b.owner).then_with(|| a.cmp(b)));
            let rest = loose.split_off(loose.len() - loose.len() % MOST_IN_SLICE);
            for chunk in loose.chunks(MOST_IN_SLICE) {
                kept.push(Arc::new(new_slice(ledger, chunk)));
            }
            loose = rest;
        }
        loose.sort();
        let same = kept.len() == self.slices.all.len()
            && kept
                .iter()
                .zip(&self.slices.all)
                .all(|(a, b)| Arc::ptr_eq(a, b));
        let slices = if same {
            self.slices.clone()
        } else {
            Slices::new(kept).into()
        };
        Self::of(ledger, loose.into_iter().cloned().collect(), slices)
    }

    fn of(ledger: &Ledger, grants: Vec<Grant>, slices: Arc<Slices>) -> Self {
        let head = Head {
            lineage: ledger.lineage.clone(),
            revision: ledger.revision,
            parents: ledger.parents.clone(),
            grants,
            slices: slices.all.iter().map(|slice| slice.id.clone()).collect(),
        };
        Self { head, slices }
    }

    /// The slices of a following ledger, written anew where a grant changed or went, and the grants that are in none.
    fn sort_out<'a>(&self, ledger: &'a Ledger) -> (Vec<Arc<Slice>>, Vec<&'a Grant>) {
        let mut changed = BTreeSet::new();
        let mut inside: Vec<Vec<&Grant>> = vec![Vec::new(); self.slices.all.len()];
        let mut loose = Vec::new();
        let mut wanted = ledger.grants.iter().peekable();
        for (slice, held) in self.slices.grants() {
            while let Some(grant) = wanted.next_if(|grant| place(grant) < place(held)) {
                loose.push(grant);
            }
            match wanted.next_if(|grant| place(grant) == place(held)) {
                Some(grant) => {
                    inside[slice].push(grant);
                    if grant != held {
                        changed.insert(slice);
                    }
                }
                None => drop(changed.insert(slice)),
            }
        }
        loose.extend(wanted);
        let mut kept = Vec::new();
        for (at, (slice, grants)) in self.slices.all.iter().zip(inside).enumerate() {
            if !changed.contains(&at) {
                kept.push(slice.clone());
            } else if grants.len() < LEAST_IN_SLICE {
                loose.extend(grants);
            } else {
                kept.push(Arc::new(new_slice(ledger, &grants)));
            }
        }
        (kept, loose)
    }
}

/// What a grant is known by while its holder and state change. Orders as grants do.
fn place(grant: &Grant) -> (Prefix, Use, u8) {
    let kind = match grant.owner {
        Owner::Cluster(_) => 0,
        Owner::Site(_) => 1,
        Owner::Node(_) => 2,
    };
    (grant.prefix, grant.used_for, kind)
}

fn new_slice(ledger: &Ledger, grants: &[&Grant]) -> Slice {
    let mut grants: Vec<Grant> = grants.iter().map(|grant| (*grant).clone()).collect();
    grants.sort();
    Slice::new(ledger.lineage.clone(), ledger.revision, grants)
}

/// How many grants a ledger may still take before newcomers have to wait.
#[must_use]
pub fn room(ledger: &Ledger) -> usize {
    MOST_GRANTS.saturating_sub(ledger.grants.len())
}

#[cfg(test)]
mod tests;
