#![allow(clippy::unwrap_used)]
use super::judgement::{Judgement, clipped, conditions};
use super::*;
use crate::decided::Decided;
use crate::index::Index;
use crate::{restore, world};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use tieline_core::ids::Lineage;
use tieline_crds::Peer;
use tieline_crds::condition::{ObjectCondition, Standing};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn a_condition_keeps_its_time_until_its_status_turns() {
    let first = conditions(
        &[],
        vec![Judgement::new(
            ObjectCondition::Ready,
            false,
            Standing::NotAMember,
            "a",
        )],
        Some(1),
        at(10),
    );
    let second = conditions(
        &first,
        vec![Judgement::new(
            ObjectCondition::Ready,
            false,
            Standing::NodesWaiting,
            "b",
        )],
        Some(2),
        at(20),
    );
    assert_eq!(second[0].last_transition_time, Time(at(10)));
    assert_eq!(
        (second[0].reason.as_str(), second[0].observed_generation),
        ("NodesWaiting", Some(2))
    );
    let third = conditions(
        &second,
        vec![Judgement::new(
            ObjectCondition::Ready,
            true,
            Standing::Ready,
            "c",
        )],
        Some(2),
        at(30),
    );
    assert_eq!(third[0].last_transition_time, Time(at(30)));
    let unknown = conditions(
        &third,
        vec![Judgement::unknown(
            ObjectCondition::Ready,
            Standing::NotReported,
            "d",
        )],
        Some(2),
        at(40),
    );
    assert_eq!(unknown[0].status, "Unknown");
}

#[test]
fn times_are_whole_seconds_as_the_api_keeps_them() {
    let now = Timestamp::from_millisecond(1_500).unwrap();
    let made = conditions(
        &[],
        vec![Judgement::new(
            ObjectCondition::Ready,
            true,
            Standing::NotAMember,
            "a",
        )],
        None,
        now,
    );
    assert_eq!(made[0].last_transition_time, Time(at(1)));
}

#[test]
fn long_texts_are_cut_at_a_character() {
    assert_eq!(clipped("short".into(), 10), "short");
    let cut = clipped("äöüäöüäöü".into(), 10);
    assert!(cut.len() <= 10 && cut.ends_with('…'), "{cut}");
}

