//! A planner that is carried from change to change, beside a whole pass after each.

use super::events::{Event, SITES, apply, beginning, calm_event, event, node_event};
use crate::support::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeSet;
use std::sync::Arc;
use tieline_core::check;
use tieline_core::fleet::Fleet;
use tieline_core::ids::NodeId;
use tieline_core::ledger::{Ledger, LedgerName, State};
use tieline_core::plan::{NodePlan, Planner, Proposal, Touched, plan};

/// Nodes that differ between two fleets.
fn changed_nodes(one: &Fleet, other: &Fleet) -> BTreeSet<NodeId> {
    let differ = |a: &Fleet, b: &Fleet| -> BTreeSet<NodeId> {
        let nodes = a.nodes.iter();
        let differ = nodes.filter(|(id, node)| b.nodes.get(*id) != Some(*node));
        differ.map(|(id, _)| id.clone()).collect()
    };
    let mut changed = differ(one, other);
    changed.extend(differ(other, one));
    changed
}

/// What a planner with a fault could propose instead, about the nodes that it touched and about others.
fn breakages(proposal: &Proposal, touched: &Touched) -> Vec<Proposal> {
    let mut broken = Vec::new();
    if !touched.singly {
        return broken;
    }
    for name in touched.clusters.iter().cloned().map(LedgerName::Cluster) {
        let grants = proposal.ledgers.get(&name).map_or(0, |it| it.grants.len());
        let mut with = |change: &dyn Fn(&mut Ledger)| {
            let mut other = proposal.clone();
            if let Some(ledger) = other.ledgers.get_mut(&name) {
                let ledger = Arc::make_mut(ledger);
                change(ledger);
                ledger.grants.sort();
                broken.push(other);
            }
        };
        with(&|ledger| ledger.revision -= 1);
        with(&|ledger| ledger.parents = Default::default());
        for at in (0..grants).step_by(grants / 3 + 1) {
            with(&|ledger| drop(ledger.grants.remove(at)));
            with(&|ledger| ledger.grants[at].state = State::Released);
            with(&|ledger| ledger.grants[at].prefix = ledger.grants[grants - 1 - at].prefix);
            with(&|ledger| ledger.grants[at].owner = ledger.grants[grants - 1 - at].owner.clone());
        }
    }
    for id in &touched.nodes {
        let mut with = |change: &dyn Fn(&mut NodePlan)| {
            let mut other = proposal.clone();
            if let Some(node) = other.nodes.get_mut(id) {
                change(node);
                broken.push(other);
            }
        };
        with(&|node| node.pod_cidrs.clear());
        with(&|node| node.mesh_addresses.clear());
        with(&|node| node.gateway_rank = Some(3));
        with(&|node| node.assign = !node.assign);
        with(&|node| node.site = SITES[2].parse().unwrap());
    }
    broken
}

/// What a planner that is carried on proposes is what a whole pass proposes, and it says what it touched.
fn carry_on(events: &[Event], gateways: u8) -> [usize; 6] {
    let mut world = beginning();
    world.link("acme", &[]).topology.gateways_per_site = gateways;
    let mut planner = Planner::new(&world.fleet, world.before.clone());
    let mut ways = [0; 6];
    for (steps, event) in events.iter().enumerate() {
        let last = planner.proposal().clone();
        let fleet = world.fleet.clone();
        apply(&mut world, event, &last);
        let nodes = std::mem::replace(&mut world.fleet.nodes, fleet.nodes.clone());
        let only_nodes = world.fleet == fleet;
        world.fleet.nodes = nodes;
        world.before = written(&world.before, &last);
        let changed = changed_nodes(&fleet, &world.fleet);
        if only_nodes {
            planner.nodes_changed(&world.fleet, &changed);
        } else {
            planner = Planner::new(&world.fleet, world.before.clone());
        }
        let whole = plan(&world.fleet, &world.before);
        assert_same(&whole, planner.proposal(), "carried on, it is another plan");
        assert_eq!(planner.before(), &world.before);
        let touched = planner.touched();
        let findings = check::touched(&world.fleet, &world.before, &whole, touched, &changed);
        assert_eq!(findings, []);
        // These cost much more than what they are about.
        let broken =
            (whole.ledgers != last.ledgers && steps % 3 == 0).then(|| breakages(&whole, touched));
        for broken in broken.into_iter().flatten() {
            let all = check::check(&world.fleet, &world.before, &broken);
            let some = check::touched(&world.fleet, &world.before, &broken, touched, &changed);
            assert_eq!(some.is_empty(), all.is_empty(), "{all:?}");
            ways[5] += usize::from(!all.is_empty());
        }
        if touched.everything {
            ways[0] += 1;
            continue;
        }
        ways[match (touched.hub, touched.singly) {
            (true, _) => 1,
            (false, false) => 2,
            (false, true) if whole.ledgers == last.ledgers => 3,
            (false, true) => 4,
        }] += 1;
        assert!(
            touched.hub
                || (whole.plans == last.plans
                    && whole.ledgers.get(&LedgerName::Hub) == last.ledgers.get(&LedgerName::Hub))
        );
        for (name, ledger) in &whole.ledgers {
            if let LedgerName::Cluster(cluster) = name {
                assert!(
                    touched.clusters.contains(cluster) || last.ledgers.get(name) == Some(ledger)
                );
            }
        }
        for id in whole.nodes.keys().chain(last.nodes.keys()) {
            let same = whole.nodes.get(id) == last.nodes.get(id);
            assert_eq!(touched.nodes.contains(id), !same, "{id}");
        }
    }
    ways
}

#[test]
fn a_planner_that_is_carried_on_proposes_what_a_whole_pass_proposes_over_300_histories() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    // Twice as many events of nodes as the other histories have.
    let step = prop_oneof![event(), node_event()];
    let wild = prop::collection::vec(step, 20..60);
    let calm = prop::collection::vec(calm_event(), 20..60);
    let mut ways = [0; 6];
    for number in 0..300_u16 {
        let tree = if number % 3 == 0 {
            wild.new_tree(&mut runner).map(|tree| tree.current())
        } else {
            calm.new_tree(&mut runner).map(|tree| tree.current())
        };
        for (sum, more) in ways
            .iter_mut()
            .zip(carry_on(&tree.unwrap(), (number / 3 % 3) as u8 + 1))
        {
            *sum += more;
        }
    }
    assert!(
        ways.iter().all(|way| *way > 200),
        "whole, hub, cluster alone, nodes alone, these with another ledger, faults that are found: {ways:?}"
    );
}
