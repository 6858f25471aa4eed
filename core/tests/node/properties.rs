//! What holds for every network: random small fleets, walked over every path that a packet may take.

use crate::fleet::{Shape, SiteShape, World, facts, world};
use crate::walk::{End, Network, Packet};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;
use tieline_core::fleet::Granularity;
use tieline_core::health::{PathId, PathState};
use tieline_core::host::diff::Livenesses;
use tieline_core::host::{DeviceKind, HostState, diff};
use tieline_core::ids::{PeerName, SiteName};
use tieline_core::node::{node_config, resolve};
use tieline_core::peer::AcceptedPeer;

fn sites() -> impl Strategy<Value = SiteShape> {
    let ranks = prop_oneof![
        Just(vec![0]),
        Just(vec![0, 1]),
        Just(vec![1]),
        Just(vec![0, 2]),
        Just(vec![0, 1, 3]),
    ];
    let nodes = prop::collection::vec(1_u8..4, 1..3);
    (nodes, ranks, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(nodes, ranks, behind_nat, lan, vpn)| SiteShape {
            nodes,
            ranks,
            behind_nat,
            lan,
            vpn,
        },
    )
}

pub(crate) fn shapes() -> impl Strategy<Value = Shape> {
    let granularity = prop_oneof![3 => Just(Granularity::Site), 1 => Just(Granularity::Node)];
    let sites = prop::collection::vec(sites(), 2..5);
    (
        sites,
        any::<Option<prop::sample::Index>>(),
        granularity,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(sites, transit, granularity, ipv6, services, imported)| Shape {
                transit: transit.map(|index| index.index(sites.len())),
                sites,
                granularity,
                ipv6,
                services,
                imported,
            },
        )
}

pub(crate) fn hosts(world: &World, dead: Option<&PeerName>) -> BTreeMap<PeerName, HostState> {
    let resolved = world.peers.iter().map(|(name, peer)| {
        let config = node_config(&world.plan, &world.peers, Some(name));
        let mut facts = facts(peer);
        if let Some(dead) = dead {
            let lost = &world.peers[dead].keys;
            for (&device, wireguard) in &config.devices {
                for &key in wireguard.peers.keys() {
                    let state = if lost.values().any(|of_dead| *of_dead == key) {
                        PathState::Down
                    } else {
                        PathState::Up
                    };
                    facts.paths.insert(PathId::new(device, key), state);
                }
            }
        }
        (name.clone(), resolve(&config, &facts))
    });
    resolved.collect()
}

/// One address in each family of a node's pods.
pub(crate) fn pod(peer: &AcceptedPeer) -> Vec<IpAddr> {
    peer.pod_cidrs
        .iter()
        .map(|prefix| prefix.nth(5).unwrap())
        .collect()
}

