//! flannel, as pods, as a program of the host, or inside k3s.

use super::super::workload::template;
use super::known::{Cni, DOES_NOT, Known, MASQUERADES, UNSAID};
use super::traces::Traces;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use std::collections::BTreeSet;
use tieline_core::plan::listed;

pub(super) const FLANNEL: Known = Known {
    name: "flannel",
    config_maps: &[
        ("kube-flannel", "kube-flannel-cfg"),
        ("kube-system", "kube-flannel-cfg"),
    ],
    devices: &["flannel*"],
    chains: &["FLANNEL-*", "flannel-*"],
    look,
};

const BACKEND: &str = "flannel.alpha.coreos.com/backend-type";

fn look(traces: &Traces<'_>) -> Option<Cni> {
    let set = traces.set(&["kube-flannel-ds", "kube-flannel"]);
    let there = set.is_some() || traces.annotated("flannel.alpha.coreos.com/");
    if !there || is_canal(traces) {
        return None;
    }
    let k3s = traces.nodes.iter().any(is_k3s) && set.is_none();
    let mut name = if k3s { "k3s's flannel" } else { "flannel" }.to_owned();
    let backends: BTreeSet<&String> = traces
        .nodes
        .iter()
        .filter_map(|node| node.annotations().get(BACKEND))
        .collect();
    if !backends.is_empty() {
        name.push_str(&format!(" ({})", listed(backends)));
    }
    let masquerade = match set {
        _ if k3s => MASQUERADES,
        Some(set) if masquerades(set) => MASQUERADES,
        Some(_) => DOES_NOT,
        // A program of the host: its flags are nowhere in the API.
        None => UNSAID,
    };
    Some(Cni {
        name,
        masquerade: masquerade.to_owned(),
        own_addresses: None,
        proven: true,
    })
}

/// Whether flannel is a part of Canal, and no CNI of its own.
pub(super) fn is_canal(traces: &Traces<'_>) -> bool {
    traces.set(&["canal"]).is_some()
}

/// Whether flannel's flags say so. Go's flags take one dash as well as two.
pub(super) fn masquerades(set: &DaemonSet) -> bool {
    template(set).any(|word| {
        let flag = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
        matches!(flag, Some("ip-masq" | "ip-masq=true"))
    })
}

/// Whether the node runs k3s or RKE2, which have flannel and kube-proxy inside.
pub(in super::super) fn is_k3s(node: &Node) -> bool {
    let version = node
        .status
        .as_ref()
        .and_then(|status| status.node_info.as_ref())
        .map(|info| info.kubelet_version.as_str());
    version.is_some_and(|version| version.contains("+k3s") || version.contains("+rke2"))
}
