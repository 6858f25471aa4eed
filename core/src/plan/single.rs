//! Both levels in one process: clusters' drafts and the hub, step by step, until nobody has anything to ask.

use super::cluster::Draft;
use super::exchange::{BlockAsk, Holdings, Offer, Wish};
use super::hub::{Hub, HubPlan, StandingExports};
use super::proposal::{Before, NodePlan};
use crate::cidr::PrefixSet;
use crate::fleet::{Fleet, Node};
use crate::ids::{ClusterName, LinkName, NodeId, SiteName};
use crate::ledger::{Ledger, LedgerName};
use rayon::iter::{
    IntoParallelIterator, IntoParallelRefIterator, IntoParallelRefMutIterator, ParallelIterator,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A cluster as the last pass left it: where nothing changed, its word is taken as it was.
#[derive(Debug, Clone)]
pub(super) struct Settled {
    /// Its link.
    pub(super) link: LinkName,
    /// Where its nodes are.
    pub(super) sites: Vec<SiteName>,
    /// What it holds.
    pub(super) holdings: Holdings,
    /// What it offers.
    pub(super) offer: Offer,
    /// Whether it goes without a first block that it asked for.
    pub(super) wanting: bool,
}

/// What one pass over both levels found.
pub(super) struct Pass {
    /// The hub's part.
    pub(super) hub: HubPlan,
    /// Clusters that were planned in this pass.
    pub(super) planned: Vec<Planned>,
    /// Their nodes that take part, in order.
    pub(super) nodes: Vec<(NodeId, NodePlan)>,
    /// Whether all other clusters hold what they held.
    pub(super) others_as_were: bool,
}

/// A cluster that was planned in this pass.
pub(super) struct Planned {
    /// Its name.
    pub(super) name: ClusterName,
    /// How it stands now.
    pub(super) settled: Settled,
    /// Its ledger; none when there was none and nothing was granted.
    pub(super) ledger: Option<Arc<Ledger>>,
}

/// Plans the active links; all others keep what they have. Clusters in `settled` are not planned again.
pub(super) fn run<'a>(
    fleet: &'a Fleet,
    before: &'a Before,
    active: &BTreeSet<&'a LinkName>,
    settled: &BTreeMap<&ClusterName, &Settled>,
) -> Pass {
    let mut standing = StandingExports::of(fleet, before, active);
    loop {
        let pass = attempt(fleet, before, active, &standing, settled);
        // Ends: each further attempt remembers less.
        if !standing.forget_lost(&pass.hub.plans) {
            return pass;
        }
    }
}

/// Plans one cluster from what it holds alone; none when it has something to ask of the hub.
pub(super) fn alone<'a>(
    fleet: &'a Fleet,
    before: &'a Before,
    cluster: &'a ClusterName,
    settled: &'a Settled,
    nodes: &mut Vec<(NodeId, NodePlan)>,
) -> Option<Planned> {
    let wish = wish(fleet, cluster, settled)?;
    let mut part = Part::open(before, wish, fleet.nodes_of(cluster));
    let draft = &mut part.draft;
    let holdings = &settled.holdings;
    let asks = !draft.ranges_in_use(holdings).is_empty()
        || !draft.first_blocks(holdings).is_empty()
        || draft.pods(holdings).is_some()
        || draft.mesh(holdings).is_some();
    if asks {
        return None;
    }
    Some(part.close(before, holdings.clone(), nodes))
}

/// What users want of a settled cluster.
pub(super) fn wish<'a>(
    fleet: &'a Fleet,
    cluster: &'a ClusterName,
    settled: &'a Settled,
) -> Option<Wish<'a>> {
    let spec = fleet.links.get(&settled.link)?;
    Some(Wish {
        at: 0,
        name: cluster,
        cluster: fleet.clusters.get(cluster)?,
        link: &settled.link,
        addressing: &spec.addressing,
        topology: &spec.topology,
    })
}

/// A cluster while it is planned.
struct Part<'a> {
    wish: Wish<'a>,
    draft: Draft<'a>,
    sites: Vec<SiteName>,
    /// Whether it goes without a first block that it asked for.
    wanting: bool,
}

impl<'a> Part<'a> {
    fn open(
        before: &'a Before,
        wish: Wish<'a>,
        nodes: impl Iterator<Item = (&'a NodeId, &'a Node)>,
    ) -> Self {
        let ledger = before.ledgers.get(&LedgerName::Cluster(wish.name.clone()));
        let draft = Draft::open(wish, nodes, ledger);
        let sites = draft.sites();
        Self {
            wish,
            draft,
            sites,
            wanting: false,
        }
    }

    fn close(
        self,
        before: &Before,
        holdings: Holdings,
        nodes: &mut Vec<(NodeId, NodePlan)>,
    ) -> Planned {
        let Self {
            wish,
            draft,
            sites,
            wanting,
        } = self;
        let old = before.plans.get(wish.link);
        let closed = draft.close(&holdings, &before.lineage, old, nodes);
        Planned {
            name: wish.name.clone(),
            settled: Settled {
                link: wish.link.clone(),
                sites,
                holdings,
                offer: closed.offer,
                wanting,
            },
            ledger: closed.ledger,
        }
    }
}

