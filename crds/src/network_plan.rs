//! NetworkPlan: what the operator decided for one ClusterLink, as agents read it.

use crate::cluster_link::Granularity;
use crate::vpn_attachment::Allow;
use crate::{Condition, schema};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Largest plan that is written, in bytes of JSON. A larger one is refused with a message (slices come later).
pub const MAX_PLAN_BYTES: usize = 900 * 1024;

/// The decisions. Agents configure themselves from this and from accepted Peers, and from nothing else.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "tieline.dev",
    version = "v1alpha1",
    kind = "NetworkPlan",
    plural = "networkplans",
    shortname = "tlnp",
    category = "tieline",
    namespaced,
    status = "NetworkPlanStatus",
    derive = "PartialEq",
    doc = "A NetworkPlan is what the operator decided for one ClusterLink: ranges, segments with their gateways, and VPNs. Nodes appear only as gateways. The operator writes it; do not edit it.",
    printcolumn(name = "Link", type_ = "string", json_path = ".spec.link"),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".spec.revision"),
    printcolumn(
        name = "Nodes",
        type_ = "integer",
        json_path = ".status.appliedBy.total"
    ),
    printcolumn(
        name = "Applied-By",
        type_ = "integer",
        json_path = ".status.appliedBy.nodes"
    ),
    printcolumn(
        name = "Super-Nets",
        type_ = "string",
        json_path = ".spec.superNets",
        priority = 1
    ),
    printcolumn(
        name = "Lineage",
        type_ = "string",
        json_path = ".spec.lineage",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    schema::rule(
        "self.lineage != oldSelf.lineage || self.revision >= oldSelf.revision",
        "a plan's revision never falls within one lineage: read the plan again and write a revision above the one it holds",
    ),
    schema::rule("self.link == oldSelf.link", "a plan belongs to one ClusterLink: write another NetworkPlan for another link"),
]))]
pub struct NetworkPlanSpec {
    /// Name of the ClusterLink.
    #[schemars(schema_with = "schema::plain_name")]
    pub link: String,
    /// Identity of the history in which `revision` counts.
    #[schemars(schema_with = "schema::lineage")]
    pub lineage: String,
    /// Grows with every change. Nobody applies a lower revision of the same lineage.
    #[schemars(schema_with = "schema::revision")]
    pub revision: u64,
    /// Everything that must not leave a node in clear. Outside the tunnels these ranges are unreachable on every node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::plain_cidrs::<4096>")]
    pub super_nets: Vec<String>,
    /// Ranges of the member clusters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10000), extend("x-kubernetes-list-type" = "atomic"))]
    pub clusters: Vec<PlanCluster>,
    /// Sites in which the link has segments, VPNs or LANs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096), extend("x-kubernetes-list-type" = "atomic"))]
    pub sites: Vec<PlanSite>,
    /// Nodes that share gateways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10000), extend("x-kubernetes-list-type" = "atomic"))]
    pub segments: Vec<PlanSegment>,
    /// Foreign networks behind VPNs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512), extend("x-kubernetes-list-type" = "atomic"))]
    pub vpns: Vec<PlanVpn>,
    /// Ranges inside `superNets` that are reached outside the tunnels all the same: gateways' endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::plain_cidrs::<10000>")]
    pub bypass: Vec<String>,
    /// Name of the site through which segments talk that cannot reach each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::plain_name")]
    pub transit: Option<String>,
    /// What a segment is.
    pub granularity: Granularity,
}

/// Ranges of a member cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanCluster {
    /// Name of the cluster.
    #[schemars(schema_with = "schema::plain_name")]
    pub name: String,
    /// Ranges of all its pods. Inside the cluster, its own CNI routes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::plain_cidrs::<4096>")]
    pub pod_cidrs: Vec<String>,
    /// Its service ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::plain_cidrs::<16>")]
    pub service_cidrs: Vec<String>,
}

/// Facts about a site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanSite {
    /// Name of the site.
    #[schemars(schema_with = "schema::plain_name")]
    pub name: String,
    /// Its own LAN or VPC ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::plain_cidrs::<256>")]
    pub cidrs: Vec<String>,
    /// Whether its gateways must open all connections.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub behind_nat: bool,
    /// Where its gateways are reached from outside, when that is not the nodes' own addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::plain_hosts_and_ports::<16>")]
    pub public_addresses: Vec<String>,
}

/// Nodes that share gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanSegment {
    /// Name of the segment: CLUSTER.SITE, or CLUSTER.SITE.NODE with granularity Node.
    #[schemars(schema_with = "schema::plain_object_name")]
    pub name: String,
    /// Its site.
    #[schemars(schema_with = "schema::plain_name")]
    pub site: String,
    /// Its cluster; absent for a site's stand-alone routers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::plain_name")]
    pub cluster: Option<String>,
    /// What lies in the segment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096), extend("x-kubernetes-list-type" = "atomic"))]
    pub prefixes: Vec<PlanPrefix>,
    /// Nodes that carry its traffic. Ranks may have holes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub gateways: Vec<PlanGateway>,
}

/// A prefix and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanPrefix {
    /// The prefix.
    #[schemars(schema_with = "schema::plain_cidr")]
    pub prefix: String,
    /// What it holds.
    pub class: PrefixClass,
}

/// What a prefix holds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum PrefixClass {
    /// Pods.
    Pod,
    /// Services.
    Service,
    /// Hosts of the site's own network.
    Lan,
    /// Hosts behind a VPN.
    Vpn,
    /// Addresses inside the tunnels.
    Mesh,
}

/// A node that carries its segment's traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanGateway {
    /// Name of the node's Peer.
    #[schemars(schema_with = "schema::plain_object_name")]
    pub peer: String,
    /// Its rank, which it keeps while it is a gateway.
    #[schemars(schema_with = "schema::integer::<0, 3>")]
    pub rank: u8,
}

/// A foreign network behind a VPN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanVpn {
    /// Name of the VpnAttachment.
    #[schemars(schema_with = "schema::plain_name")]
    pub name: String,
    /// The site that terminates it.
    #[schemars(schema_with = "schema::plain_name")]
    pub site: String,
    /// The segment whose gateways terminate it.
    #[schemars(schema_with = "schema::plain_object_name")]
    pub segment: String,
    /// Index of its device and port, unique within the site.
    #[schemars(schema_with = "schema::integer::<0, 15>")]
    pub index: u8,
    /// Ranges behind it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::plain_cidrs::<256>")]
    pub prefixes: Vec<String>,
    /// What it may reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "plain_allow")]
    pub allow: Option<Allow>,
    /// The other side's public key.
    #[schemars(schema_with = "schema::plain_key")]
    pub peer_public_key: String,
    /// Where the other side listens, as host:port. Absent when it dials us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::plain_endpoint")]
    pub endpoint: Option<String>,
    /// Whether the sealed secret of the attachment carries a pre-shared key too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preshared_key: bool,
}

/// As [`Allow`], without rules: it has been checked where the user wrote it.
fn plain_allow(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "properties": {
            "clusters": schema::plain_names::<1024>(generator),
            "sites": schema::plain_names::<1024>(generator),
        },
    })
}

/// Who has applied the plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPlanStatus {
    /// The metadata.generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::revision")]
    pub observed_generation: Option<i64>,
    /// How many nodes carry this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_by: Option<AppliedBy>,
    /// Judgements about the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Nodes, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedBy {
    /// Nodes that carry this revision.
    #[schemars(schema_with = "schema::count")]
    pub nodes: u32,
    /// All nodes of the link.
    #[schemars(schema_with = "schema::count")]
    pub total: u32,
}
