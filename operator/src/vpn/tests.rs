#![allow(clippy::unwrap_used)]
use super::*;
use crypto_box::SecretKey;
use crypto_box::aead::OsRng;
use serde_json::json;
use std::sync::Arc;
use tieline_core::fleet::Granularity;
use tieline_core::host::DEFAULT_PORT;
use tieline_core::ids::Lineage;
use tieline_core::network_plan::{Allow, Gateway, PlanCluster, PlanSite, Segment};
use tieline_core::peer::{AcceptedPeer, Endpoint};

const FOREIGN: &str = "dGllbGluZS1leGFtcGxlLWhxLXB1YmxpYy1rZXktMDE=";

fn index(psk: bool) -> Index {
    let mut index = Index::default();
    let vpn: VpnAttachment = serde_json::from_value(json!({
        "metadata": {"name": "hq"},
        "spec": {"site": "paris", "prefixes": ["172.16.0.0/16"], "allow": {"clusters": ["shop"]},
                 "wireguard": {"peerPublicKey": FOREIGN, "presharedKeySecret": {"name": "psk"}}},
    }))
    .unwrap();
    index.apply(vpn);
    if psk {
        let psk = secret(
            "psk",
            "hq",
            BTreeMap::from([(
                PRESHARED_KEY,
                format!("{}\n", BASE64_STANDARD.encode([7; 32])),
            )]),
        );
        index.apply(psk);
    }
    index
}

fn plan() -> NetworkPlan {
    let gateway = |rank, name: &str| Gateway {
        rank,
        peer: name.parse().unwrap(),
    };
    NetworkPlan {
        link: "acme".parse().unwrap(),
        lineage: Lineage::new("lineage1").unwrap(),
        revision: 1,
        super_nets: PrefixSet::new(),
        clusters: vec![PlanCluster {
            name: "shop".parse().unwrap(),
            pod_cidrs: ["10.64.0.0/16".parse().unwrap()].into_iter().collect(),
            service_cidrs: ["10.96.0.0/16".parse().unwrap()].into_iter().collect(),
        }],
        sites: vec![PlanSite {
            name: "paris".parse().unwrap(),
            cidrs: PrefixSet::new(),
            behind_nat: false,
            public_addresses: Vec::new(),
        }],
        segments: vec![Segment {
            name: "shop.paris".parse().unwrap(),
            site: "paris".parse().unwrap(),
            cluster: Some("shop".parse().unwrap()),
            prefixes: Vec::new(),
            gateways: vec![gateway(0, "shop.p1"), gateway(1, "shop.p2")],
        }],
        vpns: vec![PlanVpn {
            name: "hq".parse().unwrap(),
            site: "paris".parse().unwrap(),
            segment: "shop.paris".parse().unwrap(),
            index: 2,
            prefixes: ["172.16.0.0/16".parse().unwrap()].into_iter().collect(),
            allow: Allow {
                clusters: ["shop".parse().unwrap()].into(),
                sites: BTreeSet::new(),
            },
            peer_public_key: FOREIGN.parse().unwrap(),
            endpoint: None,
            preshared_key: true,
        }],
        bypass: PrefixSet::new(),
        transit: None,
        granularity: Granularity::Site,
    }
}

fn peers() -> AcceptedPeers {
    ["p1", "p2", "p3"]
        .into_iter()
        .zip(1_u8..)
        .map(|(node, last)| {
            let peer = AcceptedPeer {
                node: node.parse().unwrap(),
                cluster: "shop".parse().unwrap(),
                site: "paris".parse().unwrap(),
                segment: "shop.paris".parse().unwrap(),
                pod_cidrs: Vec::new(),
                mesh_addresses: Vec::new(),
                gateway_rank: None,
                keys: BTreeMap::new(),
                endpoints: vec![Endpoint::parse(&format!("192.0.2.{last}"), Scope::Site).unwrap()],
                sealed: Vec::new(),
                plan_revision: 1,
            };
            (format!("shop.{node}").parse().unwrap(), Arc::new(peer))
        })
        .collect()
}

