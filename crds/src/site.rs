//! Site: a place with one underlay network.

use crate::{Condition, schema};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Facts about a place: its own ranges and how it is reached from outside.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "tieline.dev",
    version = "v1alpha1",
    kind = "Site",
    plural = "sites",
    shortname = "tls",
    category = "tieline",
    status = "SiteStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A Site is a place with one underlay network: a data center, a cloud VPC, an office. A site that a Cluster names needs no Site object; the object adds facts such as its LAN ranges. Its LAN becomes reachable only when the site itself is a member of a ClusterLink.",
    printcolumn(
        name = "Reachable",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Reachable')].status"
    ),
    printcolumn(
        name = "In-Use",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='InUse')].status"
    ),
    printcolumn(
        name = "Gateways",
        type_ = "string",
        json_path = ".status.gateways[*].node"
    ),
    printcolumn(
        name = "CIDRs",
        type_ = "string",
        json_path = ".spec.cidrs",
        priority = 1
    ),
    printcolumn(
        name = "NAT",
        type_ = "boolean",
        json_path = ".spec.underlay.behindNat",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct SiteSpec {
    /// The site's own ranges, of its LAN or VPC. They are reachable from the other members when the site itself is a
    /// member of a ClusterLink. Example: 192.168.40.0/22.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::disjoint_cidrs::<64>")]
    pub cidrs: Vec<String>,
    /// How the site's nodes reach the network between sites.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underlay: Option<Underlay>,
}

/// How the site's nodes reach the network between sites.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Underlay {
    /// True when nobody outside can open a connection to the site's gateways, so they must open all of them. Two such
    /// sites need a transitSite in the ClusterLink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind_nat: Option<bool>,
    /// Addresses or DNS names under which the site's gateways are reached from outside, when the nodes do not have them
    /// themselves. Example: a load balancer or a NAT with forwarded ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::hosts::<16>")]
    pub public_addresses: Vec<String>,
}

/// Which nodes carry the site's traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteStatus {
    /// The metadata.generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::revision")]
    pub observed_generation: Option<i64>,
    /// Nodes that carry the site's traffic; the first 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub gateways: Vec<SiteGateway>,
    /// Reachable and InUse.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A node that carries its segment's traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteGateway {
    /// Name of the node.
    #[schemars(schema_with = "schema::plain_object_name")]
    pub node: String,
    /// Its rank, which it keeps while it is a gateway.
    #[schemars(schema_with = "schema::integer::<0, 3>")]
    pub rank: u8,
}
