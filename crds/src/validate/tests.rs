#![allow(clippy::unwrap_used)]

use super::*;

const GOOD: &str = "
kind: Cluster
metadata: {name: shop-us}
spec:
  sites: {bySelector: [{site: gcp-us, nodeSelector: {a.example/b: c}}]}
  pods: {cidrs: [10.8.0.0/14, 'fd00:8::/48'], assign: false}
  serviceCidrs: [172.20.0.0/16]
  gateways: {nodeSelector: {x: y}}
---
kind: Site
metadata: {name: dc-berlin}
spec: {cidrs: [192.168.40.0/22], underlay: {behindNat: true, publicAddresses: [198.51.100.7, vpn.acme.example, '2001:db8::7']}}
---
kind: VpnAttachment
metadata: {name: hq}
spec:
  site: dc-berlin
  prefixes: [172.16.0.0/16]
  allow: {clusters: [shop], sites: [dc-berlin]}
  wireguard:
    peerPublicKey: CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=
    endpoint: '[2001:db8::9]:51820'
    presharedKeySecret: {name: hq-psk}
---
kind: ClusterLink
metadata: {name: acme}
spec:
  addressing: {podPools: [10.64.0.0/10, 'fd00:64::/40'], reserved: [10.99.0.0/16], nodePrefixLength: {v4: 25}}
  members: {clusters: [shop], sites: [dc-berlin], vpnAttachments: [hq]}
  topology: {granularity: Site, gatewaysPerSite: 2, transitSite: dc-berlin}
  mode: Apply
---
kind: AddressLedger
metadata: {name: cluster-shop}
spec:
  lineage: abcdef0123456789
  revision: 3
  parents: [10.64.0.0/16]
  grants: [{prefix: 10.64.0.0/20, use: Pod, owner: {kind: Site, name: eu}, state: Active}]
---
kind: Peer
metadata: {name: shop.eu-1.local, namespace: tieline-system}
spec:
  {cluster: shop, node: eu-1.local, site: eu, segment: shop.eu, planRevision: 2, meshAddresses: [100.127.0.1, 'fd00::1'],
  acceptedEndpoints: [{address: '[2001:db8::7]:21820', scope: Public}, {address: 'fd00::7', scope: Site}, {address: 10.0.0.7, scope: Site}]}
";

#[test]
fn every_schema_is_understood_to_the_last_keyword_and_every_rule_compiles() {
    for crd in crate::all() {
        let schema = crd.spec.versions[0]
            .schema
            .as_ref()
            .unwrap()
            .open_api_v3_schema
            .as_ref()
            .unwrap();
        let schema = serde_json::to_value(schema).unwrap();
        Structure::read(&schema).unwrap_or_else(|error| panic!("{}: {error}", crd.spec.names.kind));
    }
    KINDS.with(|kinds| {
        assert_eq!(kinds.len(), 7);
        for (name, kind) in kinds {
            assert!(
                kind.rules.compilation_errors().is_empty(),
                "{name}: {:?}",
                kind.rules.compilation_errors()
            );
        }
    });
}

#[test]
fn good_objects_are_accepted() {
    for document in GOOD.split("---") {
        let object = object(document);
        assert_eq!(validate(&object), [], "{object}");
    }
}

