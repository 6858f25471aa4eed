//! One node in the mesh: what its agent claims, and what the operator accepted.
//!
//! Agents configure themselves from [`AcceptedPeer`]s only, never from another agent's [`Claim`].

use crate::cidr::Prefix;
use crate::host::DeviceName;
use crate::ids::{ClusterName, NodeName, PeerName, SegmentName, SiteName, VpnName};
use crate::keys::PublicKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use thiserror::Error;

/// All accepted peers that a node knows, its own among them. Copies share their peers, so that the few that differ between two are found
/// by their pointers.
pub type AcceptedPeers = BTreeMap<PeerName, Arc<AcceptedPeer>>;

/// The accepted truth about one node (Peer.spec).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedPeer {
    /// Name of the node in its cluster.
    pub node: NodeName,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its site.
    pub site: SiteName,
    /// Its segment.
    pub segment: SegmentName,
    /// Its pods' ranges.
    pub pod_cidrs: Vec<Prefix>,
    /// Its mesh addresses, at most one of each family.
    pub mesh_addresses: Vec<IpAddr>,
    /// Its rank when it is a gateway, 0 to 3.
    pub gateway_rank: Option<u8>,
    /// Public key of each device.
    pub keys: BTreeMap<DeviceName, PublicKey>,
    /// Where it can be reached.
    pub endpoints: Vec<Endpoint>,
    /// Secrets for this node alone, sealed to its sealing key.
    pub sealed: Vec<SealedSecret>,
    /// The least plan revision that this goes with.
    pub plan_revision: u64,
}

/// What an agent says about its node (Peer.status).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Public key of each device.
    pub keys: BTreeMap<DeviceName, PublicKey>,
    /// Public key to seal secrets to.
    pub sealing_key: Option<PublicKey>,
    /// Where it believes that it can be reached.
    pub endpoints: Vec<Endpoint>,
    /// The plan revision that its kernel carries; 0: none.
    pub applied_revision: u64,
}

/// A secret that only one node can open (libsodium sealed box).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SealedSecret {
    /// The attachment that it belongs to.
    pub vpn: VpnName,
    /// Changes when the secret changes.
    pub version: String,
    /// The sealing key that it was made for.
    pub recipient: PublicKey,
    /// Base64 of the sealed box.
    pub ciphertext: String,
}

/// From where an endpoint is meant to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// From nodes of the same site (and from others where the underlay routes it).
    Site,
    /// From everywhere.
    Public,
}

/// Where a node can be reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address or name.
    pub host: EndpointHost,
    /// UDP port; absent: the standard port of the device in question.
    pub port: Option<u16>,
    /// From where.
    pub scope: Scope,
}

/// An address, or a DNS name that the agent resolves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EndpointHost {
    /// An address.
    Address(IpAddr),
    /// A DNS name.
    Name(NodeName),
}

impl fmt::Display for EndpointHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// Why a text is no endpoint. A retry with the same text cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{0:?} is no endpoint: write an IP address or DNS name, with `:port` behind it where the port is not the standard one ([v6]:port)"
)]
pub struct EndpointError(pub String);

impl Endpoint {
    /// Reads `address`, `address:port`, `[v6]:port`, `name` or `name:port`.
    ///
    /// # Errors
    /// [`EndpointError`] when it is none of these.
    pub fn parse(text: &str, scope: Scope) -> Result<Self, EndpointError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self {
                host: EndpointHost::Address(address),
                port: None,
                scope,
            });
        }
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(Self {
                host: EndpointHost::Address(socket.ip()),
                port: Some(socket.port()),
                scope,
            });
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (
                name,
                Some(port.parse().map_err(|_| EndpointError(text.to_owned()))?),
            ),
            None => (text, None),
        };
        let name = NodeName::new(name).map_err(|_| EndpointError(text.to_owned()))?;
        // A name of digits and dots is a mistyped address, not a name.
        if name
            .as_str()
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit()))
        {
            return Err(EndpointError(text.to_owned()));
        }
        Ok(Self {
            host: EndpointHost::Name(name),
            port,
            scope,
        })
    }
}

impl fmt::Display for Endpoint {
    /// `host` or `host:port`, as [`Endpoint::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (host, None) => host.fmt(f),
            (EndpointHost::Address(address), Some(port)) => SocketAddr::new(*address, port).fmt(f),
            (EndpointHost::Name(name), Some(port)) => write!(f, "{name}:{port}"),
        }
    }
}
