//! The hub's ledger while it is planned: which range belongs to which cluster, site, VPN or service, and new blocks from the
//! pools.
//!
//! First what stands (grants, and ranges that plans export already), then what is claimed anew, each checked against
//! everything before it, and only then blocks are cut from what is free. So an import never meets a block cut in the same run.

use super::exports::{Exporter, StandingExports};
use super::membership::Membership;
use super::pools::{Pools, is_pool};
use super::ranges::{Holder, Ranges, Relations, clashes, occupies};
use crate::cidr::Prefix;
use crate::fleet::Fleet;
use crate::ids::{ClusterName, Lineage, LinkName, SiteName, VpnName};
use crate::ledger::{Grant, Ledger, LedgerName, Owner, State, Use};
use crate::plan::exchange::{BlockAsk, Holdings, Wish};
use crate::plan::proposal::Before;
use crate::plan::report::Reporter;
use crate::plan::space::{Busy, FreeSpace};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The hub's level while it is planned.
pub(super) struct HubBook<'a> {
    ledger: Option<&'a Arc<Ledger>>,
    /// Identity of the history.
    pub(super) lineage: &'a Lineage,
    /// Every range that anyone holds.
    pub(super) ranges: Ranges<'a>,
    /// What each planned cluster holds, in their order.
    holdings: Vec<Holdings>,
    new: Vec<Grant>,
    /// Pools that a link may grant from.
    pub(super) pools: Pools<'a>,
    spaces: BTreeMap<(Prefix, Use), PoolSpace>,
    /// Clashes that become notices.
    pub(super) clashes: Vec<Clash<'a>>,
    /// LAN ranges that are exported.
    pub(super) lans: BTreeSet<(&'a SiteName, Prefix)>,
    /// Service ranges that are exported.
    pub(super) services: BTreeSet<(&'a ClusterName, Prefix)>,
    /// VPN ranges that are exported.
    pub(super) vpns: BTreeSet<(&'a VpnName, Prefix)>,
}

/// What is free in one pool.
pub(super) struct PoolSpace {
    pub(super) free: FreeSpace,
    /// Whether another pool shares addresses with it, so that what one gives the other believes free.
    shared: bool,
}

/// A range that meets another one, and who wants it.
pub(super) struct Clash<'a> {
    /// Who wants the range.
    pub(super) new: Holder<'a>,
    /// Field and object that name it, for people.
    pub(super) subject: String,
    /// The range.
    pub(super) prefix: Prefix,
    /// The link concerned.
    pub(super) link: Option<&'a LinkName>,
}

/// Somebody else has a range.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken;

impl<'a> HubBook<'a> {
    /// What stands: grants, exported ranges, reservations, pools.
    pub(super) fn open(
        fleet: &'a Fleet,
        before: &'a Before,
        members: &Membership<'a>,
        wishes: &[Wish<'a>],
        standing: &StandingExports<'a>,
        report: &mut Reporter,
    ) -> Self {
        let ledger = before.ledgers.get(&LedgerName::Hub);
        let mut book = Self {
            ledger,
            lineage: before.lineage(),
            ranges: Ranges::default(),
            holdings: vec![Holdings::default(); wishes.len()],
            new: Vec::new(),
            pools: Pools::default(),
            spaces: BTreeMap::new(),
            clashes: Vec::new(),
            lans: BTreeSet::new(),
            services: BTreeSet::new(),
            vpns: BTreeSet::new(),
        };
        let seats: BTreeMap<&ClusterName, usize> =
            wishes.iter().map(|wish| (wish.name, wish.at)).collect();
        for grant in ledger.iter().flat_map(|ledger| &ledger.grants) {
            if let Owner::Cluster(cluster) = &grant.owner
                && grant.state != State::Released
            {
                let at = seats.get(cluster).copied();
                book.hold(cluster, at, grant.used_for, grant.state, grant.prefix);
            }
        }
        let grants = ledger.map_or(&[][..], |ledger| &ledger.grants);
        book.pools = Pools::settle(fleet, grants, members, book.lineage, report);
        for (prefix, holder) in book.pools.holders() {
            book.ranges.insert(prefix, holder);
        }
        for (name, link) in &fleet.links {
            for prefix in link.addressing.reserved.iter() {
                book.ranges.insert(prefix, Holder::Reserved(name));
            }
        }
        book.keep_exports(standing, members);
        book
    }

    /// Ranges that plans export already keep their place.
    fn keep_exports(&mut self, standing: &StandingExports<'a>, members: &Membership<'a>) {
        for (link, exporter, prefix) in standing.iter() {
            let (owner, holder) = match exporter {
                Exporter::Services(cluster) => {
                    (members.link_of(cluster), Holder::Services(cluster))
                }
                Exporter::Lan(site) => (members.link_of_site(site), Holder::Lan(site)),
                Exporter::Vpn(vpn) => (members.link_of_vpn(vpn), Holder::Vpn(vpn)),
            };
            if owner != Some(link) {
                continue;
            }
            self.ranges.insert(prefix, holder);
            match exporter {
                Exporter::Services(cluster) => _ = self.services.insert((cluster, prefix)),
                Exporter::Lan(site) => _ = self.lans.insert((site, prefix)),
                Exporter::Vpn(vpn) => _ = self.vpns.insert((vpn, prefix)),
            }
        }
    }

    /// Whether a cluster's service range is reachable for others.
    pub(super) fn exports_service(&self, cluster: &'a ClusterName, prefix: Prefix) -> bool {
        self.services.contains(&(cluster, prefix))
    }

    /// Whether a site's range is reachable for others.
    pub(super) fn exports_lan(&self, site: &'a SiteName, prefix: Prefix) -> bool {
        self.lans.contains(&(site, prefix))
    }

    /// Whether a VPN's range is reachable.
    pub(super) fn exports_vpn(&self, vpn: &'a VpnName, prefix: Prefix) -> bool {
        self.vpns.contains(&(vpn, prefix))
    }

    /// What a cluster holds.
    pub(super) fn holdings(&self, wish: &Wish<'a>) -> &Holdings {
        &self.holdings[wish.at]
    }

    /// What a cluster holds, to be told more.
    pub(super) fn holdings_mut(&mut self, wish: &Wish<'a>) -> &mut Holdings {
        &mut self.holdings[wish.at]
    }

    /// Notes that a cluster holds a range; `at` is its place, where it is planned.
    fn hold(
        &mut self,
        cluster: &'a ClusterName,
        at: Option<usize>,
        used_for: Use,
        state: State,
        prefix: Prefix,
    ) {
        let holder = match used_for {
            Use::Pod => Holder::Pods(cluster),
            Use::Mesh => Holder::Mesh(cluster),
        };
        self.ranges.insert(prefix, holder);
        let Some(holdings) = at.and_then(|at| self.holdings.get_mut(at)) else {
            return;
        };
        match used_for {
            Use::Mesh => holdings.mesh.push(prefix),
            Use::Pod => {
                holdings.pods.push(prefix);
                if state == State::Active {
                    holdings.blocks.push(prefix);
                }
            }
        }
    }

    /// Who holds something that a range of this holder may not meet, in order.
    pub(super) fn clashing(
        &self,
        prefix: Prefix,
        new: Holder<'a>,
        members: &Membership<'a>,
    ) -> Vec<(Prefix, Holder<'a>)> {
        let found: BTreeSet<_> = self
            .ranges
            .overlapping(prefix)
            .filter(|(_, held)| clashes(new, *held, members))
            .collect();
        found.into_iter().collect()
    }

    fn is_taken(&self, prefix: Prefix, new: Holder<'a>, members: &Membership<'a>) -> bool {
        let mut held = self.ranges.overlapping(prefix);
        held.any(|(_, held)| clashes(new, held, members))
    }

    /// Claims a range for a holder, unless somebody has it.
    pub(super) fn claim(
        &mut self,
        prefix: Prefix,
        new: Holder<'a>,
        members: &Membership<'a>,
    ) -> Result<(), Taken> {
        if self.is_taken(prefix, new, members) {
            return Err(Taken);
        }
        self.ranges.insert(prefix, new);
        Ok(())
    }

    /// Whether a range that a cluster's pods use already may not be recorded: it is somebody else's.
    pub(super) fn is_others(
        &self,
        wish: &Wish<'a>,
        prefix: Prefix,
        members: &Membership<'a>,
    ) -> bool {
        let own = Holder::Pods(wish.name);
        !self.ranges.holds(own, prefix) && self.is_taken(prefix, own, members)
    }

    /// Records a range that a cluster's pods use already and that is nobody else's.
    pub(super) fn import(&mut self, wish: &Wish<'a>, prefix: Prefix) {
        if !self.ranges.holds(Holder::Pods(wish.name), prefix) {
            self.grant(wish, Use::Pod, State::Imported, prefix);
        }
    }

    /// Declares a range of the cluster's own as one that node ranges may be cut from.
    pub(super) fn add_block(&mut self, wish: &Wish<'a>, prefix: Prefix) {
        let blocks = &mut self.holdings_mut(wish).blocks;
        if !blocks.iter().any(|block| block.contains(prefix)) {
            blocks.push(prefix);
        }
    }

    /// Tells a cluster which ranges inside or around its blocks are somebody else's all the same. New blocks have none: they
    /// avoid everything that is known.
    pub(super) fn tell_foreign(&mut self, wish: &Wish<'a>, members: &Membership<'a>) {
        let holdings = &mut self.holdings[wish.at];
        if holdings.blocks.is_empty() && holdings.mesh.is_empty() {
            return;
        }
        let ranges = &self.ranges;
        let foreign: BTreeSet<Prefix> = holdings
            .blocks
            .iter()
            .chain(&holdings.mesh)
            .flat_map(|block| ranges.overlapping(*block))
            .filter(|(_, held)| match held {
                Holder::Pods(_) | Holder::Mesh(_) => false,
                held if is_pool(held) => false,
                Holder::Lan(site) | Holder::Ground(site) => !members.is_own_site(wish.name, site),
                _ => true,
            })
            .map(|(prefix, _)| prefix)
            .collect();
        holdings.foreign = foreign.into_iter().collect();
    }

    /// Cuts a new block from the link's pools, in their order, lowest address first.
    pub(super) fn grab(&mut self, wish: &Wish<'a>, ask: BlockAsk) -> Option<Prefix> {
        let BlockAsk {
            used_for,
            family,
            len,
        } = ask;
        let mut at = 0;
        while let Some(pool) = self.pools.of(wish.link, used_for).get(at).copied() {
            at += 1;
            if pool.family() != family {
                continue;
            }
            // Mesh blocks are as small as they are needed; a pod block has the length that the user wants.
            let len = match used_for {
                Use::Mesh => len.max(pool.len()),
                Use::Pod => len,
            };
            while let Some(block) = self.space(wish.link, pool, used_for).free.take(len) {
                let shared = self.space(wish.link, pool, used_for).shared;
                let is_free = |(_, held)| !occupies(held, used_for, wish.link);
                if shared && !self.ranges.overlapping(block).all(is_free) {
                    continue;
                }
                self.grant(wish, used_for, State::Active, block);
                return Some(block);
            }
        }
        None
    }

    fn grant(&mut self, wish: &Wish<'a>, used_for: Use, state: State, prefix: Prefix) {
        self.hold(wish.name, Some(wish.at), used_for, state, prefix);
        self.new.push(Grant {
            prefix,
            used_for,
            owner: Owner::Cluster(wish.name.clone()),
            state,
        });
    }

    /// Free space of a pool, found out once.
    pub(super) fn space(&mut self, link: &LinkName, pool: Prefix, used_for: Use) -> &mut PoolSpace {
        let ranges = &self.ranges;
        self.spaces.entry((pool, used_for)).or_insert_with(|| {
            let busy = ranges
                .overlapping(pool)
                .filter(|(_, held)| occupies(*held, used_for, link))
                .map(|(prefix, _)| prefix);
            let pools = ranges.overlapping(pool).filter(|(_, held)| is_pool(held));
            PoolSpace {
                free: FreeSpace::new(pool.family(), [pool], &Busy::of(pool.family(), busy)),
                shared: pools.count() > 1,
            }
        })
    }

    /// Keeps a range that is not reachable from being given away.
    pub(super) fn avoid(&mut self, prefix: Prefix, holder: Holder<'a>) {
        if !self.ranges.exactly(prefix).any(|(_, held)| held == holder) {
            let kept = match holder {
                Holder::Ground(_) => holder,
                _ => Holder::Idle,
            };
            self.ranges.insert(prefix, kept);
        }
    }

    /// Notes a clash; it becomes a notice when everything that is held is known.
    pub(super) fn note(&mut self, clash: Clash<'a>) {
        self.clashes.push(clash);
    }

    /// The ledger after the run; none when there was none and nothing happened. Its revision is at least `height`.
    pub(super) fn close(self, fresh: &Lineage, height: u64) -> Option<Arc<Ledger>> {
        if let Some(ledger) = self.ledger
            && self.new.is_empty()
            && ledger.revision >= height
        {
            return Some(ledger.clone());
        }
        let mut ledger = self.ledger.map_or_else(
            || Ledger::empty(fresh.clone()),
            |ledger| Ledger::clone(ledger),
        );
        if !self.new.is_empty() {
            ledger.grants.extend(self.new);
            ledger.grants.sort_unstable();
            ledger.revision += 1;
        }
        ledger.revision = ledger.revision.max(height);
        (ledger.revision > 0).then(|| Arc::new(ledger))
    }
}
