//! What users want and what nodes exist: validated, typed, and free of Kubernetes.
//!
//! A [`Fleet`] is what the planner reads. `tieline-crds` makes it from API objects; tests make it by hand. Everything
//! in it has been checked on its own; what does not fit *together* is the planner's business and ends as a notice.

use crate::cidr::{Family, Prefix, PrefixSet};
use crate::ids::{ClusterName, LinkName, NodeId, SiteName, VpnName};
use crate::keys::PublicKey;
use crate::peer::{Endpoint, Scope};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Everything that is to be planned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    /// The networks that users ask for.
    pub links: BTreeMap<LinkName, Link>,
    /// Kubernetes clusters.
    pub clusters: BTreeMap<ClusterName, Cluster>,
    /// Facts about sites. A site that a cluster names need not be here.
    pub sites: BTreeMap<SiteName, Site>,
    /// Foreign networks behind a VPN.
    pub vpns: BTreeMap<VpnName, Vpn>,
    /// Hosts that run the agent.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Ranges that clusters take ClusterIPs from, as their API servers say; [`Cluster::service_cidrs`] says which are reachable
    /// for others.
    pub services_in_use: BTreeMap<ClusterName, PrefixSet>,
}

impl Fleet {
    /// A cluster's nodes, by name.
    pub fn nodes_of<'a>(
        &'a self,
        cluster: &'a ClusterName,
    ) -> impl Iterator<Item = (&'a NodeId, &'a Node)> {
        let nodes = self.nodes.range(NodeId::first_of(cluster)..);
        nodes.take_while(move |(id, _)| id.cluster == *cluster)
    }
}

/// One network that a user asks for (ClusterLink).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Member clusters.
    pub clusters: BTreeSet<ClusterName>,
    /// Member sites: their CIDRs become reachable.
    pub sites: BTreeSet<SiteName>,
    /// Member VPNs.
    pub vpns: BTreeSet<VpnName>,
    /// Where addresses come from.
    pub addressing: Addressing,
    /// Shape of the mesh.
    pub topology: Topology,
    /// Whether decisions are applied or only shown.
    pub mode: Mode,
}

/// Where a link's addresses come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressing {
    /// Pools that cluster blocks are cut from, tried in this order.
    pub pod_pools: Vec<Prefix>,
    /// Prefix length of a cluster's block.
    pub cluster_prefix_len: PerFamily,
    /// Prefix length of a node's pod range.
    pub node_prefix_len: PerFamily,
    /// Pools for mesh addresses; a family without one takes the default ([`Addressing::DEFAULT_MESH_V4`], or the ULA of the lineage).
    pub mesh_pools: Vec<Prefix>,
    /// Ranges that are never granted.
    pub reserved: PrefixSet,
}

impl Addressing {
    /// Default pool for IPv4 mesh addresses: 100.127.0.0/16, the end of the shared address space (RFC 6598).
    pub const DEFAULT_MESH_V4: &'static str = "100.127.0.0/16";
    /// Default prefix length of a cluster's block.
    pub const CLUSTER_LEN: PerFamily = PerFamily { v4: 16, v6: 56 };
    /// Default prefix length of a node's pod range.
    pub const NODE_LEN: PerFamily = PerFamily { v4: 24, v6: 64 };
}

impl Default for Addressing {
    fn default() -> Self {
        Self {
            pod_pools: Vec::new(),
            cluster_prefix_len: Self::CLUSTER_LEN,
            node_prefix_len: Self::NODE_LEN,
            mesh_pools: Vec::new(),
            reserved: PrefixSet::new(),
        }
    }
}

/// A prefix length for each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerFamily {
    /// IPv4 prefix length, 0 to 32.
    pub v4: u8,
    /// IPv6 prefix length, 0 to 128.
    pub v6: u8,
}

impl PerFamily {
    /// The value of one family.
    #[must_use]
    pub fn of(self, family: Family) -> u8 {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// Shape of a link's mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Whether gateways carry a site's traffic or every node its own.
    pub granularity: Granularity,
    /// Gateways of each segment, 1 to 4.
    pub gateways_per_site: u8,
    /// The site that joins sites which cannot reach each other. It decrypts what crosses it.
    pub transit_site: Option<SiteName>,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            granularity: Granularity::Site,
            gateways_per_site: 1,
            transit_site: None,
        }
    }
}

/// What a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Granularity {
    /// One cluster's nodes in one site, behind gateways.
    Site,
    /// Every node is a segment of its own.
    Node,
}

/// Whether a link's decisions are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Apply.
    Apply,
    /// Compute and show; what is applied stays as it is.
    Plan,
}

/// One Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// How nodes map to sites.
    pub sites: SiteSource,
    /// Pod ranges that exist already; empty when they come from a pool or from the nodes.
    pub pod_cidrs: PrefixSet,
    /// Whether Tieline gives nodes their podCIDR.
    pub assign: bool,
    /// Service ranges (ClusterIPs).
    pub service_cidrs: PrefixSet,
    /// Labels that a gateway node must carry; empty: any node.
    pub gateway_selector: BTreeMap<String, String>,
}

/// How a cluster's nodes map to sites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SiteSource {
    /// All nodes are in one site.
    Name(SiteName),
    /// The value of this node label is the site.
    FromNodeLabel(String),
    /// The first rule whose labels a node carries.
    BySelector(Vec<SiteRule>),
}

/// One rule of [`SiteSource::BySelector`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRule {
    /// The site of matching nodes.
    pub site: SiteName,
    /// Labels that a node must carry.
    pub selector: BTreeMap<String, String>,
}

/// Facts about one site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// LAN or VPC ranges.
    pub cidrs: PrefixSet,
    /// Whether its nodes can only dial out.
    pub behind_nat: bool,
    /// Addresses (IP or DNS name) at which the site's gateways are reached from other sites.
    pub public_addresses: Vec<Endpoint>,
}

/// One foreign network behind a WireGuard box (VpnAttachment).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vpn {
    /// The site whose gateways terminate the tunnel.
    pub site: SiteName,
    /// What lies behind it.
    pub prefixes: PrefixSet,
    /// Clusters that it may talk to.
    pub allow_clusters: BTreeSet<ClusterName>,
    /// Sites whose CIDRs it may talk to.
    pub allow_sites: BTreeSet<SiteName>,
    /// The foreign box's key.
    pub peer_public_key: PublicKey,
    /// Where the foreign box listens; absent when it dials us.
    pub endpoint: Option<Endpoint>,
    /// Whether the tunnel uses a pre-shared key.
    pub preshared_key: bool,
}

/// One host that runs the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its podCIDRs, as they stand in Node.spec.
    pub pod_cidrs: Vec<Prefix>,
    /// Its addresses, as they stand in Node.status: InternalIP has scope Site, ExternalIP Public.
    pub addresses: Vec<(IpAddr, Scope)>,
    /// Whether Kubernetes calls it Ready.
    pub ready: bool,
}
