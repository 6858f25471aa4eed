//! Each role on its own: devices, peers, endpoints, routes and rules as the data plane's table of roles has them.

use crate::fleet::{
    Shape, SiteShape, World, facts, foreign_key, key, prefix, set, site_name, vpn_name, world,
};
use std::net::{IpAddr, SocketAddr};
use tieline_core::cidr::{Family, Prefix};
use tieline_core::fleet::Granularity;
use tieline_core::host::firewall::{Interface, SetName};
use tieline_core::host::{
    DeviceName, HostState, KeySource, METRIC_GUARD, METRIC_REMOTE, RouteKey, Rule, Selector,
    TABLE_GUARD, TABLE_INNER, TABLE_MAIN, TABLE_REMOTE, Target, print,
};
use tieline_core::ids::{NodeName, PeerName};
use tieline_core::node::config::ConfigTarget;
use tieline_core::node::{LocalFacts, NodeConfig, PathState, node_config, resolve};
use tieline_core::peer::{Endpoint, Scope};

/// Berlin and Paris, three nodes and two gateways each; services, a LAN and a VPN in Paris.
fn two_by_two() -> World {
    let site = |vpn| SiteShape {
        nodes: vec![3],
        ranks: vec![0, 1],
        behind_nat: false,
        lan: vpn,
        vpn,
    };
    world(&Shape {
        sites: vec![site(false), site(true)],
        transit: None,
        granularity: Granularity::Site,
        ipv6: false,
        services: true,
        imported: false,
    })
}

fn name(node: &str) -> PeerName {
    PeerName::new(format!("shop.{node}")).unwrap()
}

fn config(world: &World, node: &str) -> NodeConfig {
    node_config(&world.plan, &world.peers, Some(&name(node)))
}

fn facts_of(world: &World, node: &str) -> LocalFacts {
    facts(&world.peers[&name(node)])
}

fn host(world: &World, node: &str) -> HostState {
    resolve(&config(world, node), &facts_of(world, node))
}

fn target(host: &HostState, table: u32, text: &str) -> Option<Target> {
    let key = |metric| RouteKey {
        table,
        prefix: prefix(text),
        metric,
    };
    let remote = host.routes.get(&key(METRIC_REMOTE));
    remote
        .or(host.routes.get(&key(METRIC_GUARD)))
        .map(|route| route.target.clone())
}

fn by(devices: &[DeviceName]) -> Option<Target> {
    Some(Target::Devices(devices.to_vec()))
}

fn device_names(host: &HostState) -> Vec<String> {
    host.devices.keys().map(ToString::to_string).collect()
}

fn endpoint(
    host: &HostState,
    device: DeviceName,
    node: &str,
    far: DeviceName,
) -> Option<SocketAddr> {
    host.devices[&device].peers[&key(node, far)].endpoint
}

fn elements(host: &HostState, name: SetName, family: Family) -> Vec<Prefix> {
    let table = &host.firewall.as_ref().unwrap().tables[0];
    let found = table
        .sets
        .iter()
        .find(|set| set.name == name && set.family == family)
        .unwrap();
    found.elements.iter().collect()
}

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

#[test]
fn rules_come_in_the_order_that_keeps_the_cni_alive_and_the_guard_closed() {
    let world = two_by_two();
    let host = host(&world, "paris0-0");
    assert_eq!(
        print::rules(&host, Family::V4),
        "101: from all fwmark 0x1000/0x1000 lookup main\n\
         102: from all iif tie0 lookup 7470\n\
         102: from all iif tie1 lookup 7470\n\
         102: from all iif tiev0 lookup 7470\n\
         103: from all lookup 7468\n\
         104: from all to 10.64.0.0/16 lookup main suppress_prefixlength 15\n\
         105: from all lookup 7469\n"
    );
    assert_eq!(print::rules(&host, Family::V6), "");
}

