//! Who gives nodes their podCIDRs, and which kube-proxy stands beside us.
//!
//! Read from objects that everybody leaves behind: DaemonSets, their ConfigMaps, managers of nodes' fields, flags of
//! kube-controller-manager's pod.

use super::cni::is_k3s;
use super::workload::{template, variable, words};
use super::{Facts, Finding, read};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use std::collections::BTreeMap;
use tieline_core::plan::listed;
use tieline_crds::Cluster;

/// Field manager of the operator.
const OURS: &str = "tieline-operator";

pub(super) fn pod_cidrs(facts: &Facts) -> Vec<Finding> {
    const ID: &str = "pod-cidrs";
    let (Ok(nodes), Ok(clusters)) = (&facts.nodes, &facts.clusters) else {
        return Vec::new();
    };
    let own = own_cluster(facts);
    let clusters: Vec<&Cluster> = clusters
        .iter()
        .filter(|cluster| own.as_ref().is_none_or(|own| *own == cluster.name_any()))
        .collect();
    if nodes.is_empty() {
        return vec![Finding::warning(ID, "there is no node").todo("join nodes to the cluster")];
    }
    let without: Vec<String> = nodes
        .iter()
        .filter(|node| !has_pod_cidr(node))
        .map(ResourceExt::name_any)
        .collect();
    let mut givers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for node in nodes {
        for manager in managers(node) {
            givers.entry(manager).or_default().push(node.name_any());
        }
    }
    let others: Vec<String> = givers
        .iter()
        .filter(|(manager, _)| **manager != OURS)
        .map(|(manager, nodes)| format!("{manager} gave {}", listed(nodes)))
        .collect();
    let allocating = allocating(facts);
    let mut all = Vec::new();
    for cluster in clusters.iter().filter(|cluster| assigns(cluster)) {
        let place = format!("Cluster {}", cluster.name_any());
        if !others.is_empty() {
            all.push(
                Finding::problem(ID, format!("spec.pods.assign is true, and somebody else gives podCIDRs too: {}", others.join("; ")))
                    .at(place)
                    .todo("set spec.pods.assign to false, so that those ranges are imported; or stop the other one (kube-controller-manager --allocate-node-cidrs=false) and create these nodes anew"),
            );
        } else if allocating {
            all.push(
                Finding::problem(ID, "spec.pods.assign is true, and kube-controller-manager runs with --allocate-node-cidrs: it ends at its next start when a node's podCIDR lies outside its --cluster-cidr")
                    .at(place)
                    .todo("set spec.pods.assign to false, or run kube-controller-manager with --allocate-node-cidrs=false"),
            );
        }
    }
    let assigned = clusters.iter().any(|cluster| assigns(cluster));
    if !without.is_empty() && !assigned {
        let message = format!("nodes without podCIDR: {}", listed(&without));
        let how = "let kube-controller-manager give them (--allocate-node-cidrs), or set spec.pods.assign: true in the Cluster, so that Tieline does";
        all.push(if clusters.is_empty() {
            Finding::warning(ID, message).todo(how)
        } else {
            Finding::problem(
                ID,
                format!("{message}; they take no part, because spec.pods.assign is false"),
            )
            .todo(how)
        });
    } else if !without.is_empty() && all.is_empty() {
        all.push(
            Finding::warning(ID, format!("nodes without podCIDR: {}; Tieline assigns one when a ClusterLink plans the cluster", listed(&without)))
                .todo("look at the conditions of the Cluster when this lasts"),
        );
    }
    if all.is_empty() {
        let who = givers
            .iter()
            .map(|(manager, nodes)| format!("{manager}: {} nodes", nodes.len()));
        let who: Vec<String> = who.collect();
        let who = if who.is_empty() {
            "nobody knows who gave them".to_owned()
        } else {
            who.join(", ")
        };
        all.push(Finding::ok(
            ID,
            format!("all {} nodes have podCIDRs ({who})", nodes.len()),
        ));
    }
    all
}

