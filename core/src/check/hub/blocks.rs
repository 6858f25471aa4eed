//! The hub's ledger: blocks share nothing, and new ones avoid what is somebody else's.

use crate::check::case::{Case, is_live};
use crate::check::invariant::Invariant;
use crate::check::sweep::nested;
use crate::cidr::Prefix;
use crate::fleet::Mode;
use crate::ids::{ClusterName, LinkName, SiteName};
use crate::ledger::{Grant, Ledger, LedgerName, Owner, State, Use};
use crate::network_plan::Class;
use std::collections::{BTreeMap, BTreeSet};

/// Blocks of different clusters, and blocks for pods and for mesh addresses, share nothing.
pub(super) fn level(case: &mut Case<'_>, hub: &Ledger) {
    let mut live: Vec<(Prefix, (&Owner, Use))> = Vec::with_capacity(hub.grants.len());
    for grant in hub.grants.iter().filter(|grant| is_live(grant)) {
        if !matches!(grant.owner, Owner::Cluster(_)) {
            case.find(
                Invariant::OwnerFits,
                format!(
                    "ledger hub: {} is granted to {}: the hub grants to clusters only",
                    grant.prefix, grant.owner
                ),
            );
        }
        live.push((grant.prefix, (&grant.owner, grant.used_for)));
    }
    let mut found = Vec::new();
    nested(&mut live, |(outer, a), (inner, b)| {
        if a != b {
            found.push(format!(
                "ledger hub: {inner} of {} ({:?}) overlaps {outer} of {} ({:?})",
                b.0, b.1, a.0, a.1
            ));
        }
    });
    for message in found {
        case.find(Invariant::NoOverlap, message);
    }
}

