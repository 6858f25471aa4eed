//! Names of things, each a type of its own, so that a site is never passed where a cluster is meant.
//!
//! All are checked once, here. Ordering is by text, which is the order in which plans and reports list them. A copy shares its
//! text: plans of 100,000 nodes copy names far more often than they make them.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// Longest name of a Tieline kind, in characters: a name must fit into a label value.
pub const MAX_NAME: usize = 63;
/// Longest name of a Kubernetes object, in characters (RFC 1123 subdomain).
pub const MAX_OBJECT_NAME: usize = 253;

/// Why a text is no name. A retry with the same text cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Not a DNS label (RFC 1123): lower-case letters, digits and `-`, 1 to 63 characters.
    #[error(
        "{0:?} is no valid name: write 1 to 63 lower-case letters, digits or '-', beginning and ending with a letter or digit"
    )]
    Label(String),
    /// Not a DNS subdomain (RFC 1123): labels joined by `.`, at most 253 characters.
    #[error(
        "{0:?} is no valid object name: write lower-case letters, digits, '-' or '.', at most 253 characters"
    )]
    Subdomain(String),
}

fn is_label(text: &str) -> bool {
    let edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= MAX_NAME
        && edge(bytes[0])
        && edge(bytes[bytes.len() - 1])
        && bytes.iter().all(|&c| edge(c) || c == b'-')
}

fn is_subdomain(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_OBJECT_NAME && text.split('.').all(is_label)
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:ident, $error:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        // Copies share their text, and most names that meet in a plan are copies: equal pointers spare reading it. (Arc's own
        // equality does the same.)
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// [`NameError`] when the text is no valid name of this kind.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                if $check(&text) { Ok(Self(text.into())) } else { Err(NameError::$error(text)) }
            }

            /// The name that valid names make, joined by dots. Only its length can be wrong then.
            ///
            /// # Errors
            /// [`NameError`] when it is too long, or no name of this kind.
            #[allow(dead_code)]
            pub(crate) fn joined(parts: &[&str]) -> Result<Self, NameError> {
                debug_assert!(parts.iter().all(|part| is_subdomain(part)));
                // In place: plans of 100,000 nodes make as many names.
                let (mut text, mut end) = ([b'.'; MAX_OBJECT_NAME], 0);
                for part in parts {
                    let begin = if end == 0 { 0 } else { end + 1 };
                    end = begin + part.len();
                    let Some(place) = text.get_mut(begin..end) else {
                        return Err(NameError::$error(parts.join(".")));
                    };
                    place.copy_from_slice(part.as_bytes());
                }
                let text = std::str::from_utf8(&text[..end]).map_err(|_| NameError::$error(parts.join(".")))?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name_type!(
    /// Name of a ClusterLink.
    LinkName, is_label, Label
);
name_type!(
    /// Name of a Cluster.
    ClusterName, is_label, Label
);
name_type!(
    /// Name of a Site.
    SiteName, is_label, Label
);
name_type!(
    /// Name of a VpnAttachment.
    VpnName, is_label, Label
);
name_type!(
    /// Name of a Kubernetes Node or of a stand-alone router.
    NodeName, is_subdomain, Subdomain
);
name_type!(
    /// Name of a Peer object, unique over all clusters: `<cluster>.<node>`.
    PeerName, is_subdomain, Subdomain
);
name_type!(
    /// Name of a segment: `<cluster>.<site>`, or `<cluster>.<site>.<node>` with granularity Node.
    SegmentName, is_subdomain, Subdomain
);

/// A node, identified over all clusters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId {
    /// The cluster that the node belongs to.
    pub cluster: ClusterName,
    /// Its name there.
    pub node: NodeName,
}

impl NodeId {
    /// The name of this node's Peer object.
    ///
    /// # Errors
    /// [`NameError`] when cluster and node name together exceed 253 characters.
    pub fn peer(&self) -> Result<PeerName, NameError> {
        PeerName::joined(&[self.cluster.as_str(), self.node.as_str()])
    }

    /// What no node of a cluster comes before: where its nodes begin in a sorted map.
    #[must_use]
    pub fn first_of(cluster: &ClusterName) -> Self {
        Self {
            cluster: cluster.clone(),
            node: NodeName("0".into()),
        }
    }

    /// Whether this node's Peer has this name.
    #[must_use]
    pub fn is_called(&self, peer: &PeerName) -> bool {
        let rest = peer.as_str().strip_prefix(self.cluster.as_str());
        rest.and_then(|rest| rest.strip_prefix('.')) == Some(self.node.as_str())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.node)
    }
}

/// Identity of one ledger history: random, made once by the operator, 8 to 63 lower-case letters or digits.
///
/// Revisions are comparable only within one lineage (design, restore safety).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lineage(String);

impl Lineage {
    /// Takes a lineage.
    ///
    /// # Errors
    /// [`NameError`] when it is not 8 to 63 lower-case letters or digits.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        if text.len() >= 8 && is_label(&text) {
            Ok(Self(text))
        } else {
            Err(NameError::Label(text))
        }
    }

    /// The lineage as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for Lineage {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<Lineage> for String {
    fn from(lineage: Lineage) -> String {
        lineage.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_is_a_dns_label_and_says_what_to_write_otherwise() {
        assert!(SiteName::new("dc-berlin").is_ok());
        for bad in ["", "Berlin", "-a", "a-", "a.b", "a_b", &"x".repeat(64)] {
            let error = SiteName::new(bad).unwrap_err();
            assert!(error.to_string().contains("lower-case"), "{error}");
        }
    }

    #[test]
    fn a_peer_is_told_from_one_of_a_cluster_whose_name_begins_alike() {
        let id = |cluster: &str, node: &str| NodeId {
            cluster: ClusterName::new(cluster).unwrap(),
            node: NodeName::new(node).unwrap(),
        };
        let peer = id("a", "b.c").peer().unwrap();
        assert!(id("a", "b.c").is_called(&peer));
        assert!(!id("a", "c").is_called(&peer));
        assert!(!id("ab", "c").is_called(&peer));
    }

    #[test]
    fn a_peer_is_named_by_cluster_and_node() {
        let id = NodeId {
            cluster: ClusterName::new("shop").unwrap(),
            node: NodeName::new("eu-1.local").unwrap(),
        };
        assert_eq!(id.peer().unwrap().as_str(), "shop.eu-1.local");
        let long = NodeId {
            node: NodeName::new(vec!["x".repeat(60); 4].join(".")).unwrap(),
            ..id
        };
        assert!(
            NodeId {
                cluster: ClusterName::new("y".repeat(63)).unwrap(),
                ..long
            }
            .peer()
            .is_err()
        );
    }
}
