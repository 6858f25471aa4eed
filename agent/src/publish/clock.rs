//! How far this node's clock is from the API server's, read off what the API server says about our own writes. Pure.
//!
//! It costs no request: the answer to a write holds the time that the server put on it. The result moves in coarse steps
//! with hysteresis, because a result that changes is written, and every write is measured again.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tieline_crds::Peer;

/// Seconds that are told; less than the first is agreement.
const STEPS: [i32; 7] = [5, 10, 30, 60, 300, 3600, 86400];
/// How far a measurement must leave a step before another is told.
const SLACK: f64 = 1.3;

/// When the API server last took a status from us.
pub(super) fn stamp(written: &Peer) -> Option<Timestamp> {
    let ours = written.managed_fields().iter().filter(|entry| {
        entry.manager.as_deref() == Some(super::MANAGER)
            && entry.subresource.as_deref() == Some("status")
    });
    ours.filter_map(|entry| Some(entry.time.as_ref()?.0)).max()
}

/// The step of a measurement, given the one that was told before. The server tells whole seconds.
pub(super) fn step(before: Option<i32>, ahead: f64) -> Option<i32> {
    let told = before.unwrap_or(0);
    let magnitude = ahead.abs();
    let low = f64::from(told.abs());
    let next = STEPS.iter().find(|step| **step > told.abs());
    let high = next.map_or(f64::INFINITY, |next| f64::from(*next));
    let same_side = told == 0 || (told > 0) == (ahead > 0.0);
    if same_side && magnitude >= low / SLACK && magnitude < high * SLACK {
        return before;
    }
    let step = STEPS
        .iter()
        .rev()
        .find(|step| f64::from(**step) <= magnitude)?;
    Some(if ahead > 0.0 { *step } else { -step })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_differences_are_agreement_and_large_ones_are_steps() {
        for (before, ahead, told) in [
            (None, 0.4, None),
            (None, 6.0, None),
            (None, 7.0, Some(5)),
            (None, -45.0, Some(-30)),
            (None, 1e9, Some(86400)),
            (Some(30), 0.2, None),
            (Some(30), -40.0, Some(-30)),
        ] {
            assert_eq!(step(before, ahead), told, "{before:?} {ahead}");
        }
    }

    #[test]
    fn what_is_told_does_not_flap_around_a_border() {
        let mut told = None;
        let mut changes = 0;
        for ahead in [9.9, 10.1, 9.8, 10.3, 9.0, 11.0, 9.9] {
            let next = step(told, ahead);
            changes += i32::from(next != told);
            told = next;
        }
        assert_eq!(changes, 1, "it is told once");
    }

    #[test]
    fn the_stamp_is_that_of_our_own_status() {
        let peer: Peer = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a.b", "managedFields": [
                {"manager": "tieline-operator", "time": "2026-01-01T00:09:00Z"},
                {"manager": "tieline-agent", "subresource": "status", "time": "2026-01-01T00:00:07Z"},
                {"manager": "tieline-agent", "time": "2026-01-01T00:08:00Z"},
            ]},
            "spec": {"node": "b", "cluster": "a", "site": "s", "segment": "a.s", "planRevision": 1},
        }))
        .unwrap_or_default();
        assert_eq!(
            stamp(&peer).map(|at| at.to_string()),
            Some("2026-01-01T00:00:07Z".to_owned())
        );
    }
}
