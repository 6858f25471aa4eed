//! Ledgers and plans that came back older than what is carried, or not at all.

use super::*;

/// The hub's ledger as it would come back from a backup, or from somebody's editor.
fn replace_hub(bench: &mut Bench, grants: Value, word: Option<u64>) -> u64 {
    let held = bench.index.ledgers.get("hub").unwrap().clone();
    bench.put::<AddressLedger>(json!({
        "metadata": {"name": "hub", "annotations": word.map(|it| json!({restore::ACCEPT: it.to_string()}))},
        "spec": {"lineage": held.spec.lineage, "revision": held.spec.revision, "grants": grants},
    }));
    held.spec.revision
}

#[test]
fn a_hub_that_lost_a_block_in_use_stops_everything_until_the_administrator_says_to_record_it_again()
{
    let mut bench = Bench::new();
    bench.pass();
    let before = bench.peers().len();
    let grants = bench.index.ledgers.get("hub").unwrap().spec.grants.clone();
    let revision = replace_hub(&mut bench, json!([]), None);
    let decided = bench.decide();
    let (reason, message) = decided.trouble.unwrap();
    assert_eq!(reason, Standing::LedgersDisagree);
    for part in [
        "10.64.0.0/16 (Pod)",
        "(Mesh)",
        "cluster-shop",
        "tieline ledger accept-restore hub",
    ] {
        assert!(message.contains(part), "no {part} in: {message}");
    }
    // A word on something older does not count.
    replace_hub(&mut bench, json!([]), Some(revision - 1));
    assert!(bench.decide().trouble.is_some());
    replace_hub(&mut bench, json!([]), Some(revision));
    bench.pass();
    let hub = bench.index.ledgers.get("hub").unwrap().clone();
    assert_eq!(hub.spec.grants, grants);
    assert!(hub.spec.revision > revision);
    assert_eq!(bench.pass().1, 1, "the word has done its work");
    let hub = bench.index.ledgers.get("hub").unwrap().clone();
    assert!(hub.annotations().is_empty());
    assert_eq!((bench.pass().1, bench.peers().len()), (0, before));
}

#[test]
fn a_block_that_somebody_else_holds_meanwhile_is_not_recorded_again_and_both_are_named() {
    let mut bench = Bench::new();
    bench.pass();
    let other = json!([{"prefix": "10.64.0.0/15", "use": "Pod", "owner": {"kind": "Cluster", "name": "other"}, "state": "Active"}]);
    replace_hub(&mut bench, other, Some(1000));
    let decided = bench.decide();
    let (reason, message) = decided.trouble.unwrap();
    assert_eq!(reason, Standing::LedgersDisagree);
    for part in ["10.64.0.0/15 of Cluster other", "by hand"] {
        assert!(message.contains(part), "no {part} in: {message}");
    }
}

/// A bench whose plan has changed a few times, and its revision.
fn aged() -> (Bench, u64) {
    let mut bench = Bench::new();
    for (node, site) in [("p1", "paris"), ("r1", "rome"), ("v1", "vienna")] {
        bench.node(node, site, 9);
        bench.pass();
    }
    let revision = bench.revision("acme");
    assert!(revision > 2);
    (bench, revision)
}

#[test]
fn a_cluster_that_moves_to_another_link_gets_a_plan_above_the_one_it_carries_and_gets_it_first() {
    let (mut bench, revision) = aged();
    bench.depot();
    bench.link("acme", "10.64.0.0/10", &["depot"]);
    bench.link("zeta", "10.200.0.0/16", &["shop"]);
    let decided = bench.decide();
    let found = plans(&bench.index, &decided, &Extent::All);
    let steps = [found.gaining, found.awaited, found.late].map(|step| {
        let names = step.into_iter().map(|write| match write {
            Write::Plan(name, _) => name,
            other => panic!("{other:?} is no plan"),
        });
        names.collect::<Vec<_>>()
    });
    assert_eq!(steps, [vec!["zeta"], vec![], vec!["acme"]]);
    bench.pass();
    assert!(bench.revision("zeta") > revision);
    assert_eq!(bench.pass().1, 0);
}

#[test]
fn a_deleted_plan_is_written_again_above_what_agents_carry_also_by_another_process() {
    for restart in [false, true] {
        let (mut bench, revision) = aged();
        bench.carries("shop.b1", revision);
        if restart {
            bench.restart("lineage1");
        }
        bench.delete_plan();
        let (decided, _) = bench.pass();
        assert!(decided.frozen.is_empty());
        assert!(bench.revision("acme") > revision, "restart: {restart}");
        let (decided, writes) = bench.pass();
        assert!(decided.frozen.is_empty());
        assert_eq!(writes, 0);
    }
}

#[test]
fn a_plan_that_is_older_than_what_agents_carry_stays_until_the_restore_is_accepted_once() {
    let (mut bench, revision) = aged();
    bench.carries("shop.b1", revision + 40);
    bench.node("w1", "warsaw", 9);
    let ledgers = bench.index.ledgers.get("hub").unwrap().spec.revision;
    let (decided, _) = bench.pass();
    assert_eq!(bench.revision("acme"), revision, "nobody has said a word");
    assert_eq!(
        bench.index.ledgers.get("hub").unwrap().spec.revision,
        ledgers
    );
    let message = decided.frozen.values().next().unwrap().to_string();
    assert!(message.contains("the agent of Peer shop.b1"), "{message}");

    for name in ["hub", "cluster-shop"] {
        let mut ledger = AddressLedger::clone(bench.index.ledgers.get(name).unwrap());
        let word = (revision + 40).to_string();
        ledger
            .annotations_mut()
            .insert(restore::ACCEPT.to_owned(), word);
        bench.index.apply(ledger);
    }
    bench.pass();
    assert!(bench.revision("acme") > revision + 40);
    assert!(bench.peers().contains(&"shop.w1"));
    assert_eq!(bench.pass().1, 2, "the word is taken off both ledgers");
    assert_eq!(bench.pass().1, 0);

    // It does not count again.
    let revision = bench.revision("acme");
    bench.carries("shop.b1", revision + 1);
    assert_eq!(bench.pass().0.frozen.len(), 2);
}

#[test]
fn a_claimed_revision_that_nobody_can_have_given_out_is_that_peers_own_trouble() {
    let (mut bench, revision) = aged();
    bench.carries("shop.b1", revision + (1 << 20) + 1);
    let (decided, writes) = bench.pass();
    assert!(decided.frozen.is_empty() && writes == 0);
    let invalid = decided.world.bad_claims.values().next().unwrap();
    assert_eq!(invalid.name, "shop.b1");
    assert_eq!(invalid.field, "status.appliedRevision");
}
