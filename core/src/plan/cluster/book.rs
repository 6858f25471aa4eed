//! A cluster's ledger while it is planned: blocks split into chunks of sites, and chunks into nodes' shares.
//!
//! Order of a run: open, take in what nodes have, bring back what returning nodes had, cut what is still missing, close.
//! A released share is used again only when its site's chunks have nothing else, and before the site gets another
//! chunk: so a site whose nodes come and go keeps few prefixes.

use super::node::{NodeWork, Shares};
use crate::cidr::{Family, Prefix, PrefixSet};
use crate::ids::{Lineage, NodeName, SiteName};
use crate::ledger::{Grant, Ledger, Owner, State, Use};
use crate::plan::disjoint::Disjoint;
use crate::plan::exchange::{BlockAsk, Holdings};
use crate::plan::lengths::Lengths;
use crate::plan::space::{Busy, FreeSpace};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A cluster's ledger while it is planned.
pub(super) struct Book<'a> {
    before: Option<&'a Arc<Ledger>>,
    /// Grants of owners that have no place in a cluster's ledger: kept, for people to look at.
    strange: Vec<&'a Grant>,
    chunks: Disjoint<Chunk>,
    live: Disjoint<Share<'a>>,
    released: BTreeMap<Prefix, (&'a NodeName, Use)>,
    /// Released shares by the node that had them.
    returned: BTreeMap<&'a NodeName, Vec<(Prefix, Use)>>,
    /// Free space in the chunks of a site.
    sites: Vec<SiteSpace>,
    /// Free space in the blocks.
    blocks: Vec<BlockSpace>,
}

/// A site's part of a block.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    /// The site.
    pub(super) site: SiteName,
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
    site: SiteName,
    used_for: Use,
    family: Family,
    free: FreeSpace,
    /// Whether released shares are part of it already.
    reusing: bool,
}

struct BlockSpace {
    used_for: Use,
    family: Family,
    free: FreeSpace,
    /// Prefix length of the largest block.
    largest: Option<u8>,
    /// Whether the hub has no more.
    exhausted: bool,
}

/// What a node needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need<'a, 's> {
    /// The node.
    pub(super) node: &'a NodeName,
    /// Its site.
    pub(super) site: &'s SiteName,
    /// What for.
    pub(super) used_for: Use,
    /// In which family.
    pub(super) family: Family,
    /// How large.
    pub(super) lengths: Lengths,
}

impl Need<'_, '_> {
    /// The block that helps where chunks and blocks are full.
    fn block(&self) -> BlockAsk {
        BlockAsk {
            used_for: self.used_for,
            family: self.family,
            len: self.lengths.block,
        }
    }
}

/// How a cut ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// With a share.
    Share(Prefix),
    /// Another block is needed first; see [`Book::granted`] and [`Book::refused`].
    Needs(BlockAsk),
    /// Nothing is left.
    Nothing,
}

/// A range is another node's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken;

