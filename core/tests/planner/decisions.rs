//! What is decided, by example.

use crate::support::*;
use tieline_core::cidr::Prefix;
use tieline_core::ledger::LedgerName;

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
    assert_eq!(
        (node.assign, &node.pod_cidrs[..]),
        (true, &[p("10.64.33.0/24")][..])
    );
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

#[test]
fn a_node_that_joins_inside_its_sites_chunk_changes_no_plan() {
    let mut world = three_sites();
    let before = world.go();
    world.node("shop", "rome-3", "rome", &[]);
    let after = world.go();
    assert_eq!(after.plans, before.plans);
    assert_eq!(after.node("shop", "rome-3").pod_cidrs, [p("10.64.34.0/24")]);
    assert_eq!(after.nodes.len(), before.nodes.len() + 1);
}

#[test]
fn a_node_that_comes_back_gets_what_it_had_and_newcomers_get_it_last() {
    let mut world = three_sites();
    let had = world.go().node("shop", "rome-1").clone();
    world.remove_node("shop", "rome-1");
    assert!(
        world
            .go()
            .grants("cluster-shop")
            .contains(&"10.64.32.0/24 Pod Node rome-1 Released".to_owned())
    );
    world.node("shop", "rome-0", "rome", &[]);
    assert_eq!(
        world.go().node("shop", "rome-0").pod_cidrs,
        [p("10.64.34.0/24")]
    );
    world.node("shop", "rome-1", "rome", &[]);
    let back = world.go().node("shop", "rome-1").clone();
    assert_eq!(
        (back.pod_cidrs, back.mesh_addresses),
        (had.pod_cidrs, had.mesh_addresses)
    );
}

#[test]
fn released_ranges_are_used_before_a_site_takes_another_chunk() {
    let mut world = World::new();
    world.link("acme", &["10.64.0.0/10"]);
    world.cluster("acme", "shop", true);
    for number in 0..16 {
        world.node("shop", &format!("n{number:02}"), "berlin", &[]);
    }
    world.go();
    world.remove_node("shop", "n03");
    world.go();
    world.node("shop", "x", "berlin", &[]);
    assert_eq!(world.go().node("shop", "x").pod_cidrs, [p("10.64.3.0/24")]);
    world.node("shop", "y", "berlin", &[]);
    let proposal = world.go();
    assert_eq!(proposal.node("shop", "y").pod_cidrs, [p("10.64.16.0/24")]);
    assert_eq!(
        contents(proposal.segment("acme", "shop.berlin")),
        ["10.64.0.0/19 Pod", "100.127.0.0/27 Mesh"]
    );
}

#[test]
fn a_cluster_that_outgrows_its_block_gets_another_one() {
    let mut world = World::new();
    world.link("acme", &["10.64.0.0/10"]);
    world.cluster("acme", "eu", true);
    world.cluster("acme", "us", true);
    for site in 0..17 {
        world.node("eu", &format!("n{site}"), &format!("s{site:02}"), &[]);
    }
    let hub = world.go().grants("hub");
    let pods: Vec<_> = hub.iter().filter(|grant| grant.contains("Pod")).collect();
    assert_eq!(
        pods,
        [
            "10.64.0.0/16 Pod Cluster eu Active",
            "10.65.0.0/16 Pod Cluster us Active",
            "10.66.0.0/16 Pod Cluster eu Active"
        ]
    );
    assert!(hub.contains(&"100.127.1.0/24 Mesh Cluster eu Active".to_owned()));
}