fn claims(seed: u8) -> (SecretKey, BTreeMap<PeerName, Claim>) {
    let key = SecretKey::from([seed; 32]);
    let claim = Claim {
        sealing_key: Some(PublicKey::from_bytes(*key.public_key().as_bytes()).unwrap()),
        ..Claim::default()
    };
    (
        key,
        BTreeMap::from([
            ("shop.p1".parse().unwrap(), claim.clone()),
            ("shop.p3".parse().unwrap(), claim),
        ]),
    )
}

fn plans() -> BTreeMap<LinkName, NetworkPlan> {
    BTreeMap::from([("acme".parse().unwrap(), plan())])
}

#[test]
fn a_key_is_made_once_and_then_read() {
    let mut index = index(true);
    let (first, new) = attachments(&index, &plans(), &peers(), DEFAULT_PORT, &mut OsRng);
    assert_eq!(new.len(), 1);
    assert_eq!(new[0].metadata.name.as_deref(), Some("tieline-vpn-hq"));
    index.apply(new[0].clone());
    let (second, new) = attachments(&index, &plans(), &peers(), DEFAULT_PORT, &mut OsRng);
    assert!(new.is_empty());
    assert_eq!(first, second);
    assert!(first.values().next().unwrap().public_key.is_some());
}

#[test]
fn only_gateways_with_a_sealing_key_get_a_box_and_only_they_open_it() {
    let index = index(true);
    let (attachments, _) = attachments(&index, &plans(), &peers(), DEFAULT_PORT, &mut OsRng);
    let (key, claims) = claims(5);
    let mut peers = peers();
    seal_all(&attachments, &mut peers, &claims);
    let boxes = |peers: &AcceptedPeers, name: &str| {
        peers[&name.parse::<PeerName>().unwrap()].sealed.clone()
    };
    assert!(
        boxes(&peers, "shop.p2").is_empty(),
        "it has published no key"
    );
    assert!(boxes(&peers, "shop.p3").is_empty(), "it is no gateway");
    let sealed = &boxes(&peers, "shop.p1")[0];
    let ciphertext = BASE64_STANDARD.decode(&sealed.ciphertext).unwrap();
    let opened = AttachmentSecret::from_json(&key.unseal(&ciphertext).unwrap()).unwrap();
    assert_eq!(opened.preshared_key, Some(BASE64_STANDARD.encode([7; 32])));
    assert!(SecretKey::from([6; 32]).unseal(&ciphertext).is_err());
}

#[test]
fn a_box_is_made_anew_only_for_another_secret_or_another_recipient() {
    let mut index = index(true);
    let (_, new) = attachments(&index, &plans(), &peers(), DEFAULT_PORT, &mut OsRng);
    index.apply(new[0].clone());
    let mut peers = peers();
    let name: PeerName = "shop.p1".parse().unwrap();
    let mut step = |index: &Index, seed: Option<u8>| {
        let (attachments, _) = attachments(index, &plans(), &peers, DEFAULT_PORT, &mut OsRng);
        let claims = seed.map(|seed| claims(seed).1).unwrap_or_default();
        seal_all(&attachments, &mut peers, &claims);
        peers[&name].sealed.clone()
    };
    let first = step(&index, Some(5));
    assert_eq!(step(&index, Some(5)), first);
    assert_eq!(
        step(&index, None),
        first,
        "an agent that is silent for a while loses nothing"
    );
    let moved = step(&index, Some(6));
    assert_ne!(moved, first);
    let psk = secret(
        "psk",
        "hq",
        BTreeMap::from([(PRESHARED_KEY, BASE64_STANDARD.encode([8; 32]))]),
    );
    index.apply(psk);
    let changed = step(&index, Some(6));
    assert_ne!(changed[0].version, moved[0].version);
    index.secrets = crate::index::Table::default();
    assert_eq!(
        step(&index, Some(6)),
        changed,
        "a lost Secret takes nothing from the gateways"
    );
}

