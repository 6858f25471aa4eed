//! Ranks are unique and in bounds, and nobody who may stay is replaced.

use crate::check::case::Case;
use crate::check::invariant::Invariant;
use crate::fleet::Granularity;
use crate::ids::{NodeId, NodeName, PeerName};
use crate::network_plan::{NetworkPlan, Segment};

/// Proves it of one plan.
pub(super) fn check(case: &mut Case<'_>, plan: &NetworkPlan) {
    let link = &plan.link;
    let topology = &case.fleet.links[link].topology;
    let wanted = if topology.granularity == Granularity::Node {
        1
    } else {
        topology.gateways_per_site
    };
    for segment in &plan.segments {
        for (at, gateway) in segment.gateways.iter().enumerate() {
            let (rank, peer) = (gateway.rank, &gateway.peer);
            let mut others = segment.gateways[..at].iter();
            if others.any(|other| other.rank == rank || other.peer == *peer) {
                case.find(
                    Invariant::GatewaysAreUnique,
                    format!(
                        "plan {link}: segment {} has rank {rank} or gateway {peer} twice",
                        segment.name
                    ),
                );
            }
            if rank >= wanted {
                let message = format!(
                    "plan {link}: segment {} has a gateway of rank {rank}, but {wanted} gateway(s) are wanted",
                    segment.name
                );
                case.find(Invariant::RankInBounds, message);
            }
        }
        let old = case
            .before
            .plans
            .get(link)
            .and_then(|old| old.segment(&segment.name));
        let sitting = old.into_iter().flat_map(|old| &old.gateways);
        for sitting in sitting.filter(|old| !segment.gateways.contains(old)) {
            let node = node_of(case, segment, &sitting.peer);
            let may = |id: &NodeId| topology.granularity == Granularity::Node || selected(case, id);
            let stays = sitting.rank < wanted && node.is_some_and(|id| may(&id));
            if stays {
                case.find(
                    Invariant::GatewayStays,
                    format!(
                        "plan {link}: {} had rank {} of segment {} and could keep it",
                        sitting.peer, sitting.rank, segment.name
                    ),
                );
            }
        }
    }
}

fn selected(case: &Case<'_>, id: &NodeId) -> bool {
    match (
        case.fleet.clusters.get(&id.cluster),
        case.fleet.nodes.get(id),
    ) {
        (Some(cluster), Some(node)) => cluster
            .gateway_selector
            .iter()
            .all(|(key, value)| node.labels.get(key).is_some_and(|own| own == value)),
        _ => false,
    }
}

/// The planned node of the segment that has this Peer.
fn node_of(case: &Case<'_>, segment: &Segment, peer: &PeerName) -> Option<NodeId> {
    let cluster = segment.cluster.clone()?;
    let node = peer
        .as_str()
        .strip_prefix(cluster.as_str())?
        .strip_prefix('.')?;
    let node = NodeName::new(node).ok()?;
    let id = NodeId { cluster, node };
    let planned = case.proposal.nodes.get(&id)?;
    (planned.segment == segment.name && planned.peer == *peer).then_some(id)
}
