//! Why something could not be done, as data: about what, for which reason, and a sentence for people.
//!
//! Everybody who has to say "not this, because" says it by a [`Notice`]: the planner, the judge of claims, the operator and the
//! command line. What a notice is about and why are closed sets, so that a decision that follows from one is a match, and nothing
//! compares texts. It decides nothing itself. Kinds and reasons become words where an object of the API or a page is written.

mod reason;

pub use reason::Reason;

use crate::ids::{ClusterName, LinkName, NodeId, SiteName, VpnName};
use crate::ledger::LedgerName;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// One thing that could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The object concerned.
    pub about: About,
    /// The link concerned, when it is known.
    pub link: Option<LinkName>,
    /// Why, for machines.
    pub reason: Reason,
    /// A sentence for people: what is wrong, where, what would help. Stable: no times, sorted lists.
    pub message: String,
}

impl Notice {
    /// Kind, name and message, for lists in which the reason is understood.
    #[must_use]
    pub fn brief(&self) -> String {
        format!("{}: {}", self.about, self.message)
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.about, self.reason, self.message)
    }
}

impl Ord for Notice {
    /// The order in which people read them: by kind and name. Only what reads the same otherwise is told apart by more.
    fn cmp(&self, other: &Self) -> Ordering {
        fn read(it: &Notice) -> (Kind, Cow<'_, str>, &Option<LinkName>, Reason, &str) {
            let (kind, name) = (it.about.kind(), it.about.name());
            (kind, name, &it.link, it.reason, &it.message)
        }
        let by_text = read(self).cmp(&read(other));
        by_text.then_with(|| self.about.cmp(&other.about))
    }
}

impl PartialOrd for Notice {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What a notice is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// A link.
    ClusterLink(LinkName),
    /// A cluster.
    Cluster(ClusterName),
    /// A site.
    Site(SiteName),
    /// A foreign network.
    VpnAttachment(VpnName),
    /// A node, which is told by its name alone: whoever reads of it knows the cluster.
    Node(NodeId),
    /// A record of grants.
    AddressLedger(LedgerName),
    /// An object that could not be read, so that its name is nothing but a text.
    Unread(Kind, String),
    /// The proposal itself, as the checker sees it.
    Proposal,
}

impl About {
    /// Kind of the object.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::ClusterLink(_) => Kind::ClusterLink,
            Self::Cluster(_) => Kind::Cluster,
            Self::Site(_) => Kind::Site,
            Self::VpnAttachment(_) => Kind::VpnAttachment,
            Self::Node(_) => Kind::Node,
            Self::AddressLedger(_) => Kind::AddressLedger,
            Self::Unread(kind, _) => *kind,
            Self::Proposal => Kind::Plan,
        }
    }

    /// Name of the object.
    #[must_use]
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Self::ClusterLink(name) => name.as_str().into(),
            Self::Cluster(name) => name.as_str().into(),
            Self::Site(name) => name.as_str().into(),
            Self::VpnAttachment(name) => name.as_str().into(),
            Self::Node(id) => id.node.as_str().into(),
            Self::AddressLedger(name) => name.to_string().into(),
            Self::Unread(_, name) => name.as_str().into(),
            Self::Proposal => "checker".into(),
        }
    }

    /// Whether it is a cluster's own object, or one of its nodes: what keeps a cluster out shows at either.
    #[must_use]
    pub fn is_of(&self, cluster: &ClusterName) -> bool {
        match self {
            Self::Node(id) => id.cluster == *cluster,
            Self::Cluster(name) => name == cluster,
            _ => false,
        }
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

/// Kind of an object that is read or written, in order of the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A record of grants, or a part of one.
    AddressLedger,
    /// A cluster.
    Cluster,
    /// A link.
    ClusterLink,
    /// What agents read.
    NetworkPlan,
    /// A node, as Kubernetes has it.
    Node,
    /// A node, as the mesh has it.
    Peer,
    /// What is decided, before it is an object.
    Plan,
    /// A range of service addresses, as Kubernetes has it.
    ServiceCidr,
    /// A site.
    Site,
    /// A foreign network.
    VpnAttachment,
}

impl Kind {
    /// All that there are, in order.
    pub const ALL: [Self; 10] = [
        Self::AddressLedger,
        Self::Cluster,
        Self::ClusterLink,
        Self::NetworkPlan,
        Self::Node,
        Self::Peer,
        Self::Plan,
        Self::ServiceCidr,
        Self::Site,
        Self::VpnAttachment,
    ];

    /// As the API spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AddressLedger => "AddressLedger",
            Self::Cluster => "Cluster",
            Self::ClusterLink => "ClusterLink",
            Self::NetworkPlan => "NetworkPlan",
            Self::Node => "Node",
            Self::Peer => "Peer",
            Self::Plan => "Plan",
            Self::ServiceCidr => "ServiceCIDR",
            Self::Site => "Site",
            Self::VpnAttachment => "VpnAttachment",
        }
    }

    /// The kind of this name in the API, if it is one that is known here.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests;
