//! Free space as aligned blocks: the lowest free block of a wanted length, in constant time for practical purposes.
//!
//! Built once around what is occupied; within one planning run space is only taken, never given back. For each prefix
//! length there is a stack of free blocks with the lowest address on top. Splitting the lowest block pushes its rest, which
//! lies below everything else on the longer stacks, so the stacks stay sorted without any search.

use crate::cidr::{Family, Prefix};
use smallvec::SmallVec;

/// First addresses of free blocks of one length: few, as a rule.
type Stack = SmallVec<[u128; 2]>;

/// Occupied addresses of one family: sorted, disjoint, inclusive intervals.
#[derive(Debug, Default, Clone)]
pub(super) struct Busy(Vec<(u128, u128)>);

impl Busy {
    /// The addresses of some prefixes; those of other families are skipped.
    pub(super) fn of(family: Family, prefixes: impl IntoIterator<Item = Prefix>) -> Self {
        let mut intervals: Vec<(u128, u128)> = prefixes
            .into_iter()
            .filter(|prefix| prefix.family() == family)
            .map(|prefix| (prefix.first_bits(), prefix.last_bits()))
            .collect();
        intervals.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(intervals.len());
        for (first, last) in intervals {
            match merged.last_mut() {
                Some(previous) if previous.1 >= first => previous.1 = previous.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }
}

/// Free blocks of one family.
#[derive(Debug, Clone)]
pub(super) struct FreeSpace {
    family: Family,
    /// For each length that has any: first addresses, descending, so that the lowest is the last.
    stacks: SmallVec<[(u8, Stack); 4]>,
}

impl FreeSpace {
    /// The parts of some prefixes that are not occupied. Prefixes of other families are skipped.
    pub(super) fn new(
        family: Family,
        roots: impl IntoIterator<Item = Prefix>,
        busy: &Busy,
    ) -> Self {
        let mut space = Self {
            family,
            stacks: SmallVec::new(),
        };
        for root in roots {
            if root.family() == family {
                let from = busy
                    .0
                    .partition_point(|(_, last)| *last < root.first_bits());
                let to = busy
                    .0
                    .partition_point(|(first, _)| *first <= root.last_bits());
                space.fill(
                    root.first_bits(),
                    root.len(),
                    busy.0.get(from..to).unwrap_or_default(),
                );
            }
        }
        for (_, stack) in &mut space.stacks {
            stack.sort_unstable_by(|a, b| b.cmp(a));
            stack.dedup();
        }
        space
    }

    /// Takes the lowest free block of a length.
    pub(super) fn take(&mut self, len: u8) -> Option<Prefix> {
        let (at, base) = self.lowest(len)?;
        let (found, stack) = &mut self.stacks[at];
        let mut found = *found;
        stack.pop();
        while found < len {
            found += 1;
            let rest = base + self.size(found);
            self.stack(found).push(rest);
        }
        Some(Prefix::cut(self.family, base, len))
    }

    /// Adds a block that was not part of this space.
    pub(super) fn add(&mut self, block: Prefix) {
        let base = block.first_bits();
        let stack = self.stack(block.len());
        let at = stack.partition_point(|other| *other > base);
        stack.insert(at, base);
    }

    /// Up to two free blocks of a length, without taking them.
    pub(super) fn peek(&self, len: u8) -> Vec<Prefix> {
        let mut trial = Self {
            family: self.family,
            stacks: self
                .stacks
                .iter()
                .map(|(length, stack)| {
                    let keep = stack.len().saturating_sub(2);
                    (*length, Stack::from_slice(&stack[keep..]))
                })
                .collect(),
        };
        (0..2).map_while(|_| trial.take(len)).collect()
    }

    /// Prefix length of the largest free block.
    pub(super) fn largest(&self) -> Option<u8> {
        self.stacks
            .iter()
            .filter(|(_, stack)| !stack.is_empty())
            .map(|(len, _)| *len)
            .min()
    }

    /// Stack and first address of the lowest block that is at least as large as wanted.
    fn lowest(&self, len: u8) -> Option<(usize, u128)> {
        self.stacks
            .iter()
            .enumerate()
            .filter(|(_, (length, _))| *length <= len)
            .filter_map(|(at, (_, stack))| stack.last().map(|base| (at, *base)))
            .min_by_key(|(_, base)| *base)
    }

    fn stack(&mut self, len: u8) -> &mut Stack {
        let at = match self.stacks.iter().position(|(length, _)| *length == len) {
            Some(at) => at,
            None => {
                self.stacks.push((len, Stack::new()));
                self.stacks.len() - 1
            }
        };
        &mut self.stacks[at].1
    }

    /// Addresses in a block; not for the whole of IPv6, which nobody splits by its size.
    fn size(&self, len: u8) -> u128 {
        1u128
            .checked_shl(u32::from(self.family.host_len().saturating_sub(len)))
            .unwrap_or(u128::MAX)
    }

    fn fill(&mut self, base: u128, len: u8, busy: &[(u128, u128)]) {
        let last = base | self.size(len).wrapping_sub(1);
        if busy.is_empty() {
            self.stack(len).push(base);
            return;
        }
        let covered = busy.iter().any(|(f, l)| *f <= base && *l >= last);
        if covered || len >= self.family.host_len() {
            return;
        }
        let middle = base + self.size(len + 1);
        let left = busy.partition_point(|(first, _)| *first < middle);
        let right = busy.partition_point(|(_, last)| *last < middle);
        self.fill(base, len + 1, &busy[..left]);
        self.fill(middle, len + 1, &busy[right..]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn p(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn space(root: &str, busy: &[&str]) -> FreeSpace {
        let root = p(root);
        FreeSpace::new(
            root.family(),
            [root],
            &Busy::of(root.family(), busy.iter().map(|text| p(text))),
        )
    }

    #[test]
    fn the_lowest_block_that_fits_is_taken_around_what_is_occupied() {
        let mut free = space("10.0.0.0/8", &["10.0.0.7/32", "10.2.0.0/15"]);
        assert_eq!(free.take(16), Some(p("10.1.0.0/16")));
        assert_eq!(free.take(16), Some(p("10.4.0.0/16")));
        assert_eq!(free.take(24), Some(p("10.0.1.0/24")));
        assert_eq!(free.take(32), Some(p("10.0.0.0/32")));
    }

    #[test]
    fn space_ends() {
        let mut free = space("10.0.0.0/30", &["10.0.0.2/32"]);
        assert_eq!(free.largest(), Some(31));
        let taken: Vec<_> = std::iter::from_fn(|| free.take(32)).collect();
        assert_eq!(
            taken,
            [p("10.0.0.0/32"), p("10.0.0.1/32"), p("10.0.0.3/32")]
        );
        free.add(p("10.1.0.0/31"));
        assert_eq!(free.take(31), Some(p("10.1.0.0/31")));
        assert_eq!(free.largest(), None);
    }

    #[test]
    fn a_covered_or_whole_space_is_handled_in_both_families() {
        assert_eq!(space("10.0.0.0/24", &["10.0.0.0/8"]).take(32), None);
        assert_eq!(space("::/0", &["::/1"]).take(1), Some(p("8000::/1")));
        assert_eq!(space("::/0", &[]).take(128), Some(p("::/128")));
        assert_eq!(space("0.0.0.0/0", &[]).take(1), Some(p("0.0.0.0/1")));
    }

    #[test]
    fn peeking_takes_nothing() {
        let free = space("10.0.0.0/23", &[]);
        assert_eq!(free.peek(24), [p("10.0.0.0/24"), p("10.0.1.0/24")]);
        assert_eq!(free.peek(23), [p("10.0.0.0/23")]);
        assert_eq!(free.peek(22), []);
    }
}
