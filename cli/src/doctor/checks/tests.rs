#![allow(clippy::unwrap_used)]

use super::*;
use crate::doctor::facts::{
    AGENT_MUST_NOT, AGENT_NEEDS, Access, CALLER_NEEDS, Kubernetes, OPERATOR_NEEDS, Who,
};
use k8s_openapi::serde_json::{Value, json};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn objects<T: DeserializeOwned>(values: impl IntoIterator<Item = Value>) -> Reading<Vec<T>> {
    Ok(values.into_iter().map(object).collect())
}

fn find<'a>(findings: &'a [Finding], id: &str) -> Vec<&'a Finding> {
    findings.iter().filter(|finding| finding.id == id).collect()
}

/// The one finding of a check.
fn only(facts: &Facts, id: &str) -> Finding {
    let all = check(facts);
    let found = find(&all, id);
    assert_eq!(found.len(), 1, "{id}: {found:#?}");
    found[0].clone()
}

fn node(name: &str, cidr: Option<&str>, manager: &str) -> Value {
    let spec = cidr.map_or_else(
        || json!({}),
        |cidr| json!({"podCIDR": cidr, "podCIDRs": [cidr]}),
    );
    let fields = json!([
        {"manager": "kubelet", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {}}},
        {"manager": manager, "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:podCIDR": {}}}},
    ]);
    json!({"metadata": {"name": name, "managedFields": fields}, "spec": spec})
}

fn cluster(assign: bool) -> Value {
    json!({"metadata": {"name": "shop"}, "spec": {"sites": {"name": "one"}, "pods": {"assign": assign}}})
}

fn definitions(number: u32) -> Reading<BTreeMap<String, Option<u32>>> {
    let names = tieline_crds::all();
    Ok(names
        .iter()
        .map(|crd| (crd.metadata.name.clone().unwrap(), Some(number)))
        .collect())
}

fn peer(node: &str, version: &str, conditions: Value) -> Value {
    json!({
        "metadata": {"name": format!("shop.{node}")},
        "spec": {"node": node, "cluster": "shop", "site": "paris", "segment": "shop.paris", "planRevision": 3, "gatewayRank": 0,
            "acceptedEndpoints": [{"address": "192.0.2.7", "scope": "Public"}]},
        "status": {"version": version, "appliedRevision": 3, "conditions": conditions},
    })
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

fn daemon_set(namespace: &str, name: &str, words: &[&str]) -> Value {
    json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"selector": {}, "template": {"spec": {"containers": [
        {"name": "c", "command": words}]}}}})
}

#[test]
fn an_empty_cluster_has_no_problem_and_says_what_comes_next() {
    let facts = Facts::empty();
    let all = check(&facts);
    assert!(
        all.iter().all(|it| it.severity != Severity::Problem),
        "{all:#?}"
    );
    assert_eq!(only(&facts, "kubernetes-version").severity, Severity::Ok);
    assert_eq!(only(&facts, "definitions").severity, Severity::Warning);
    assert!(only(&facts, "definitions").action.contains("helm install"));
    assert!(
        only(&facts, "host")
            .message
            .contains("only the agents can tell")
    );
    assert!(only(&facts, "paths").message.contains("only agents"));
    assert!(find(&all, UNREAD).is_empty());
}

#[test]
fn every_finding_that_is_not_in_order_says_what_to_do() {
    let mut facts = Facts::empty();
    facts.kubernetes = Ok(Kubernetes {
        number: (1, 31),
        name: "v1.31.0".into(),
    });
    facts.clock_ahead = Ok(-90);
    facts.definitions = definitions(0);
    facts.nodes = objects([
        node("a", None, "x"),
        node("b", Some("10.1.0.0/24"), "kube-controller-manager"),
    ]);
    facts.clusters = objects([cluster(true)]);
    facts.daemon_sets = objects([
        daemon_set("kube-system", "aws-node", &[]),
        daemon_set("kube-system", "kindnet", &[]),
    ]);
    facts.peers = objects([peer(
        "a",
        "0.9.0",
        json!([
            condition("Ready", "False", "NoneUp", "no path"),
            condition(
                "PathsUp",
                "False",
                "NoneUp",
                "0 of 2 paths to gateways are up; down: shop.b by tie0"
            ),
        ]),
    )]);
    facts.pods = Err("cannot list pods in namespace tieline-system: forbidden".into());
    let all = check(&facts);
    for it in all.iter().filter(|it| it.severity != Severity::Ok) {
        assert!(!it.action.is_empty(), "nothing to do about {it:#?}");
    }
    let order: Vec<Severity> = all.iter().map(|it| it.severity).collect();
    assert!(order.is_sorted(), "the worst come first");
    assert_eq!(check(&facts), all, "the same facts give the same findings");
}

