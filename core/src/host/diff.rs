//! Observed and wanted host state to an ordered list of changes.
//!
//! Order keeps the host fail-closed at every step: guard routes and rules first, then the firewall, then devices,
//! peers and routes; removals run the other way round and the guard goes last.

use super::{
    Device, DeviceName, HostState, Liveness, Route, RouteKey, Rule, WgPeer, firewall::Ruleset,
};
use crate::cidr::Prefix;
use crate::keys::PublicKey;
use std::collections::BTreeMap;

/// Liveness of peers, by device and key.
pub type Livenesses = BTreeMap<(DeviceName, PublicKey), Liveness>;

/// One write to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Write a sysctl.
    SetSysctl {
        /// Path below /proc/sys.
        path: String,
        /// Value.
        value: String,
    },
    /// Add or replace a route.
    PutRoute(RouteKey, Route),
    /// Remove a route.
    RemoveRoute(RouteKey),
    /// Add a policy rule.
    AddRule(Rule),
    /// Remove a policy rule.
    RemoveRule(Rule),
    /// Replace our nft tables in one transaction.
    ReplaceFirewall(Box<Ruleset>),
    /// Remove our nft tables.
    RemoveFirewall,
    /// Create a device (without peers and addresses) and bring it up.
    CreateDevice(DeviceName, Box<Device>),
    /// Change key, port, mark or MTU of a device.
    ConfigureDevice(DeviceName, Box<Device>),
    /// Remove a device.
    RemoveDevice(DeviceName),
    /// Add an address to a device.
    AddAddress(DeviceName, Prefix),
    /// Remove an address from a device.
    RemoveAddress(DeviceName, Prefix),
    /// Add a peer, or change what differs without touching its session.
    PutPeer {
        /// Device.
        device: DeviceName,
        /// The peer's key.
        key: PublicKey,
        /// Its configuration.
        peer: Box<WgPeer>,
    },
    /// Remove a peer.
    RemovePeer {
        /// Device.
        device: DeviceName,
        /// The peer's key.
        key: PublicKey,
    },
}

/// The changes that turn what was observed into what is wanted, in the order in which they are to be applied.
#[must_use]
pub fn diff(_observed: &HostState, _liveness: &Livenesses, _wanted: &HostState) -> Vec<Change> {
    Vec::new()
}
