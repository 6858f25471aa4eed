//! The symbolic configuration of one node: typed data that a proof can walk.
//!
//! It names every candidate next hop, in order; which of them is healthy, the MTUs, the underlay devices and the
//! addresses of DNS names are left open for [`super::resolve()`].

use crate::cidr::{Family, PrefixSet};
use crate::host::firewall::SetName;
use crate::host::{DeviceName, KeySource, RouteKey, Rule};
use crate::ids::{PeerName, SiteName, VpnName};
use crate::keys::PublicKey;
use crate::peer::Endpoint;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A node's configuration before the host's facts are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// Revision of the plan that it was made from.
    pub revision: u64,
    /// Families that the plan has super-nets of; nothing of ours exists in others.
    pub families: BTreeSet<Family>,
    /// Mesh addresses of this node: the source of its own packets.
    pub mesh: BTreeMap<Family, IpAddr>,
    /// WireGuard devices.
    pub devices: BTreeMap<DeviceName, ConfigDevice>,
    /// Policy rules, without 101 (its mark is the host's affair).
    pub rules: BTreeSet<Rule>,
    /// Routes.
    pub routes: BTreeMap<RouteKey, ConfigTarget>,
    /// VPNs that this gateway can terminate.
    pub vpns: Vec<ConfigVpn>,
    /// What the firewall's chains are made of.
    pub firewall: ConfigFirewall,
    /// Sites that this node may be in, when its own is not known yet: the host's on-link prefixes decide.
    pub site_candidates: BTreeMap<SiteName, SiteCandidate>,
}

/// A WireGuard device. Every device carries the node's mesh addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigDevice {
    /// Where its private key comes from.
    pub key: KeySource,
    /// Peers by the key that they use for this device.
    pub peers: BTreeMap<PublicKey, ConfigPeer>,
}

/// A peer of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigPeer {
    /// Who it is.
    pub far: Far,
    /// What may come from it, and what goes to it. VPN prefixes of the own segment are added by
    /// [`super::resolve()`] to whoever is active ([`ConfigVpn`]).
    pub allowed_ips: PrefixSet,
    /// Where it can be reached, best first; empty: it must speak first.
    pub endpoints: Vec<Endpoint>,
    /// Persistent keepalive in seconds. On mesh peers it also triggers the first handshake, and makes the age of the
    /// latest one a sign of life.
    pub keepalive: Option<u16>,
    /// The attachment whose pre-shared key is used.
    pub preshared_key: Option<VpnName>,
}

/// The far end of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Far {
    /// A node's device, whose standard port is used for endpoints without one.
    Node {
        /// The node.
        peer: PeerName,
        /// Its device.
        device: DeviceName,
    },
    /// A VPN's foreign box; its endpoints without a port use [`FOREIGN_PORT`].
    Foreign(VpnName),
}

/// WireGuard's customary port, for a foreign box whose endpoint names none.
pub const FOREIGN_PORT: u16 = 51820;

/// One candidate next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// Out by this device,
    pub device: DeviceName,
    /// to the peer with this key.
    pub peer: PublicKey,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigTarget {
    /// Answer "unreachable".
    Unreachable,
    /// Go on with the next rule.
    Throw,
    /// Out by tunnels.
    Hops {
        /// How to choose among them.
        policy: Policy,
        /// Candidates; in order of rank.
        hops: Vec<Hop>,
        /// Used when none of `hops` is alive.
        fallback: Vec<Hop>,
    },
}

/// How a route chooses among its candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// All healthy ones, by flow hash: their far ends keep no state.
    Multipath,
    /// The first healthy one: its far end keeps state.
    Ordered,
    /// The first that is not known to be dead. For VPNs, where only one gateway may speak, and for single hops.
    Sticky,
}

/// A VPN that this gateway can terminate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigVpn {
    /// Its name.
    pub name: VpnName,
    /// Our device for it.
    pub device: DeviceName,
    /// What lies behind it.
    pub prefixes: PrefixSet,
    /// What it may talk to.
    pub allow: PrefixSet,
    /// Who may be active, in order: hub peers of lower rank, then this node's own hop to the foreign box. The first that
    /// is not known to be dead is ([`Policy::Sticky`]).
    pub candidates: Vec<Hop>,
}

/// What the firewall's chains are made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigFirewall {
    /// The sets that the plan alone decides; what is not in here is empty.
    pub sets: BTreeMap<SetName, PrefixSet>,
    /// Prefixes of segments that reach each other only through this gateway, by their site.
    pub transit: BTreeMap<SiteName, PrefixSet>,
    /// Own rank, when this node is a gateway.
    pub rank: Option<u8>,
}

impl ConfigFirewall {
    /// What a set holds.
    #[must_use]
    pub fn set(&self, name: SetName) -> &PrefixSet {
        static EMPTY: PrefixSet = PrefixSet::new();
        self.sets.get(&name).unwrap_or(&EMPTY)
    }

    /// Adds to a set.
    pub fn add(&mut self, name: SetName, prefixes: &PrefixSet) {
        let held = self.sets.entry(name).or_default();
        *held = held.union(prefixes);
    }
}

/// What a node would keep native if it were in a site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SiteCandidate {
    /// The site's ranges.
    pub cidrs: PrefixSet,
    /// Pods of the own cluster in this site.
    pub pods: PrefixSet,
}
