//! The checker finds what is broken: every kind of corruption of a good proposal.

mod ledgers;
mod nodes;
mod plans;

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
fn every_invariant_has_a_mutation() {
    let names = include_str!("../../../src/check/invariant.rs").lines();
    let names = names.filter_map(|line| line.strip_prefix("    ")?.strip_suffix(','));
    let names: Vec<&str> = names
        .filter(|name| name.starts_with(|first: char| first.is_ascii_uppercase()))
        .collect();
    let mutations = [
        include_str!("ledgers.rs"),
        include_str!("nodes.rs"),
        include_str!("plans.rs"),
    ]
    .concat();
    let missing: Vec<&&str> = names
        .iter()
        .filter(|name| {
            let named = |end| mutations.contains(&format!("Invariant::{name}{end}"));
            !named(')') && !named(',')
        })
        .collect();
    assert!(names.len() > 50 && missing.is_empty(), "{missing:?}");
}
