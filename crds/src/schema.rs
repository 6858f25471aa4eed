//! Building blocks of the schemas: bounded strings and lists, CEL rules, and the finish that every CRD gets.
//!
//! Two families of helpers, by who writes the field:
//!
//! * **user-written** fields ([`name`], `cidr`, [`public_key`], [`endpoint`] and their lists) carry CEL rules, because
//!   only a CEL rule can say what to write instead;
//! * **machine-written** fields (`plain_…`) carry patterns, which cost nothing: a CEL rule on a list of lists of thousands
//!   would exceed the API server's cost limit, and the writer has been checked already.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// Longest name of a Tieline kind: it must fit into a label value.
const MAX_NAME: u32 = 63;
/// Longest name of any Kubernetes object.
const MAX_OBJECT_NAME: u32 = 253;
/// Longest CIDR: 39 characters of IPv6 address and `/128`.
const MAX_CIDR: u32 = 43;
/// Longest IP address: IPv6 with an embedded IPv4 address.
const MAX_ADDRESS: u32 = 45;
/// Longest host and port: a DNS name of 253 characters, a colon and five digits.
const MAX_ENDPOINT: u32 = 259;
/// Length of 32 bytes in base64.
const KEY_LENGTH: u32 = 44;

const LABEL_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
const SUBDOMAIN_PATTERN: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const CIDR_PATTERN: &str = "^[0-9a-f:.]+/[0-9]{1,3}$";
/// 32 bytes in base64: the last character before `=` carries four bits.
const KEY_PATTERN: &str = "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$";
const PORT: &str =
    "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})";
const HOST: &str =
    r"(\[[0-9a-fA-F:.]+\]|[0-9a-z]([-0-9a-z]*[0-9a-z])?(\.[0-9a-z]([-0-9a-z]*[0-9a-z])?)*)";

/// One CEL rule and the message that says what to write instead.
pub(crate) fn rule(rule: &str, message: &str) -> Value {
    json!({"rule": rule, "message": message})
}

fn schema(value: Value) -> Schema {
    match value {
        Value::Object(map) => Schema::from(map),
        _ => Schema::default(),
    }
}

/// A CEL string literal. Our constants hold no quote; backslashes are doubled.
fn cel_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\"))
}

fn name_value() -> Value {
    json!({
        "type": "string", "minLength": 1, "maxLength": MAX_NAME,
        "x-kubernetes-validations": [rule(
            &format!("self.matches({})", cel_text(LABEL_PATTERN)),
            "write a name: 1 to 63 lower-case letters, digits or '-', beginning and ending with a letter or digit",
        )],
    })
}

fn cidr_value() -> Value {
    // The message cannot name the canonical form: a messageExpression over `string(cidr(self))` exceeds the cost limit.
    json!({
        "type": "string", "minLength": 1, "maxLength": MAX_CIDR,
        "x-kubernetes-validations": [rule(
            "isCIDR(self) && string(cidr(self).masked()) == self",
            "write an address and a prefix length in canonical form, like 10.64.0.0/16 or fd00:64::/48: lower case, and no bits set behind the prefix length",
        )],
    })
}

fn list(items: &Value, max: u32, kind: &str) -> Schema {
    schema(
        json!({"type": "array", "maxItems": max, "items": items, "x-kubernetes-list-type": kind}),
    )
}

/// The name of one of our objects, user-written.
pub(crate) fn name(_: &mut SchemaGenerator) -> Schema {
    schema(name_value())
}

/// A set of names, user-written.
pub(crate) fn names<const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    list(&name_value(), MAX, "set")
}

/// A set of canonical CIDRs, user-written.
pub(crate) fn cidrs<const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    list(&cidr_value(), MAX, "set")
}

/// A set of canonical CIDRs that do not overlap each other, user-written. Pairwise, hence for short lists only.
pub(crate) fn disjoint_cidrs<const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    let mut schema = list(&cidr_value(), MAX, "set");
    schema.insert(
        "x-kubernetes-validations".to_owned(),
        json!([rule(
            "self.all(a, self.all(b, a == b || !isCIDR(a) || !isCIDR(b) || !cidr(a).containsCIDR(b)))",
            "two entries overlap: keep the larger one and remove the one inside it",
        )]),
    );
    schema
}

