//! Every reason that a notice, a refused claim or a member that is not ready can have. The list is what the page on
//! troubleshooting is checked against, and its last table is made of it.

use serde::{Serialize, Serializer};
use std::fmt;

/// Writes the enum, and with it everything that has to know all of its members. The line of each is its meaning, for people.
macro_rules! reasons {
    ($(#[doc = $meaning:literal] $name:ident,)+) => {
        /// Why something could not be done, in order of the words.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $meaning] $name,)+
        }

        impl Reason {
            /// All that there are, in order.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// One CamelCase word for machines, as it stands in statuses.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// What it says, in one sentence for people.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning.trim_ascii(),)+
                }
            }
        }
    };
}

reasons! {
    /// The node's agent has not applied the newest plan yet.
    AgentBehind,
    /// A VpnAttachment allows what is no member of its link.
    AllowNotMember,
    /// What the node's agent says cannot be read or believed.
    ClaimInvalid,
    /// A link names a Cluster that does not exist.
    ClusterNotFound,
    /// The node waits for keys, or for the first handshake of a new path.
    Connecting,
    /// A key is claimed that another node or device holds already.
    DuplicateKey,
    /// An endpoint lies in a range that is reached through the mesh only.
    EndpointInPlannedRange,
    /// A field of the object does not hold what it should.
    Invalid,
    /// The checker found a defect in what would be decided.
    InvariantBroken,
    /// A gateway does not hold the VPN's key yet.
    KeyNotDelivered,
    /// The Secret of the VPN's key holds no key.
    KeyUnreadable,
    /// A new grant waits, because the ledger is older than what somebody has seen.
    LedgerFrozen,
    /// The ledger has no room for a newcomer.
    LedgerFull,
    /// A member belongs to another link already.
    MemberOfAnotherLink,
    /// The names of cluster, site and node are too long together.
    NameTooLong,
    /// No agent has reported from the node.
    NoAgent,
    /// No node of the site may be a gateway.
    NoGateway,
    /// No node of the cluster takes part.
    NoNodes,
    /// None of the node's paths is up.
    NoPath,
    /// The node has no podCIDR.
    NoPodCidr,
    /// Pod ranges are to be assigned, and there is no pool to take them from.
    NoPool,
    /// No node of a member cluster stands in the site.
    NoSegment,
    /// The VPN has no session with its other side.
    NoSession,
    /// No rule of the Cluster says which site the node is in.
    NoSite,
    /// Kubernetes reports the Node as not ready.
    NodeNotReady,
    /// Pod ranges are to be assigned, and another program writes podCIDRs.
    OtherPodCidrManager,
    /// Pod ranges are to be assigned, and nodes have some that Tieline did not give.
    PodCidrsOwnedElsewhere,
    /// The pools have no room for what is needed.
    PoolExhausted,
    /// Pools of two links overlap.
    PoolOverlap,
    /// The Secret of the preshared key holds no such key.
    PresharedKeyInvalid,
    /// The Secret of the preshared key does not exist.
    PresharedKeyMissing,
    /// A range overlaps another that was there first.
    RangeClash,
    /// A link names a Site that does not exist.
    SiteNotFound,
    /// An agent claims more endpoints than a node may have.
    TooManyEndpoints,
    /// An agent claims more keys than a node may have.
    TooManyKeys,
    /// The site has as many VPNs as one can have.
    TooManyVpns,
    /// No node stands in the transit site.
    TransitSiteEmpty,
    /// The transit site does not exist.
    TransitSiteUnknown,
    /// Nobody else can reach the node at an endpoint that it has.
    UnusableEndpoint,
    /// A link names a VpnAttachment that does not exist.
    VpnAttachmentNotFound,
}

impl Reason {
    /// The reason of this name, if it is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|it| it.as_str() == text)
    }

    /// Whether it is the normal course of things while agents catch up, and no Event is made of it.
    #[must_use]
    pub fn passes_by_itself(self) -> bool {
        matches!(
            self,
            Self::AgentBehind
                | Self::Connecting
                | Self::KeyNotDelivered
                | Self::NoAgent
                | Self::NoNodes
                | Self::NoPath
                | Self::NoSession
        )
    }

    /// Whether a user has to change something about the object. Of what waits for a ledger's restore the ledger itself tells.
    #[must_use]
    pub fn asks_for_a_change(self) -> bool {
        self != Self::LedgerFrozen
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
