//! One node's configuration: a pure function of the plan, the accepted peers and the node's own name.
//!
//! Two steps. [`node_config`] is symbolic: it names every candidate rail in order and leaves MTUs, underlay devices and
//! addresses of DNS names open. [`resolve`] fills in what only the host knows ([`LocalFacts`]). Both are pure, so the
//! CLI and the tests compute any node's configuration offline.

use crate::cidr::PrefixSet;
use crate::host::{DeviceName, HostState};
use crate::ids::{NodeName, PeerName};
use crate::keys::PublicKey;
use crate::network_plan::NetworkPlan;
use crate::peer::AcceptedPeers;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// What only the host knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalFacts {
    /// Underlay devices by name: those that hold a default route or reach an endpoint.
    pub underlay: BTreeMap<String, UnderlayDevice>,
    /// Addresses of the own API server (and hub), reached on the underlay even inside super-nets.
    pub api_servers: BTreeSet<IpAddr>,
    /// Public key of each device key that this node holds (made on the node, or opened from a sealed secret).
    pub keys: BTreeMap<DeviceName, PublicKey>,
    /// Addresses of DNS names, last good answer.
    pub resolved: BTreeMap<NodeName, Vec<IpAddr>>,
    /// Where a peer without a configured endpoint was last seen.
    pub last_seen: BTreeMap<(DeviceName, PublicKey), SocketAddr>,
    /// State of the path to each peer of each device; absent: not known yet.
    pub paths: BTreeMap<(DeviceName, PublicKey), PathState>,
    /// Whether nft has `netdev` egress hooks (Linux 5.16).
    pub netdev_egress: bool,
    /// Current values of sysctls that decide others (`accept_ra` of each underlay device).
    pub accept_ra: BTreeMap<String, u8>,
    /// First UDP port P.
    pub first_port: u16,
    /// Mark of encrypted packets.
    pub fwmark: u32,
}

/// An underlay device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderlayDevice {
    /// MTU in bytes.
    pub mtu: u32,
    /// Addresses and on-link prefixes.
    pub prefixes: PrefixSet,
}

/// State of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathState {
    /// Latest handshake younger than 180 s.
    Up,
    /// There was one, and it is older.
    Down,
}

/// A node's configuration before the host's facts are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {}

/// The configuration of one node: symbolic, a pure function of its arguments.
///
/// A node without an accepted peer gets the guard alone.
#[must_use]
pub fn node_config(
    _plan: &NetworkPlan,
    _peers: &AcceptedPeers,
    _own: Option<&PeerName>,
) -> NodeConfig {
    NodeConfig {}
}

/// Fills in what only the host knows.
#[must_use]
pub fn resolve(_config: &NodeConfig, _facts: &LocalFacts) -> HostState {
    HostState::default()
}
