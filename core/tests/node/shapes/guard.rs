//! What stays closed, what stays with the host, and a node that nobody knows yet.

use super::*;
use crate::fleet::set;
use std::net::IpAddr;
use tieline_core::host::{Rule, Selector, TABLE_GUARD, TABLE_MAIN, TABLE_REMOTE};
use tieline_core::node::config::ConfigTarget;

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
    for text in [
        "192.168.11.0/24",
        "10.64.16.0/24",
        "10.64.200.7/32",
        "10.64.200.8/32",
    ] {
        assert!(covers(&host, SetName::Native, text), "{text}");
    }
    assert!(!covers(&host, SetName::Native, "10.64.0.0/24"));
}

#[test]
fn a_narrow_remote_prefix_inside_a_wide_site_range_is_no_exception_of_the_guard() {
    let mut world = two_by_two();
    berlin(&mut world).cidrs = set(&["10.0.0.0/8"]);
    let host = host(&world, "berlin0-2");
    let holds = |text: &str| covers(&host, SetName::Native, text);
    assert!(holds("10.1.0.0/16") && holds("10.64.1.0/24"));
    assert!(!holds("10.64.17.0/24"));
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
    assert!(covers(&host, SetName::Native, "10.64.2.0/24"));
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
