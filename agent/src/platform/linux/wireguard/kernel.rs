//! The kernel's WireGuard, through its generic netlink family.
//!
//! The library blocks, so every call runs on a blocking thread. Its `apply` creates a missing device without a word, so
//! devices are created through rtnetlink first, and peers change only on devices that are there.

use super::sessions::Sessions;
use super::{PeerChange, SeenDevice, SeenPeer};
use crate::platform::linux::Cause;
use crate::platform::linux::links::{self, Links};
use crate::platform::linux::netlink::Netlink;
use netlink_packet_route::link::InfoKind;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant, SystemTime};
use tieline_core::cidr::{Prefix, PrefixSet};
use tieline_core::health::{Liveness, PathId};
use tieline_core::host::{Device, DeviceName, WgPeer};
use tieline_core::keys::PublicKey;
use wireguard_control::{
    AllowedIp, Backend, Device as Found, DeviceUpdate, InterfaceName, Key, PeerConfigBuilder,
    PeerInfo,
};

/// Allowed IPs of one peer in one message: a message holds about 4 KiB, an IPv6 prefix 40 bytes.
const PREFIXES_PER_MESSAGE: usize = 64;

/// The kernel's devices; they outlive this value and the process.
#[derive(Default)]
pub(crate) struct Kernel {
    sessions: Sessions,
}

