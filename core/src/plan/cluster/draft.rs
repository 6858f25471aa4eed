//! A cluster's plan while it is made, step by step.
//!
//! A draft keeps its place: it stops where it needs a block and goes on when it has one, so that a cluster is planned once,
//! however often it has to ask.

use super::book::{Book, Cut, Need};
use super::node::{NodeWork, Places, Unplaced};
use super::offer;
use crate::cidr::{Family, Prefix};
use crate::fleet::{Node, SiteSource};
use crate::ids::{Lineage, MAX_OBJECT_NAME, NodeId, NodeName, SiteName};
use crate::ledger::{Ledger, Use};
use crate::network_plan::NetworkPlan;
use crate::notice::{About, Reason};
use crate::plan::exchange::{BlockAsk, Families, Holdings, NodeClash, Offer, Wish};
use crate::plan::lengths::Lengths;
use crate::plan::proposal::NodePlan;
use crate::plan::report::{Reporter, listed};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A cluster's plan while it is made.
pub(in crate::plan) struct Draft<'a> {
    wish: Wish<'a>,
    /// Its nodes by name.
    nodes: Vec<NodeWork<'a>>,
    /// Its ledger.
    book: Book<'a>,
    /// Whether nodes get their podCIDR from us.
    assign: Assign,
    /// Families in which they get it.
    families: Families,
    /// What is being cut.
    queue: Queue,
    /// Shares that could not be cut.
    missing: BTreeMap<(Use, Family), Vec<NodeName>>,
    report: Reporter,
}

/// A cluster's plan, made.
pub(in crate::plan) struct Closed {
    /// Its ledger; none when there was none and nothing was granted.
    pub(in crate::plan) ledger: Option<Arc<Ledger>>,
    /// What it brings to the network.
    pub(in crate::plan) offer: Offer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Assign {
    /// The user does not want it.
    No,
    /// Somebody else gives podCIDRs.
    Refused,
    /// Yes.
    Yes,
}

/// Where cutting stands: which node is next, and in which family.
#[derive(Debug, Clone, Copy, Default)]
struct Queue {
    /// What is cut; absent: nothing yet.
    of: Option<Use>,
    node: usize,
    family: usize,
}

impl<'a> Draft<'a> {
    /// Finds every node's site and opens the ledger. `nodes` come in order of name.
    pub(in crate::plan) fn open(
        wish: Wish<'a>,
        nodes: impl Iterator<Item = (&'a NodeId, &'a Node)>,
        before: Option<&'a Arc<Ledger>>,
    ) -> Self {
        let mut nodes: Vec<NodeWork<'a>> =
            nodes.map(|(id, node)| NodeWork::new(id, node)).collect();
        let mut report = Reporter::default();
        let mut places = Places::new(wish.cluster, wish.topology.granularity);
        let Wish { name, link, .. } = wish;
        for work in &mut nodes {
            let node = &work.id.node;
            match places.of(work.id, work.node) {
                Ok(site) => {
                    work.site = Some(site);
                    work.planned = true;
                }
                Err(Unplaced::NoSite(why)) => report.wait(
                    About::Node(work.id.clone()),
                    Some(link),
                    Reason::NoSite,
                    format!("node {node} of Cluster {name} belongs to no site: {why}"),
                ),
                Err(Unplaced::TooLong) => report.refuse(
                    About::Node(work.id.clone()),
                    Some(link),
                    Reason::NameTooLong,
                    format!(
                        "the names of Cluster {name}, its site and node {node} make more than {MAX_OBJECT_NAME} characters together: give the cluster or the site a shorter name"
                    ),
                ),
            }
        }
        let book = Book::open(before, &mut nodes);
        Self {
            wish,
            nodes,
            book,
            assign: Assign::No,
            families: Families::NONE,
            queue: Queue::default(),
            missing: BTreeMap::new(),
            report,
        }
    }

