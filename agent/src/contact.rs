//! First handshakes: which are still awaited, and when to ask for one again. Pure; the time is an argument.
//!
//! A first handshake is lost when the other end does not know this peer yet: two agents apply the same news a moment
//! apart, and who is first speaks to somebody who does not listen. WireGuard asks again after five seconds (REKEY_TIMEOUT,
//! section 6.1 of its paper), and where only this end can speak first (it is behind NAT), nobody else helps. A peer that
//! never had a handshake has nothing to lose, so it is removed and added again, which makes WireGuard ask at once: after
//! [`FIRST`], then after twice that, and so on, [`RETRIES`] times. The pauses grow, so that a slow path gets its answer in
//! time.
//!
//! Until [`PATIENCE`] is over, such a path counts as *connecting* and its node as not ready; from then on it is down.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tieline_core::health::{PathId, PathStates};
use tieline_core::host::{Change, HostState, KeySource};

/// Time after which a first handshake is asked for again.
pub const FIRST: Duration = Duration::from_millis(200);
/// How often it is asked for again, each time after twice the pause; then WireGuard's own timer takes over.
pub const RETRIES: u32 = 5;
/// Time after which a path that never had a handshake counts as down.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Paths whose first handshake has not happened yet.
#[derive(Debug, Clone, Default)]
pub struct Contacts(BTreeMap<PathId, Contact>);

#[derive(Debug, Clone, Copy)]
struct Contact {
    since: Instant,
    /// When it is asked for again, and how often it was.
    next: Option<Instant>,
    retries: u32,
}

impl Contacts {
    /// Takes in what is wanted and what is known: a path without a state never had a handshake.
    pub fn update(&mut self, wanted: &HostState, known: &PathStates, now: Instant) {
        let mut silent = BTreeMap::new();
        for (device, state) in &wanted.devices {
            // A foreign box is somebody else's to set up, when it suits them.
            if state.key != KeySource::Own {
                continue;
            }
            for (key, peer) in &state.peers {
                let path = PathId::new(*device, *key);
                if known.contains_key(&path) {
                    continue;
                }
                let before = self.0.get(&path).copied();
                let mut contact = before.unwrap_or(Contact {
                    since: now,
                    next: None,
                    retries: 0,
                });
                // Only who has somewhere to send to can ask.
                let asks = peer.endpoint.is_some() && peer.keepalive.is_some();
                if !asks {
                    contact.next = None;
                } else if contact.next.is_none() && contact.retries < RETRIES {
                    contact.next = Some(now + FIRST * 2_u32.pow(contact.retries));
                }
                silent.insert(path, contact);
            }
        }
        self.0 = silent;
    }

    /// Whether the first handshake of a path is still awaited.
    #[must_use]
    pub fn is_connecting(&self, path: PathId, now: Instant) -> bool {
        self.0
            .get(&path)
            .is_some_and(|contact| now < contact.since + PATIENCE)
    }

    /// When something becomes due: another try, or the end of patience.
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.0
            .values()
            .flat_map(|contact| {
                let end = contact.since + PATIENCE;
                [contact.next, Some(end).filter(|end| *end > now)]
            })
            .flatten()
            .min()
    }

    /// The peers to be added anew, because their first handshake is due again.
    pub fn retry(&mut self, wanted: &HostState, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        for (&PathId { device, far: key }, contact) in &mut self.0 {
            let peer = wanted
                .devices
                .get(&device)
                .and_then(|it| it.peers.get(&key));
            let (Some(at), Some(peer)) = (contact.next, peer) else {
                continue;
            };
            if at > now {
                continue;
            }
            contact.next = None;
            contact.retries += 1;
            if contact.retries < RETRIES {
                contact.next = Some(now + FIRST * 2_u32.pow(contact.retries));
            }
            changes.push(Change::RemovePeer { device, key });
            changes.push(Change::PutPeer {
                device,
                key,
                peer: Box::new(peer.clone()),
            });
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;
    use tieline_core::health::PathState;
    use tieline_core::host::{Device, DeviceName, WgPeer};
    use tieline_core::keys::PublicKey;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32]).unwrap()
    }

    /// A device with one peer that can be asked and one that has no endpoint.
    fn wanted(source: KeySource) -> HostState {
        let peer = |endpoint: Option<&str>| WgPeer {
            allowed_ips: Vec::new().into(),
            endpoint: endpoint.map(|text| text.parse().unwrap()),
            keepalive: Some(25),
            preshared_key: None,
        };
        let device = Device {
            public_key: key(1),
            key: source,
            port: 21820,
            fwmark: 0x1000,
            mtu: 1420,
            addresses: BTreeSet::new(),
            peers: BTreeMap::from([
                (key(9), peer(Some("192.0.2.9:21820"))),
                (key(10), peer(None)),
            ]),
        };
        let mut state = HostState::default();
        state.devices.insert(DeviceName::outer(0), device);
        state
    }

    fn path(byte: u8) -> PathId {
        PathId::new(DeviceName::outer(0), key(byte))
    }

    fn answered(byte: u8) -> PathStates {
        PathStates::from([(path(byte), PathState::Up)])
    }

    #[test]
    fn a_lost_first_handshake_is_asked_for_again_in_growing_pauses_and_then_left_to_wireguard() {
        let (wanted, start) = (wanted(KeySource::Own), Instant::now());
        let mut contacts = Contacts::default();
        let mut asked = Vec::new();
        for step in 0..1500 {
            let elapsed = Duration::from_millis(step * 10);
            contacts.update(&wanted, &PathStates::new(), start + elapsed);
            let changes = contacts.retry(&wanted, start + elapsed);
            if !changes.is_empty() {
                assert!(matches!(changes[0], Change::RemovePeer { key: it, .. } if it == key(9)));
                assert!(matches!(changes[1], Change::PutPeer { key: it, .. } if it == key(9)));
                assert_eq!(
                    changes.len(),
                    2,
                    "the peer without an endpoint cannot be asked"
                );
                asked.push(elapsed.as_millis());
            }
        }
        assert_eq!(asked, [200, 600, 1400, 3000, 6200]);
    }

    #[test]
    fn a_path_connects_for_ten_seconds_or_until_its_handshake() {
        let (wanted, start) = (wanted(KeySource::Own), Instant::now());
        let mut contacts = Contacts::default();
        contacts.update(&wanted, &PathStates::new(), start);
        let later = |seconds| start + Duration::from_secs(seconds);
        for peer in [9, 10] {
            assert!(contacts.is_connecting(path(peer), later(9)));
            assert!(!contacts.is_connecting(path(peer), later(10)));
        }
        assert_eq!(contacts.next(start), Some(start + FIRST));
        contacts.update(&wanted, &answered(9), later(1));
        assert!(!contacts.is_connecting(path(9), later(1)));
        assert_eq!(
            contacts.next(later(1)),
            Some(later(10)),
            "the other one's patience"
        );
        assert!(contacts.retry(&wanted, later(9)).is_empty());
        contacts.update(&wanted, &answered(9), later(11));
        assert_eq!(contacts.next(later(11)), None);
    }

    #[test]
    fn a_foreign_box_is_left_alone() {
        let vpn = KeySource::Attachment("hq".parse().unwrap());
        let (wanted, start) = (wanted(vpn), Instant::now());
        let mut contacts = Contacts::default();
        contacts.update(&wanted, &PathStates::new(), start);
        assert_eq!(contacts.next(start), None);
    }
}
