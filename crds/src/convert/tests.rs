#![allow(clippy::unwrap_used)]

use super::*;
use crate::{AddressLedger, Cluster, ClusterLink, NetworkPlan, Peer, Site, VpnAttachment};
use k8s_openapi::api::core::v1::Node;
use serde::de::DeserializeOwned;
use tieline_core::cidr::{Prefix, PrefixSet};
use tieline_core::fleet::{self, PerFamily, SiteSource};
use tieline_core::host::DeviceName;
use tieline_core::ids::{ClusterName, Lineage, LinkName, SiteName};
use tieline_core::keys::PublicKey;
use tieline_core::ledger::{Grant, Ledger, LedgerName, Owner, State, Use};
use tieline_core::network_plan as core_plan;
use tieline_core::peer::{AcceptedPeer, Claim, Endpoint, Scope, SealedSecret};

const KEY: &str = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";

#[test]
fn the_smallest_link_gets_the_documented_defaults() {
    let (name, link) = link(&from_yaml(
        "metadata: {name: acme}\nspec: {members: {clusters: [shop]}}",
    ))
    .unwrap();
    assert_eq!(name.as_str(), "acme");
    assert_eq!(link.clusters, [ClusterName::new("shop").unwrap()].into());
    assert_eq!(
        link.addressing.cluster_prefix_len,
        PerFamily { v4: 16, v6: 56 }
    );
    assert_eq!(
        link.addressing.node_prefix_len,
        PerFamily { v4: 24, v6: 64 }
    );
    assert_eq!(
        (link.topology.gateways_per_site, link.mode),
        (1, fleet::Mode::Apply)
    );
}

#[test]
fn every_field_of_a_link_arrives() {
    let object = from_yaml::<ClusterLink>(
        "metadata: {name: acme}
spec:
  addressing:
    podPools: ['fd00:64::/40', 10.64.0.0/10]
    clusterPrefixLength: {v4: 18}
    nodePrefixLength: {v6: 72}
    meshPools: [100.100.0.0/16]
    reserved: [10.99.0.0/16]
  topology: {granularity: Node, gatewaysPerSite: 2, transitSite: hub}
  members: {clusters: [b, a], sites: [dc], vpnAttachments: [hq]}
  mode: Plan",
    );
    let (_, link) = link(&object).unwrap();
    assert_eq!(
        link.addressing.pod_pools,
        [prefix("fd00:64::/40"), prefix("10.64.0.0/10")]
    );
    assert_eq!(
        link.addressing.cluster_prefix_len,
        PerFamily { v4: 18, v6: 56 }
    );
    assert_eq!(
        link.addressing.node_prefix_len,
        PerFamily { v4: 24, v6: 72 }
    );
    assert_eq!(link.addressing.mesh_pools, [prefix("100.100.0.0/16")]);
    assert!(link.addressing.reserved.contains(prefix("10.99.0.0/16")));
    assert_eq!(link.topology.granularity, fleet::Granularity::Node);
    assert_eq!(link.topology.gateways_per_site, 2);
    assert_eq!(link.topology.transit_site.unwrap().as_str(), "hub");
    assert_eq!(
        (link.clusters.len(), link.sites.len(), link.vpns.len()),
        (2, 1, 1)
    );
    assert_eq!(link.mode, fleet::Mode::Plan);
}

#[test]
fn an_error_names_object_field_and_remedy() {
    let object = from_yaml::<Cluster>(
        "metadata: {name: shop}\nspec: {sites: {name: eu}, pods: {cidrs: [10.0.0.0/16, 10.8.0.1/14]}}",
    );
    let error = cluster(&object).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Cluster shop: spec.pods.cidrs[1]: \"10.8.0.1/14\" has host bits set: write 10.8.0.0/14"
    );
}

