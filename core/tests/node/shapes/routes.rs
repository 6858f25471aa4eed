//! Where packets go: rules, tables and paths.

use super::*;
use tieline_core::health::{PathId, PathState};
use tieline_core::host::{TABLE_INNER, TABLE_REMOTE, print};

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
    let first = PathId::new(rails[0], key("paris0-0", DeviceName::outer(0)));
    let second = PathId::new(rails[1], key("paris0-1", DeviceName::outer(0)));
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