/// Whether gateways of two sites can meet, by the rule in words: one of them can be dialled, or the transit site by both.
fn can_meet(world: &World, one: &AcceptedPeer, other: &AcceptedPeer) -> bool {
    let nat = |site| world.plan.site(site).unwrap().behind_nat;
    let direct = |a, b| a == b || !nat(a) || !nat(b);
    let populated = |site: &SiteName| {
        world
            .plan
            .segments
            .iter()
            .any(|segment| segment.site == *site)
    };
    direct(&one.site, &other.site)
        || world
            .plan
            .transit
            .as_ref()
            .is_some_and(|x| populated(x) && direct(&one.site, x) && direct(x, &other.site))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn peers_of_a_device_never_share_an_address(shape in shapes()) {
        let world = world(&shape);
        for (name, host) in hosts(&world, None) {
            for (device, wireguard) in host.devices {
                let peers: Vec<_> = wireguard.peers.values().collect();
                for (at, one) in peers.iter().enumerate() {
                    for other in &peers[at + 1..] {
                        for prefix in one.allowed_ips.iter() {
                            prop_assert_eq!(other.allowed_ips.overlapping(prefix), None, "{} of {}", device, name);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn both_ends_of_a_rail_agree_on_keys_and_ports(shape in shapes()) {
        let world = world(&shape);
        let hosts = hosts(&world, None);
        for (name, host) in &hosts {
            for (device, wireguard) in host.devices.iter().filter(|(device, _)| device.kind != DeviceKind::Vpn) {
                for (key, peer) in &wireguard.peers {
                    let (_, far) = hosts
                        .values()
                        .flat_map(|host| &host.devices)
                        .find(|(_, far)| far.public_key == *key)
                        .unwrap();
                    prop_assert!(far.peers.contains_key(&wireguard.public_key), "{device} of {name}");
                    if let Some(endpoint) = peer.endpoint {
                        prop_assert_eq!(endpoint.port(), far.port);
                    }
                    prop_assert!(peer.endpoint.is_some() || far.peers[&wireguard.public_key].endpoint.is_some());
                }
            }
        }
    }

    #[test]
    fn every_planned_pair_has_a_path_and_others_end_nowhere(shape in shapes()) {
        let world = world(&shape);
        let hosts = hosts(&world, None);
        let network = Network::new(&world, &hosts);
        for (from, source) in &world.peers {
            for (to, target) in &world.peers {
                for (source_pod, target_pod) in pod(source).into_iter().zip(pod(target)) {
                    let packet = Packet { source: source_pod, destination: target_pod };
                    let ends = network.ends(from, None, packet);
                    if from == to {
                        prop_assert_eq!(ends, vec![End::Pod(to.clone())]);
                    } else if source.segment == target.segment {
                        prop_assert_eq!(ends, vec![End::Cni]);
                    } else if can_meet(&world, source, target) {
                        prop_assert_eq!(ends, vec![End::Pod(to.clone())], "{} to {}", from, to);
                    } else {
                        for end in ends {
                            prop_assert!(matches!(end, End::Dropped(_)), "{from} to {to}: {end:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_arrives_encrypted_is_not_left_to_the_cni(shape in shapes(), chosen in any::<prop::sample::Index>()) {
        let world = world(&shape);
        let (missing, target) = world.peers.iter().nth(chosen.index(world.peers.len())).unwrap();
        if target.gateway_rank.is_some() {
            return Ok(());
        }
        // Its pods run, and its keys are not known yet.
        let known = World { peers: world.peers.iter().filter(|(name, _)| *name != missing).map(|(name, peer)| (name.clone(), peer.clone())).collect(), ..world.clone() };
        let hosts = hosts(&known, None);
        let network = Network::new(&world, &hosts);
        for (from, source) in known.peers.iter().filter(|(_, source)| source.segment != target.segment) {
            for (source, destination) in pod(source).into_iter().zip(pod(target)) {
                for end in network.ends(from, None, Packet { source, destination }) {
                    prop_assert!(matches!(end, End::Dropped(_)), "{from} to {missing}: {end:?}");
                }
            }
        }
    }

    #[test]
    fn hosts_reach_pods_and_nobody_reaches_hosts_by_new_connections(shape in shapes()) {
        let world = world(&shape);
        let hosts = hosts(&world, None);
        let network = Network::new(&world, &hosts);
        for (from, source) in &world.peers {
            for (to, target) in world.peers.iter().filter(|(_, target)| target.segment != source.segment) {
                if can_meet(&world, source, target) {
                    let packet = Packet { source: source.mesh_addresses[0], destination: pod(target)[0] };
                    prop_assert_eq!(network.ends(from, None, packet), vec![End::Pod(to.clone())]);
                    let packet = Packet { source: pod(target)[0], destination: source.mesh_addresses[0] };
                    let ends = network.ends(to, None, packet);
                    prop_assert_eq!(ends, vec![End::Dropped(format!("input of {from}"))]);
                }
            }
        }
    }

    #[test]
    fn a_vpn_reaches_what_it_may_and_nothing_else(shape in shapes()) {
        let world = world(&shape);
        let hosts = hosts(&world, None);
        let network = Network::new(&world, &hosts);
        for vpn in &world.plan.vpns {
            let segment = world.plan.segment(&vpn.segment).unwrap();
            let active = &segment.gateways[0].peer;
            let behind = vpn.prefixes.iter().next().unwrap().nth(9).unwrap();
            let device = tieline_core::host::DeviceName::vpn(vpn.index);
            for (name, peer) in &world.peers {
                let address = pod(peer)[0];
                let meet = can_meet(&world, &world.peers[active], peer);
                let in_by = network.ends(active, Some(device), Packet { source: behind, destination: address });
                let out_by = network.ends(name, None, Packet { source: address, destination: behind });
                if meet && vpn.allow.clusters.contains(&peer.cluster) {
                    prop_assert_eq!(in_by, vec![End::Pod(name.clone())], "{} to {}", vpn.name, name);
                    prop_assert_eq!(out_by, vec![End::Foreign(device)], "{} to {}", name, vpn.name);
                } else {
                    for end in in_by.into_iter().chain(out_by) {
                        prop_assert!(matches!(end, End::Dropped(_)), "{} and {name}: {end:?}", vpn.name);
                    }
                }
            }
        }
    }

    #[test]
    fn another_gateway_carries_on_when_one_is_dead(shape in shapes(), index in any::<prop::sample::Index>()) {
        let world = world(&shape);
        let redundant: Vec<_> = world
            .plan
            .segments
            .iter()
            .filter(|segment| segment.gateways.len() > 1)
            .flat_map(|segment| &segment.gateways)
            .collect();
        prop_assume!(!redundant.is_empty());
        let dead = &redundant[index.index(redundant.len())].peer;
        let hosts = hosts(&world, Some(dead));
        let mut network = Network::new(&world, &hosts);
        network.dead = Some(dead);
        let alive = || world.peers.iter().filter(|(name, _)| *name != dead);
        for (from, source) in alive() {
            for (to, target) in alive().filter(|(_, target)| target.segment != source.segment) {
                if can_meet(&world, source, target) {
                    let packet = Packet { source: pod(source)[0], destination: pod(target)[0] };
                    prop_assert_eq!(network.ends(from, None, packet), vec![End::Pod(to.clone())]);
                }
            }
        }
    }

    #[test]
    fn applying_a_diff_gives_what_is_wanted_and_then_there_is_nothing_to_do(before in shapes(), after in shapes()) {
        let (before, after) = (world(&before), world(&after));
        let (before, after) = (hosts(&before, None), hosts(&after, None));
        for (old, new) in before.values().zip(after.values()) {
            for (from, to) in [(old, new), (new, old), (&HostState::default(), new), (old, &HostState::default())] {
                let mut host = from.clone();
                for change in diff(from, &Livenesses::new(), to) {
                    prop_assert!(!change.to_string().is_empty());
                    host.apply(&change);
                }
                prop_assert_eq!(diff(&host, &Livenesses::new(), to), vec![]);
                // Sysctls that are not wanted any more stay, and so do endpoints of peers that are to be waited for.
                host.sysctls.retain(|path, _| to.sysctls.contains_key(path));
                for (name, device) in &mut host.devices {
                    for (key, peer) in &mut device.peers {
                        if to.devices[name].peers[key].endpoint.is_none() {
                            peer.endpoint = None;
                        }
                    }
                }
                prop_assert_eq!(&host, to);
            }
        }
    }

    #[test]
    fn no_step_of_a_change_lets_planned_packets_out_in_clear(before in shapes(), after in shapes()) {
        let old = world(&before);
        let new = world(&after);
        let (old_hosts, new_hosts) = (hosts(&old, None), hosts(&new, None));
        for (name, from) in &old_hosts {
            let Some(to) = new_hosts.get(name) else { continue };
            let mut host = from.clone();
            for change in diff(from, &Livenesses::new(), to) {
                host.apply(&change);
                prop_assert!(host.firewall.is_some());
                let hosts = BTreeMap::from([(name.clone(), host.clone())]);
                let network = Network::new(&new, &hosts);
                // Neighbours under the old plan are the CNI's until the new one is in place.
                let strangers = new.peers.iter().filter(|(other, peer)| {
                    let neighbours = |world: &World| {
                        world.peers.get(*other).is_some_and(|old| old.segment == world.peers[name].segment)
                    };
                    peer.segment != new.peers[name].segment && !neighbours(&old)
                });
                for (_, peer) in strangers {
                    let packet = Packet { source: pod(&new.peers[name])[0], destination: pod(peer)[0] };
                    prop_assert!(!network.leaks(name, packet), "after {change}");
                }
            }
        }
    }
}
