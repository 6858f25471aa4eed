//! A settled cluster, ready for nodes that come, leave or change: what follows from each without a look at all others.
//!
//! It decides less than a draft and never otherwise. Whatever it cannot tell from the changed nodes and from what is free (a range
//! that somebody else gave a node, a full chunk, a returning node, a gateway that changes, trouble that is told already) is left to the draft.
//! A test drives random histories through both.

use super::node::{Places, carries};
use crate::cidr::{Family, Prefix};
use crate::fleet::{Granularity, Node};
use crate::ids::{NodeId, NodeName, SegmentName, SiteName};
use crate::ledger::{Grant, Ledger, Owner, State, Use};
use crate::plan::exchange::{Families, Holdings, Offer, SegmentOffer, Wish};
use crate::plan::lengths::Lengths;
use crate::plan::proposal::NodePlan;
use crate::plan::space::{Busy, FreeSpace};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where something is cut.
type Place = (SiteName, Use, Family);

/// What is free in a settled cluster.
#[derive(Debug, Clone)]
pub(in crate::plan) struct Room {
    /// Free space in the chunks of each site, what released shares leave over.
    spaces: BTreeMap<Place, FreeSpace>,
    /// Families in which nodes are given ranges.
    families: Families,
    /// Nodes that left something behind to which they may return.
    left: BTreeSet<NodeName>,
}

/// A settled cluster as it stands.
#[derive(Clone, Copy)]
pub(in crate::plan) struct Standing<'a> {
    /// What users want of it.
    pub(in crate::plan) wish: Wish<'a>,
    /// What it holds.
    pub(in crate::plan) holdings: &'a Holdings,
    /// What it offers.
    pub(in crate::plan) offer: &'a Offer,
    /// Its ledger.
    pub(in crate::plan) ledger: &'a Arc<Ledger>,
    /// The planned nodes, its own among them.
    pub(in crate::plan) nodes: &'a BTreeMap<NodeId, NodePlan>,
}

/// What follows from changed nodes.
pub(in crate::plan) struct Changes {
    /// The ledger; none when it stays.
    pub(in crate::plan) ledger: Option<Arc<Ledger>>,
    /// The plan of each changed node, if it is planned.
    pub(in crate::plan) nodes: Vec<(NodeId, Option<NodePlan>)>,
}

impl Room {
    /// What is free; none where something of the cluster is not settled.
    pub(in crate::plan) fn of(it: &Standing<'_>) -> Option<Self> {
        let Offer {
            clashes,
            missing,
            report,
            ..
        } = it.offer;
        let settled = it.wish.topology.granularity == Granularity::Site
            && it.wish.cluster.assign
            && clashes.is_empty()
            && missing.is_empty()
            && report.is_empty();
        if !settled {
            return None;
        }
        let mut chunks: BTreeMap<Prefix, (&SiteName, Use)> = BTreeMap::new();
        let mut held: Vec<(&NodeName, Prefix)> = Vec::new();
        let mut busy = it.holdings.foreign.clone();
        let mut left = BTreeSet::new();
        for grant in &it.ledger.grants {
            match &grant.owner {
                Owner::Cluster(_) => return None,
                Owner::Site(site) => drop(chunks.insert(grant.prefix, (site, grant.used_for))),
                Owner::Node(node) => {
                    busy.push(grant.prefix);
                    if grant.state == State::Released {
                        left.insert(node.clone());
                    } else {
                        held.push((node, grant.prefix));
                    }
                }
            }
        }
        let chunk_of = |prefix: Prefix| {
            let (chunk, of) = chunks.range(..=prefix).next_back()?;
            chunk.contains(prefix).then_some(*of)
        };
        held.sort_unstable();
        let mut own = it.nodes.range(NodeId::first_of(it.wish.name)..).peekable();
        for (node, prefix) in held {
            while own.next_if(|(id, _)| id.node < *node).is_some() {}
            let (id, plan) = own.peek()?;
            // Every share is a planned node's, in a chunk of its site.
            let at_home = id.node == *node
                && id.cluster == *it.wish.name
                && chunk_of(prefix).is_some_and(|(site, _)| *site == plan.site);
            if !at_home {
                return None;
            }
        }
        let mut roots: BTreeMap<Place, Vec<Prefix>> = BTreeMap::new();
        for (chunk, (site, used_for)) in chunks {
            let place = (site.clone(), used_for, chunk.family());
            roots.entry(place).or_default().push(chunk);
        }
        let busy = Family::BOTH.map(|family| Busy::of(family, busy.iter().copied()));
        let spaces = roots.into_iter().map(|(place, roots)| {
            let family = place.2;
            let busy = &busy[usize::from(family == Family::V6)];
            (place, FreeSpace::new(family, roots, busy))
        });
        Some(Self {
            spaces: spaces.collect(),
            families: families(it)?,
            left,
        })
    }

