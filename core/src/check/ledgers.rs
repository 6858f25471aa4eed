//! Ledgers: levels do not overlap, what is granted stays granted, new grants avoid what is somebody else's.

use super::sweep::{Cover, nested};
use super::{Case, is_live, of_owner, sorted_by_owner};
use crate::cidr::{Prefix, PrefixSet};
use crate::fleet::Mode;
use crate::ids::{ClusterName, LinkName, NodeId, SiteName};
use crate::ledger::{Grant, Ledger, LedgerName, Owner, State, Use};
use crate::network_plan::Class;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(case: &mut Case<'_>) {
    let proposal = case.proposal;
    for (name, ledger) in &proposal.ledgers {
        shape(case, name, ledger);
        revision(case, name, ledger);
        kept(case, name, ledger);
    }
    for name in case.before.ledgers.keys() {
        if !proposal.ledgers.contains_key(name) {
            case.find(format!(
                "ledger {name} is gone: a ledger is never taken away"
            ));
        }
    }
    let empty = Ledger::empty(case.before.lineage.clone());
    let hub = proposal.ledgers.get(&LedgerName::Hub);
    let hub = hub.map_or(&empty, |hub| hub);
    hub_level(case, hub);
    new_blocks(case, hub);
    let mut sites: BTreeMap<&ClusterName, BTreeMap<&str, &SiteName>> = BTreeMap::new();
    for (id, node) in &proposal.nodes {
        sites
            .entry(&id.cluster)
            .or_default()
            .insert(id.node.as_str(), &node.site);
    }
    for (name, ledger) in &proposal.ledgers {
        if let LedgerName::Cluster(cluster) = name
            && case.links.contains_key(cluster)
        {
            cluster_level(
                case,
                cluster,
                ledger,
                sites.get(cluster).unwrap_or(&BTreeMap::new()),
            );
        }
    }
}

/// Order, owners, one grant for each prefix and kind of owner.
fn shape(case: &mut Case<'_>, name: &LedgerName, ledger: &Ledger) {
    let unchanged = case
        .old(name)
        .is_some_and(|old| old.grants == ledger.grants);
    if unchanged {
        return; // hand-made order is no finding while nobody touches it
    }
    for pair in ledger.grants.windows(2) {
        if pair[0] > pair[1] {
            case.find(format!(
                "ledger {name}: {} stands before {}: grants must be sorted",
                pair[0].prefix, pair[1].prefix
            ));
        }
        if pair[0].prefix == pair[1].prefix && pair[0].owner.kind() == pair[1].owner.kind() {
            case.find(format!(
                "ledger {name}: {} is granted to {} and to {}",
                pair[0].prefix, pair[0].owner, pair[1].owner
            ));
        }
    }
}

/// A change raises the revision, and nothing lowers it.
fn revision(case: &mut Case<'_>, name: &LedgerName, ledger: &Ledger) {
    let Some(old) = case.old(name) else {
        if ledger.revision == 0 {
            case.find(format!(
                "ledger {name} is new and has revision 0: revisions count from 1"
            ));
        }
        return;
    };
    if old.lineage != ledger.lineage {
        case.find(format!(
            "ledger {name} changes its lineage from {} to {}",
            old.lineage, ledger.lineage
        ));
    }
    let same = old.grants == ledger.grants && old.parents == ledger.parents;
    // The hub keeps the height of plans that are withdrawn.
    let height = case
        .before
        .plans
        .iter()
        .filter(|(link, _)| *name == LedgerName::Hub && !case.proposal.plans.contains_key(*link))
        .map(|(_, plan)| plan.revision)
        .max();
    let least = old.revision.max(height.unwrap_or(0));
    if same && ledger.revision != least {
        case.find(format!(
            "ledger {name} goes from revision {} to {} without a change",
            old.revision, ledger.revision
        ));
    }
    if !same && (ledger.revision <= old.revision || ledger.revision < least) {
        case.find(format!(
            "ledger {name} changes, but its revision goes from {} to {}",
            old.revision, ledger.revision
        ));
    }
}

