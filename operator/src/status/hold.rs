//! A link is called Ready when it has been so for a while.
//!
//! The two ends of a path tell of it at different moments: one that has just been told of a newcomer may still say that all its
//! paths are up. Whoever waits for Ready would believe a state that lasts for a moment. Pure: the time is an argument.

use super::Announcement;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tieline_crds::condition::ObjectCondition;

/// Links that are about to be called Ready.
#[derive(Debug, Clone, Default)]
pub struct Hold {
    pause: Duration,
    /// Since when each would have been.
    since: BTreeMap<String, Instant>,
}

impl Hold {
    /// Holds back for `pause`.
    #[must_use]
    pub fn new(pause: Duration) -> Self {
        Self {
            pause,
            since: BTreeMap::new(),
        }
    }

    /// Takes links out of `wanted` that have not been ready for long enough. `judged` are the links that were looked at.
    pub fn hold_back<'n>(
        &mut self,
        wanted: &mut Vec<Announcement>,
        judged: impl Iterator<Item = &'n String>,
        now: Instant,
    ) {
        let mut turning: BTreeMap<String, Instant> = BTreeMap::new();
        wanted.retain(|announcement| {
            let Announcement::Link(object, status) = announcement else {
                return true;
            };
            let held = object.status.as_ref();
            let was = held.is_some_and(|held| ObjectCondition::Ready.holds(&held.conditions));
            if was || !ObjectCondition::Ready.holds(&status.conditions) {
                return true;
            }
            let name = object.name_any();
            let since = self.since.get(&name).copied().unwrap_or(now);
            let is_over = now >= since + self.pause;
            if !is_over {
                turning.insert(name, since);
            }
            is_over
        });
        for name in judged {
            self.since.remove(name);
        }
        self.since.extend(turning);
    }

    /// When the first of them has to be judged again.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.since.values().min().map(|since| *since + self.pause)
    }

    /// Those that have to be judged again by now.
    pub fn over(&self, now: Instant) -> impl Iterator<Item = &String> {
        let since = self.since.iter();
        since
            .filter(move |(_, since)| now >= **since + self.pause)
            .map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;
    use tieline_crds::{ClusterLink, ClusterLinkStatus};

    fn link(ready: bool) -> Vec<Announcement> {
        let object: ClusterLink = serde_json::from_value(
            serde_json::json!({"metadata": {"name": "acme"}, "spec": {"members": {}}}),
        )
        .unwrap();
        let condition = serde_json::json!({
            "type": "Ready", "status": if ready { "True" } else { "False" }, "reason": "R", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let status = ClusterLinkStatus {
            conditions: vec![serde_json::from_value(condition).unwrap()],
            ..ClusterLinkStatus::default()
        };
        vec![Announcement::Link(Arc::new(object), status)]
    }

    #[test]
    fn ready_is_told_after_the_pause_and_only_if_it_lasted() {
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let mut hold = Hold::new(second);
        let name = "acme".to_owned();
        let mut look = |ready: bool, after: f64| {
            let mut wanted = link(ready);
            let now = begin + Duration::from_secs_f64(after);
            hold.hold_back(&mut wanted, [&name].into_iter(), now);
            (wanted.len(), hold.until().is_some())
        };
        assert_eq!(look(true, 0.0), (0, true));
        assert_eq!(look(true, 0.5), (0, true), "it goes on counting");
        assert_eq!(
            look(false, 0.7),
            (1, false),
            "what is not ready is told at once"
        );
        assert_eq!(look(true, 0.9), (0, true));
        assert_eq!(look(true, 1.5), (0, true), "it counts from the last time");
        assert_eq!(look(true, 1.9), (1, false));
    }
}