#[test]
fn a_link_that_cannot_hold_a_nodes_range_in_a_clusters_block_is_refused() {
    let object = from_yaml::<ClusterLink>(
        "metadata: {name: acme}\nspec: {members: {clusters: [a]}, addressing: {clusterPrefixLength: {v4: 26}}}",
    );
    let error = link(&object).unwrap_err();
    assert_eq!(error.field, "spec.addressing.nodePrefixLength");
    assert!(error.message.contains("write 26 or more"), "{error}");
}

#[test]
fn a_cluster_tells_its_sites_in_exactly_one_way() {
    let sites = |yaml: &str| {
        cluster(&from_yaml(&format!(
            "metadata: {{name: shop}}\nspec: {{sites: {yaml}}}"
        )))
        .map(|(_, it)| it.sites)
    };
    assert_eq!(
        sites("{name: eu}").unwrap(),
        SiteSource::Name(SiteName::new("eu").unwrap())
    );
    assert_eq!(
        sites("{fromNodeLabel: zone}").unwrap(),
        SiteSource::FromNodeLabel("zone".to_owned())
    );
    let SiteSource::BySelector(rules) =
        sites("{bySelector: [{site: eu, nodeSelector: {a: b}}, {site: us, nodeSelector: {c: d}}]}")
            .unwrap()
    else {
        panic!("expected rules");
    };
    assert_eq!(
        rules
            .iter()
            .map(|rule| rule.site.as_str())
            .collect::<Vec<_>>(),
        ["eu", "us"],
        "the order is the meaning"
    );
    for bad in ["{}", "{name: eu, fromNodeLabel: zone}", "{bySelector: []}"] {
        assert!(
            sites(bad).unwrap_err().message.contains("exactly one of"),
            "{bad}"
        );
    }
}

#[test]
fn a_site_arrives_with_its_public_addresses() {
    let object = from_yaml::<Site>(
        "metadata: {name: dc}\nspec: {cidrs: [192.168.40.0/22], underlay: {behindNat: true, publicAddresses: [198.51.100.7, vpn.acme.example]}}",
    );
    let (name, site) = site(&object).unwrap();
    assert_eq!(name.as_str(), "dc");
    assert!(site.behind_nat);
    assert_eq!(
        texts(&site.public_addresses),
        ["198.51.100.7", "vpn.acme.example"]
    );
    assert!(
        site.public_addresses
            .iter()
            .all(|it| it.scope == Scope::Public && it.port.is_none())
    );
}

#[test]
fn an_attachment_is_not_named_like_the_configuration_of_another() {
    let named = |name: &str| {
        vpn(&from_yaml::<VpnAttachment>(&format!(
            "metadata: {{name: {name}}}\nspec: {{site: dc, prefixes: [172.16.0.0/16], wireguard: {{peerPublicKey: {KEY}}}}}"
        )))
    };
    assert!(named("hq").is_ok() && named("config").is_ok());
    let error = named("hq-config").unwrap_err();
    assert_eq!(error.field, "metadata.name");
    assert!(error.message.contains("VpnAttachment hq"), "{error}");
}

#[test]
fn a_vpn_arrives_and_its_endpoint_needs_a_port() {
    let yaml = |endpoint: &str, key: &str| {
        from_yaml::<VpnAttachment>(&format!(
            "metadata: {{name: hq}}
spec:
  site: dc
  prefixes: [172.16.0.0/16]
  allow: {{clusters: [shop], sites: [dc]}}
  wireguard: {{peerPublicKey: '{key}', endpoint: '{endpoint}', presharedKeySecret: {{name: psk}}}}"
        ))
    };
    let (_, found) = vpn(&yaml("vpn.acme.example:51820", KEY)).unwrap();
    assert_eq!(found.endpoint.unwrap().port, Some(51820));
    assert!(found.preshared_key);
    assert_eq!(
        (found.allow_clusters.len(), found.allow_sites.len()),
        (1, 1)
    );

    let error = vpn(&yaml("vpn.acme.example", KEY)).unwrap_err();
    assert_eq!(
        (error.field.as_str(), error.message.contains(":51820")),
        ("spec.wireguard.endpoint", true)
    );
    let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let error = vpn(&yaml("vpn.acme.example:51820", zero)).unwrap_err();
    assert_eq!(error.field, "spec.wireguard.peerPublicKey");
}

