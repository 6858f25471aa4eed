//! One node's configuration: a pure function of the plan, the accepted peers and the node's own name.
//!
//! Two steps. [`node_config`] is symbolic: it names every candidate rail in order and leaves MTUs, underlay devices and
//! addresses of DNS names open. [`resolve()`] fills in what only the host knows ([`LocalFacts`]). Both are pure, so the
//! CLI and the tests compute any node's configuration offline. An agent asks for both again and again: [`Configurator`] carries their
//! answer from one look to the next.
//!
//! | module | what it decides |
//! |---|---|
//! | [`config`] | nothing: the symbolic configuration as data |
//! | `reach` | who reaches whom: directly, through the transit site, at which endpoints |
//! | `build` | devices, peers and remote routes of a gateway and of another node |
//! | `part` | nothing: what one other node or segment adds to a configuration, as data |
//! | `guard` | what stays unreachable, and what stays the host's |
//! | `numbers` | the order of policy rules, and the keepalive |
//! | `resolve` | next hops by health, MTUs, endpoints, sysctls |
//! | `chains` | the firewall's rules |
//! | `rules` | nothing: how rules are written, each for its families |
//! | `configurator` | which parts of a wanted state have to be made again |

mod build;
mod chains;
pub mod config;
mod configurator;
mod guard;
mod numbers;
mod part;
mod reach;
mod resolve;
mod rules;

pub use config::NodeConfig;
pub use configurator::{Configurator, Inputs, Touched, Turn};
pub use numbers::{KEEPALIVE, PREF_CNI, PREF_ENCRYPTED, PREF_GUARD, PREF_INNER, PREF_REMOTE};
pub use resolve::resolve;

use crate::cidr::{Prefix, PrefixSet};
use crate::health::{PathId, PathStates};
use crate::host::DeviceName;
use crate::ids::{ClusterName, NodeName, PeerName};
use crate::keys::PublicKey;
use crate::network_plan::NetworkPlan;
use crate::peer::AcceptedPeers;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// What only the host knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalFacts {
    /// Underlay devices by name: those that hold a default route or reach an endpoint. The firewall guards those whose
    /// name nft can quote ([`crate::host::firewall::Interface`]); the routes guard all.
    pub underlay: BTreeMap<String, UnderlayDevice>,
    /// Addresses of the own API server (and hub), reached on the underlay even inside super-nets.
    pub api_servers: BTreeSet<IpAddr>,
    /// Public key of each device key that this node holds (made on the node, or opened from a sealed secret).
    pub keys: BTreeMap<DeviceName, PublicKey>,
    /// Addresses of DNS names, last good answer.
    pub resolved: BTreeMap<NodeName, Vec<IpAddr>>,
    /// Where a peer without a configured endpoint was last seen.
    pub last_seen: BTreeMap<PathId, SocketAddr>,
    /// State of the path to each peer of each device; absent: not known yet.
    pub paths: PathStates,
    /// Whether nft has `netdev` egress hooks (Linux 5.16).
    pub netdev_egress: bool,
    /// Current values of sysctls that decide others (`accept_ra` of each underlay device).
    pub accept_ra: BTreeMap<String, u8>,
    /// Underlay devices that forward IPv6 by the host's own will, not by ours.
    pub forwards_ipv6: BTreeSet<String>,
    /// The kernel runs without IPv6 (`ipv6.disable=1`): nothing of that family can be written.
    pub without_ipv6: bool,
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

/// The configuration of one node: symbolic, a pure function of its arguments.
///
/// A node without an accepted peer, or whose segment the plan does not hold (yet), gets the guard alone: super-nets are
/// closed, and what the CNI of its cluster does stays alive. The cluster is the first label of the peer's name, or the
/// only one that there is.
#[must_use]
pub fn node_config(
    plan: &NetworkPlan,
    peers: &AcceptedPeers,
    own: Option<&PeerName>,
) -> NodeConfig {
    if let Some(view) = own.and_then(|name| build::View::new(plan, peers, name)) {
        return view.draft().config;
    }
    let cluster = own.and_then(|name| {
        let (cluster, _) = name.as_str().split_once('.')?;
        ClusterName::new(cluster).ok()
    });
    let cluster = cluster.or_else(|| match &plan.clusters[..] {
        [only] => Some(only.name.clone()),
        _ => None,
    });
    let mut config = NodeConfig {
        revision: plan.revision,
        families: plan.super_nets.iter().map(Prefix::family).collect(),
        ..NodeConfig::default()
    };
    guard::Guard::alone(plan, cluster.as_ref()).apply(&mut config);
    guard::candidates(plan, cluster.as_ref(), &mut config);
    for (site, candidate) in &mut config.site_candidates {
        let own = plan.segments.iter().find(|segment| {
            segment.site == *site && segment.cluster.is_some() && segment.cluster == cluster
        });
        if let Some(own) = own {
            candidate.cidrs = guard::without_remote(&candidate.cidrs, plan, own);
        }
    }
    config
}

#[cfg(test)]
mod tests;
