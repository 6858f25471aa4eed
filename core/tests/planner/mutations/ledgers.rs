//! Ledgers: blocks, grants, shares, revisions.

use super::*;
use tieline_core::fleet::Mode;

#[test]
fn blocks_that_overlap_or_touch_what_is_somebody_elses() {
    use State::{Active, Imported};
    let cases = [
        (
            "10.64.128.0/17",
            Use::Pod,
            "us",
            Active,
            names(Invariant::NoOverlap, "10.64.0.0/16 of Cluster eu"),
        ),
        (
            "10.64.128.0/17",
            Use::Mesh,
            "eu",
            Active,
            names(Invariant::NoOverlap, "10.64.0.0/16 of Cluster eu"),
        ),
        (
            "10.127.0.0/17",
            Use::Pod,
            "us",
            Active,
            names(Invariant::BlockIsFree, "Reserved"),
        ),
        (
            "10.0.0.0/16",
            Use::Pod,
            "us",
            Active,
            any(Invariant::BlockInPools),
        ),
        (
            "172.20.0.0/24",
            Use::Pod,
            "us",
            Imported,
            names(Invariant::BlockIsFree, "Services"),
        ),
        (
            "192.168.41.0/24",
            Use::Pod,
            "us",
            Active,
            names(Invariant::BlockIsFree, "Site"),
        ),
        (
            "172.16.3.0/24",
            Use::Pod,
            "us",
            Imported,
            names(Invariant::BlockIsFree, "Vpn"),
        ),
        (
            "10.99.0.0/16",
            Use::Pod,
            "nobody",
            Active,
            any(Invariant::BlockIsPlanned),
        ),
    ];
    for (prefix, used_for, owner, state, expected) in cases {
        corrupt(
            prefix,
            |proposal| add(hub(proposal), prefix, used_for, cluster(owner), state),
            expected,
        );
    }
    corrupt(
        "an owner of another level",
        |proposal| add(hub(proposal), "10.99.0.0/16", Use::Pod, node("x"), Active),
        any(Invariant::OwnerFits),
    );
}

#[test]
fn grants_that_vanish_move_or_change_their_state() {
    corrupt(
        "a block is gone",
        |proposal| drop(hub(proposal).grants.remove(0)),
        any(Invariant::GrantStays),
    );
    corrupt(
        "a node's share is gone",
        |proposal| {
            ledger(proposal, "eu")
                .grants
                .retain(|grant| grant.owner != node("oslo-1"))
        },
        any(Invariant::GrantStays),
    );
    corrupt(
        "a share is released",
        |proposal| {
            let grants = &mut ledger(proposal, "eu").grants;
            grants
                .iter_mut()
                .find(|grant| grant.owner == node("oslo-1"))
                .unwrap()
                .state = State::Released;
        },
        any(Invariant::GrantStaysLive),
    );
    corrupt(
        "a block's state changes",
        |proposal| hub(proposal).grants[0].state = State::Imported,
        any(Invariant::StateStays),
    );
    corrupt(
        "a ledger is gone",
        |proposal| drop(proposal.ledgers.remove(&LedgerName::Hub)),
        any(Invariant::LedgerStays),
    );
}

