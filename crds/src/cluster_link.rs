//! ClusterLink: the network that a user asks for.

use crate::{Condition, schema};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the network consists of: who takes part, which addresses may be planned, and how traffic crosses.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "tieline.dev",
    version = "v1alpha1",
    kind = "ClusterLink",
    plural = "clusterlinks",
    shortname = "tll",
    category = "tieline",
    status = "ClusterLinkStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A ClusterLink ties clusters, sites and VPNs into one encrypted network with addresses that never overlap. Deleting it withdraws the network and keeps the granted addresses.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Members",
        type_ = "integer",
        json_path = ".status.members.total"
    ),
    printcolumn(
        name = "Members-Ready",
        type_ = "integer",
        json_path = ".status.members.ready"
    ),
    printcolumn(name = "Paths", type_ = "integer", json_path = ".status.paths.total"),
    printcolumn(name = "Paths-Up", type_ = "integer", json_path = ".status.paths.up"),
    printcolumn(name = "Plan", type_ = "integer", json_path = ".status.planRevision"),
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.mode",
        priority = 1
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterLinkSpec {
    /// Who takes part. Members reach each other; a VPN reaches what its own `allow` names, and nothing else. An object
    /// is a member of one ClusterLink at most.
    pub members: Members,
    /// Which addresses Tieline may plan. Absent where all ranges exist already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addressing: Option<Addressing>,
    /// How segments are formed and through which site traffic may pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,
    /// Whether a plan is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// Lists of names: a lost label must not cut traffic, so there are no selectors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule(
    "(has(self.clusters) && self.clusters.size() > 0) || (has(self.sites) && self.sites.size() > 0) || (has(self.vpnAttachments) && self.vpnAttachments.size() > 0)",
    "name at least one member under clusters, sites or vpnAttachments; to take the network down, delete the ClusterLink",
)]))]
pub struct Members {
    /// Names of Cluster objects whose nodes and pods take part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::names::<10000>")]
    pub clusters: Vec<String>,
    /// Names of Site objects whose `cidrs` (a LAN or VPC range) become reachable. A site in which a member cluster has
    /// nodes needs to be named only when its LAN shall be reachable too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::names::<4096>")]
    pub sites: Vec<String>,
    /// Names of VpnAttachment objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::names::<512>")]
    pub vpn_attachments: Vec<String>,
}

/// Address pools and how they are cut: pools into cluster blocks, blocks into site chunks, chunks into node ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    schema::rule(
        "(has(self.nodePrefixLength) && has(self.nodePrefixLength.v4) ? self.nodePrefixLength.v4 : 24) >= (has(self.clusterPrefixLength) && has(self.clusterPrefixLength.v4) ? self.clusterPrefixLength.v4 : 16)",
        "a node's range must fit into its cluster's block: raise nodePrefixLength.v4 (24 without it) or lower clusterPrefixLength.v4 (16 without it)",
    ),
    schema::rule(
        "(has(self.nodePrefixLength) && has(self.nodePrefixLength.v6) ? self.nodePrefixLength.v6 : 64) >= (has(self.clusterPrefixLength) && has(self.clusterPrefixLength.v6) ? self.clusterPrefixLength.v6 : 56)",
        "a node's range must fit into its cluster's block: raise nodePrefixLength.v6 (64 without it) or lower clusterPrefixLength.v6 (56 without it)",
    ),
]))]
pub struct Addressing {
    /// Ranges from which pod addresses are planned, IPv4, IPv6 or both. Pools of different ClusterLinks must not overlap.
    /// Example: 10.64.0.0/10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::disjoint_cidrs::<64>")]
    pub pod_pools: Vec<String>,
    /// Prefix length of the block that each cluster gets. Without it: 16 (IPv4) and 56 (IPv6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_prefix_length: Option<PrefixLength>,
    /// Prefix length of the range that each node gets. Without it: 24 (IPv4) and 64 (IPv6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_prefix_length: Option<PrefixLength>,
    /// Ranges from which nodes get the address that they use inside the tunnels. Without it: 100.127.0.0/16, and an
    /// IPv6 ULA /48 derived from the ledger's lineage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::disjoint_cidrs::<8>")]
    pub mesh_pools: Vec<String>,
    /// Ranges that must never be granted, for example because something outside Kubernetes uses them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::cidrs::<1024>")]
    pub reserved: Vec<String>,
}

/// A prefix length in each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrefixLength {
    /// In IPv4, 8 to 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::integer::<8, 30>")]
    pub v4: Option<u8>,
    /// In IPv6, 32 to 126.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::integer::<32, 126>")]
    pub v6: Option<u8>,
}

/// How segments are formed and through which site traffic may pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Topology {
    /// What a segment is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granularity: Option<Granularity>,
    /// How many gateways each segment has, all of them active, 1 to 4. Without it: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::integer::<1, 4>")]
    pub gateways_per_site: Option<u8>,
    /// Name of the site through which two segments talk that cannot reach each other directly, because both are behind
    /// NAT. Its gateways decrypt what passes, so it must be trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::name")]
    pub transit_site: Option<String>,
}

/// What a segment is. `Site` (the default): the nodes of one cluster in one site, which share gateways. `Node`: every node is
/// its own gateway and has direct tunnels to all others, for small networks.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Granularity {
    /// One cluster's nodes in one site.
    #[default]
    Site,
    /// One node.
    Node,
}

/// Whether a plan is applied. `Apply` (the default) plans and applies. `Plan` plans, shows the result in status, and leaves what
/// is applied as it is: nothing is withdrawn.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Mode {
    /// Plan and apply.
    #[default]
    Apply,
    /// Plan and show; what is applied stays as it is.
    Plan,
}

/// How the network is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterLinkStatus {
    /// The metadata.generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::revision")]
    pub observed_generation: Option<i64>,
    /// Revision of the plan that was written last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::revision")]
    pub plan_revision: Option<u64>,
    /// How many members there are and how many are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<MemberCount>,
    /// Members that are not ready, and why; the first 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub not_ready: Vec<NotReady>,
    /// How many paths between gateways there are and how many are up: a path is up when its latest handshake is younger than
    /// 180 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<PathCount>,
    /// Ready, Accepted, Planned and Converged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Members, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberCount {
    /// All of them.
    #[schemars(schema_with = "schema::count")]
    pub total: u32,
    /// Those that are ready.
    #[schemars(schema_with = "schema::count")]
    pub ready: u32,
}

/// Paths or sessions, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathCount {
    /// Those that are up.
    #[schemars(schema_with = "schema::count")]
    pub up: u32,
    /// All of them.
    #[schemars(schema_with = "schema::count")]
    pub total: u32,
}

/// A member that is not ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotReady {
    /// Kind of the object, like Cluster, Site, VpnAttachment or Node.
    #[schemars(schema_with = "schema::text::<63>")]
    pub kind: String,
    /// Its name.
    #[schemars(schema_with = "schema::text::<253>")]
    pub name: String,
    /// Why, as one word for programs.
    #[schemars(schema_with = "schema::text::<128>")]
    pub reason: String,
    /// Why, and what to do about it, for people.
    #[schemars(schema_with = "schema::text::<1024>")]
    pub message: String,
}
