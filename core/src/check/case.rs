//! What is looked at, and what was found.

use super::invariant::Invariant;
use crate::cidr::Prefix;
use crate::fleet::{Fleet, Mode, SiteSource};
use crate::ids::{ClusterName, LinkName, SiteName};
use crate::ledger::{Grant, Ledger, LedgerName, Owner, State, Use};
use crate::network_plan::NetworkPlan;
use crate::plan::{Before, Proposal};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What is broken, with the names and prefixes concerned.
    pub message: String,
    /// Which one.
    pub invariant: Invariant,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A range that the hub grants to a cluster for a use.
pub(super) type Block<'a> = (&'a ClusterName, Use, Prefix);

/// What is looked at, and what was found.
pub(super) struct Case<'a> {
    /// What users want and what nodes exist.
    pub(super) fleet: &'a Fleet,
    /// What stood.
    pub(super) before: &'a Before,
    /// What is to stand.
    pub(super) proposal: &'a Proposal,
    /// The applied link of each cluster, as the proposed plans have it.
    pub(super) links: Arc<BTreeMap<&'a ClusterName, &'a LinkName>>,
    /// What the hub grants, in order of cluster.
    blocks: Arc<[Block<'a>]>,
    findings: BTreeSet<Finding>,
}

impl<'a> Case<'a> {
    /// For a look at everything.
    pub(super) fn whole(fleet: &'a Fleet, before: &'a Before, proposal: &'a Proposal) -> Self {
        let mut case = Self::empty(fleet, before, proposal);
        let applied = proposal
            .plans
            .values()
            .filter(|plan| case.is_applied(&plan.link));
        let members =
            |plan: &'a NetworkPlan| plan.clusters.iter().map(|own| (&own.name, &plan.link));
        case.links = Arc::new(applied.flat_map(members).collect());
        case.blocks = blocks(proposal, |_| true).into();
        case
    }

    /// For a look at some clusters.
    pub(super) fn of(
        fleet: &'a Fleet,
        before: &'a Before,
        proposal: &'a Proposal,
        clusters: &'a BTreeSet<ClusterName>,
    ) -> Self {
        let mut case = Self::empty(fleet, before, proposal);
        let plans = proposal.plans.values();
        let applied: Vec<&NetworkPlan> = plans.filter(|plan| case.is_applied(&plan.link)).collect();
        let links = applied.iter().flat_map(|plan| {
            let own = clusters.iter().filter(|name| plan.cluster(name).is_some());
            own.map(|name| (name, &plan.link))
        });
        case.links = Arc::new(links.collect());
        case.blocks = blocks(proposal, |cluster| clusters.contains(cluster)).into();
        case
    }

    fn empty(fleet: &'a Fleet, before: &'a Before, proposal: &'a Proposal) -> Self {
        Self {
            fleet,
            before,
            proposal,
            links: Arc::default(),
            blocks: Arc::default(),
            findings: BTreeSet::new(),
        }
    }

    /// The same, where nothing was found yet: for one of several looks at a time.
    pub(super) fn beside(&self) -> Self {
        Self {
            links: self.links.clone(),
            blocks: self.blocks.clone(),
            ..Self::empty(self.fleet, self.before, self.proposal)
        }
    }

    /// Takes in what another look found.
    pub(super) fn join(&mut self, other: Self) {
        self.findings.extend(other.findings);
    }

    /// Notes a broken invariant.
    pub(super) fn find(&mut self, invariant: Invariant, message: String) {
        self.findings.insert(Finding { message, invariant });
    }

    /// What was found, sorted.
    pub(super) fn findings(self) -> Vec<Finding> {
        self.findings.into_iter().collect()
    }

    /// Whether a link's decisions are applied now.
    pub(super) fn is_applied(&self, link: &LinkName) -> bool {
        let link = self.fleet.links.get(link);
        link.is_some_and(|link| link.mode == Mode::Apply)
    }

    /// A ledger as it stood.
    pub(super) fn old(&self, name: &LedgerName) -> Option<&'a Ledger> {
        self.before.ledgers.get(name).map(AsRef::as_ref)
    }

    /// What the hub grants to a cluster.
    pub(super) fn blocks_of(&self, cluster: &ClusterName) -> Vec<Block<'a>> {
        let from = self.blocks.partition_point(|(owner, ..)| *owner < cluster);
        let rest = self.blocks[from..].iter();
        rest.take_while(|(owner, ..)| *owner == cluster)
            .copied()
            .collect()
    }

    /// Whether a cluster may have nodes in a site: pods inside their own site's ranges are normal.
    pub(super) fn is_own_site(&self, name: &ClusterName, site: &SiteName) -> bool {
        let Some(cluster) = self.fleet.clusters.get(name) else {
            return false;
        };
        match &cluster.sites {
            SiteSource::Name(own) => own == site,
            SiteSource::BySelector(rules) => rules.iter().any(|rule| rule.site == *site),
            SiteSource::FromNodeLabel(label) => {
                let mut nodes = self.fleet.nodes_of(name);
                nodes.any(|(_, node)| {
                    let own = node.labels.get(label);
                    own.is_some_and(|own| own == site.as_str())
                })
            }
        }
    }
}

fn blocks(proposal: &Proposal, wanted: impl Fn(&ClusterName) -> bool) -> Vec<Block<'_>> {
    let hub = proposal.ledgers.get(&LedgerName::Hub);
    let grants = hub.iter().flat_map(|hub| &hub.grants);
    let live = grants.filter(|grant| is_live(grant));
    let mut blocks: Vec<Block<'_>> = live
        .filter_map(|grant| match &grant.owner {
            Owner::Cluster(cluster) if wanted(cluster) => {
                Some((cluster, grant.used_for, grant.prefix))
            }
            _ => None,
        })
        .collect();
    blocks.sort();
    blocks
}

/// Whether a grant is held by its owner.
pub(super) fn is_live(grant: &Grant) -> bool {
    grant.state != State::Released
}
