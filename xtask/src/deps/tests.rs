#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::{Value, json};

#[test]
fn the_workspace_keeps_its_rules() {
    check().unwrap();
}

#[test]
fn core_must_not_use_tokio() {
    let forbidden = judge(&workspace(&[("tieline-core", &["tokio"])]));
    assert_eq!(
        forbidden,
        ["tieline-core must not use tokio (through tokio)"]
    );
}

#[test]
fn core_must_not_use_tokio_behind_another_crate() {
    let forbidden = judge(&workspace(&[
        ("tieline-core", &["harmless"]),
        ("harmless", &["tokio"]),
    ]));
    assert_eq!(
        forbidden,
        ["tieline-core must not use tokio (through harmless -> tokio)"]
    );
}

#[test]
fn core_must_not_use_the_api_types() {
    let forbidden = judge(&workspace(&[
        ("tieline-core", &["tieline-crds"]),
        ("tieline-crds", &[]),
    ]));
    assert_eq!(forbidden, ["tieline-core must not use tieline-crds"]);
}

#[test]
fn the_agent_must_not_use_the_operator() {
    let forbidden = judge(&workspace(&[
        ("tieline-agent", &["tieline-operator"]),
        ("tieline-operator", &[]),
    ]));
    assert_eq!(forbidden, ["tieline-agent must not use tieline-operator"]);
}

#[test]
fn the_operator_must_not_use_netlink_and_the_agent_may() {
    let edges: &[(&str, &[&str])] = &[
        ("tieline-operator", &["netlink-proto"]),
        ("tieline-agent", &["netlink-proto"]),
    ];
    assert_eq!(
        judge(&workspace(edges)),
        ["tieline-operator must not use netlink-proto (through netlink-proto)"]
    );
}

#[test]
fn the_api_types_must_not_ask_for_kubes_client() {
    let mut metadata = metadata(&[("tieline-crds", &["kube"])]);
    metadata["packages"][0]["dependencies"][0]["features"] = json!(["derive", "client"]);
    let forbidden = judge(&serde_json::from_value(metadata).unwrap());
    assert_eq!(
        forbidden,
        ["tieline-crds must not use the feature kube/client"]
    );
}

#[test]
fn a_crate_without_a_rule_is_refused() {
    let forbidden = judge(&workspace(&[("tieline-extra", &[])]));
    assert_eq!(forbidden.len(), 1);
    assert!(forbidden[0].contains("no rule"), "{forbidden:?}");
}

#[test]
fn development_dependencies_are_not_judged() {
    let mut metadata = metadata(&[("tieline-core", &["tokio"])]);
    metadata["packages"][0]["dependencies"][0]["kind"] = json!("dev");
    metadata["resolve"]["nodes"][0]["deps"][0]["dep_kinds"] = json!([{"kind": "dev"}]);
    assert!(judge(&serde_json::from_value(metadata).unwrap()).is_empty());
}

fn workspace(edges: &[(&str, &[&str])]) -> Metadata {
    serde_json::from_value(metadata(edges)).unwrap()
}

/// As `cargo metadata` would print a workspace with these dependencies. Names of ours are members.
fn metadata(edges: &[(&str, &[&str])]) -> Value {
    let mut names: Vec<&str> = edges.iter().map(|(name, _)| *name).collect();
    for name in edges.iter().flat_map(|(_, used)| used.iter()) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let used = |name: &str| {
        edges
            .iter()
            .find(|(from, _)| *from == name)
            .map_or(&[][..], |(_, used)| *used)
    };
    json!({
        "packages": names.iter().map(|name| json!({
            "id": name, "name": name,
            "dependencies": used(name).iter().map(|used| json!({
                "name": used, "kind": null, "features": [], "uses_default_features": false,
            })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "workspace_members": names.iter().filter(|name| name.starts_with("tieline-")).collect::<Vec<_>>(),
        "resolve": {"nodes": names.iter().map(|name| json!({
            "id": name,
            "deps": used(name).iter().map(|used| json!({"pkg": used, "dep_kinds": [{"kind": null}]})).collect::<Vec<_>>(),
        })).collect::<Vec<_>>()},
    })
}