    /// How many nodes there are.
    pub(in crate::plan) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Sites in which nodes are, sorted.
    pub(in crate::plan) fn sites(&self) -> Vec<SiteName> {
        let mut sites: Vec<&SiteName> = Vec::new();
        for site in self.nodes.iter().filter_map(|node| node.site.as_ref()) {
            if sites.last() != Some(&site) {
                sites.push(site);
            }
        }
        sites.sort_unstable();
        sites.dedup();
        sites.into_iter().cloned().collect()
    }

    /// Takes in `pods.cidrs`, decides whether nodes are given ranges, and says which ranges that nodes have are new.
    pub(in crate::plan) fn ranges_in_use(&mut self, holdings: &Holdings) -> Vec<Prefix> {
        let cluster = self.wish.cluster;
        if let (SiteSource::Name(site), false) = (&cluster.sites, cluster.assign) {
            let kept = cluster.pod_cidrs.iter();
            for prefix in kept.filter(|prefix| !holdings.lost.contains(prefix)) {
                self.book.dedicate(site, prefix);
            }
        }
        self.assign = self.assign_decision(holdings);
        let mut new = Vec::new();
        for node in &mut self.nodes {
            if node.site.is_some() {
                self.book.release_unseen(node);
            }
            if node.planned {
                let seen = node.node.pod_cidrs.iter().copied();
                new.extend(seen.filter(|prefix| !node.pods.contains(prefix)));
            }
        }
        new.sort_unstable();
        new.dedup();
        new
    }

    /// Records the ranges that nodes have, but for those that are somebody else's, `taken`. Says which were recorded.
    pub(in crate::plan) fn import(&mut self, taken: &BTreeSet<Prefix>) -> Vec<Prefix> {
        let mut imported = Vec::new();
        for node in self.nodes.iter_mut().filter(|node| node.planned) {
            if node
                .node
                .pod_cidrs
                .iter()
                .all(|prefix| node.pods.contains(prefix))
            {
                continue;
            }
            for prefix in sorted(&node.node.pod_cidrs) {
                if node.pods.contains(&prefix) {
                    continue;
                }
                // What a node shows before the range that clashes is recorded all the same.
                if taken.contains(&prefix) || self.book.import(&node.id.node, prefix).is_err() {
                    node.clashes = true;
                    node.planned = false;
                    break;
                }
                node.pods.push(prefix);
                imported.push(prefix);
            }
        }
        imported
    }

    /// The first block in each family, where nodes are given ranges.
    pub(in crate::plan) fn first_blocks(&mut self, holdings: &Holdings) -> Vec<BlockAsk> {
        let mut asks = Vec::new();
        if self.assign != Assign::Yes {
            return asks;
        }
        let Wish {
            name,
            cluster,
            link,
            addressing,
            ..
        } = self.wish;
        for family in Family::BOTH {
            let has_block = holdings.blocks.iter().any(|block| block.family() == family);
            let has_pool = cluster.pod_cidrs.is_empty() && holdings.pools.contains(family);
            if has_block || has_pool {
                self.families.extend([family]);
            }
            if has_pool && !has_block {
                asks.push(BlockAsk {
                    used_for: Use::Pod,
                    family,
                    len: Lengths::of(addressing, Use::Pod, family).block,
                });
            }
        }
        if self.families.is_empty() {
            self.report.refuse(
                About::Cluster(name.clone()),
                Some(link),
                Reason::NoPool,
                format!(
                    "pods.assign is true, but there is nothing to assign from: set addressing.podPools of ClusterLink {link}, or pods.cidrs of Cluster {name}"
                ),
            );
        }
        asks
    }

    /// Gives nodes without podCIDR a range. Stops for a block that it needs: answer with [`Draft::answer`], and call again.
    pub(in crate::plan) fn pods(&mut self, holdings: &Holdings) -> Option<BlockAsk> {
        if self.queue.of.is_none() {
            self.begin(Use::Pod, self.families);
        }
        let ask = self.serve(Use::Pod, self.families, holdings);
        if ask.is_none() {
            self.settle_podless();
        }
        ask
    }