/// Every grant of before is still held, unless its node is gone or has another range.
fn kept(case: &mut Case<'_>, name: &LedgerName, ledger: &Ledger) {
    let Some(old) = case.old(name) else { return };
    let applied = match name {
        LedgerName::Hub => true,
        LedgerName::Cluster(cluster) => case.links.contains_key(cluster),
    };
    if !applied {
        if old != ledger {
            case.find(format!(
                "ledger {name} changes, though its cluster is not planned"
            ));
        }
        return;
    }
    if old.grants == ledger.grants {
        return;
    }
    let now = sorted_by_owner(ledger);
    for grant in old.grants.iter().filter(|grant| is_live(grant)) {
        let still = of_owner(&now, &grant.owner)
            .iter()
            .find(|other| other.prefix == grant.prefix && other.used_for == grant.used_for);
        let state = still.map(|other| other.state);
        match state {
            Some(State::Active | State::Imported) => {}
            _ if may_go(case, name, grant) => {}
            Some(State::Released) => {
                case.find(format!(
                    "ledger {name}: {} of {} is released, though its owner is there",
                    grant.prefix, grant.owner
                ));
            }
            None => case.find(format!(
                "ledger {name}: {} was granted to {} and is taken away",
                grant.prefix, grant.owner
            )),
        }
    }
    // Where a site or a cluster holds something, it goes on holding it as it did.
    let was = sorted_by_owner(old);
    for grant in ledger
        .grants
        .iter()
        .filter(|grant| !matches!(grant.owner, Owner::Node(_)))
    {
        let changed = of_owner(&was, &grant.owner).iter().any(|other| {
            other.prefix == grant.prefix
                && is_live(other)
                && other.state != grant.state
                && other.used_for == grant.used_for
        });
        if changed {
            case.find(format!(
                "ledger {name}: the state of {} of {} changes",
                grant.prefix, grant.owner
            ));
        }
    }
}

fn may_go(case: &Case<'_>, name: &LedgerName, grant: &Grant) -> bool {
    let (LedgerName::Cluster(cluster), Owner::Node(node)) = (name, &grant.owner) else {
        return false;
    };
    let id = NodeId {
        cluster: cluster.clone(),
        node: node.clone(),
    };
    match case.fleet.nodes.get(&id) {
        None => true,
        Some(node) => {
            grant.used_for == Use::Pod
                && !node.pod_cidrs.is_empty()
                && !node.pod_cidrs.contains(&grant.prefix)
        }
    }
}

