//! Prefixes that do not overlap each other, each with a value.

use crate::cidr::Prefix;
use std::collections::BTreeMap;

/// A map from prefixes that do not overlap.
#[derive(Debug)]
pub(super) struct Disjoint<T>(BTreeMap<Prefix, T>);

impl<T> Disjoint<T> {
    /// An empty map.
    pub(super) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds an entry; the caller has made sure that nothing overlaps it.
    pub(super) fn insert(&mut self, prefix: Prefix, value: T) {
        self.0.insert(prefix, value);
    }

    /// Takes the entry of exactly this prefix out.
    pub(super) fn remove(&mut self, prefix: Prefix) -> Option<T> {
        self.0.remove(&prefix)
    }

    /// The value of exactly this prefix.
    pub(super) fn get_mut(&mut self, prefix: Prefix) -> Option<&mut T> {
        self.0.get_mut(&prefix)
    }

    /// The entry that contains the prefix.
    pub(super) fn containing(&self, prefix: Prefix) -> Option<(Prefix, &T)> {
        let (entry, value) = self.0.range(..=prefix).next_back()?;
        entry.contains(prefix).then_some((*entry, value))
    }

    /// An entry that shares an address with the prefix.
    pub(super) fn overlapping(&self, prefix: Prefix) -> Option<(Prefix, &T)> {
        self.containing(prefix).or_else(|| {
            let (entry, value) = self.0.range(prefix..).next()?;
            prefix.contains(*entry).then_some((*entry, value))
        })
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// All entries in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Prefix, &T)> + '_ {
        self.0.iter().map(|(prefix, value)| (*prefix, value))
    }

    /// The entries inside a prefix, in order.
    pub(super) fn within(&self, prefix: Prefix) -> impl Iterator<Item = (Prefix, &T)> + '_ {
        self.0
            .range(prefix..)
            .take_while(move |(entry, _)| prefix.contains(**entry))
            .map(|(entry, value)| (*entry, value))
    }

    /// What lies in the prefix or around it.
    pub(super) fn meeting(&self, prefix: Prefix) -> impl Iterator<Item = (Prefix, &T)> + '_ {
        let around = self
            .containing(prefix)
            .filter(|(entry, _)| *entry != prefix);
        around.into_iter().chain(self.within(prefix))
    }
}
