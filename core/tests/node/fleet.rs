//! Small fleets, built by hand: sites, segments, gateways, VPNs, and the peers that go with them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use tieline_core::cidr::{Prefix, PrefixSet};
use tieline_core::fleet::Granularity;
use tieline_core::host::{DeviceKind, DeviceName};
use tieline_core::ids::{
    ClusterName, Lineage, LinkName, NodeName, PeerName, SegmentName, SiteName, VpnName,
};
use tieline_core::keys::PublicKey;
use tieline_core::network_plan::{
    Allow, Class, ClassPrefix, Gateway, NetworkPlan, PlanCluster, PlanSite, PlanVpn, Segment,
};
use tieline_core::node::{LocalFacts, UnderlayDevice};
use tieline_core::peer::{AcceptedPeer, AcceptedPeers, Endpoint, EndpointHost, Scope};

/// What one site looks like.
#[derive(Debug, Clone)]
pub(crate) struct SiteShape {
    /// Nodes of each cluster in this site.
    pub(crate) nodes: Vec<u8>,
    /// Ranks of the gateways of each segment, as far as there are nodes; never empty.
    pub(crate) ranks: Vec<u8>,
    /// Whether its nodes can only dial out.
    pub(crate) behind_nat: bool,
    /// Whether its LAN is exported.
    pub(crate) lan: bool,
    /// Whether a VPN ends here.
    pub(crate) vpn: bool,
}

impl Default for SiteShape {
    fn default() -> Self {
        Self {
            nodes: vec![2],
            ranks: vec![0],
            behind_nat: false,
            lan: false,
            vpn: false,
        }
    }
}

/// What a whole network looks like.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) sites: Vec<SiteShape>,
    /// Index of the transit site.
    pub(crate) transit: Option<usize>,
    pub(crate) granularity: Granularity,
    pub(crate) ipv6: bool,
    pub(crate) services: bool,
    /// Whether clusters have no range of their own, only those that somebody gave their nodes.
    pub(crate) imported: bool,
}

/// A plan with its peers.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) plan: NetworkPlan,
    pub(crate) peers: AcceptedPeers,
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub(crate) fn set(texts: &[&str]) -> PrefixSet {
    texts.iter().map(|text| prefix(text)).collect()
}

/// A key that nobody else in these tests has.
pub(crate) fn key(owner: &str, device: DeviceName) -> PublicKey {
    let mut bytes = [0x42_u8; 32];
    for (at, byte) in format!("{owner}/{device}").bytes().enumerate() {
        bytes[at % 32] =
            bytes[at % 32].rotate_left(3) ^ byte.wrapping_mul(31).wrapping_add(at as u8);
    }
    PublicKey::from_bytes(bytes).unwrap()
}

fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    Ipv4Addr::new(a, b, c, d).into()
}

fn cluster_name(cluster: usize) -> ClusterName {
    ClusterName::new(["shop", "data"][cluster]).unwrap()
}

pub(crate) fn site_name(site: usize) -> SiteName {
    SiteName::new(["berlin", "paris", "oslo", "rome"][site]).unwrap()
}

pub(crate) fn vpn_name(site: usize) -> VpnName {
    VpnName::new(format!("hq-{}", site_name(site))).unwrap()
}

/// Pods of node `n` of a segment: 10.64.0.0/10 is cut by cluster (10.64, 10.80), site (/20) and node (/24).
fn pods(cluster: usize, site: usize, node: u8, ipv6: bool) -> Vec<Prefix> {
    let mut pods = vec![Prefix::containing(
        v4(10, 64 + 16 * cluster as u8, 16 * site as u8 + node, 0),
        24,
    )];
    if ipv6 {
        let address = Ipv6Addr::new(
            0xfd64,
            cluster as u16,
            site as u16,
            u16::from(node),
            0,
            0,
            0,
            0,
        );
        pods.push(Prefix::containing(address.into(), 64));
    }
    pods
}

fn mesh(cluster: usize, site: usize, node: u8, ipv6: bool) -> Vec<IpAddr> {
    let mut mesh = vec![v4(100, 127, (2 * site + cluster) as u8, node + 1)];
    if ipv6 {
        mesh.push(
            Ipv6Addr::new(
                0xfd99,
                (2 * site + cluster) as u16,
                0,
                0,
                0,
                0,
                0,
                u16::from(node) + 1,
            )
            .into(),
        );
    }
    mesh
}

