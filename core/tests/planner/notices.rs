//! What people read when something cannot be done.

use crate::support::*;
use tieline_core::fleet::{Mode, PerFamily, SiteSource};

fn said(notice: &tieline_core::notice::Notice, reason: &str, parts: &[&str]) {
    assert_eq!(notice.reason.as_str(), reason, "{notice}");
    for part in parts {
        assert!(
            notice.message.contains(part),
            "{part:?} is not said: {notice}"
        );
    }
}

/// One link with a pool, one cluster that assigns, one node.
fn small() -> World {
    let mut world = World::new();
    world.link("acme", &["10.64.0.0/10"]);
    world.cluster("acme", "shop", true);
    world.node("shop", "a", "berlin", &[]);
    world
}

#[test]
fn members_that_do_not_exist_are_waited_for() {
    let mut world = small();
    let link = world.link("acme", &[]);
    link.clusters.insert(cluster_name("gone"));
    link.sites.insert(site_name("gone"));
    link.vpns.insert(vpn_name("gone"));
    let proposal = world.go();
    for kind in ["Cluster", "Site", "VpnAttachment"] {
        said(
            proposal.waiting(kind, "gone"),
            &format!("{kind}NotFound"),
            &["ClusterLink acme", "create it"],
        );
    }
    assert!(proposal.is_planned("shop", "a"));
}

#[test]
fn a_member_of_two_links_stays_where_it_was_first() {
    let mut world = small();
    world.go();
    world
        .link("aaa", &["10.0.0.0/16"])
        .clusters
        .insert(cluster_name("shop"));
    let proposal = world.go();
    said(
        proposal.refusal("Cluster", "shop"),
        "MemberOfAnotherLink",
        &["acme already", "left out of ClusterLink aaa"],
    );
    assert_eq!(proposal.node("shop", "a").link, link_name("acme"));
}

#[test]
fn a_node_without_a_valid_site_waits_and_keeps_its_grants() {
    let mut world = small();
    world.node("shop", "b", "berlin", &[]);
    let before = world.go();
    world.node("shop", "b", "Berlin East", &[]);
    let node = world.fleet.nodes.get_mut(&node_id("shop", "a")).unwrap();
    node.labels.clear();
    let proposal = world.go();
    said(
        proposal.waiting("Node", "a"),
        "NoSite",
        &["no label topology.kubernetes.io/region", "set the label"],
    );
    said(
        proposal.waiting("Node", "b"),
        "NoSite",
        &["\"Berlin East\"", "lower-case", "bySelector"],
    );
    assert_eq!(proposal.ledgers, before.ledgers);
}

#[test]
fn a_node_without_pod_cidr_waits_and_learns_what_to_set() {
    let mut world = World::new();
    world.cluster("acme", "shop", false);
    world.node("shop", "a", "berlin", &[]);
    world.node("shop", "b", "berlin", &["10.8.0.0/24"]);
    let proposal = world.go();
    said(
        proposal.waiting("Node", "a"),
        "NoPodCidr",
        &["pods.assign: true", "--allocate-node-cidrs"],
    );
    assert_eq!(proposal.node("shop", "b").pod_cidrs, [p("10.8.0.0/24")]);
}

#[test]
fn assignment_is_refused_while_another_manager_gives_pod_cidrs() {
    let mut world = small();
    world.node("shop", "b", "berlin", &["10.8.0.0/24"]);
    let proposal = world.go();
    said(
        proposal.refusal("Cluster", "shop"),
        "PodCidrsOwnedElsewhere",
        &[
            "b (10.8.0.0/24)",
            "pods.assign to false",
            "--allocate-node-cidrs=false",
        ],
    );
    said(
        proposal.waiting("Node", "a"),
        "NoPodCidr",
        &["while somebody else"],
    );
    // What exists already works all the same.
    assert!(!proposal.node("shop", "b").assign);
}