/// Drafts of all clusters that are not settled.
fn open<'a>(
    fleet: &'a Fleet,
    before: &'a Before,
    wishes: &[Wish<'a>],
    settled: &BTreeMap<&ClusterName, &Settled>,
) -> Vec<Part<'a>> {
    let live = wishes
        .par_iter()
        .filter(|wish| !settled.contains_key(wish.name));
    live.map(|wish| Part::open(before, *wish, fleet.nodes_of(wish.name)))
        .collect()
}

/// Lets every cluster go on by itself until it is through or has to ask, and then answers those that ask, in order.
fn serve<'a>(
    parts: &mut [Part<'a>],
    hub: &mut Hub<'a>,
    go_on: impl Fn(&mut Draft<'a>, &Holdings) -> Option<BlockAsk> + Sync,
) {
    let alone = parts.par_iter_mut();
    let asks: Vec<Option<BlockAsk>> = alone
        .map(|Part { wish, draft, .. }| go_on(draft, hub.holdings(wish)))
        .collect();
    for (Part { wish, draft, .. }, mut asked) in parts.iter_mut().zip(asks) {
        while let Some(ask) = asked {
            let block = hub.grant(wish, ask);
            draft.answer(block, hub.holdings(wish));
            asked = go_on(draft, hub.holdings(wish));
        }
    }
}

fn attempt<'a>(
    fleet: &'a Fleet,
    before: &'a Before,
    active: &BTreeSet<&'a LinkName>,
    standing: &StandingExports<'a>,
    settled: &BTreeMap<&ClusterName, &Settled>,
) -> Pass {
    let mut hub = Hub::open(fleet, before, active, standing);
    let wishes = hub.wishes().to_vec();
    let mut parts = open(fleet, before, &wishes, settled);

    let mut new = parts.iter();
    let sites: Vec<&[SiteName]> = wishes
        .iter()
        .filter_map(|wish| match settled.get(wish.name) {
            Some(settled) => Some(&settled.sites[..]),
            None => Some(&new.next()?.sites[..]),
        })
        .collect();
    hub.take_sites(sites.into_iter());
    for Part { wish, draft, .. } in &mut parts {
        let used = draft.ranges_in_use(hub.holdings(wish));
        let imported = draft.import(&hub.taken(wish, &used));
        hub.import(wish, &imported);
    }
    hub.close_intake();

    // Every cluster gets its first block in each family before anyone gets a second one.
    for part in &mut parts {
        let wish = &part.wish;
        for ask in part.draft.first_blocks(hub.holdings(wish)) {
            part.wanting |= !hub.grant_first(wish, ask);
        }
    }
    serve(&mut parts, &mut hub, Draft::pods);
    hub.settle_mesh_families();
    serve(&mut parts, &mut hub, Draft::mesh);
    // After all grants: what is free then is what the next pass would name, too.
    for Part { wish, draft, .. } in &parts {
        hub.report_missing(wish, draft.missing());
    }

    let others_as_were = wishes.iter().all(|wish| {
        let settled = settled.get(wish.name);
        settled.is_none_or(|settled| hub.holdings(wish).sorted() == settled.holdings)
    });
    let mut nodes = Vec::with_capacity(parts.iter().map(|part| part.draft.len()).sum());
    let closed: Vec<_> = parts
        .into_par_iter()
        .map(|part| {
            let mut own = Vec::with_capacity(part.draft.len());
            let holdings = hub.holdings(&part.wish).sorted();
            (part.close(before, holdings, &mut own), own)
        })
        .collect();
    let planned: Vec<Planned> = closed
        .into_iter()
        .map(|(planned, own)| {
            nodes.extend(own);
            planned
        })
        .collect();
    let mut new = planned.iter();
    let offers: Vec<(Wish<'a>, &Offer)> = wishes
        .iter()
        .filter_map(|wish| match settled.get(wish.name) {
            Some(settled) => Some((*wish, &settled.offer)),
            None => Some((*wish, &new.next()?.settled.offer)),
        })
        .collect();
    let hub = hub.close(standing, &offers);
    Pass {
        hub,
        planned,
        nodes,
        others_as_were,
    }
}

/// Addresses of nodes that lie in pools, by cluster.
pub(super) fn node_addresses<'a>(
    pools: &PrefixSet,
    nodes: impl Iterator<Item = (&'a NodeId, &'a Node)>,
) -> BTreeMap<ClusterName, BTreeSet<IpAddr>> {
    let mut found: BTreeMap<ClusterName, BTreeSet<IpAddr>> = BTreeMap::new();
    for (id, node) in nodes {
        for (address, _) in &node.addresses {
            if pools.contains_address(*address) {
                let own = found.entry(id.cluster.clone()).or_default();
                own.insert(*address);
            }
        }
    }
    found
}