#[test]
fn kubernetes_before_1_32_is_a_problem() {
    for (number, severity) in [
        ((1, 31), Severity::Problem),
        ((1, 32), Severity::Ok),
        ((2, 0), Severity::Ok),
    ] {
        let mut facts = Facts::empty();
        facts.kubernetes = Ok(Kubernetes {
            number,
            name: "v".into(),
        });
        assert_eq!(
            only(&facts, "kubernetes-version").severity,
            severity,
            "{number:?}"
        );
    }
}

#[test]
fn clocks_that_differ_by_more_than_five_seconds_are_told() {
    for (ahead, severity) in [
        (0, Severity::Ok),
        (5, Severity::Ok),
        (-5, Severity::Ok),
        (6, Severity::Warning),
        (-600, Severity::Warning),
    ] {
        let facts = Facts {
            clock_ahead: Ok(ahead),
            ..Facts::empty()
        };
        assert_eq!(only(&facts, "clock-here").severity, severity, "{ahead}");
    }
    let facts = Facts {
        clock_ahead: Ok(-600),
        ..Facts::empty()
    };
    assert!(only(&facts, "clock-here").message.contains("600 s behind"));
}

#[test]
fn definitions_are_missing_old_right_or_newer() {
    let with = |found| Facts {
        definitions: found,
        ..Facts::empty()
    };
    let number = tieline_crds::SCHEMA_NUMBER;
    assert_eq!(
        only(&with(definitions(number)), "definitions").severity,
        Severity::Ok
    );
    let newer = check(&with(definitions(number + 1)));
    assert!(
        find(&newer, "definitions")
            .iter()
            .all(|it| it.severity == Severity::Warning)
    );
    let mut one_missing = definitions(number).unwrap();
    one_missing.remove("peers.tieline.dev");
    let finding = only(&with(Ok(one_missing)), "definitions");
    assert_eq!(
        (
            finding.severity,
            finding.message.contains("peers.tieline.dev")
        ),
        (Severity::Problem, true)
    );
    let mut one_old = definitions(number).unwrap();
    one_old.insert("sites.tieline.dev".into(), None);
    let finding = only(&with(Ok(one_old)), "definitions");
    assert_eq!(finding.place, "CustomResourceDefinition sites.tieline.dev");
    assert_eq!(finding.severity, Severity::Problem);
}

#[test]
fn a_policy_without_a_binding_that_denies_is_not_in_force() {
    let names = [
        "agent-writes-own-peer",
        "in-use-is-kept",
        "ledger-is-kept",
        "operator-assigns-pod-cidrs",
        "operator-keeps-intents",
    ]
    .map(|name| format!("{name}.tieline.dev"));
    let policies = names
        .clone()
        .map(|name| json!({"metadata": {"name": name}}));
    let binding = |name: &String, action: &str| json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": [action]}});
    let mut facts = Facts {
        definitions: definitions(tieline_crds::SCHEMA_NUMBER),
        policies: objects(policies.clone()),
        bindings: objects(names.iter().map(|name| binding(name, "Deny"))),
        ..Facts::empty()
    };
    assert_eq!(only(&facts, "admission-policies").severity, Severity::Ok);
    facts.bindings = objects(names.iter().map(|name| {
        binding(
            name,
            if name.starts_with("ledger") {
                "Audit"
            } else {
                "Deny"
            },
        )
    }));
    let finding = only(&facts, "admission-policies");
    assert_eq!(finding.severity, Severity::Problem);
    assert!(
        finding.message.contains("ledger-is-kept"),
        "{}",
        finding.message
    );
    facts.policies = objects(policies[1..].to_vec());
    let all = check(&facts);
    assert!(
        find(&all, "admission-policies")
            .iter()
            .any(|it| it.message.contains("missing: agent-writes-own-peer"))
    );
}

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
        let finding = only(&facts, "cni");
        assert_eq!(finding.severity, severity, "{what}: {}", finding.message);
        assert!(
            finding.message.contains(says),
            "{what}: {}",
            finding.message
        );
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

