//! How long the prefixes of blocks, chunks and shares are.

use crate::cidr::Family;
use crate::fleet::Addressing;
use crate::ledger::Use;

/// Prefix lengths of one link and use, in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
