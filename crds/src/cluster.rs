//! Cluster: one Kubernetes cluster whose nodes live in one or more sites.

use crate::{Condition, schema};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where the cluster's nodes are and which ranges its pods and services use.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "tieline.dev",
    version = "v1alpha1",
    kind = "Cluster",
    plural = "clusters",
    shortname = "tlc",
    category = "tieline",
    status = "ClusterStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A Cluster is one Kubernetes cluster that can be a member of a ClusterLink. Its name is what the operator of that cluster was started with (--cluster-name). Where Cluster API is installed too, write clusters.tieline.dev.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes.total"),
    printcolumn(
        name = "Nodes-Ready",
        type_ = "integer",
        json_path = ".status.nodes.ready"
    ),
    printcolumn(
        name = "Pod-CIDRs",
        type_ = "string",
        json_path = ".status.granted.podCidrs"
    ),
    printcolumn(
        name = "Services",
        type_ = "string",
        json_path = ".spec.serviceCidrs",
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
pub struct ClusterSpec {
    /// How to tell in which site a node is: exactly one of `name`, `fromNodeLabel` and `bySelector`.
    pub sites: Sites,
    /// Ranges of the cluster's pods, and who gives nodes their podCIDRs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<Pods>,
    /// Service ranges of the cluster (the API server's --service-cluster-ip-range), to make services reachable from the
    /// other members. No pod range may overlap them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::disjoint_cidrs::<16>")]
    pub service_cidrs: Vec<String>,
    /// Which nodes may become gateways. Without it, every node may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateways: Option<Gateways>,
}

/// How to tell in which site a node is. A site needs no Site object: that only adds facts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule(
    "(has(self.name) ? 1 : 0) + (has(self.fromNodeLabel) ? 1 : 0) + (has(self.bySelector) ? 1 : 0) == 1",
    "write exactly one of: name (all nodes are in one site), fromNodeLabel (one site per value of a label) or bySelector",
)]))]
pub struct Sites {
    /// All nodes are in the site of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::name")]
    pub name: Option<String>,
    /// The value of this node label is the name of the node's site. Example: topology.kubernetes.io/region. A node whose
    /// value is no valid name waits, with a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_key")]
    pub from_node_label: Option<String>,
    /// The first entry whose selector matches a node names its site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<SiteSelector>", length(min = 1, max = 64))]
    pub by_selector: Option<Vec<SiteSelector>>,
}

/// Nodes of one site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteSelector {
    /// Name of the site.
    #[schemars(schema_with = "schema::name")]
    pub site: String,
    /// Labels that a node of this site has, as in a Pod's nodeSelector: all of them must match.
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: BTreeMap<String, String>,
}

/// Ranges of the cluster's pods, and who gives nodes their podCIDRs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pods {
    /// Ranges that the cluster's pods use already; they are imported as they are. Without it, a block is planned from
    /// the ClusterLink's podPools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::disjoint_cidrs::<64>")]
    pub cidrs: Vec<String>,
    /// Whether Tieline gives nodes their podCIDR. False by default: then nodes keep the podCIDRs that somebody else gives
    /// them, and nodes without one wait. True is refused while another manager owns any podCIDR, because
    /// kube-controller-manager stops at start when a node's podCIDR lies outside its cluster CIDR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assign: Option<bool>,
}

/// Which nodes may become gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gateways {
    /// Labels that a gateway has, as in a Pod's nodeSelector: all of them must match.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: BTreeMap<String, String>,
}

/// What the cluster holds and how its nodes are doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The metadata.generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::revision")]
    pub observed_generation: Option<i64>,
    /// Ranges that the cluster holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<Granted>,
    /// How many nodes there are and how many are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCount>,
    /// The history that the cluster's AddressLedger belongs to. Revisions of different histories are not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::lineage")]
    pub lineage: Option<String>,
    /// The highest revision of that ledger that has been seen. A ledger that is below it was restored from an older backup
    /// and gives no new grants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::revision")]
    pub observed_revision: Option<u64>,
    /// Ready says whether all nodes take part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Ranges that a cluster holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Granted {
    /// The cluster's blocks of pod addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::plain_cidrs::<64>")]
    pub pod_cidrs: Vec<String>,
    /// The same by site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub by_site: Vec<SiteGrant>,
}

/// Ranges of one site's nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteGrant {
    /// Name of the site.
    #[schemars(schema_with = "schema::plain_name")]
    pub site: String,
    /// Ranges that the site's nodes hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::plain_cidrs::<256>")]
    pub pod_cidrs: Vec<String>,
}

/// Nodes, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCount {
    /// All of them.
    #[schemars(schema_with = "schema::count")]
    pub total: u32,
    /// Those that are ready.
    #[schemars(schema_with = "schema::count")]
    pub ready: u32,
}
