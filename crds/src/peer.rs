//! Peer: one node in the mesh. Spec is the operator's accepted truth, status the agent's claim.

use crate::{Condition, schema};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator accepted about the node. Other nodes configure themselves from this only.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "tieline.dev",
    version = "v1alpha1",
    kind = "Peer",
    plural = "peers",
    shortname = "tlp",
    category = "tieline",
    namespaced,
    status = "PeerStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A Peer is one node in the mesh, named CLUSTER.NODE. The operator writes spec, the accepted truth; the node's agent writes status, its claim. Do not edit it.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Site", type_ = "string", json_path = ".spec.site"),
    printcolumn(name = "Gateway", type_ = "integer", json_path = ".spec.gatewayRank"),
    printcolumn(
        name = "Mesh-Address",
        type_ = "string",
        json_path = ".spec.meshAddresses[0]"
    ),
    printcolumn(name = "Plan", type_ = "integer", json_path = ".spec.planRevision"),
    printcolumn(
        name = "Applied",
        type_ = "integer",
        json_path = ".status.appliedRevision"
    ),
    printcolumn(name = "Paths", type_ = "integer", json_path = ".status.paths.total"),
    printcolumn(name = "Paths-Up", type_ = "integer", json_path = ".status.paths.up"),
    printcolumn(name = "Backend", type_ = "string", json_path = ".status.backend"),
    printcolumn(
        name = "Pod-CIDRs",
        type_ = "string",
        json_path = ".spec.podCidrs",
        priority = 1
    ),
    printcolumn(
        name = "Endpoints",
        type_ = "string",
        json_path = ".spec.acceptedEndpoints[*].address",
        priority = 1
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.version",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PeerSpec {
    /// Name of the Kubernetes Node.
    #[schemars(schema_with = "schema::plain_object_name")]
    pub node: String,
    /// Name of its cluster.
    #[schemars(schema_with = "schema::plain_name")]
    pub cluster: String,
    /// Name of its site.
    #[schemars(schema_with = "schema::plain_name")]
    pub site: String,
    /// Name of its segment.
    #[schemars(schema_with = "schema::plain_object_name")]
    pub segment: String,
    /// Ranges of its pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::plain_cidrs::<64>")]
    pub pod_cidrs: Vec<String>,
    /// Its addresses inside the tunnels, at most one of each family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::plain_addresses::<2>")]
    pub mesh_addresses: Vec<String>,
    /// Its rank among the gateways of its segment; absent when it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::integer::<0, 3>")]
    pub gateway_rank: Option<u8>,
    /// Public key of each of its WireGuard devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["device"]))]
    pub accepted_keys: Vec<DeviceKey>,
    /// Where it can be reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub accepted_endpoints: Vec<PeerEndpoint>,
    /// Secrets that only this node can open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub sealed_secrets: Vec<SealedSecret>,
    /// The least plan revision that this goes with.
    #[schemars(schema_with = "schema::revision")]
    pub plan_revision: u64,
}

/// Public key of one WireGuard device.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct DeviceKey {
    /// Name of the device, like tie0 or tiei0.
    #[schemars(schema_with = "device")]
    pub device: String,
    /// Its public key.
    #[schemars(schema_with = "schema::plain_key")]
    pub key: String,
}

fn device(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "minLength": 4, "maxLength": 6, "pattern": "^tie[iv]?[0-9]{1,2}$"})
}

/// Where a node can be reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerEndpoint {
    /// IP address or DNS name, with `:port` behind it where the port is not Tieline's own for the device.
    #[schemars(schema_with = "schema::plain_host_and_port")]
    pub address: String,
    /// From where: nodes of the same site, or everybody.
    pub scope: EndpointScope,
}

/// From where an endpoint can be reached.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum EndpointScope {
    /// From nodes of the same site, and from others where the underlay routes it.
    Site,
    /// From everywhere.
    Public,
}

/// A secret that only one node can open (a libsodium sealed box).
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct SealedSecret {
    /// Name of the VpnAttachment that it belongs to.
    #[schemars(schema_with = "schema::plain_name")]
    pub name: String,
    /// Changes when the secret changes.
    #[schemars(schema_with = "schema::text::<128>")]
    pub secret_version: String,
    /// The sealing key that it was made for.
    #[schemars(schema_with = "schema::plain_key")]
    pub recipient_key: String,
    /// The sealed box in base64.
    #[schemars(schema_with = "schema::base64::<4096>")]
    pub ciphertext: String,
}

