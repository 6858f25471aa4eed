//! Network plans: links, gateways, segments, VPNs.

use super::*;

#[test]
fn gateways_that_double_leave_or_are_strangers() {
    let peer = |name: &str| PeerName::new(name).unwrap();
    corrupt(
        "rank twice",
        |proposal| segment(proposal, "eu.oslo").gateways[1].rank = 0,
        any(Invariant::GatewaysAreUnique),
    );
    corrupt(
        "a stranger",
        |proposal| segment(proposal, "eu.oslo").gateways[1].peer = peer("eu.berlin-3"),
        names(Invariant::GatewayInSegment, "eu.oslo"),
    );
    corrupt(
        "a rank too high",
        |proposal| segment(proposal, "eu.oslo").gateways[1].rank = 2,
        names(Invariant::RankInBounds, "2 gateway(s)"),
    );
    corrupt(
        "one is replaced",
        |proposal| segment(proposal, "eu.oslo").gateways[0].peer = peer("eu.oslo-3"),
        any(Invariant::GatewayStays),
    );
    corrupt(
        "one is dropped",
        |proposal| drop(segment(proposal, "eu.oslo").gateways.remove(0)),
        any(Invariant::GatewayStays),
    );
    corrupt(
        "the node disagrees",
        |proposal| {
            proposal
                .nodes
                .get_mut(&node_id("eu", "oslo-3"))
                .unwrap()
                .gateway_rank = Some(0)
        },
        any(Invariant::RankAsInSegment),
    );
    let (mut world, proposal) = grown();
    world
        .cluster("acme", "eu", true)
        .gateway_selector
        .insert("edge".to_owned(), "yes".to_owned());
    let findings = check(&world.fleet, &world.before, &proposal);
    expect("a selector", &findings, any(Invariant::GatewayIsSelected));
}

#[test]
fn segments_that_carry_too_much_too_little_or_the_same() {
    let entry = |prefix: &str, class| ClassPrefix {
        prefix: p(prefix),
        class,
    };
    let with = |name: &'static str, prefix: &'static str, class, expected| {
        corrupt(
            prefix,
            move |proposal| {
                let segment = segment(proposal, name);
                segment.prefixes.push(entry(prefix, class));
                segment.prefixes.sort_unstable();
            },
            expected,
        );
    };
    with(
        "eu.oslo",
        "10.65.0.0/24",
        Class::Pod,
        any(Invariant::CarriesGranted),
    );
    with(
        "eu.oslo",
        "10.64.0.0/24",
        Class::Pod,
        names(Invariant::NoOverlap, "10.64.0.0/20 of segment eu.berlin"),
    );
    with(
        "us.oslo",
        "172.21.0.0/16",
        Class::Service,
        any(Invariant::MayCarry),
    );
    with(
        "eu.oslo",
        "172.20.0.0/16",
        Class::Service,
        any(Invariant::MayCarry),
    );
    with(
        "eu.oslo",
        "10.10.0.0/16",
        Class::Lan,
        any(Invariant::MayCarry),
    );
    with(
        "eu.oslo",
        "172.18.0.0/16",
        Class::Vpn,
        any(Invariant::MayCarry),
    );
    with(
        "eu.oslo",
        "198.51.100.0/24",
        Class::Lan,
        any(Invariant::InSuperNets),
    );
    corrupt(
        "a segment without its pods",
        |proposal| {
            segment(proposal, "us.rome")
                .prefixes
                .retain(|entry| entry.class != Class::Pod)
        },
        any(Invariant::CarriesShares),
    );
    corrupt(
        "a segment is gone",
        |proposal| {
            acme(proposal)
                .segments
                .retain(|segment| segment.name.as_str() != "us.rome")
        },
        names(Invariant::InOwnSegment, "us.rome"),
    );
    corrupt(
        "an unknown site",
        |proposal| segment(proposal, "us.rome").site = site_name("mars"),
        any(Invariant::PartsAreListed),
    );
    corrupt(
        "order",
        |proposal| acme(proposal).segments.reverse(),
        any(Invariant::ListsAreSorted),
    );
    corrupt(
        "the transit site is empty",
        |proposal| acme(proposal).transit = Some(site_name("mars")),
        any(Invariant::TransitHasSegment),
    );
    corrupt(
        "pod ranges",
        |proposal| acme(proposal).clusters[0].pod_cidrs = prefixes(&["10.64.0.0/17"]).into(),
        any(Invariant::ClusterAsGranted),
    );
    corrupt(
        "super-nets",
        |proposal| acme(proposal).super_nets.remove(p("10.64.0.0/24")),
        any(Invariant::InSuperNets),
    );
    corrupt(
        "a bypass into pods",
        |proposal| acme(proposal).bypass.insert(p("10.64.0.7/32")),
        any(Invariant::BypassIsForeign),
    );
    corrupt(
        "a foreign member",
        |proposal| acme(proposal).clusters[1].name = cluster_name("zz"),
        any(Invariant::IsMember),
    );
    corrupt(
        "no plan",
        |proposal| drop(proposal.plans.remove(&link_name("acme"))),
        any(Invariant::LinkHasPlan),
    );
}

#[test]
fn vpns_that_share_an_index_or_end_nowhere() {
    corrupt(
        "index shared",
        |proposal| acme(proposal).vpns[1].index = 0,
        names(Invariant::VpnIndexIsUnique, "index 0"),
    );
    corrupt(
        "index changed",
        |proposal| acme(proposal).vpns[1].index = 5,
        any(Invariant::VpnIndexStays),
    );
    corrupt(
        "index too high",
        |proposal| acme(proposal).vpns[1].index = 16,
        any(Invariant::VpnIndexInBounds),
    );
    corrupt(
        "no such segment",
        |proposal| acme(proposal).vpns[0].segment = SegmentName::new("eu.mars").unwrap(),
        names(Invariant::VpnEndsInSite, "Site berlin"),
    );
    corrupt(
        "other allow",
        |proposal| {
            acme(proposal).vpns[0]
                .allow
                .clusters
                .insert(cluster_name("us"))
                .then_some(())
                .unwrap()
        },
        any(Invariant::VpnAsWanted),
    );
    corrupt(
        "other ranges",
        |proposal| acme(proposal).vpns[0].prefixes.insert(p("172.18.0.0/16")),
        any(Invariant::VpnIsCarried),
    );
}

#[test]
fn plans_of_no_link_of_two_links_or_without_a_node() {
    let beta = |proposal: &mut Proposal| {
        let mut plan = acme(proposal).clone();
        plan.link = link_name("beta");
        proposal.plans.insert(link_name("beta"), plan);
    };
    corrupt(
        "a plan of no link",
        beta,
        names(Invariant::LinkExists, "beta"),
    );
    corrupt(
        "a cluster in two plans",
        beta,
        names(Invariant::OneLinkEach, "ClusterLinks acme and beta"),
    );
    corrupt(
        "a segment whose node is gone",
        |proposal| drop(proposal.nodes.remove(&node_id("us", "rome-1"))),
        names(Invariant::SegmentHasNode, "us.rome"),
    );
}
