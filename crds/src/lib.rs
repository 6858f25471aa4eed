//! The Kubernetes API of Tieline, `tieline.dev/v1alpha1`.
//!
//! The Rust types here are the one source: `crds/yaml/` is generated from them (`cargo run -p xtask -- crds`) and checked
//! for drift. Doc comments on API types are what `kubectl explain` shows, so they are written for users.
//!
//! | module | what it holds |
//! |---|---|
//! | [`cluster_link`], [`cluster`], [`site`], [`vpn_attachment`] | what users write |
//! | [`address_ledger`], [`network_plan`], [`peer`] | what the operator and the agents write |
//! | [`kinds`] | all of these as one list |
//! | [`mod@condition`] | the words of all statuses' conditions |
//! | [`mod@convert`] | objects to and from `core` values, each field parsed once |
//! | [`mod@validate`] | the API server's checks, offline |
//!
//! This crate uses kube's derive alone: no client, no runtime, no clock.

// One `printcolumn` of kube's derive resembles the next; clippy takes the equal parts for copies.
#![allow(clippy::duplicated_attributes)]

pub mod address_ledger;
pub mod cluster;
pub mod cluster_link;
pub mod condition;
pub mod convert;
pub mod kinds;
pub mod network_plan;
pub mod peer;
mod schema;
pub mod sealed;
pub mod site;
pub mod validate;
pub mod vpn_attachment;

pub use address_ledger::{AddressLedger, AddressLedgerSpec, AddressLedgerStatus};
pub use cluster::{Cluster, ClusterSpec, ClusterStatus};
pub use cluster_link::{ClusterLink, ClusterLinkSpec, ClusterLinkStatus};
pub use kinds::{KINDS, Ours, OwnKind};
pub use network_plan::{NetworkPlan, NetworkPlanSpec, NetworkPlanStatus};
pub use peer::{Peer, PeerSpec, PeerStatus};
pub use site::{Site, SiteSpec, SiteStatus};
pub use validate::{Violation, validate, validate_update};
pub use vpn_attachment::{VpnAttachment, VpnAttachmentSpec, VpnAttachmentStatus};

/// A condition of a status, as in all of Kubernetes.
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

/// The API group.
pub const GROUP: &str = "tieline.dev";
/// The API version.
pub const VERSION: &str = "v1alpha1";
/// Annotation on each CRD that holds the schema number.
pub const SCHEMA_ANNOTATION: &str = "tieline.dev/schema";
/// Number of this schema. It grows with every additive change: operators and agents refuse to write to a CRD with a
/// lower one, because an old schema prunes new fields silently.
pub const SCHEMA_NUMBER: u32 = 4;

/// All CRDs, as the API server gets them, in order of name. Always use these, not the derive's `crd()`, which lacks the schema
/// number and the limits on object names.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut all: Vec<_> = KINDS.iter().map(OwnKind::definition).collect();
    all.sort_by(|one, other| one.spec.names.plural.cmp(&other.spec.names.plural));
    all
}