#[test]
fn a_kubernetes_node_arrives_with_labels_ranges_addresses_and_readiness() {
    let object = from_yaml::<Node>(
        "metadata: {name: eu-1.local, labels: {zone: eu}}
spec: {podCIDR: 10.64.0.0/24, podCIDRs: [10.64.0.0/24, 'fd00:64::/64']}
status:
  addresses:
  - {type: InternalIP, address: 192.168.40.2}
  - {type: ExternalIP, address: '2001:db8::2'}
  - {type: Hostname, address: eu-1}
  conditions: [{type: Ready, status: 'True'}]",
    );
    let (id, found) = node(&ClusterName::new("shop").unwrap(), &object).unwrap();
    assert_eq!(id.to_string(), "shop/eu-1.local");
    assert_eq!(
        found.pod_cidrs,
        [prefix("10.64.0.0/24"), prefix("fd00:64::/64")]
    );
    assert_eq!(
        found.addresses,
        [
            ("192.168.40.2".parse().unwrap(), Scope::Site),
            ("2001:db8::2".parse().unwrap(), Scope::Public)
        ]
    );
    assert!(found.ready);
    assert_eq!(found.labels["zone"], "eu");

    let bare = from_yaml::<Node>("metadata: {name: new}");
    assert_eq!(
        node(&ClusterName::new("shop").unwrap(), &bare).unwrap().1,
        fleet::Node::default()
    );
}

#[test]
fn a_ledger_survives_the_round_trip_through_json() {
    let ledger_before = Ledger {
        lineage: Lineage::new("abcdef0123456789").unwrap(),
        revision: 7,
        parents: ["10.64.0.0/16", "fd00:64::/56"]
            .map(prefix)
            .into_iter()
            .collect(),
        grants: vec![
            grant(
                "10.64.0.0/20",
                Use::Pod,
                Owner::Site(SiteName::new("eu").unwrap()),
                State::Active,
            ),
            grant(
                "10.64.0.0/24",
                Use::Pod,
                Owner::Node("eu-1.local".parse().unwrap()),
                State::Imported,
            ),
            grant(
                "100.127.0.1/32",
                Use::Mesh,
                Owner::Node("eu-1.local".parse().unwrap()),
                State::Released,
            ),
        ],
    };
    let name_before = LedgerName::Cluster(ClusterName::new("shop").unwrap());
    let object: AddressLedger = through_json(&ledger_object(&name_before, &ledger_before));
    assert_eq!(object.metadata.name.as_deref(), Some("cluster-shop"));
    let objects = [("cluster-shop", &object)].into();
    let read = LedgerReader::default().read(&objects);
    assert_eq!(read.ledgers, [(name_before, ledger_before.into())].into());
}

#[test]
fn a_ledger_of_another_name_is_refused() {
    let mut object = ledger_object(
        &LedgerName::Hub,
        &Ledger::empty(Lineage::new("abcdef0123456789").unwrap()),
    );
    object.metadata.name = Some("mine".to_owned());
    assert!(ledger_head(&object).unwrap_err().message.contains("hub"));
}

#[test]
fn a_plan_survives_the_round_trip_through_json() {
    let before = plan(2);
    let object: NetworkPlan = through_json(&NetworkPlan::new("acme", plan_spec(&before).unwrap()));
    assert_eq!(network_plan(&object).unwrap(), before);
}

#[test]
fn a_plan_that_lists_in_another_order_is_read_in_order_of_names() {
    let before = plan(3);
    let mut object = NetworkPlan::new("acme", plan_spec(&before).unwrap());
    object.spec.segments.reverse();
    object.spec.sites.reverse();
    object.spec.clusters.reverse();
    assert_eq!(network_plan(&object).unwrap(), before);
}

