#![allow(clippy::unwrap_used)]

use super::*;
use crate::fixture::{inputs, keys, own, peers, plan, snapshot};
use tieline_core::ids::{LinkName, SegmentName};

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
fn without_plan_and_peer_a_node_withdraws_and_with_an_unreadable_plan_it_does_not() {
    let last = inputs(plan(5), peers("a", &keys(1)));
    let mut empty = snapshot(None, AcceptedPeers::new());
    let decision = decide(&empty, Some(&last), &seen(5), &own("a"));
    assert_eq!(decision.desired, Desired::Withdrawn);
    empty.unreadable_plans = 1;
    let mesh = mesh(decide(&empty, Some(&last), &seen(5), &own("a")));
    assert!(!mesh.fresh);
}

#[test]
fn a_plan_that_is_missing_while_the_own_peer_is_there_withdraws_nothing() {
    let last = inputs(plan(5), peers("a", &keys(1)));
    let there = snapshot(None, peers("a", &keys(1)));
    let decision = decide(&there, Some(&last), &seen(5), &own("a"));
    let refused = decision.refused.clone().unwrap();
    assert!(refused.to_string().contains("NetworkPlan acme is gone"));
    assert_eq!(mesh(decision).inputs, last);
    // Others' Peers say nothing of this node, and a node that has carried nothing has nothing to keep.
    let mut others = peers("a", &keys(1));
    others.remove(&crate::fixture::peer_name("a"));
    let decision = decide(&snapshot(None, others), Some(&last), &seen(5), &own("a"));
    assert_eq!(decision.desired, Desired::Withdrawn);
    let decision = decide(&there, None, &seen(5), &own("a"));
    assert_eq!(decision.desired, Desired::Withdrawn);
}

#[test]
fn a_cluster_leaves_by_a_newer_plan_of_its_link_and_not_by_an_older_one() {
    let last = inputs(plan(5), peers("a", &keys(1)));
    let without = |revision| {
        let mut plan = foreign_plan(revision);
        plan.link = LinkName::new("acme").unwrap();
        plan
    };
    // The Peer of a cluster that another link names, and does not plan yet, stays.
    for peers in [AcceptedPeers::new(), peers("a", &keys(1))] {
        let left = with_plans(vec![without(6)], peers.clone());
        let decision = decide(&left, Some(&last), &seen(5), &own("a"));
        assert_eq!(decision.desired, Desired::Withdrawn);
        let restored = with_plans(vec![without(4)], peers);
        let decision = decide(&restored, Some(&last), &seen(5), &own("a"));
        assert!(matches!(decision.refused, Some(Refused::Older { .. })));
        assert_eq!(mesh(decision).inputs, last);
    }
    // Another link's plan says nothing of this one.
    let other = with_plans(vec![foreign_plan(3)], AcceptedPeers::new());
    let decision = decide(&other, Some(&last), &seen(5), &own("a"));
    assert_eq!(decision.desired, Desired::Withdrawn);
}

#[test]
fn a_lower_revision_of_the_same_lineage_is_refused_and_its_peers_with_it() {
    let last = inputs(plan(5), peers("a", &keys(1)));
    let restored = snapshot(Some(plan(4)), AcceptedPeers::new());
    let decision = decide(&restored, Some(&last), &seen(5), &own("a"));
    let refused = Refused::Older {
        lineage: last.plan.lineage.clone(),
        offered: 4,
        highest: 5,
    };
    assert_eq!(decision.refused, Some(refused));
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
    foreign.link = LinkName::new("aaa-other").unwrap();
    for segment in &mut foreign.segments {
        segment.name = SegmentName::new(format!("other.{}", segment.site)).unwrap();
    }
    let mut both = snapshot(Some(plan(5)), peers("a", &keys(1)));
    let plans = Arc::make_mut(both.plans.as_mut().unwrap());
    plans.insert("aaa-other".to_owned(), Arc::new(foreign));
    let mesh = mesh(decide(&both, None, &seen(0), &own("a")));
    assert_eq!(mesh.inputs.plan.link.as_str(), "acme");
}

/// A plan of another link, with another cluster and other segments.
fn foreign_plan(revision: u64) -> NetworkPlan {
    let mut foreign = plan(revision);
    foreign.link = LinkName::new("aaa-other").unwrap();
    foreign.clusters[0].name = ClusterName::new("depot").unwrap();
    for segment in &mut foreign.segments {
        segment.name = SegmentName::new(format!("depot.{}", segment.site)).unwrap();
        segment.cluster = Some(ClusterName::new("depot").unwrap());
    }
    foreign
}

fn with_plans(plans: Vec<NetworkPlan>, peers: AcceptedPeers) -> Snapshot {
    let mut snapshot = snapshot(None, peers);
    let named = plans
        .into_iter()
        .map(|plan| (plan.link.to_string(), Arc::new(plan)));
    snapshot.plans = Some(Arc::new(named.collect()));
    snapshot
}

#[test]
fn before_there_is_a_peer_the_plan_of_the_own_cluster_counts_and_no_other() {
    let named = Own {
        cluster: Some(ClusterName::new("shop").unwrap()),
        ..own("a")
    };
    let both = with_plans(vec![plan(5), foreign_plan(30)], AcceptedPeers::new());
    let found = mesh(decide(&both, None, &seen(0), &named));
    assert_eq!(found.inputs.plan.revision, 5);
    let other = with_plans(vec![foreign_plan(30)], AcceptedPeers::new());
    let decision = decide(&other, None, &seen(0), &named);
    assert_eq!(decision.desired, Desired::Withdrawn);
}

#[test]
fn a_node_that_knows_neither_its_peer_nor_its_cluster_takes_only_a_plan_that_is_alone() {
    let unnamed = Own {
        cluster: None,
        ..own("a")
    };
    let one = with_plans(vec![plan(5)], AcceptedPeers::new());
    assert!(mesh(decide(&one, None, &seen(0), &unnamed)).fresh);
    let both = with_plans(vec![plan(5), foreign_plan(30)], AcceptedPeers::new());
    let decision = decide(&both, None, &seen(0), &unnamed);
    assert_eq!(decision.desired, Desired::Unknown);
}

#[test]
fn while_the_cluster_moves_to_another_link_the_newer_plan_counts() {
    let mut target = plan(31);
    target.link = LinkName::new("target").unwrap();
    for (old, new) in [(30, 31), (32, 31)] {
        target.revision = new;
        let moving = with_plans(vec![plan(old), target.clone()], peers("a", &keys(1)));
        let found = mesh(decide(&moving, None, &seen(30), &own("a")));
        assert_eq!(found.inputs.plan.revision, old.max(new));
    }
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
