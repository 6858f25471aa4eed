//! The kinds, as one list. Whoever adds one adds it here; definitions, reference, bundles and what writes are called follow.

use crate::schema::{ATTACHMENT, LABEL, LEDGER, OBJECT, finished};
use crate::{AddressLedger, Cluster, ClusterLink, NetworkPlan, Peer, Site, VpnAttachment};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use tieline_core::notice::Kind;

/// What every kind of ours has.
#[derive(Debug, Clone, Copy)]
pub struct OwnKind {
    /// As objects name it.
    pub kind: Kind,
    /// As paths and permissions name it, like `clusterlinks`.
    pub plural: &'static str,
    /// Its status, as permissions name it: `clusterlinks/status`.
    pub status: &'static str,
    /// Whether its objects are in a namespace.
    pub namespaced: bool,
    finish: fn() -> CustomResourceDefinition,
}

impl OwnKind {
    /// Its definition, as the API server gets it.
    #[must_use]
    pub fn definition(&self) -> CustomResourceDefinition {
        (self.finish)()
    }
}

/// A kind of ours, as a type.
pub trait Ours: kube::Resource<DynamicType = ()> {
    /// What the list says of it.
    const KIND: OwnKind;
}

macro_rules! kinds {
    ($($kind:ident, $plural:literal, $namespaced:literal, $limit:ident;)*) => {
        $(impl Ours for $kind {
            const KIND: OwnKind = OwnKind {
                kind: Kind::$kind,
                plural: $plural,
                status: concat!($plural, "/status"),
                namespaced: $namespaced,
                finish: || finished::<$kind>($limit),
            };
        })*
        /// All kinds, in the order in which one meets them.
        pub const KINDS: &[OwnKind] = &[$($kind::KIND),*];
    };
}

// Type, plural, whether in a namespace, and what its objects' names may be.
kinds! {
    ClusterLink, "clusterlinks", false, LABEL;
    Cluster, "clusters", false, LABEL;
    Site, "sites", false, LABEL;
    VpnAttachment, "vpnattachments", false, ATTACHMENT;
    NetworkPlan, "networkplans", true, LABEL;
    Peer, "peers", true, OBJECT;
    AddressLedger, "addressledgers", false, LEDGER;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_list_says_what_the_definitions_say() {
        for kind in KINDS {
            let spec = kind.definition().spec;
            assert_eq!(spec.names.kind, kind.kind.as_str());
            assert_eq!(spec.names.plural, kind.plural);
            assert_eq!(spec.scope == "Namespaced", kind.namespaced, "{}", kind.kind);
        }
    }
}
