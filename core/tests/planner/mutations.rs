//! The checker finds what is broken: every kind of corruption of a good proposal.

use crate::support::*;
use std::sync::Arc;
use tieline_core::check::{Finding, Invariant, check};
use tieline_core::fleet::PerFamily;
use tieline_core::ids::{Lineage, NodeName, PeerName, SegmentName};
use tieline_core::ledger::{Grant, Ledger, LedgerName, Owner, State, Use};
use tieline_core::network_plan::{Class, ClassPrefix, NetworkPlan, Segment};
use tieline_core::peer::Scope;
use tieline_core::plan::Proposal;

/// Two clusters over three sites with two gateways each, a LAN, two VPNs, services, both families; one node more than was
/// written before.
fn grown() -> (World, Proposal) {
    let mut world = World::new();
    let link = world.link("acme", &["10.64.0.0/10", "fd64::/40"]);
    link.topology.gateways_per_site = 2;
    link.addressing.reserved = prefixes(&["10.127.0.0/16"]).into();
    for cluster in ["eu", "us"] {
        world.cluster("acme", cluster, true);
        for site in ["berlin", "oslo"] {
            for number in 1..=3 {
                world.node(cluster, &format!("{site}-{number}"), site, &[]);
            }
        }
    }
    world.cluster("acme", "eu", true).service_cidrs = prefixes(&["172.20.0.0/16"]).into();
    world.lan("acme", "berlin", &["192.168.40.0/22"]);
    world.vpn("acme", "hq", "berlin", &["172.16.0.0/16"]);
    world.vpn("acme", "lab", "berlin", &["172.17.0.0/16"]);
    world.address("eu", "berlin-1", "203.0.113.1", Scope::Public);
    world.go();
    world.node("us", "rome-1", "rome", &[]);
    let proposal = world.look();
    (world, proposal)
}

/// What has to be among the findings: an invariant, and what its message names.
#[derive(Debug, Clone, Copy)]
struct Expected(Invariant, &'static str);

fn any(invariant: Invariant) -> Expected {
    Expected(invariant, "")
}

fn names(invariant: Invariant, what: &'static str) -> Expected {
    Expected(invariant, what)
}

fn expect(what: &str, findings: &[Finding], expected: Expected) {
    let Expected(invariant, names) = expected;
    assert!(
        findings
            .iter()
            .any(|finding| finding.invariant == invariant && finding.message.contains(names)),
        "{what}: {expected:?} is not among {findings:#?}"
    );
}

fn corrupt(what: &str, change: impl FnOnce(&mut Proposal), expected: Expected) {
    let (world, mut proposal) = grown();
    change(&mut proposal);
    let findings = check(&world.fleet, &world.before, &proposal);
    expect(what, &findings, expected);
}

fn hub(proposal: &mut Proposal) -> &mut Ledger {
    Arc::make_mut(proposal.ledgers.get_mut(&LedgerName::Hub).unwrap())
}

fn ledger<'p>(proposal: &'p mut Proposal, cluster: &str) -> &'p mut Ledger {
    let name = LedgerName::Cluster(cluster_name(cluster));
    Arc::make_mut(proposal.ledgers.get_mut(&name).unwrap())
}

fn acme(proposal: &mut Proposal) -> &mut NetworkPlan {
    proposal.plans.get_mut(&link_name("acme")).unwrap()
}

fn segment<'p>(proposal: &'p mut Proposal, name: &str) -> &'p mut Segment {
    acme(proposal)
        .segments
        .iter_mut()
        .find(|segment| segment.name.as_str() == name)
        .unwrap()
}

fn add(ledger: &mut Ledger, prefix: &str, used_for: Use, owner: Owner, state: State) {
    ledger.grants.push(Grant {
        prefix: p(prefix),
        used_for,
        owner,
        state,
    });
    ledger.grants.sort_unstable();
    ledger.revision += 1;
}

fn cluster(name: &str) -> Owner {
    Owner::Cluster(cluster_name(name))
}

fn node(name: &str) -> Owner {
    Owner::Node(NodeName::new(name).unwrap())
}

