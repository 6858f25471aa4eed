//! A ledger in slices: what a pass writes, where it may end, and who may disturb it.

use super::*;
use tieline_core::ledger::LedgerName;
use tieline_crds::convert;

/// A bench with a ledger that is sliced: 1,200 nodes hold a pod range and a mesh address each.
fn sliced() -> Bench {
    let mut bench = Bench::new();
    for number in 0..1200_u16 {
        bench.node(&format!("n{number}"), "oslo", 9);
    }
    bench.put::<ClusterLink>(json!({
        "metadata": {"name": "acme"},
        "spec": {"addressing": {"podPools": ["10.64.0.0/10"], "clusterPrefixLength": {"v4": 12}}, "members": {"clusters": ["shop"]}},
    }));
    bench.pass();
    assert_eq!(bench.slices().len(), 2);
    bench
}

impl Bench {
    fn slices(&self) -> Vec<String> {
        let names = self.index.ledgers.iter().map(|(name, _)| name.to_owned());
        names.filter(|name| name.contains('.')).collect()
    }

    /// The writes of ledgers of a pass that ends after `steps` of them.
    fn ends_after(&mut self, steps: usize) -> Vec<Target> {
        let decided = self.decide();
        assert_eq!(decided.trouble, None);
        let all = ledgers::steps(&self.index, &decided, &Extent::All).steps;
        let writes: Vec<Write> = all.into_iter().take(steps).flatten().collect();
        let names = writes.iter().map(|write| write.target()).collect();
        writes.into_iter().for_each(|write| self.store(write));
        names
    }
}

#[test]
fn with_slices_a_join_writes_the_head_and_a_peer_and_another_process_reads_the_same() {
    let mut bench = sliced();
    let slices = bench.slices();
    assert_eq!(bench.pass().1, 0);
    bench.node("late", "oslo", 9);
    assert_eq!(bench.pass().1, 2, "the head and a Peer");
    assert_eq!(bench.slices(), slices);
    bench.restart("lineage1");
    assert_eq!(bench.pass().1, 0);
}

#[test]
fn a_node_that_leaves_writes_its_slice_anew_and_the_old_one_goes() {
    let mut bench = sliced();
    let before = bench.slices();
    let node = Node::clone(bench.index.nodes.get("n7").unwrap());
    bench.index.delete(&node);
    bench.pass();
    let after = bench.slices();
    assert_eq!(after.len(), before.len());
    assert!(after != before);
    assert_eq!(bench.pass().1, 0);
}

#[test]
fn a_pass_that_ends_between_slices_and_head_has_changed_nothing_and_leaves_nothing_behind() {
    let mut bench = sliced();
    let node = Node::clone(bench.index.nodes.get("n7").unwrap());
    bench.index.delete(&node);
    let before = bench.decide().world.before.ledgers;
    let written = bench.ends_after(3);
    assert_eq!(written.len(), 1, "{written:?}");
    let after = bench.decide().world.before.ledgers;
    assert!(before == after, "what was written is named by nobody");
    // The node is back before another process goes on: the slice is a left-over.
    bench.index.apply(node);
    bench.restart("lineage1");
    bench.node("late", "oslo", 9);
    bench.pass();
    assert_eq!(bench.slices().len(), 2);
    assert_eq!(bench.pass().1, 0);
}

