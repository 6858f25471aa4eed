//! gotatun in this process: each device is a TUN link and a UDP socket, both in the process's network namespace.
//!
//! A device lives as long as this value: when the agent ends, its links vanish and traffic stops (the guard holds).
//! What is configured is kept beside each device, so that a change touches only what differs.

use super::{PeerChange, SeenDevice, SeenPeer};
use crate::platform::linux::Cause;
use crate::platform::linux::links::{self, Links};
use crate::platform::linux::netlink::Netlink;
use futures::FutureExt;
use gotatun::device::{Device as Tunnel, DeviceBuilder, Peer};
use gotatun::tun::tun_async_device::TunDevice;
use gotatun::udp::socket::{UdpSocket, UdpSocketFactory};
use gotatun::udp::{UdpTransportFactory, UdpTransportFactoryParams};
use gotatun::x25519;
use ipnetwork::IpNetwork;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tieline_core::cidr::Prefix;
use tieline_core::health::Liveness;
use tieline_core::host::{Device, DeviceName, WgPeer};
use tieline_core::keys::PublicKey;

/// How long a port may still be held by the socket that this one replaces.
const REBIND_FOR: Duration = Duration::from_secs(2);
/// Pause between two tries.
const REBIND_PAUSE: Duration = Duration::from_millis(10);
/// Buffers of UDP sockets in bytes; the kernel cuts them to `net.core.{r,w}mem_max`.
const SOCKET_BUFFER: usize = 4 << 20;

type Transports = (Sockets, TunDevice, TunDevice);

/// All devices of this process.
#[derive(Default)]
pub(crate) struct Embedded {
    running: BTreeMap<DeviceName, Running>,
}

struct Running {
    tunnel: Tunnel<Transports>,
    tun: TunDevice,
    /// Index of its link: another link of the same name is not it.
    link: u32,
    public_key: PublicKey,
    port: u16,
    fwmark: u32,
    peers: BTreeMap<PublicKey, Configured>,
}

/// What a peer was last told to be.
struct Configured {
    peer: WgPeer,
    preshared_key: Option<[u8; 32]>,
}

impl Embedded {
    /// Devices whose link and tunnel are alive; the others are dropped, so that they can be made again.
    pub(super) async fn observe(&mut self, links: &Links) -> BTreeMap<DeviceName, SeenDevice> {
        self.running.retain(|name, running| {
            let alive = links
                .by_name(&name.to_string())
                .is_some_and(|link| link.index == running.link)
                && running.tunnel.wait().now_or_never().is_none();
            if !alive {
                tracing::warn!(device = %name, "device is gone or its socket failed");
            }
            alive
        });
        let mut seen = BTreeMap::new();
        for (name, running) in &self.running {
            seen.insert(*name, running.observe().await);
        }
        seen
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
        let link = links.by_name(&name.to_string());
        if let Some(running) = self.running.remove(&name)
            && link.is_some_and(|link| link.index == running.link)
        {
            // When this fails, the device goes, and is made from nothing the next time.
            let running = running.configure(device, private_key).await?;
            self.running.insert(name, running);
            return Ok(());
        }
        if let Some(link) = link {
            links::remove(netlink, link.index).await?;
        }
        let running = Running::start(netlink, name, device, private_key).await?;
        self.running.insert(name, running);
        Ok(())
    }

    /// Stops a device.
    pub(super) async fn forget(&mut self, name: DeviceName) {
        if let Some(running) = self.running.remove(&name) {
            running.tunnel.stop().await;
        }
    }

    /// See [`super::Wireguard::peers`].
    pub(super) async fn peers(
        &mut self,
        name: DeviceName,
        changes: &[PeerChange<'_>],
    ) -> Vec<Result<(), Cause>> {
        let Some(running) = self.running.get_mut(&name) else {
            return changes
                .iter()
                .map(|_| Err(format!("device {name} is not there").into()))
                .collect();
        };
        let mut results = Vec::with_capacity(changes.len());
        for change in changes {
            results.push(running.change(change).await);
        }
        results
    }
}

impl Running {
    async fn start(
        netlink: &Netlink,
        name: DeviceName,
        device: &Device,
        private_key: Option<&[u8; 32]>,
    ) -> Result<Self, Cause> {
        let private_key = private_key.ok_or("there is no private key for it")?;
        let tun = TunDevice::from_name(&name.to_string())?;
        Ok(Self {
            link: Links::read(netlink).await?.index_of(name)?,
            tunnel: tunnel(tun.clone(), device, private_key, Vec::new()).await?,
            tun,
            public_key: device.public_key,
            port: device.port,
            fwmark: device.fwmark,
            peers: BTreeMap::new(),
        })
    }

    /// Gives a running device another mark, key or port.
    ///
    /// For a key or a port the tunnel is built anew on the same link, so that addresses and routes stay. (gotatun's own
    /// setters swap sockets too, but report the swap as a failure of the device now and then.)
    async fn configure(
        mut self,
        device: &Device,
        private_key: Option<&[u8; 32]>,
    ) -> Result<Self, Cause> {
        if self.public_key != device.public_key || self.port != device.port {
            let private_key = private_key.ok_or("there is no private key for it")?;
            let peers = self
                .tunnel
                .peers()
                .await
                .into_iter()
                .map(|found| found.peer)
                .collect();
            self.tunnel.stop().await;
            self.tunnel = tunnel(self.tun.clone(), device, private_key, peers).await?;
            (self.public_key, self.port) = (device.public_key, device.port);
        } else if self.fwmark != device.fwmark {
            self.tunnel.set_fwmark(device.fwmark).await?;
        }
        self.fwmark = device.fwmark;
        Ok(self)
    }

