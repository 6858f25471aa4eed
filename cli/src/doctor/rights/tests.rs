//! The lists here are what the rendered Roles grant.

#![allow(clippy::unwrap_used)]

use super::*;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject,
};
use k8s_openapi::serde_json::Value;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;

/// Verb, group, resource, name of one object or nothing, and namespace or nothing.
type Grant = [String; 5];

fn objects() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        all.extend(
            serde_norway::Deserializer::from_str(&text)
                .map(|part| Value::deserialize(part).unwrap()),
        );
    }
    all
}

fn of<T: serde::de::DeserializeOwned>(objects: &[Value], kind: &str) -> Vec<T> {
    let found = objects.iter().filter(|object| object["kind"] == kind);
    found
        .map(|object| serde_json::from_value(object.clone()).unwrap())
        .collect()
}

fn grants(rules: Option<Vec<PolicyRule>>, namespace: &str) -> BTreeSet<Grant> {
    let mut all = BTreeSet::new();
    for rule in rules.unwrap_or_default() {
        assert!(rule.non_resource_urls.is_none(), "{rule:?}");
        let names = rule.resource_names.unwrap_or_else(|| vec![String::new()]);
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for name in &names {
                    all.extend(rule.verbs.iter().map(|verb| {
                        [verb, group, resource, name, namespace].map(ToString::to_string)
                    }));
                }
            }
        }
    }
    all
}

/// What an account is granted by all bindings that name it.
fn granted(objects: &[Value], account: &str) -> BTreeSet<Grant> {
    let names = |subjects: &Option<Vec<Subject>>| {
        let mut subjects = subjects.iter().flatten();
        subjects.any(|it| it.name == account)
    };
    let mut all = BTreeSet::new();
    let cluster_roles: Vec<ClusterRole> = of(objects, "ClusterRole");
    for binding in of::<ClusterRoleBinding>(objects, "ClusterRoleBinding") {
        if names(&binding.subjects) {
            let role = cluster_roles
                .iter()
                .find(|role| role.metadata.name.as_ref() == Some(&binding.role_ref.name))
                .unwrap();
            all.extend(grants(role.rules.clone(), ""));
        }
    }
    let roles: Vec<Role> = of(objects, "Role");
    for binding in of::<RoleBinding>(objects, "RoleBinding") {
        if names(&binding.subjects) {
            assert_eq!(binding.role_ref.kind, "Role");
            let namespace = binding.metadata.namespace.unwrap();
            let role = roles
                .iter()
                .find(|role| {
                    role.metadata.namespace.as_ref() == Some(&namespace)
                        && role.metadata.name.as_ref() == Some(&binding.role_ref.name)
                })
                .unwrap();
            all.extend(grants(role.rules.clone(), &namespace));
        }
    }
    all
}

fn asked(rules: &[Rule]) -> BTreeSet<Grant> {
    let namespace = |place| match place {
        Place::Cluster => "",
        Place::Ours => "tieline-system",
        Place::Mesh => "tieline-mesh",
        Place::Default => "default",
    };
    actions(rules)
        .into_iter()
        .map(|it| {
            [it.verb, it.group, it.resource, it.name, namespace(it.place)].map(ToOwned::to_owned)
        })
        .collect()
}

#[test]
fn what_is_asked_of_operator_and_agents_is_what_the_roles_grant() {
    let objects = objects();
    for (account, rules) in [
        ("tieline-operator", OPERATOR_NEEDS),
        ("tieline-agent", AGENT_NEEDS),
    ] {
        let (granted, asked) = (granted(&objects, account), asked(rules));
        assert!(granted.len() > 10, "{account}: {granted:?}");
        let unasked: Vec<_> = granted.difference(&asked).collect();
        assert!(unasked.is_empty(), "{account}, not asked: {unasked:?}");
        let ungranted: Vec<_> = asked.difference(&granted).collect();
        assert!(
            ungranted.is_empty(),
            "{account}, not granted: {ungranted:?}"
        );
    }
    let forbidden = asked(AGENT_MUST_NOT);
    assert!(granted(&objects, "tieline-agent").is_disjoint(&forbidden));
}

#[test]
fn an_action_says_where_when_it_is_not_where_everything_is() {
    let texts: Vec<String> = actions(AGENT_NEEDS)
        .iter()
        .map(ToString::to_string)
        .collect();
    for text in [
        "get customresourcedefinitions.apiextensions.k8s.io peers.tieline.dev",
        "update peers/status.tieline.dev",
        "watch peers.tieline.dev",
        "watch peers.tieline.dev in the namespace of mirrors",
    ] {
        assert!(texts.iter().any(|it| it == text), "{text}: {texts:?}");
    }
}
