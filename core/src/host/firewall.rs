//! The nft tables `inet tieline` and `netdev tieline`, as typed data and as the text that `nft -f` loads.
//!
//! Nothing in here is text that a user wrote: sets and chains have names from closed lists, addresses are typed, and an
//! interface name is checked ([`Interface`]) before it can stand between quotes. What the rules say is decided by
//! [`crate::node`]; this module only holds and prints them.

mod script;

use crate::cidr::{Family, PrefixSet};
use crate::host::DeviceName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use thiserror::Error;

/// All nft tables of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    /// The tables, all named `tieline`, at most one of each family.
    pub tables: Vec<Table>,
}

/// One table named `tieline`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its family.
    pub family: TableFamily,
    /// Its named sets.
    pub sets: Vec<Set>,
    /// Its chains.
    pub chains: Vec<Chain>,
}

/// Family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TableFamily {
    /// IPv4 and IPv6.
    Inet,
    /// A device's ingress and egress, below both.
    Netdev,
}

/// A named set of addresses of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// Its name, which the family's digit follows.
    pub name: SetName,
    /// Its family.
    pub family: Family,
    /// What is in it; only prefixes of `family` count.
    pub elements: PrefixSet,
}

/// What a set holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SetName {
    /// All super-nets, for rules that keep what is planned from leaving.
    Planned,
    /// The same, for rules that let what is planned pass.
    Known,
    /// Planned, and yet reached on the underlay: own site, own segment's pods, bypass.
    Native,
    /// What this node keeps connection state for.
    Stateful,
    /// Own segment, own site, own services.
    Own,
    /// The own site's ranges.
    Site,
    /// The own site's ranges that the link exports through this segment.
    Lan,
    /// Service ranges that this segment carries.
    Services,
    /// Segments that reach each other through this one only.
    Transit,
    /// What a VPN may talk to, by device index.
    Allowed(u8),
}

/// A base chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Its name.
    pub name: ChainName,
    /// Its type.
    pub kind: ChainKind,
    /// Where it hooks in.
    pub hook: Hook,
    /// Its priority: lower runs first.
    pub priority: i32,
    /// Its rules in order; the policy is accept.
    pub rules: Vec<Rule>,
}

/// Name of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ChainName {
    /// `raw_pre`: spoofed sources, and no connection tracking in transit.
    RawPre,
    /// `mss`: TCP segments fit the tunnel.
    Mss,
    /// `forw`: what may be forwarded.
    Forw,
    /// `outp`: what the host itself may send to a VPN.
    Outp,
    /// `inp`: what may reach the host from the tunnels.
    Inp,
    /// `nat_post`: sources are kept, or become the mesh address.
    NatPost,
    /// `leak`: nothing planned leaves by the underlay, the host's own packets included, and nothing unplanned enters a tunnel.
    Leak,
    /// `egress<n>`: the guard of the n-th underlay device.
    Egress(u8),
}

/// Type of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ChainKind {
    /// `filter`.
    Filter,
    /// `nat`: only the first packet of a connection comes by.
    Nat,
}

/// Where a chain hooks in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After routing.
    Postrouting,
    /// Out of a device (Linux 5.16).
    Egress(Interface),
}

/// One rule: what it matches, all of it, and what it does then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// All must match; none: every packet.
    pub matches: Vec<Match>,
    /// Whether packets are counted.
    pub counter: bool,
    /// What happens.
    pub action: Action,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Match {
    /// Came in by one of these.
    In(BTreeSet<Interface>),
    /// Goes out by one of these.
    Out(BTreeSet<Interface>),
    /// A packet of this family.
    Family(Family),
    /// Source address.
    Source(Addresses),
    /// Destination address.
    Destination(Addresses),
    /// Destination of the connection's first packet, before any translation.
    OriginalDestination(Addresses),
    /// Mark under a mask.
    Mark {
        /// The mask.
        mask: u32,
        /// Whether all its bits are set (or all clear).
        set: bool,
    },
    /// State of the connection is one of these.
    Connection(BTreeSet<Connection>),
    /// Its connection was given another destination here, as kube-proxy gives a NodePort's.
    Translated,
    /// Layer 4 protocol is one of these numbers (names would need /etc/protocols).
    Protocol(BTreeSet<u8>),
    /// A TCP packet that opens a connection, or answers such a one.
    TcpSyn,
    /// The destination is no address of this host.
    NotLocal,
}

/// State of a tracked connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Connection {
    /// Packets were seen in both directions.
    Established,
    /// Belongs to another connection, like an ICMP error.
    Related,
}

/// Addresses that a condition compares with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Family of the packets that the condition is about: others never match.
    pub family: Family,
    /// Which addresses.
    pub of: AddressSet,
    /// Whether the address must lie inside (or outside).
    pub inside: bool,
}

/// Which addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AddressSet {
    /// A named set of the table.
    Named(SetName),
    /// These; only prefixes of the condition's family count.
    Inline(PrefixSet),
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Ends this chain; later chains still see the packet.
    Accept,
    /// Ends the packet.
    Drop,
    /// No connection tracking.
    Notrack,
    /// The TCP segment size that fits the route's MTU.
    ClampMss,
    /// This becomes the source.
    SourceTo(IpAddr),
    /// The source stays: a translation to itself, so that no later one applies.
    SourceKept(Family),
}

/// Why a text is no interface name that a rule may hold. A retry cannot help; renaming the interface does.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "interface name {0:?} cannot stand in a firewall rule: only 1 to 15 ASCII letters, digits and -_.:@+ can; rename the interface"
)]
pub struct InterfaceError(pub String);

/// Name of a network interface: 1 to 15 ASCII letters, digits, `-`, `_`, `.`, `:`, `@`, `+`.
///
/// The kernel takes more characters; these are the ones that nft can quote without a wildcard or an escape.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Interface(String);

impl Interface {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`InterfaceError`] when the name could not stand between quotes.
    pub fn new(name: impl Into<String>) -> Result<Self, InterfaceError> {
        let name = name.into();
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.:@+".contains(&c);
        if (1..=15).contains(&name.len()) && name.bytes().all(plain) {
            Ok(Self(name))
        } else {
            Err(InterfaceError(name))
        }
    }
}

impl From<DeviceName> for Interface {
    fn from(device: DeviceName) -> Self {
        Self(device.to_string())
    }
}

impl TryFrom<String> for Interface {
    type Error = InterfaceError;
    fn try_from(name: String) -> Result<Self, InterfaceError> {
        Self::new(name)
    }
}

impl From<Interface> for String {
    fn from(interface: Interface) -> Self {
        interface.0
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The commands that make another program's forward chain (`family table chain`, as nft names it) accept what comes in by our
/// devices and what goes out by them. Nothing of ours can overrule such a chain: a packet passes when every chain accepts it.
#[must_use]
pub fn let_through(chain: &str) -> [String; 2] {
    [("iifname", "-i"), ("oifname", "-o")].map(|(nft, iptables)| match chain {
        // These tables are iptables'.
        "ip filter FORWARD" => format!("iptables -I FORWARD {iptables} tie+ -j ACCEPT"),
        "ip6 filter FORWARD" => format!("ip6tables -I FORWARD {iptables} tie+ -j ACCEPT"),
        _ => format!("nft insert rule {chain} {nft} \"tie*\" accept"),
    })
}
