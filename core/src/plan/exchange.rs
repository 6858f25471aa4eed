//! What the two levels tell each other. Values only: in one process they are handed over, between API servers they travel as a
//! member's claim and the hub's word.
//!
//! ```text
//!  a cluster says ─► where its nodes are, ranges in use, blocks that it asks for, segments that it offers
//!  the hub says   ─► what the cluster holds, and which ranges inside are somebody else's
//! ```

use super::report::Reporter;
use crate::cidr::{Family, Prefix};
use crate::fleet::{Addressing, Cluster, Topology};
use crate::ids::{ClusterName, LinkName, NodeName, SegmentName, SiteName};
use crate::ledger::Use;
use crate::network_plan::{ClassPrefix, Gateway};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What users want of a cluster, and of its link where that concerns the cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    /// Its place among the planned clusters, which are in order of name.
    pub(super) at: usize,
    /// The cluster's name.
    pub(super) name: &'a ClusterName,
    /// What the user wants of it.
    pub(super) cluster: &'a Cluster,
    /// Its link.
    pub(super) link: &'a LinkName,
    /// Where addresses come from, and how long prefixes are.
    pub(super) addressing: &'a Addressing,
    /// How many gateways, and what a segment is.
    pub(super) topology: &'a Topology,
}

/// What a cluster holds of the hub.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    /// Where node ranges may be cut: blocks from pools, and `pods.cidrs`.
    pub(super) blocks: Vec<Prefix>,
    /// Everything that its pods have, imported ranges of nodes included.
    pub(super) pods: Vec<Prefix>,
    /// Blocks of mesh addresses.
    pub(super) mesh: Vec<Prefix>,
    /// Its `pods.cidrs` that somebody else has.
    pub(super) lost: Vec<Prefix>,
    /// Ranges inside or around its blocks that are somebody else's all the same: named after the block was granted.
    pub(super) foreign: Vec<Prefix>,
    /// Families in which its link has a pool for pods.
    pub(super) pools: Families,
    /// Families in which its nodes have mesh addresses.
    pub(super) mesh_families: Families,
}

impl Holdings {
    /// The same in order of address, to be compared.
    pub(super) fn sorted(&self) -> Self {
        let mut sorted = self.clone();
        for ranges in [
            &mut sorted.blocks,
            &mut sorted.pods,
            &mut sorted.mesh,
            &mut sorted.lost,
            &mut sorted.foreign,
        ] {
            ranges.sort_unstable();
        }
        sorted
    }
}

/// Some of the two address families.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Families {
    v4: bool,
    v6: bool,
}

impl Families {
    /// None.
    pub(super) const NONE: Self = Self {
        v4: false,
        v6: false,
    };

    /// Whether the family is one of them.
    pub(super) fn contains(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// They, IPv4 first.
    pub(super) fn iter(self) -> impl Iterator<Item = Family> {
        Family::BOTH
            .into_iter()
            .filter(move |family| self.contains(*family))
    }

    /// Whether there is none.
    pub(super) fn is_empty(self) -> bool {
        self == Self::NONE
    }
}

impl Extend<Family> for Families {
    fn extend<I: IntoIterator<Item = Family>>(&mut self, families: I) {
        for family in families {
            match family {
                Family::V4 => self.v4 = true,
                Family::V6 => self.v6 = true,
            }
        }
    }
}

impl FromIterator<Family> for Families {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        let mut all = Self::NONE;
        all.extend(families);
        all
    }
}

/// A block that a cluster asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockAsk {
    /// What for.
    pub(super) used_for: Use,
    /// In which family.
    pub(super) family: Family,
    /// Its prefix length.
    pub(super) len: u8,
}

/// What a cluster brings to the network: all that the hub reads of it once its addresses are cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    /// Its segments in order of name.
    pub(super) segments: Vec<SegmentOffer>,
    /// Nodes that are left out, because a podCIDR of theirs is somebody else's.
    pub(super) clashes: Vec<NodeClash>,
    /// Shares that could not be cut, by use and family.
    pub(super) missing: BTreeMap<(Use, Family), Vec<NodeName>>,
    /// What else there is to say.
    pub(super) report: Reporter,
}

/// A segment as its cluster offers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentOffer {
    /// Its name.
    pub(super) name: SegmentName,
    /// Its site.
    pub(super) site: SiteName,
    /// Its pods' and nodes' prefixes, sorted.
    pub(super) prefixes: Vec<ClassPrefix>,
    /// Its gateways, sorted by rank.
    pub(super) gateways: Vec<Gateway>,
    /// Its gateways' addresses on the underlay.
    pub(super) underlay: Vec<IpAddr>,
}

/// A node that is left out, because a podCIDR of its is somebody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeClash {
    /// The node.
    pub(super) node: NodeName,
    /// Its podCIDRs, sorted.
    pub(super) pod_cidrs: Vec<Prefix>,
    /// The first of them that meets another node of this cluster: the podCIDR, that node's range and its name.
    pub(super) within: Option<(Prefix, Prefix, NodeName)>,
}
