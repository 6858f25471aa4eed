//! One node while its cluster is planned, and where it stands.

use crate::cidr::{Family, Prefix};
use crate::fleet::{Cluster, Granularity, Node, SiteSource};
use crate::ids::{MAX_OBJECT_NAME, NodeId, SiteName};
use crate::ledger::Use;
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// What a node holds for a use: one prefix of each family, as a rule.
pub(super) type Shares = SmallVec<[Prefix; 1]>;

/// A node while it is planned.
pub(super) struct NodeWork<'a> {
    /// Its name.
    pub(super) id: &'a NodeId,
    /// What is known about it.
    pub(super) node: &'a Node,
    /// Its site.
    pub(super) site: Option<SiteName>,
    /// Pod ranges that it holds.
    pub(super) pods: Shares,
    /// Mesh addresses that it holds.
    pub(super) mesh: Shares,
    /// Whether a pod range of it is somebody else's.
    pub(super) clashes: bool,
    /// Whether it takes part.
    pub(super) planned: bool,
    /// Whether its pod ranges are to be written into its Node object.
    pub(super) assign: bool,
}

impl<'a> NodeWork<'a> {
    /// A node that nothing is known of yet but its object.
    pub(super) fn new(id: &'a NodeId, node: &'a Node) -> Self {
        Self {
            id,
            node,
            site: None,
            pods: Shares::new(),
            mesh: Shares::new(),
            clashes: false,
            planned: false,
            assign: false,
        }
    }

    /// What it holds for a use.
    pub(super) fn shares(&self, used_for: Use) -> &[Prefix] {
        match used_for {
            Use::Pod => &self.pods,
            Use::Mesh => &self.mesh,
        }
    }

    /// What it holds for a use, to be changed.
    pub(super) fn shares_mut(&mut self, used_for: Use) -> &mut Shares {
        match used_for {
            Use::Pod => &mut self.pods,
            Use::Mesh => &mut self.mesh,
        }
    }

    /// Whether it holds anything for a use in a family.
    pub(super) fn has(&self, used_for: Use, family: Family) -> bool {
        let mut shares = self.shares(used_for).iter();
        shares.any(|prefix| prefix.family() == family)
    }
}

/// Why a node is in no site.
pub(super) enum Unplaced {
    /// Nothing says in which; what the user can do about it.
    NoSite(String),
    /// The names of its Peer or segment would be too long.
    TooLong,
}

/// Finds the sites of one cluster's nodes. Nodes of a site share the text of its name.
pub(super) struct Places<'a> {
    cluster: &'a Cluster,
    granularity: Granularity,
    by_label: BTreeMap<&'a str, Option<SiteName>>,
}

impl<'a> Places<'a> {
    /// For the nodes of a cluster.
    pub(super) fn new(cluster: &'a Cluster, granularity: Granularity) -> Self {
        Self {
            cluster,
            granularity,
            by_label: BTreeMap::new(),
        }
    }

    /// The site of a node.
    pub(super) fn of(&mut self, id: &NodeId, node: &'a Node) -> Result<SiteName, Unplaced> {
        let site = self.named(node).map_err(Unplaced::NoSite)?;
        let (cluster, own) = (id.cluster.as_str().len(), id.node.as_str().len());
        let longest = match self.granularity {
            Granularity::Site => cluster + 1 + own,
            Granularity::Node => cluster + 1 + site.as_str().len() + 1 + own,
        };
        if longest > MAX_OBJECT_NAME {
            Err(Unplaced::TooLong)
        } else {
            Ok(site)
        }
    }

    fn named(&mut self, node: &'a Node) -> Result<SiteName, String> {
        match &self.cluster.sites {
            SiteSource::Name(site) => Ok(site.clone()),
            SiteSource::FromNodeLabel(label) => {
                let value = node.labels.get(label).ok_or_else(|| {
                    format!("it has no label {label}: set the label to the name of the node's site")
                })?;
                let site = self
                    .by_label
                    .entry(value.as_str())
                    .or_insert_with(|| SiteName::new(value.as_str()).ok());
                site.clone().ok_or_else(|| {
                    format!(
                        "its label {label}={value:?} is no name of a site: write 1 to 63 lower-case letters, digits or '-', or map nodes to sites with spec.sites.bySelector"
                    )
                })
            }
            SiteSource::BySelector(rules) => rules
                .iter()
                .find(|rule| carries(node, &rule.selector))
                .map(|rule| rule.site.clone())
                .ok_or_else(|| {
                    "no rule of spec.sites.bySelector matches its labels: add a rule or label the node".to_owned()
                }),
        }
    }
}

/// Whether a node carries all labels of a selector.
pub(super) fn carries(node: &Node, selector: &BTreeMap<String, String>) -> bool {
    selector
        .iter()
        .all(|(key, value)| node.labels.get(key) == Some(value))
}
