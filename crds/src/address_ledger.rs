//! AddressLedger: the record of who holds which prefix.

use crate::{Condition, schema};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Annotation on an AddressLedger that came back from a backup: the revision up to which an administrator gives up what the
/// ledger does not know.
pub const ACCEPT_RESTORE: &str = "tieline.dev/accept-restore";

/// Annotation on a ledger that has slices: how many. Annotations outlive a definition that is too old to know `spec.slices` and drops
/// it; without this, such a ledger would read as one of few grants.
pub const SLICE_COUNT: &str = "tieline.dev/slices";

/// The record itself. Written by the operator with compare-and-swap only.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "tieline.dev",
    version = "v1alpha1",
    kind = "AddressLedger",
    plural = "addressledgers",
    shortname = "tlal",
    category = "tieline",
    status = "AddressLedgerStatus",
    derive = "PartialEq",
    doc = "An AddressLedger records who holds which prefix. The ledger named hub splits the pools of all ClusterLinks into cluster blocks; the ledger named cluster-NAME splits that cluster's block by site and node. A ledger of more than 2,000 grants keeps most of them in slices of up to 1,000 grants, objects of this kind whose name adds a dot and a digest; a cluster's ledger takes up to 100,000 grants. The operator writes it; do not edit it.",
    printcolumn(name = "Revision", type_ = "integer", json_path = ".spec.revision"),
    printcolumn(
        name = "Acknowledged",
        type_ = "integer",
        json_path = ".status.acknowledgedRevision"
    ),
    printcolumn(
        name = "Frozen",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Frozen')].status"
    ),
    printcolumn(
        name = "Lineage",
        type_ = "string",
        json_path = ".spec.lineage",
        priority = 1
    ),
    printcolumn(
        name = "Parents",
        type_ = "string",
        json_path = ".spec.parents",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule(
    "self.revision >= oldSelf.revision",
    "the ledger's revision never falls: read the ledger again and write a revision above the one it holds",
)]))]
pub struct AddressLedgerSpec {
    /// Identity of this ledger's history, made once. Revisions are comparable within one lineage only.
    #[schemars(schema_with = "schema::lineage")]
    pub lineage: String,
    /// Grows with every change and never falls.
    #[schemars(schema_with = "schema::revision")]
    pub revision: u64,
    /// In a cluster's ledger: the blocks that the hub granted to the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::plain_cidrs::<256>")]
    pub parents: Vec<String>,
    /// Who holds which prefix, in order of prefix. Where the ledger has slices, theirs come on top.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20000), extend("x-kubernetes-list-type" = "atomic"))]
    pub grants: Vec<LedgerGrant>,
    /// In a ledger that has slices: their digests. Slice DIGEST is the AddressLedger named by this one's name, a dot and DIGEST. It
    /// never changes; what it holds counts while it is listed here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::slices")]
    pub slices: Vec<String>,
}

/// One prefix that one owner holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerGrant {
    /// The prefix.
    #[schemars(schema_with = "schema::plain_cidr")]
    pub prefix: String,
    /// What it is for: pods, or addresses inside the tunnels (Mesh).
    #[serde(rename = "use")]
    pub used_for: GrantUse,
    /// Who holds it.
    pub owner: GrantOwner,
    /// Active: granted here. Imported: found in use and recorded. Released: given back, and re-used last.
    pub state: GrantState,
}

/// What a grant is for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum GrantUse {
    /// Pod addresses.
    Pod,
    /// Addresses inside the tunnels.
    Mesh,
}

/// State of a grant.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum GrantState {
    /// Granted by this ledger.
    Active,
    /// Found in use and recorded.
    Imported,
    /// Given back.
    Released,
}

/// Who holds a grant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrantOwner {
    /// Cluster in the hub's ledger; Site or Node in a cluster's ledger.
    pub kind: OwnerKind,
    /// Name of the owner.
    #[schemars(schema_with = "schema::plain_object_name")]
    pub name: String,
}

/// Kind of a grant's owner.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum OwnerKind {
    /// A Cluster.
    Cluster,
    /// A Site.
    Site,
    /// A Kubernetes Node or a stand-alone router.
    Node,
}

/// Whether the record may be relied on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressLedgerStatus {
    /// The metadata.generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::revision")]
    pub observed_generation: Option<i64>,
    /// The highest revision that any holder has reported. When it is above the ledger's own, the ledger was restored from
    /// an older backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::revision")]
    pub acknowledged_revision: Option<u64>,
    /// Frozen says whether new grants wait, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
