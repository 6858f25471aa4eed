//! Where two sorted lists differ, in one walk over both.

use std::cmp::Ordering;

/// Every key whose value is not the same in both lists, with its two values, in order of the keys. Each list is sorted by its
/// keys and has each once, as a map has. `same` compares two values.
pub(crate) fn differences<K: Ord, V: Copy>(
    one: impl IntoIterator<Item = (K, V)>,
    other: impl IntoIterator<Item = (K, V)>,
    same: impl Fn(V, V) -> bool,
) -> impl Iterator<Item = (K, Option<V>, Option<V>)> {
    let mut ones = one.into_iter().peekable();
    let mut others = other.into_iter().peekable();
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

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

    #[test]
    fn of_lists_without_values_those_are_told_that_one_side_has() {
        let keys = |keys: &'static [u8]| keys.iter().map(|key| (key, ()));
        let found: Vec<_> =
            differences(keys(&[1, 2, 5]), keys(&[0, 2, 6]), |(), ()| true).collect();
        let (here, there) = ((Some(()), None), (None, Some(())));
        let expected = [(&0, there), (&1, here), (&5, here), (&6, there)];
        assert_eq!(found, expected.map(|(key, (one, other))| (key, one, other)));
        assert_eq!(differences(keys(&[]), keys(&[3]), |(), ()| true).count(), 1);
    }
}
