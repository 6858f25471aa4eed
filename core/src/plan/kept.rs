//! Nodes of links that are only shown: as their plan and their ledgers have them, whatever happened since.

use super::proposal::{Before, NodePlan};
use crate::cidr::Prefix;
use crate::fleet::Fleet;
use crate::ids::{LinkName, NodeId};
use crate::ledger::{LedgerName, Owner, State, Use};
use crate::network_plan::Class;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes of links that are not `planned`: as their plan and their ledgers have them.
pub(super) fn kept_nodes(
    fleet: &Fleet,
    before: &Before,
    planned: &BTreeSet<&LinkName>,
) -> BTreeMap<NodeId, NodePlan> {
    let mut nodes = BTreeMap::new();
    for (link, plan) in &before.plans {
        if !fleet.links.contains_key(link) || planned.contains(&link) {
            continue;
        }
        let ranks = plan.ranks();
        for cluster in &plan.clusters {
            let Some(ledger) = before
                .ledgers
                .get(&LedgerName::Cluster(cluster.name.clone()))
            else {
                continue;
            };
            let mut shares: BTreeMap<NodeId, (Vec<Prefix>, Vec<Prefix>)> = BTreeMap::new();
            for grant in ledger
                .grants
                .iter()
                .filter(|grant| grant.state != State::Released)
            {
                if let Owner::Node(node) = &grant.owner {
                    let id = NodeId {
                        cluster: cluster.name.clone(),
                        node: node.clone(),
                    };
                    let (pods, mesh) = shares.entry(id).or_default();
                    if grant.used_for == Use::Pod {
                        pods
                    } else {
                        mesh
                    }
                    .push(grant.prefix);
                }
            }
            for (id, (pods, mesh)) in shares {
                let Some(segment) = plan.segments.iter().find(|segment| {
                    segment.cluster.as_ref() == Some(&id.cluster)
                        && mesh
                            .first()
                            .is_some_and(|own| segment.of(&[Class::Mesh]).contains(*own))
                }) else {
                    continue;
                };
                let Ok(peer) = id.peer() else { continue };
                let kept = NodePlan {
                    link: link.clone(),
                    gateway_rank: ranks.get(&peer).copied(),
                    peer,
                    site: segment.site.clone(),
                    segment: segment.name.clone(),
                    pod_cidrs: pods,
                    mesh_addresses: mesh.iter().map(|prefix| prefix.address()).collect(),
                    assign: false,
                    addresses: fleet
                        .nodes
                        .get(&id)
                        .map(|node| node.addresses.clone())
                        .unwrap_or_default(),
                };
                nodes.insert(id, kept);
            }
        }
    }
    nodes
}