/// A WireGuard public key, user-written.
pub(crate) fn public_key(_: &mut SchemaGenerator) -> Schema {
    schema(json!({
        "type": "string", "minLength": 1, "maxLength": 64,
        "x-kubernetes-validations": [rule(
            &format!("self.matches({})", cel_text(KEY_PATTERN)),
            "write the 44 characters that `wg pubkey` prints",
        ), rule(
            "self != 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='",
            "this is the all-zero key, which would make every shared secret public: make one with `wg genkey | wg pubkey`",
        )],
    }))
}

/// A host and a port, user-written.
pub(crate) fn endpoint(_: &mut SchemaGenerator) -> Schema {
    schema(json!({
        "type": "string", "minLength": 1, "maxLength": MAX_ENDPOINT,
        "x-kubernetes-validations": [rule(
            &format!("self.matches({})", cel_text(&format!("^{HOST}:{PORT}$"))),
            "write host:port, like vpn.acme.example:51820, 198.51.100.7:51820 or [2001:db8::7]:51820",
        )],
    }))
}

/// A set of IP addresses or DNS names, user-written.
pub(crate) fn hosts<const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    let item = json!({
        "type": "string", "minLength": 1, "maxLength": MAX_OBJECT_NAME,
        "x-kubernetes-validations": [rule(
            &format!("isIP(self) || self.matches({})", cel_text(SUBDOMAIN_PATTERN)),
            "write an IP address or a lower-case DNS name, without a port",
        )],
    });
    list(&item, MAX, "set")
}

/// The name of an object that is not ours (Secret), user-written.
pub(crate) fn object_name(_: &mut SchemaGenerator) -> Schema {
    schema(json!({
        "type": "string", "minLength": 1, "maxLength": MAX_OBJECT_NAME,
        "x-kubernetes-validations": [rule(
            &format!("self.matches({})", cel_text(SUBDOMAIN_PATTERN)),
            "write the name of an object: lower-case letters, digits, '-' or '.'",
        )],
    }))
}

/// The key of a label, user-written.
pub(crate) fn label_key(_: &mut SchemaGenerator) -> Schema {
    schema(json!({
        "type": "string", "minLength": 1, "maxLength": 317,
        "x-kubernetes-validations": [rule(
            r"self.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",
            "write the key of a node label, like topology.kubernetes.io/region",
        )],
    }))
}

/// A selector as in `Pod.spec.nodeSelector`: every entry must match a label of the node. User-written.
pub(crate) fn node_selector(_: &mut SchemaGenerator) -> Schema {
    schema(json!({
        "type": "object", "minProperties": 1, "maxProperties": 16, "x-kubernetes-map-type": "atomic",
        "additionalProperties": {"type": "string", "maxLength": 63},
        "x-kubernetes-validations": [rule(
            "self.all(key, key.size() <= 317)",
            "write label keys of at most 317 characters, like topology.kubernetes.io/zone",
        )],
    }))
}

/// The name of one of our objects, machine-written.
pub(crate) fn plain_name(_: &mut SchemaGenerator) -> Schema {
    schema(
        json!({"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": LABEL_PATTERN}),
    )
}

/// Names of our objects, machine-written.
pub(crate) fn plain_names<const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    list(
        &json!({"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": LABEL_PATTERN}),
        MAX,
        "atomic",
    )
}

/// The name of a Node, Peer, segment or Secret, machine-written.
pub(crate) fn plain_object_name(_: &mut SchemaGenerator) -> Schema {
    schema(
        json!({"type": "string", "minLength": 1, "maxLength": MAX_OBJECT_NAME, "pattern": SUBDOMAIN_PATTERN}),
    )
}

