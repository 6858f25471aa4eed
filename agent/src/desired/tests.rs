#![allow(clippy::unwrap_used)]

use super::*;
use crate::fixture::{inputs, keys, own, peers, plan, snapshot};
use tieline_core::ids::SegmentName;

fn mesh(decision: Decision) -> Mesh {
    match decision.desired {
        Desired::Mesh(mesh) => mesh,
        other => panic!("no mesh but {other:?}"),
    }
}

fn seen(revision: u64) -> Revisions {
    Revisions::from([(plan(0).lineage, revision)])
}

#[test]
fn a_silent_api_server_leaves_the_last_good_plan_or_the_kernel_as_it_is() {
    let silent = Snapshot::default();
    let decision = decide(&silent, None, &seen(0), &own("a"));
    assert_eq!(decision.desired, Desired::Unknown);
    assert_eq!(decision.awaiting.len(), 3);
    let last = inputs(plan(5), peers("a", &keys(1)));
    let mesh = mesh(decide(&silent, Some(&last), &seen(5), &own("a")));
    assert_eq!((mesh.inputs, mesh.fresh), (last, false));
}

#[test]
fn half_an_answer_is_no_answer() {
    let last = inputs(plan(5), peers("a", &keys(1)));
    for hide in 0..3 {
        let mut partial = snapshot(Some(plan(6)), peers("a", &keys(1)));
        match hide {
            0 => partial.plans = None,
            1 => partial.local = None,
            _ => partial.foreign = None,
        }
        let mesh = mesh(decide(&partial, Some(&last), &seen(5), &own("a")));
        assert!(!mesh.fresh);
    }
}

#[test]
fn a_complete_list_without_a_plan_withdraws_and_one_with_an_unreadable_plan_does_not() {
    let last = inputs(plan(5), peers("a", &keys(1)));
    let mut empty = snapshot(None, peers("a", &keys(1)));
    let decision = decide(&empty, Some(&last), &seen(5), &own("a"));
    assert_eq!(decision.desired, Desired::Withdrawn);
    empty.unreadable_plans = 1;
    let mesh = mesh(decide(&empty, Some(&last), &seen(5), &own("a")));
    assert!(!mesh.fresh);
}

#[test]
fn a_lower_revision_of_the_same_lineage_is_refused_and_its_peers_with_it() {
    let last = inputs(plan(5), peers("a", &keys(1)));
    let restored = snapshot(Some(plan(4)), AcceptedPeers::new());
    let decision = decide(&restored, Some(&last), &seen(5), &own("a"));
    let refused = decision.refused.clone().unwrap();
    assert_eq!((refused.offered, refused.highest), (4, 5));
    assert_eq!(mesh(decision).inputs, last);
}

#[test]
fn the_same_revision_and_another_lineage_are_taken() {
    let last = inputs(plan(5), peers("a", &keys(1)));
    let same = snapshot(Some(plan(5)), peers("a", &keys(2)));
    assert!(mesh(decide(&same, Some(&last), &seen(5), &own("a"))).fresh);
    let mut other = plan(1);
    other.lineage = Lineage::new("zzzzyyyyxxxx").unwrap();
    let other = snapshot(Some(other), peers("a", &keys(2)));
    assert!(mesh(decide(&other, Some(&last), &seen(5), &own("a"))).fresh);
}

#[test]
fn of_several_plans_the_one_with_the_own_segment_counts() {
    let mut foreign = plan(9);
    foreign.link = tieline_core::ids::LinkName::new("aaa-other").unwrap();
    for segment in &mut foreign.segments {
        segment.name = SegmentName::new(format!("other.{}", segment.site)).unwrap();
    }
    let mut both = snapshot(Some(plan(5)), peers("a", &keys(1)));
    let plans = Arc::make_mut(both.plans.as_mut().unwrap());
    plans.insert("aaa-other".to_owned(), Arc::new(foreign));
    let mesh = mesh(decide(&both, None, &seen(0), &own("a")));
    assert_eq!(mesh.inputs.plan.link.as_str(), "acme");
}

#[test]
fn a_local_peer_wins_over_a_foreign_one_of_its_name() {
    let mesh = Mesh {
        inputs: LastGood {
            plan: Arc::new(plan(1)),
            local: Arc::new(peers("a", &keys(1))),
            foreign: Arc::new(peers("a", &keys(100))),
        },
        fresh: true,
    };
    let name = crate::fixture::peer_name("a");
    assert_eq!(mesh.peers().get(&name).unwrap().keys, keys(1));
}