/// Device keys that a node publishes: every outer and inner one of lane 0 and epoch 0.
fn keys(node: &str) -> BTreeMap<DeviceName, PublicKey> {
    (0..4)
        .flat_map(|rank| [DeviceName::outer(rank), DeviceName::inner(rank)])
        .map(|device| (device, key(node, device)))
        .collect()
}

pub(crate) fn world(shape: &Shape) -> World {
    let mut plan = NetworkPlan {
        link: LinkName::new("acme").unwrap(),
        lineage: Lineage::new("abcdefgh").unwrap(),
        revision: 7,
        super_nets: set(&["10.64.0.0/10", "100.127.0.0/16"]),
        clusters: Vec::new(),
        sites: Vec::new(),
        segments: Vec::new(),
        vpns: Vec::new(),
        bypass: PrefixSet::new(),
        transit: shape.transit.map(site_name),
        granularity: shape.granularity,
    };
    let mut peers = AcceptedPeers::new();
    let mut super_nets: Vec<Prefix> = plan.super_nets.iter().collect();
    if shape.ipv6 {
        super_nets.extend([prefix("fd64::/16"), prefix("fd99::/16")]);
    }
    let clusters = shape
        .sites
        .iter()
        .map(|site| site.nodes.len())
        .max()
        .unwrap_or(0);
    for cluster in 0..clusters {
        let mut pod_cidrs = vec![Prefix::containing(
            v4(10, 64 + 16 * cluster as u8, 0, 0),
            16,
        )];
        if shape.ipv6 {
            pod_cidrs.push(Prefix::containing(
                Ipv6Addr::new(0xfd64, cluster as u16, 0, 0, 0, 0, 0, 0).into(),
                32,
            ));
        }
        let service = Prefix::containing(v4(172, 20 + cluster as u8, 0, 0), 16);
        if shape.services {
            super_nets.push(service);
        }
        plan.clusters.push(PlanCluster {
            name: cluster_name(cluster),
            pod_cidrs: pod_cidrs.into_iter().collect(),
            service_cidrs: if shape.services {
                [service].into_iter().collect()
            } else {
                PrefixSet::new()
            },
        });
    }
    let mut served = BTreeSet::new();
    if shape.imported {
        for (at, cluster) in plan.clusters.iter_mut().enumerate() {
            let of_site = |(site, shape_of): (usize, &SiteShape)| {
                let nodes = 0..shape_of.nodes.get(at).copied().unwrap_or(0);
                nodes.flat_map(move |node| pods(at, site, node, shape.ipv6))
            };
            cluster.pod_cidrs = shape.sites.iter().enumerate().flat_map(of_site).collect();
        }
    }
    for (at, site) in shape.sites.iter().enumerate() {
        let lan = Prefix::containing(v4(192, 168, 10 + at as u8, 0), 24);
        plan.sites.push(PlanSite {
            name: site_name(at),
            cidrs: [lan].into_iter().collect(),
            behind_nat: site.behind_nat,
            public_addresses: Vec::new(),
        });
        if site.lan {
            super_nets.push(lan);
        }
        let mut lan_left = site.lan;
        let mut vpn_left = site.vpn;
        for (cluster, &nodes) in site.nodes.iter().enumerate() {
            let groups: Vec<Vec<u8>> = match shape.granularity {
                Granularity::Site => vec![(0..nodes).collect()],
                Granularity::Node => (0..nodes).map(|node| vec![node]).collect(),
            };
            for group in groups.into_iter().filter(|group| !group.is_empty()) {
                let mut name = format!("{}.{}", cluster_name(cluster), site_name(at));
                if shape.granularity == Granularity::Node {
                    name += &format!(".n{}", group[0]);
                }
                let mut segment = Segment {
                    name: SegmentName::new(name).unwrap(),
                    site: site_name(at),
                    cluster: Some(cluster_name(cluster)),
                    prefixes: Vec::new(),
                    gateways: Vec::new(),
                };
                let ranks = match shape.granularity {
                    Granularity::Site => site.ranks.clone(),
                    Granularity::Node => vec![0],
                };
                for (index, &node) in group.iter().enumerate() {
                    let node_name = format!("{}{cluster}-{node}", site_name(at));
                    let peer =
                        PeerName::new(format!("{}.{node_name}", cluster_name(cluster))).unwrap();
                    let rank = ranks.get(index).copied();
                    if let Some(rank) = rank {
                        segment.gateways.push(Gateway {
                            rank,
                            peer: peer.clone(),
                        });
                    }
                    let pod_cidrs = pods(cluster, at, node, shape.ipv6);
                    let mesh_addresses = mesh(cluster, at, node, shape.ipv6);
                    let class = |class| move |prefix| ClassPrefix { prefix, class };
                    segment
                        .prefixes
                        .extend(pod_cidrs.iter().copied().map(class(Class::Pod)));
                    segment.prefixes.extend(
                        mesh_addresses
                            .iter()
                            .map(|&a| Prefix::host(a))
                            .map(class(Class::Mesh)),
                    );
                    // Behind NAT every site has the same private range, as in life.
                    let address = if site.behind_nat {
                        v4(10, 0, 0, 10 + node + 10 * cluster as u8)
                    } else {
                        v4(203, 0, 113, 32 * at as u8 + node + 10 * cluster as u8)
                    };
                    peers.insert(
                        peer,
                        Arc::new(AcceptedPeer {
                            node: NodeName::new(node_name.clone()).unwrap(),
                            cluster: cluster_name(cluster),
                            site: site_name(at),
                            segment: segment.name.clone(),
                            pod_cidrs,
                            mesh_addresses,
                            gateway_rank: rank,
                            keys: keys(&node_name),
                            endpoints: vec![Endpoint {
                                host: EndpointHost::Address(address),
                                port: None,
                                scope: Scope::Site,
                            }],
                            sealed: Vec::new(),
                            plan_revision: 7,
                        }),
                    );
                }
                let mut carry =
                    |prefix, class| segment.prefixes.push(ClassPrefix { prefix, class });
                if std::mem::take(&mut lan_left) {
                    carry(lan, Class::Lan);
                }
                if shape.services && served.insert(cluster) {
                    carry(
                        Prefix::containing(v4(172, 20 + cluster as u8, 0, 0), 16),
                        Class::Service,
                    );
                }
                if std::mem::take(&mut vpn_left) {
                    let behind = Prefix::containing(v4(172, 16, 9 + at as u8, 0), 24);
                    super_nets.push(behind);
                    carry(behind, Class::Vpn);
                    plan.vpns.push(PlanVpn {
                        name: vpn_name(at),
                        site: site_name(at),
                        segment: segment.name.clone(),
                        index: 0,
                        prefixes: [behind].into_iter().collect(),
                        allow: Allow {
                            clusters: BTreeSet::from([cluster_name(0)]),
                            sites: BTreeSet::new(),
                        },
                        peer_public_key: foreign_key(at),
                        endpoint: None,
                        preshared_key: true,
                    });
                }
                segment.prefixes.sort_unstable();
                segment.gateways.sort_unstable();
                plan.segments.push(segment);
            }
        }
    }
    plan.segments
        .sort_by(|one, other| one.name.cmp(&other.name));
    plan.sites.sort_by(|one, other| one.name.cmp(&other.name));
    plan.clusters
        .sort_by(|one, other| one.name.cmp(&other.name));
    plan.super_nets = super_nets.into_iter().collect();
    World { plan, peers }
}

/// The key of the foreign box of a site's VPN.
pub(crate) fn foreign_key(site: usize) -> PublicKey {
    key(&format!("foreign-{site}"), DeviceName::vpn(0))
}

/// A host as most are: one underlay device, all own keys, nothing known about paths.
pub(crate) fn facts(peer: &AcceptedPeer) -> LocalFacts {
    let mut keys = peer.keys.clone();
    let attachment = DeviceName {
        kind: DeviceKind::Vpn,
        index: 0,
    };
    keys.insert(
        attachment,
        key(&format!("attachment-{}", peer.site), attachment),
    );
    let EndpointHost::Address(address) = peer.endpoints[0].host else {
        unreachable!("these fleets have addresses only");
    };
    LocalFacts {
        underlay: BTreeMap::from([(
            "eth0".to_owned(),
            UnderlayDevice {
                mtu: 1500,
                prefixes: [Prefix::containing(address, 24)].into_iter().collect(),
            },
        )]),
        keys,
        netdev_egress: true,
        first_port: 21820,
        fwmark: 0x1000,
        ..LocalFacts::default()
    }
}
