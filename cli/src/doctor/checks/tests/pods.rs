//! Who gives pods their ranges, and what the cluster network is.

use super::*;

#[test]
fn who_gives_pod_cidrs_decides_what_assign_may_be() {
    let manager = "kube-controller-manager";
    let with = |nodes: Vec<Value>, clusters: Vec<Value>| Facts {
        nodes: objects(nodes),
        clusters: objects(clusters),
        ..Facts::empty()
    };
    let given = || node("a", Some("10.1.0.0/24"), manager);
    let ours = || node("a", Some("10.1.0.0/24"), "tieline-operator");
    let none = || node("b", None, "nobody");
    for (what, nodes, clusters, severity, says) in [
        (
            "no cluster, all given",
            vec![given()],
            vec![],
            Severity::Ok,
            "kube-controller-manager: 1 nodes",
        ),
        (
            "no cluster, one without",
            vec![given(), none()],
            vec![],
            Severity::Warning,
            "without podCIDR: b",
        ),
        (
            "not assigned, one without",
            vec![given(), none()],
            vec![cluster(false)],
            Severity::Problem,
            "take no part",
        ),
        (
            "not assigned, all given",
            vec![given()],
            vec![cluster(false)],
            Severity::Ok,
            "all 1 nodes",
        ),
        (
            "assigned, ours",
            vec![ours()],
            vec![cluster(true)],
            Severity::Ok,
            "tieline-operator",
        ),
        (
            "assigned, not yet",
            vec![ours(), none()],
            vec![cluster(true)],
            Severity::Warning,
            "Tieline assigns one",
        ),
    ] {
        let mut nodes = nodes;
        // A manager that owns no podCIDR is nobody's giver.
        if let Some(last) = nodes.last_mut().filter(|node| node["spec"] == json!({})) {
            last["metadata"]["managedFields"] = json!([]);
        }
        let finding = only(&with(nodes, clusters), "pod-cidrs");
        assert_eq!(finding.severity, severity, "{what}: {}", finding.message);
        assert!(
            finding.message.contains(says),
            "{what}: {}",
            finding.message
        );
    }
    let finding = only(&with(vec![given()], vec![cluster(true)]), "pod-cidrs");
    assert_eq!(
        (finding.severity, finding.place.as_str()),
        (Severity::Problem, "Cluster shop")
    );
    assert!(
        finding.message.contains("kube-controller-manager gave a"),
        "{}",
        finding.message
    );
}

#[test]
fn another_clusters_assign_says_nothing_of_these_nodes() {
    let operator = |cluster: &str| {
        json!({"metadata": {"name": "tieline-operator"}, "spec": {"selector": {}, "template": {"spec": {"containers": [
        {"name": "c", "env": [{"name": "TIELINE_CLUSTER_NAME", "value": cluster}]}]}}}})
    };
    let with = |deployments: Vec<Value>| Facts {
        nodes: objects([node("a", Some("10.1.0.0/24"), "kube-controller-manager")]),
        clusters: objects([cluster(true)]),
        deployments: objects(deployments),
        ..Facts::empty()
    };
    for (deployments, severity) in [
        (vec![operator("erp")], Severity::Ok),
        (vec![operator("shop")], Severity::Problem),
        // An operator that runs outside does not say.
        (vec![], Severity::Problem),
    ] {
        let finding = only(&with(deployments), "pod-cidrs");
        assert_eq!(finding.severity, severity, "{}", finding.message);
    }
}

#[test]
fn a_controller_manager_that_will_allocate_is_a_problem_before_it_does() {
    let manager = |flag: &str| json!({"metadata": {"name": "kcm"}, "spec": {"containers": [{"name": "c", "command": ["kube-controller-manager", flag]}]}});
    let mut facts = Facts {
        nodes: objects([node("a", Some("10.1.0.0/24"), "tieline-operator")]),
        clusters: objects([cluster(true)]),
        controller_managers: objects([manager("--allocate-node-cidrs=true")]),
        ..Facts::empty()
    };
    let finding = only(&facts, "pod-cidrs");
    assert_eq!(finding.severity, Severity::Problem);
    assert!(finding.action.contains("--allocate-node-cidrs=false"));
    facts.controller_managers = objects([manager("--allocate-node-cidrs=false")]);
    assert_eq!(only(&facts, "pod-cidrs").severity, Severity::Ok);
}

