//! Invariants of the design over random histories: whatever users and clusters do, in whatever order.

mod carried;
mod events;

pub use events::{apply, beginning, event};

use crate::support::*;
use events::Event;
use proptest::prelude::*;
use tieline_core::cidr::{Family, Prefix};
use tieline_core::fleet::{Fleet, Mode};
use tieline_core::ids::NodeId;
use tieline_core::ledger::{LedgerName, Owner, State, Use};
use tieline_core::notice::About;
use tieline_core::plan::{Proposal, plan};

/// The same fleet, put together in another order.
fn shuffled(fleet: &Fleet) -> Fleet {
    let mut other = Fleet::default();
    for (id, node) in fleet.nodes.iter().rev() {
        let mut node = node.clone();
        node.pod_cidrs.reverse();
        node.addresses.reverse();
        other.nodes.insert(id.clone(), node);
    }
    other.vpns.extend(fleet.vpns.clone().into_iter().rev());
    other.sites.extend(fleet.sites.clone().into_iter().rev());
    other
        .clusters
        .extend(fleet.clusters.clone().into_iter().rev());
    other.links.extend(fleet.links.clone().into_iter().rev());
    other
}

/// Invariant 1, the slow and obvious way: nothing live of different owners overlaps.
fn nothing_overlaps(proposal: &Proposal) {
    for (name, ledger) in &proposal.ledgers {
        let live: Vec<_> = ledger
            .grants
            .iter()
            .filter(|grant| grant.state != State::Released)
            .collect();
        for (at, a) in live.iter().enumerate() {
            for b in &live[at + 1..] {
                let levels_differ = a.owner.kind() != b.owner.kind();
                let same = a.owner == b.owner && a.used_for == b.used_for;
                assert!(
                    levels_differ || same || !a.prefix.overlaps(b.prefix),
                    "{name}: {a:?} and {b:?}"
                );
            }
        }
    }
    let live = |name: &LedgerName| {
        proposal
            .ledgers
            .get(name)
            .map(|l| l.grants.clone())
            .unwrap_or_default()
    };
    let mut shares: Vec<(Prefix, NodeId)> = Vec::new();
    for name in proposal.ledgers.keys() {
        if let LedgerName::Cluster(cluster) = name {
            for grant in live(name)
                .iter()
                .filter(|grant| grant.state != State::Released)
            {
                if let Owner::Node(node) = &grant.owner {
                    shares.push((
                        grant.prefix,
                        NodeId {
                            cluster: cluster.clone(),
                            node: node.clone(),
                        },
                    ));
                }
            }
        }
    }
    for (at, (a, of)) in shares.iter().enumerate() {
        for (b, owner) in &shares[at + 1..] {
            assert!(
                of == owner || !a.overlaps(*b),
                "{a} of {of} and {b} of {owner}"
            );
        }
    }
}

/// Invariant 2: what is granted stays granted, unless its node is gone or shows another range.
fn nothing_moves(world: &World, proposal: &Proposal) {
    for (name, old) in &world.before.ledgers {
        for grant in old
            .grants
            .iter()
            .filter(|grant| grant.state != State::Released)
        {
            let still = proposal.ledgers[name].grants.iter().any(|now| {
                now.prefix == grant.prefix
                    && now.owner == grant.owner
                    && now.used_for == grant.used_for
                    && now.state != State::Released
            });
            let gone = match (name, &grant.owner) {
                (LedgerName::Cluster(cluster), Owner::Node(node)) => {
                    let id = NodeId {
                        cluster: cluster.clone(),
                        node: node.clone(),
                    };
                    world.fleet.nodes.get(&id).is_none_or(|node| {
                        grant.used_for == Use::Pod
                            && !node.pod_cidrs.is_empty()
                            && !node.pod_cidrs.contains(&grant.prefix)
                    })
                }
                _ => false,
            };
            assert!(still || gone, "{name}: {grant:?} is taken away");
        }
    }
}

/// A plan that is new or changes is above every plan of before, and above what the hub's ledger remembers of plans that
/// are gone.
fn revisions_only_rise(highest: &mut u64, world: &World, proposal: &Proposal) {
    let before = *highest;
    for (link, plan) in &proposal.plans {
        assert!(
            world.before.plans.get(link) == Some(plan) || plan.revision > before,
            "plan {link} has revision {}, and {before} has been there",
            plan.revision
        );
        *highest = plan.revision.max(*highest);
    }
}

/// Invariants 4 and 5: whoever is not planned can read why.
fn everyone_left_out_is_told(world: &World, proposal: &Proposal) {
    let report = &proposal.report;
    for (id, node) in &world.fleet.nodes {
        let member = world
            .fleet
            .links
            .values()
            .any(|link| link.mode == Mode::Apply && link.clusters.contains(&id.cluster));
        if !member
            || proposal.nodes.contains_key(id)
            || !world.fleet.clusters.contains_key(&id.cluster)
        {
            continue;
        }
        let told =
            report
                .refusals
                .iter()
                .chain(&report.waiting)
                .any(|notice| match &notice.about {
                    About::Node(node) => {
                        node == id && notice.message.contains(&format!("Cluster {}", id.cluster))
                    }
                    About::Cluster(cluster) => *cluster == id.cluster,
                    _ => false,
                });
        assert!(
            told,
            "{id} ({node:?}) is left out without a word: {report:#?}"
        );
    }
}

fn run(events: &[Event]) {
    let mut world = beginning();
    let mut last = world.go();
    let mut highest = 0;
    for event in events {
        apply(&mut world, event, &last);
        let proposal = world.look();
        let other = plan(&shuffled(&world.fleet), &world.before);
        assert_same(&proposal, &other, "the order of the input decides");
        nothing_overlaps(&proposal);
        nothing_moves(&world, &proposal);
        revisions_only_rise(&mut highest, &world, &proposal);
        everyone_left_out_is_told(&world, &proposal);
        world.before = written(&world.before, &proposal);
        last = proposal;
    }
    let families = last
        .nodes
        .values()
        .flat_map(|node| &node.mesh_addresses)
        .map(|address| Family::of(*address));
    assert!(families.count() <= 2 * last.nodes.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 2, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_over_any_history(events in prop::collection::vec(event(), 1..40)) {
        run(&events);
    }
}
