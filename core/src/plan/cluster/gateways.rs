//! Which nodes carry a segment's traffic.
//!
//! Sticky: a gateway keeps its rank while its node is there, belongs to the segment and matches the selector, ready or
//! not: health is measured inside the tunnels, and a rank that wanders costs sessions. Only free ranks are filled.

use crate::ids::NodeId;
use crate::network_plan::Gateway;
use std::collections::BTreeMap;

/// A node that may become a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate<'a> {
    /// Its name.
    pub(super) id: &'a NodeId,
    /// Whether it has an address that is reached from everywhere.
    pub(super) public: bool,
    /// Whether Kubernetes calls it Ready.
    pub(super) ready: bool,
}

/// Fills ranks 0 to `wanted` - 1. Ranks stay free where candidates are too few. Candidates are sorted by name.
pub(super) fn elect<'a>(
    mut candidates: Vec<Candidate<'a>>,
    sitting: &[Gateway],
    wanted: u8,
) -> BTreeMap<u8, &'a NodeId> {
    let mut ranks: BTreeMap<u8, &NodeId> = BTreeMap::new();
    for gateway in sitting.iter().filter(|gateway| gateway.rank < wanted) {
        let seat = candidates
            .iter()
            .position(|candidate| candidate.id.is_called(&gateway.peer));
        if let Some(at) = seat {
            ranks
                .entry(gateway.rank)
                .or_insert_with(|| candidates.remove(at).id);
        }
    }
    for rank in 0..wanted {
        if ranks.contains_key(&rank) {
            continue;
        }
        // Few ranks, many candidates: the best one is looked for anew. Of equal ones the first by name.
        let best = candidates
            .iter()
            .enumerate()
            .min_by_key(|(_, candidate)| (!candidate.public, !candidate.ready));
        if let Some((at, _)) = best {
            ranks.insert(rank, candidates.remove(at).id);
        }
    }
    ranks
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::{ClusterName, NodeName, PeerName};

    fn ids(texts: &[&str]) -> Vec<NodeId> {
        let name = |text: &str| NodeName::new(text.trim_end_matches(['+', '-'])).unwrap();
        let id = |text: &&str| NodeId {
            cluster: ClusterName::new("c").unwrap(),
            node: name(text),
        };
        texts.iter().map(id).collect()
    }

    fn elected(nodes: &[&str], sitting: &[(u8, &str)], wanted: u8) -> Vec<String> {
        let sitting: Vec<Gateway> = sitting
            .iter()
            .map(|(rank, node)| Gateway {
                rank: *rank,
                peer: PeerName::new(format!("c.{node}")).unwrap(),
            })
            .collect();
        let ids = ids(nodes);
        let candidates = nodes.iter().zip(&ids).map(|(text, id)| Candidate {
            id,
            public: text.ends_with('+'),
            ready: !text.ends_with('-'),
        });
        elect(candidates.collect(), &sitting, wanted)
            .iter()
            .map(|(rank, id)| format!("{rank}:{}", id.node))
            .collect()
    }

    #[test]
    fn public_addresses_come_first_then_readiness_then_the_name() {
        assert_eq!(elected(&["a-", "b", "c+"], &[], 3), ["0:c", "1:b", "2:a"]);
    }

    #[test]
    fn a_sitting_gateway_is_never_replaced_by_a_better_one() {
        assert_eq!(elected(&["a+", "b-", "c"], &[(0, "b")], 1), ["0:b"]);
        assert_eq!(elected(&["a+", "b-", "c"], &[(1, "b")], 2), ["0:a", "1:b"]);
    }

    #[test]
    fn a_gateway_that_is_gone_leaves_a_hole_when_nobody_can_follow() {
        assert_eq!(elected(&["b"], &[(0, "gone"), (1, "b")], 2), ["1:b"]);
        assert_eq!(
            elected(&["b", "c"], &[(0, "gone"), (1, "b")], 2),
            ["0:c", "1:b"]
        );
    }

    #[test]
    fn a_lower_number_drops_the_high_ranks() {
        assert_eq!(elected(&["a", "b"], &[(0, "b"), (1, "a")], 1), ["0:b"]);
        assert_eq!(elected(&["a", "b"], &[(1, "a")], 1), ["0:a"]);
    }
}