/// A CIDR, machine-written.
pub(crate) fn plain_cidr(_: &mut SchemaGenerator) -> Schema {
    schema(
        json!({"type": "string", "minLength": 1, "maxLength": MAX_CIDR, "pattern": CIDR_PATTERN}),
    )
}

/// CIDRs, machine-written.
pub(crate) fn plain_cidrs<const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    list(
        &json!({"type": "string", "minLength": 1, "maxLength": MAX_CIDR, "pattern": CIDR_PATTERN}),
        MAX,
        "atomic",
    )
}

/// IP addresses, machine-written.
pub(crate) fn plain_addresses<const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    list(
        &json!({"type": "string", "minLength": 1, "maxLength": MAX_ADDRESS, "pattern": "^[0-9a-f:.]+$"}),
        MAX,
        "atomic",
    )
}

/// A Curve25519 public key, machine-written.
pub(crate) fn plain_key(_: &mut SchemaGenerator) -> Schema {
    schema(
        json!({"type": "string", "minLength": KEY_LENGTH, "maxLength": KEY_LENGTH, "pattern": KEY_PATTERN}),
    )
}

/// A host and a port, machine-written.
pub(crate) fn plain_endpoint(_: &mut SchemaGenerator) -> Schema {
    schema(
        json!({"type": "string", "minLength": 1, "maxLength": MAX_ENDPOINT, "pattern": format!("^{HOST}:{PORT}$")}),
    )
}

/// Hosts and ports, machine-written.
pub(crate) fn plain_endpoints<const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    list(
        &json!({"type": "string", "minLength": 1, "maxLength": MAX_ENDPOINT, "pattern": format!("^{HOST}:{PORT}$")}),
        MAX,
        "atomic",
    )
}

/// An IP address (IPv6 with brackets when a port follows) or DNS name, and optionally a port; machine-written.
pub(crate) fn plain_host_and_port(_: &mut SchemaGenerator) -> Schema {
    schema(json!({
        "type": "string", "minLength": 1, "maxLength": MAX_ENDPOINT,
        "pattern": format!("^({HOST}(:{PORT})?|[0-9a-fA-F]{{0,4}}:[0-9a-fA-F:.]*)$"),
    }))
}

/// Several of [`plain_host_and_port`].
pub(crate) fn plain_hosts_and_ports<const MAX: u32>(generator: &mut SchemaGenerator) -> Schema {
    list(&plain_host_and_port(generator).to_value(), MAX, "atomic")
}

/// A lineage: the identity of one ledger history.
pub(crate) fn lineage(_: &mut SchemaGenerator) -> Schema {
    schema(
        json!({"type": "string", "minLength": 8, "maxLength": MAX_NAME, "pattern": LABEL_PATTERN}),
    )
}

/// Text of at most `MAX` characters.
pub(crate) fn text<const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    schema(json!({"type": "string", "maxLength": MAX}))
}

/// Base64 of at most `MAX` characters.
pub(crate) fn base64<const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    schema(
        json!({"type": "string", "minLength": 4, "maxLength": MAX, "pattern": "^[A-Za-z0-9+/]+={0,2}$"}),
    )
}

/// A whole number in a range.
pub(crate) fn integer<const MIN: i64, const MAX: i64>(_: &mut SchemaGenerator) -> Schema {
    let format = if MAX > i64::from(i32::MAX) {
        "int64"
    } else {
        "int32"
    };
    schema(json!({"type": "integer", "format": format, "minimum": MIN, "maximum": MAX}))
}

/// A revision: a number that never falls.
pub(crate) fn revision(_: &mut SchemaGenerator) -> Schema {
    schema(json!({"type": "integer", "format": "int64", "minimum": 0}))
}

/// Digests of a ledger's slices.
pub(crate) fn slices(_: &mut SchemaGenerator) -> Schema {
    schema(json!({
        "type": "array", "maxItems": tieline_core::slices::MOST_SLICES, "x-kubernetes-list-type": "atomic",
        "items": {"type": "string", "minLength": 20, "maxLength": 20, "pattern": "^[0-9a-f]+$"},
    }))
}