    /// Gives every node that takes part its mesh addresses, in the same manner.
    pub(in crate::plan) fn mesh(&mut self, holdings: &Holdings) -> Option<BlockAsk> {
        if self.queue.of != Some(Use::Mesh) {
            self.begin(Use::Mesh, holdings.mesh_families);
        }
        let ask = self.serve(Use::Mesh, holdings.mesh_families, holdings);
        if ask.is_none() {
            for node in self.nodes.iter_mut().filter(|node| node.planned) {
                let mut families = holdings.mesh_families.iter();
                node.planned = families.all(|family| node.has(Use::Mesh, family));
            }
        }
        ask
    }

    /// Answers what [`Draft::pods`] or [`Draft::mesh`] asked for: a block, or that there is none.
    pub(in crate::plan) fn answer(&mut self, block: Option<Prefix>, holdings: &Holdings) {
        let Queue { of, node, family } = self.queue;
        let (Some(used_for), Some(node)) = (of, self.nodes.get(node)) else {
            return;
        };
        let Some(need) = need(&self.wish, node, used_for, Family::BOTH[family]) else {
            return;
        };
        match block {
            Some(block) => self.book.granted(&need, block, holdings),
            None => self.book.refused(&need, holdings),
        }
    }

    /// Shares that could not be cut, by use and family.
    pub(in crate::plan) fn missing(&self) -> &BTreeMap<(Use, Family), Vec<NodeName>> {
        &self.missing
    }

    /// The plan; what its nodes are is added to `nodes`. `old` is the link's network plan as it stands: its gateways keep their
    /// ranks.
    pub(in crate::plan) fn close(
        mut self,
        holdings: &Holdings,
        lineage: &Lineage,
        old: Option<&NetworkPlan>,
        nodes: &mut Vec<(NodeId, NodePlan)>,
    ) -> Closed {
        let clashes = self.clashes();
        let strays = self.book.strays(&self.nodes);
        let segments = offer::segments(
            &self.wish,
            &self.nodes,
            &self.book,
            &strays,
            old,
            &mut self.report,
        );
        self.book.mark(&strays);
        offer::nodes(&self.wish, &self.nodes, &segments, nodes);
        Closed {
            ledger: self.book.close(holdings, lineage),
            offer: Offer {
                segments,
                clashes,
                missing: self.missing,
                report: self.report,
            },
        }
    }

    /// Whether nodes get their podCIDR from us: only while nobody else gives them any.
    fn assign_decision(&mut self, holdings: &Holdings) -> Assign {
        let Wish { name, link, .. } = self.wish;
        if !self.wish.cluster.assign {
            return Assign::No;
        }
        let is_ours = |prefix: &Prefix| {
            holdings.blocks.iter().any(|block| block.contains(*prefix))
                || self.book.chunk_of(*prefix).is_some()
        };
        let foreign: Vec<String> = self
            .nodes
            .iter()
            .filter_map(|node| {
                let outside = node.node.pod_cidrs.iter().filter(|prefix| !is_ours(prefix));
                Some(format!("{} ({})", node.id.node, outside.min()?))
            })
            .collect();
        if foreign.is_empty() {
            return Assign::Yes;
        }
        self.report.refuse(
            About::Cluster(name.clone()),
            Some(link),
            Reason::PodCidrsOwnedElsewhere,
            format!(
                "pods.assign is true, but somebody else gave nodes their podCIDR: {}. Set pods.assign to false, or stop the other manager (kube-controller-manager --allocate-node-cidrs=false) and register these nodes again without podCIDR",
                listed(foreign)
            ),
        );
        Assign::Refused
    }

    /// Begins to cut for a use. Those who return come first, so that nobody gets what they had.
    fn begin(&mut self, used_for: Use, families: Families) {
        self.queue = Queue {
            of: Some(used_for),
            ..Queue::default()
        };
        if !self.book.has_returned() {
            return;
        }
        for node in &mut self.nodes {
            for family in families.iter() {
                let need = need(&self.wish, node, used_for, family);
                let back = need.and_then(|need| self.book.bring_back(&need));
                node.shares_mut(used_for).extend(back);
            }
        }
    }