#[test]
fn a_node_that_moves_takes_its_range_along() {
    let mut world = three_sites();
    let assigned = world.go().node("shop", "oslo-2").pod_cidrs.clone();
    let texts: Vec<String> = assigned.iter().map(ToString::to_string).collect();
    world.node(
        "shop",
        "oslo-2",
        "rome",
        &texts.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let proposal = world.go();
    assert_eq!(proposal.node("shop", "oslo-2").pod_cidrs, assigned);
    assert!(
        contents(proposal.segment("acme", "shop.rome")).contains(&"10.64.17.0/24 Pod".to_owned())
    );
    let oslo = proposal
        .segment("acme", "shop.oslo")
        .of(&[tieline_core::network_plan::Class::Pod]);
    assert!(!oslo.contains(p("10.64.17.0/24")) && oslo.contains(p("10.64.16.0/24")));
    assert!(
        proposal
            .grants("cluster-shop")
            .contains(&"10.64.17.0/24 Pod Node oslo-2 Imported".to_owned())
    );
}

#[test]
fn both_families_are_planned_alike() {
    let mut world = World::new();
    world.link("acme", &["10.64.0.0/10", "fd64::/40"]);
    world.cluster("acme", "shop", true);
    world.node("shop", "a", "berlin", &[]);
    world.node("shop", "b", "oslo", &[]);
    let proposal = world.go();
    let b = proposal.node("shop", "b");
    assert!(b.assign);
    assert_eq!(b.pod_cidrs, [p("10.64.16.0/24"), p("fd64:0:0:10::/64")]);
    assert_eq!(b.mesh_addresses.len(), 2);
    let classes: Vec<String> = contents(proposal.segment("acme", "shop.oslo"));
    assert!(
        classes.contains(&"fd64:0:0:10::/60 Pod".to_owned()),
        "{classes:?}"
    );
    assert!(
        classes.iter().any(|entry| entry.ends_with("/124 Mesh")),
        "{classes:?}"
    );
    // Without IPv6 there is no IPv6 mesh address either.
    assert_eq!(
        three_sites()
            .go()
            .node("shop", "rome-1")
            .mesh_addresses
            .len(),
        1
    );
}

#[test]
fn ranges_in_use_are_imported_and_nothing_is_planned_over_them() {
    let mut world = World::new();
    world.link("acme", &["10.0.0.0/8"]);
    world.cluster("acme", "old", false).pod_cidrs = prefixes(&["10.0.0.0/14"]).into();
    world.cluster("acme", "older", false);
    world.cluster("acme", "new", true);
    world
        .fleet
        .clusters
        .get_mut(&cluster_name("old"))
        .unwrap()
        .sites = tieline_core::fleet::SiteSource::Name(site_name("gcp"));
    world.node("old", "a", "", &["10.1.2.0/24"]);
    world.node("older", "a", "dc", &["10.4.7.0/24"]);
    world.node("new", "a", "dc", &[]);
    world.site("dc", &["10.6.0.0/16"]);
    world.address("new", "a", "10.5.0.9", tieline_core::peer::Scope::Site);
    let proposal = world.go();
    assert!(proposal.is_quiet(), "{:#?}", proposal.report);
    let pods: Vec<String> = proposal
        .grants("hub")
        .into_iter()
        .filter(|grant| grant.contains("Pod"))
        .collect();
    // 10.4 is in use, 10.5 has a node's own address, 10.6 is the site's network.
    assert_eq!(
        pods,
        [
            "10.0.0.0/14 Pod Cluster old Imported",
            "10.4.7.0/24 Pod Cluster older Imported",
            "10.7.0.0/16 Pod Cluster new Active"
        ]
    );
    // A cluster in one site gives that site its whole range, so joins change no plan.
    assert!(contents(proposal.segment("acme", "old.gcp")).contains(&"10.0.0.0/14 Pod".to_owned()));
    assert!(contents(proposal.segment("acme", "older.dc")).contains(&"10.4.7.0/24 Pod".to_owned()));
    assert_eq!(proposal.plan_of("acme").bypass.to_string(), "10.5.0.9/32");
}

#[test]
fn pods_inside_their_own_sites_network_are_normal() {
    let mut world = World::new();
    world.lan("acme", "aws-eu", &["10.20.0.0/16"]);
    world.cluster("acme", "shop", false);
    world.node("shop", "a", "aws-eu", &["10.20.5.0/24"]);
    let proposal = world.go();
    assert!(proposal.is_quiet(), "{:#?}", proposal.report);
    assert_eq!(
        contents(proposal.segment("acme", "shop.aws-eu"))[..2],
        ["10.20.0.0/16 Lan", "10.20.5.0/24 Pod"]
    );
}

#[test]
fn with_granularity_node_every_node_is_its_own_gateway() {
    let mut world = three_sites();
    world.link("acme", &[]).topology.granularity = tieline_core::fleet::Granularity::Node;
    let proposal = world.go();
    assert_eq!(proposal.plan_of("acme").segments.len(), 6);
    let segment = proposal.segment("acme", "shop.oslo.oslo-2");
    assert_eq!(
        contents(segment),
        ["10.64.17.0/24 Pod", "100.127.0.17/32 Mesh"]
    );
    assert_eq!(gateways(segment), ["0 shop.oslo-2"]);
    assert_eq!(
        proposal.plan_of("acme").vpns[0].segment.as_str(),
        "shop.berlin.berlin-1"
    );
}

#[test]
fn a_gateway_stays_while_it_may_and_a_hole_is_filled() {
    let mut world = three_sites();
    world.link("acme", &[]).topology.gateways_per_site = 2;
    assert_eq!(
        gateways(world.go().segment("acme", "shop.rome")),
        ["0 shop.rome-1", "1 shop.rome-2"]
    );
    world.node("shop", "rome-0", "rome", &[]);
    world.node("shop", "rome-1", "rome", &[]).ready = false;
    assert_eq!(
        gateways(world.go().segment("acme", "shop.rome")),
        ["0 shop.rome-1", "1 shop.rome-2"]
    );
    world.remove_node("shop", "rome-1");
    assert_eq!(
        gateways(world.go().segment("acme", "shop.rome")),
        ["0 shop.rome-0", "1 shop.rome-2"]
    );
    world.remove_node("shop", "rome-0");
    assert_eq!(
        gateways(world.go().segment("acme", "shop.rome")),
        ["1 shop.rome-2"]
    );
}

#[test]
fn service_ranges_in_use_are_not_given_away_and_stay_the_hosts() {
    let mut world = World::new();
    world.link("acme", &["10.64.0.0/10"]);
    world.cluster("acme", "shop", true);
    world
        .fleet
        .services_in_use
        .insert(cluster_name("shop"), prefixes(&["10.64.0.0/12"]).into());
    world.node("shop", "a", "berlin", &[]);
    let proposal = world.go();
    assert_eq!(proposal.plan_of("acme").bypass.to_string(), "10.64.0.0/12");
    let given = proposal.node("shop", "a").pod_cidrs[0];
    assert!(!p("10.64.0.0/12").contains(given), "{given}");
    assert!(proposal.plan_of("acme").super_nets.contains(given));

    // A range that is heard of late moves nobody.
    let late = vec![p("10.64.0.0/12"), Prefix::containing(given.address(), 20)];
    let in_use = world.fleet.services_in_use.get_mut(&cluster_name("shop"));
    *in_use.unwrap() = late.into();
    let proposal = world.go();
    assert!(proposal.node("shop", "a").assign);
    assert_eq!(proposal.node("shop", "a").pod_cidrs, [given]);
    assert_eq!(proposal.plan_of("acme").bypass.overlapping(given), None);
}

#[test]
fn services_lans_and_vpns_stay_with_the_segment_that_carries_them() {
    let mut world = three_sites();
    world.cluster("acme", "shop", true).service_cidrs = prefixes(&["172.20.0.0/16"]).into();
    world.go();
    world.cluster("acme", "aaa", true);
    world.node("aaa", "a", "berlin", &[]);
    world.node("shop", "x", "aachen", &[]);
    let proposal = world.go();
    let berlin = contents(proposal.segment("acme", "shop.berlin"));
    for entry in [
        "172.20.0.0/16 Service",
        "192.168.40.0/22 Lan",
        "172.16.0.0/16 Vpn",
    ] {
        assert!(
            berlin.contains(&entry.to_owned()),
            "{entry} is not in {berlin:?}"
        );
    }
    for number in 1..=2 {
        world.remove_node("shop", &format!("berlin-{number}"));
    }
    let proposal = world.go();
    assert!(
        contents(proposal.segment("acme", "aaa.berlin"))
            .contains(&"192.168.40.0/22 Lan".to_owned())
    );
    assert!(
        contents(proposal.segment("acme", "shop.aachen"))
            .contains(&"172.20.0.0/16 Service".to_owned())
    );
}

#[test]
fn a_cluster_that_moves_to_another_link_meets_no_lower_revision_there() {
    let mut world = three_sites();
    world.link("other", &["10.200.0.0/16"]);
    for number in 3..9 {
        world.node("shop", &format!("x{number}"), &format!("site{number}"), &[]);
        world.go();
    }
    let before = world.go();
    let shop = world
        .link("acme", &[])
        .clusters
        .take(&cluster_name("shop"))
        .unwrap();
    world.link("other", &[]).clusters.insert(shop);
    let after = world.go();
    let carried = before.plan_of("acme").revision;
    assert!(before.plan_of("other").revision < carried);
    assert!(
        after
            .plan_of("other")
            .cluster(&cluster_name("shop"))
            .is_some()
    );
    assert!(after.plan_of("other").revision > carried);
}

#[test]
fn a_plan_that_is_lost_comes_back_above_what_the_hub_remembers() {
    let mut world = three_sites();
    world.go();
    world.before.plans.clear();
    // The shell has put the height of the lost plan there.
    let hub = world.before.ledgers.get_mut(&LedgerName::Hub).unwrap();
    std::sync::Arc::make_mut(hub).revision = 30;
    assert_eq!(world.go().plan_of("acme").revision, 31);
}

#[test]
fn a_deleted_link_keeps_its_grants_and_its_plan_never_counts_back() {
    let mut world = three_sites();
    for number in 3..9 {
        world.node("shop", &format!("x{number}"), &format!("site{number}"), &[]);
        world.go();
    }
    let before = world.go();
    let link = world.fleet.links.remove(&link_name("acme")).unwrap();
    let without = world.go();
    assert!(without.plans.is_empty() && without.nodes.is_empty());
    assert_eq!(without.grants("hub"), before.grants("hub"));
    assert_eq!(
        without.grants("cluster-shop"),
        before.grants("cluster-shop")
    );
    world.fleet.links.insert(link_name("acme"), link);
    let again = world.go();
    assert!(again.plan_of("acme").revision > before.plan_of("acme").revision);
    assert_eq!(
        again.node("shop", "rome-2").pod_cidrs,
        before.node("shop", "rome-2").pod_cidrs
    );
}
