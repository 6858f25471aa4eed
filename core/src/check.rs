//! Independent re-proof of a proposal, run before anything is written.
//!
//! Shares no code with the planner beside the values: it looks at the result only and proves the invariants of the
//! design again. A finding means a bug in the planner (or a ledger edited by hand), and nothing is written.
//!
//! | module | what it proves |
//! |---|---|
//! | `sweep` | which prefixes overlap, by one sorted pass |
//! | `ledgers` | levels do not overlap, grants stay granted, new ones avoid what is somebody else's, revisions grow |
//! | `plans` | plans say what ledgers say; gateways, carriers and VPN indexes are sound; super-nets cover everything |
//! | `nodes` | nodes say what ledgers, plans and Node objects say |

mod ledgers;
mod nodes;
mod plans;
mod sweep;

use crate::cidr::Prefix;
use crate::fleet::{Fleet, Mode, SiteSource};
use crate::ids::{ClusterName, LinkName, SiteName};
use crate::ledger::{Grant, Ledger, LedgerName, Owner, State, Use};
use crate::plan::{Before, Proposal};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What is broken, with the names and prefixes concerned.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// All broken invariants of a proposal, sorted; empty: it may be written.
#[must_use]
pub fn check(fleet: &Fleet, before: &Before, proposal: &Proposal) -> Vec<Finding> {
    let mut case = Case {
        fleet,
        before,
        proposal,
        links: members(fleet, proposal),
        own_sites: own_sites(fleet),
        blocks: blocks(proposal),
        findings: Vec::new(),
    };
    ledgers::check(&mut case);
    plans::check(&mut case);
    nodes::check(&mut case);
    case.findings.sort_unstable();
    case.findings.dedup();
    case.findings
}

/// What is looked at, and what was found.
struct Case<'a> {
    fleet: &'a Fleet,
    before: &'a Before,
    proposal: &'a Proposal,
    /// The applied link of each cluster, as the proposed plans have it.
    links: BTreeMap<&'a ClusterName, &'a LinkName>,
    /// Sites in which a cluster may have nodes: pods inside their own site's ranges are normal.
    own_sites: BTreeSet<(&'a ClusterName, &'a SiteName)>,
    /// What the hub grants to each cluster.
    blocks: BTreeMap<&'a ClusterName, Vec<(Use, Prefix)>>,
    findings: Vec<Finding>,
}

impl<'a> Case<'a> {
    fn find(&mut self, message: String) {
        self.findings.push(Finding { message });
    }

    /// Whether a link's decisions are applied now.
    fn is_applied(&self, link: &LinkName) -> bool {
        self.fleet
            .links
            .get(link)
            .is_some_and(|link| link.mode == Mode::Apply)
    }

    fn old(&self, name: &LedgerName) -> Option<&'a Ledger> {
        self.before.ledgers.get(name).map(AsRef::as_ref)
    }
}

fn members<'a>(fleet: &Fleet, proposal: &'a Proposal) -> BTreeMap<&'a ClusterName, &'a LinkName> {
    proposal
        .plans
        .values()
        .filter(|plan| {
            fleet
                .links
                .get(&plan.link)
                .is_some_and(|link| link.mode == Mode::Apply)
        })
        .flat_map(|plan| {
            plan.clusters
                .iter()
                .map(|cluster| (&cluster.name, &plan.link))
        })
        .collect()
}

fn own_sites(fleet: &Fleet) -> BTreeSet<(&ClusterName, &SiteName)> {
    let mut own = BTreeSet::new();
    for (name, cluster) in &fleet.clusters {
        match &cluster.sites {
            SiteSource::Name(site) => {
                own.insert((name, site));
            }
            SiteSource::BySelector(rules) => {
                own.extend(rules.iter().map(|rule| (name, &rule.site)))
            }
            SiteSource::FromNodeLabel(_) => {}
        }
    }
    for (id, node) in &fleet.nodes {
        if let Some((name, cluster)) = fleet.clusters.get_key_value(&id.cluster)
            && let SiteSource::FromNodeLabel(label) = &cluster.sites
            && let Some(value) = node.labels.get(label)
            && let Some((site, _)) = fleet.sites.get_key_value(value.as_str())
        {
            own.insert((name, site));
        }
    }
    own
}

fn blocks(proposal: &Proposal) -> BTreeMap<&ClusterName, Vec<(Use, Prefix)>> {
    let mut blocks: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let hub = proposal.ledgers.get(&LedgerName::Hub);
    for grant in hub
        .iter()
        .flat_map(|hub| &hub.grants)
        .filter(|grant| is_live(grant))
    {
        if let Owner::Cluster(cluster) = &grant.owner {
            blocks
                .entry(cluster)
                .or_default()
                .push((grant.used_for, grant.prefix));
        }
    }
    blocks
}

fn is_live(grant: &Grant) -> bool {
    grant.state != State::Released
}

/// Grants by owner, use and prefix, for look-ups by binary search.
fn sorted_by_owner(ledger: &Ledger) -> Vec<&Grant> {
    let mut grants: Vec<&Grant> = ledger.grants.iter().collect();
    grants.sort_unstable_by_key(|grant| (&grant.owner, grant.used_for, grant.prefix));
    grants
}

fn of_owner<'g, 'a>(grants: &'g [&'a Grant], owner: &Owner) -> &'g [&'a Grant] {
    let from = grants.partition_point(|grant| grant.owner < *owner);
    let to = grants.partition_point(|grant| grant.owner <= *owner);
    &grants[from..to]
}