#[test]
fn paths_and_sessions_are_what_the_agent_counted_whatever_its_messages_say() {
    let peer: Peer = serde_json::from_value(json!({
        "metadata": {"name": "shop.n1"},
        "spec": {"node": "n1", "cluster": "shop", "site": "s", "segment": "shop.s", "planRevision": 1},
        "status": {
            "paths": {"up": 3, "total": 4},
            "sessions": [{"name": "hq", "up": 1, "total": 1}, {"name": "lab", "up": 0, "total": 1}],
            "conditions": [{
                "type": "PathsUp", "status": "False", "reason": "R", "message": "0 of 2 paths up",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        },
    }))
    .unwrap();
    let paths = paths_of(&peer).unwrap();
    assert_eq!((paths.up, paths.total), (3, 4));
    let sessions: Vec<_> = readiness::sessions_of(&peer)
        .iter()
        .map(|it| (it.name.as_str(), it.up, it.total))
        .collect();
    assert_eq!(sessions, [("hq", 1, 1), ("lab", 0, 1)]);
    let silent = Peer::new("shop.n1", peer.spec);
    assert!(paths_of(&silent).is_none() && readiness::sessions_of(&silent).is_empty());
}

/// What is decided on an index when nothing is wrong in it.
fn decided(index: &Index) -> Decided {
    let (mut memory, mut seen) = (world::LastReadable::default(), restore::Seen::default());
    let lineage = Lineage::new("lineage1").unwrap();
    let cluster = "shop".parse().unwrap();
    Decided::full(index, &mut memory, &mut seen, &cluster, &lineage)
}

/// Cluster shop, whose nodes n1 and n2 stand in one site: n1 is its gateway.
fn pair() -> Index {
    let mut index = Index::default();
    let object = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let shop = object("shop", json!({"sites": {"name": "oslo"}}));
    index.apply::<Cluster>(serde_json::from_value(shop).unwrap());
    let acme = object("acme", json!({"members": {"clusters": ["shop"]}}));
    index.apply::<ClusterLink>(serde_json::from_value(acme).unwrap());
    for n in [1, 2] {
        let node = json!({
            "metadata": {"name": format!("n{n}")},
            "spec": {"podCIDRs": [format!("10.64.{n}.0/24")]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        index.apply::<Node>(serde_json::from_value(node).unwrap());
    }
    index
}

/// The Peer of a node whose agent carries every plan and counts these paths, if it counts any.
fn report(index: &mut Index, node: &str, accepted: bool, paths: Option<(u32, u32)>) {
    let keys = json!([{"device": "tie0", "key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}]);
    let paths = paths.map(|(up, total)| json!({"up": up, "total": total}));
    let peer = json!({
        "metadata": {"name": format!("shop.{node}")},
        "spec": {
            "node": node, "cluster": "shop", "site": "oslo", "segment": "shop.oslo", "planRevision": 1,
            "acceptedKeys": if accepted { keys } else { json!([]) },
        },
        "status": {"appliedRevision": 1, "paths": paths},
    });
    index.apply::<Peer>(serde_json::from_value(peer).unwrap());
}

/// What the one link lacks, as `name: reason`.
fn reasons(index: &Index) -> Vec<String> {
    let decided = decided(index);
    let members = Readiness::judge(index, &decided);
    let (link, spec) = decided.world.fleet.links.iter().next().unwrap();
    let entries = members.entries(link, spec, &decided);
    let reasons = entries.first.iter();
    reasons
        .map(|it| format!("{}: {}", it.about.name(), it.reason))
        .collect()
}

#[test]
fn a_cluster_without_nodes_is_told_beside_another_clusters_node_that_waits() {
    let mut index = pair();
    let object = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let blog = object("blog", json!({"sites": {"name": "rome"}}));
    index.apply::<Cluster>(serde_json::from_value(blog).unwrap());
    let acme = object("acme", json!({"members": {"clusters": ["blog", "shop"]}}));
    index.apply::<ClusterLink>(serde_json::from_value(acme).unwrap());
    index.apply::<Node>(serde_json::from_value(object("n3", json!({}))).unwrap());
    let told = reasons(&index);
    for entry in ["blog: NoNodes", "n3: NoPodCidr"] {
        assert!(told.iter().any(|it| it == entry), "{entry}: {told:?}");
    }
}

#[test]
fn a_node_that_wants_no_path_is_ready_only_when_it_is_an_accepted_gateway() {
    let mut index = pair();
    let mut reasons = |n1: (bool, Option<u32>), n2: (bool, Option<u32>)| {
        for (node, (accepted, paths)) in [("n1", n1), ("n2", n2)] {
            report(&mut index, node, accepted, paths.map(|up| (up, up)));
        }
        reasons(&index)
    };
    let none: [&str; 0] = [];
    assert_eq!(reasons((true, Some(0)), (true, Some(1))), none);
    assert_eq!(
        reasons((false, Some(0)), (true, Some(1))),
        ["n1: Connecting"]
    );
    assert_eq!(
        reasons((true, Some(0)), (true, Some(0))),
        ["n2: Connecting"]
    );
    assert_eq!(
        reasons((true, Some(0)), (false, Some(0))),
        ["n2: Connecting"]
    );
    // Carries the plan's guard, and has not seen that it is accepted, or is not.
    assert_eq!(reasons((true, None), (true, Some(1))), ["n1: Connecting"]);
    assert_eq!(reasons((false, None), (true, Some(1))), ["n1: Connecting"]);
    assert_eq!(reasons((true, Some(0)), (true, None)), ["n2: Connecting"]);
}
