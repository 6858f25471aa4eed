//! Which pools each link may grant from. Of two links' pools that overlap the one that is granted from already counts, else
//! the first by name.

use super::membership::Membership;
use super::ranges::{Holder, Ranges};
use crate::cidr::Prefix;
use crate::fleet::{Addressing, Fleet};
use crate::ids::{Lineage, LinkName};
use crate::ledger::{Grant, Owner, State, Use};
use crate::notice::{About, Reason};
use crate::plan::exchange::Families;
use crate::plan::report::{Reporter, listed};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Pools that links may grant from.
#[derive(Debug, Default)]
pub(super) struct Pools<'a> {
    of: BTreeMap<(&'a LinkName, Use), Vec<Prefix>>,
    holders: Vec<(Prefix, Holder<'a>)>,
}

/// A pool that a link names.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    is_new: bool,
    link: &'a LinkName,
    used_for: Use,
    pool: Prefix,
}

impl<'a> Wanted<'a> {
    fn holder(&self) -> Holder<'a> {
        match self.used_for {
            Use::Pod => Holder::Pool(self.link),
            Use::Mesh => Holder::MeshPool(self.link),
        }
    }

    fn field(&self) -> &'static str {
        field(self.used_for)
    }
}

impl<'a> Pools<'a> {
    /// Settles which pools count, and reports those that do not.
    pub(super) fn settle(
        fleet: &'a Fleet,
        grants: &[Grant],
        members: &Membership<'a>,
        lineage: &Lineage,
        report: &mut Reporter,
    ) -> Self {
        let wanted = wanted(fleet, members, &in_use(grants, members));
        let (accepted, refused) = sift(wanted);
        for refused in refused {
            refuse(&refused, &accepted, report);
        }
        let mut pools = Self::default();
        for (prefix, holder) in accepted.everything() {
            let key = match holder {
                Holder::Pool(link) => (link, Use::Pod),
                Holder::MeshPool(link) => (link, Use::Mesh),
                _ => continue,
            };
            pools.of.entry(key).or_default().push(prefix);
            pools.holders.push((prefix, holder));
        }
        pools.add_defaults(fleet, lineage);
        pools.put_in_order(fleet);
        pools
    }

    /// The pools that a link grants from, in the order in which they are tried.
    pub(super) fn of<'s>(&'s self, link: &'s LinkName, used_for: Use) -> &'s [Prefix] {
        self.of.get(&(link, used_for)).map_or(&[], Vec::as_slice)
    }

    /// Each pool and who holds it.
    pub(super) fn holders(&self) -> Vec<(Prefix, Holder<'a>)> {
        self.holders.clone()
    }

    /// Families in which a link has a pool.
    pub(super) fn families(&self, link: &LinkName, used_for: Use) -> Families {
        let pools = self.of(link, used_for).iter();
        pools.map(|pool| pool.family()).collect()
    }

    /// Mesh pools for families in which a link names none.
    fn add_defaults(&mut self, fleet: &'a Fleet, lineage: &Lineage) {
        let defaults = [
            Prefix::containing(IpAddr::from([100, 127, 0, 0]), 16),
            unique_local(lineage),
        ];
        let mut used = BTreeSet::new();
        for (name, link) in &fleet.links {
            let named = &link.addressing.mesh_pools;
            let mesh = self.of.entry((name, Use::Mesh)).or_default();
            for default in defaults {
                // Only where none is written: a refused pool is not replaced by one that may lie around it.
                if !named.iter().any(|pool| pool.family() == default.family()) {
                    mesh.push(default);
                    used.insert(default);
                }
            }
        }
        let used = used.into_iter().map(|pool| (pool, Holder::DefaultMesh));
        self.holders.extend(used);
    }

    /// Pools are tried in the order in which they are written.
    fn put_in_order(&mut self, fleet: &Fleet) {
        for ((link, used_for), pools) in &mut self.of {
            let written = written(&fleet.links[*link].addressing, *used_for);
            pools.sort_by_key(|pool| written.iter().position(|other| other == pool));
        }
    }
}

