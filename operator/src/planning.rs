//! The one place where this program asks `core` for a plan and for its proof: everything, or what follows from some nodes. Pure.

use std::collections::BTreeSet;
use tieline_core::check::{self, Finding};
use tieline_core::fleet::Fleet;
use tieline_core::ids::{ClusterName, LinkName, NodeId, SiteName};
use tieline_core::ledger::LedgerName;
use tieline_core::network_plan::NetworkPlan;
use tieline_core::notice::Notice;
use tieline_core::plan::{Before, PlanReport, Planner, Proposal};

/// A plan that goes on from what it proposed last.
#[derive(Debug, Clone)]
pub struct Planning {
    planner: Planner,
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
    /// Whether more than the nodes of some links is concerned: everything was planned anew, or a plan has other clusters or sites.
    pub reshaped: bool,
}

impl Planning {
    /// Plans everything, and proves it.
    #[must_use]
    pub fn full(fleet: &Fleet, before: &Before) -> (Self, Vec<Finding>) {
        let planner = Planner::new(fleet, before.clone());
        let findings = check::check(fleet, before, planner.proposal());
        (Self { planner }, findings)
    }

    /// Plans again after only these nodes came, left or changed. What was proposed last has been stored.
    pub fn nodes_changed(
        &mut self,
        fleet: &Fleet,
        nodes: &BTreeSet<NodeId>,
    ) -> (Replanned, Vec<Finding>) {
        let report = self.proposal().report.clone();
        self.planner.nodes_changed(fleet, nodes);
        let planner = &self.planner;
        let (before, touched) = (planner.before(), planner.touched());
        let findings = check::touched(fleet, before, planner.proposal(), touched, nodes);
        let mut found = Replanned {
            nodes: touched.nodes.clone(),
            noticed: noticed(&report, &planner.proposal().report),
            reshaped: touched.everything,
            ..Replanned::default()
        };
        let clusters = touched.clusters.iter().cloned().map(LedgerName::Cluster);
        let hub = touched.hub.then_some(LedgerName::Hub);
        for name in clusters.chain(hub) {
            let ledger = planner.proposal().ledgers.get(&name);
            if ledger.map(|it| it.revision) != before.ledgers.get(&name).map(|it| it.revision) {
                found.ledgers.insert(name);
            }
        }
        let plans = touched.hub.then_some(&planner.proposal().plans);
        for (link, plan) in plans.into_iter().flatten() {
            let stood = before.plans.get(link);
            if stood.map(|it| it.revision) != Some(plan.revision) {
                found.reshaped |= !stood.is_some_and(|stood| has_same_members(stood, plan));
                found.plans.insert(link.clone());
            }
        }
        (found, findings)
    }

    /// What is to be written.
    #[must_use]
    pub fn proposal(&self) -> &Proposal {
        self.planner.proposal()
    }
}

/// Links of which a notice came or went.
fn noticed(was: &PlanReport, is: &PlanReport) -> BTreeSet<Option<LinkName>> {
    let mut links = BTreeSet::new();
    for (a, b) in [(&was.refusals, &is.refusals), (&was.waiting, &is.waiting)] {
        if a != b {
            let (a, b): (BTreeSet<&Notice>, BTreeSet<&Notice>) =
                (a.iter().collect(), b.iter().collect());
            let changed = a.symmetric_difference(&b);
            links.extend(changed.map(|it| it.link.clone()));
        }
    }
    links
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
