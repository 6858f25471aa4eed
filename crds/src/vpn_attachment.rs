//! VpnAttachment: somebody else's network, joined through a VPN that a site's gateways terminate.

use crate::cluster_link::PathCount;
use crate::{Condition, schema};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Key of the pre-shared key in the Secret that `presharedKeySecret` names.
pub const PRESHARED_KEY: &str = "presharedKey";

/// Where the VPN ends, what lies behind it, and what it may reach.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "tieline.dev",
    version = "v1alpha1",
    kind = "VpnAttachment",
    plural = "vpnattachments",
    shortname = "tlv",
    category = "tieline",
    status = "VpnAttachmentStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A VpnAttachment joins somebody else's network, like the company VPN, through a VPN that a site's gateways terminate. Tieline writes a ready configuration for the other side into the Secret named in status.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Site", type_ = "string", json_path = ".spec.site"),
    printcolumn(name = "Prefixes", type_ = "string", json_path = ".spec.prefixes"),
    printcolumn(
        name = "Sessions-Up",
        type_ = "integer",
        json_path = ".status.sessions.up"
    ),
    printcolumn(
        name = "Config",
        type_ = "string",
        json_path = ".status.configSecret.name"
    ),
    printcolumn(
        name = "Endpoint",
        type_ = "string",
        json_path = ".spec.wireguard.endpoint",
        priority = 1
    ),
    printcolumn(
        name = "Public-Key",
        type_ = "string",
        json_path = ".status.publicKey",
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
    "has(self.wireguard)",
    "write how the other side connects, exactly one of: wireguard",
)]))]
pub struct VpnAttachmentSpec {
    /// Name of the site whose gateways terminate the VPN. Cannot be changed: the other side is configured for it.
    #[schemars(schema_with = "site")]
    pub site: String,
    /// Ranges behind the VPN. Example: 172.16.0.0/16.
    #[schemars(schema_with = "prefixes")]
    pub prefixes: Vec<String>,
    /// What may be reached through the VPN, in both directions. Without it, nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Allow>,
    /// The other side speaks WireGuard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wireguard: Option<WireguardVpn>,
}

fn site(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = schema::name(generator);
    if let Some(serde_json::Value::Array(rules)) = schema.get_mut("x-kubernetes-validations") {
        rules.push(schema::rule(
            "self == oldSelf",
            "site cannot be changed: create another VpnAttachment for the new site, move the other side to it, then delete this one",
        ));
    }
    schema
}

fn prefixes(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = schema::disjoint_cidrs::<64>(generator);
    schema.insert("minItems".to_owned(), 1.into());
    schema
}

/// What a VPN may reach and be reached from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allow {
    /// Names of clusters: their pods and services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::names::<1024>")]
    pub clusters: Vec<String>,
    /// Names of sites: their LANs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::names::<1024>")]
    pub sites: Vec<String>,
}

/// The other side of a WireGuard VPN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WireguardVpn {
    /// The other side's public key, 44 characters as `wg pubkey` prints them.
    #[schemars(schema_with = "schema::public_key")]
    pub peer_public_key: String,
    /// Where the other side listens, as host:port. Without it, they dial us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::endpoint")]
    pub endpoint: Option<String>,
    /// Secret in the operator's namespace whose key `presharedKey` holds a pre-shared key, as `wg genpsk` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key_secret: Option<SecretName>,
}

/// A Secret in the operator's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretName {
    /// Name of the Secret.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

/// What the other side needs to know, and how the VPN is doing. Holds no secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VpnAttachmentStatus {
    /// The metadata.generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::revision")]
    pub observed_generation: Option<i64>,
    /// Our public key, the same on all gateways of the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::plain_key")]
    pub public_key: Option<String>,
    /// Where the other side reaches us, as host:port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::plain_endpoints::<16>")]
    pub local_endpoints: Vec<String>,
    /// How many sessions there are and how many are up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<PathCount>,
    /// Secret in the operator's namespace that holds a ready configuration for the other side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_secret: Option<SecretName>,
    /// Ready says whether the VPN carries traffic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
