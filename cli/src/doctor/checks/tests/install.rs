//! What is installed: versions, definitions, policies, clocks.

use super::*;

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
        policies: objects(policies.clone()).map(Some),
        bindings: objects(names.iter().map(|name| binding(name, "Deny"))).map(Some),
        ..Facts::empty()
    };
    assert_eq!(only(&facts, "admission-policies").severity, Severity::Ok);
    let audited = |name: &String| {
        let audit = name.starts_with("ledger");
        binding(name, if audit { "Audit" } else { "Deny" })
    };
    facts.bindings = objects(names.iter().map(audited)).map(Some);
    let finding = only(&facts, "admission-policies");
    assert_eq!(finding.severity, Severity::Problem);
    assert!(
        finding.message.contains("ledger-is-kept"),
        "{}",
        finding.message
    );
    facts.policies = objects(policies[1..].to_vec()).map(Some);
    let all = check(&facts);
    assert!(
        find(&all, "admission-policies")
            .iter()
            .any(|it| it.message.contains("missing: agent-writes-own-peer"))
    );
    facts.policies = Ok(None);
    let finding = only(&facts, "admission-policies");
    assert!(finding.message.contains("not serve"), "{}", finding.message);
    assert!(!finding.action.contains("credential"), "{}", finding.action);
}

#[test]
fn before_an_upgrade_older_definitions_are_no_problem() {
    let operator = |tag: &str| {
        json!({"metadata": {"name": "tieline-operator"}, "spec": {"replicas": 1, "selector": {}, "template": {"spec": {"containers": [
        {"name": "c", "image": format!("tieline.dev/tieline:{tag}")}]}}}})
    };
    let with = |program: &str, tag: &str, agents: &[&str]| {
        let mut found = definitions(tieline_crds::SCHEMA_NUMBER).unwrap();
        found.insert("sites.tieline.dev".into(), Some(0));
        found.remove("peers.tieline.dev");
        Facts {
            version: program.into(),
            definitions: Ok(found),
            deployments: objects([operator(tag)]),
            peers: objects(
                agents
                    .iter()
                    .map(|version| peer(version, version, json!([]))),
            ),
            ..Facts::empty()
        }
    };
    for (what, facts, severity) in [
        (
            "all older",
            with("1.10.0", "1.9.0", &["1.9.0"]),
            Severity::Warning,
        ),
        (
            "no agents yet",
            with("1.10.0", "1.9.0", &[]),
            Severity::Warning,
        ),
        ("the same", with("1.9.0", "1.9.0", &[]), Severity::Problem),
        (
            "one is new already",
            with("1.10.0", "1.9.0", &["1.10.0"]),
            Severity::Problem,
        ),
        (
            "this program is older",
            with("1.8.0", "1.9.0", &[]),
            Severity::Problem,
        ),
        (
            "nobody knows what runs",
            with("1.10.0", "latest", &[]),
            Severity::Problem,
        ),
    ] {
        let all = check(&facts);
        let found = find(&all, "definitions");
        assert_eq!(found.len(), 2, "{what}: {found:#?}");
        for it in found {
            assert_eq!(it.severity, severity, "{what}: {}", it.message);
            assert_eq!(
                it.action.contains("upgrade comes next"),
                severity == Severity::Warning,
                "{what}: {}",
                it.action
            );
        }
    }
}

#[test]
fn a_container_that_does_not_run_is_named_the_init_container_too() {
    let waiting = |name: &str, reason: &str| {
        json!({"name": name, "ready": false, "restartCount": 0, "image": "x", "imageID": "",
        "state": {"waiting": {"reason": reason, "message": "because"}}})
    };
    let initializing = json!([waiting("agent", "PodInitializing")]);
    for (what, status, says) in [
        (
            "an image that is not there, pulled by the init container first",
            json!({"initContainerStatuses": [waiting("boot-guard", "ImagePullBackOff")], "containerStatuses": initializing}),
            Some("container boot-guard: ImagePullBackOff: because"),
        ),
        (
            "the agent itself",
            json!({"containerStatuses": [waiting("agent", "CrashLoopBackOff")]}),
            Some("container agent: CrashLoopBackOff: because"),
        ),
        (
            "one that is on its way",
            json!({"initContainerStatuses": [waiting("boot-guard", "PodInitializing")], "containerStatuses": initializing}),
            None,
        ),
    ] {
        let facts = Facts {
            definitions: definitions(tieline_crds::SCHEMA_NUMBER),
            pods: objects([json!({"metadata": {"name": "tieline-agent-a"}, "status": status})]),
            ..Facts::empty()
        };
        let all = check(&facts);
        let found: Vec<&str> = find(&all, "pod")
            .into_iter()
            .map(|it| it.message.as_str())
            .collect();
        assert_eq!(found, Vec::from_iter(says), "{what}");
    }
}