#[test]
fn of_two_operators_that_believe_to_lead_the_late_one_changes_nothing() {
    let mut bench = sliced();
    let mut head = AddressLedger::clone(bench.index.ledgers.get("cluster-shop").unwrap());
    head.metadata.resource_version = Some("7".to_owned());
    bench.index.apply(head);
    // The late one decides that n7 is gone, and its writes are on their way.
    let mut late = bench.index.clone();
    late.delete(&Node::clone(late.nodes.get("n7").unwrap()));
    let mut other = keeper("lineage1");
    let decided = Decided::full(
        &late,
        &mut other.memory,
        &mut other.seen,
        &other.cluster,
        &other.fresh,
    );
    let on_their_way = ledgers::steps(&late, &decided, &Extent::All).steps;
    // The new one admits a node meanwhile, and that n8 is gone.
    bench.node("late", "oslo", 9);
    let gone = Node::clone(bench.index.nodes.get("n8").unwrap());
    bench.index.delete(&gone);
    bench.pass();
    let mut head = AddressLedger::clone(bench.index.ledgers.get("cluster-shop").unwrap());
    head.metadata.resource_version = Some("8".to_owned());
    bench.index.apply(head);
    let before = bench.decide().world.before.ledgers;
    // The API server takes new objects, and refuses the head: it is not what it was.
    let mut refused = 0;
    for write in on_their_way.into_iter().flatten() {
        let Write::Ledger(object) = &write else {
            panic!("{write:?} is no ledger");
        };
        let held = bench.index.ledgers.get(&object.name_any());
        match held {
            None => bench.store(write),
            Some(held) => {
                assert_ne!(held.resource_version(), object.resource_version());
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 1);
    let after = bench.decide().world.before.ledgers;
    assert!(before == after);
    bench.node("later", "oslo", 9);
    bench.pass();
    assert_eq!(bench.slices().len(), 2, "the late one's slices are gone");
}

#[test]
fn a_ledger_that_is_one_object_moves_into_slices_at_its_first_change() {
    let mut bench = sliced();
    let whole = bench.decide().world.before.ledgers;
    let name = LedgerName::parse("cluster-shop").unwrap();
    for slice in bench.slices() {
        let slice = AddressLedger::clone(bench.index.ledgers.get(&slice).unwrap());
        bench.index.delete(&slice);
    }
    bench
        .index
        .apply(convert::ledger_object(&name, &whole[&name]));
    assert_eq!(bench.pass().1, 0, "as it is, it is fine");
    bench.node("late", "oslo", 9);
    bench.pass();
    assert_eq!(bench.slices().len(), 2);
    assert_eq!(bench.pass().1, 0);
}

#[test]
fn without_one_of_its_slices_nothing_is_decided_until_the_administrator_gives_it_up() {
    let mut bench = sliced();
    let lost = bench.slices()[0].clone();
    let slice = AddressLedger::clone(bench.index.ledgers.get(&lost).unwrap());
    bench.index.delete(&slice);
    let decided = bench.decide();
    let (reason, message) = decided.trouble.clone().unwrap();
    assert_eq!(reason, Standing::SliceMissing);
    for part in [
        &lost,
        "backup",
        "tieline ledger accept-restore cluster-shop",
    ] {
        assert!(message.contains(part), "no {part} in: {message}");
    }
    let wanted = bench.statuses(&decided, &Refused::default());
    let of_ledger = |it: &Announcement| match it {
        Announcement::Ledger(ledger, status) if ledger.name_any() == "cluster-shop" => {
            Some(status.clone())
        }
        _ => None,
    };
    let status = wanted.iter().find_map(of_ledger).unwrap();
    assert_eq!(status.conditions[0].status, "True");
    assert_eq!(status.conditions[0].reason, "SliceMissing");
    // Put back, it is as before.
    bench.index.apply({
        let mut slice = slice.clone();
        slice.metadata.resource_version = None;
        slice
    });
    assert_eq!(bench.pass().1, 0);

    bench.index.delete(&slice);
    let mut head = AddressLedger::clone(bench.index.ledgers.get("cluster-shop").unwrap());
    let word = head.spec.revision.to_string();
    head.annotations_mut()
        .insert(restore::ACCEPT.to_owned(), word);
    bench.index.apply(head);
    bench.pass();
    let head = bench.index.ledgers.get("cluster-shop").unwrap();
    let digest = lost.split_once('.').unwrap().1;
    assert!(!head.spec.slices.iter().any(|it| it == digest));
    bench.pass();
    assert_eq!(bench.pass().1, 0);
    let head = bench.index.ledgers.get("cluster-shop").unwrap();
    assert!(
        !head.annotations().contains_key(restore::ACCEPT),
        "the word counts once"
    );
}

#[test]
fn a_head_whose_list_of_slices_an_older_definition_dropped_is_not_a_small_ledger() {
    let mut bench = sliced();
    let mut head = AddressLedger::clone(bench.index.ledgers.get("cluster-shop").unwrap());
    head.spec.slices.clear();
    bench.index.apply(head);
    let decided = bench.decide();
    let (reason, message) = decided.trouble.unwrap();
    assert_eq!(reason, Standing::RecordUnreadable);
    assert!(message.contains("there were 2"), "{message}");
}

#[test]
fn slices_without_their_head_are_no_reason_to_begin_anew() {
    let mut bench = sliced();
    let head = AddressLedger::clone(bench.index.ledgers.get("cluster-shop").unwrap());
    bench.index.delete(&head);
    let decided = bench.decide();
    let (reason, message) = decided.trouble.unwrap();
    assert_eq!(reason, Standing::RecordUnreadable);
    assert!(message.contains("put cluster-shop back"), "{message}");
}