/// What the node's agent says about it. The operator checks it before it becomes spec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// The metadata.generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::revision")]
    pub observed_generation: Option<i64>,
    /// Public key of each of its WireGuard devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["device"]))]
    pub keys: Vec<DeviceKey>,
    /// Public key to seal secrets to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::plain_key")]
    pub sealing_key: Option<String>,
    /// Where the agent believes that its node can be reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub endpoints: Vec<PeerEndpoint>,
    /// The plan revision that the node's kernel carries; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::revision")]
    pub applied_revision: Option<u64>,
    /// How many paths to gateways the node has and how many are up: a path is up when its latest handshake is younger
    /// than 180 seconds. Absent while the node is not part of the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<PeerPaths>,
    /// Sessions of the VPNs that this node is the active gateway of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub sessions: Vec<VpnSessions>,
    /// Which WireGuard carries the traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// Version of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::text::<64>")]
    pub version: Option<String>,
    /// What the node's own network is like, for a diagnosis (tieline doctor). Nothing is decided by it. Absent before the
    /// agent has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostFacts>,
    /// Ready says whether the node carries the plan, and why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Paths of one node, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerPaths {
    /// Those that are up.
    #[schemars(schema_with = "schema::count")]
    pub up: u32,
    /// All of them.
    #[schemars(schema_with = "schema::count")]
    pub total: u32,
    /// Those whose first handshake is still awaited. After ten seconds of silence a path counts as down instead.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "schema::count")]
    pub connecting: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Sessions of one VPN, counted.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct VpnSessions {
    /// Name of the VpnAttachment.
    #[schemars(schema_with = "schema::plain_name")]
    pub name: String,
    /// Sessions that are up.
    #[schemars(schema_with = "schema::count")]
    pub up: u32,
    /// All of them.
    #[schemars(schema_with = "schema::count")]
    pub total: u32,
}

/// What a node's own network is like. Only what stays the same on a node at rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostFacts {
    /// Release of the kernel, as `uname -r` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::text::<128>")]
    pub kernel: Option<String>,
    /// Whether the kernel forwards IPv4 packets (net.ipv4.ip_forward). Absent before there is a mesh, which switches it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwards_ipv4: Option<bool>,
    /// Whether the kernel forwards IPv6 packets (net.ipv6.conf.all.forwarding). Absent as above, and without IPv6 in
    /// the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwards_ipv6: Option<bool>,
    /// Devices that lead to other nodes: those with a default route, and those by which endpoints are reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["device"]))]
    pub underlay: Vec<UnderlayFacts>,
    /// Chains of other tables that drop forwarded packets by default, as `family table chain`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "forward_drops")]
    pub forward_drops: Vec<String>,
    /// What carries the node's pods beside Tieline, as far as its kernel shows it. Absent before the agent has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_network: Option<PodNetworkFacts>,
    /// How far the node's clock is ahead of the API server's, in seconds (behind: below 0), in coarse steps: 5, 10, 30, 60,
    /// 300, 3600 or 86400. Absent while they agree, and before the agent has written anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::integer::<-86400, 86400>")]
    pub clock_ahead_seconds: Option<i32>,
}

/// What carries a node's pods, and what it does to the sources of their packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodNetworkFacts {
    /// Devices of network plug-ins, like cni0, flannel.1 or cilium_host; those that Calico makes for each pod are `cali*`.
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"), inner(length(max = 16)))]
    pub devices: Vec<String>,
    /// Chains of other nftables tables, those of iptables-nft too, that give packets an address of the node as their source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["chain"]))]
    pub masquerade: Vec<MasqueradeFacts>,
}

/// A chain that gives packets an address of the node as their source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MasqueradeFacts {
    /// The chain, as `family table chain`; those that plug-ins make for each pod are one, `CNI-*`.
    #[schemars(schema_with = "schema::text::<192>")]
    pub chain: String,
    /// True when only packets with a mark are changed, as kube-proxy does it with those of Services in its mode iptables.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_marked: bool,
}

fn forward_drops(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array", "maxItems": 16, "x-kubernetes-list-type": "atomic",
        "items": {"type": "string", "maxLength": 192},
    })
}

/// One device that leads to other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnderlayFacts {
    /// Its name.
    #[schemars(schema_with = "schema::text::<16>")]
    pub device: String,
    /// Its MTU.
    #[schemars(schema_with = "schema::count")]
    pub mtu: u32,
    /// Its reverse-path filter as it acts (the greater one of its own and of `all`): 0 none, 1 strict, 2 loose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::integer::<0, 2>")]
    pub reverse_path_filter: Option<u8>,
}

/// Which WireGuard carries the traffic.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Backend {
    /// The kernel's.
    Kernel,
    /// The agent's own, embedded, where the kernel has none: traffic stops while the agent is down.
    Embedded,
}
