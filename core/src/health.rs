//! Whether a path carries traffic: the one judge of it, for routes, reports and endpoints alike.
//!
//! What it judges by is how old the latest handshake is. It takes no time and keeps no memory: ages come in with the reading,
//! so two who ask about one reading get one answer. What it may not do is guess: a path that never had a handshake is
//! neither up nor down, it is absent, and whoever asks decides what that means (a route tries it, a report counts it as
//! missing, and the agent asks for the first handshake again).

use crate::host::device::DeviceName;
use crate::keys::PublicKey;
use std::collections::BTreeMap;
use std::time::Duration;

/// Age of the latest handshake from which on a session is dead: WireGuard makes a new one every 120 s on a tunnel that carries
/// anything, and rejects packets of a session that is older than this (WireGuard paper, section 6.2).
pub const SESSION_LIFETIME: Duration = Duration::from_secs(180);

/// A path: the tunnel that leaves this host by one device and ends at one peer. Ordered by device, then by peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathId {
    /// The device of this host.
    pub device: DeviceName,
    /// Public key of the peer at the far end.
    pub far: PublicKey,
}

impl PathId {
    /// The path by `device` to `far`.
    #[must_use]
    pub fn new(device: DeviceName, far: PublicKey) -> Self {
        Self { device, far }
    }
}

/// How alive the peer at the end of a path is, as observed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Liveness {
    /// Time since the last handshake; `None`: never.
    pub handshake_age: Option<Duration>,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

/// One reading of all paths.
pub type Livenesses = BTreeMap<PathId, Liveness>;

/// State of a path that had a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathState {
    /// The latest handshake is younger than [`SESSION_LIFETIME`]: there is a session that packets can use.
    Up,
    /// It is older.
    Down,
}

/// State of each path; absent: it never had a handshake, so nothing is known.
pub type PathStates = BTreeMap<PathId, PathState>;

impl Liveness {
    /// Judges the path.
    #[must_use]
    pub fn judge(&self) -> Option<PathState> {
        let age = self.handshake_age?;
        Some(if age < SESSION_LIFETIME {
            PathState::Up
        } else {
            PathState::Down
        })
    }
}

/// Judges all paths of one reading.
#[must_use]
pub fn path_states(liveness: &Livenesses) -> PathStates {
    liveness
        .iter()
        .filter_map(|(path, seen)| Some((*path, seen.judge()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_path_is_up_for_180_seconds_after_its_handshake_and_unknown_before_the_first() {
        let path = |byte| {
            let far = PublicKey::from_bytes([byte; 32]).unwrap();
            PathId::new(DeviceName::outer(0), far)
        };
        let age = |seconds| Liveness {
            handshake_age: Some(Duration::from_secs(seconds)),
            ..Liveness::default()
        };
        let states = path_states(&Livenesses::from([
            (path(9), age(179)),
            (path(10), age(180)),
            (path(11), Liveness::default()),
        ]));
        assert_eq!(states.get(&path(9)), Some(&PathState::Up));
        assert_eq!(states.get(&path(10)), Some(&PathState::Down));
        assert_eq!(states.get(&path(11)), None);
    }
}
