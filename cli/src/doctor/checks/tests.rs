#![allow(clippy::unwrap_used)]

use super::*;
use crate::doctor::facts::Kubernetes;
use crate::doctor::rights::{
    AGENT_MUST_NOT, AGENT_NEEDS, Access, CALLER_NEEDS, OPERATOR_NEEDS, Rule, Who, actions,
};
use k8s_openapi::serde_json::{Value, json};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

mod install;
mod mesh;
mod pod_network;
mod pods;

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

/// Fails unless a check has one finding of this severity with these words in it; `what`: the case.
fn says_once(facts: &Facts, id: &str, severity: Severity, words: &str, what: &str) {
    let finding = only(facts, id);
    assert_eq!(finding.severity, severity, "{what}: {}", finding.message);
    assert!(
        finding.message.contains(words),
        "{what}: {}",
        finding.message
    );
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