#[test]
fn a_plan_of_900_kib_or_less_is_written_and_a_larger_one_refused_with_its_size() {
    let too_large = plan_spec(&plan(20_000)).unwrap_err();
    assert!(too_large.bytes > crate::network_plan::MAX_PLAN_BYTES);
    assert!(
        too_large.to_string().contains("ClusterLink acme"),
        "{too_large}"
    );
    assert!(plan_spec(&plan(2_000)).is_ok());
}

#[test]
fn an_error_deep_in_a_plan_names_its_path() {
    let mut object = NetworkPlan::new("acme", plan_spec(&plan(2)).unwrap());
    object.spec.segments[1].gateways[0].rank = 4;
    let error = network_plan(&object).unwrap_err();
    assert_eq!(error.field, "spec.segments[1].gateways[0].rank");
}

#[test]
fn an_accepted_peer_survives_the_round_trip_through_json() {
    let before = AcceptedPeer {
        node: "eu-1.local".parse().unwrap(),
        cluster: "shop".parse().unwrap(),
        site: "eu".parse().unwrap(),
        segment: "shop.eu".parse().unwrap(),
        pod_cidrs: vec![prefix("10.64.1.0/24"), prefix("fd00:64:0:1::/64")],
        mesh_addresses: vec![
            "100.127.0.1".parse().unwrap(),
            "fd00:127::1".parse().unwrap(),
        ],
        gateway_rank: Some(1),
        keys: [
            (DeviceName::outer(1), key(3)),
            (DeviceName::inner(0), key(4)),
        ]
        .into(),
        endpoints: vec![
            Endpoint::parse("192.168.40.2", Scope::Site).unwrap(),
            Endpoint::parse("[2001:db8::7]:21820", Scope::Public).unwrap(),
            Endpoint::parse("2001:db8::8", Scope::Public).unwrap(),
            Endpoint::parse("gw.acme.example:4000", Scope::Public).unwrap(),
        ],
        sealed: vec![SealedSecret {
            vpn: "hq".parse().unwrap(),
            version: "12".to_owned(),
            recipient: key(5),
            ciphertext: "c2VhbGVk".to_owned(),
        }],
        plan_revision: 9,
    };
    let object: Peer = through_json(&Peer::new("shop.eu-1.local", peer_spec(&before)));
    let (name, after) = accepted_peer(&object).unwrap();
    assert_eq!((name.as_str(), &*after), ("shop.eu-1.local", &before));
}

#[test]
fn a_peer_under_another_name_is_refused() {
    let spec = crate::PeerSpec {
        node: "eu-1".to_owned(),
        cluster: "shop".to_owned(),
        site: "eu".to_owned(),
        segment: "shop.eu".to_owned(),
        ..crate::PeerSpec::default()
    };
    let error = accepted_peer(&Peer::new("shop.eu-2", spec)).unwrap_err();
    assert!(error.message.contains("shop.eu-1"), "{error}");
}

#[test]
fn a_claim_survives_the_round_trip_and_no_status_claims_nothing() {
    let before = Claim {
        keys: [(DeviceName::inner(0), key(3))].into(),
        sealing_key: Some(key(6)),
        endpoints: vec![Endpoint::parse("10.0.0.2", Scope::Site).unwrap()],
        applied_revision: 4,
    };
    let mut object = Peer::new("shop.eu-1", crate::PeerSpec::default());
    assert_eq!(claim(&object).unwrap().1, Claim::default());
    object.status = Some(peer_status(&before));
    assert_eq!(claim(&through_json(&object)).unwrap().1, before);
}