#[test]
fn a_chain_that_drops_is_told_once_with_the_rules_to_add() {
    let conditions = |message: &str| {
        json!([
            condition("ForwardDropped", "True", "ForeignChain", message),
            condition("PathsUp", "True", "AllUp", "2 of 2")
        ])
    };
    let rule = "ip filter FORWARD: run `iptables -I FORWARD -i tie+ -j ACCEPT`";
    let mut told = peer("a", "1.0.0", conditions(rule));
    let by_condition = Facts {
        peers: objects([told.clone()]),
        ..Facts::empty()
    };
    told["status"]["host"] =
        json!({"forwardDrops": ["ip filter FORWARD", "inet firewalld filter_FORWARD"]});
    let by_host = Facts {
        peers: objects([told]),
        ..Facts::empty()
    };
    for facts in [&by_condition, &by_host] {
        let finding = only(facts, "forward-drop");
        let text = format!("{} {}", finding.message, finding.action);
        assert_eq!(
            (finding.severity, finding.place.as_str()),
            (Severity::Problem, "Node a")
        );
        assert!(
            text.contains("iptables -I FORWARD -i tie+ -j ACCEPT"),
            "{text}"
        );
        let all = check(facts);
        let conditions = find(&all, "conditions");
        assert!(conditions.iter().all(|it| it.severity == Severity::Ok));
    }
    let action = only(&by_host, "forward-drop").action;
    let nft = "nft insert rule inet firewalld filter_FORWARD oifname \"tie*\" accept";
    assert!(action.contains(nft), "{action}");
}

#[test]
fn paths_that_are_down_are_told_with_endpoints_and_ports() {
    let with = |conditions: Value| Facts {
        peers: objects([peer("a", "1.0.0", conditions)]),
        ..Facts::empty()
    };
    let up = with(json!([condition(
        "PathsUp",
        "True",
        "AllUp",
        "2 of 2 paths to gateways are up"
    )]));
    assert_eq!(only(&up, "paths").severity, Severity::Ok);
    let some = with(json!([condition(
        "PathsUp",
        "True",
        "SomeUp",
        "1 of 2 paths to gateways are up; down: shop.b by tie0"
    )]));
    let finding = only(&some, "paths");
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.message.contains("shop.b by tie0") && finding.message.contains("192.0.2.7"));
    assert!(finding.action.contains("UDP 21820"));
    let none = with(json!([condition(
        "PathsUp",
        "False",
        "NoneUp",
        "0 of 2 paths to gateways are up"
    )]));
    assert_eq!(only(&none, "paths").severity, Severity::Problem);
    let silent = with(json!([]));
    assert!(
        only(&silent, "paths")
            .message
            .contains("have not reported: a")
    );
}

#[test]
fn conditions_are_judged_by_what_they_mean() {
    let link = |conditions: Value| Facts {
        links: objects([
            json!({"metadata": {"name": "acme"}, "spec": {"members": {"clusters": ["shop"]}}, "status": {"conditions": conditions}}),
        ]),
        ..Facts::empty()
    };
    for (kind, status, severity) in [
        ("Ready", "True", Severity::Ok),
        ("Ready", "False", Severity::Problem),
        ("Ready", "Unknown", Severity::Warning),
        ("Frozen", "True", Severity::Problem),
        ("Frozen", "False", Severity::Ok),
        ("InUse", "False", Severity::Ok),
    ] {
        let facts = link(json!([condition(kind, status, "Why", "because")]));
        assert_eq!(
            only(&facts, "conditions").severity,
            severity,
            "{kind} {status}"
        );
    }
    let twice = link(json!([
        condition("Ready", "False", "Why", "because"),
        condition("Converged", "False", "Why", "because")
    ]));
    assert!(
        only(&twice, "conditions").message.ends_with("because"),
        "the same words are told once"
    );
}

