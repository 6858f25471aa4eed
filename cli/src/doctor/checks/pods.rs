//! Who gives nodes their podCIDRs, and which CNI and kube-proxy carry pods beside us.
//!
//! Read from objects that everybody leaves behind: DaemonSets, their ConfigMaps, annotations of nodes, flags of
//! kube-controller-manager's pod. What is found is said as found; a CNI that leaves no trace is unknown.

use super::{Facts, Finding, read, some, variable};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Container, Node, PodSpec};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use tieline_crds::Cluster;

/// Field manager of the operator.
const OURS: &str = "tieline-operator";

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut all = pod_cidrs(facts);
    all.extend(cni(facts));
    all.extend(proxy(facts));
    all
}

fn pod_cidrs(facts: &Facts) -> Vec<Finding> {
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
        .map(|(manager, nodes)| format!("{manager} gave {}", some(nodes)))
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
        let message = format!("nodes without podCIDR: {}", some(&without));
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
            Finding::warning(ID, format!("nodes without podCIDR: {}; Tieline assigns one when a ClusterLink plans the cluster", some(&without)))
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

fn words(spec: Option<&PodSpec>) -> impl Iterator<Item = &str> {
    spec.into_iter()
        .flat_map(|spec| spec.containers.iter())
        .flat_map(|it: &Container| it.command.iter().flatten().chain(it.args.iter().flatten()))
        .map(String::as_str)
}

/// A CNI, what it does with pods' sources, and what that means.
struct Cni {
    name: String,
    /// Whether and how it masquerades.
    masquerade: String,
    /// Pods' addresses do not come from Node.spec.podCIDRs: why that is known.
    own_addresses: Option<String>,
    /// Whether it was tried in this project's labs.
    proven: bool,
}

fn cni(facts: &Facts) -> Vec<Finding> {
    const ID: &str = "cni";
    let (Ok(sets), Ok(nodes)) = (&facts.daemon_sets, &facts.nodes) else {
        return Vec::new();
    };
    let found = find_cnis(facts, sets, nodes);
    if found.is_empty() {
        let seen = super::pod_network::cnis(facts);
        return if nodes.is_empty() {
            Vec::new()
        } else if !seen.is_empty() {
            vec![Finding::ok(
                ID,
                format!(
                    "the nodes have traces of {}; where pods take their addresses from is not written where this program reads, and must be Node.spec.podCIDRs",
                    some(seen)
                ),
            )]
        } else {
            vec![Finding::unknown(ID, "no CNI was recognised (looked for flannel, Calico, Cilium, kindnet, k3s, the AWS VPC CNI and others)")
            .todo("make sure that pods take their addresses from Node.spec.podCIDRs, and that the CNI routes each node's podCIDR inside its site")]
        };
    }
    let mut all = Vec::new();
    for cni in &found {
        let text = format!("{}; {}", cni.name, cni.masquerade);
        all.push(if let Some(why) = &cni.own_addresses {
            Finding::problem(ID, format!("{text}. Pods' addresses do not follow Node.spec.podCIDRs ({why}), which is what Tieline routes by"))
                .todo("use the CNI's host-local or Kubernetes IPAM mode; others are not supported by this version")
        } else if cni.proven {
            Finding::ok(ID, text)
        } else {
            Finding::warning(ID, format!("{text}. Tieline was not proven beside it")).todo("try it on a cluster that may fail first; make sure that pods' addresses come from Node.spec.podCIDRs")
        });
    }
    if found.len() > 1 {
        all.push(
            Finding::warning(
                ID,
                format!(
                    "several CNIs left traces: {}",
                    some(found.iter().map(|cni| &cni.name))
                ),
            )
            .todo("make sure that only one of them gives pods their addresses"),
        );
    }
    all
}

const MASQUERADES: &str =
    "it masquerades what leaves for outside; planned sources are kept all the same";

fn find_cnis(facts: &Facts, sets: &[DaemonSet], nodes: &[Node]) -> Vec<Cni> {
    let maps = facts.config_maps.as_ref().ok();
    let map = |name: &str| maps.and_then(|maps| maps.get(name));
    let set = |names: &[&str]| {
        sets.iter()
            .find(|set| names.contains(&set.name_any().as_str()))
    };
    let annotated = |prefix: &str| {
        nodes
            .iter()
            .any(|node| node.annotations().keys().any(|key| key.starts_with(prefix)))
    };
    let unsaid = || "whether it masquerades is not written where this program reads".to_owned();
    let mut found = Vec::new();

    let flannel = set(&["kube-flannel-ds", "kube-flannel"]);
    // Canal is Calico's policies on flannel's network: one CNI.
    let canal = set(&["canal"]).is_some();
    if !canal && (flannel.is_some() || annotated("flannel.alpha.coreos.com/")) {
        let k3s = nodes.iter().any(is_k3s) && flannel.is_none();
        let backends: BTreeSet<&str> = nodes
            .iter()
            .filter_map(|node| {
                node.annotations()
                    .get("flannel.alpha.coreos.com/backend-type")
                    .map(String::as_str)
            })
            .collect();
        let mut name = if k3s {
            "k3s's flannel".to_owned()
        } else {
            "flannel".to_owned()
        };
        if !backends.is_empty() {
            name.push_str(&format!(" ({})", some(backends)));
        }
        let masquerade = match flannel {
            _ if k3s => MASQUERADES.to_owned(),
            Some(set) if flannel_masquerades(set) => MASQUERADES.to_owned(),
            Some(_) => "it does not masquerade".to_owned(),
            // A program of the host: its flags are nowhere in the API.
            None => unsaid(),
        };
        found.push(Cni {
            name,
            masquerade,
            own_addresses: None,
            proven: true,
        });
    }
    if let Some(set) = set(&["calico-node", "canal"]) {
        let config = map("kube-system/calico-config").and_then(|map| map.get("cni_network_config"));
        let host_local = config.is_some_and(|text| text.contains("host-local"));
        let calico_ipam = config.is_some_and(|text| text.contains("calico-ipam"));
        found.push(Cni {
            name: if canal { "Canal".into() } else { "Calico".into() },
            masquerade: if canal && flannel_masquerades(set) { MASQUERADES.into() } else { "its IP pools say whether it masquerades (natOutgoing); planned sources are kept where that is done in iptables or nftables".into() },
            own_addresses: (calico_ipam && !host_local && !canal).then(|| "ConfigMap calico-config names calico-ipam".to_owned()),
            proven: false,
        });
    }
    if set(&["cilium"]).is_some() {
        let config = map("kube-system/cilium-config");
        let value = |key: &str| config.and_then(|map| map.get(key)).map(String::as_str);
        let ipam = value("ipam");
        let masquerade = match (value("enable-ipv4-masquerade"), value("enable-bpf-masquerade")) {
            (Some("false"), _) => "it does not masquerade".to_owned(),
            (Some("true"), Some("true")) => "it masquerades in eBPF, which may hide pods' sources before Tieline sees them: set ipv4NativeRoutingCIDR to the planned super-nets".to_owned(),
            (Some("true"), _) => "it masquerades in iptables; planned sources are kept all the same".to_owned(),
            _ => unsaid(),
        };
        found.push(Cni {
            name: "Cilium".into(),
            masquerade,
            own_addresses: ipam
                .filter(|mode| *mode != "kubernetes")
                .map(|mode| format!("ConfigMap cilium-config says ipam: {mode}, not kubernetes")),
            proven: false,
        });
    }
    if set(&["aws-node"]).is_some() {
        found.push(Cni {
            name: "AWS VPC CNI".into(),
            masquerade: unsaid(),
            own_addresses: Some("they come from the VPC's subnets".into()),
            proven: false,
        });
    }
    if set(&["kindnet"]).is_some() {
        found.push(Cni { name: "kindnet".into(), masquerade: "it masquerades what leaves for outside the pod range; planned sources are kept all the same".into(), own_addresses: None, proven: false });
    }
    for (names, name) in [
        (&["weave-net"][..], "Weave Net"),
        (&["antrea-agent"][..], "Antrea"),
        (&["kube-router"][..], "kube-router"),
        (&["kube-ovn-cni", "ovnkube-node"][..], "OVN"),
        (&["azure-cns"][..], "Azure CNI"),
        (&["anetd", "netd"][..], "GKE's network agent"),
    ] {
        if set(names).is_some() {
            found.push(Cni {
                name: name.into(),
                masquerade: unsaid(),
                own_addresses: None,
                proven: false,
            });
        }
    }
    found
}

/// Whether flannel's flags say so. Go's flags take one dash as well as two.
fn flannel_masquerades(set: &DaemonSet) -> bool {
    template(set).any(|word| {
        let flag = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
        matches!(flag, Some("ip-masq" | "ip-masq=true"))
    })
}

fn is_k3s(node: &Node) -> bool {
    let version = node
        .status
        .as_ref()
        .and_then(|status| status.node_info.as_ref())
        .map(|info| info.kubelet_version.as_str());
    version.is_some_and(|version| version.contains("+k3s") || version.contains("+rke2"))
}

fn template(set: &DaemonSet) -> impl Iterator<Item = &str> {
    words(
        set.spec
            .as_ref()
            .and_then(|spec| spec.template.spec.as_ref()),
    )
}

fn proxy(facts: &Facts) -> Vec<Finding> {
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
