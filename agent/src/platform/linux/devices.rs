//! Our devices and their peers: WireGuard, by the kernel or embedded, under the names that WireGuard does not know.
//!
//! A link of ours that is down is observed with MTU 0, and one that no WireGuard stands behind with a key that nobody has:
//! either is then configured anew when wanted, and removed when not.

use super::labels::Labels;
use super::links::{self, Link, Links};
use super::netlink::Netlink;
use super::sockets::Sockets;
use super::wireguard::embedded::Embedded;
use super::wireguard::kernel::Kernel;
use super::wireguard::{PeerChange, SeenDevice, Wireguard};
use super::{BackendChoice, Cause};
use crate::platform::{Backend, Observation, Secrets};
use nix::errno::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use tieline_core::cidr::Prefix;
use tieline_core::health::PathId;
use tieline_core::host::{Change, Device, DeviceName, HostState, KeySource, WgPeer};
use tieline_core::keys::PublicKey;

/// Name of the link that is made and removed to learn whether the kernel has WireGuard.
const PROBE: &str = "tieprobe";

/// Our devices.
pub(super) struct Devices {
    wireguard: Wireguard,
    labels: Labels,
}

impl Devices {
    /// Chooses a backend, and remembers the names that a former run gave.
    pub(super) async fn open(
        choice: BackendChoice,
        netlink: &Netlink,
        state_dir: &Path,
    ) -> io::Result<Self> {
        let in_kernel = match choice {
            BackendChoice::Kernel => true,
            BackendChoice::Embedded => false,
            BackendChoice::Auto => kernel_has_wireguard(netlink).await?,
        };
        Ok(Self {
            wireguard: if in_kernel {
                Wireguard::Kernel(Kernel::default())
            } else {
                Wireguard::Embedded(Box::<Embedded>::default())
            },
            labels: Labels::open(state_dir),
        })
    }

    /// Which WireGuard this host has.
    pub(super) fn backend(&self) -> Backend {
        match self.wireguard {
            Wireguard::Kernel(_) => Backend::Kernel,
            Wireguard::Embedded(_) => Backend::Embedded,
        }
    }

    /// Reads devices, which have these `addresses`, and how alive their peers are.
    pub(super) async fn read(
        &mut self,
        links: &Links,
        mut addresses: BTreeMap<DeviceName, BTreeSet<Prefix>>,
        observation: &mut Observation,
    ) -> Result<(), Cause> {
        let seen = self.wireguard.observe(links).await?;
        for (name, link) in links.ours() {
            let device = match seen.get(&name) {
                Some(seen) => {
                    for (far, peer) in &seen.peers {
                        let path = PathId::new(name, *far);
                        observation.liveness.insert(path, peer.liveness);
                    }
                    let addresses = addresses.remove(&name).unwrap_or_default();
                    self.named(name, link, seen, addresses)
                }
                None => shell(),
            };
            observation.state.devices.insert(name, device);
        }
        Ok(())
    }

    /// A device in the words of the model.
    fn named(
        &self,
        name: DeviceName,
        link: &Link,
        seen: &SeenDevice,
        addresses: BTreeSet<Prefix>,
    ) -> Device {
        let peers = seen.peers.iter().map(|(key, peer)| {
            let preshared_key = self
                .labels
                .preshared_key(name, *key, peer.preshared_key.as_ref());
            (
                *key,
                WgPeer {
                    preshared_key,
                    ..peer.peer.clone()
                },
            )
        });
        Device {
            public_key: seen.public_key,
            key: self.labels.key_source(name, seen),
            port: seen.port,
            fwmark: seen.fwmark,
            mtu: if link.up { link.mtu } else { 0 },
            addresses,
            peers: peers.collect(),
        }
    }

    /// Takes the name off every pre-shared key that is not the one that `secrets` holds under it.
    pub(super) fn unname_outdated(&self, state: &mut HostState, secrets: &Secrets) {
        for (name, device) in &mut state.devices {
            for (key, peer) in &mut device.peers {
                let wanted = peer
                    .preshared_key
                    .as_ref()
                    .and_then(|vpn| secrets.preshared_keys.get(vpn));
                if wanted.is_some()
                    && self.labels.preshared_key(*name, *key, wanted) != peer.preshared_key
                {
                    peer.preshared_key = None;
                }
            }
        }
    }