#[test]
fn pods_are_multipath_and_services_lan_and_vpn_go_to_the_lowest_healthy_rank() {
    let world = two_by_two();
    let config = config(&world, "berlin0-0");
    let mut facts = facts_of(&world, "berlin0-0");
    let rails = [DeviceName::outer(0), DeviceName::outer(1)];
    let first = (rails[0], key("paris0-0", DeviceName::outer(0)));
    let second = (rails[1], key("paris0-1", DeviceName::outer(0)));
    for (states, pods, ordered) in [
        (vec![], &rails[..], rails[0]),
        (vec![(second, PathState::Up)], &rails[1..], rails[1]),
        (
            vec![(first, PathState::Up), (second, PathState::Up)],
            &rails[..],
            rails[0],
        ),
        (
            vec![(first, PathState::Down), (second, PathState::Up)],
            &rails[1..],
            rails[1],
        ),
    ] {
        facts.paths = states.into_iter().collect();
        let host = resolve(&config, &facts);
        assert_eq!(
            target(&host, TABLE_REMOTE, "10.64.17.0/24"),
            by(pods),
            "{:?}",
            facts.paths
        );
        for text in ["192.168.11.0/24", "172.16.10.0/24"] {
            assert_eq!(
                target(&host, TABLE_REMOTE, text),
                by(&[ordered]),
                "{text} {:?}",
                facts.paths
            );
        }
    }
    // No rail left: the co-gateway may have one.
    facts.paths = [(first, PathState::Down), (second, PathState::Down)]
        .into_iter()
        .collect();
    let host = resolve(&config, &facts);
    assert_eq!(
        target(&host, TABLE_REMOTE, "10.64.17.0/24"),
        by(&[DeviceName::inner(1)])
    );
}

#[test]
fn what_arrives_encrypted_for_other_nodes_goes_on_through_the_hub() {
    let world = two_by_two();
    let host = host(&world, "berlin0-0");
    let hub = by(&[DeviceName::inner(0)]);
    assert_eq!(target(&host, TABLE_INNER, "10.64.2.0/24"), hub);
    assert_eq!(target(&host, TABLE_INNER, "100.127.0.3/32"), hub);
    assert_eq!(
        target(&host, TABLE_INNER, "10.64.0.0/24"),
        Some(Target::Throw),
        "own pods are the CNI's"
    );
}

#[test]
fn own_services_own_site_and_bypass_stay_with_the_host() {
    let mut world = two_by_two();
    world.plan.bypass = set(&["10.64.200.7/32"]);
    let config = config(&world, "paris0-2");
    let mut facts = facts_of(&world, "paris0-2");
    let inside: IpAddr = "192.168.10.250".parse().unwrap();
    facts.api_servers = ["10.64.200.8".parse().unwrap(), inside].into();
    let host = resolve(&config, &facts);
    for table in [TABLE_REMOTE, TABLE_GUARD] {
        for text in [
            "172.20.0.0/16",
            "192.168.11.0/24",
            "10.64.200.7/32",
            "10.64.200.8/32",
        ] {
            assert_eq!(target(&host, table, text), Some(Target::Throw), "{text}");
        }
        assert_eq!(
            target(&host, table, "192.168.10.250/32"),
            None,
            "outside super-nets nothing is in its way"
        );
    }
    let native = elements(&host, SetName::Native, Family::V4);
    for text in [
        "192.168.11.0/24",
        "10.64.16.0/24",
        "10.64.200.7/32",
        "10.64.200.8/32",
    ] {
        assert!(
            native.iter().any(|native| native.contains(prefix(text))),
            "{text} in {native:?}"
        );
    }
    assert!(
        !native
            .iter()
            .any(|native| native.contains(prefix("10.64.0.0/24")))
    );
}

#[test]
fn a_narrow_remote_prefix_inside_a_wide_site_range_is_no_exception_of_the_guard() {
    let mut world = two_by_two();
    let site = world
        .plan
        .sites
        .iter_mut()
        .find(|site| site.name == site_name(0))
        .unwrap();
    site.cidrs = set(&["10.0.0.0/8"]);
    let host = host(&world, "berlin0-2");
    let native = elements(&host, SetName::Native, Family::V4);
    let holds = |text: &str| native.iter().any(|native| native.contains(prefix(text)));
    assert!(holds("10.1.0.0/16") && holds("10.64.1.0/24"));
    assert!(!holds("10.64.17.0/24"));
}

#[test]
fn the_active_gateway_speaks_to_the_foreign_box_and_the_standby_waits() {
    let mut world = two_by_two();
    world.plan.vpns[0].endpoint = Some(Endpoint::parse("198.51.100.9", Scope::Public).unwrap());
    let device = DeviceName::vpn(0);
    let behind = "172.16.10.0/24";
    let active = host(&world, "paris0-0");
    let tunnel = &active.devices[&device];
    assert_eq!(tunnel.key, KeySource::Attachment(vpn_name(1)));
    assert_eq!(tunnel.port, 21884);
    let foreign = &tunnel.peers[&foreign_key(1)];
    assert_eq!(foreign.allowed_ips, set(&[behind]));
    assert_eq!(
        foreign.endpoint,
        Some("198.51.100.9:51820".parse().unwrap())
    );
    assert_eq!(
        (foreign.keepalive, &foreign.preshared_key),
        (Some(25), &Some(vpn_name(1)))
    );
    assert_eq!(target(&active, TABLE_REMOTE, behind), by(&[device]));
    assert!(
        elements(&active, SetName::Stateful, Family::V4)
            .iter()
            .any(|set| set.contains(prefix(behind)))
    );

    let standby = host(&world, "paris0-1");
    let foreign = &standby.devices[&device].peers[&foreign_key(1)];
    assert_eq!((foreign.endpoint, foreign.keepalive), (None, None));
    assert_eq!(
        target(&standby, TABLE_REMOTE, behind),
        by(&[DeviceName::inner(1)])
    );
    let towards =
        &standby.devices[&DeviceName::inner(1)].peers[&key("paris0-0", DeviceName::inner(1))];
    assert!(towards.allowed_ips.contains(prefix(behind)));
    // It sees one direction only, so it must not track it.
    assert!(
        !elements(&standby, SetName::Stateful, Family::V4)
            .iter()
            .any(|set| set.contains(prefix(behind)))
    );
}