#[test]
fn cnis_are_known_by_what_they_leave_behind() {
    let plain = || node("a", Some("10.1.0.0/24"), "x");
    let annotated = |key: &str, value: &str, version: &str| {
        let mut node = plain();
        node["metadata"]["annotations"] = json!({key: value});
        node["status"] = json!({"nodeInfo": {"kubeletVersion": version, "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
            "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": ""}});
        node
    };
    let maps = |name: &str, data: &[(&str, &str)]| {
        let data: BTreeMap<String, String> = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        BTreeMap::from([(name.to_owned(), data)])
    };
    let backend = "flannel.alpha.coreos.com/backend-type";
    let flannel = daemon_set(
        "kube-flannel",
        "kube-flannel-ds",
        &["/opt/bin/flanneld", "--ip-masq"],
    );
    let set = |name: &str| daemon_set("kube-system", name, &[]);
    let single_dash = daemon_set(
        "kube-flannel",
        "kube-flannel-ds",
        &["/opt/bin/flanneld", "-ip-masq"],
    );
    let canal = daemon_set("kube-system", "canal", &["/opt/bin/flanneld", "--ip-masq"]);
    for (what, node, sets, maps, severity, says) in [
        (
            "flannel",
            annotated(backend, "vxlan", "v1.36.3"),
            vec![flannel],
            BTreeMap::new(),
            Severity::Ok,
            "flannel (vxlan); it masquerades",
        ),
        (
            "flannel with one dash",
            plain(),
            vec![single_dash],
            BTreeMap::new(),
            Severity::Ok,
            "flannel; it masquerades",
        ),
        (
            "flannel without the flag",
            plain(),
            vec![set("kube-flannel-ds")],
            BTreeMap::new(),
            Severity::Ok,
            "flannel; it does not masquerade",
        ),
        (
            "flannel as a program of the host",
            annotated(backend, "vxlan", "v1.36.3"),
            vec![],
            BTreeMap::new(),
            Severity::Ok,
            "flannel (vxlan); whether it masquerades is not written",
        ),
        (
            "canal",
            annotated(backend, "vxlan", "v1.36.3"),
            vec![canal],
            BTreeMap::new(),
            Severity::Warning,
            "Canal; it masquerades",
        ),
        (
            "k3s",
            annotated(backend, "vxlan", "v1.34.1+k3s1"),
            vec![],
            BTreeMap::new(),
            Severity::Ok,
            "k3s's flannel (vxlan)",
        ),
        (
            "kindnet",
            plain(),
            vec![set("kindnet")],
            BTreeMap::new(),
            Severity::Warning,
            "kindnet",
        ),
        (
            "aws",
            plain(),
            vec![set("aws-node")],
            BTreeMap::new(),
            Severity::Problem,
            "VPC's subnets",
        ),
        (
            "calico",
            plain(),
            vec![set("calico-node")],
            maps(
                "kube-system/calico-config",
                &[("cni_network_config", r#""type": "calico-ipam""#)],
            ),
            Severity::Problem,
            "calico-ipam",
        ),
        (
            "calico host-local",
            plain(),
            vec![set("calico-node")],
            maps(
                "kube-system/calico-config",
                &[("cni_network_config", r#""type": "host-local""#)],
            ),
            Severity::Warning,
            "Calico",
        ),
        (
            "cilium pool",
            plain(),
            vec![set("cilium")],
            maps(
                "kube-system/cilium-config",
                &[
                    ("ipam", "cluster-pool"),
                    ("enable-ipv4-masquerade", "true"),
                    ("enable-bpf-masquerade", "true"),
                ],
            ),
            Severity::Problem,
            "cluster-pool",
        ),
        (
            "cilium",
            plain(),
            vec![set("cilium")],
            maps(
                "kube-system/cilium-config",
                &[("ipam", "kubernetes"), ("enable-ipv4-masquerade", "false")],
            ),
            Severity::Warning,
            "does not masquerade",
        ),
        (
            "none",
            plain(),
            vec![],
            BTreeMap::new(),
            Severity::Unknown,
            "no CNI was recognised",
        ),
    ] {
        let facts = Facts {
            nodes: objects([node]),
            daemon_sets: objects(sets),
            config_maps: Ok(maps),
            ..Facts::empty()
        };
        says_once(&facts, "cni", severity, says, what);
    }
}

#[test]
fn kube_proxys_mode_is_its_flags_or_its_configurations() {
    let config = |mode: &str| {
        let text = format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: {mode}\n"
        );
        BTreeMap::from([(
            "kube-system/kube-proxy".to_owned(),
            BTreeMap::from([("config.conf".to_owned(), text)]),
        )])
    };
    for (words, config, severity, says) in [
        (vec![], config("\"\""), Severity::Ok, "mode iptables"),
        (vec![], config("nftables"), Severity::Ok, "mode nftables"),
        (vec![], config("ipvs"), Severity::Warning, "mode ipvs"),
        (
            vec!["--proxy-mode=nftables"],
            config("ipvs"),
            Severity::Ok,
            "mode nftables",
        ),
    ] {
        let facts = Facts {
            nodes: objects([node("a", Some("10.1.0.0/24"), "x")]),
            daemon_sets: objects([daemon_set("kube-system", "kube-proxy", &words)]),
            config_maps: Ok(config),
            ..Facts::empty()
        };
        let finding = only(&facts, "kube-proxy");
        assert_eq!(
            (finding.severity, finding.message.as_str()),
            (severity, finding.message.as_str())
        );
        assert!(finding.message.contains(says), "{}", finding.message);
    }
}
