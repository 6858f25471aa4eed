//! 1,000 random fleets, each grown by a random history, and a digest of everything that was decided at each step, recorded from
//! commit bf19959, before the planner had two levels. What is decided then is decided now.
//!
//! The histories come from proptest's strategies with a fixed seed. Another proptest may make others: then the record is made
//! anew with the planner of a commit at which it held.

use crate::histories::{apply, beginning, event};
use crate::support::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use tieline_core::plan::{Proposal, plan};

const FLEETS: usize = 1000;
/// A line a fleet.
const RECORD: &str = include_str!("recorded.txt");

/// Everything that a proposal says, as text that does not depend on how it is held in memory.
pub fn said(proposal: &Proposal) -> String {
    let mut text = String::new();
    for (name, ledger) in &proposal.ledgers {
        let (lineage, revision, parents) = (&ledger.lineage, ledger.revision, &ledger.parents);
        writeln!(text, "{name} {lineage} {revision} {parents}").unwrap();
        for grant in &ledger.grants {
            writeln!(text, "  {}", grant_text(grant)).unwrap();
        }
    }
    for plan in proposal.plans.values() {
        writeln!(text, "{}", serde_json::to_string(plan).unwrap()).unwrap();
    }
    for (id, node) in &proposal.nodes {
        let (link, peer, site, segment) = (&node.link, &node.peer, &node.site, &node.segment);
        write!(text, "{id}: {link} {peer} {site} {segment} ").unwrap();
        let (pods, mesh, rank) = (&node.pod_cidrs, &node.mesh_addresses, node.gateway_rank);
        let given = if node.assign { &pods[..] } else { &[] };
        let addresses = &node.addresses;
        writeln!(text, "{pods:?} {mesh:?} {rank:?} {addresses:?} {given:?}").unwrap();
    }
    let report = &proposal.report;
    for notice in report.refusals.iter().chain(&report.waiting) {
        let link = notice.link.as_ref().map_or("-", |link| link.as_str());
        writeln!(text, "{link}: {notice}").unwrap();
    }
    for (link, words) in &report.withheld {
        writeln!(text, "{link}: {words:?}").unwrap();
    }
    text
}

#[test]
fn a_thousand_random_fleets_are_planned_as_they_were_before_there_were_two_levels() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[9; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let histories = prop::collection::vec(event(), 1..40);
    let mut record = String::new();
    for _ in 0..FLEETS {
        let events = histories.new_tree(&mut runner).unwrap().current();
        let mut world = beginning();
        let mut digest = Sha256::new();
        let mut last = plan(&world.fleet, &world.before);
        for event in &events {
            digest.update(said(&last));
            world.before = written(&world.before, &last);
            apply(&mut world, event, &last);
            last = plan(&world.fleet, &world.before);
        }
        digest.update(said(&last));
        for byte in &digest.finalize()[..8] {
            write!(record, "{byte:02x}").unwrap();
        }
        record.push('\n');
    }
    let different: Vec<usize> = RECORD
        .lines()
        .zip(record.lines())
        .enumerate()
        .filter(|(_, (was, is))| was != is)
        .map(|(fleet, _)| fleet)
        .collect();
    assert_eq!(RECORD.lines().count(), FLEETS);
    assert_eq!(
        different,
        [] as [usize; 0],
        "fleets that are planned otherwise than they were"
    );
}
