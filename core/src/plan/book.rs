//! A cluster's level: its blocks split into chunks of sites, and chunks into nodes' shares.
//!
//! Order of a run: open, take in what nodes have, bring back what returning nodes had, cut what is still missing, close.
//! A released share is used again only when its site's chunks have nothing else, and before the site gets another
//! chunk: so a site whose nodes come and go keeps few prefixes.

use super::hub::{Hub, Lengths, Taken};
use super::members::Members;
use super::ranges::{Disjoint, Holder, Relations};
use super::space::{Busy, FreeSpace};
use super::work::NodeWork;
use crate::cidr::{Family, Prefix, PrefixSet};
use crate::ids::{ClusterName, Lineage, LinkName, NodeName, SiteName};
use crate::ledger::{Grant, Ledger, Owner, State, Use};
use std::collections::BTreeMap;

/// A cluster's ledger while it is planned.
pub(super) struct Book<'a> {
    cluster: &'a ClusterName,
    link: &'a LinkName,
    before: Option<&'a Ledger>,
    /// Grants of owners that have no place in a cluster's ledger: kept, for people to look at.
    strange: Vec<&'a Grant>,
    chunks: Disjoint<Chunk<'a>>,
    live: Disjoint<Share<'a>>,
    released: BTreeMap<Prefix, (&'a NodeName, Use)>,
    /// Released shares by the node that had them.
    returned: BTreeMap<&'a NodeName, Vec<(Prefix, Use)>>,
    sites: BTreeMap<(&'a SiteName, Use, Family), SiteSpace>,
    blocks: BTreeMap<(Use, Family), FreeSpace>,
}

/// A site's part of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk<'a> {
    /// The site.
    pub(super) site: &'a SiteName,
    /// What it is for.
    pub(super) used_for: Use,
    state: State,
}

/// What one node holds.
#[derive(Debug, Clone, Copy)]
struct Share<'a> {
    node: &'a NodeName,
    used_for: Use,
    state: State,
}

struct SiteSpace {
    free: FreeSpace,
    /// Whether released shares are part of it already.
    reusing: bool,
}

/// What a node asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    /// The node.
    pub(super) node: &'a NodeName,
    /// Its site.
    pub(super) site: &'a SiteName,
    /// What for.
    pub(super) used_for: Use,
    /// In which family.
    pub(super) family: Family,
    /// How large.
    pub(super) lengths: Lengths,
}

impl<'a> Book<'a> {
    /// Reads the ledger as it stands and hands every node what it holds. Shares of nodes that are gone are released.
    /// `nodes` are sorted by name.
    pub(super) fn open(
        cluster: &'a ClusterName,
        link: &'a LinkName,
        before: Option<&'a Ledger>,
        nodes: &mut [NodeWork<'a>],
    ) -> Self {
        let mut book = Self {
            cluster,
            link,
            before,
            strange: Vec::new(),
            chunks: Disjoint::new(),
            live: Disjoint::new(),
            released: BTreeMap::new(),
            returned: BTreeMap::new(),
            sites: BTreeMap::new(),
            blocks: BTreeMap::new(),
        };
        for grant in before.iter().flat_map(|ledger| &ledger.grants) {
            let (prefix, used_for, state) = (grant.prefix, grant.used_for, grant.state);
            match &grant.owner {
                Owner::Cluster(_) => book.strange.push(grant),
                Owner::Site(site) => book.chunks.insert(
                    prefix,
                    Chunk {
                        site,
                        used_for,
                        state,
                    },
                ),
                Owner::Node(node) => {
                    let holder = nodes.binary_search_by(|work| work.id.node.cmp(node));
                    match holder {
                        Ok(at) if state != State::Released => {
                            nodes[at].shares(used_for).push(prefix);
                            book.live.insert(
                                prefix,
                                Share {
                                    node,
                                    used_for,
                                    state,
                                },
                            );
                        }
                        Ok(_) => {
                            book.returned
                                .entry(node)
                                .or_default()
                                .push((prefix, used_for));
                            book.released.insert(prefix, (node, used_for));
                        }
                        Err(_) => {
                            book.released.insert(prefix, (node, used_for));
                        }
                    }
                }
            }
        }
        book
    }

    /// Gives a whole range of the cluster to the one site that the cluster has.
    pub(super) fn dedicate(&mut self, site: &'a SiteName, prefix: Prefix) {
        if self.chunks.overlapping(prefix).is_none() {
            self.chunks.insert(
                prefix,
                Chunk {
                    site,
                    used_for: Use::Pod,
                    state: State::Imported,
                },
            );
        }
    }

    /// The chunk that a range lies in.
    pub(super) fn chunk_of(&self, prefix: Prefix) -> Option<Chunk<'a>> {
        self.chunks.containing(prefix).map(|(_, chunk)| *chunk)
    }

