//! Which devices and peers a role has, and who dials whom.

use super::*;
use crate::fleet::set;
use std::sync::Arc;
use tieline_core::health::PathId;
use tieline_core::host::{TABLE_GUARD, TABLE_INNER, TABLE_REMOTE};
use tieline_core::ids::NodeName;
use tieline_core::peer::{Endpoint, Scope};

#[test]
fn a_gateway_has_one_outer_device_for_each_far_rank_and_one_inner_device_for_each_own_rank() {
    let world = two_by_two();
    let host = host(&world, "berlin0-1");
    assert_eq!(device_names(&host), ["tie0", "tie1", "tiei0", "tiei1"]);
    // Rank 1 meets the far rank-0 gateway on its own tie0 and the far tie1.
    let rail = &host.devices[&DeviceName::outer(0)];
    assert_eq!(rail.port, 21820);
    assert_eq!(
        rail.peers.keys().collect::<Vec<_>>(),
        [&key("paris0-0", DeviceName::outer(1))]
    );
    let peer = rail.peers.values().next().unwrap();
    assert_eq!(peer.endpoint, Some("203.0.113.32:21821".parse().unwrap()));
    assert_eq!(peer.keepalive, Some(25));
    let segment = world
        .plan
        .segments
        .iter()
        .find(|segment| segment.site == site_name(1))
        .unwrap();
    assert_eq!(
        peer.allowed_ips,
        segment.prefixes.iter().map(|entry| entry.prefix).collect()
    );
    // The hub of its own rank has every other node; the leaf has the co-gateway with all super-nets.
    let hub = &host.devices[&DeviceName::inner(1)];
    assert_eq!(hub.peers.len(), 2);
    let node = &hub.peers[&key("berlin0-2", DeviceName::inner(1))];
    assert_eq!(node.allowed_ips, set(&["10.64.2.0/24", "100.127.0.3/32"]));
    let leaf = &host.devices[&DeviceName::inner(0)];
    assert_eq!(
        leaf.peers[&key("berlin0-0", DeviceName::inner(0))].allowed_ips,
        world.plan.super_nets
    );
}

#[test]
fn another_node_has_an_inner_device_for_each_gateway_and_spreads_its_flows() {
    let world = two_by_two();
    let host = host(&world, "berlin0-2");
    let both = [DeviceName::inner(0), DeviceName::inner(1)];
    assert_eq!(device_names(&host), ["tiei0", "tiei1"]);
    assert_eq!(target(&host, TABLE_REMOTE, "10.64.0.0/10"), by(&both));
    // A gateway's mesh address is on its own rail alone.
    assert_eq!(
        target(&host, TABLE_REMOTE, "100.127.0.2/32"),
        by(&both[1..])
    );
    assert_eq!(
        target(&host, TABLE_REMOTE, "10.64.2.0/24"),
        Some(Target::Throw)
    );
    assert_eq!(
        target(&host, TABLE_GUARD, "10.64.0.0/10"),
        Some(Target::Unreachable)
    );
    assert!(host.routes.keys().all(|key| key.table != TABLE_INNER));
    assert_eq!(host.sysctls["net/ipv4/fib_multipath_hash_policy"], "1");
    assert_eq!(host.sysctls["net/ipv4/conf/tiei1/rp_filter"], "2");
    assert!(
        host.sysctls.keys().all(|path| !path.contains("ipv6")),
        "IPv6 is not planned"
    );
}

/// Three sites with one gateway each; which are behind NAT, and which is the transit site.
fn natted(behind_nat: [bool; 3], transit: Option<usize>) -> World {
    let sites = behind_nat.map(|behind_nat| SiteShape {
        behind_nat,
        ..SiteShape::default()
    });
    world(&Shape {
        sites: sites.to_vec(),
        transit,
        granularity: Granularity::Site,
        ipv6: false,
        services: false,
        imported: false,
    })
}

