//! A network as one gateway knows it: segments of one gateway each, every one in a cluster and a site of its own.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tieline_core::cidr::{Prefix, PrefixSet};
use tieline_core::fleet::Granularity;
use tieline_core::host::DeviceName;
use tieline_core::ids::{
    ClusterName, Lineage, LinkName, NodeName, PeerName, SegmentName, SiteName,
};
use tieline_core::keys::PublicKey;
use tieline_core::network_plan::{
    Class, ClassPrefix, Gateway, NetworkPlan, PlanCluster, PlanSite, Segment,
};
use tieline_core::node::{LocalFacts, UnderlayDevice};
use tieline_core::peer::{AcceptedPeer, AcceptedPeers, Endpoint, EndpointHost, Scope};

/// Peers of the large network.
pub const PEERS: u32 = 10_000;

/// A plan and its peers.
///
/// # Errors
/// A name, prefix or key is not valid.
pub fn network(segments: u32) -> Result<(NetworkPlan, AcceptedPeers)> {
    let mut plan = NetworkPlan {
        link: LinkName::new("all")?,
        lineage: Lineage::new("bench000")?,
        revision: 1,
        super_nets: ["10.0.0.0/8".parse::<Prefix>()?, "100.64.0.0/10".parse()?]
            .into_iter()
            .collect(),
        clusters: Vec::new(),
        sites: Vec::new(),
        segments: Vec::new(),
        vpns: Vec::new(),
        bypass: PrefixSet::new(),
        transit: None,
        granularity: Granularity::Site,
    };
    let mut peers = AcceptedPeers::new();
    for number in 0..segments {
        let cluster = ClusterName::new(format!("c{number:05}"))?;
        let site = SiteName::new(format!("s{number:05}"))?;
        let segment = SegmentName::new(format!("{cluster}.{site}"))?;
        let peer = PeerName::new(format!("{cluster}.n0"))?;
        let pods = Prefix::containing(address([10, 0, 0, 0], number << 10), 24);
        let mesh = address([100, 64, 0, 1], number << 4);
        plan.clusters.push(PlanCluster {
            name: cluster.clone(),
            pod_cidrs: [Prefix::containing(pods.address(), 22)]
                .into_iter()
                .collect(),
            service_cidrs: PrefixSet::new(),
        });
        plan.sites.push(PlanSite {
            name: site.clone(),
            cidrs: PrefixSet::new(),
            behind_nat: false,
            public_addresses: Vec::new(),
        });
        plan.segments.push(Segment {
            name: segment.clone(),
            site: site.clone(),
            cluster: Some(cluster.clone()),
            prefixes: vec![
                ClassPrefix {
                    prefix: pods,
                    class: Class::Pod,
                },
                ClassPrefix {
                    prefix: Prefix::containing(mesh, 28),
                    class: Class::Mesh,
                },
            ],
            gateways: vec![Gateway {
                rank: 0,
                peer: peer.clone(),
            }],
        });
        let accepted = AcceptedPeer {
            node: NodeName::new("n0")?,
            cluster,
            site,
            segment,
            pod_cidrs: vec![pods],
            mesh_addresses: vec![mesh],
            gateway_rank: Some(0),
            keys: [
                (DeviceName::outer(0), key(1, number)?),
                (DeviceName::inner(0), key(2, number)?),
            ]
            .into(),
            endpoints: vec![endpoint(number)],
            sealed: Vec::new(),
            plan_revision: 1,
        };
        peers.insert(peer, Arc::new(accepted));
    }
    Ok((plan, peers))
}

/// Where the peer of that number can be reached.
#[must_use]
pub fn endpoint(number: u32) -> Endpoint {
    Endpoint {
        host: EndpointHost::Address(address([203, 0, 0, 0], number)),
        port: None,
        scope: Scope::Public,
    }
}

/// What the first peer's host knows.
///
/// # Errors
/// There is no peer.
pub fn facts(peers: &AcceptedPeers) -> Result<LocalFacts> {
    let me = peers.values().next().context("a network without peers")?;
    let device = UnderlayDevice {
        mtu: 1500,
        prefixes: PrefixSet::new(),
    };
    Ok(LocalFacts {
        underlay: BTreeMap::from([("eth0".to_owned(), device)]),
        keys: me.keys.clone(),
        netdev_egress: true,
        first_port: 21820,
        fwmark: 0x1000,
        ..LocalFacts::default()
    })
}

fn key(kind: u8, number: u32) -> Result<PublicKey> {
    let mut bytes = [kind; 32];
    bytes[..4].copy_from_slice(&(number + 1).to_le_bytes());
    Ok(PublicKey::from_bytes(bytes)?)
}

fn address(base: [u8; 4], number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::from(base)) + number).into()
}