    /// Makes a device run as wanted; `None` removes it. Peers stay as they are.
    pub(super) async fn write(
        &mut self,
        sockets: &mut Sockets,
        name: DeviceName,
        device: Option<&Device>,
        secrets: &Secrets,
    ) -> Result<(), Cause> {
        sockets.forget_links();
        let netlink = &sockets.netlink;
        match device {
            Some(device) => {
                let private_key = secrets.private_keys.get(&name);
                self.wireguard
                    .ensure(netlink, name, device, private_key)
                    .await?;
                self.labels
                    .name_device(name, device.public_key, &device.key);
            }
            None => {
                self.wireguard.remove(netlink, name).await?;
                self.labels.forget(name);
            }
        }
        Ok(self.labels.save()?)
    }

    /// Applies changes to peers of one device, all in one go. Tells of each whether that took a write.
    pub(super) async fn write_peers(
        &mut self,
        name: DeviceName,
        changes: &[Change],
        secrets: &Secrets,
    ) -> Vec<Result<bool, Cause>> {
        let mut wanted = Vec::with_capacity(changes.len());
        let mut results = Vec::with_capacity(changes.len());
        for change in changes {
            let understood = peer_change(change, secrets).map(|change| wanted.push(change));
            results.push(understood.map(|()| false));
        }
        let written = self.wireguard.peers(name, &wanted).await;
        let asked = results.iter_mut().filter(|result| result.is_ok());
        for ((result, change), outcome) in asked.zip(&wanted).zip(written) {
            if outcome.is_ok() {
                self.label_peer(name, change);
            }
            *result = outcome.map(|()| true);
        }
        results
    }

    fn label_peer(&mut self, name: DeviceName, change: &PeerChange<'_>) {
        match change {
            PeerChange::Put {
                key,
                peer,
                preshared_key,
            } => self.labels.name_peer(
                name,
                *key,
                peer.preshared_key.as_ref().zip(preshared_key.as_ref()),
            ),
            PeerChange::Remove(key) => self.labels.name_peer(name, *key, None),
        }
    }

    /// Writes the names of peers to disk.
    pub(super) fn save(&mut self) -> io::Result<()> {
        self.labels.save()
    }

    /// Forgets all names.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.labels.clear()
    }
}

fn peer_change<'a>(change: &'a Change, secrets: &Secrets) -> Result<PeerChange<'a>, Cause> {
    match change {
        Change::PutPeer { key, peer, .. } => {
            let preshared_key = match &peer.preshared_key {
                None => None,
                Some(vpn) => Some(
                    *secrets
                        .preshared_keys
                        .get(vpn)
                        .ok_or_else(|| format!("the pre-shared key of {vpn} is not known yet"))?,
                ),
            };
            Ok(PeerChange::Put {
                key: *key,
                peer,
                preshared_key,
            })
        }
        Change::RemovePeer { key, .. } => Ok(PeerChange::Remove(*key)),
        other => Err(format!("{other:?} is not about a peer").into()),
    }
}

/// A link of ours that no WireGuard stands behind.
fn shell() -> Device {
    /// A key that nobody has: the base point of Curve25519 is public, its logarithm as a private key is 1.
    const NOBODY: [u8; 32] = {
        let mut bytes = [0; 32];
        bytes[0] = 9;
        bytes
    };
    Device {
        // The base point is of large order, so this cannot fail; the fallback is as good a stranger.
        public_key: PublicKey::from_bytes(NOBODY).unwrap_or_else(|_| unreachable!()),
        key: KeySource::Own,
        port: 0,
        fwmark: 0,
        mtu: 0,
        addresses: BTreeSet::new(),
        peers: BTreeMap::new(),
    }
}

/// Whether a WireGuard link can be made. A kernel that loads modules loads it now.
async fn kernel_has_wireguard(netlink: &Netlink) -> io::Result<bool> {
    match links::create_wireguard(netlink, PROBE).await {
        Ok(()) => {}
        // Left by a process that was killed between the two.
        Err(error) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {}
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => return Ok(false),
        Err(error) => return Err(error),
    }
    if let Some(link) = Links::read(netlink).await?.by_name(PROBE) {
        links::remove(netlink, link.index).await?;
    }
    Ok(true)
}
