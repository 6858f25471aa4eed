//! The ledgers: who holds which prefix.
//!
//! Two levels. The ledger [`LedgerName::Hub`] splits the pools of all links into cluster blocks (owner: a cluster). A
//! cluster's own ledger splits its block by site (owner: a site), then by node (owner: a node; its prefix lies inside
//! one of its site's chunks, unless it was imported). Members claim; only a ledger grants.
//!
//! A ledger is a value here. It changes in the API by compare-and-swap only, and its revision never falls.

use crate::cidr::{Prefix, PrefixSet};
use crate::ids::{ClusterName, Lineage, NodeName, SiteName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Which ledger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LedgerName {
    /// The hub's: pools to clusters.
    Hub,
    /// A cluster's: its block to sites and nodes.
    Cluster(ClusterName),
}

impl fmt::Display for LedgerName {
    /// The name of the AddressLedger object: `hub` or `cluster-<name>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub => f.write_str("hub"),
            Self::Cluster(name) => write!(f, "cluster-{name}"),
        }
    }
}

impl LedgerName {
    /// The ledger that an AddressLedger object of this name holds, if any.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "hub" {
            return Some(Self::Hub);
        }
        ClusterName::new(text.strip_prefix("cluster-")?)
            .ok()
            .map(Self::Cluster)
    }
}

/// All ledgers. They are shared: a change makes one ledger anew, and all others are passed on as they are.
pub type Ledgers = BTreeMap<LedgerName, Arc<Ledger>>;

/// The record of grants of one level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Identity of this history.
    pub lineage: Lineage,
    /// Grows with every change; comparable within one lineage only.
    pub revision: u64,
    /// For a cluster's ledger: the cluster blocks that the hub granted. Empty for the hub.
    pub parents: PrefixSet,
    /// Grants in order of prefix. One prefix has at most one grant of each owner kind.
    pub grants: Vec<Grant>,
}

impl Ledger {
    /// A ledger without grants, at revision 0.
    #[must_use]
    pub fn empty(lineage: Lineage) -> Self {
        Self {
            lineage,
            revision: 0,
            parents: PrefixSet::new(),
            grants: Vec::new(),
        }
    }

    /// What an owner holds for a use (released grants are held by nobody).
    pub fn held(&self, owner: &Owner, used_for: Use) -> impl Iterator<Item = Prefix> + '_ {
        let owner = owner.clone();
        self.grants
            .iter()
            .filter(move |grant| {
                grant.owner == owner && grant.used_for == used_for && grant.state != State::Released
            })
            .map(|grant| grant.prefix)
    }
}

/// One prefix that one owner holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant {
    /// The prefix.
    pub prefix: Prefix,
    /// What it is for.
    #[serde(rename = "use")]
    pub used_for: Use,
    /// Who holds it.
    pub owner: Owner,
    /// Whether it is in use, and how it came to be.
    pub state: State,
}

/// What a grant is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Use {
    /// Pod addresses.
    Pod,
    /// Mesh addresses.
    Mesh,
}

/// State of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Given out by this ledger.
    Active,
    /// Found in use and recorded.
    Imported,
    /// Given back; kept so that it is re-used last.
    Released,
}

/// Who holds a grant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name")]
pub enum Owner {
    /// A cluster (in the hub's ledger).
    Cluster(ClusterName),
    /// A site of the cluster (in a cluster's ledger).
    Site(SiteName),
    /// A node of the cluster (in a cluster's ledger).
    Node(NodeName),
}

impl Owner {
    /// Kind as the API spells it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cluster(_) => "Cluster",
            Self::Site(_) => "Site",
            Self::Node(_) => "Node",
        }
    }

    /// Name of the object.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Cluster(name) => name.as_str(),
            Self::Site(name) => name.as_str(),
            Self::Node(name) => name.as_str(),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}
