//! Both levels in one process: every cluster's drafts and the hub, step by step, until nobody has anything to ask.

use super::cluster::{Closed, Draft};
use super::exchange::Wish;
use super::hub::{Hub, StandingExports};
use super::kept::kept_nodes;
use super::proposal::{Before, Proposal};
use super::report::Reporter;
use crate::fleet::{Fleet, Node};
use crate::ids::{ClusterName, LinkName, NodeId, SiteName};
use crate::ledger::LedgerName;
use std::collections::BTreeSet;

/// Plans the active links; all others keep what they have.
pub(super) fn run<'a>(
    fleet: &'a Fleet,
    before: &'a Before,
    active: &BTreeSet<&'a LinkName>,
) -> Proposal {
    let mut standing = StandingExports::of(fleet, before, active);
    loop {
        let proposal = attempt(fleet, before, active, &standing);
        // Ends: each further attempt remembers less.
        if !standing.forget_lost(&proposal.plans) {
            return proposal;
        }
    }
}

/// A cluster that is planned.
struct Part<'a> {
    wish: Wish<'a>,
    draft: Draft<'a>,
    sites: BTreeSet<SiteName>,
}

fn attempt<'a>(
    fleet: &'a Fleet,
    before: &'a Before,
    active: &BTreeSet<&'a LinkName>,
    standing: &StandingExports<'a>,
) -> Proposal {
    let mut hub = Hub::open(fleet, before, active, standing);
    let mut parts: Vec<Part<'a>> = hub
        .wishes()
        .into_iter()
        .map(|wish| {
            let ledger = before.ledgers.get(&LedgerName::Cluster(wish.name.clone()));
            let draft = Draft::open(wish, nodes_of(fleet, wish.name), ledger);
            let sites = draft.sites();
            Part { wish, draft, sites }
        })
        .collect();

    hub.take_sites(parts.iter().map(|part| (&part.wish, &part.sites)));
    for Part { wish, draft, .. } in &mut parts {
        let used = draft.ranges_in_use(hub.holdings(wish.name));
        let imported = draft.import(&hub.taken(wish.name, &used));
        hub.import(wish.name, &imported);
    }
    hub.close_intake(parts.iter().map(|part| part.wish.name));

    // Every cluster gets its first block in each family before anyone gets a second one.
    for Part { wish, draft, .. } in &mut parts {
        for ask in draft.first_blocks(hub.holdings(wish.name)) {
            hub.grant_first(wish, ask);
        }
    }
    for Part { wish, draft, .. } in &mut parts {
        while let Some(ask) = draft.pods(hub.holdings(wish.name)) {
            let block = hub.grant(wish, ask);
            draft.answer(block, hub.holdings(wish.name));
        }
    }
    hub.settle_mesh_families();
    for Part { wish, draft, .. } in &mut parts {
        while let Some(ask) = draft.mesh(hub.holdings(wish.name)) {
            let block = hub.grant(wish, ask);
            draft.answer(block, hub.holdings(wish.name));
        }
        hub.report_missing(wish, draft.missing());
    }

    let closed: Vec<(Wish<'a>, Closed)> = parts
        .into_iter()
        .map(|Part { wish, draft, .. }| {
            let old = before.plans.get(wish.link);
            let closed = draft.close(hub.holdings(wish.name), &before.lineage, old);
            (wish, closed)
        })
        .collect();
    let offers: Vec<_> = closed
        .iter()
        .map(|(wish, closed)| (*wish, &closed.offer))
        .collect();
    let hub = hub.close(standing, &offers);

    let mut report = Reporter::default();
    report.add(&hub.report);
    let mut nodes = kept_nodes(fleet, before, &hub.links);
    let mut ledgers = before.ledgers.clone();
    for (wish, closed) in closed {
        report.add(&closed.offer.report);
        nodes.extend(closed.nodes);
        let name = LedgerName::Cluster(wish.name.clone());
        match closed.ledger {
            Some(ledger) => ledgers.insert(name, ledger),
            None => ledgers.remove(&name),
        };
    }
    ledgers.extend(hub.ledger.map(|ledger| (LedgerName::Hub, ledger)));
    Proposal {
        ledgers,
        plans: hub.plans,
        nodes,
        report: report.finish(),
    }
}

/// A cluster's nodes, by name.
fn nodes_of<'a>(
    fleet: &'a Fleet,
    cluster: &'a ClusterName,
) -> impl Iterator<Item = (&'a NodeId, &'a Node)> {
    let from = NodeId::first_of(cluster);
    let nodes = fleet.nodes.range(from..);
    nodes.take_while(move |(id, _)| id.cluster == *cluster)
}