#[test]
fn an_exhausted_pool_says_what_is_missing_and_what_would_help() {
    let mut world = small();
    world.link("acme", &[]).addressing.pod_pools = prefixes(&["10.64.0.0/15"]);
    for cluster in ["shop2", "shop3"] {
        world.cluster("acme", cluster, true);
    }
    let proposal = world.go();
    said(
        proposal.refusal("Cluster", "shop3"),
        "PoolExhausted",
        &[
            "Cluster shop3 needs one more IPv4 block, a /16",
            "10.64.0.0/15",
            "ClusterLink acme",
            "add a pool, for example 10.0.0.0/16",
        ],
    );
}

#[test]
fn a_pool_smaller_than_a_block_says_which_length_fits() {
    let mut world = small();
    world.link("acme", &[]).addressing.pod_pools = prefixes(&["10.64.0.0/20"]);
    let proposal = world.go();
    said(
        proposal.refusal("Cluster", "shop"),
        "PoolExhausted",
        &[
            "no free /16",
            "largest free range is a /20",
            "clusterPrefixLength.v4 to 20",
        ],
    );
    world.link("acme", &[]).addressing.cluster_prefix_len = PerFamily { v4: 20, v6: 56 };
    assert!(world.go().is_quiet());
}

#[test]
fn a_pool_under_a_sites_network_says_who_covers_it() {
    let mut world = small();
    world.site("berlin", &["10.0.0.0/8"]);
    let proposal = world.go();
    said(
        proposal.refusal("Cluster", "shop"),
        "PoolExhausted",
        &["cidrs of Site berlin (10.0.0.0/8)", "172.16.0.0/16"],
    );
}

#[test]
fn full_blocks_without_a_pool_name_the_nodes_that_have_nothing() {
    let mut world = World::new();
    let cluster = world.cluster("acme", "shop", true);
    cluster.pod_cidrs = prefixes(&["10.8.0.0/23"]).into();
    for node in ["a", "b", "c", "d"] {
        world.node("shop", node, "berlin", &[]);
    }
    let proposal = world.go();
    said(
        proposal.refusal("Cluster", "shop"),
        "PoolExhausted",
        &[
            "2 node(s)",
            "a /24 each",
            "c, d",
            "no IPv4 range in addressing.podPools",
        ],
    );
    assert!(proposal.is_planned("shop", "b") && !proposal.is_planned("shop", "c"));
}

#[test]
fn assignment_without_any_range_says_where_to_write_one() {
    let mut world = World::new();
    world.cluster("acme", "shop", true);
    let proposal = world.go();
    said(
        proposal.refusal("Cluster", "shop"),
        "NoPool",
        &["addressing.podPools", "pods.cidrs"],
    );
}

#[test]
fn overlapping_pools_of_two_links_are_refused_on_the_later_one() {
    let mut world = small();
    world.go();
    world.link("aaa", &["10.0.0.0/8", "172.16.0.0/12"]);
    world.cluster("aaa", "lab", true);
    let proposal = world.go();
    said(
        proposal.refusal("ClusterLink", "aaa"),
        "PoolOverlap",
        &["podPools 10.0.0.0/8", "10.64.0.0/10 of ClusterLink acme"],
    );
    assert!(
        proposal
            .grants("hub")
            .contains(&"172.16.0.0/16 Pod Cluster lab Active".to_owned())
    );
}

#[test]
fn a_clash_of_imported_ranges_names_both_sides_and_what_is_free() {
    let mut world = World::new();
    world.cluster("acme", "eu", false).pod_cidrs = prefixes(&["10.0.0.0/16"]).into();
    world.cluster("acme", "us", false).pod_cidrs = prefixes(&["10.0.0.0/14"]).into();
    world.node("us", "a", "oslo", &["10.0.3.0/24"]);
    let proposal = world.go();
    said(
        proposal.refusal("Cluster", "us"),
        "RangeClash",
        &[
            "pods.cidrs of Cluster us: 10.0.0.0/14",
            "10.0.0.0/16 (the pods of Cluster eu)",
            "free ranges of this size: 10.4.0.0/14, 10.8.0.0/14",
        ],
    );
    assert!(!proposal.is_planned("us", "a"));
}