    async fn change(&mut self, change: &PeerChange<'_>) -> Result<(), Cause> {
        match change {
            PeerChange::Remove(key) => {
                self.tunnel.remove_peer(&foreign(*key)).await?;
                self.peers.remove(key);
            }
            PeerChange::Put {
                key,
                peer,
                preshared_key,
            } => {
                if self.peers.contains_key(key) {
                    self.modify(*key, peer, *preshared_key).await?;
                } else {
                    self.add(*key, peer, *preshared_key).await?;
                }
                let configured = Configured {
                    peer: (*peer).clone(),
                    preshared_key: *preshared_key,
                };
                self.peers.insert(*key, configured);
            }
        }
        Ok(())
    }

    async fn add(
        &self,
        key: PublicKey,
        wanted: &WgPeer,
        preshared_key: Option<[u8; 32]>,
    ) -> Result<(), Cause> {
        let mut peer = Peer::new(foreign(key)).with_allowed_ips(networks(wanted));
        peer.endpoint = wanted.endpoint;
        peer.keepalive = wanted.keepalive;
        peer.preshared_key = preshared_key;
        if self.tunnel.add_peer(peer).await? {
            Ok(())
        } else {
            Err("the tunnel has this peer already".into())
        }
    }

    async fn modify(
        &mut self,
        key: PublicKey,
        wanted: &WgPeer,
        preshared_key: Option<[u8; 32]>,
    ) -> Result<(), Cause> {
        let Some(before) = self.peers.get(&key) else {
            return Err("the tunnel does not have this peer".into());
        };
        let allowed_ips_differ = before.peer.allowed_ips != wanted.allowed_ips;
        let keepalive_differs = before.peer.keepalive != wanted.keepalive;
        let preshared_key_differs = before.preshared_key != preshared_key;
        let known = self
            .tunnel
            .modify_peer(&foreign(key), |peer| {
                if allowed_ips_differ {
                    peer.clear_allowed_ips();
                    peer.add_allowed_ips(networks(wanted));
                }
                // The peer may have roamed since; whoever asks for an endpoint has looked at where it is.
                if wanted.endpoint.is_some() {
                    peer.set_endpoint(wanted.endpoint);
                }
                if keepalive_differs {
                    peer.set_keepalive(wanted.keepalive);
                }
                if preshared_key_differs {
                    peer.set_preshared_key(preshared_key);
                }
            })
            .await?;
        if known {
            Ok(())
        } else {
            Err("the tunnel does not have this peer".into())
        }
    }

    async fn observe(&self) -> SeenDevice {
        let mut peers = BTreeMap::new();
        for found in self.tunnel.peers().await {
            let Ok(key) = PublicKey::from_bytes(found.peer.public_key.to_bytes()) else {
                continue; // never added by us
            };
            let allowed_ips = found
                .peer
                .allowed_ips
                .iter()
                .map(|network| Prefix::containing(network.ip(), network.prefix()))
                .collect();
            peers.insert(
                key,
                SeenPeer {
                    peer: WgPeer {
                        allowed_ips,
                        endpoint: found.peer.endpoint,
                        keepalive: found.peer.keepalive,
                        preshared_key: None,
                    },
                    preshared_key: found.peer.preshared_key,
                    liveness: Liveness {
                        handshake_age: found.stats.last_handshake,
                        rx_bytes: found.stats.rx_bytes as u64,
                        tx_bytes: found.stats.tx_bytes as u64,
                    },
                },
            );
        }
        SeenDevice {
            public_key: self.public_key,
            port: self.port,
            fwmark: self.fwmark,
            peers,
        }
    }
}

/// Builds a tunnel on a TUN link and binds its port.
async fn tunnel(
    tun: TunDevice,
    device: &Device,
    private_key: &[u8; 32],
    peers: Vec<Peer>,
) -> Result<Tunnel<Transports>, Cause> {
    let tunnel = DeviceBuilder::new()
        .with_udp(Sockets::default())
        .with_ip(tun)
        .with_private_key(x25519::StaticSecret::from(*private_key))
        .with_fwmark(device.fwmark)
        .build()
        .await?;
    // Built without peers, a device binds no socket until its port is set.
    tunnel.set_listen_port(device.port).await?;
    tunnel.add_peers(peers).await?;
    Ok(tunnel)
}

fn networks(peer: &WgPeer) -> impl Iterator<Item = IpNetwork> + '_ {
    peer.allowed_ips
        .iter()
        .filter_map(|prefix| IpNetwork::new(prefix.address(), prefix.len()).ok())
}

fn foreign(key: PublicKey) -> x25519::PublicKey {
    x25519::PublicKey::from(*key.as_bytes())
}

/// Binds UDP sockets, patiently: a device that binds anew closes its old socket a moment too late.
#[derive(Default)]
struct Sockets(UdpSocketFactory);

impl UdpTransportFactory for Sockets {
    type Send = UdpSocket;
    type Recv = UdpSocket;

    async fn bind(
        &mut self,
        params: &UdpTransportFactoryParams,
    ) -> io::Result<(UdpSocket, UdpSocket)> {
        self.0.recv_buffer_size = Some(SOCKET_BUFFER);
        self.0.send_buffer_size = Some(SOCKET_BUFFER);
        let end = tokio::time::Instant::now() + REBIND_FOR;
        loop {
            match self.0.bind(params).await {
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse
                        && tokio::time::Instant::now() < end =>
                {
                    tokio::time::sleep(REBIND_PAUSE).await;
                }
                other => return other,
            }
        }
    }
}