    /// What follows from these nodes of the cluster, which have changed, each as it is now. None: they have to be planned with all
    /// others, and this room is of no use any more.
    pub(in crate::plan) fn settle<'n>(
        &mut self,
        it: &Standing<'n>,
        changed: &[(&'n NodeId, Option<&'n Node>)],
    ) -> Option<Changes> {
        let mut places = Places::new(it.wish.cluster, it.wish.topology.granularity);
        let mut changes = Changes {
            ledger: None,
            nodes: Vec::new(),
        };
        let (mut new, mut released) = (Vec::new(), BTreeSet::new());
        let mut newcomers: Vec<(&NodeId, &Node, &SegmentOffer)> = Vec::new();
        for (id, node) in changed {
            match (it.nodes.get(*id), node) {
                (None, None) => {}
                (Some(old), None) => {
                    self.leave(it, old)?;
                    self.left.insert(id.node.clone());
                    released.insert(&id.node);
                    changes.nodes.push(((*id).clone(), None));
                }
                (Some(old), Some(node)) => {
                    let site = places.of(id, node).ok()?;
                    let plan = self.stay(it, old, node, &site)?;
                    changes.nodes.push(((*id).clone(), Some(plan)));
                }
                (None, Some(node)) => {
                    let site = places.of(id, node).ok()?;
                    let segment = segment_of(it.offer, &site)?;
                    let is_full = segment.gateways.len() == wanted(it);
                    let fits = node.pod_cidrs.is_empty() && !self.left.contains(&id.node);
                    if !is_full || !fits {
                        return None;
                    }
                    newcomers.push((*id, *node, segment));
                }
            }
        }
        for (id, node, segment) in newcomers {
            let plan = self.join(it, id, node, segment, &mut new)?;
            changes.nodes.push((id.clone(), Some(plan)));
        }
        if !new.is_empty() || !released.is_empty() {
            changes.ledger = Some(Arc::new(ledger(it.ledger, new, &released)));
        }
        Some(changes)
    }

    /// A node that is no gateway may go: what it held is released.
    fn leave(&self, it: &Standing<'_>, old: &NodePlan) -> Option<()> {
        let segment = offered(it.offer, &old.segment)?;
        (old.gateway_rank.is_none() && segment.gateways.len() == wanted(it)).then_some(())
    }

    /// A node that keeps what it has.
    fn stay(
        &self,
        it: &Standing<'_>,
        old: &NodePlan,
        node: &Node,
        site: &SiteName,
    ) -> Option<NodePlan> {
        let mut addresses = node.addresses.clone();
        addresses.sort_unstable();
        let is_gateway = old.gateway_rank.is_some();
        let segment = offered(it.offer, &old.segment)?;
        let keeps_seat = !is_gateway
            || addresses == old.addresses && carries(node, &it.wish.cluster.gateway_selector);
        if *site != old.site || segment.gateways.len() != wanted(it) || !keeps_seat {
            return None;
        }
        let mesh = old.mesh_addresses.iter().map(|it| Family::of(*it));
        let mesh: Families = mesh.collect();
        let pods: Families = old.pod_cidrs.iter().map(|it| it.family()).collect();
        let has = |held: Families, wanted: Families| wanted.iter().all(|it| held.contains(it));
        let assigned = node.pod_cidrs.is_empty();
        let complete =
            has(mesh, it.holdings.mesh_families) && (!assigned || has(pods, self.families));
        let mut seen = node.pod_cidrs.clone();
        seen.sort_unstable();
        if !complete || !(assigned || seen == old.pod_cidrs) {
            return None;
        }
        Some(NodePlan {
            assign: assigned,
            addresses,
            ..old.clone()
        })
    }

    /// A node that comes gets what is free.
    fn join(
        &mut self,
        it: &Standing<'_>,
        id: &NodeId,
        node: &Node,
        segment: &SegmentOffer,
        new: &mut Vec<Grant>,
    ) -> Option<NodePlan> {
        let mut cut = |used_for, families: Families| -> Option<Vec<Prefix>> {
            let mut shares = Vec::new();
            for family in families.iter() {
                let place = (segment.site.clone(), used_for, family);
                let length = Lengths::of(it.wish.addressing, used_for, family).node;
                let prefix = self.spaces.get_mut(&place)?.take(length)?;
                new.push(Grant {
                    prefix,
                    used_for,
                    owner: Owner::Node(id.node.clone()),
                    state: State::Active,
                });
                shares.push(prefix);
            }
            shares.sort_unstable();
            Some(shares)
        };
        let pod_cidrs = cut(Use::Pod, self.families)?;
        let mesh = cut(Use::Mesh, it.holdings.mesh_families)?;
        let mut addresses = node.addresses.clone();
        addresses.sort_unstable();
        Some(NodePlan {
            link: it.wish.link.clone(),
            peer: id.peer().ok()?,
            site: segment.site.clone(),
            segment: segment.name.clone(),
            gateway_rank: None,
            assign: true,
            pod_cidrs,
            mesh_addresses: mesh.iter().map(|prefix| prefix.address()).collect(),
            addresses,
        })
    }
}

