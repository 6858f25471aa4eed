//! The one place where this program asks `core` for a plan and for its proof: everything, or what follows from some nodes. Pure.

use std::collections::BTreeSet;
use tieline_core::check::{Finding, check};
use tieline_core::fleet::Fleet;
use tieline_core::ids::{ClusterName, LinkName, NodeId, SiteName};
use tieline_core::ledger::LedgerName;
use tieline_core::network_plan::NetworkPlan;
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
    /// Plans that have another revision.
    pub plans: BTreeSet<LinkName>,
    /// Whether a plan came or went, has other clusters or sites, or shows other things that are withheld: that concerns more than
    /// the nodes of its link.
    pub reshaped: bool,
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
        reshaped: last.plans.len() != next.plans.len()
            || last.report.withheld != next.report.withheld,
        ..Replanned::default()
    };
    for (link, plan) in &next.plans {
        let before = last.plans.get(link);
        if before != Some(plan) {
            found.reshaped |= !before.is_some_and(|before| has_same_members(before, plan));
            found.plans.insert(link.clone());
        }
    }
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

fn has_same_members(a: &NetworkPlan, b: &NetworkPlan) -> bool {
    let clusters = |plan: &NetworkPlan| -> Vec<ClusterName> {
        plan.clusters.iter().map(|it| it.name.clone()).collect()
    };
    let sites = |plan: &NetworkPlan| -> Vec<SiteName> {
        plan.sites.iter().map(|it| it.name.clone()).collect()
    };
    clusters(a) == clusters(b) && sites(a) == sites(b)
}
