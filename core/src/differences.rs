//! Where two sorted maps differ, in one walk over both.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Every key whose value is not the same in both, with its two values, in order of the keys. `same` compares two values.
pub(crate) fn differences<'a, K: Ord, V>(
    one: &'a BTreeMap<K, V>,
    other: &'a BTreeMap<K, V>,
    same: impl Fn(&V, &V) -> bool,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    let mut ones = one.iter().peekable();
    let mut others = other.iter().peekable();
    std::iter::from_fn(move || {
        loop {
            let order = match (ones.peek(), others.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((one, _)), Some((other, _))) => one.cmp(other),
            };
            let left = ones.next_if(|_| order.is_le());
            let right = others.next_if(|_| order.is_ge());
            match (left, right) {
                (Some((_, one)), Some((_, other))) if same(one, other) => {}
                (Some((key, one)), right) => return Some((key, Some(one), right.map(|it| it.1))),
                (None, Some((key, other))) => return Some((key, None, Some(other))),
                (None, None) => return None,
            }
        }
    })
}

/// Values that only one of two sorted lists has, each with its side.
pub(crate) fn sorted_differences<'a, T: Ord>(
    one: &'a [T],
    other: &'a [T],
) -> impl Iterator<Item = (Option<&'a T>, Option<&'a T>)> {
    let mut ones = one.iter().peekable();
    let mut others = other.iter().peekable();
    std::iter::from_fn(move || {
        loop {
            let order = match (ones.peek(), others.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(one), Some(other)) => one.cmp(other),
            };
            match order {
                Ordering::Less => return Some((ones.next(), None)),
                Ordering::Greater => return Some((None, others.next())),
                Ordering::Equal => drop((ones.next(), others.next())),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_gone_or_changed_is_found_in_order() {
        let one = BTreeMap::from([(1, 'a'), (2, 'b'), (4, 'd'), (6, 'f')]);
        let other = BTreeMap::from([(0, 'z'), (1, 'a'), (2, 'x'), (6, 'f'), (7, 'g')]);
        let found: Vec<_> = differences(&one, &other, char::eq).collect();
        let expected = [
            (&0, None, Some(&'z')),
            (&2, Some(&'b'), Some(&'x')),
            (&4, Some(&'d'), None),
            (&7, None, Some(&'g')),
        ];
        assert_eq!(found, expected);
        assert_eq!(differences(&one, &one, char::eq).count(), 0);
    }
}
