//! Chunks of sites share nothing, shares of nodes share nothing, and each lies where it belongs.

use super::view::{Cluster, Share};
use crate::check::case::{Case, is_live};
use crate::check::invariant::Invariant;
use crate::check::sweep::{Cover, nested};
use crate::cidr::{Prefix, PrefixSet};
use crate::ids::SiteName;
use crate::ledger::{Ledger, LedgerName, Owner, State, Use};

/// A site's part of a block.
type Chunk<'a> = (Prefix, (&'a SiteName, Use));

/// Proves it of one cluster's ledger.
pub(super) fn check(case: &mut Case<'_>, cluster: &Cluster<'_>, key: &LedgerName, ledger: &Ledger) {
    let granted = &cluster.blocks;
    let parents: PrefixSet = granted.iter().map(|(.., prefix)| *prefix).collect();
    if parents != ledger.parents {
        case.find(
            Invariant::ParentsAreBlocks,
            format!(
                "ledger {key}: parents are {}, but the hub granted {parents}",
                ledger.parents
            ),
        );
    }
    let cover = |of| {
        let granted = granted.iter().filter(|(_, used_for, _)| *used_for == of);
        Cover::of(granted.map(|(.., prefix)| *prefix))
    };
    let (pods, mesh) = (cover(Use::Pod), cover(Use::Mesh));
    let mut chunks: Vec<Chunk<'_>> = Vec::new();
    let mut shares: Vec<(Prefix, (&Owner, State))> = Vec::with_capacity(ledger.grants.len());
    for grant in &ledger.grants {
        match &grant.owner {
            Owner::Site(site) if is_live(grant) => {
                chunks.push((grant.prefix, (site, grant.used_for)));
            }
            Owner::Node(_) => shares.push((grant.prefix, (&grant.owner, grant.state))),
            Owner::Site(_) => {}
            Owner::Cluster(_) => {
                let old = case.old(key);
                if !old.is_some_and(|old| old.grants.contains(grant)) {
                    case.find(
                        Invariant::OwnerFits,
                        format!(
                            "ledger {key}: {} is granted to {}",
                            grant.prefix, grant.owner
                        ),
                    );
                }
            }
        }
        let inside = match grant.used_for {
            Use::Pod => pods.contains(grant.prefix),
            Use::Mesh => mesh.contains(grant.prefix),
        };
        if is_live(grant) && !inside {
            case.find(
                Invariant::InBlocks,
                format!(
                    "ledger {key}: {} of {} lies outside what the hub granted to the cluster",
                    grant.prefix, grant.owner
                ),
            );
        }
    }
    let mut found = Vec::new();
    nested(&mut chunks, |(outer, a), (inner, b)| {
        found.push(format!(
            "ledger {key}: {inner} of Site {} overlaps {outer} of Site {}",
            b.0, a.0
        ));
    });
    nested(&mut shares, |(outer, a), (inner, b)| {
        if a.1 != State::Released || b.1 != State::Released {
            found.push(format!(
                "ledger {key}: {inner} of {} overlaps {outer} of {}",
                b.0, a.0
            ));
        }
    });
    for message in found {
        case.find(Invariant::NoOverlap, message);
    }
    in_own_chunk(case, cluster, key, &chunks);
}

/// A share that was cut (not imported) lies in a chunk of its node's site.
fn in_own_chunk(
    case: &mut Case<'_>,
    cluster: &Cluster<'_>,
    key: &LedgerName,
    chunks: &[Chunk<'_>],
) {
    let mut nodes = cluster.nodes.iter().peekable();
    for Share {
        node,
        used_for,
        prefix,
        state,
    } in &cluster.shares
    {
        while nodes.next_if(|(id, _)| id.node < **node).is_some() {}
        if *state != State::Active {
            continue;
        }
        let after = chunks.partition_point(|(chunk, _)| *chunk <= *prefix);
        let chunk = after.checked_sub(1).map(|at| &chunks[at]);
        let chunk =
            chunk.filter(|(chunk, (_, use_of))| chunk.contains(*prefix) && use_of == used_for);
        let own = nodes.peek().filter(|(id, _)| id.node == **node);
        match (chunk, own) {
            (None, _) => case.find(
                Invariant::InChunk,
                format!("ledger {key}: {prefix} of Node {node} lies in no chunk of a site"),
            ),
            (Some((_, (site, _))), Some((_, plan))) if **site != plan.site => {
                let message = format!(
                    "ledger {key}: {prefix} of Node {node} lies in a chunk of Site {site}, but the node is in Site {}",
                    plan.site
                );
                case.find(Invariant::InOwnSite, message);
            }
            _ => {}
        }
    }
}