#[test]
fn a_standby_takes_a_vpn_over_when_the_active_gateway_is_dead() {
    let world = two_by_two();
    let mut facts = facts_of(&world, "paris0-1");
    let hub = DeviceName::inner(1);
    facts
        .paths
        .insert((hub, key("paris0-0", hub)), PathState::Down);
    let host = resolve(&config(&world, "paris0-1"), &facts);
    assert_eq!(
        target(&host, TABLE_REMOTE, "172.16.10.0/24"),
        by(&[DeviceName::vpn(0)])
    );
    assert_eq!(
        host.devices[&DeviceName::vpn(0)].peers[&foreign_key(1)].keepalive,
        Some(25)
    );
    let dead = &host.devices[&hub].peers[&key("paris0-0", hub)];
    assert!(!dead.allowed_ips.contains(prefix("172.16.10.0/24")));
}

#[test]
fn a_gateway_without_the_attachments_key_leaves_the_vpn_out() {
    let world = two_by_two();
    let mut facts = facts_of(&world, "paris0-0");
    facts.keys.remove(&DeviceName::vpn(0));
    let host = resolve(&config(&world, "paris0-0"), &facts);
    assert!(!host.devices.contains_key(&DeviceName::vpn(0)));
    assert_eq!(
        target(&host, TABLE_REMOTE, "172.16.10.0/24"),
        Some(Target::Unreachable)
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
    facts.last_seen.insert((rail, key("berlin0-0", rail)), seen);
    assert_eq!(
        endpoint(&resolve(&outside, &facts), rail, "berlin0-0", rail),
        Some(seen)
    );
}

#[test]
fn a_forwarded_port_makes_a_site_behind_nat_dialable_by_rank() {
    let mut world = natted([true, true, false], None);
    let site = world
        .plan
        .sites
        .iter_mut()
        .find(|site| site.name == site_name(0))
        .unwrap();
    site.public_addresses = vec![Endpoint::parse("gw.example:7000", Scope::Public).unwrap()];
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
fn ipv6_keeps_its_least_mtu_and_its_sysctls_come_with_it() {
    let world = world(&Shape {
        sites: vec![SiteShape::default(), SiteShape::default()],
        transit: None,
        granularity: Granularity::Site,
        ipv6: true,
        services: false,
        imported: false,
    });
    let config = config(&world, "berlin0-0");
    let mut facts = facts_of(&world, "berlin0-0");
    facts.underlay.get_mut("eth0").unwrap().mtu = 1300;
    facts.accept_ra.insert("eth0".to_owned(), 1);
    let host = resolve(&config, &facts);
    let device = &host.devices[&DeviceName::outer(0)];
    assert_eq!(device.mtu, 1280);
    assert_eq!(
        device
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["100.127.0.1/32", "fd99::1/128"]
    );
    let key = RouteKey {
        table: TABLE_REMOTE,
        prefix: prefix("fd64:0:1::/64"),
        metric: METRIC_REMOTE,
    };
    let route = &host.routes[&key];
    assert_eq!(
        (route.source, route.mtu),
        (Some("fd99::1".parse().unwrap()), Some(1280))
    );
    assert_eq!(host.sysctls["net/ipv6/conf/eth0/accept_ra"], "2");
    assert_eq!(host.sysctls["net/ipv6/conf/tie0/disable_ipv6"], "0");
    assert!(
        !host
            .sysctls
            .contains_key("net/ipv6/fib_multipath_hash_policy"),
        "one rail is no choice"
    );
}

#[test]
fn a_peer_without_an_accepted_key_is_absent() {
    let mut world = two_by_two();
    world.peers.get_mut(&name("paris0-0")).unwrap().keys.clear();
    let host = host(&world, "berlin0-0");
    assert!(host.devices[&DeviceName::outer(0)].peers.is_empty());
    assert_eq!(
        target(&host, TABLE_REMOTE, "10.64.17.0/24"),
        by(&[DeviceName::outer(1)])
    );
}

#[test]
fn a_node_that_is_not_accepted_yet_gets_the_guard_and_keeps_its_cni() {
    let mut world = two_by_two();
    let stranger = world.peers.remove(&name("berlin0-2")).unwrap();
    let config = node_config(&world.plan, &world.peers, Some(&name("berlin0-2")));
    let mut facts = facts(&stranger);
    // It stands in Berlin's own range.
    facts.underlay.get_mut("eth0").unwrap().prefixes = set(&["192.168.10.0/24"]);
    let host = resolve(&config, &facts);
    assert!(host.devices.is_empty());
    assert_eq!(
        target(&host, TABLE_REMOTE, "10.64.0.0/10"),
        Some(Target::Unreachable)
    );
    assert_eq!(
        target(&host, TABLE_REMOTE, "10.64.0.0/16"),
        Some(Target::Throw),
        "the cluster's pods"
    );
    assert_eq!(
        target(&host, TABLE_REMOTE, "172.20.0.0/16"),
        Some(Target::Throw),
        "the cluster's services"
    );
    assert_eq!(target(&host, TABLE_REMOTE, "10.64.16.0/24"), None);
    let far = RouteKey {
        table: TABLE_REMOTE,
        prefix: prefix("10.64.16.0/23"),
        metric: METRIC_GUARD,
    };
    assert_eq!(
        host.routes[&far].target,
        Target::Unreachable,
        "the cluster's pods in another site"
    );
    let cni = Rule {
        preference: 104,
        family: Family::V4,
        selector: Selector::To(prefix("10.64.0.0/16")),
        table: TABLE_MAIN,
        suppress_prefix_len: Some(15),
    };
    assert!(host.rules.contains(&cni));
    let native = elements(&host, SetName::Native, Family::V4);
    assert!(native.contains(&prefix("192.168.10.0/24")));
    assert!(
        native
            .iter()
            .any(|native| native.contains(prefix("10.64.2.0/24")))
    );
    assert!(
        !native
            .iter()
            .any(|native| native.overlaps(prefix("10.64.16.0/24")))
    );
}

#[test]
fn a_stranger_closes_every_super_net_and_nothing_else() {
    let world = two_by_two();
    let config = node_config(&world.plan, &world.peers, None);
    assert!(config.devices.is_empty());
    for net in world.plan.super_nets.iter() {
        for table in [TABLE_REMOTE, TABLE_GUARD] {
            let key = RouteKey {
                table,
                prefix: net,
                metric: METRIC_GUARD,
            };
            assert_eq!(config.routes[&key], ConfigTarget::Unreachable);
        }
    }
    let firewall = resolve(&config, &facts_of(&world, "berlin0-0"))
        .firewall
        .unwrap()
        .script();
    assert!(
        firewall
            .contains("oifname { \"eth0\" } ip daddr @planned4 ip daddr != @native4 counter drop")
    );
    assert!(firewall.contains("type filter hook egress device \"eth0\""));
}

#[test]
fn only_interface_names_that_can_be_quoted_enter_a_script() {
    for bad in [
        "",
        "eth0\" ; drop",
        "a*",
        "a\\b",
        "much-too-long-name",
        "eth 0",
        "ethé",
    ] {
        assert!(Interface::new(bad).is_err(), "{bad:?}");
    }
    for good in ["eth0", "enp3s0f1np1", "br-12ab", "wlan0.12", "veth_a@b"] {
        assert_eq!(Interface::new(good).unwrap().to_string(), good);
    }
}

#[test]
fn a_hosts_state_prints_like_the_tools_that_show_it() {
    let world = two_by_two();
    let host = host(&world, "berlin0-2");
    let text = print::everything(&host);
    for line in [
        "interface: tiei0",
        "  allowed ips: 10.64.0.0/10, 100.127.0.0/16, 172.16.10.0/24, 172.20.0.0/16, 192.168.11.0/24",
        "  persistent keepalive: every 25 seconds",
        "    inet 100.127.0.3/32 scope link tiei0",
        "10.64.0.0/10 proto 84 src 100.127.0.3 metric 100 mtu 1420",
        "\tnexthop dev tiei1 weight 1",
        "unreachable 10.64.0.0/10 proto 84 metric 4000",
        "net.ipv4.ip_forward = 1",
        "table inet tieline {",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
    let json = serde_json::to_string(&host).unwrap();
    assert_eq!(serde_json::from_str::<HostState>(&json).unwrap(), host);
}
