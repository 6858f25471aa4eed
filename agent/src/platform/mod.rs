//! The seam to the kernel.
//!
//! The agent decides with pure functions of `tieline-core` and acts through [`Platform`]: observe, apply a list of
//! changes, wait for news. Two implementations: [`linux`] for real hosts, [`fake`] with state for unit tests.
//! A platform makes no decision of policy, owns only what carries our names, and reads back what it wrote.

pub mod fake;
pub mod linux;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use thiserror::Error;
use tieline_core::health::Livenesses;
use tieline_core::host::{Change, DeviceName, HostState};
use tieline_core::ids::VpnName;
use tieline_core::node::UnderlayDevice;

/// What the kernel holds of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    /// State, in the words in which it is wanted.
    pub state: HostState,
    /// How alive the peer of each path is.
    pub liveness: Livenesses,
}

/// What the host looks like around us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Underlay devices: those that hold a default route, reach an endpoint or were named by flag.
    pub underlay: BTreeMap<String, UnderlayDevice>,
    /// The host's own addresses on underlay devices that others can use: global scope, neither temporary, deprecated
    /// nor link-local. (A [`tieline_core::cidr::PrefixSet`] merges addresses into their on-link prefix.)
    pub addresses: BTreeSet<IpAddr>,
    /// `accept_ra` of each underlay device.
    pub accept_ra: BTreeMap<String, u8>,
    /// Underlay devices that forward IPv6 by the host's own will, not by ours.
    pub forwards_ipv6: BTreeSet<String>,
    /// The kernel runs without IPv6.
    pub without_ipv6: bool,
    /// Whether nft has `netdev` egress hooks.
    pub netdev_egress: bool,
    /// Other tables' forward chains that drop what they do not know and do not except our devices, as `family table chain`.
    pub foreign_forward_drops: BTreeSet<String>,
    /// Devices of network plug-ins; those of pods are one, as `cali*`.
    pub plug_in_devices: BTreeSet<String>,
    /// Chains of other tables that give packets an address of the node as their source, as `family table chain`, and whether
    /// only packets with a mark.
    pub foreign_masquerade: BTreeMap<String, bool>,
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// Reverse-path filter of each underlay device, as it acts.
    pub reverse_path_filter: BTreeMap<String, u8>,
}

/// Which WireGuard carries the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's own.
    Kernel,
    /// Embedded gotatun over TUN devices.
    Embedded,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Embedded => "embedded",
        })
    }
}

/// Private halves that changes need; never printed, never stored by a platform.
#[derive(Clone, Default)]
pub struct Secrets {
    /// Private key of each device.
    pub private_keys: BTreeMap<DeviceName, [u8; 32]>,
    /// Pre-shared key of each attachment.
    pub preshared_keys: BTreeMap<VpnName, [u8; 32]>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// Why the kernel could not be read or written.
#[derive(Debug, Error)]
pub enum PlatformError {
    /// Reading failed; nothing is known, nothing must be written. A retry may help.
    #[error("cannot read {what}")]
    Read {
        /// What was read.
        what: &'static str,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// One change failed. A retry may help.
    #[error("cannot {change}")]
    Write {
        /// The change, in words.
        change: String,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// One host's kernel.
pub trait Platform: Send {
    /// Which WireGuard this host has.
    fn backend(&self) -> Backend;

    /// Reads everything of ours.
    ///
    /// # Errors
    /// [`PlatformError::Read`] when a part cannot be read; then nothing is returned.
    fn observe(&mut self) -> impl Future<Output = Result<Observation, PlatformError>> + Send;

    /// Reads what is around us.
    ///
    /// # Errors
    /// [`PlatformError::Read`] when a part cannot be read.
    fn surroundings(&mut self) -> impl Future<Output = Result<Surroundings, PlatformError>> + Send;

    /// Takes the name off every pre-shared key of `state` that is not the one that `secrets` holds under that name: it
    /// was replaced since, and has to be written again. States hold names, so only the platform can tell.
    fn unname_outdated(&self, state: &mut HostState, secrets: &Secrets);

    /// Applies changes in order. A failed change does not stop independent later ones; every failure is returned.
    fn apply(
        &mut self,
        changes: &[Change],
        secrets: &Secrets,
    ) -> impl Future<Output = Vec<PlatformError>> + Send;

    /// Returns when links, addresses, routes, rules or nft tables changed, by whoever's hand (own writes included).
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
}