/// What a new block may not touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle<'a> {
    Reserved(&'a LinkName),
    Services(&'a ClusterName, bool),
    Site(&'a SiteName),
    Vpn(bool),
    PodPool(&'a LinkName),
    MeshPool,
    /// A new block: state, use and cluster.
    Block(State, Use, &'a ClusterName),
}

/// New blocks lie in their link's pools and avoid what is somebody else's.
pub(super) fn new(case: &mut Case<'_>, hub: &Ledger) {
    let old: BTreeSet<(Prefix, &Owner, Use)> = case
        .old(&LedgerName::Hub)
        .iter()
        .flat_map(|ledger| &ledger.grants)
        .map(|grant| (grant.prefix, &grant.owner, grant.used_for))
        .collect();
    let mut items: Vec<(Prefix, Obstacle<'_>)> = Vec::new();
    for grant in hub.grants.iter().filter(|grant| is_live(grant)) {
        let Owner::Cluster(cluster) = &grant.owner else {
            continue;
        };
        if old.contains(&(grant.prefix, &grant.owner, grant.used_for)) {
            continue;
        }
        let Some(link) = case.links.get(cluster) else {
            case.find(
                Invariant::BlockIsPlanned,
                format!(
                    "ledger hub: {} is granted to Cluster {cluster}, which is not planned",
                    grant.prefix
                ),
            );
            continue;
        };
        if grant.state == State::Active && !in_pools(case, link, grant) {
            let message = format!(
                "ledger hub: {} of Cluster {cluster} lies outside the pools of ClusterLink {link}",
                grant.prefix
            );
            case.find(Invariant::BlockInPools, message);
        }
        items.push((
            grant.prefix,
            Obstacle::Block(grant.state, grant.used_for, cluster),
        ));
    }
    if items.is_empty() {
        return;
    }
    obstacles(case, &mut items);
    let mut found = Vec::new();
    nested(&mut items, |(outer, a), (inner, b)| {
        let (prefix, block, other, obstacle) = match (a, b) {
            (Obstacle::Block(..), Obstacle::Block(..)) => return,
            (Obstacle::Block(..), _) => (outer, a, inner, b),
            (_, Obstacle::Block(..)) => (inner, b, outer, a),
            _ => return,
        };
        let Obstacle::Block(state, used_for, cluster) = *block else {
            return;
        };
        let bad = match *obstacle {
            Obstacle::Reserved(_) => true,
            // A range in use yields only to what is reachable already.
            Obstacle::Services(owner, exported) => {
                state == State::Active || (exported && owner != cluster)
            }
            Obstacle::Vpn(exported) => state == State::Active || exported,
            Obstacle::Site(site) => state == State::Active || !case.is_own_site(cluster, site),
            Obstacle::PodPool(owner) => {
                used_for == Use::Pod && case.links.get(cluster) != Some(&owner)
            }
            Obstacle::MeshPool => used_for == Use::Pod,
            Obstacle::Block(..) => false,
        };
        if bad {
            found.push(format!(
                "ledger hub: the new {prefix} of Cluster {cluster} touches {other}: {obstacle:?}"
            ));
        }
    });
    for message in found {
        case.find(Invariant::BlockIsFree, message);
    }
}

fn in_pools(case: &Case<'_>, link: &LinkName, grant: &Grant) -> bool {
    let addressing = &case.fleet.links[link].addressing;
    match grant.used_for {
        Use::Pod => addressing
            .pod_pools
            .iter()
            .any(|pool| pool.contains(grant.prefix)),
        Use::Mesh => {
            let mut named = addressing
                .mesh_pools
                .iter()
                .filter(|pool| pool.family() == grant.prefix.family())
                .peekable();
            if named.peek().is_some() {
                return named.any(|pool| pool.contains(grant.prefix))
                    || is_default_mesh(grant.prefix);
            }
            is_default_mesh(grant.prefix)
        }
    }
}

/// 100.127.0.0/16 or a unique local range.
fn is_default_mesh(prefix: Prefix) -> bool {
    match prefix.address() {
        std::net::IpAddr::V4(v4) => v4.octets()[..2] == [100, 127],
        std::net::IpAddr::V6(v6) => v6.octets()[0] == 0xfd,
    }
}

/// Pools that count: of two links' pools that overlap the one that is granted from already, else the first by name.
fn pools<'a>(case: &Case<'a>) -> Vec<(&'a LinkName, Use, Prefix)> {
    let plans = case.proposal.plans.values();
    let owners: BTreeMap<&ClusterName, &LinkName> = plans
        .flat_map(|plan| plan.clusters.iter().map(|own| (&own.name, &plan.link)))
        .collect();
    let mut used: BTreeSet<(&LinkName, Use, Prefix)> = BTreeSet::new();
    let hub = case.old(&LedgerName::Hub);
    for grant in hub.iter().flat_map(|hub| &hub.grants) {
        if let (Owner::Cluster(cluster), State::Active) = (&grant.owner, grant.state)
            && let Some(link) = owners.get(cluster)
        {
            used.insert((*link, grant.used_for, grant.prefix));
        }
    }
    let mut all = Vec::new();
    for (name, link) in &case.fleet.links {
        for (used_for, pools) in [
            (Use::Pod, &link.addressing.pod_pools),
            (Use::Mesh, &link.addressing.mesh_pools),
        ] {
            for &pool in pools {
                let first = used.range((name, used_for, pool)..).next();
                let covers = first.is_some_and(|(link, of, prefix)| {
                    (*link, *of) == (name, used_for) && pool.contains(*prefix)
                });
                if link.mode == Mode::Apply || covers {
                    all.push((!covers, name, used_for, pool));
                }
            }
        }
    }
    all.sort_by_key(|(new, name, ..)| (*new, *name));
    let mut accepted = Vec::new();
    // Those that count, in order of prefix: nested ones are of one link.
    let mut counted: BTreeMap<Prefix, &LinkName> = BTreeMap::new();
    for (_, name, used_for, pool) in all {
        let around = (0..pool.len()).map(|len| Prefix::containing(pool.address(), len));
        let around = around.filter_map(|prefix| counted.get(&prefix));
        let inside = counted
            .range(pool..)
            .take_while(|(other, _)| pool.contains(**other));
        if around
            .chain(inside.map(|(_, link)| link))
            .all(|link| *link == name)
        {
            counted.insert(pool, name);
            accepted.push((name, used_for, pool));
        }
    }
    accepted
}

fn obstacles<'a>(case: &Case<'a>, items: &mut Vec<(Prefix, Obstacle<'a>)>) {
    let mut vpns: BTreeSet<Prefix> = BTreeSet::new();
    let mut services: BTreeSet<(&ClusterName, Prefix)> = BTreeSet::new();
    for segment in case.proposal.plans.values().flat_map(|plan| &plan.segments) {
        for entry in &segment.prefixes {
            match (entry.class, &segment.cluster) {
                (Class::Vpn, _) => {
                    vpns.insert(entry.prefix);
                }
                (Class::Service, Some(cluster)) => {
                    services.insert((cluster, entry.prefix));
                }
                _ => {}
            }
        }
    }
    items.extend(pools(case).into_iter().map(|(link, used_for, pool)| {
        (
            pool,
            if used_for == Use::Pod {
                Obstacle::PodPool(link)
            } else {
                Obstacle::MeshPool
            },
        )
    }));
    for (name, link) in &case.fleet.links {
        items.extend(
            link.addressing
                .reserved
                .iter()
                .map(|prefix| (prefix, Obstacle::Reserved(name))),
        );
    }
    for (name, cluster) in &case.fleet.clusters {
        items.extend(cluster.service_cidrs.iter().map(|prefix| {
            (
                prefix,
                Obstacle::Services(name, services.contains(&(name, prefix))),
            )
        }));
    }
    for (name, ranges) in &case.fleet.services_in_use {
        let in_use = ranges.iter();
        items.extend(in_use.map(|prefix| (prefix, Obstacle::Services(name, false))));
    }
    for (name, site) in &case.fleet.sites {
        items.extend(
            site.cidrs
                .iter()
                .map(|prefix| (prefix, Obstacle::Site(name))),
        );
    }
    for vpn in case.fleet.vpns.values() {
        items.extend(
            vpn.prefixes
                .iter()
                .map(|prefix| (prefix, Obstacle::Vpn(vpns.contains(&prefix)))),
        );
    }
}
