//! What kubelets, agents and users would write, as values. Names are as long as a cloud's.

use base64::Engine as _;
use serde_json::{Value, json};

/// The cluster that the operator runs in.
pub(crate) const CLUSTER: &str = "shop";
/// Its link.
pub(crate) const LINK: &str = "prod";

/// Its sites. A site's ranges are handed out by sixteen nodes, and with the next sixteen the plan changes, which every agent hears of.
/// In thirds, 1,500 and 10,000 nodes leave room for twenty more.
const REGIONS: [&str; 3] = ["eu-central-1", "eu-north-1", "eu-west-1"];

/// The cluster and its link: dual-stack, with ranges for 65,536 nodes.
pub(crate) fn intents() -> [Value; 2] {
    let cluster = json!({
        "apiVersion": "tieline.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": CLUSTER},
        "spec": {"sites": {"fromNodeLabel": "topology.kubernetes.io/region"}, "pods": {"assign": true}},
    });
    let addressing = json!({
        "podPools": ["10.128.0.0/9", "fd00:10::/40"],
        "clusterPrefixLength": {"v4": 9, "v6": 44},
        "nodePrefixLength": {"v4": 25, "v6": 64},
        "meshPools": ["100.64.0.0/10", "fd00:20::/48"],
    });
    [cluster, link(LINK, CLUSTER, &addressing)]
}

/// A ClusterLink of one cluster.
pub(crate) fn link(name: &str, cluster: &str, addressing: &Value) -> Value {
    json!({
        "apiVersion": "tieline.dev/v1alpha1", "kind": "ClusterLink", "metadata": {"name": name},
        "spec": {"members": {"clusters": [cluster]}, "addressing": addressing},
    })
}

/// Name of a Node.
pub(crate) fn node_name(number: u32) -> String {
    let [_, high, middle, low] = number.to_be_bytes();
    format!(
        "ip-172-{}-{middle}-{low}.eu-central-1.compute.internal",
        16 + high
    )
}

/// Name of its Peer.
pub(crate) fn peer_name(number: u32) -> String {
    format!("{CLUSTER}.{}", node_name(number))
}

/// A Node that is Ready, as its kubelet registers it.
pub(crate) fn node(number: u32) -> Value {
    let region = REGIONS[number as usize % REGIONS.len()];
    let [v4, v6] = addresses(number);
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node_name(number), "labels": {"topology.kubernetes.io/region": region}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": v4}, {"type": "InternalIP", "address": v6}],
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        },
    })
}

/// What the node's agent says once its kernel carries a plan.
pub(crate) fn claim(number: u32, revision: u64) -> Value {
    let endpoints = addresses(number).map(|address| json!({"address": address, "scope": "Site"}));
    json!({"status": {
        "keys": [{"device": "tie0", "key": key(1, number)}, {"device": "tiei0", "key": key(2, number)}],
        "sealingKey": key(3, number), "appliedRevision": revision, "backend": "Kernel", "version": "0.1.0",
        "paths": {"up": 2, "total": 2}, "endpoints": endpoints,
    }})
}

fn addresses(number: u32) -> [String; 2] {
    let [_, high, middle, low] = number.to_be_bytes();
    [
        format!("172.{}.{middle}.{low}", 16 + high),
        format!("2001:db8::{number:x}"),
    ]
}

fn key(kind: u8, number: u32) -> String {
    let mut bytes = [kind; 32];
    bytes[..4].copy_from_slice(&(number + 1).to_le_bytes());
    base64::prelude::BASE64_STANDARD.encode(bytes)
}