#[test]
fn nodes_that_clash_with_another_cluster_share_one_notice() {
    let mut world = World::new();
    world.cluster("acme", "eu", false);
    world.cluster("acme", "us", false);
    world.node("eu", "a", "berlin", &["10.244.0.0/24"]);
    for node in ["x", "y"] {
        world.node("us", node, "oslo", &["10.244.0.0/24"]);
    }
    world.node("us", "z", "oslo", &["10.244.9.0/24"]);
    let proposal = world.go();
    said(
        proposal.refusal("Cluster", "us"),
        "RangeClash",
        &["node x, y", "10.244.0.0/24 (the pods of Cluster eu)"],
    );
    assert!(proposal.is_planned("eu", "a") && proposal.is_planned("us", "z"));
}

#[test]
fn two_nodes_of_one_cluster_with_the_same_range_are_told_apart() {
    let mut world = World::new();
    world.cluster("acme", "shop", false);
    world.node("shop", "b", "berlin", &["10.8.0.0/24"]);
    world.go();
    world.node("shop", "a", "berlin", &["10.8.0.0/24"]);
    let proposal = world.go();
    said(
        proposal.refusal("Node", "a"),
        "RangeClash",
        &["10.8.0.0/24 of node b", "which was first"],
    );
}

#[test]
fn equal_service_ranges_leave_the_later_ones_local() {
    let mut world = small();
    world.cluster("acme", "eu", true).service_cidrs = prefixes(&["10.32.0.0/12"]).into();
    world.node("eu", "a", "oslo", &[]);
    world.go();
    world.cluster("acme", "shop", true).service_cidrs = prefixes(&["10.32.0.0/12"]).into();
    world.cluster("acme", "aaa", true).service_cidrs = prefixes(&["10.32.0.0/12"]).into();
    world.node("aaa", "a", "rome", &[]);
    let proposal = world.go();
    for cluster in ["shop", "aaa"] {
        said(
            proposal.refusal("Cluster", cluster),
            "RangeClash",
            &[
                "serviceCidrs of Cluster eu",
                "everything else of the cluster works",
            ],
        );
        assert!(proposal.is_planned(cluster, "a"));
    }
    assert!(
        contents(proposal.segment("acme", "eu.oslo")).contains(&"10.32.0.0/12 Service".to_owned())
    );
}

#[test]
fn a_lan_over_granted_addresses_is_not_exported() {
    let mut world = small();
    world.go();
    world.lan("acme", "oslo", &["10.64.0.0/12"]);
    world.node("shop", "b", "rome", &[]);
    let proposal = world.go();
    said(
        proposal.refusal("Site", "oslo"),
        "RangeClash",
        &[
            "cidrs of Site oslo: 10.64.0.0/12",
            "the pods of Cluster shop",
        ],
    );
}

#[test]
fn sites_and_vpns_without_nodes_wait() {
    let mut world = small();
    world.lan("acme", "dc", &["192.168.40.0/22"]);
    world.vpn("acme", "hq", "dc", &["172.16.0.0/16"]);
    let proposal = world.go();
    said(
        proposal.waiting("Site", "dc"),
        "NoSegment",
        &["no node of a member cluster"],
    );
    said(
        proposal.waiting("VpnAttachment", "hq"),
        "NoSegment",
        &["site dc"],
    );
    // Planned all the same, so that it does not leave in clear.
    assert!(
        proposal
            .plan_of("acme")
            .super_nets
            .contains(p("192.168.40.0/22"))
    );
}

#[test]
fn a_vpn_over_pods_is_refused_and_strangers_in_allow_are_named() {
    let mut world = small();
    world.vpn("acme", "hq", "berlin", &["10.64.0.0/16", "172.16.0.0/16"]);
    let vpn = world.vpn("acme", "lab", "berlin", &["172.18.0.0/16"]);
    vpn.allow_clusters.insert(cluster_name("other"));
    world.go();
    // The block is cut around what the VPN has.
    assert!(world.before.ledgers.values().all(|ledger| {
        ledger
            .grants
            .iter()
            .all(|grant| !grant.prefix.overlaps(p("10.64.0.0/16")))
    }));
    world.vpn("acme", "late", "berlin", &["10.65.0.0/24"]);
    let proposal = world.go();
    said(
        proposal.refusal("VpnAttachment", "late"),
        "RangeClash",
        &[
            "prefixes of VpnAttachment late: 10.65.0.0/24",
            "the pods of Cluster shop",
        ],
    );
    said(
        proposal.waiting("VpnAttachment", "lab"),
        "AllowNotMember",
        &["Cluster other"],
    );
    assert_eq!(proposal.plan_of("acme").vpns.len(), 2);
}

