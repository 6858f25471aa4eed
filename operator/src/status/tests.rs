#![allow(clippy::unwrap_used)]
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn a_condition_keeps_its_time_until_its_status_turns() {
    let first = conditions(
        &[],
        vec![Judgement::new("Ready", false, "A", "a")],
        Some(1),
        at(10),
    );
    let second = conditions(
        &first,
        vec![Judgement::new("Ready", false, "B", "b")],
        Some(2),
        at(20),
    );
    assert_eq!(second[0].last_transition_time, Time(at(10)));
    assert_eq!(
        (second[0].reason.as_str(), second[0].observed_generation),
        ("B", Some(2))
    );
    let third = conditions(
        &second,
        vec![Judgement::new("Ready", true, "C", "c")],
        Some(2),
        at(30),
    );
    assert_eq!(third[0].last_transition_time, Time(at(30)));
    let unknown = conditions(
        &third,
        vec![Judgement::unknown("Ready", "D", "d")],
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
        vec![Judgement::new("Ready", true, "A", "a")],
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
    let peer: tieline_crds::Peer = serde_json::from_value(serde_json::json!({
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
    let sessions: Vec<_> = members::sessions_of(&peer)
        .iter()
        .map(|it| (it.name.as_str(), it.up, it.total))
        .collect();
    assert_eq!(sessions, [("hq", 1, 1), ("lab", 0, 1)]);
    let silent = tieline_crds::Peer::new("shop.n1", peer.spec);
    assert!(paths_of(&silent).is_none() && members::sessions_of(&silent).is_empty());
}