    /// Cuts what is still missing, one node after the other.
    fn serve(
        &mut self,
        used_for: Use,
        families: Families,
        holdings: &Holdings,
    ) -> Option<BlockAsk> {
        while let Some(node) = self.nodes.get_mut(self.queue.node) {
            while let Some(family) = Family::BOTH.get(self.queue.family).copied() {
                if let Some(need) =
                    need(&self.wish, node, used_for, family).filter(|_| families.contains(family))
                {
                    match self.book.cut(&need, holdings) {
                        Cut::Share(prefix) => node.shares_mut(used_for).push(prefix),
                        Cut::Needs(ask) => return Some(ask),
                        Cut::Nothing => {
                            let missing = self.missing.entry((used_for, family)).or_default();
                            missing.push(node.id.node.clone());
                        }
                    }
                }
                self.queue.family += 1;
            }
            self.queue.family = 0;
            self.queue.node += 1;
        }
        self.book.end_cutting();
        None
    }

    /// Nodes without podCIDR: those that have a range for it take part, the others are told why not.
    fn settle_podless(&mut self) {
        let Wish { name, link, .. } = self.wish;
        for node in &mut self.nodes {
            if !node.planned || !node.node.pod_cidrs.is_empty() {
                continue;
            }
            let mut families = self.families.iter();
            let complete =
                !self.families.is_empty() && families.all(|family| node.has(Use::Pod, family));
            node.assign = self.assign == Assign::Yes && complete;
            node.planned = node.assign;
            let own = &node.id.node;
            let message = match self.assign {
                Assign::No => format!(
                    "node {own} of Cluster {name} has no podCIDR: set pods.assign: true, so that Tieline assigns one, or let kube-controller-manager do it (--allocate-node-cidrs)"
                ),
                Assign::Refused => format!(
                    "node {own} of Cluster {name} has no podCIDR, and none is assigned while somebody else gives podCIDRs in this cluster"
                ),
                Assign::Yes if complete => continue,
                Assign::Yes => format!(
                    "node {own} of Cluster {name} has no podCIDR, and there is no range left to assign"
                ),
            };
            let about = About::Node(node.id.clone());
            self.report
                .wait(about, Some(link), Reason::NoPodCidr, message);
        }
    }

    fn clashes(&self) -> Vec<NodeClash> {
        let clashing = self.nodes.iter().filter(|node| node.clashes);
        clashing
            .map(|node| {
                let own = &node.id.node;
                let pod_cidrs = sorted(&node.node.pod_cidrs);
                let within = pod_cidrs.iter().find_map(|prefix| {
                    let (other, owner) = self.book.share_over(*prefix, own)?;
                    Some((*prefix, other, owner.clone()))
                });
                NodeClash {
                    node: own.clone(),
                    pod_cidrs,
                    within,
                }
            })
            .collect()
    }
}

fn sorted(prefixes: &[Prefix]) -> Vec<Prefix> {
    let mut prefixes = prefixes.to_vec();
    prefixes.sort_unstable();
    prefixes
}

/// What a node needs, if it takes part and has no share for the use in this family.
fn need<'a, 's>(
    wish: &Wish<'_>,
    node: &'s NodeWork<'a>,
    used_for: Use,
    family: Family,
) -> Option<Need<'a, 's>> {
    let site = node.site.as_ref().filter(|_| node.planned)?;
    // A node that shows podCIDRs is given none.
    let wants = used_for == Use::Mesh || node.node.pod_cidrs.is_empty();
    (wants && !node.has(used_for, family)).then(|| Need {
        node: &node.id.node,
        site,
        used_for,
        family,
        lengths: Lengths::of(wish.addressing, used_for, family),
    })
}