/// Blocks of different clusters, and blocks for pods and for mesh addresses, share nothing.
fn hub_level(case: &mut Case<'_>, hub: &Ledger) {
    let mut live: Vec<(Prefix, (&Owner, Use))> = Vec::with_capacity(hub.grants.len());
    for grant in hub.grants.iter().filter(|grant| is_live(grant)) {
        if !matches!(grant.owner, Owner::Cluster(_)) {
            case.find(format!(
                "ledger hub: {} is granted to {}: the hub grants to clusters only",
                grant.prefix, grant.owner
            ));
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
    found.into_iter().for_each(|message| case.find(message));
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
fn new_blocks(case: &mut Case<'_>, hub: &Ledger) {
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
            case.find(format!(
                "ledger hub: {} is granted to Cluster {cluster}, which is not planned",
                grant.prefix
            ));
            continue;
        };
        if grant.state == State::Active && !in_pools(case, link, grant) {
            case.find(format!(
                "ledger hub: {} of Cluster {cluster} lies outside the pools of ClusterLink {link}",
                grant.prefix
            ));
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
            Obstacle::Site(site) => {
                !case.own_sites.contains(&(cluster, site)) || state == State::Active
            }
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
    found.into_iter().for_each(|message| case.find(message));
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
fn pools<'a>(case: &Case<'a>) -> Vec<(bool, &'a LinkName, Use, Prefix)> {
    let mut used: Vec<(&LinkName, Use, Prefix)> = Vec::new();
    let owners: BTreeMap<&ClusterName, &LinkName> = case
        .proposal
        .plans
        .values()
        .flat_map(|plan| {
            plan.clusters
                .iter()
                .map(|cluster| (&cluster.name, &plan.link))
        })
        .collect();
    for grant in case
        .old(&LedgerName::Hub)
        .iter()
        .flat_map(|hub| &hub.grants)
    {
        if let (Owner::Cluster(cluster), State::Active) = (&grant.owner, grant.state)
            && let Some(link) = owners.get(cluster)
        {
            used.push((link, grant.used_for, grant.prefix));
        }
    }
    let mut all = Vec::new();
    for (name, link) in &case.fleet.links {
        for (used_for, pools) in [
            (Use::Pod, &link.addressing.pod_pools),
            (Use::Mesh, &link.addressing.mesh_pools),
        ] {
            let covers = |pool: Prefix| {
                used.iter().any(|(link, of, prefix)| {
                    *link == name && *of == used_for && pool.contains(*prefix)
                })
            };
            let counted = pools
                .iter()
                .filter(|pool| link.mode == Mode::Apply || covers(**pool));
            all.extend(counted.map(|pool| (!covers(*pool), name, used_for, *pool)));
        }
    }
    all.sort_by_key(|(new, name, ..)| (*new, *name));
    let mut accepted: Vec<(bool, &LinkName, Use, Prefix)> = Vec::new();
    for pool in all {
        if !accepted
            .iter()
            .any(|other| other.1 != pool.1 && other.3.overlaps(pool.3))
        {
            accepted.push(pool);
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
    items.extend(pools(case).into_iter().map(|(_, link, used_for, pool)| {
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

/// Chunks of sites share nothing, shares of nodes share nothing, and each lies where it belongs.
fn cluster_level(
    case: &mut Case<'_>,
    cluster: &ClusterName,
    ledger: &Ledger,
    sites: &BTreeMap<&str, &SiteName>,
) {
    let granted = case.blocks.get(cluster).cloned().unwrap_or_default();
    let parents: PrefixSet = granted.iter().map(|(_, prefix)| *prefix).collect();
    if parents != ledger.parents {
        case.find(format!(
            "ledger cluster-{cluster}: parents are {}, but the hub granted {parents}",
            ledger.parents
        ));
    }
    let cover = |of| {
        Cover::of(
            granted
                .iter()
                .filter(|(used_for, _)| *used_for == of)
                .map(|(_, prefix)| *prefix),
        )
    };
    let covers = [(Use::Pod, cover(Use::Pod)), (Use::Mesh, cover(Use::Mesh))];
    let mut chunks: Vec<(Prefix, (&Owner, Use))> = Vec::new();
    let mut shares: Vec<(Prefix, (&Owner, Use, State))> = Vec::new();
    for grant in &ledger.grants {
        match &grant.owner {
            Owner::Site(_) if is_live(grant) => {
                chunks.push((grant.prefix, (&grant.owner, grant.used_for)))
            }
            Owner::Node(_) => {
                shares.push((grant.prefix, (&grant.owner, grant.used_for, grant.state)))
            }
            Owner::Site(_) => {}
            Owner::Cluster(_) => {
                let known = case
                    .old(&LedgerName::Cluster(cluster.clone()))
                    .is_some_and(|old| old.grants.contains(grant));
                if !known {
                    case.find(format!(
                        "ledger cluster-{cluster}: {} is granted to {}",
                        grant.prefix, grant.owner
                    ));
                }
            }
        }
        let inside = covers
            .iter()
            .any(|(used_for, cover)| *used_for == grant.used_for && cover.contains(grant.prefix));
        if is_live(grant) && !inside {
            case.find(format!("ledger cluster-{cluster}: {} of {} lies outside what the hub granted to the cluster", grant.prefix, grant.owner));
        }
    }
    let mut found = Vec::new();
    nested(&mut chunks, |(outer, a), (inner, b)| {
        found.push(format!(
            "ledger cluster-{cluster}: {inner} of {} overlaps {outer} of {}",
            b.0, a.0
        ));
    });
    nested(&mut shares, |(outer, a), (inner, b)| {
        if a.2 != State::Released || b.2 != State::Released {
            found.push(format!(
                "ledger cluster-{cluster}: {inner} of {} overlaps {outer} of {}",
                b.0, a.0
            ));
        }
    });
    found.into_iter().for_each(|message| case.find(message));
    in_own_chunk(case, cluster, sites, &chunks, &shares);
}

/// A share that was cut (not imported) lies in a chunk of its node's site.
fn in_own_chunk(
    case: &mut Case<'_>,
    cluster: &ClusterName,
    sites: &BTreeMap<&str, &SiteName>,
    chunks: &[(Prefix, (&Owner, Use))],
    shares: &[(Prefix, (&Owner, Use, State))],
) {
    for (prefix, (owner, used_for, state)) in shares {
        if *state != State::Active {
            continue;
        }
        let after = chunks.partition_point(|(chunk, _)| *chunk <= *prefix);
        let chunk = after
            .checked_sub(1)
            .map(|at| &chunks[at])
            .filter(|(chunk, (_, use_of))| chunk.contains(*prefix) && use_of == used_for);
        match (chunk, sites.get(owner.name())) {
            (None, _) => case.find(format!(
                "ledger cluster-{cluster}: {prefix} of {owner} lies in no chunk of a site"
            )),
            (Some((_, (site, _))), Some(own)) if site.name() != own.as_str() => {
                case.find(format!("ledger cluster-{cluster}: {prefix} of {owner} lies in a chunk of {site}, but the node is in Site {own}"));
            }
            _ => {}
        }
    }
}