impl<'a> Book<'a> {
    /// Reads the ledger as it stands and hands every node what it holds. Shares of nodes that are gone are released.
    /// `nodes` are sorted by name.
    pub(super) fn open(before: Option<&'a Arc<Ledger>>, nodes: &mut [NodeWork<'a>]) -> Self {
        let mut book = Self {
            before,
            strange: Vec::new(),
            chunks: Disjoint::new(),
            live: Disjoint::new(),
            released: BTreeMap::new(),
            returned: BTreeMap::new(),
            sites: Vec::new(),
            blocks: Vec::new(),
        };
        for grant in before.iter().flat_map(|ledger| &ledger.grants) {
            let (prefix, used_for, state) = (grant.prefix, grant.used_for, grant.state);
            match &grant.owner {
                Owner::Cluster(_) => book.strange.push(grant),
                Owner::Site(site) => {
                    let site = site.clone();
                    let chunk = Chunk {
                        site,
                        used_for,
                        state,
                    };
                    book.chunks.insert(prefix, chunk);
                }
                Owner::Node(node) => {
                    let holder = nodes.binary_search_by(|work| work.id.node.cmp(node));
                    match holder {
                        Ok(at) if state != State::Released => {
                            nodes[at].shares_mut(used_for).push(prefix);
                            let share = Share {
                                node,
                                used_for,
                                state,
                            };
                            book.live.insert(prefix, share);
                        }
                        Ok(_) => {
                            let returned = book.returned.entry(node).or_default();
                            returned.push((prefix, used_for));
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
    pub(super) fn dedicate(&mut self, site: &SiteName, prefix: Prefix) {
        if self.chunks.overlapping(prefix).is_none() {
            let chunk = Chunk {
                site: site.clone(),
                used_for: Use::Pod,
                state: State::Imported,
            };
            self.chunks.insert(prefix, chunk);
        }
    }

    /// The chunk that a range lies in.
    pub(super) fn chunk_of(&self, prefix: Prefix) -> Option<&Chunk> {
        self.chunks.containing(prefix).map(|(_, chunk)| chunk)
    }

    /// The chunks of all sites, in order.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (Prefix, &Chunk)> + '_ {
        self.chunks.iter()
    }

    /// Whether a range lies in a chunk of this site.
    pub(super) fn is_own(&self, site: &SiteName, prefix: Prefix) -> bool {
        self.chunk_of(prefix)
            .is_some_and(|chunk| chunk.site == *site)
    }

    /// Releases pod ranges that the node turns out not to have: its Node object says otherwise.
    pub(super) fn release_unseen(&mut self, work: &mut NodeWork<'a>) {
        let seen = &work.node.pod_cidrs;
        if seen.is_empty() || work.pods.iter().all(|prefix| seen.contains(prefix)) {
            return;
        }
        let (kept, unseen): (Shares, Shares) = work
            .pods
            .iter()
            .copied()
            .partition(|prefix| seen.contains(prefix));
        for prefix in unseen {
            self.live.remove(prefix);
            self.released.insert(prefix, (&work.id.node, Use::Pod));
        }
        work.pods = kept;
    }

    /// Records a pod range that a node has, unless it is another node's.
    pub(super) fn import(&mut self, node: &'a NodeName, prefix: Prefix) -> Result<(), Taken> {
        if self.live.overlapping(prefix).is_some() {
            return Err(Taken);
        }
        self.hold(node, Use::Pod, prefix, State::Imported);
        Ok(())
    }

    /// What another share than this one meets.
    pub(super) fn share_over(
        &self,
        prefix: Prefix,
        node: &NodeName,
    ) -> Option<(Prefix, &'a NodeName)> {
        self.live
            .meeting(prefix)
            .map(|(other, share)| (other, share.node))
            .find(|(other, owner)| *owner != node || *other != prefix)
    }

    /// Whether any node has something to return to.
    pub(super) fn has_returned(&self) -> bool {
        !self.returned.is_empty()
    }

    /// Gives a returning node what it had, if that is still free and still in the chunks of its site.
    pub(super) fn bring_back(&mut self, need: &Need<'a, '_>) -> Option<Prefix> {
        let mut returned = self.returned.get(need.node)?.iter();
        let prefix = returned.find_map(|&(prefix, used_for)| {
            let fits = used_for == need.used_for && prefix.family() == need.family;
            let free =
                fits && self.is_own(need.site, prefix) && self.live.overlapping(prefix).is_none();
            free.then_some(prefix)
        })?;
        self.hold(need.node, need.used_for, prefix, State::Active);
        Some(prefix)
    }

    /// Cuts a new share, with a new chunk where that is needed.
    pub(super) fn cut(&mut self, need: &Need<'a, '_>, holdings: &Holdings) -> Cut {
        let at = self.space_of(need, holdings);
        loop {
            if let Some(prefix) = self.sites[at].free.take(need.lengths.node) {
                self.hold(need.node, need.used_for, prefix, State::Active);
                return Cut::Share(prefix);
            }
            if self.sites[at].reusing {
                // Ends: each chunk holds a share, and blocks are finite.
                match self.cut_chunk(need, holdings) {
                    Cut::Share(chunk) => self.add_chunk(at, chunk),
                    other => return other,
                }
            } else {
                self.sites[at].free = self.site_space(need, holdings, true);
                self.sites[at].reusing = true;
            }
        }
    }

    /// The hub has granted the block that `need` asked for: its first chunk goes to the site of the need.
    pub(super) fn granted(&mut self, need: &Need<'a, '_>, block: Prefix, holdings: &Holdings) {
        let space = self.block_space(need, holdings);
        space.free.add(block);
        space.largest = Some(
            space
                .largest
                .map_or(block.len(), |len| len.min(block.len())),
        );
        let chunk = space.free.take(need.lengths.chunk(block.len()));
        if let Some(chunk) = chunk {
            let at = self.space_of(need, holdings);
            self.add_chunk(at, chunk);
        }
    }

    /// The hub has no block for `need`.
    pub(super) fn refused(&mut self, need: &Need<'a, '_>, holdings: &Holdings) {
        self.block_space(need, holdings).exhausted = true;
    }

    /// Forgets what is free: cutting for a use is over.
    pub(super) fn end_cutting(&mut self) {
        self.sites = Vec::new();
        self.blocks = Vec::new();
    }

    fn add_chunk(&mut self, at: usize, chunk: Prefix) {
        let space = &mut self.sites[at];
        space.free.add(chunk);
        let entry = Chunk {
            site: space.site.clone(),
            used_for: space.used_for,
            state: State::Active,
        };
        self.chunks.insert(chunk, entry);
    }

    fn hold(&mut self, node: &'a NodeName, used_for: Use, prefix: Prefix, state: State) {
        if !self.released.is_empty() {
            self.released.remove(&prefix);
        }
        let share = Share {
            node,
            used_for,
            state,
        };
        self.live.insert(prefix, share);
    }

    /// Where the free space of the need's site is.
    fn space_of(&mut self, need: &Need<'a, '_>, holdings: &Holdings) -> usize {
        let fits = |space: &SiteSpace| {
            space.used_for == need.used_for
                && space.family == need.family
                && space.site == *need.site
        };
        // The last one first: nodes of a site often follow each other.
        if let Some(at) = self.sites.iter().rposition(fits) {
            return at;
        }
        let space = SiteSpace {
            site: need.site.clone(),
            used_for: need.used_for,
            family: need.family,
            free: self.site_space(need, holdings, false),
            reusing: self.released.is_empty(),
        };
        self.sites.push(space);
        self.sites.len() - 1
    }

    /// What is free in the chunks of one site.
    fn site_space(&self, need: &Need<'a, '_>, holdings: &Holdings, reusing: bool) -> FreeSpace {
        let chunks: Vec<Prefix> = self
            .chunks()
            .filter(|(prefix, chunk)| {
                prefix.family() == need.family
                    && chunk.used_for == need.used_for
                    && chunk.site == *need.site
            })
            .map(|(prefix, _)| prefix)
            .collect();
        let mut busy = holdings.foreign.clone();
        for &chunk in &chunks {
            busy.extend(self.live.meeting(chunk).map(|(prefix, _)| prefix));
            if !reusing {
                let released = self.released.range(chunk..).map(|(prefix, _)| *prefix);
                busy.extend(released.take_while(|prefix| chunk.contains(*prefix)));
            }
        }
        FreeSpace::new(need.family, chunks, &Busy::of(need.family, busy))
    }

    fn cut_chunk(&mut self, need: &Need<'a, '_>, holdings: &Holdings) -> Cut {
        let space = self.block_space(need, holdings);
        let largest = space.largest.unwrap_or(need.lengths.block);
        let wanted = need.lengths.chunk(largest);
        if let Some(chunk) = space.free.take(wanted) {
            return Cut::Share(chunk);
        }
        if !space.exhausted {
            return Cut::Needs(need.block());
        }
        // What is left of the blocks is in pieces: better a small chunk than none.
        (wanted..=need.lengths.node)
            .find_map(|len| space.free.take(len))
            .map_or(Cut::Nothing, Cut::Share)
    }

    /// What is free in the cluster's blocks.
    fn block_space(&mut self, need: &Need<'a, '_>, holdings: &Holdings) -> &mut BlockSpace {
        let Need {
            used_for, family, ..
        } = *need;
        let fits = |space: &BlockSpace| space.used_for == used_for && space.family == family;
        let at = match self.blocks.iter().position(fits) {
            Some(at) => at,
            None => {
                let space = self.new_block_space(used_for, family, holdings);
                self.blocks.push(space);
                self.blocks.len() - 1
            }
        };
        &mut self.blocks[at]
    }

    fn new_block_space(&self, used_for: Use, family: Family, holdings: &Holdings) -> BlockSpace {
        let held = match used_for {
            Use::Pod => &holdings.blocks,
            Use::Mesh => &holdings.mesh,
        };
        let in_family = held.iter().copied();
        let blocks: Vec<Prefix> = in_family.filter(|block| block.family() == family).collect();
        let mut busy = holdings.foreign.clone();
        for &block in &blocks {
            busy.extend(self.chunks.meeting(block).map(|(prefix, _)| prefix));
            busy.extend(self.live.meeting(block).map(|(prefix, _)| prefix));
        }
        BlockSpace {
            used_for,
            family,
            largest: blocks.iter().map(|block| block.len()).min(),
            free: FreeSpace::new(family, blocks, &Busy::of(family, busy)),
            exhausted: false,
        }
    }

    /// Shares outside the chunks of their node's site, sorted, each with whether its node takes part: the node moved, and its
    /// range went with it.
    pub(super) fn strays(&self, nodes: &[NodeWork<'a>]) -> Vec<(Prefix, bool)> {
        let mut strays = Vec::new();
        for work in nodes {
            let Some(site) = &work.site else { continue };
            let shares = work.pods.iter().chain(&work.mesh);
            let outside = shares.filter(|prefix| !self.is_own(site, **prefix));
            strays.extend(outside.map(|prefix| (*prefix, work.planned)));
        }
        strays.sort_unstable();
        strays
    }

    /// Marks strays as imported.
    pub(super) fn mark(&mut self, strays: &[(Prefix, bool)]) {
        for (prefix, _) in strays {
            if let Some(share) = self.live.get_mut(*prefix)
                && share.state == State::Active
            {
                share.state = State::Imported;
            }
        }
    }

    /// The ledger after the run; none when there was none and nothing was granted.
    pub(super) fn close(self, holdings: &Holdings, lineage: &Lineage) -> Option<Arc<Ledger>> {
        let grant = |prefix, used_for, owner, state| Grant {
            prefix,
            used_for,
            owner,
            state,
        };
        let most = self.live.len() + self.released.len() + self.chunks.len() + self.strange.len();
        let mut grants: Vec<Grant> = Vec::with_capacity(most);
        grants.extend(self.live.iter().map(|(prefix, share)| {
            let owner = Owner::Node(share.node.clone());
            grant(prefix, share.used_for, owner, share.state)
        }));
        for (prefix, (node, used_for)) in &self.released {
            if self.live.overlapping(*prefix).is_none() {
                let owner = Owner::Node((*node).clone());
                grants.push(grant(*prefix, *used_for, owner, State::Released));
            }
        }
        grants.extend(self.chunks.iter().map(|(prefix, chunk)| {
            let owner = Owner::Site(chunk.site.clone());
            grant(prefix, chunk.used_for, owner, chunk.state)
        }));
        grants.extend(self.strange.into_iter().cloned());
        grants.sort_unstable();
        let held = holdings.pods.iter().chain(&holdings.mesh);
        let parents: PrefixSet = held.copied().collect();
        match self.before {
            Some(before) if before.grants == grants && before.parents == parents => {
                Some(before.clone())
            }
            Some(before) => Some(Arc::new(Ledger {
                lineage: before.lineage.clone(),
                revision: before.revision + 1,
                parents,
                grants,
            })),
            None if grants.is_empty() && parents.is_empty() => None,
            None => Some(Arc::new(Ledger {
                lineage: lineage.clone(),
                revision: 1,
                parents,
                grants,
            })),
        }
    }
}
