#![allow(clippy::unwrap_used)]
use super::*;
use crate::ids::NodeName;
use crate::ledger::{LedgerName, State};

fn lineage() -> Lineage {
    Lineage::new("lineage1").unwrap()
}

/// The two grants of node `number`.
fn node(number: usize, state: State) -> [Grant; 2] {
    let owner = Owner::Node(NodeName::new(format!("node-{number}")).unwrap());
    let (high, low) = (number / 256, number % 256);
    let grant = |prefix: String, used_for| Grant {
        prefix: prefix.parse().unwrap(),
        used_for,
        owner: owner.clone(),
        state,
    };
    [
        grant(format!("10.{high}.{low}.0/24"), Use::Pod),
        grant(format!("100.127.{high}.{low}/32"), Use::Mesh),
    ]
}

fn ledger(revision: u64, nodes: impl IntoIterator<Item = usize>) -> Ledger {
    let nodes = nodes.into_iter().flat_map(|it| node(it, State::Active));
    let mut grants: Vec<Grant> = nodes.collect();
    grants.sort();
    Ledger {
        grants,
        revision,
        ..Ledger::empty(lineage())
    }
}

/// What is stored for the ledger, from nothing.
fn stored(ledger: &Ledger) -> Stored {
    Stored::empty(lineage()).next(ledger)
}

/// Slices of `next` that `before` has not.
fn new_slices(before: &Stored, next: &Stored) -> usize {
    let known = |id| before.head.slices.contains(id);
    next.head.slices.iter().filter(|id| !known(id)).count()
}

#[test]
fn a_ledger_of_2000_grants_is_one_head_and_one_more_moves_it_into_slices() {
    let small = stored(&ledger(1, 0..1000));
    assert_eq!(
        (small.head.grants.len(), small.head.slices.len()),
        (2000, 0)
    );
    let large = ledger(2, 0..1001);
    let next = small.next(&large);
    assert_eq!((next.head.grants.len(), next.head.slices.len()), (2, 2));
    assert_eq!(next.ledger(), large);
}

#[test]
fn a_join_changes_the_head_alone_until_it_is_full() {
    let mut held = stored(&ledger(1, 0..1500));
    assert_eq!(held.head.slices.len(), 3);
    for joined in 1501..=2000 {
        let after = ledger(joined as u64, 0..joined);
        let next = held.next(&after);
        assert_eq!(new_slices(&held, &next), 0, "node {joined}");
        assert_eq!(next.ledger().grants.len(), after.grants.len());
        held = next;
    }
    assert_eq!(held.head.grants.len(), MOST_IN_SLICE);
    let after = ledger(2001, 0..2001);
    let next = held.next(&after);
    assert_eq!(new_slices(&held, &next), 1);
    assert_eq!(next.head.grants.len(), 2);
    assert_eq!(next.ledger(), after);
}

#[test]
fn a_node_that_leaves_or_hands_its_ranges_on_changes_at_most_two_slices() {
    let held = stored(&ledger(1, 0..5000));
    assert_eq!(held.head.slices.len(), 10);
    for (owner, state) in [("node-2345", State::Released), ("newcomer", State::Active)] {
        let mut after = ledger(2, 0..5000);
        for grant in &mut after.grants {
            if grant.owner.name() == "node-2345" {
                grant.owner = Owner::Node(NodeName::new(owner).unwrap());
                grant.state = state;
            }
        }
        let next = held.next(&after);
        assert!((1..=2).contains(&new_slices(&held, &next)), "{owner}");
        assert_eq!(next.ledger(), after);
        assert_eq!(next.head.grants, held.head.grants);
    }
}

#[test]
fn a_slice_that_loses_most_of_its_grants_is_dissolved_and_a_small_ledger_is_whole_again() {
    let held = stored(&ledger(1, 0..2000));
    assert_eq!(held.head.slices.len(), 4);
    let after = ledger(2, (0..2000).filter(|it| *it % 5 != 0));
    let next = held.next(&after);
    assert_eq!(
        next.head.slices.len(),
        4,
        "each is still more than half full"
    );
    let few = ledger(3, (0..2000).filter(|it| *it % 3 == 0));
    let fewer = next.next(&few);
    assert!(fewer.head.slices.len() <= 1, "{:?}", fewer.head.slices);
    assert_eq!(fewer.ledger(), few);
    let small = ledger(4, 0..500);
    let whole = fewer.next(&small);
    assert_eq!(
        (whole.head.grants.len(), whole.head.slices.len()),
        (1000, 0)
    );
}

#[test]
fn what_is_stored_is_always_the_ledger_and_within_bounds() {
    let mut held = Stored::empty(lineage());
    let mut seed = 7_usize;
    for revision in 1..=60 {
        seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
        let (from, most, step) = (seed % 700, 200 + seed % 4500, 1 + seed % 3);
        let after = ledger(revision, (from..from + most).step_by(step));
        held = held.next(&after);
        assert_eq!(held.ledger(), after);
        assert!(held.head.grants.len() <= MOST_WHOLE);
        for slice in held.slices.all() {
            assert!((LEAST_IN_SLICE..=MOST_IN_SLICE).contains(&slice.grants.len()));
            assert!(slice.revision() <= revision);
        }
    }
}

#[test]
fn a_slices_id_stands_for_all_that_it_holds() {
    let grants = node(1, State::Active).to_vec();
    let one = Slice::new(lineage(), 3, grants.clone());
    assert_eq!(one.id(), Slice::new(lineage(), 3, grants.clone()).id());
    assert_ne!(one.id(), Slice::new(lineage(), 4, grants.clone()).id());
    assert_ne!(
        one.id(),
        Slice::new(lineage(), 3, node(1, State::Released).to_vec()).id()
    );
    let other = Lineage::new("lineage2").unwrap();
    assert_ne!(one.id(), Slice::new(other, 3, grants).id());
    assert!(SliceId::try_from(one.id().to_string()).is_ok());
    assert!(SliceId::try_from("0123456789ABCDEF0123".to_owned()).is_err());
}

#[test]
fn a_slices_name_is_no_ledgers_name_which_is_how_an_older_operator_refuses_it() {
    let slice = Slice::new(lineage(), 1, node(1, State::Active).to_vec());
    for ledger in ["hub", "cluster-shop"] {
        assert!(LedgerName::parse(ledger).is_some());
        assert_eq!(LedgerName::parse(&format!("{ledger}.{}", slice.id())), None);
    }
}

#[test]
fn forty_thousand_grants_are_forty_slices() {
    let held = stored(&ledger(1, 0..20_000));
    assert_eq!((held.head.slices.len(), held.head.grants.len()), (40, 0));
    assert_eq!(room(&held.ledger()), MOST_GRANTS - 40_000);
}
