//! How long one gateway's configuration takes, against the bar of the design: node config and diff with 10,000 peers in 10 ms.
//!
//! Prints medians of several runs and the ratio to the bar. `cargo bench -p tieline-core --bench node`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};
use tieline_core::cidr::{Prefix, PrefixSet};
use tieline_core::fleet::Granularity;
use tieline_core::host::diff::Livenesses;
use tieline_core::host::{DeviceName, HostState, diff};
use tieline_core::ids::{
    ClusterName, Lineage, LinkName, NodeName, PeerName, SegmentName, SiteName,
};
use tieline_core::keys::PublicKey;
use tieline_core::network_plan::{
    Class, ClassPrefix, Gateway, NetworkPlan, PlanCluster, PlanSite, Segment,
};
use tieline_core::node::{LocalFacts, UnderlayDevice, node_config, resolve};
use tieline_core::peer::{AcceptedPeer, AcceptedPeers, Endpoint, EndpointHost, Scope};

const RUNS: usize = 7;
const BAR: Duration = Duration::from_millis(10);

fn address(base: [u8; 4], number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::from(base)) + number).into()
}

/// Segments of one gateway each, every one in a cluster and a site of its own.
fn network(segments: u32) -> (NetworkPlan, AcceptedPeers) {
    let mut plan = NetworkPlan {
        link: LinkName::new("all").unwrap(),
        lineage: Lineage::new("bench000").unwrap(),
        revision: 1,
        super_nets: ["10.0.0.0/8", "100.64.0.0/10"]
            .iter()
            .map(|text| text.parse::<Prefix>().unwrap())
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
        let cluster = ClusterName::new(format!("c{number:05}")).unwrap();
        let site = SiteName::new(format!("s{number:05}")).unwrap();
        let segment = SegmentName::new(format!("{cluster}.{site}")).unwrap();
        let peer = PeerName::new(format!("{cluster}.n0")).unwrap();
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
        let keys = [DeviceName::outer(0), DeviceName::inner(0)]
            .into_iter()
            .zip(1_u8..)
            .map(|(device, kind)| {
                let mut bytes = [kind; 32];
                bytes[..4].copy_from_slice(&(number + 1).to_le_bytes());
                (device, PublicKey::from_bytes(bytes).unwrap())
            });
        peers.insert(
            peer,
            AcceptedPeer {
                node: NodeName::new("n0").unwrap(),
                cluster,
                site,
                segment,
                pod_cidrs: vec![pods],
                mesh_addresses: vec![mesh],
                gateway_rank: Some(0),
                keys: keys.collect(),
                endpoints: vec![Endpoint {
                    host: EndpointHost::Address(address([203, 0, 0, 0], number)),
                    port: None,
                    scope: Scope::Public,
                }],
                sealed: Vec::new(),
                plan_revision: 1,
            },
        );
    }
    (plan, peers)
}

fn median(mut measure: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            measure();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[RUNS / 2]
}

fn row(what: &str, time: Duration) {
    let ratio = time.as_secs_f64() / BAR.as_secs_f64();
    println!(
        "{what:<58} {:>9.2} ms   {ratio:>6.2} x the bar of {} ms",
        time.as_secs_f64() * 1e3,
        BAR.as_millis()
    );
}

fn main() {
    for segments in [100, 1_000, 10_000] {
        let (plan, peers) = network(segments);
        let (own, me) = peers.iter().next().unwrap();
        let facts = LocalFacts {
            underlay: BTreeMap::from([(
                "eth0".to_owned(),
                UnderlayDevice {
                    mtu: 1500,
                    prefixes: PrefixSet::new(),
                },
            )]),
            keys: me.keys.clone(),
            netdev_egress: true,
            first_port: 21820,
            fwmark: 0x1000,
            ..LocalFacts::default()
        };
        let label = |what| format!("{what}, {segments} peers");
        let observed = resolve(&node_config(&plan, &peers, Some(own)), &facts);
        assert_eq!(
            observed.devices[&DeviceName::outer(0)].peers.len() as u32,
            segments - 1
        );
        row(
            &label("node_config"),
            median(|| {
                std::hint::black_box(node_config(&plan, &peers, Some(own)));
            }),
        );
        row(
            &label("node_config, resolve and diff: nothing to do"),
            median(|| {
                let wanted = resolve(&node_config(&plan, &peers, Some(own)), &facts);
                assert!(diff(&observed, &Livenesses::new(), &wanted).is_empty());
            }),
        );
        let empty = HostState::default();
        row(
            &label("diff from nothing"),
            median(|| {
                std::hint::black_box(diff(&empty, &Livenesses::new(), &observed));
            }),
        );
    }
}