#[test]
fn blocks_that_overlap_or_touch_what_is_somebody_elses() {
    use State::{Active, Imported};
    let cases = [
        (
            "10.64.128.0/17",
            Use::Pod,
            "us",
            Active,
            names(Invariant::NoOverlap, "10.64.0.0/16 of Cluster eu"),
        ),
        (
            "10.64.128.0/17",
            Use::Mesh,
            "eu",
            Active,
            names(Invariant::NoOverlap, "10.64.0.0/16 of Cluster eu"),
        ),
        (
            "10.127.0.0/17",
            Use::Pod,
            "us",
            Active,
            names(Invariant::BlockIsFree, "Reserved"),
        ),
        (
            "10.0.0.0/16",
            Use::Pod,
            "us",
            Active,
            any(Invariant::BlockInPools),
        ),
        (
            "172.20.0.0/24",
            Use::Pod,
            "us",
            Imported,
            names(Invariant::BlockIsFree, "Services"),
        ),
        (
            "192.168.41.0/24",
            Use::Pod,
            "us",
            Active,
            names(Invariant::BlockIsFree, "Site"),
        ),
        (
            "172.16.3.0/24",
            Use::Pod,
            "us",
            Imported,
            names(Invariant::BlockIsFree, "Vpn"),
        ),
        (
            "10.99.0.0/16",
            Use::Pod,
            "nobody",
            Active,
            any(Invariant::BlockIsPlanned),
        ),
    ];
    for (prefix, used_for, owner, state, expected) in cases {
        corrupt(
            prefix,
            |proposal| add(hub(proposal), prefix, used_for, cluster(owner), state),
            expected,
        );
    }
    corrupt(
        "an owner of another level",
        |proposal| add(hub(proposal), "10.99.0.0/16", Use::Pod, node("x"), Active),
        any(Invariant::OwnerFits),
    );
}

#[test]
fn grants_that_vanish_move_or_change_their_state() {
    corrupt(
        "a block is gone",
        |proposal| drop(hub(proposal).grants.remove(0)),
        any(Invariant::GrantStays),
    );
    corrupt(
        "a node's share is gone",
        |proposal| {
            ledger(proposal, "eu")
                .grants
                .retain(|grant| grant.owner != node("oslo-1"))
        },
        any(Invariant::GrantStays),
    );
    corrupt(
        "a share is released",
        |proposal| {
            let grants = &mut ledger(proposal, "eu").grants;
            grants
                .iter_mut()
                .find(|grant| grant.owner == node("oslo-1"))
                .unwrap()
                .state = State::Released;
        },
        any(Invariant::GrantStaysLive),
    );
    corrupt(
        "a block's state changes",
        |proposal| hub(proposal).grants[0].state = State::Imported,
        any(Invariant::StateStays),
    );
    corrupt(
        "a ledger is gone",
        |proposal| drop(proposal.ledgers.remove(&LedgerName::Hub)),
        any(Invariant::LedgerStays),
    );
}

#[test]
fn shares_that_overlap_or_lie_elsewhere() {
    use State::{Active, Imported, Released};
    let pod = |prefix: &'static str, state, expected| {
        corrupt(
            prefix,
            move |proposal| {
                add(
                    ledger(proposal, "eu"),
                    prefix,
                    Use::Pod,
                    node("berlin-9"),
                    state,
                )
            },
            expected,
        );
    };
    pod(
        "10.64.0.0/25",
        Imported,
        names(Invariant::NoOverlap, "10.64.0.0/24 of Node berlin-1"),
    );
    pod(
        "10.64.0.0/25",
        Released,
        names(Invariant::NoOverlap, "10.64.0.0/24 of Node berlin-1"),
    );
    pod("10.65.3.0/24", Imported, any(Invariant::InBlocks));
    pod("10.64.200.0/24", Active, any(Invariant::InChunk));
    corrupt(
        "a chunk over a chunk",
        |proposal| {
            add(
                ledger(proposal, "eu"),
                "10.64.8.0/24",
                Use::Pod,
                Owner::Site(site_name("rome")),
                Active,
            )
        },
        names(Invariant::NoOverlap, "10.64.0.0/20 of Site berlin"),
    );
    corrupt(
        "a node in another site's chunk",
        |proposal| {
            let id = node_id("eu", "oslo-1");
            proposal.nodes.get_mut(&id).unwrap().site = site_name("berlin");
        },
        names(Invariant::InOwnSite, "is in Site berlin"),
    );
    corrupt(
        "one mesh address twice",
        |proposal| {
            add(
                ledger(proposal, "eu"),
                "100.127.0.0/32",
                Use::Mesh,
                node("x"),
                Active,
            )
        },
        names(Invariant::OneHolder, "to Node"),
    );
    corrupt(
        "parents",
        |proposal| ledger(proposal, "us").parents.remove(p("10.65.0.0/16")),
        any(Invariant::ParentsAreBlocks),
    );
    corrupt(
        "a cluster in a cluster's ledger",
        |proposal| {
            add(
                ledger(proposal, "us"),
                "10.65.0.0/16",
                Use::Pod,
                cluster("us"),
                Active,
            )
        },
        names(Invariant::OwnerFits, "to Cluster us"),
    );
    corrupt(
        "order",
        |proposal| ledger(proposal, "us").grants.reverse(),
        any(Invariant::GrantsAreSorted),
    );
}