impl Kernel {
    /// Devices of kind `wireguard` that carry our names.
    pub(super) async fn observe(
        &mut self,
        links: &Links,
    ) -> Result<BTreeMap<DeviceName, SeenDevice>, Cause> {
        let names: Vec<DeviceName> = links
            .ours()
            .into_iter()
            .filter(|(_, link)| link.kind == Some(InfoKind::Wireguard))
            .map(|(name, _)| name)
            .collect();
        let found = blocking(move || {
            let mut found = BTreeMap::new();
            for name in names {
                match Found::get(&interface(name)?, Backend::Kernel) {
                    Ok(device) => {
                        found.insert(name, device);
                    }
                    // Gone since the links were listed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error)
                        if error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(found)
        })
        .await?;
        let ages = self
            .sessions
            .ages(&handshakes(&found), SystemTime::now(), Instant::now());
        let read =
            |(name, device): (&DeviceName, &Found)| Some((*name, read(*name, device, &ages)?));
        Ok(found.iter().filter_map(read).collect())
    }

    /// See [`super::Wireguard::ensure`].
    pub(super) async fn ensure(
        &mut self,
        netlink: &Netlink,
        links: &Links,
        name: DeviceName,
        device: &Device,
        private_key: Option<&[u8; 32]>,
    ) -> Result<(), Cause> {
        let private_key = *private_key.ok_or("there is no private key for it")?;
        let link = links.by_name(&name.to_string());
        let ready = link.is_some_and(|link| link.kind == Some(InfoKind::Wireguard));
        if !ready {
            if let Some(link) = link {
                links::remove(netlink, link.index).await?;
            }
            links::create_wireguard(netlink, &name.to_string()).await?;
        }
        let (port, fwmark, public_key) = (device.port, device.fwmark, device.public_key);
        blocking(move || {
            let interface = interface(name)?;
            let found = Found::get(&interface, Backend::Kernel)?;
            let mut update = DeviceUpdate::new();
            // A key or port that is set again would end sessions or close the socket.
            let key_differs =
                found.public_key.as_ref().map(Key::as_bytes) != Some(&public_key.as_bytes()[..]);
            if key_differs {
                update = update.set_private_key(Key(private_key));
            }
            if found.fwmark != Some(fwmark) {
                update = update.set_fwmark(fwmark);
            }
            if found.listen_port != Some(port) {
                update = update.set_listen_port(port);
            }
            update.apply(&interface, Backend::Kernel)
        })
        .await
    }

    /// See [`super::Wireguard::peers`]. All in one call; when that fails, one by one, to tell which is at fault.
    pub(super) async fn peers(
        &mut self,
        name: DeviceName,
        changes: &[PeerChange<'_>],
    ) -> Vec<Result<(), Cause>> {
        let before = match blocking(move || Found::get(&interface(name)?, Backend::Kernel)).await {
            Ok(found) => found,
            Err(error) => {
                let text = format!("device {name} cannot be read: {error}");
                return changes.iter().map(|_| Err(text.clone().into())).collect();
            }
        };
        let mut before = Before::new(
            before
                .peers
                .iter()
                .filter_map(|peer| Some((key_of(&peer.config.public_key)?, prefixes(peer)))),
        );
        let builders: Vec<Vec<PeerConfigBuilder>> = changes
            .iter()
            .map(|change| builders(change, &mut before))
            .collect();
        if apply(name, builders.concat()).await.is_ok() {
            return changes.iter().map(|_| Ok(())).collect();
        }
        let mut results = Vec::with_capacity(changes.len());
        for builders in builders {
            results.push(apply(name, builders).await);
        }
        results
    }
}

async fn apply(name: DeviceName, peers: Vec<PeerConfigBuilder>) -> Result<(), Cause> {
    blocking(move || {
        DeviceUpdate::new()
            .add_peers(&peers)
            .apply(&interface(name)?, Backend::Kernel)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Cause> {
    Ok(tokio::task::spawn_blocking(call).await??)
}

fn interface(name: DeviceName) -> io::Result<InterfaceName> {
    Ok(name.to_string().parse::<InterfaceName>()?)
}

/// A peer that nobody is: Curve25519's base point. It takes what other peers are to lose, and goes.
const STAND_IN: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 9;
    bytes
};

/// What the peers of a device are allowed, kept in step with the messages that are made.
#[derive(Debug, Default)]
struct Before {
    allowed: BTreeMap<PublicKey, PrefixSet>,
    owners: BTreeMap<Prefix, PublicKey>,
}

impl Before {
    fn new(peers: impl Iterator<Item = (PublicKey, PrefixSet)>) -> Self {
        let mut before = Self::default();
        for (key, allowed) in peers {
            before.put(key, allowed);
        }
        before
    }

    /// As the kernel: a prefix that is given to one peer is taken from another.
    fn put(&mut self, key: PublicKey, allowed: PrefixSet) {
        self.owners
            .extend(allowed.iter().map(|prefix| (prefix, key)));
        self.allowed.insert(key, allowed);
    }

    /// What a peer has now, without what others took meanwhile.
    fn of(&self, key: &PublicKey) -> BTreeSet<Prefix> {
        let all = self.allowed.get(key).into_iter().flat_map(PrefixSet::iter);
        all.filter(|prefix| self.owners.get(prefix) == Some(key))
            .collect()
    }
}

/// One change as messages: the first says all but what did not fit, further ones add that. The kernel can only replace all
/// of a peer's allowed IPs, and for a moment the peer is without any then. So what has to go is given to a stand-in, which
/// is removed: no packet of what stays is ever refused.
fn builders(change: &PeerChange<'_>, before: &mut Before) -> Vec<PeerConfigBuilder> {
    match change {
        PeerChange::Remove(key) => {
            before.allowed.remove(key);
            // Removing a peer that is not there would add and remove it: harmless.
            vec![PeerConfigBuilder::new(&Key(*key.as_bytes())).remove()]
        }
        PeerChange::Put {
            key,
            peer,
            preshared_key,
        } => {
            let raw = Key(*key.as_bytes());
            let old = before.of(key);
            let new: BTreeSet<Prefix> = peer.allowed_ips.iter().collect();
            before.put(*key, peer.allowed_ips.clone());
            let missing: Vec<AllowedIp> = new.difference(&old).map(allowed_ip).collect();
            let surplus: Vec<AllowedIp> = old.difference(&new).map(allowed_ip).collect();
            let mut chunks = missing.chunks(PREFIXES_PER_MESSAGE);
            let mut first = PeerConfigBuilder::new(&raw)
                .set_persistent_keepalive_interval(peer.keepalive.unwrap_or(0))
                .add_allowed_ips(chunks.next().unwrap_or_default());
            if let Some(endpoint) = peer.endpoint {
                first = first.set_endpoint(endpoint);
            }
            first = match preshared_key {
                Some(bytes) => first.set_preshared_key(Key(*bytes)),
                None => first.unset_preshared_key(),
            };
            let rest = chunks.map(|chunk| PeerConfigBuilder::new(&raw).add_allowed_ips(chunk));
            let stand_in = || PeerConfigBuilder::new(&Key(STAND_IN));
            let moved = surplus
                .chunks(PREFIXES_PER_MESSAGE)
                .map(|chunk| stand_in().add_allowed_ips(chunk));
            let gone = (!surplus.is_empty()).then(|| stand_in().remove());
            std::iter::once(first)
                .chain(rest)
                .chain(moved)
                .chain(gone)
                .collect()
        }
    }
}

fn allowed_ip(prefix: &Prefix) -> AllowedIp {
    AllowedIp {
        address: prefix.address(),
        cidr: prefix.len(),
    }
}

fn handshakes(devices: &BTreeMap<DeviceName, Found>) -> BTreeMap<PathId, SystemTime> {
    let peers = devices
        .iter()
        .flat_map(|(name, device)| device.peers.iter().map(|peer| (*name, peer)));
    peers
        .filter_map(|(name, peer)| {
            let path = PathId::new(name, key_of(&peer.config.public_key)?);
            Some((path, peer.stats.last_handshake_time?))
        })
        .collect()
}

fn read(name: DeviceName, device: &Found, ages: &BTreeMap<PathId, Duration>) -> Option<SeenDevice> {
    Some(SeenDevice {
        public_key: key_of(device.public_key.as_ref()?)?,
        port: device.listen_port.unwrap_or(0),
        fwmark: device.fwmark.unwrap_or(0),
        peers: device
            .peers
            .iter()
            .filter_map(|peer| {
                let key = key_of(&peer.config.public_key)?;
                Some((
                    key,
                    read_peer(peer, ages.get(&PathId::new(name, key)).copied()),
                ))
            })
            .collect(),
    })
}

fn read_peer(peer: &PeerInfo, handshake_age: Option<Duration>) -> SeenPeer {
    let nonzero = |key: &Key| raw(key).filter(|bytes| bytes.iter().any(|byte| *byte != 0));
    SeenPeer {
        peer: WgPeer {
            allowed_ips: prefixes(peer),
            endpoint: peer.config.endpoint,
            keepalive: peer
                .config
                .persistent_keepalive_interval
                .filter(|seconds| *seconds != 0),
            preshared_key: None,
        },
        preshared_key: peer.config.preshared_key.as_ref().and_then(nonzero),
        liveness: Liveness {
            handshake_age,
            rx_bytes: peer.stats.rx_bytes,
            tx_bytes: peer.stats.tx_bytes,
        },
    }
}

fn prefixes(peer: &PeerInfo) -> PrefixSet {
    peer.config
        .allowed_ips
        .iter()
        .map(|ip| Prefix::containing(ip.address, ip.cidr))
        .collect()
}

fn raw(key: &Key) -> Option<[u8; 32]> {
    key.as_bytes().try_into().ok()
}

fn key_of(key: &Key) -> Option<PublicKey> {
    PublicKey::from_bytes(raw(key)?).ok()
}
