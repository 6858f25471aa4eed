//! How old sessions are, by a clock that nobody sets.
//!
//! The kernel tells when a handshake was by the wall clock, which steps: forward, and living sessions would count as dead;
//! backward, and dead ones would live on. So a handshake is dated once, when it is first seen, and ages by the monotonic clock
//! from there. Only what is older than this process is dated by the wall clock alone. Pure; both clocks are arguments.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};
use tieline_core::health::PathId;

/// The latest handshake of each peer.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    known: BTreeMap<PathId, Session>,
    looked: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Session {
    /// As the kernel tells it: good for telling one handshake from another.
    handshake: SystemTime,
    first_seen: Instant,
    age_then: Duration,
}

impl Sessions {
    /// Takes in what the kernel tells now, and gives each session's age. Peers that are not told of are forgotten.
    pub(super) fn ages(
        &mut self,
        handshakes: &BTreeMap<PathId, SystemTime>,
        wall: SystemTime,
        now: Instant,
    ) -> BTreeMap<PathId, Duration> {
        let since_last_look = self.looked.map(|then| now.duration_since(then));
        let session = |path: &PathId, handshake: SystemTime| match self.known.get(path) {
            Some(known) if known.handshake == handshake => *known,
            _ => {
                // In the future: that is now.
                let by_wall = wall.duration_since(handshake).unwrap_or_default();
                // What was not there at the last look is younger than that.
                let age_then = since_last_look.map_or(by_wall, |most| by_wall.min(most));
                Session {
                    handshake,
                    first_seen: now,
                    age_then,
                }
            }
        };
        self.known = handshakes
            .iter()
            .map(|(path, handshake)| (*path, session(path, *handshake)))
            .collect();
        self.looked = Some(now);
        let age = |session: &Session| now.duration_since(session.first_seen) + session.age_then;
        self.known
            .iter()
            .map(|(path, session)| (*path, age(session)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tieline_core::host::DeviceName;
    use tieline_core::keys::PublicKey;

    const DAY: Duration = Duration::from_secs(86_400);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn path() -> PathId {
        PathId::new(
            DeviceName::outer(0),
            PublicKey::from_bytes([9; 32]).unwrap(),
        )
    }

    /// The age after `elapsed`, with a wall clock that is off by `wall - elapsed`.
    struct Clocks {
        sessions: Sessions,
        start: Instant,
    }

    impl Clocks {
        fn age(&mut self, elapsed: Duration, wall: SystemTime, handshake: SystemTime) -> Duration {
            let handshakes = BTreeMap::from([(path(), handshake)]);
            self.sessions.ages(&handshakes, wall, self.start + elapsed)[&path()]
        }
    }

    fn clocks() -> (Clocks, SystemTime) {
        let clocks = Clocks {
            sessions: Sessions::default(),
            start: Instant::now(),
        };
        (clocks, SystemTime::UNIX_EPOCH + DAY * 20_000)
    }

    #[test]
    fn a_step_of_the_wall_clock_neither_ages_nor_rejuvenates_a_session() {
        let (mut clocks, noon) = clocks();
        assert_eq!(
            clocks.age(seconds(0), noon, noon - seconds(30)),
            seconds(30)
        );
        for wall in [noon + DAY, noon - DAY] {
            let age = clocks.age(seconds(200), wall, noon - seconds(30));
            assert_eq!(age, seconds(230));
        }
    }

    #[test]
    fn a_new_handshake_is_as_old_as_the_last_look_at_most() {
        let (mut clocks, noon) = clocks();
        clocks.age(seconds(0), noon, noon);
        let next = noon + seconds(121);
        assert_eq!(
            clocks.age(seconds(125), noon + seconds(125), next),
            seconds(4)
        );
        // The clock steps a day ahead between a handshake and the look at it, and back again.
        let next = noon + seconds(241);
        assert_eq!(
            clocks.age(seconds(245), noon + seconds(245) + DAY, next),
            seconds(120)
        );
        let next = noon + seconds(250) + DAY;
        assert_eq!(
            clocks.age(seconds(255), noon + seconds(255), next),
            seconds(0)
        );
        assert_eq!(
            clocks.age(seconds(265), noon + seconds(265), next),
            seconds(10)
        );
    }

    #[test]
    fn what_is_older_than_the_process_is_dated_by_the_wall_clock() {
        let (mut clocks, noon) = clocks();
        assert_eq!(clocks.age(seconds(0), noon, noon - DAY), DAY);
        let (mut clocks, noon) = self::clocks();
        assert_eq!(clocks.age(seconds(0), noon, noon + DAY), seconds(0));
    }

    #[test]
    fn a_peer_that_is_gone_is_forgotten() {
        let (mut clocks, noon) = clocks();
        clocks.age(seconds(0), noon, noon);
        let nobody = BTreeMap::new();
        let ages = clocks
            .sessions
            .ages(&nobody, noon, clocks.start + seconds(1));
        assert!(ages.is_empty() && clocks.sessions.known.is_empty());
    }
}
