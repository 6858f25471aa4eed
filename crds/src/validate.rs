//! The API server's checks, offline: does an object fit its CRD?
//!
//! `tieline plan -f` reads files that no API server has seen. Here they meet the same schema: types, required and
//! unknown fields, bounds, patterns and enums by [`structural`], then the CEL rules by kube-cel. Like the API server,
//! rules run only on an object whose structure holds, and nulls count as absent.
//!
//! Not checked: the contents of `metadata` beyond the name, which are the same for all of Kubernetes.

mod structural;

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use structural::Structure;

/// One thing that the API server would refuse.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Path of the field, as in `spec.pods.cidrs[1]`; empty for the object as a whole.
    pub field: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl Violation {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Everything that the API server would refuse when the object is created. Empty: it would be accepted.
#[must_use]
pub fn validate(object: &Value) -> Vec<Violation> {
    judge(object, None)
}

/// Everything that the API server would refuse when the object replaces `old`, which adds the rules about changes.
#[must_use]
pub fn validate_update(object: &Value, old: &Value) -> Vec<Violation> {
    judge(object, Some(old))
}

fn judge(object: &Value, old: Option<&Value>) -> Vec<Violation> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let api_version = format!("{}/{}", crate::GROUP, crate::VERSION);
    if text("apiVersion") != api_version {
        return vec![Violation::new(
            "apiVersion",
            format!("{:?} is not ours: write {api_version}", text("apiVersion")),
        )];
    }
    KINDS.with(|kinds| {
        let Some(kind) = kinds.get(text("kind")) else {
            let known: Vec<&str> = kinds.keys().map(String::as_str).collect();
            return vec![Violation::new(
                "kind",
                format!(
                    "{:?} is no kind of ours: write one of {}",
                    text("kind"),
                    known.join(", ")
                ),
            )];
        };
        kind.judge(&without_nulls(object), old.map(without_nulls).as_ref())
    })
}

thread_local! {
    /// Schemas are compiled once per thread; kube-cel's rules cannot be shared between threads.
    static KINDS: BTreeMap<String, Kind> = crate::all().iter().filter_map(Kind::of).collect();
}

/// A kind, ready to judge objects.
struct Kind {
    structure: Structure,
    rules: kube_cel::CompiledSchema,
}

impl Kind {
    fn of(
        crd: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    ) -> Option<(String, Self)> {
        let schema = crd
            .spec
            .versions
            .first()?
            .schema
            .as_ref()?
            .open_api_v3_schema
            .as_ref()?;
        let schema = serde_json::to_value(schema).ok()?;
        let structure = Structure::read(&schema).ok()?;
        Some((
            crd.spec.names.kind.clone(),
            Self {
                structure,
                rules: kube_cel::compile_schema(&schema),
            },
        ))
    }

    fn judge(&self, object: &Value, old: Option<&Value>) -> Vec<Violation> {
        let mut violations = Vec::new();
        name(object, &mut violations);
        let found = self.structure.judge_root(object);
        let sound = violations.is_empty() && found.iter().all(|it| it.unknown_field);
        violations.extend(found.into_iter().map(|it| it.violation));
        if sound && let Err(errors) = kube_cel::validate_compiled(&self.rules, object, old) {
            violations.extend(
                errors
                    .into_vec()
                    .into_iter()
                    .map(|error| Violation::new(error.field_path, error.message)),
            );
        }
        violations
    }
}

/// Kubernetes' own rule for names: a DNS subdomain, whose labels may be as long as the whole.
fn name(object: &Value, violations: &mut Vec<Violation>) {
    let name = object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |text: &str| {
        text.starts_with(edge) && text.ends_with(edge) && text.chars().all(|c| edge(c) || c == '-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        violations.push(Violation::new(
            "metadata.name",
            format!("{name:?} is no name: write lower-case letters, digits, '-' or '.', at most 253 characters"),
        ));
    }
}

/// As the API server prunes nulls of fields that may not be null; none of ours may.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, it)| !it.is_null())
            .map(|(key, it)| (key.clone(), without_nulls(it)))
            .collect(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