#[test]
fn shares_that_overlap_or_lie_elsewhere() {
    use State::{Active, Imported, Released};
    let pod = |prefix: &'static str, state, expected| {
        corrupt(
            prefix,
            move |proposal| {
                add(
                    ledger(proposal, "eu"),
                    prefix,
                    Use::Pod,
                    node("berlin-9"),
                    state,
                )
            },
            expected,
        );
    };
    pod(
        "10.64.0.0/25",
        Imported,
        names(Invariant::NoOverlap, "10.64.0.0/24 of Node berlin-1"),
    );
    pod(
        "10.64.0.0/25",
        Released,
        names(Invariant::NoOverlap, "10.64.0.0/24 of Node berlin-1"),
    );
    pod("10.65.3.0/24", Imported, any(Invariant::InBlocks));
    pod("10.64.200.0/24", Active, any(Invariant::InChunk));
    corrupt(
        "a chunk over a chunk",
        |proposal| {
            add(
                ledger(proposal, "eu"),
                "10.64.8.0/24",
                Use::Pod,
                Owner::Site(site_name("rome")),
                Active,
            )
        },
        names(Invariant::NoOverlap, "10.64.0.0/20 of Site berlin"),
    );
    corrupt(
        "a node in another site's chunk",
        |proposal| {
            let id = node_id("eu", "oslo-1");
            proposal.nodes.get_mut(&id).unwrap().site = site_name("berlin");
        },
        names(Invariant::InOwnSite, "is in Site berlin"),
    );
    corrupt(
        "one mesh address twice",
        |proposal| {
            add(
                ledger(proposal, "eu"),
                "100.127.0.0/32",
                Use::Mesh,
                node("x"),
                Active,
            )
        },
        names(Invariant::OneHolder, "to Node"),
    );
    corrupt(
        "parents",
        |proposal| ledger(proposal, "us").parents.remove(p("10.65.0.0/16")),
        any(Invariant::ParentsAreBlocks),
    );
    corrupt(
        "a cluster in a cluster's ledger",
        |proposal| {
            add(
                ledger(proposal, "us"),
                "10.65.0.0/16",
                Use::Pod,
                cluster("us"),
                Active,
            )
        },
        names(Invariant::OwnerFits, "to Cluster us"),
    );
    corrupt(
        "order",
        |proposal| ledger(proposal, "us").grants.reverse(),
        any(Invariant::GrantsAreSorted),
    );
}

#[test]
fn revisions_that_fall_or_stand_still() {
    corrupt(
        "hub falls",
        |proposal| hub(proposal).revision = 0,
        any(Invariant::RevisionRests),
    );
    corrupt(
        "cluster changes without a new revision",
        |proposal| ledger(proposal, "us").revision = 1,
        any(Invariant::RevisionRises),
    );
    corrupt(
        "cluster counts without a change",
        |proposal| ledger(proposal, "eu").revision += 1,
        any(Invariant::RevisionRests),
    );
    corrupt(
        "plan falls",
        |proposal| acme(proposal).revision = 0,
        any(Invariant::RevisionRises),
    );
    corrupt(
        "lineage",
        |proposal| hub(proposal).lineage = Lineage::new("another0lineage").unwrap(),
        any(Invariant::LineageStays),
    );
    let (mut world, _) = grown();
    let hub = world.before.ledgers.get_mut(&LedgerName::Hub);
    Arc::make_mut(hub.unwrap()).revision = 9;
    let mut proposal = world.look();
    assert_eq!(acme(&mut proposal).revision, 10);
    acme(&mut proposal).revision = 9;
    let findings = check(&world.fleet, &world.before, &proposal);
    expect(
        "a plan below the hub",
        &findings,
        names(Invariant::RevisionRises, "above 9"),
    );
    let (world, mut proposal) = {
        let (mut world, _) = grown();
        let proposal = world.go();
        (world, proposal)
    };
    acme(&mut proposal).revision += 1;
    let findings = check(&world.fleet, &world.before, &proposal);
    expect(
        "a plan that counts",
        &findings,
        any(Invariant::RevisionRests),
    );
}

#[test]
fn what_is_not_planned_and_changes_all_the_same() {
    let (mut world, mut proposal) = grown();
    world.link("acme", &[]).mode = Mode::Plan;
    let findings = check(&world.fleet, &world.before, &proposal);
    let rests = |what| names(Invariant::UnplannedRests, what);
    expect("a plan that is shown", &findings, rests("plan acme"));
    proposal.plans.clone_from(&world.before.plans);
    let findings = check(&world.fleet, &world.before, &proposal);
    expect("a ledger", &findings, rests("cluster-us"));
}
