//! The hub's level: which range belongs to which cluster, site, VPN or service, and new blocks from the pools.
//!
//! First what stands (grants, and ranges that plans export already), then what is claimed anew, each checked against
//! everything before it, and only then blocks are cut from what is free. So an import never meets a block cut in the same run.

use super::Before;
use super::exports::{Exporter, Memory};
use super::members::Members;
use super::ranges::{Holder, Ranges, clashes};
use super::report::{Reporter, listed};
use super::space::{Busy, FreeSpace};
use crate::cidr::{Family, Prefix};
use crate::fleet::{Addressing, Fleet};
use crate::ids::{ClusterName, Lineage, LinkName, SiteName, VpnName};
use crate::ledger::{Grant, Ledger, LedgerName, Owner, State, Use};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The hub's level while it is planned.
pub(super) struct Hub<'a> {
    fleet: &'a Fleet,
    ledger: Option<&'a Ledger>,
    /// Identity of the history.
    pub(super) lineage: &'a Lineage,
    /// Every range that anyone holds.
    pub(super) ranges: Ranges<'a>,
    /// What each cluster holds.
    held: BTreeMap<(&'a ClusterName, Use), Vec<Prefix>>,
    /// Where node ranges of a cluster may be cut: blocks from pools, and `pods.cidrs`.
    blocks: BTreeMap<&'a ClusterName, Vec<Prefix>>,
    new: Vec<Grant>,
    /// Pools that a link may grant from.
    pools: BTreeMap<(&'a LinkName, Use), Vec<Prefix>>,
    spaces: BTreeMap<(Prefix, Use), FreeSpace>,
    /// Clashes that become notices.
    pub(super) clashes: Vec<Clash<'a>>,
    /// LAN ranges that are exported.
    pub(super) lans: BTreeSet<(&'a SiteName, Prefix)>,
    /// Service ranges that are exported.
    pub(super) services: BTreeSet<(&'a ClusterName, Prefix)>,
    /// VPN ranges that are exported.
    pub(super) vpns: BTreeSet<(&'a VpnName, Prefix)>,
}

/// A pool that a link names.
#[derive(Debug, Clone, Copy)]
struct WantedPool<'a> {
    is_new: bool,
    link: &'a LinkName,
    used_for: Use,
    field: &'static str,
    pool: Prefix,
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

impl<'a> Hub<'a> {
    /// What stands: grants, exported ranges, reservations, pools.
    pub(super) fn open(
        fleet: &'a Fleet,
        before: &'a Before,
        members: &Members<'a>,
        memory: &Memory<'a>,
        report: &mut Reporter,
    ) -> Self {
        let ledger = before.ledgers.get(&LedgerName::Hub);
        let lineage = ledger.map_or(&before.lineage, |ledger| &ledger.lineage);
        let mut hub = Self {
            fleet,
            ledger,
            lineage,
            ranges: Ranges::default(),
            held: BTreeMap::new(),
            blocks: BTreeMap::new(),
            new: Vec::new(),
            pools: BTreeMap::new(),
            spaces: BTreeMap::new(),
            clashes: Vec::new(),
            lans: BTreeSet::new(),
            services: BTreeSet::new(),
            vpns: BTreeSet::new(),
        };
        for grant in ledger.iter().flat_map(|ledger| &ledger.grants) {
            if let Owner::Cluster(cluster) = &grant.owner
                && grant.state != State::Released
            {
                hub.hold(cluster, grant.used_for, grant.prefix);
                if grant.used_for == Use::Pod && grant.state == State::Active {
                    hub.blocks.entry(cluster).or_default().push(grant.prefix);
                }
            }
        }
        hub.settle_pools(members, report);
        for (name, link) in &fleet.links {
            for prefix in link.addressing.reserved.iter() {
                hub.ranges.insert(prefix, Holder::Reserved(name));
            }
        }
        hub.keep_exports(memory, members);
        hub
    }

    /// Ranges that plans export already keep their place.
    fn keep_exports(&mut self, memory: &Memory<'a>, members: &Members<'a>) {
        for (link, exporter, prefix) in memory.iter() {
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

    /// Which pools each link may grant from. Of two links' pools that overlap the one that is granted from already
    /// counts, else the first by name.
    fn settle_pools(&mut self, members: &Members<'a>, report: &mut Reporter) {
        // Pools are few, and so are the blocks that are looked through for each: one for a cluster, as a rule.
        let grants = self.ledger.iter().flat_map(|ledger| &ledger.grants);
        let in_use: Vec<(&LinkName, Use, Prefix)> = grants
            .filter(|grant| grant.state == State::Active)
            .filter_map(|grant| match &grant.owner {
                Owner::Cluster(cluster) => {
                    Some((members.link_of(cluster)?, grant.used_for, grant.prefix))
                }
                _ => None,
            })
            .collect();
        let mut wanted: Vec<WantedPool<'a>> = Vec::new();
        for (name, link) in &self.fleet.links {
            let addressing = &link.addressing;
            let shown = !members.links.contains(&name);
            for (field, used_for, pools) in [
                ("podPools", Use::Pod, &addressing.pod_pools),
                ("meshPools", Use::Mesh, &addressing.mesh_pools),
            ] {
                for &pool in pools {
                    let is_new = !in_use.iter().any(|(owner, of, prefix)| {
                        *owner == name && *of == used_for && pool.contains(*prefix)
                    });
                    // What a link that is only shown has not had, it does not take either.
                    if !(shown && is_new) {
                        wanted.push(WantedPool {
                            is_new,
                            link: name,
                            used_for,
                            field,
                            pool,
                        });
                    }
                }
            }
        }
        wanted.sort_by_key(|wanted| (wanted.is_new, wanted.link));
        let (mut accepted, mut refused): (Vec<WantedPool<'a>>, Vec<WantedPool<'a>>) =
            (Vec::new(), Vec::new());
        let meet =
            |a: &WantedPool<'_>, b: &WantedPool<'_>| a.link != b.link && a.pool.overlaps(b.pool);
        for wanted in wanted {
            if accepted.iter().any(|other| meet(other, &wanted)) {
                refused.push(wanted);
                continue;
            }
            let WantedPool {
                link,
                used_for,
                pool,
                ..
            } = wanted;
            self.pools.entry((link, used_for)).or_default().push(pool);
            let holder = if used_for == Use::Pod {
                Holder::Pool(link)
            } else {
                Holder::MeshPool(link)
            };
            self.ranges.insert(pool, holder);
            accepted.push(wanted);
        }
        for wanted in refused {
            let others: BTreeSet<String> = accepted
                .iter()
                .filter(|other| meet(other, &wanted))
                .map(|other| {
                    format!(
                        "addressing.{} {} of ClusterLink {}",
                        other.field, other.pool, other.link
                    )
                })
                .collect();
            report.refuse(
                "ClusterLink",
                wanted.link.as_str(),
                Some(wanted.link),
                "PoolOverlap",
                format!(
                    "addressing.{} {} overlaps {} and is not used: pools of different links must not overlap, so write another range",
                    wanted.field,
                    wanted.pool,
                    listed(others)
                ),
            );
        }
        for (name, link) in &self.fleet.links {
            let named = &link.addressing.mesh_pools;
            let mesh = self.pools.entry((name, Use::Mesh)).or_default();
            for default in [
                Prefix::containing(IpAddr::from([100, 127, 0, 0]), 16),
                unique_local(self.lineage),
            ] {
                // Only where none is written: a refused pool is not replaced by one that may lie around it.
                if !named.iter().any(|pool| pool.family() == default.family()) {
                    mesh.push(default);
                    self.ranges.insert(default, Holder::DefaultMesh);
                }
            }
        }
        // Tried in the order in which they are written.
        for ((link, used_for), pools) in &mut self.pools {
            let addressing = &self.fleet.links[*link].addressing;
            let written = if *used_for == Use::Pod {
                &addressing.pod_pools
            } else {
                &addressing.mesh_pools
            };
            pools.sort_by_key(|pool| written.iter().position(|other| other == pool));
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

    /// The pools that a link grants from.
    pub(super) fn pools(&self, link: &'a LinkName, used_for: Use) -> &[Prefix] {
        self.pools.get(&(link, used_for)).map_or(&[], Vec::as_slice)
    }

    /// What a cluster holds.
    pub(super) fn held(&self, cluster: &'a ClusterName, used_for: Use) -> &[Prefix] {
        self.held
            .get(&(cluster, used_for))
            .map_or(&[], Vec::as_slice)
    }

    /// Where a cluster's node ranges may be cut.
    pub(super) fn blocks(&self, cluster: &'a ClusterName) -> &[Prefix] {
        self.blocks.get(cluster).map_or(&[], Vec::as_slice)
    }

    fn hold(&mut self, cluster: &'a ClusterName, used_for: Use, prefix: Prefix) {
        let holder = match used_for {
            Use::Pod => Holder::Pods(cluster),
            Use::Mesh => Holder::Mesh(cluster),
        };
        self.ranges.insert(prefix, holder);
        self.held
            .entry((cluster, used_for))
            .or_default()
            .push(prefix);
    }

    /// Who holds something that a range of this holder may not meet, in order.
    pub(super) fn clashing(
        &self,
        prefix: Prefix,
        new: Holder<'a>,
        members: &Members<'a>,
    ) -> Vec<(Prefix, Holder<'a>)> {
        let found: BTreeSet<_> = self
            .ranges
            .overlapping(prefix)
            .filter(|(_, held)| clashes(new, *held, members))
            .collect();
        found.into_iter().collect()
    }

    /// Claims a range for a holder, unless somebody has it.
    pub(super) fn claim(
        &mut self,
        prefix: Prefix,
        new: Holder<'a>,
        members: &Members<'a>,
    ) -> Result<(), Taken> {
        if self
            .ranges
            .overlapping(prefix)
            .any(|(_, held)| clashes(new, held, members))
        {
            return Err(Taken);
        }
        self.ranges.insert(prefix, new);
        Ok(())
    }

    /// Records a range that a cluster's pods use already.
    pub(super) fn import(
        &mut self,
        cluster: &'a ClusterName,
        prefix: Prefix,
        members: &Members<'a>,
    ) -> Result<(), Taken> {
        if self.ranges.holds(Holder::Pods(cluster), prefix) {
            return Ok(());
        }
        self.claim(prefix, Holder::Pods(cluster), members)?;
        self.held
            .entry((cluster, Use::Pod))
            .or_default()
            .push(prefix);
        self.new.push(Grant {
            prefix,
            used_for: Use::Pod,
            owner: Owner::Cluster(cluster.clone()),
            state: State::Imported,
        });
        Ok(())
    }

    /// Declares a range of the cluster's own as one that node ranges may be cut from.
    pub(super) fn add_block(&mut self, cluster: &'a ClusterName, prefix: Prefix) {
        let blocks = self.blocks.entry(cluster).or_default();
        if !blocks.iter().any(|block| block.contains(prefix)) {
            blocks.push(prefix);
        }
    }

    /// Cuts a new block from the link's pools, in their order, lowest address first.
    pub(super) fn grab(
        &mut self,
        link: &'a LinkName,
        cluster: &'a ClusterName,
        used_for: Use,
        family: Family,
        len: u8,
    ) -> Option<Prefix> {
        for pool in self.pools(link, used_for).to_vec() {
            if pool.family() != family {
                continue;
            }
            // Mesh blocks are as small as they are needed; a pod block has the length that the user wants.
            let len = if used_for == Use::Mesh {
                len.max(pool.len())
            } else {
                len
            };
            while let Some(block) = self.space(link, pool, used_for).take(len) {
                // Pools may lie in one another, so that what one gave the other believes free.
                if self
                    .ranges
                    .overlapping(block)
                    .any(|(_, held)| occupies(held, used_for, link))
                {
                    continue;
                }
                self.hold(cluster, used_for, block);
                if used_for == Use::Pod {
                    self.blocks.entry(cluster).or_default().push(block);
                }
                self.new.push(Grant {
                    prefix: block,
                    used_for,
                    owner: Owner::Cluster(cluster.clone()),
                    state: State::Active,
                });
                return Some(block);
            }
        }
        None
    }

    /// Free space of a pool, found out once.
    pub(super) fn space(&mut self, link: &LinkName, pool: Prefix, used_for: Use) -> &mut FreeSpace {
        let ranges = &self.ranges;
        self.spaces.entry((pool, used_for)).or_insert_with(|| {
            let busy = ranges
                .overlapping(pool)
                .filter(|(_, held)| occupies(*held, used_for, link))
                .map(|(prefix, _)| prefix);
            FreeSpace::new(pool.family(), [pool], &Busy::of(pool.family(), busy))
        })
    }

    /// Keeps a range that is not reachable from being given away.
    pub(super) fn avoid(&mut self, prefix: Prefix, holder: Holder<'a>) {
        if !self.ranges.exactly(prefix).any(|(_, held)| held == holder) {
            self.ranges.insert(
                prefix,
                if matches!(holder, Holder::Ground(_)) {
                    holder
                } else {
                    Holder::Idle
                },
            );
        }
    }

    /// Notes a clash; it becomes a notice when everything that is held is known.
    pub(super) fn note(&mut self, clash: Clash<'a>) {
        self.clashes.push(clash);
    }

    /// The ledger after the run.
    pub(super) fn close(self, lineage: &Lineage, least_revision: u64) -> Ledger {
        let mut ledger = self
            .ledger
            .cloned()
            .unwrap_or_else(|| Ledger::empty(lineage.clone()));
        if !self.new.is_empty() {
            ledger.grants.extend(self.new);
            ledger.grants.sort_unstable();
            ledger.revision += 1;
        }
        ledger.revision = ledger.revision.max(least_revision);
        ledger
    }
}

/// Whether a held range keeps a pool from giving out its addresses.
pub(super) fn occupies(held: Holder<'_>, used_for: Use, link: &LinkName) -> bool {
    match held {
        Holder::Pool(_) => false,
        Holder::DefaultMesh => used_for == Use::Pod,
        // A link without a pool of its own shares the default one, but not what others name of it.
        Holder::MeshPool(owner) => used_for == Use::Pod || owner != link,
        _ => true,
    }
}

/// The IPv6 range of a lineage's mesh addresses: a unique local /48 (RFC 4193) whose 40 random bits come from the
/// lineage, so that two installations do not meet.
fn unique_local(lineage: &Lineage) -> Prefix {
    let digest = Sha256::digest(lineage.as_str().as_bytes());
    let mut bytes = [0u8; 16];
    bytes[0] = 0xfd;
    bytes[1..6].copy_from_slice(&digest[..5]);
    Prefix::containing(IpAddr::from(bytes), 48)
}

/// Prefix lengths of one link and use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    /// A cluster's block.
    pub(super) block: u8,
    /// A node's share.
    pub(super) node: u8,
}

impl Lengths {
    /// The lengths that a link asks for.
    pub(super) fn of(addressing: &Addressing, used_for: Use, family: Family) -> Self {
        match (used_for, family) {
            (Use::Pod, _) => Self {
                block: addressing.cluster_prefix_len.of(family),
                node: addressing
                    .node_prefix_len
                    .of(family)
                    .max(addressing.cluster_prefix_len.of(family)),
            },
            (Use::Mesh, Family::V4) => Self {
                block: 24,
                node: 32,
            },
            (Use::Mesh, Family::V6) => Self {
                block: 112,
                node: 128,
            },
        }
    }

    /// A site's chunk: sixteen nodes, or a quarter of a block where blocks are small.
    pub(super) fn chunk(self, block: u8) -> u8 {
        self.node.saturating_sub(4).max((block + 2).min(self.node))
    }
}