/// Families in which nodes are given ranges; none while a first block is missing.
fn families(it: &Standing<'_>) -> Option<Families> {
    let mut families = Families::NONE;
    for family in Family::BOTH {
        let mut blocks = it.holdings.blocks.iter();
        let has_block = blocks.any(|block| block.family() == family);
        let has_pool = it.wish.cluster.pod_cidrs.is_empty() && it.holdings.pools.contains(family);
        if has_pool && !has_block {
            return None;
        }
        if has_block {
            families.extend([family]);
        }
    }
    (!families.is_empty()).then_some(families)
}

/// How many gateways a segment is to have.
fn wanted(it: &Standing<'_>) -> usize {
    usize::from(it.wish.topology.gateways_per_site.clamp(1, 4))
}

fn segment_of<'o>(offer: &'o Offer, site: &SiteName) -> Option<&'o SegmentOffer> {
    offer.segments.iter().find(|segment| segment.site == *site)
}

fn offered<'o>(offer: &'o Offer, name: &SegmentName) -> Option<&'o SegmentOffer> {
    let at = offer.segments.binary_search_by(|it| it.name.cmp(name));
    Some(&offer.segments[at.ok()?])
}

/// The ledger with new grants, and those of nodes that left released.
fn ledger(before: &Ledger, mut new: Vec<Grant>, left: &BTreeSet<&NodeName>) -> Ledger {
    new.sort_unstable();
    let mut new = new.into_iter().peekable();
    let mut grants = Vec::with_capacity(before.grants.len() + new.len());
    for grant in &before.grants {
        let mut grant = grant.clone();
        if matches!(&grant.owner, Owner::Node(node) if left.contains(node)) {
            grant.state = State::Released;
        }
        grants.extend(std::iter::from_fn(|| new.next_if(|it| *it < grant)));
        grants.push(grant);
    }
    grants.extend(new);
    // A grant's place depends on its state last of all, and no two differ in that alone.
    Ledger {
        lineage: before.lineage.clone(),
        revision: before.revision + 1,
        parents: before.parents.clone(),
        grants,
    }
}
