#![allow(clippy::unwrap_used)]

use super::*;
use crate::facts::Paths;
use crate::report::{Outcome, Role};
use std::collections::BTreeMap;
use tieline_core::ids::{PeerName, VpnName};
use tieline_core::keys::PublicKey;

fn own(status: PeerStatus) -> OwnPeer {
    OwnPeer {
        name: PeerName::new("shop.a").unwrap(),
        generation: Some(3),
        status,
    }
}

fn statement(role: Role) -> Statement {
    let outcome = Outcome {
        role,
        revision: Some(7),
        ..Outcome::default()
    };
    Statement {
        claim: Claim {
            applied_revision: 7,
            ..Claim::default()
        },
        backend: Backend::Embedded,
        paths: outcome.path_count(),
        sessions: outcome.session_counts(),
        host: None,
        version: "1.2.3",
        verdicts: outcome.verdicts(),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn what_was_written_needs_no_second_write() {
    let mut statement = statement(Role::Member);
    statement.claim.sealing_key = Some(PublicKey::from_bytes([9; 32]).unwrap());
    let first = compose(&statement, &own(PeerStatus::default()), at(10));
    assert_eq!(
        difference(&PeerStatus::default(), &first),
        Difference::Claim
    );
    let second = compose(&statement, &own(first.clone()), at(99));
    assert_eq!(difference(&first, &second), Difference::None);
    assert_eq!(first, second);
}

#[test]
fn a_condition_that_turns_is_major_and_gets_a_new_time_and_the_others_keep_theirs() {
    let first = compose(&statement(Role::Guard), &own(PeerStatus::default()), at(10));
    let second = compose(&statement(Role::Member), &own(first.clone()), at(99));
    assert_eq!(difference(&first, &second), Difference::Major);
    let time = |kind: &str| {
        second
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind)
            .unwrap()
            .last_transition_time
            .0
    };
    assert_eq!(time("Ready"), at(99));
    assert_eq!(time("Applied"), at(10));
}

#[test]
fn a_path_or_a_session_that_came_up_is_major_though_no_condition_turns() {
    let say = |up: usize, session: bool| {
        let outcome = Outcome {
            role: Role::Member,
            paths: Paths {
                up,
                total: 3,
                connecting: 3 - up,
                down: Vec::new(),
            },
            sessions: BTreeMap::from([(VpnName::new("hq").unwrap(), session)]),
            ..Outcome::default()
        };
        let statement = Statement {
            paths: outcome.path_count(),
            sessions: outcome.session_counts(),
            ..statement(Role::Member)
        };
        compose(&statement, &own(PeerStatus::default()), at(10))
    };
    assert_eq!(difference(&say(1, true), &say(2, true)), Difference::Major);
    assert_eq!(difference(&say(2, false), &say(2, true)), Difference::Major);
    assert_eq!(difference(&say(2, true), &say(2, true)), Difference::None);
    let paths = say(2, true).paths.unwrap();
    assert_eq!((paths.up, paths.total, paths.connecting), (2, 3, 1));
}

#[test]
fn a_fact_about_the_host_is_minor() {
    let say = |clock: Option<i32>| {
        let host = HostFacts {
            clock_ahead_seconds: clock,
            ..HostFacts::default()
        };
        let statement = Statement {
            host: Some(host),
            ..statement(Role::Member)
        };
        compose(&statement, &own(PeerStatus::default()), at(10))
    };
    assert_eq!(difference(&say(None), &say(Some(30))), Difference::Minor);
    assert_eq!(difference(&say(Some(30)), &say(Some(30))), Difference::None);
}

#[test]
fn a_message_or_a_generation_is_minor_and_others_conditions_are_not_ours() {
    let first = compose(
        &statement(Role::Member),
        &own(PeerStatus::default()),
        at(10),
    );
    let mut other = first.clone();
    other.observed_generation = Some(4);
    assert_eq!(difference(&other, &first), Difference::Minor);
    let mut other = first.clone();
    other.conditions[0].message = "another".to_owned();
    assert_eq!(difference(&other, &first), Difference::Minor);
    let mut other = first.clone();
    other.conditions.push(Condition {
        type_: "Accepted".to_owned(),
        ..first.conditions[0].clone()
    });
    assert_eq!(difference(&other, &first), Difference::None);
    other.conditions.push(Condition {
        type_: "StateKept".to_owned(),
        ..first.conditions[0].clone()
    });
    assert_eq!(difference(&other, &first), Difference::Major);
}

#[test]
fn a_flapping_condition_is_written_eight_times_and_then_every_fifteen_seconds() {
    let start = Instant::now();
    let mut budget = Budget::new(start);
    let mut writes = Vec::new();
    let mut now = start;
    while now < start + Duration::from_secs(60) {
        match budget.due(Difference::Major, now) {
            Due::Now => {
                budget.spend(now);
                writes.push(now.duration_since(start).as_millis());
            }
            Due::At(at) => now = at,
            Due::Never => unreachable!("it differs always"),
        }
    }
    assert_eq!(
        writes,
        [
            400, 800, 1200, 1600, 2000, 2400, 2800, 3200, 15_400, 30_400, 45_400
        ]
    );
}

#[test]
fn a_claim_is_written_at_once() {
    let start = Instant::now();
    let mut budget = Budget::new(start);
    assert!(matches!(budget.due(Difference::Claim, start), Due::Now));
}

#[test]
fn a_message_waits_a_minute_since_the_last_write() {
    let start = Instant::now();
    let mut budget = Budget::new(start);
    budget.spend(start);
    let soon = start + Duration::from_secs(10);
    assert!(
        matches!(budget.due(Difference::Minor, soon), Due::At(at) if at == start + MINOR_PAUSE)
    );
    let later = start + Duration::from_secs(60);
    assert!(matches!(budget.due(Difference::Minor, later), Due::Now));
}
