//! What is decided, by example.

use crate::support::*;

/// The network of the README: one cluster over three sites, podCIDRs assigned, a VPN and a LAN in Berlin.
fn three_sites() -> World {
    let mut world = World::new();
    world.link("acme", &["10.64.0.0/10"]);
    world.cluster("acme", "shop", true);
    for site in ["berlin", "oslo", "rome"] {
        for number in 1..=2 {
            world.node("shop", &format!("{site}-{number}"), site, &[]);
        }
    }
    world.lan("acme", "berlin", &["192.168.40.0/22"]);
    let vpn = world.vpn("acme", "hq", "berlin", &["172.16.0.0/16"]);
    vpn.allow_clusters.insert(cluster_name("shop"));
    vpn.allow_sites.insert(site_name("berlin"));
    world
}

#[test]
fn a_pool_is_split_by_cluster_site_and_node() {
    let proposal = three_sites().go();
    assert!(proposal.is_quiet(), "{:#?}", proposal.report);
    assert_eq!(
        proposal.grants("hub"),
        [
            "10.64.0.0/16 Pod Cluster shop Active",
            "100.127.0.0/24 Mesh Cluster shop Active"
        ]
    );
    assert_eq!(
        proposal.grants("cluster-shop")[..4],
        [
            "10.64.0.0/20 Pod Site berlin Active",
            "10.64.0.0/24 Pod Node berlin-1 Active",
            "10.64.1.0/24 Pod Node berlin-2 Active",
            "10.64.16.0/20 Pod Site oslo Active",
        ]
    );
    let berlin = proposal.segment("acme", "shop.berlin");
    assert_eq!(
        contents(berlin),
        [
            "10.64.0.0/20 Pod",
            "100.127.0.0/28 Mesh",
            "172.16.0.0/16 Vpn",
            "192.168.40.0/22 Lan"
        ]
    );
    assert_eq!(gateways(berlin), ["0 shop.berlin-1"]);
    let node = proposal.node("shop", "rome-2");
    assert_eq!(node.assign, [p("10.64.33.0/24")]);
    assert_eq!(
        node.mesh_addresses,
        ["100.127.0.33".parse::<std::net::IpAddr>().unwrap()]
    );
    let plan = proposal.plan_of("acme");
    assert_eq!(
        plan.super_nets.to_string(),
        "10.64.0.0/10,100.127.0.0/16,172.16.0.0/16,192.168.40.0/22"
    );
    assert_eq!((plan.revision, plan.vpns[0].index), (1, 0));
}
