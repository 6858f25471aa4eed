//! Which prefixes overlap: prefixes overlap only by nesting, so one pass over the sorted list with a stack finds them.

use crate::cidr::Prefix;

/// Calls back for every pair (outer, inner) where the inner one lies in the outer one, or equals it.
pub(super) fn nested<T>(
    items: &mut [(Prefix, T)],
    mut pair: impl FnMut(&(Prefix, T), &(Prefix, T)),
) {
    items.sort_by_key(|(prefix, _)| *prefix);
    let mut open: Vec<usize> = Vec::new();
    for at in 0..items.len() {
        let prefix = items[at].0;
        while open
            .last()
            .is_some_and(|outer| !items[*outer].0.contains(prefix))
        {
            open.pop();
        }
        for outer in &open {
            pair(&items[*outer], &items[at]);
        }
        open.push(at);
    }
}

/// A sorted list of prefixes that answers whether a prefix lies in one of them.
pub(super) struct Cover(Vec<Prefix>);

impl Cover {
    /// Of some prefixes, which may overlap.
    pub(super) fn of(prefixes: impl IntoIterator<Item = Prefix>) -> Self {
        let mut sorted: Vec<Prefix> = prefixes.into_iter().collect();
        sorted.sort_unstable();
        let mut outer: Vec<Prefix> = Vec::with_capacity(sorted.len());
        for prefix in sorted {
            if !outer.last().is_some_and(|last| last.contains(prefix)) {
                outer.push(prefix);
            }
        }
        Self(outer)
    }

    /// Whether one member contains the prefix.
    pub(super) fn contains(&self, prefix: Prefix) -> bool {
        let after = self.0.partition_point(|member| *member <= prefix);
        after
            .checked_sub(1)
            .is_some_and(|at| self.0[at].contains(prefix))
    }

    /// Whether every address of the prefix lies in some member.
    pub(super) fn covers(&self, prefix: Prefix) -> bool {
        if self.contains(prefix) {
            return true;
        }
        // Members inside, in order, must follow each other without a gap.
        let from = self.0.partition_point(|member| *member < prefix);
        let mut next = prefix.first_bits();
        for member in self.0[from..]
            .iter()
            .take_while(|member| prefix.contains(**member))
        {
            if member.first_bits() != next {
                return false;
            }
            match member.last_bits() {
                last if last == prefix.last_bits() => return true,
                last => next = last + 1,
            }
        }
        false
    }

    /// Whether some member shares an address with the prefix.
    pub(super) fn touches(&self, prefix: Prefix) -> bool {
        let from = self.0.partition_point(|member| *member < prefix);
        self.contains(prefix)
            || self
                .0
                .get(from)
                .is_some_and(|member| prefix.contains(*member))
    }
}
