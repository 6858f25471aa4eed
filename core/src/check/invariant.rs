//! The invariants that are proved, by name: what a finding is of.

/// What must hold of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    // Any ledger.
    /// Grants are in order.
    GrantsAreSorted,
    /// A prefix has one owner of a kind.
    OneHolder,
    /// A ledger is never taken away.
    LedgerStays,
    /// A lineage stays, and plans have the hub's.
    LineageStays,
    /// A change raises the revision above all that were before.
    RevisionRises,
    /// Without a change the revision stays.
    RevisionRests,
    /// What is not planned now stays as it is.
    UnplannedRests,
    /// What is granted is not taken away from an owner that is there.
    GrantStays,
    /// What is granted is not given back while its owner is there.
    GrantStaysLive,
    /// What a site or cluster holds, it goes on holding as it did.
    StateStays,
    /// The hub grants to clusters, and a cluster's ledger to sites and nodes.
    OwnerFits,
    /// No address is given twice: to clusters, uses, sites, nodes or segments.
    NoOverlap,
    // The hub's ledger.
    /// A new block is of a cluster that is planned.
    BlockIsPlanned,
    /// A new block lies in its link's pools.
    BlockInPools,
    /// A new block touches nothing that is somebody else's.
    BlockIsFree,
    // A cluster's ledger.
    /// Its parents are the blocks that the hub granted.
    ParentsAreBlocks,
    /// What is held lies in the cluster's blocks.
    InBlocks,
    /// What was cut for a node lies in a chunk of a site.
    InChunk,
    /// What was cut for a node lies in a chunk of its own site.
    InOwnSite,
    // Nodes.
    /// A node's Peer has the node's name.
    OwnPeer,
    /// Its pod ranges are those of its ledger.
    PodsAsGranted,
    /// Its mesh addresses are those of its ledger.
    MeshAsGranted,
    /// It has one mesh address of each family that there is.
    OneMeshAddressEach,
    /// A link that is applied, and the link of a node, has a plan.
    LinkHasPlan,
    /// Its segment is one of its cluster and site.
    InOwnSegment,
    /// Its gateway rank is that of its segment.
    RankAsInSegment,
    /// A planned node exists.
    NodeExists,
    /// What its Node object has is planned for it.
    PodCidrsAsObserved,
    /// A podCIDR is written where there is none, and assigning is wanted.
    AssignedOnce,
    // Plans.
    /// A plan's ClusterLink exists.
    LinkExists,
    /// Lists are in order, and no name stands twice.
    ListsAreSorted,
    /// Sites and clusters of segments are listed.
    PartsAreListed,
    /// A segment is in the transit site.
    TransitHasSegment,
    /// Super-nets cover everything that is planned.
    InSuperNets,
    /// The bypass has nothing that only the mesh reaches.
    BypassIsForeign,
    /// A cluster is in one plan.
    OneLinkEach,
    /// What a plan has is a member of its link.
    IsMember,
    /// A cluster's pod ranges are what the hub granted.
    ClusterAsGranted,
    // Segments.
    /// A segment has a node.
    SegmentHasNode,
    /// It carries only pods and mesh addresses that a ledger grants to its site or nodes.
    CarriesGranted,
    /// It carries all that its nodes hold.
    CarriesShares,
    /// It carries only services, LANs and VPNs that it may.
    MayCarry,
    /// A gateway is a node of its segment.
    GatewayInSegment,
    /// A gateway is selected by its cluster.
    GatewayIsSelected,
    /// No rank and no gateway stands twice.
    GatewaysAreUnique,
    /// No more gateways than wanted.
    RankInBounds,
    /// A gateway that could stay is not replaced.
    GatewayStays,
    // VPNs.
    /// A VPN has the site and the allow lists of its object.
    VpnAsWanted,
    /// It ends in a segment of its site.
    VpnEndsInSite,
    /// Its ranges are those of its object, and its segment carries them.
    VpnIsCarried,
    /// Its device index is one that there is.
    VpnIndexInBounds,
    /// No two VPNs of a site have one index.
    VpnIndexIsUnique,
    /// Its index stays.
    VpnIndexStays,
}