    /// The chunks of all sites, in order.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (Prefix, Chunk<'a>)> + '_ {
        self.chunks.iter().map(|(prefix, chunk)| (prefix, *chunk))
    }

    /// Whether a range lies in a chunk of this site.
    pub(super) fn is_own(&self, site: &SiteName, prefix: Prefix) -> bool {
        self.chunk_of(prefix)
            .is_some_and(|chunk| chunk.site == site)
    }

    /// Releases pod ranges that the node turns out not to have: its Node object says otherwise.
    pub(super) fn release_unseen(&mut self, work: &mut NodeWork<'a>) {
        if work.node.pod_cidrs.is_empty() {
            return;
        }
        let (kept, unseen): (Vec<_>, Vec<_>) = work
            .pods
            .iter()
            .partition(|prefix| work.node.pod_cidrs.contains(prefix));
        for prefix in unseen {
            self.live.remove(prefix);
            self.released.insert(prefix, (&work.id.node, Use::Pod));
        }
        work.pods = kept;
    }

    /// Records the pod ranges that a node has, unless one of them is somebody else's.
    pub(super) fn observe(
        &mut self,
        work: &mut NodeWork<'a>,
        hub: &mut Hub<'a>,
        members: &Members<'a>,
    ) -> Result<(), Taken> {
        let mut seen = work.node.pod_cidrs.clone();
        seen.sort_unstable();
        for prefix in seen {
            if work.pods.contains(&prefix) {
                continue;
            }
            if self.live.overlapping(prefix).is_some() {
                return Err(Taken);
            }
            hub.import(self.cluster, prefix, members)?;
            self.hold(&work.id.node, Use::Pod, prefix, State::Imported);
            work.pods.push(prefix);
        }
        Ok(())
    }

    /// What another share than this one meets.
    pub(super) fn share_over(
        &self,
        prefix: Prefix,
        node: &NodeName,
    ) -> Option<(Prefix, &'a NodeName)> {
        let around = self
            .live
            .containing(prefix)
            .into_iter()
            .chain(self.live.within(prefix));
        around
            .map(|(other, share)| (other, share.node))
            .find(|(other, owner)| *owner != node || *other != prefix)
    }

    /// Gives a returning node what it had, if that is still free and still in the chunks of its site.
    pub(super) fn bring_back(&mut self, ask: Ask<'a>) -> Option<Prefix> {
        let prefix =
            self.returned
                .get(ask.node)?
                .iter()
                .copied()
                .find_map(|(prefix, used_for)| {
                    (used_for == ask.used_for
                        && prefix.family() == ask.family
                        && self.is_own(ask.site, prefix)
                        && self.live.overlapping(prefix).is_none())
                    .then_some(prefix)
                })?;
        self.hold(ask.node, ask.used_for, prefix, State::Active);
        Some(prefix)
    }

    /// Cuts a new share, with a new chunk or a new block where that is needed.
    pub(super) fn cut(
        &mut self,
        ask: Ask<'a>,
        hub: &mut Hub<'a>,
        members: &Members<'a>,
    ) -> Option<Prefix> {
        let key = (ask.site, ask.used_for, ask.family);
        loop {
            if !self.sites.contains_key(&key) {
                let free = self.site_space(ask, hub, members, false);
                self.sites.insert(
                    key,
                    SiteSpace {
                        free,
                        reusing: self.released.is_empty(),
                    },
                );
            }
            let space = self.sites.get_mut(&key)?;
            if let Some(prefix) = space.free.take(ask.lengths.node) {
                self.hold(ask.node, ask.used_for, prefix, State::Active);
                return Some(prefix);
            }
            if space.reusing {
                // Ends: each chunk holds a share, and blocks and pools are finite.
                let chunk = self.cut_chunk(ask, hub, members)?;
                let state = State::Active;
                self.chunks.insert(
                    chunk,
                    Chunk {
                        site: ask.site,
                        used_for: ask.used_for,
                        state,
                    },
                );
                self.sites.get_mut(&key)?.free.add(chunk);
            } else {
                let free = self.site_space(ask, hub, members, true);
                self.sites.insert(
                    key,
                    SiteSpace {
                        free,
                        reusing: true,
                    },
                );
            }
        }
    }

    fn hold(&mut self, node: &'a NodeName, used_for: Use, prefix: Prefix, state: State) {
        self.released.remove(&prefix);
        self.live.insert(
            prefix,
            Share {
                node,
                used_for,
                state,
            },
        );
    }

    /// What is free in the chunks of one site.
    fn site_space(
        &self,
        ask: Ask<'a>,
        hub: &Hub<'a>,
        members: &Members<'a>,
        reusing: bool,
    ) -> FreeSpace {
        let chunks: Vec<Prefix> = self
            .chunks()
            .filter(|(_, chunk)| chunk.site == ask.site && chunk.used_for == ask.used_for)
            .map(|(prefix, _)| prefix)
            .filter(|prefix| prefix.family() == ask.family)
            .collect();
        let mut busy = Vec::new();
        for &chunk in &chunks {
            busy.extend(self.live.within(chunk).map(|(prefix, _)| prefix));
            busy.extend(self.live.containing(chunk).map(|(prefix, _)| prefix));
            busy.extend(self.foreign(chunk, hub, members));
            if !reusing {
                busy.extend(
                    self.released
                        .range(chunk..)
                        .map(|(prefix, _)| *prefix)
                        .take_while(|prefix| chunk.contains(*prefix)),
                );
            }
        }
        FreeSpace::new(ask.family, chunks, &Busy::of(ask.family, busy))
    }

    fn cut_chunk(
        &mut self,
        ask: Ask<'a>,
        hub: &mut Hub<'a>,
        members: &Members<'a>,
    ) -> Option<Prefix> {
        let key = (ask.used_for, ask.family);
        let blocks: Vec<Prefix> = match ask.used_for {
            Use::Pod => hub.blocks(self.cluster),
            Use::Mesh => hub.held(self.cluster, Use::Mesh),
        }
        .iter()
        .copied()
        .filter(|block| block.family() == ask.family)
        .collect();
        let largest = blocks
            .iter()
            .map(|block| block.len())
            .min()
            .unwrap_or(ask.lengths.block);
        if !self.blocks.contains_key(&key) {
            let mut busy: Vec<Prefix> = Vec::new();
            for &block in &blocks {
                busy.extend(self.chunks.within(block).map(|(prefix, _)| prefix));
                busy.extend(self.live.within(block).map(|(prefix, _)| prefix));
                busy.extend(self.chunks.containing(block).map(|(prefix, _)| prefix));
                busy.extend(self.live.containing(block).map(|(prefix, _)| prefix));
                busy.extend(self.foreign(block, hub, members));
            }
            self.blocks.insert(
                key,
                FreeSpace::new(ask.family, blocks, &Busy::of(ask.family, busy)),
            );
        }
        let wanted = ask.lengths.chunk(largest);
        let space = self.blocks.get_mut(&key)?;
        if let Some(chunk) = space.take(wanted) {
            return Some(chunk);
        }
        if let Some(block) = hub.grab(
            self.link,
            self.cluster,
            ask.used_for,
            ask.family,
            ask.lengths.block,
        ) {
            space.add(block);
            let wanted = ask.lengths.chunk(block.len());
            if let Some(chunk) = space.take(wanted) {
                return Some(chunk);
            }
        }
        // What is left of the blocks is in pieces: better a small chunk than none.
        (wanted..=ask.lengths.node).find_map(|len| space.take(len))
    }

    /// Ranges inside a block that are somebody else's all the same: they were named after the block was granted.
    fn foreign<'s>(
        &'s self,
        block: Prefix,
        hub: &'s Hub<'a>,
        members: &'s Members<'a>,
    ) -> impl Iterator<Item = Prefix> + 's {
        hub.ranges
            .overlapping(block)
            .filter(move |(_, held)| match held {
                Holder::Pods(_)
                | Holder::Mesh(_)
                | Holder::Pool(_)
                | Holder::MeshPool(_)
                | Holder::DefaultMesh => false,
                Holder::Lan(site) | Holder::Ground(site) => {
                    !members.is_own_site(self.cluster, site)
                }
                _ => true,
            })
            .map(|(prefix, _)| prefix)
    }

    /// Marks shares outside the chunks of their node's site as imported: the node moved, and its range went with it.
    pub(super) fn mark_strays(&mut self, work: &NodeWork<'a>) {
        let Some(site) = work.site else { return };
        for &prefix in work.pods.iter().chain(&work.mesh) {
            if !self.is_own(site, prefix)
                && let Some(share) = self.live.get(prefix).copied()
                && share.state == State::Active
            {
                self.live.insert(
                    prefix,
                    Share {
                        state: State::Imported,
                        ..share
                    },
                );
            }
        }
    }

    /// The ledger after the run; none when there was none and nothing was granted.
    pub(super) fn close(self, hub: &Hub<'a>, lineage: &Lineage) -> Option<Ledger> {
        let grant = |prefix, used_for, owner, state| Grant {
            prefix,
            used_for,
            owner,
            state,
        };
        let mut grants: Vec<Grant> = self.strange.into_iter().cloned().collect();
        grants.extend(self.chunks.iter().map(|(prefix, chunk)| {
            grant(
                prefix,
                chunk.used_for,
                Owner::Site(chunk.site.clone()),
                chunk.state,
            )
        }));
        grants.extend(self.live.iter().map(|(prefix, share)| {
            grant(
                prefix,
                share.used_for,
                Owner::Node(share.node.clone()),
                share.state,
            )
        }));
        for (prefix, (node, used_for)) in &self.released {
            if self.live.overlapping(*prefix).is_none() {
                grants.push(grant(
                    *prefix,
                    *used_for,
                    Owner::Node((*node).clone()),
                    State::Released,
                ));
            }
        }
        grants.sort_unstable();
        let parents: PrefixSet = [Use::Pod, Use::Mesh]
            .iter()
            .flat_map(|used_for| hub.held(self.cluster, *used_for))
            .copied()
            .collect();
        match self.before {
            Some(before) if before.grants == grants && before.parents == parents => {
                Some(before.clone())
            }
            Some(before) => Some(Ledger {
                lineage: before.lineage.clone(),
                revision: before.revision + 1,
                parents,
                grants,
            }),
            None if grants.is_empty() && parents.is_empty() => None,
            None => Some(Ledger {
                lineage: lineage.clone(),
                revision: 1,
                parents,
                grants,
            }),
        }
    }
}