#[test]
fn revisions_that_fall_or_stand_still() {
    corrupt(
        "hub falls",
        |proposal| hub(proposal).revision = 0,
        any(Invariant::RevisionRests),
    );
    corrupt(
        "cluster changes without a new revision",
        |proposal| ledger(proposal, "us").revision = 1,
        any(Invariant::RevisionRises),
    );
    corrupt(
        "cluster counts without a change",
        |proposal| ledger(proposal, "eu").revision += 1,
        any(Invariant::RevisionRests),
    );
    corrupt(
        "plan falls",
        |proposal| acme(proposal).revision = 0,
        any(Invariant::RevisionRises),
    );
    corrupt(
        "lineage",
        |proposal| hub(proposal).lineage = Lineage::new("another0lineage").unwrap(),
        any(Invariant::LineageStays),
    );
    let (mut world, _) = grown();
    let hub = world.before.ledgers.get_mut(&LedgerName::Hub);
    Arc::make_mut(hub.unwrap()).revision = 9;
    let mut proposal = world.look();
    assert_eq!(acme(&mut proposal).revision, 10);
    acme(&mut proposal).revision = 9;
    let findings = check(&world.fleet, &world.before, &proposal);
    expect(
        "a plan below the hub",
        &findings,
        names(Invariant::RevisionRises, "above 9"),
    );
    let (world, mut proposal) = {
        let (mut world, _) = grown();
        let proposal = world.go();
        (world, proposal)
    };
    acme(&mut proposal).revision += 1;
    let findings = check(&world.fleet, &world.before, &proposal);
    expect(
        "a plan that counts",
        &findings,
        any(Invariant::RevisionRests),
    );
}

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
fn nodes_that_are_told_something_else() {
    fn told(proposal: &mut Proposal) -> &mut tieline_core::plan::NodePlan {
        proposal.nodes.get_mut(&node_id("us", "rome-1")).unwrap()
    }
    corrupt(
        "pods",
        |proposal| told(proposal).pod_cidrs[0] = p("10.65.99.0/24"),
        any(Invariant::PodsAsGranted),
    );
    corrupt(
        "mesh",
        |proposal| told(proposal).mesh_addresses[0] = "100.127.0.77".parse().unwrap(),
        any(Invariant::MeshAsGranted),
    );
    corrupt(
        "assigned",
        |proposal| told(proposal).assign = false,
        any(Invariant::AssignedOnce),
    );
    corrupt(
        "peer",
        |proposal| told(proposal).peer = PeerName::new("us.oslo-1").unwrap(),
        any(Invariant::OwnPeer),
    );
    corrupt(
        "segment",
        |proposal| told(proposal).segment = SegmentName::new("us.oslo").unwrap(),
        names(Invariant::InOwnSegment, "Cluster us in Site rome"),
    );
    corrupt(
        "link",
        |proposal| told(proposal).link = link_name("beta"),
        any(Invariant::LinkHasPlan),
    );
    let (mut world, proposal) = grown();
    world.node("us", "rome-1", "rome", &["10.65.200.0/24"]);
    let findings = check(&world.fleet, &world.before, &proposal);
    expect(
        "a podCIDR of its own",
        &findings,
        any(Invariant::PodCidrsAsObserved),
    );
    world.remove_node("us", "rome-1");
    let findings = check(&world.fleet, &world.before, &proposal);
    expect("a node that is gone", &findings, any(Invariant::NodeExists));
}

#[test]
fn a_good_proposal_has_no_findings_in_small_blocks_either() {
    let (mut world, _) = grown();
    world.link("acme", &[]).addressing.node_prefix_len = PerFamily { v4: 26, v6: 64 };
    for number in 0..40 {
        world.node("us", &format!("many-{number:02}"), "rome", &[]);
    }
    world.go();
}
