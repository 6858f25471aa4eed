//! WireGuard devices, by the kernel or embedded; both speak the words of this module.

pub(super) mod embedded;
pub(super) mod kernel;
mod sessions;

use super::Cause;
use super::links::{Link, Links};
use super::netlink::Netlink;
use embedded::Embedded;
use kernel::Kernel;
use std::collections::BTreeMap;
use tieline_core::health::Liveness;
use tieline_core::host::{Device, DeviceName, WgPeer};
use tieline_core::keys::PublicKey;

/// What WireGuard itself knows of a device; links, MTUs and addresses are others' business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeenDevice {
    /// Public half of its key.
    pub(super) public_key: PublicKey,
    /// UDP port.
    pub(super) port: u16,
    /// Mark of its encrypted packets.
    pub(super) fwmark: u32,
    /// Its peers.
    pub(super) peers: BTreeMap<PublicKey, SeenPeer>,
}

/// What WireGuard knows of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeenPeer {
    /// Configuration; the name of its pre-shared key is not known here.
    pub(super) peer: WgPeer,
    /// Pre-shared key.
    pub(super) preshared_key: Option<[u8; 32]>,
    /// How alive it is.
    pub(super) liveness: Liveness,
}

/// One change of a device's peers.
#[derive(Clone)]
pub(super) enum PeerChange<'a> {
    /// Add, or change what differs.
    Put {
        /// Its key.
        key: PublicKey,
        /// Configuration.
        peer: &'a WgPeer,
        /// The pre-shared key that `peer` names.
        preshared_key: Option<[u8; 32]>,
    },
    /// Remove.
    Remove(PublicKey),
}

/// The WireGuard that this host has.
pub(super) enum Wireguard {
    /// The kernel's.
    Kernel(Kernel),
    /// In this process.
    Embedded(Box<Embedded>),
}

impl Wireguard {
    /// Devices that run. A link of ours that is missing here is an empty shell: left by another process, or of
    /// another kind.
    pub(super) async fn observe(
        &mut self,
        links: &Links,
    ) -> Result<BTreeMap<DeviceName, SeenDevice>, Cause> {
        match self {
            Self::Kernel(kernel) => kernel.observe(links).await,
            Self::Embedded(embedded) => Ok(embedded.observe(links).await),
        }
    }

    /// Makes a device run with this key, port and mark, and brings its link up with this MTU; what runs already keeps its
    /// peers.
    pub(super) async fn ensure(
        &mut self,
        netlink: &Netlink,
        name: DeviceName,
        device: &Device,
        private_key: Option<&[u8; 32]>,
    ) -> Result<(), Cause> {
        let links = Links::read(netlink).await?;
        match self {
            Self::Kernel(kernel) => {
                kernel
                    .ensure(netlink, &links, name, device, private_key)
                    .await?
            }
            Self::Embedded(embedded) => {
                embedded
                    .ensure(netlink, &links, name, device, private_key)
                    .await?;
            }
        }
        let links = Links::read(netlink).await?;
        let link: &Link = links
            .by_name(&name.to_string())
            .ok_or_else(|| format!("device {name} went away while it was made"))?;
        super::links::bring_up(netlink, link, device.mtu).await?;
        // Some hosts disable IPv6 on new links; a kernel without it has no such file.
        let disabled = format!("net/ipv6/conf/{name}/disable_ipv6");
        if super::sysctl::get(&disabled).is_ok_and(|value| value != "0") {
            super::sysctl::put(&disabled, "0")?;
        }
        Ok(())
    }

    /// Removes a device; one that is gone already is no error.
    pub(super) async fn remove(
        &mut self,
        netlink: &Netlink,
        name: DeviceName,
    ) -> Result<(), Cause> {
        if let Self::Embedded(embedded) = self {
            embedded.forget(name).await;
        }
        let links = Links::read(netlink).await?;
        if let Some(link) = links.by_name(&name.to_string()) {
            super::links::remove(netlink, link.index).await?;
        }
        Ok(())
    }

    /// Changes peers of one device; sessions of unchanged and of changed peers go on. One result per change.
    pub(super) async fn peers(
        &mut self,
        name: DeviceName,
        changes: &[PeerChange<'_>],
    ) -> Vec<Result<(), Cause>> {
        match self {
            Self::Kernel(kernel) => kernel.peers(name, changes).await,
            Self::Embedded(embedded) => embedded.peers(name, changes).await,
        }
    }
}