#[test]
fn only_the_side_behind_nat_knows_where_to_dial() {
    let world = natted([true, false, false], None);
    let rail = DeviceName::outer(0);
    let inside = host(&world, "berlin0-0");
    assert_eq!(
        endpoint(&inside, rail, "paris0-0", rail),
        Some("203.0.113.32:21820".parse().unwrap())
    );
    let outside = config(&world, "paris0-0");
    let mut facts = facts_of(&world, "paris0-0");
    let known = resolve(&outside, &facts);
    assert_eq!(endpoint(&known, rail, "berlin0-0", rail), None);
    // A remembered endpoint lets the public side speak first after a restart.
    let seen: SocketAddr = "198.51.100.1:40000".parse().unwrap();
    facts
        .last_seen
        .insert(PathId::new(rail, key("berlin0-0", rail)), seen);
    assert_eq!(
        endpoint(&resolve(&outside, &facts), rail, "berlin0-0", rail),
        Some(seen)
    );
}

#[test]
fn a_forwarded_port_makes_a_site_behind_nat_dialable_by_rank() {
    let mut world = natted([true, true, false], None);
    berlin(&mut world).public_addresses =
        vec![Endpoint::parse("gw.example:7000", Scope::Public).unwrap()];
    let config = config(&world, "paris0-0");
    let rail = DeviceName::outer(0);
    let mut facts = facts_of(&world, "paris0-0");
    assert_eq!(
        endpoint(&resolve(&config, &facts), rail, "berlin0-0", rail),
        None,
        "not resolved yet"
    );
    let addresses = vec![
        "2001:db8::9".parse().unwrap(),
        "198.51.100.9".parse().unwrap(),
    ];
    facts
        .resolved
        .insert(NodeName::new("gw.example").unwrap(), addresses);
    let host = resolve(&config, &facts);
    // The underlay of this host is IPv4.
    assert_eq!(
        endpoint(&host, rail, "berlin0-0", rail),
        Some("198.51.100.9:7000".parse().unwrap())
    );
}

#[test]
fn two_sites_behind_nat_meet_at_the_transit_site_or_not_at_all() {
    let rail = DeviceName::outer(0);
    let paris_pods = "10.64.16.0/24";
    let apart = host(&natted([true, true, false], None), "berlin0-0");
    assert_eq!(target(&apart, TABLE_REMOTE, paris_pods), None);
    assert_eq!(apart.devices[&rail].peers.len(), 1);

    let world = natted([true, true, false], Some(2));
    let berlin = host(&world, "berlin0-0");
    assert_eq!(target(&berlin, TABLE_REMOTE, paris_pods), by(&[rail]));
    let transit = &berlin.devices[&rail].peers[&key("oslo0-0", rail)];
    assert!(transit.allowed_ips.contains(prefix(paris_pods)));
    // The transit gateway's peers carry only their own grants.
    let oslo = host(&world, "oslo0-0");
    assert!(
        !oslo.devices[&rail].peers[&key("berlin0-0", rail)]
            .allowed_ips
            .contains(prefix(paris_pods))
    );
}

#[test]
fn with_granularity_node_every_node_is_a_gateway_without_inner_devices() {
    let world = world(&Shape {
        sites: vec![SiteShape::default(), SiteShape::default()],
        transit: None,
        granularity: Granularity::Node,
        ipv6: false,
        services: false,
        imported: false,
    });
    let host = host(&world, "berlin0-0");
    assert_eq!(device_names(&host), ["tie0"]);
    assert_eq!(host.devices[&DeviceName::outer(0)].peers.len(), 3);
    assert_eq!(
        target(&host, TABLE_REMOTE, "10.64.1.0/24"),
        by(&[DeviceName::outer(0)]),
        "also inside a site"
    );
}

#[test]
fn a_peer_without_an_accepted_key_is_absent() {
    let mut world = two_by_two();
    let keyless = world.peers.get_mut(&name("paris0-0")).unwrap();
    Arc::make_mut(keyless).keys.clear();
    let host = host(&world, "berlin0-0");
    assert!(host.devices[&DeviceName::outer(0)].peers.is_empty());
    assert_eq!(
        target(&host, TABLE_REMOTE, "10.64.17.0/24"),
        by(&[DeviceName::outer(1)])
    );
}
