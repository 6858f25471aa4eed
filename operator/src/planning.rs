//! The one place where this program asks `core` for a plan and for its proof: everything, or what follows from some nodes. Pure.

use std::collections::BTreeSet;
use tieline_core::check::{Finding, check};
use tieline_core::fleet::Fleet;
use tieline_core::ids::{ClusterName, LinkName, NodeId};
use tieline_core::ledger::LedgerName;
use tieline_core::plan::{Before, Notice, Proposal, plan};

/// A plan that goes on from what it proposed last.
#[derive(Debug, Clone)]
pub struct Planning {
    proposal: Proposal,
}

/// What is different in a proposal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replanned {
    /// Nodes whose plan is another, or that are planned no longer.
    pub nodes: BTreeSet<NodeId>,
    /// Ledgers that have another revision.
    pub ledgers: BTreeSet<LedgerName>,
    /// Links of which a notice came or went.
    pub noticed: BTreeSet<Option<LinkName>>,
    /// Whether a NetworkPlan, or what is withheld from one, is another: that concerns more than the nodes above.
    pub plans: bool,
}

impl Planning {
    /// Plans everything, and proves it.
    #[must_use]
    pub fn full(fleet: &Fleet, before: &Before) -> (Self, Vec<Finding>) {
        let proposal = plan(fleet, before);
        let findings = check(fleet, before, &proposal);
        (Self { proposal }, findings)
    }

    /// Plans again after only nodes of these clusters came, left or changed. `before` is what was proposed last.
    pub fn nodes_changed(
        &mut self,
        fleet: &Fleet,
        before: &Before,
        _clusters: &BTreeSet<ClusterName>,
    ) -> (Replanned, Vec<Finding>) {
        let (next, findings) = Self::full(fleet, before);
        let last = std::mem::replace(self, next).proposal;
        (replanned(&last, &self.proposal), findings)
    }

    /// What is to be written.
    #[must_use]
    pub fn proposal(&self) -> &Proposal {
        &self.proposal
    }
}

fn replanned(last: &Proposal, next: &Proposal) -> Replanned {
    let mut found = Replanned {
        plans: last.plans != next.plans || last.report.withheld != next.report.withheld,
        ..Replanned::default()
    };
    for (id, node) in &next.nodes {
        if last.nodes.get(id) != Some(node) {
            found.nodes.insert(id.clone());
        }
    }
    let gone = last.nodes.keys().filter(|id| !next.nodes.contains_key(*id));
    found.nodes.extend(gone.cloned());
    for (name, ledger) in &next.ledgers {
        let revision = last.ledgers.get(name).map(|it| it.revision);
        if revision != Some(ledger.revision) {
            found.ledgers.insert(name.clone());
        }
    }
    for (a, b) in [
        (&last.report.refusals, &next.report.refusals),
        (&last.report.waiting, &next.report.waiting),
    ] {
        let (a, b): (BTreeSet<&Notice>, BTreeSet<&Notice>) =
            (a.iter().collect(), b.iter().collect());
        let changed = a.symmetric_difference(&b);
        found.noticed.extend(changed.map(|it| it.link.clone()));
    }
    found
}