#[test]
fn a_cel_rule_says_what_to_write() {
    refused(
        "kind: Cluster\nmetadata: {name: a}\nspec: {sites: {name: eu, fromNodeLabel: zone}}",
        "spec.sites",
        "exactly one of",
    );
    refused(
        "kind: Cluster\nmetadata: {name: a}\nspec: {sites: {name: eu}, pods: {cidrs: [10.8.0.1/14]}}",
        "spec.pods.cidrs[0]",
        "canonical form",
    );
    refused(
        "kind: Site\nmetadata: {name: a}\nspec: {cidrs: ['FD00::/8']}",
        "spec.cidrs[0]",
        "lower case",
    );
    refused(
        "kind: Site\nmetadata: {name: a}\nspec: {cidrs: [10.0.0.0/33]}",
        "spec.cidrs[0]",
        "write an address",
    );
    refused(
        "kind: Site\nmetadata: {name: a}\nspec: {cidrs: [10.0.0.0/8, 10.1.0.0/16]}",
        "spec.cidrs",
        "overlap",
    );
    refused(
        "kind: Site\nmetadata: {name: a}\nspec: {underlay: {publicAddresses: ['1.2.3.4:5']}}",
        "spec.underlay.publicAddresses[0]",
        "without a port",
    );
    refused(
        "kind: ClusterLink\nmetadata: {name: a}\nspec: {members: {}}",
        "spec.members",
        "at least one member",
    );
    refused(
        "kind: ClusterLink\nmetadata: {name: a}\nspec: {members: {clusters: [b]}, addressing: {nodePrefixLength: {v4: 12}}}",
        "spec.addressing",
        "raise nodePrefixLength.v4",
    );
    refused(
        "kind: ClusterLink\nmetadata: {name: a}\nspec: {members: {clusters: [B_]}}",
        "spec.members.clusters[0]",
        "lower-case",
    );
    refused(
        "kind: VpnAttachment\nmetadata: {name: hq-config}\nspec: {site: dc, prefixes: [10.0.0.0/8], wireguard: {peerPublicKey: CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=}}",
        "",
        "does not end in '-config'",
    );
    let vpn = |wireguard: &str| {
        format!(
            "kind: VpnAttachment\nmetadata: {{name: a}}\nspec: {{site: dc, prefixes: [10.0.0.0/8]{wireguard}}}"
        )
    };
    refused(&vpn(""), "spec", "exactly one of: wireguard");
    refused(
        &vpn(", wireguard: {peerPublicKey: short}"),
        "spec.wireguard.peerPublicKey",
        "44 characters",
    );
    let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    refused(
        &vpn(&format!(", wireguard: {{peerPublicKey: {zero}}}")),
        "spec.wireguard.peerPublicKey",
        "all-zero",
    );
    let key = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
    for endpoint in [
        "vpn.acme.example",
        "vpn.acme.example:0",
        "vpn.acme.example:65536",
        "2001:db8::9:51820",
        "a b:1",
    ] {
        refused(
            &vpn(&format!(
                ", wireguard: {{peerPublicKey: {key}, endpoint: '{endpoint}'}}"
            )),
            "spec.wireguard.endpoint",
            "host:port",
        );
    }
}

#[test]
fn names_are_bounded_by_kind() {
    let site = |name: &str| format!("kind: Site\nmetadata: {{name: {name}}}\nspec: {{}}");
    refused(&site(&"x".repeat(64)), "", "63 characters");
    refused(&site("a.b"), "", "without '.'");
    refused(&site("Upper"), "metadata.name", "lower-case");
    refused("kind: Site\nspec: {}", "metadata.name", "is no name");
    refused(
        "kind: AddressLedger\nmetadata: {name: mine}\nspec: {lineage: abcdefgh, revision: 0}",
        "",
        "hub",
    );
    let peer = "kind: Peer\nmetadata: {name: shop.other}\nspec: {cluster: shop, node: eu-1, site: eu, segment: shop.eu, planRevision: 2}";
    refused(peer, "", "CLUSTER.NODE");
}

#[test]
fn structure_is_checked_with_paths() {
    refused(
        "kind: Cluster\nmetadata: {name: a}\nspec: {}",
        "spec.sites",
        "required",
    );
    refused("kind: Cluster\nmetadata: {name: a}", "spec", "required");
    refused(
        "kind: Cluster\nmetadata: {name: a}\nspec: {sites: {name: 7}}",
        "spec.sites.name",
        "write a text",
    );
    refused(
        "kind: Cluster\nmetadata: {name: a}\nspec: {sites: {name: eu}, pods: {assign: maybe}}",
        "spec.pods.assign",
        "true or false",
    );
    refused(
        "kind: Cluster\nmetadata: {name: a}\nspec: {sites: {name: eu}, pods: {source: Site}}",
        "spec.pods.source",
        "there are assign, cidrs",
    );
    refused(
        "kind: Cluster\nmetadata: {name: a}\nspec: {sites: {bySelector: []}}",
        "spec.sites.bySelector",
        "at least 1",
    );
    refused(
        "kind: ClusterLink\nmetadata: {name: a}\nspec: {members: {clusters: [b]}, mode: Dream}",
        "spec.mode",
        "Apply, Plan",
    );
    refused(
        "kind: ClusterLink\nmetadata: {name: a}\nspec: {members: {clusters: [b, b]}}",
        "spec.members.clusters[1]",
        "twice",
    );
    let five = "kind: ClusterLink\nmetadata: {name: a}\nspec: {members: {clusters: [b]}, topology: {gatewaysPerSite: 5}}";
    refused(five, "spec.topology.gatewaysPerSite", "1 to 4");
    let many: Vec<String> = (0..65).map(|n| format!("10.{n}.0.0/16")).collect();
    refused(
        &format!(
            "kind: Site\nmetadata: {{name: a}}\nspec: {{cidrs: [{}]}}",
            many.join(", ")
        ),
        "spec.cidrs",
        "at most 64",
    );
    let ledger =
        "kind: AddressLedger\nmetadata: {name: hub}\nspec: {lineage: abcdefgh, revision: -1}";
    refused(ledger, "spec.revision", "0 or more");
    let grant = "kind: AddressLedger\nmetadata: {name: hub}\nspec: {lineage: abcdefgh, revision: 1, grants: [{prefix: 10, use: Pod, owner: {kind: Site, name: a}, state: Active}]}";
    refused(grant, "spec.grants[0].prefix", "write a text");
    refused(
        &grant.replace("10,", "ten,"),
        "spec.grants[0].prefix",
        "does not match",
    );
}

