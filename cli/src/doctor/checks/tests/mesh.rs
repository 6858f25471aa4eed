//! What agents and conditions tell: hosts, paths, versions, permissions.

use super::*;

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
fn of_hosts_only_what_they_tell_is_said_to_be_in_order() {
    let with = |host: Value| {
        let mut told = peer("a", "1.0.0", json!([]));
        told["spec"]["podCidrs"] = json!(["10.1.0.0/24", "fd01::/64"]);
        told["status"]["host"] = host;
        let facts = Facts {
            peers: objects([told]),
            ..Facts::empty()
        };
        let finding = only(&facts, "host");
        assert_eq!(finding.severity, Severity::Ok);
        finding.message
    };
    let little = with(json!({"forwardsIpv4": true}));
    for word in ["are forwarded", "MTU", "clocks are"] {
        assert!(!little.contains(word), "{little}");
    }
    assert!(
        little.contains("iptables-legacy, were not looked at"),
        "{little}"
    );
    let all = with(
        json!({"forwardsIpv4": true, "forwardsIpv6": true, "underlay": [{"device": "eth0", "mtu": 1500}]}),
    );
    for word in ["are forwarded", "MTU"] {
        assert!(all.contains(word), "{all}");
    }
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
    for word in ["UDP 21820", "the Site's underlay.publicAddresses"] {
        assert!(finding.action.contains(word), "{}", finding.action);
    }
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
    let answers = |who, rules: &[Rule], allowed: bool| -> Vec<Access> {
        actions(rules)
            .into_iter()
            .map(|action| Access {
                who,
                action,
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
        if access.action.resource == "secrets" && access.action.verb == "get" {
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