#[test]
fn a_site_has_sixteen_vpns_at_most() {
    let mut world = small();
    for number in 0..17 {
        world.vpn(
            "acme",
            &format!("v{number:02}"),
            "berlin",
            &[&format!("172.16.{number}.0/24")],
        );
    }
    let proposal = world.go();
    said(
        proposal.refusal("VpnAttachment", "v16"),
        "TooManyVpns",
        &["16 VPNs already"],
    );
    world.fleet.vpns.remove(&vpn_name("v03")).unwrap();
    let proposal = world.go();
    let indexes: Vec<(String, u8)> = proposal
        .plan_of("acme")
        .vpns
        .iter()
        .map(|vpn| (vpn.name.to_string(), vpn.index))
        .collect();
    assert!(indexes.contains(&("v02".to_owned(), 2)) && indexes.contains(&("v04".to_owned(), 4)));
    assert!(indexes.contains(&("v16".to_owned(), 3)), "{indexes:?}");
}

#[test]
fn an_unknown_transit_site_is_refused_and_an_empty_one_waits() {
    let mut world = small();
    world.link("acme", &[]).topology.transit_site = Some(site_name("hub"));
    let proposal = world.go();
    said(
        proposal.refusal("ClusterLink", "acme"),
        "TransitSiteUnknown",
        &["hub", "write one of berlin"],
    );
    world.site("hub", &[]);
    said(
        world.go().waiting("ClusterLink", "acme"),
        "TransitSiteEmpty",
        &["hub"],
    );
    world.node("shop", "h", "hub", &[]);
    assert_eq!(world.go().plan_of("acme").transit, Some(site_name("hub")));
}

#[test]
fn a_selector_that_nobody_matches_is_reported() {
    let mut world = small();
    let cluster = world.cluster("acme", "shop", true);
    cluster
        .gateway_selector
        .insert("edge".to_owned(), "yes".to_owned());
    said(
        world.go().waiting("Cluster", "shop"),
        "NoGateway",
        &["shop.berlin", "edge=yes"],
    );
}

#[test]
fn names_that_are_too_long_together_are_refused() {
    let mut world = small();
    let node = vec!["n".repeat(60); 4].join(".");
    world.cluster("acme", &"c".repeat(63), true).sites = SiteSource::Name(site_name("berlin"));
    world.node(&"c".repeat(63), &node, "berlin", &[]);
    said(
        world.go().refusal("Node", &node),
        "NameTooLong",
        &["shorter name"],
    );
}

#[test]
fn a_link_that_is_only_shown_says_what_would_change_and_changes_nothing() {
    let mut world = small();
    world.link("acme", &[]).mode = Mode::Plan;
    let proposal = world.go();
    assert!(proposal.ledgers.is_empty() && proposal.plans.is_empty() && proposal.nodes.is_empty());
    let words = proposal.report.withheld[&link_name("acme")].join("\n");
    for part in [
        "ledger hub: grant 10.64.0.0/16 for Cluster shop (pods)",
        "add segment shop.berlin",
        "shop.a (rank 0)",
    ] {
        assert!(words.contains(part), "{part:?} is not in\n{words}");
    }
    world.link("acme", &[]).mode = Mode::Apply;
    let applied = world.go();
    world.link("acme", &[]).mode = Mode::Plan;
    world.remove_node("shop", "a");
    world.node("shop", "b", "oslo", &[]);
    let frozen = world.go();
    assert_eq!(
        (&frozen.ledgers, &frozen.plans),
        (&applied.ledgers, &applied.plans)
    );
    assert_eq!(
        frozen.nodes.keys().collect::<Vec<_>>(),
        [&node_id("shop", "a")]
    );
    let words = frozen.report.withheld[&link_name("acme")].join("\n");
    assert!(
        words.contains("remove segment shop.berlin")
            && words.contains("release 10.64.0.0/24 of Node a"),
        "{words}"
    );
}