#[test]
fn what_is_missing_is_said_with_what_to_write() {
    let (found, new) = attachments(&index(false), &plans(), &peers(), DEFAULT_PORT, &mut OsRng);
    let (reason, message) = found.values().next().unwrap().waits.clone().unwrap();
    assert_eq!(reason, Reason::PresharedKeyMissing);
    assert!(
        message.contains("wg genpsk") && message.contains("psk"),
        "{message}"
    );
    assert!(new.is_empty(), "no key before the attachment can work");

    let mut index = index(true);
    index.apply(secret(
        "tieline-vpn-hq",
        "hq",
        BTreeMap::from([(PRIVATE_KEY, "garbage".to_owned())]),
    ));
    let (found, new) = attachments(&index, &plans(), &peers(), DEFAULT_PORT, &mut OsRng);
    assert_eq!(
        found.values().next().unwrap().waits.as_ref().unwrap().0,
        Reason::KeyUnreadable
    );
    assert!(new.is_empty(), "a key that exists is never overwritten");
}

#[test]
fn the_other_side_gets_a_configuration_that_names_what_it_may_reach() {
    let mut index = index(true);
    let (attachments, _) = attachments(&index, &plans(), &peers(), DEFAULT_PORT, &mut OsRng);
    let written = configurations(&index, &plans(), &attachments);
    let config = text(&written[0], CONFIG).unwrap();
    for line in [
        "PrivateKey = REPLACE-WITH-YOUR-PRIVATE-KEY",
        "ListenPort = 51820",
        &format!("PresharedKey = {}", BASE64_STANDARD.encode([7; 32])),
        "AllowedIPs = 10.64.0.0/16, 10.96.0.0/16",
        "Endpoint = 192.0.2.1:21886",
        "# Endpoint = 192.0.2.2:21886",
        "PersistentKeepalive = 25",
    ] {
        assert!(
            config.lines().any(|it| it == line),
            "no line {line:?} in\n{config}"
        );
    }
    index.apply(written[0].clone());
    assert!(configurations(&index, &plans(), &attachments).is_empty());

    assert!(obsolete(&index).is_empty());
    let object = VpnAttachment::clone(index.vpns.get("hq").unwrap());
    index.delete(&object);
    let gone = obsolete(&index);
    assert_eq!(
        gone.len(),
        1,
        "the configuration goes with its attachment, a Secret of others never"
    );
    assert_eq!(
        gone[0].metadata.name.as_deref(),
        Some("tieline-vpn-hq-config")
    );
}

#[test]
fn endpoints_have_the_port_that_agents_are_told() {
    let default = attachments(&index(true), &plans(), &peers(), DEFAULT_PORT, &mut OsRng).0;
    let moved = attachments(&index(true), &plans(), &peers(), 31_000, &mut OsRng).0;
    let ports = |found: BTreeMap<VpnName, Attachment>| -> Vec<u16> {
        let endpoints = found.into_values().flat_map(|it| it.endpoints);
        endpoints
            .map(|it| it.rsplit_once(':').unwrap().1.parse().unwrap())
            .collect()
    };
    let (default, moved) = (ports(default), ports(moved));
    assert!(!default.is_empty());
    let expected: Vec<u16> = default
        .iter()
        .map(|port| port - DEFAULT_PORT + 31_000)
        .collect();
    assert_eq!(moved, expected);
}

fn seal_all(
    attachments: &BTreeMap<VpnName, Attachment>,
    peers: &mut AcceptedPeers,
    claims: &BTreeMap<PeerName, Claim>,
) {
    for (name, peer) in peers {
        seal(attachments, name, peer, claims, &mut OsRng);
    }
}