/// How many, from 0.
pub(crate) fn count(_: &mut SchemaGenerator) -> Schema {
    schema(json!({"type": "integer", "format": "int32", "minimum": 0}))
}

/// The conditions of a status, one per type.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    schema(json!({
        "type": "array", "maxItems": 16,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "minLength": 1, "maxLength": 316, "pattern": "^[A-Za-z][A-Za-z0-9]*$",
                    "description": "What is judged, like Ready."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"],
                    "description": "Whether it holds."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0,
                    "description": "The metadata.generation that was judged."},
                "lastTransitionTime": {"type": "string", "format": "date-time",
                    "description": "When status changed last."},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "Why, as one word for programs."},
                "message": {"type": "string", "maxLength": 32768,
                    "description": "Why, and what to do about it, for people."},
            },
        },
    }))
}

/// The CRD of a kind as the API server gets it: the derived one, finished.
///
/// Adds what the derive cannot say: the schema number and the limit on the object's name. Turns doc comments into
/// paragraphs that `kubectl explain` wraps well, and drops what Rust types say beyond Kubernetes' needs (`nullable`:
/// the API server removes nulls of other fields by itself).
pub(crate) fn finished<K: CustomResourceExt>(name: NameRule) -> CustomResourceDefinition {
    let mut crd = K::crd();
    crd.metadata.annotations.get_or_insert_default().insert(
        crate::SCHEMA_ANNOTATION.to_owned(),
        crate::SCHEMA_NUMBER.to_string(),
    );
    for version in &mut crd.spec.versions {
        let Some(root) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        let Ok(Value::Object(mut map)) = serde_json::to_value(&*root) else {
            continue;
        };
        if let Some((cel, message)) = name {
            map.insert(
                "x-kubernetes-validations".to_owned(),
                json!([rule(cel, message)]),
            );
        }
        tidy(&mut map);
        if let Ok(tidied) = serde_json::from_value(Value::Object(map)) {
            *root = tidied;
        }
    }
    crd
}

/// What a kind's objects may be called: a CEL rule and its message. Kubernetes' own rule (a DNS subdomain) holds in any case.
pub(crate) type NameRule = Option<(&'static str, &'static str)>;

/// The name is used as a label value.
pub(crate) const LABEL: NameRule = Some((
    "self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')",
    "choose a name of at most 63 characters without '.': it is used as a label value",
));
/// The same, and no attachment's Secrets have the names of another one's.
pub(crate) const ATTACHMENT: NameRule = Some((
    "self.metadata.name.size() <= 63 && !self.metadata.name.contains('.') && !self.metadata.name.endsWith('-config')",
    "choose a name of at most 63 characters without '.' that does not end in '-config': it is used as a label value, and the Secret tieline-vpn-NAME-config holds the configuration of VpnAttachment NAME",
));
/// Ledgers are found by name.
pub(crate) const LEDGER: NameRule = Some((
    "self.metadata.name.matches('^(hub|cluster-[a-z0-9-]{1,63})([.][0-9a-f]{20})?$')",
    "a ledger is named hub, or cluster- and the name of a Cluster; a slice of it adds a dot and 20 hexadecimal digits",
));
/// `<cluster>.<node>`, where node names may be long.
pub(crate) const OBJECT: NameRule = Some((
    "self.metadata.name == self.spec.cluster + '.' + self.spec.node",
    "a Peer is named by its cluster and node: write CLUSTER.NODE",
));

fn tidy(node: &mut Map<String, Value>) {
    node.remove("nullable");
    node.remove("title");
    if let Some(Value::String(description)) = node.get_mut("description") {
        *description = paragraphs(description);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(Value::Object(child)) = node.get_mut(key) {
            tidy(child);
        }
    }
    if let Some(Value::Object(properties)) = node.get_mut("properties") {
        for child in properties.values_mut() {
            if let Value::Object(child) = child {
                tidy(child);
            }
        }
    }
}

/// Joins the lines of each paragraph.
fn paragraphs(text: &str) -> String {
    text.split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\n\n")
}
