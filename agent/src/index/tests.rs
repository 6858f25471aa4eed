#![allow(clippy::unwrap_used)]

use super::*;

type Numbers = Collection<String, u32>;

fn good(name: &str, value: u32) -> Parsed<String, u32> {
    Ok((name.to_owned(), value))
}

fn bad(name: &str) -> Parsed<String, u32> {
    Err(Complaint {
        name: name.to_owned(),
        message: "spec.x: no number".to_owned(),
    })
}

#[test]
fn nothing_is_known_before_a_complete_list() {
    let mut numbers = Numbers::default();
    numbers.apply(good("a", 1));
    assert!(numbers.objects().is_none());
    assert_eq!(numbers.reset(vec![good("a", 1)]), Folded::Changed);
    assert_eq!(numbers.objects().unwrap().get("a"), Some(&1));
    assert_eq!(numbers.reset(vec![good("a", 1)]), Folded::Same);
}

#[test]
fn an_event_that_changes_nothing_wakes_nobody() {
    let mut numbers = Numbers::default();
    numbers.reset(vec![good("a", 1)]);
    assert_eq!(numbers.apply(good("a", 1)), Folded::Same);
    assert_eq!(numbers.apply(good("a", 2)), Folded::Changed);
    assert_eq!(numbers.delete(&"b".to_owned()), Folded::Same);
    assert_eq!(numbers.delete(&"a".to_owned()), Folded::Changed);
    assert!(numbers.objects().unwrap().is_empty());
}

#[test]
fn an_object_that_cannot_be_read_keeps_its_last_good_version_and_a_complaint() {
    let mut numbers = Numbers::default();
    numbers.reset(vec![good("a", 1)]);
    assert_eq!(numbers.apply(bad("a")), Folded::Changed);
    assert_eq!(numbers.apply(bad("a")), Folded::Same);
    assert_eq!(numbers.objects().unwrap().get("a"), Some(&1));
    assert_eq!(numbers.reset(vec![bad("a"), bad("b")]), Folded::Changed);
    assert_eq!(numbers.objects().unwrap().get("a"), Some(&1));
    assert_eq!(numbers.complaints().len(), 2);
    assert_eq!(numbers.apply(good("a", 1)), Folded::Changed);
    assert_eq!(numbers.forget("b"), Folded::Changed);
    assert!(numbers.complaints().is_empty());
}

#[test]
fn what_a_list_lacks_is_gone() {
    let mut numbers = Numbers::default();
    numbers.reset(vec![good("a", 1), good("b", 2)]);
    assert_eq!(numbers.reset(vec![good("b", 2)]), Folded::Changed);
    assert_eq!(numbers.objects().unwrap().len(), 1);
}

#[test]
fn a_snapshot_taken_before_a_change_stays_as_it_was() {
    let mut index = Index::default();
    index.plans.reset(Vec::new());
    let before = index.snapshot();
    index
        .plans
        .apply(Ok(("acme".to_owned(), Arc::new(crate::fixture::plan(1)))));
    assert!(before.plans.unwrap().is_empty());
    assert_eq!(index.snapshot().plans.unwrap().len(), 1);
}

#[test]
fn a_peer_of_another_cluster_is_not_ours_though_its_node_is_named_like_this_one() {
    let own = crate::fixture::own("a");
    let mut peers = crate::fixture::peers("a", &crate::fixture::keys(1));
    assert_eq!(own.find(&peers).unwrap().0.as_str(), "shop.a");
    for peer in peers.values_mut() {
        Arc::make_mut(peer).cluster = ClusterName::new("other").unwrap();
    }
    assert!(own.find(&peers).is_none());
}