/// The Cluster that this one's nodes are in, as the operator was told. Others' nodes are elsewhere.
fn own_cluster(facts: &Facts) -> Option<String> {
    let operator = read(&facts.deployments)
        .iter()
        .find(|it| it.name_any() == "tieline-operator")?;
    let pod = operator.spec.as_ref()?.template.spec.as_ref()?;
    variable(pod, "TIELINE_CLUSTER_NAME")
}

fn assigns(cluster: &Cluster) -> bool {
    cluster
        .spec
        .pods
        .as_ref()
        .and_then(|pods| pods.assign)
        .unwrap_or(false)
}

fn has_pod_cidr(node: &Node) -> bool {
    node.spec.as_ref().is_some_and(|spec| {
        spec.pod_cidr.is_some() || spec.pod_cidrs.as_ref().is_some_and(|all| !all.is_empty())
    })
}

/// Who wrote the node's podCIDRs, by the API server's records.
fn managers(node: &Node) -> impl Iterator<Item = &str> {
    node.metadata
        .managed_fields
        .iter()
        .flatten()
        .filter_map(|entry| {
            let spec = entry.fields_v1.as_ref()?.0.get("f:spec")?;
            (spec.get("f:podCIDR").is_some() || spec.get("f:podCIDRs").is_some())
                .then_some(entry.manager.as_deref())
                .flatten()
        })
}

/// Whether kube-controller-manager, where it runs as a pod, was told to give podCIDRs.
fn allocating(facts: &Facts) -> bool {
    read(&facts.controller_managers)
        .iter()
        .flat_map(|pod| words(pod.spec.as_ref()))
        .any(|word| word == "--allocate-node-cidrs" || word == "--allocate-node-cidrs=true")
}

pub(super) fn proxy(facts: &Facts) -> Vec<Finding> {
    const ID: &str = "kube-proxy";
    let (Ok(sets), Ok(nodes), Ok(maps)) = (&facts.daemon_sets, &facts.nodes, &facts.config_maps)
    else {
        return Vec::new();
    };
    let running = sets.iter().find(|set| set.name_any() == "kube-proxy");
    let replaced = maps
        .get("kube-system/cilium-config")
        .and_then(|map| map.get("kube-proxy-replacement"))
        .is_some_and(|value| value == "true" || value == "strict");
    if running.is_none() {
        return vec![if replaced {
            Finding::warning(
                ID,
                "none: Cilium stands in for it. Services beside it were not proven",
            )
            .todo("try a Service with endpoints in two sites first")
        } else if nodes.iter().any(is_k3s) {
            Finding::ok(
                ID,
                "part of k3s, mode iptables unless a flag says otherwise",
            )
        } else if nodes.is_empty() {
            return Vec::new();
        } else {
            Finding::unknown(ID, "no DaemonSet kube-proxy: it runs outside of pods, or something stands in for it")
                .todo("make sure that Services work inside each site before you look for faults in the mesh")
        }];
    }
    let flag =
        running.and_then(|set| template(set).find_map(|word| word.strip_prefix("--proxy-mode=")));
    let config = maps
        .get("kube-system/kube-proxy")
        .and_then(|map| map.get("config.conf"))
        .and_then(|text| yaml_value(text, "mode"));
    let mode = flag
        .or(config)
        .filter(|mode| !mode.is_empty())
        .unwrap_or("iptables");
    vec![match mode {
        "iptables" | "nftables" => Finding::ok(ID, format!("mode {mode}")),
        other => Finding::warning(
            ID,
            format!("mode {other}, which Tieline was not proven beside"),
        )
        .todo("prefer mode nftables or iptables"),
    }]
}

/// The value of a top-level key of a YAML text, as it stands there.
fn yaml_value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(key)?.strip_prefix(':')?;
        Some(value.trim().trim_matches(['"', '\'']))
    })
}