#[test]
fn versions_that_differ_are_told() {
    let operator = |image: &str| json!({"metadata": {"name": "tieline-operator"}, "spec": {"replicas": 1, "selector": {}, "template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    let fine = json!([condition("PathsUp", "True", "AllUp", "1 of 1")]);
    let with = |image: &str, versions: &[&str]| Facts {
        deployments: objects([operator(image)]),
        peers: objects(
            versions
                .iter()
                .enumerate()
                .map(|(index, version)| peer(&format!("n{index}"), version, fine.clone())),
        ),
        ..Facts::empty()
    };
    assert_eq!(
        only(
            &with("tieline.dev/tieline:1.0.0", &["1.0.0", "1.0.0"]),
            "versions"
        )
        .severity,
        Severity::Ok
    );
    assert_eq!(
        only(&with("tieline.dev:5000/tieline", &["1.0.0"]), "versions").severity,
        Severity::Ok,
        "a port is no version"
    );
    let all = check(&with("tieline.dev/tieline:1.0.0", &["1.0.0", "0.9.0"]));
    let messages: Vec<&str> = find(&all, "versions")
        .iter()
        .map(|it| it.message.as_str())
        .collect();
    assert_eq!(
        messages,
        [
            "the agents are of different versions: 0.9.0 on n1; 1.0.0 on n0",
            "the operator is 1.0.0, and agents are 0.9.0"
        ]
    );
    assert!(
        only(&with("tieline.dev/tieline:2.0.0", &["2.0.0"]), "versions")
            .message
            .starts_with("this program is 1.0.0")
    );
}

#[test]
fn permissions_that_lack_and_that_are_too_many_are_told() {
    let answers = |who, actions: &[crate::doctor::facts::Action], allowed: bool| -> Vec<Access> {
        actions
            .iter()
            .map(|action| Access {
                who,
                action: *action,
                allowed: Ok(allowed),
            })
            .collect()
    };
    let mut facts = Facts {
        definitions: definitions(tieline_crds::SCHEMA_NUMBER),
        ..Facts::empty()
    };
    facts.access = [
        answers(Who::Caller, CALLER_NEEDS, true),
        answers(Who::Operator, OPERATOR_NEEDS, true),
        answers(Who::Agent, AGENT_NEEDS, true),
        answers(Who::Agent, AGENT_MUST_NOT, false),
    ]
    .concat();
    let all = check(&facts);
    assert!(
        find(&all, "permissions")
            .iter()
            .all(|it| it.severity == Severity::Ok)
            && find(&all, "permissions").len() == 2
    );
    for access in &mut facts.access {
        if access.action.resource == "secrets" {
            access.allowed = Ok(access.who == Who::Agent);
        }
    }
    let all = check(&facts);
    let told: Vec<(&str, &str)> = find(&all, "permissions")
        .iter()
        .map(|it| (it.place.as_str(), it.message.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (
                "ServiceAccount tieline-operator",
                "it may not, and must: get secrets"
            ),
            (
                "ServiceAccount tieline-agent",
                "it may, and must not: get secrets. Every node's agent has this credential"
            ),
        ]
    );
}

#[test]
fn what_could_not_be_read_is_unknown_and_no_check_invents_it() {
    let facts = Facts {
        nodes: Err("cannot list nodes: forbidden".into()),
        ..Facts::empty()
    };
    let all = check(&facts);
    assert_eq!(only(&facts, UNREAD).message, "cannot list nodes: forbidden");
    assert!(find(&all, "pod-cidrs").is_empty() && find(&all, "cni").is_empty());
}

#[test]
fn what_agents_tell_of_their_hosts_is_judged() {
    let up = json!([condition("PathsUp", "True", "AllUp", "1 of 1")]);
    let with = |host: Value| {
        let mut peer = peer("a", "1.0.0", up.clone());
        peer["status"]["host"] = host;
        Facts {
            peers: objects([peer]),
            ..Facts::empty()
        }
    };
    let device = |name: &str, mtu: u32, filter: u8| json!({"device": name, "mtu": mtu, "reversePathFilter": filter});
    let fine = || json!({"kernel": "6.1", "forwardsIpv4": true, "forwardsIpv6": true, "underlay": [device("eth0", 1500, 1)]});
    let changed = |field: &str, value: Value| {
        let mut host = fine();
        host[field] = value;
        with(host)
    };
    assert_eq!(only(&with(fine()), "host").severity, Severity::Ok);
    for (what, facts, id, severity, says) in [
        (
            "no forwarding",
            changed("forwardsIpv4", json!(false)),
            "forwarding",
            Severity::Problem,
            "net.ipv4.ip_forward",
        ),
        (
            "small MTU",
            changed("underlay", json!([device("eth0", 1300, 0)])),
            "mtu",
            Severity::Problem,
            "1300",
        ),
        (
            "jumbo gateway",
            changed("underlay", json!([device("eth0", 9001, 0)])),
            "mtu",
            Severity::Warning,
            "9001",
        ),
        (
            "two uplinks",
            changed(
                "underlay",
                json!([device("eth0", 1500, 1), device("eth1", 1500, 2)]),
            ),
            "reverse-path-filter",
            Severity::Warning,
            "eth0",
        ),
        (
            "drop",
            changed("forwardDrops", json!(["ip filter FORWARD"])),
            "forward-drop",
            Severity::Problem,
            "iptables -I FORWARD -i tie+",
        ),
        (
            "clock",
            changed("clockAheadSeconds", json!(-30)),
            "clock-node",
            Severity::Warning,
            "30 s behind",
        ),
        (
            "clock far",
            changed("clockAheadSeconds", json!(3600)),
            "clock-node",
            Severity::Problem,
            "3600 s ahead of",
        ),
    ] {
        let finding = only(&facts, id);
        assert_eq!(
            (finding.severity, finding.place.as_str()),
            (severity, "Node a"),
            "{what}"
        );
        let text = format!("{} {}", finding.message, finding.action);
        assert!(text.contains(says), "{what}: {text}");
        assert!(!finding.action.is_empty(), "{what}");
    }
    let old = Facts {
        peers: objects([peer("a", "1.0.0", up.clone())]),
        ..Facts::empty()
    };
    assert!(
        only(&old, "host")
            .message
            .contains("do not tell of their hosts: a")
    );
}
