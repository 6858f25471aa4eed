//! A small mesh for tests: cluster `shop` with sites `berlin` (nodes a, b; a is the gateway) and `paris` (node c).

#![allow(clippy::unwrap_used)]

use crate::identity::Identity;
use crate::index::{Own, Snapshot};
use crate::store::LastGood;
use base64::{Engine, prelude::BASE64_STANDARD};
use crypto_box::aead::OsRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use tieline_core::cidr::Prefix;
use tieline_core::fleet::Granularity;
use tieline_core::host::DeviceName;
use tieline_core::ids::{
    ClusterName, Lineage, LinkName, NodeName, PeerName, SegmentName, SiteName, VpnName,
};
use tieline_core::keys::PublicKey;
use tieline_core::network_plan::{
    Allow, Class, ClassPrefix, Gateway, NetworkPlan, PlanCluster, PlanSite, PlanVpn, Segment,
};
use tieline_core::peer::{AcceptedPeer, AcceptedPeers, Endpoint, Scope, SealedSecret};
use tieline_crds::sealed::AttachmentSecret;

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub(crate) fn own(node: &str) -> Own {
    Own {
        node: NodeName::new(node).unwrap(),
        cluster: Some(ClusterName::new("shop").unwrap()),
    }
}

pub(crate) fn peer_name(node: &str) -> PeerName {
    PeerName::new(format!("shop.{node}")).unwrap()
}

pub(crate) fn plan(revision: u64) -> NetworkPlan {
    let segment = |site: &str, pods: &str, mesh: &str, gateway: &str| Segment {
        name: SegmentName::new(format!("shop.{site}")).unwrap(),
        site: SiteName::new(site).unwrap(),
        cluster: Some(ClusterName::new("shop").unwrap()),
        prefixes: vec![
            ClassPrefix {
                prefix: prefix(pods),
                class: Class::Pod,
            },
            ClassPrefix {
                prefix: prefix(mesh),
                class: Class::Mesh,
            },
        ],
        gateways: vec![Gateway {
            rank: 0,
            peer: peer_name(gateway),
        }],
    };
    let site = |name: &str| PlanSite {
        name: SiteName::new(name).unwrap(),
        cidrs: Vec::new().into(),
        behind_nat: false,
        public_addresses: Vec::new(),
    };
    NetworkPlan {
        link: LinkName::new("acme").unwrap(),
        lineage: Lineage::new("aaaabbbbcccc").unwrap(),
        revision,
        super_nets: vec![prefix("10.64.0.0/10"), prefix("100.127.0.0/16")].into(),
        clusters: vec![PlanCluster {
            name: ClusterName::new("shop").unwrap(),
            pod_cidrs: vec![prefix("10.64.0.0/16")].into(),
            service_cidrs: vec![prefix("10.96.0.0/12")].into(),
        }],
        sites: vec![site("berlin"), site("paris")],
        segments: vec![
            segment("berlin", "10.64.0.0/20", "100.127.0.0/28", "a"),
            segment("paris", "10.64.16.0/20", "100.127.0.16/28", "c"),
        ],
        vpns: Vec::new(),
        bypass: Vec::new().into(),
        transit: None,
        granularity: Granularity::Site,
    }
}

/// Keys of `seed` for a peer that is somebody else.
pub(crate) fn keys(seed: u8) -> BTreeMap<DeviceName, PublicKey> {
    (0..2)
        .flat_map(|rank| {
            [
                (DeviceName::outer(rank), rank),
                (DeviceName::inner(rank), 4 + rank),
            ]
        })
        .map(|(device, n)| (device, PublicKey::from_bytes([seed + n; 32]).unwrap()))
        .collect()
}

pub(crate) fn peer(node: &str, keys: BTreeMap<DeviceName, PublicKey>) -> AcceptedPeer {
    let (site, number, rank, underlay) = match node {
        "a" => ("berlin", 0, Some(0), "192.0.2.1"),
        "b" => ("berlin", 1, None, "192.0.2.2"),
        _ => ("paris", 16, Some(0), "198.51.100.1"),
    };
    AcceptedPeer {
        node: NodeName::new(node).unwrap(),
        cluster: ClusterName::new("shop").unwrap(),
        site: SiteName::new(site).unwrap(),
        segment: SegmentName::new(format!("shop.{site}")).unwrap(),
        pod_cidrs: vec![prefix(&format!("10.64.{number}.0/24"))],
        mesh_addresses: vec![format!("100.127.0.{number}").parse().unwrap()],
        gateway_rank: rank,
        keys,
        endpoints: vec![Endpoint::parse(underlay, Scope::Public).unwrap()],
        sealed: Vec::new(),
        plan_revision: 1,
    }
}

/// Peers a, b and c; the own one with its real keys.
pub(crate) fn peers(own: &str, own_keys: &BTreeMap<DeviceName, PublicKey>) -> AcceptedPeers {
    [("a", 10), ("b", 30), ("c", 50)]
        .into_iter()
        .map(|(node, seed)| {
            let keys = if node == own {
                own_keys.clone()
            } else {
                keys(seed)
            };
            (peer_name(node), Arc::new(peer(node, keys)))
        })
        .collect()
}

/// Attachment hq of site berlin, without an endpoint.
pub(crate) fn attachment(preshared_key: bool) -> PlanVpn {
    PlanVpn {
        name: VpnName::new("hq").unwrap(),
        site: SiteName::new("berlin").unwrap(),
        segment: SegmentName::new("shop.berlin").unwrap(),
        index: 3,
        prefixes: vec![prefix("172.16.0.0/16")].into(),
        allow: Allow::default(),
        peer_public_key: PublicKey::from_bytes([77; 32]).unwrap(),
        endpoint: None,
        preshared_key,
    }
}

/// The keys of attachment hq, sealed to a node.
pub(crate) fn sealed(
    identity: &Identity,
    private: [u8; 32],
    preshared: Option<[u8; 32]>,
) -> SealedSecret {
    let secret = AttachmentSecret {
        private_key: BASE64_STANDARD.encode(private),
        preshared_key: preshared.map(|key| BASE64_STANDARD.encode(key)),
    };
    let recipient = crypto_box::PublicKey::from_bytes(*identity.sealing_public().as_bytes());
    let ciphertext = recipient
        .seal(&mut OsRng, &secret.to_json().unwrap())
        .unwrap();
    SealedSecret {
        vpn: VpnName::new("hq").unwrap(),
        version: "1".to_owned(),
        recipient: identity.sealing_public(),
        ciphertext: BASE64_STANDARD.encode(ciphertext),
    }
}

pub(crate) fn inputs(plan: NetworkPlan, local: AcceptedPeers) -> LastGood {
    LastGood {
        plan: Arc::new(plan),
        local: Arc::new(local),
        foreign: Arc::default(),
    }
}

/// What the API server says when it has answered completely.
pub(crate) fn snapshot(plan: Option<NetworkPlan>, local: AcceptedPeers) -> Snapshot {
    Snapshot {
        plans: Some(Arc::new(
            plan.into_iter()
                .map(|plan| (plan.link.to_string(), Arc::new(plan)))
                .collect(),
        )),
        local: Some(Arc::new(local)),
        foreign: Some(Arc::default()),
        ..Snapshot::default()
    }
}
