//! The kernel state of one host that Tieline owns, as data.
//!
//! [`HostState`] is both what is wanted (made by [`crate::node::resolve`]) and what was observed (made by the agent's
//! platform). It holds nothing that is not ours: devices named `tie*`, rules with our preferences, routes in our
//! tables, nft tables named `tieline`, and the sysctls that we need.
//!
//! | module | what it does |
//! |---|---|
//! | [`boot`] | the part that stands without tunnels, as input of `ip` and `nft` |
//! | [`device`] | names, indexes and ports of WireGuard devices |
//! | [`firewall`] | the nft tables as typed data, and their text |
//! | [`mod@diff`] | observed and wanted to ordered changes |
//! | [`mod@print`] | prints like `wg`, `ip rule`, `ip route` and `nft` |

pub mod boot;
pub mod device;
pub mod diff;
pub mod firewall;
pub mod print;

pub use device::{DeviceKind, DeviceName};
pub use diff::{Change, diff};

use crate::cidr::{Family, Prefix, PrefixSet};
use crate::health::PathId;
use crate::ids::VpnName;
use crate::keys::PublicKey;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Routing table of remote prefixes, and of the guard in front of the CNI's routes.
pub const TABLE_REMOTE: u32 = 7468;
/// Routing table of the guard behind the CNI's routes.
pub const TABLE_GUARD: u32 = 7469;
/// Routing table of what arrives encrypted for other nodes of the own segment.
pub const TABLE_INNER: u32 = 7470;
/// Linux's main table.
pub const TABLE_MAIN: u32 = 254;
/// Metric of remote routes.
pub const METRIC_REMOTE: u32 = 100;
/// Metric of the guard's unreachable routes.
pub const METRIC_GUARD: u32 = 4000;
/// Route protocol number of our routes.
pub const ROUTE_PROTOCOL: u8 = 84;
/// Mark (and mask) of encrypted packets, unless a flag changes it.
pub const DEFAULT_FWMARK: u32 = 0x1000;
/// First UDP port, unless a flag changes it.
pub const DEFAULT_PORT: u16 = 21820;

/// All kernel state of ours on one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// WireGuard devices with their peers and addresses.
    pub devices: BTreeMap<DeviceName, Device>,
    /// Policy rules.
    pub rules: BTreeSet<Rule>,
    /// Routes in our tables; serialised as a list, since a JSON object cannot have such keys.
    #[serde(with = "routes_as_list")]
    pub routes: BTreeMap<RouteKey, Route>,
    /// The nft tables; `None`: absent. Observed tables that are not as we wrote them are an empty ruleset, which differs
    /// from every wanted one, so that they are replaced or removed.
    pub firewall: Option<firewall::Ruleset>,
    /// Sysctls by their path below /proc/sys with `/` as separator, like `net/ipv4/ip_forward`.
    pub sysctls: BTreeMap<String, String>,
}

impl HostState {
    /// These peers and routes alone: devices stand without addresses, and of everything else there is nothing.
    fn only(&self, paths: &BTreeSet<PathId>, routes: &BTreeSet<RouteKey>) -> Self {
        let mut part = Self::default();
        for path in paths {
            let Some(device) = self.devices.get(&path.device) else {
                continue;
            };
            let held = part.devices.entry(path.device).or_insert_with(|| Device {
                key: device.key.clone(),
                addresses: BTreeSet::new(),
                peers: BTreeMap::new(),
                ..*device
            });
            let peer = device.peers.get(&path.far);
            held.peers.extend(peer.map(|peer| (path.far, peer.clone())));
        }
        let held = routes
            .iter()
            .filter_map(|key| self.routes.get_key_value(key));
        part.routes = held.map(|(key, route)| (*key, route.clone())).collect();
        part
    }
}

/// A WireGuard device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Public half of the key that it runs with.
    pub public_key: PublicKey,
    /// Where the private half comes from.
    pub key: KeySource,
    /// UDP port.
    pub port: u16,
    /// Mark of its encrypted packets.
    pub fwmark: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Addresses: IPv4 /32 with scope link, IPv6 /128 with preferred lifetime 0.
    pub addresses: BTreeSet<Prefix>,
    /// Peers by public key.
    pub peers: BTreeMap<PublicKey, WgPeer>,
}

/// Where a device's private key comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeySource {
    /// Made on this node for this device.
    Own,
    /// A VPN attachment's key, opened from a sealed secret.
    Attachment(VpnName),
}

/// A WireGuard peer's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WgPeer {
    /// Allowed IPs.
    pub allowed_ips: PrefixSet,
    /// Configured (or, when observed, current) endpoint. A wanted `None` leaves what the peer was last seen at.
    pub endpoint: Option<SocketAddr>,
    /// Persistent keepalive interval in seconds.
    pub keepalive: Option<u16>,
    /// The attachment whose pre-shared key it uses.
    pub preshared_key: Option<VpnName>,
}

/// A policy rule (`ip rule`), with `protocol kernel`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    /// Preference: lower is looked at first.
    pub preference: u32,
    /// Family.
    pub family: Family,
    /// What it selects.
    pub selector: Selector,
    /// The table to look into.
    pub table: u32,
    /// Ignore results with this prefix length or less.
    pub suppress_prefix_len: Option<u8>,
}

/// What a policy rule selects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Selector {
    /// Everything.
    All,
    /// Packets with this mark under this mask.
    Mark {
        /// Value.
        mark: u32,
        /// Mask.
        mask: u32,
    },
    /// Packets that came in by this device.
    From(DeviceName),
    /// Packets to this prefix.
    To(Prefix),
}

/// What identifies a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteKey {
    /// Table.
    pub table: u32,
    /// Destination.
    pub prefix: Prefix,
    /// Metric.
    pub metric: u32,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Target.
    pub target: Target,
    /// Source address for packets of this host.
    pub source: Option<IpAddr>,
    /// Route MTU in bytes.
    pub mtu: Option<u32>,
}

impl Route {
    /// A route of the guard: no source, no MTU.
    #[must_use]
    pub fn bare(target: Target) -> Self {
        Self {
            target,
            source: None,
            mtu: None,
        }
    }
}

/// Target of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// Answer "unreachable": the guard.
    Unreachable,
    /// Go on with the next rule.
    Throw,
    /// Out by one of these devices, by flow hash (sorted; one is a plain route).
    Devices(Vec<DeviceName>),
}

mod routes_as_list {
    use super::{Route, RouteKey};
    use serde::{Deserialize, Deserializer, Serializer};
    use std::collections::BTreeMap;

    pub(super) fn serialize<S: Serializer>(
        routes: &BTreeMap<RouteKey, Route>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(routes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<RouteKey, Route>, D::Error> {
        let list = Vec::<(RouteKey, Route)>::deserialize(deserializer)?;
        Ok(list.into_iter().collect())
    }
}
