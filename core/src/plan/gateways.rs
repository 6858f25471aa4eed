//! Which nodes carry a segment's traffic.
//!
//! Sticky: a gateway keeps its rank while its node is there, belongs to the segment and matches the selector, ready or
//! not: health is measured inside the tunnels, and a rank that wanders costs sessions. Only free ranks are filled.

use crate::ids::PeerName;
use crate::network_plan::Gateway;
use std::collections::BTreeMap;

/// A node that may become a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its peer.
    pub(super) peer: PeerName,
    /// Whether it has an address that is reached from everywhere.
    pub(super) public: bool,
    /// Whether Kubernetes calls it Ready.
    pub(super) ready: bool,
}

/// Fills ranks 0 to `wanted` - 1. Ranks stay free where candidates are too few.
pub(super) fn elect(
    mut candidates: Vec<Candidate>,
    sitting: &[Gateway],
    wanted: u8,
) -> Vec<Gateway> {
    let mut ranks: BTreeMap<u8, PeerName> = BTreeMap::new();
    for gateway in sitting.iter().filter(|gateway| gateway.rank < wanted) {
        if let Some(at) = candidates
            .iter()
            .position(|candidate| candidate.peer == gateway.peer)
        {
            ranks
                .entry(gateway.rank)
                .or_insert_with(|| candidates.remove(at).peer);
        }
    }
    candidates.sort_by(|a, b| (!a.public, !a.ready, &a.peer).cmp(&(!b.public, !b.ready, &b.peer)));
    let mut best = candidates.into_iter();
    for rank in 0..wanted {
        if !ranks.contains_key(&rank)
            && let Some(candidate) = best.next()
        {
            ranks.insert(rank, candidate.peer);
        }
    }
    ranks
        .into_iter()
        .map(|(rank, peer)| Gateway { rank, peer })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn candidates(texts: &[&str]) -> Vec<Candidate> {
        texts
            .iter()
            .map(|text| Candidate {
                peer: PeerName::new(format!("c.{}", text.trim_end_matches(['+', '-']))).unwrap(),
                public: text.ends_with('+'),
                ready: !text.ends_with('-'),
            })
            .collect()
    }

    fn elected(nodes: &[&str], sitting: &[(u8, &str)], wanted: u8) -> Vec<String> {
        let sitting: Vec<Gateway> = sitting
            .iter()
            .map(|(rank, node)| Gateway {
                rank: *rank,
                peer: PeerName::new(format!("c.{node}")).unwrap(),
            })
            .collect();
        elect(candidates(nodes), &sitting, wanted)
            .iter()
            .map(|g| format!("{}:{}", g.rank, &g.peer.as_str()[2..]))
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
