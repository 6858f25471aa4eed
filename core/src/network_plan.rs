//! What the operator decided for one link (NetworkPlan): derived, small, and all that agents need beside the peers.
//!
//! Nodes appear only as gateways, or as segments of their own with granularity Node, so a node that joins inside its
//! site's chunk changes no plan.

use crate::cidr::{Prefix, PrefixSet};
use crate::fleet::Granularity;
use crate::ids::{ClusterName, Lineage, LinkName, PeerName, SegmentName, SiteName, VpnName};
use crate::keys::PublicKey;
use crate::peer::Endpoint;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What the operator decided for one link. Lists are sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlan {
    /// The link.
    pub link: LinkName,
    /// Identity of the history that the revision counts in.
    pub lineage: Lineage,
    /// Grows with every change.
    pub revision: u64,
    /// Everything that must not leave a node in clear: pools and imported ranges, mesh pools, exported LAN, service and VPN ranges.
    pub super_nets: PrefixSet,
    /// Member clusters.
    pub clusters: Vec<PlanCluster>,
    /// Sites in which the link has segments, VPNs or LANs.
    pub sites: Vec<PlanSite>,
    /// Nodes that share gateways.
    pub segments: Vec<Segment>,
    /// Foreign networks.
    pub vpns: Vec<PlanVpn>,
    /// Addresses inside super-nets that are reached on the underlay all the same: gateways' endpoints.
    pub bypass: PrefixSet,
    /// The site that joins sites which cannot reach each other.
    pub transit: Option<SiteName>,
    /// What a segment is.
    pub granularity: Granularity,
}

impl NetworkPlan {
    /// The segment of a name.
    #[must_use]
    pub fn segment(&self, name: &SegmentName) -> Option<&Segment> {
        let at = self.segments.binary_search_by(|own| own.name.cmp(name));
        Some(&self.segments[at.ok()?])
    }

    /// Rank of each gateway.
    #[must_use]
    pub fn ranks(&self) -> BTreeMap<&PeerName, u8> {
        let gateways = self.segments.iter().flat_map(|segment| &segment.gateways);
        gateways.map(|it| (&it.peer, it.rank)).collect()
    }

    /// The site of a name.
    #[must_use]
    pub fn site(&self, name: &SiteName) -> Option<&PlanSite> {
        let at = self.sites.binary_search_by(|own| own.name.cmp(name));
        Some(&self.sites[at.ok()?])
    }

    /// The cluster of a name.
    #[must_use]
    pub fn cluster(&self, name: &ClusterName) -> Option<&PlanCluster> {
        let at = self.clusters.binary_search_by(|own| own.name.cmp(name));
        Some(&self.clusters[at.ok()?])
    }
}

/// A member cluster's ranges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanCluster {
    /// Its name.
    pub name: ClusterName,
    /// All its pods' ranges: what rule 104 leaves to the CNI.
    pub pod_cidrs: PrefixSet,
    /// Its services' ranges.
    pub service_cidrs: PrefixSet,
}

/// A site's facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSite {
    /// Its name.
    pub name: SiteName,
    /// Its LAN or VPC ranges.
    pub cidrs: PrefixSet,
    /// Whether its nodes can only dial out.
    pub behind_nat: bool,
    /// Where its gateways are reached from other sites, when that is not the nodes' own addresses.
    pub public_addresses: Vec<Endpoint>,
}

/// Nodes that share gateways: one cluster's nodes in one site, or one node with granularity Node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// `<cluster>.<site>`, or `<cluster>.<site>.<node>` with granularity Node.
    pub name: SegmentName,
    /// Its site.
    pub site: SiteName,
    /// Its cluster; absent for a site's stand-alone routers.
    pub cluster: Option<ClusterName>,
    /// What lies in it, sorted by prefix.
    pub prefixes: Vec<ClassPrefix>,
    /// Its gateways, sorted by rank; ranks may have holes.
    pub gateways: Vec<Gateway>,
}

impl Segment {
    /// The prefixes of some classes.
    #[must_use]
    pub fn of(&self, classes: &[Class]) -> PrefixSet {
        self.prefixes
            .iter()
            .filter(|entry| classes.contains(&entry.class))
            .map(|entry| entry.prefix)
            .collect()
    }
}

/// A prefix and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClassPrefix {
    /// The prefix.
    pub prefix: Prefix,
    /// What it holds.
    pub class: Class,
}

/// What a prefix holds. Pods and mesh addresses are multipath; the others go to one gateway, which keeps state for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// Pods.
    Pod,
    /// Services (ClusterIPs).
    Service,
    /// Hosts of the site's own network.
    Lan,
    /// Hosts behind a VPN.
    Vpn,
    /// Nodes' mesh addresses.
    Mesh,
}

impl Class {
    /// Whether all gateways carry it at once.
    #[must_use]
    pub fn is_multipath(self) -> bool {
        matches!(self, Self::Pod | Self::Mesh)
    }
}

/// A node that carries its segment's traffic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gateway {
    /// Rank, 0 to 3.
    pub rank: u8,
    /// The node's Peer.
    pub peer: PeerName,
}

/// A foreign network behind a WireGuard box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanVpn {
    /// Its name.
    pub name: VpnName,
    /// The site whose gateways terminate it.
    pub site: SiteName,
    /// The segment of that site whose gateways do.
    pub segment: SegmentName,
    /// Device index j of `tiev<j>`, 0 to 15, unique within the site.
    pub index: u8,
    /// What lies behind it.
    pub prefixes: PrefixSet,
    /// Clusters and sites that it may talk to.
    pub allow: Allow,
    /// The foreign box's key.
    pub peer_public_key: PublicKey,
    /// Where the foreign box listens; absent when it dials us.
    pub endpoint: Option<Endpoint>,
    /// Whether the tunnel uses a pre-shared key.
    pub preshared_key: bool,
}

/// What a VPN may talk to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allow {
    /// Clusters: their pods and services.
    pub clusters: BTreeSet<ClusterName>,
    /// Sites: their CIDRs.
    pub sites: BTreeSet<SiteName>,
}