#[test]
fn a_claim_with_a_low_order_key_or_a_device_twice_is_refused() {
    let mut object = Peer::new("shop.eu-1", crate::PeerSpec::default());
    let claim_keys = |object: &mut Peer, keys: &[(&str, &str)]| {
        let keys = keys.iter().map(|(device, key)| crate::peer::DeviceKey {
            device: (*device).to_owned(),
            key: (*key).to_owned(),
        });
        object.status = Some(crate::PeerStatus {
            keys: keys.collect(),
            ..crate::PeerStatus::default()
        });
        claim(object)
    };
    let error = claim_keys(
        &mut object,
        &[("tie0", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")],
    )
    .unwrap_err();
    assert_eq!(error.field, "status.keys[0].key");
    let error = claim_keys(&mut object, &[("tie0", KEY), ("tie0", KEY)]).unwrap_err();
    assert_eq!(error.field, "status.keys[1].device");
    assert!(claim_keys(&mut object, &[("tie0", KEY), ("tiei0", KEY)]).is_ok());
}

fn from_yaml<T: DeserializeOwned>(fields: &str) -> T {
    // Kubernetes' own types check these two; derived ones do not, and the reader of a file does.
    serde_norway::from_str(&format!("apiVersion: v1\nkind: Node\n{fields}\n")).unwrap()
}

fn through_json<T: DeserializeOwned + serde::Serialize>(object: &T) -> T {
    serde_json::from_value(serde_json::to_value(object).unwrap()).unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn key(byte: u8) -> PublicKey {
    PublicKey::from_bytes([byte; 32]).unwrap()
}

fn grant(text: &str, used_for: Use, owner: Owner, state: State) -> Grant {
    Grant {
        prefix: prefix(text),
        used_for,
        owner,
        state,
    }
}

/// A plan with so many segments.
fn plan(segments: u32) -> core_plan::NetworkPlan {
    let segment = |number: u32| core_plan::Segment {
        name: format!("shop.s{number}").parse().unwrap(),
        site: format!("s{number}").parse().unwrap(),
        cluster: Some("shop".parse().unwrap()),
        prefixes: vec![core_plan::ClassPrefix {
            prefix: prefix("10.64.0.0/20"),
            class: core_plan::Class::Pod,
        }],
        gateways: vec![core_plan::Gateway {
            rank: 2,
            peer: format!("shop.n{number}").parse().unwrap(),
        }],
    };
    core_plan::NetworkPlan {
        link: LinkName::new("acme").unwrap(),
        lineage: Lineage::new("abcdef0123456789").unwrap(),
        revision: 3,
        super_nets: ["10.64.0.0/10", "172.16.0.0/16"]
            .map(prefix)
            .into_iter()
            .collect(),
        clusters: vec![core_plan::PlanCluster {
            name: "shop".parse().unwrap(),
            pod_cidrs: PrefixSet::from(vec![prefix("10.64.0.0/16")]),
            service_cidrs: PrefixSet::from(vec![prefix("10.96.0.0/16")]),
        }],
        sites: vec![core_plan::PlanSite {
            name: "s0".parse().unwrap(),
            cidrs: PrefixSet::from(vec![prefix("192.168.40.0/22")]),
            behind_nat: true,
            public_addresses: vec![Endpoint::parse("gw.acme.example", Scope::Public).unwrap()],
        }],
        segments: (0..segments).map(segment).collect(),
        vpns: vec![core_plan::PlanVpn {
            name: "hq".parse().unwrap(),
            site: "s0".parse().unwrap(),
            segment: "shop.s0".parse().unwrap(),
            index: 1,
            prefixes: PrefixSet::from(vec![prefix("172.16.0.0/16")]),
            allow: core_plan::Allow {
                clusters: ["shop".parse().unwrap()].into(),
                sites: ["s0".parse().unwrap()].into(),
            },
            peer_public_key: KEY.parse().unwrap(),
            endpoint: Some(Endpoint::parse("198.51.100.7:51820", Scope::Public).unwrap()),
            preshared_key: true,
        }],
        bypass: PrefixSet::from(vec![prefix("192.168.40.2/32")]),
        transit: Some("s0".parse().unwrap()),
        granularity: fleet::Granularity::Site,
    }
}