/// Whether a holder is a pool.
pub(super) fn is_pool(holder: &Holder<'_>) -> bool {
    matches!(
        holder,
        Holder::Pool(_) | Holder::MeshPool(_) | Holder::DefaultMesh
    )
}

/// The field of `spec.addressing` that names the pools of a use.
pub(super) fn field(used_for: Use) -> &'static str {
    match used_for {
        Use::Pod => "podPools",
        Use::Mesh => "meshPools",
    }
}

fn written(addressing: &Addressing, used_for: Use) -> &[Prefix] {
    match used_for {
        Use::Pod => &addressing.pod_pools,
        Use::Mesh => &addressing.mesh_pools,
    }
}

/// Blocks that were granted from pools, by link and use.
fn in_use<'a>(
    grants: &[Grant],
    members: &Membership<'a>,
) -> BTreeMap<(&'a LinkName, Use), BTreeSet<Prefix>> {
    let mut in_use: BTreeMap<_, BTreeSet<Prefix>> = BTreeMap::new();
    for grant in grants.iter().filter(|grant| grant.state == State::Active) {
        if let Owner::Cluster(cluster) = &grant.owner
            && let Some(link) = members.link_of(cluster)
        {
            let blocks = in_use.entry((link, grant.used_for)).or_default();
            blocks.insert(grant.prefix);
        }
    }
    in_use
}

/// What links name, in the order in which it counts.
fn wanted<'a>(
    fleet: &'a Fleet,
    members: &Membership<'a>,
    in_use: &BTreeMap<(&'a LinkName, Use), BTreeSet<Prefix>>,
) -> Vec<Wanted<'a>> {
    let planned: BTreeSet<&LinkName> = members.links.iter().copied().collect();
    let mut wanted = Vec::new();
    for (link, spec) in &fleet.links {
        let shown = !planned.contains(link);
        for used_for in [Use::Pod, Use::Mesh] {
            for &pool in written(&spec.addressing, used_for) {
                let blocks = in_use.get(&(link, used_for));
                let first = blocks.and_then(|blocks| blocks.range(pool..).next());
                let is_new = !first.is_some_and(|block| pool.contains(*block));
                // What a link that is only shown has not had, it does not take either.
                if !(shown && is_new) {
                    wanted.push(Wanted {
                        is_new,
                        link,
                        used_for,
                        pool,
                    });
                }
            }
        }
    }
    wanted.sort_by_key(|wanted| (wanted.is_new, wanted.link));
    wanted
}

/// Pools that count, and those that meet another link's.
fn sift(wanted: Vec<Wanted<'_>>) -> (Ranges<'_>, Vec<Wanted<'_>>) {
    let mut accepted = Ranges::default();
    let mut refused = Vec::new();
    for wanted in wanted {
        if others(&accepted, &wanted).next().is_some() {
            refused.push(wanted);
        } else {
            accepted.insert(wanted.pool, wanted.holder());
        }
    }
    (accepted, refused)
}

/// Accepted pools of other links that share addresses with this one.
fn others<'s, 'a>(
    accepted: &'s Ranges<'a>,
    wanted: &Wanted<'a>,
) -> impl Iterator<Item = (Prefix, &'static str, &'a LinkName)> + 's {
    let own = wanted.link;
    accepted
        .overlapping(wanted.pool)
        .filter_map(move |(pool, holder)| match holder {
            Holder::Pool(link) if link != own => Some((pool, field(Use::Pod), link)),
            Holder::MeshPool(link) if link != own => Some((pool, field(Use::Mesh), link)),
            _ => None,
        })
}

fn refuse(wanted: &Wanted<'_>, accepted: &Ranges<'_>, report: &mut Reporter) {
    let others: BTreeSet<String> = others(accepted, wanted)
        .map(|(pool, field, link)| format!("addressing.{field} {pool} of ClusterLink {link}"))
        .collect();
    report.refuse(
        About::ClusterLink(wanted.link.clone()),
        Some(wanted.link),
        Reason::PoolOverlap,
        format!(
            "addressing.{} {} overlaps {} and is not used: pools of different links must not overlap, so write another range",
            wanted.field(),
            wanted.pool,
            listed(others)
        ),
    );
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