#[test]
fn all_violations_come_at_once_and_an_unknown_field_does_not_hide_the_rules() {
    let object = object(
        "kind: Cluster\nmetadata: {name: a}\nspec: {sites: {}, typo: 1, serviceCidrs: [10.0.0.1/8]}",
    );
    let fields: Vec<String> = validate(&object).into_iter().map(|it| it.field).collect();
    assert_eq!(fields.len(), 3, "{fields:?}");
    for field in ["spec.typo", "spec.sites", "spec.serviceCidrs[0]"] {
        assert!(fields.iter().any(|it| it == field), "{fields:?}");
    }
}

#[test]
fn nulls_count_as_absent() {
    let object = object(
        "kind: Cluster\nmetadata: {name: a}\nspec: {sites: {name: eu, fromNodeLabel: null}, pods: null}",
    );
    assert_eq!(validate(&object), []);
}

#[test]
fn changes_have_rules_of_their_own() {
    let ledger = |revision: u32| {
        object(&format!(
            "kind: AddressLedger\nmetadata: {{name: hub}}\nspec: {{lineage: abcdefgh, revision: {revision}}}"
        ))
    };
    assert_eq!(validate_update(&ledger(4), &ledger(4)), []);
    assert_eq!(validate_update(&ledger(5), &ledger(4)), []);
    let found = validate_update(&ledger(3), &ledger(4));
    assert!(
        found.len() == 1 && found[0].message.contains("never falls"),
        "{found:?}"
    );

    let vpn = |site: &str| {
        object(
            GOOD.split("---")
                .nth(2)
                .unwrap()
                .replace("site: dc-berlin", &format!("site: {site}"))
                .as_str(),
        )
    };
    assert_eq!(validate_update(&vpn("dc"), &vpn("dc")), []);
    let found = validate_update(&vpn("dc"), &vpn("other"));
    assert!(
        found.len() == 1 && found[0].field == "spec.site",
        "{found:?}"
    );

    let plan = |lineage: &str, revision: u32| {
        object(&format!(
            "kind: NetworkPlan\nmetadata: {{name: a}}\nspec: {{link: a, lineage: {lineage}, revision: {revision}, granularity: Site}}"
        ))
    };
    assert_eq!(
        validate_update(&plan("abcdefgh", 2), &plan("abcdefgh", 1)),
        []
    );
    assert_eq!(
        validate_update(&plan("abcdefgh", 1), &plan("otherone", 9)),
        []
    );
    assert!(!validate_update(&plan("abcdefgh", 1), &plan("abcdefgh", 2)).is_empty());
}

#[test]
fn foreign_objects_are_refused_with_what_is_known() {
    let found = validate(&serde_json::json!({"apiVersion": "v1", "kind": "Node"}));
    assert_eq!(found[0].field, "apiVersion");
    let found =
        validate(&serde_json::json!({"apiVersion": "tieline.dev/v1alpha1", "kind": "Klaster"}));
    assert!(found[0].message.contains("ClusterLink"), "{found:?}");
}

fn object(yaml: &str) -> Value {
    serde_norway::from_str(&format!("apiVersion: tieline.dev/v1alpha1\n{yaml}")).unwrap()
}

/// The object is refused at this field with a message that holds this text, and nowhere else.
fn refused(yaml: &str, field: &str, text: &str) {
    let found = validate(&object(yaml));
    assert!(
        found.len() == 1 && found[0].field == field && found[0].message.contains(text),
        "{yaml}\nexpected {field:?}: …{text}…\nfound {found:#?}"
    );
}
