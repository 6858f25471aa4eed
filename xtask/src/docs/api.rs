//! The API reference: every kind and field, with type, default and bounds, and the words in which the API server refuses.

use super::cell;
use anyhow::Result;
use serde_json::Value;
use std::fmt::Write as _;
use tieline_crds::KINDS;

const HEAD: &str = "\
# API reference

<!-- Generated from the types in crds/src by `make docs`. Do not edit. -->

Group and version: `tieline.dev/v1alpha1`. `kubectl explain clusterlink.spec` shows the same text on a cluster.

Users write ClusterLink, Cluster, Site and VpnAttachment; the operator and the agents write the others. The column *default* says what an
absent field means. Numbers in brackets point to the rules below each kind: the words in which the API server refuses a value, or the
pattern that it must match. Every `conditions` is a list of Kubernetes conditions: `type`, `status`, `reason`, `message`,
`lastTransitionTime`, `observedGeneration`; [troubleshooting](troubleshooting.md) has their reasons.

";
/// The page.
pub(super) fn page() -> Result<String> {
    let definitions = KINDS.iter().map(|kind| {
        let definition = serde_json::to_value(kind.definition())?;
        Ok((kind.kind.as_str(), definition))
    });
    let kinds: Vec<(&str, Value)> = definitions.collect::<Result<_>>()?;
    let mut page = HEAD.to_owned();
    for (kind, _) in &kinds {
        let _ = writeln!(page, "* [{kind}](#{})", kind.to_lowercase());
    }
    for (kind, crd) in &kinds {
        page.push_str(&section(kind, crd));
    }
    Ok(page)
}

fn section(kind: &str, crd: &Value) -> String {
    let names = &crd["spec"]["names"];
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let short: Vec<&str> = items(&names["shortNames"]).iter().map(text).collect();
    let scope = match text(&crd["spec"]["scope"]) {
        "Namespaced" => "in a namespace",
        _ => "cluster-wide",
    };
    let mut rules = Rules::default();
    let own = rules.of(schema);
    let mut out = format!(
        "\n## {kind}\n\n{}\n\n`{}`, short `{}`; {scope}.{}\n",
        text(&schema["description"]),
        text(&names["plural"]),
        short.join("`, `"),
        if own.is_empty() {
            String::new()
        } else {
            format!(" Name: {own}.")
        },
    );
    for part in ["spec", "status"] {
        let found = &schema["properties"][part];
        if found.is_null() {
            continue;
        }
        let header = match part {
            "spec" => "| field | type and bounds | default | meaning |\n|---|---|---|---|",
            _ => "| field | type and bounds | meaning |\n|---|---|---|",
        };
        let _ = write!(
            out,
            "\n### {kind} {part}\n\n{}{}\n\n{header}\n",
            text(&found["description"]),
            suffix(&rules.of(found)),
        );
        rows(&mut out, &mut rules, found, "", part == "spec");
    }
    out.push_str(&rules.list());
    out
}

/// One row for each field below `schema`, depth first.
fn rows(out: &mut String, rules: &mut Rules, schema: &Value, path: &str, defaults: bool) {
    let Some(fields) = schema["properties"].as_object() else {
        return;
    };
    let required: Vec<&str> = items(&schema["required"]).iter().map(text).collect();
    for (name, field) in fields {
        let path = format!("{path}{name}");
        let (meaning, default) = meaning(field);
        let default = if !defaults {
            String::new()
        } else if required.contains(&name.as_str()) {
            " *required* |".to_owned()
        } else {
            let default = default.unwrap_or_else(|| absent(field).to_owned());
            format!(" {} |", cell(&default))
        };
        let _ = writeln!(
            out,
            "| `{path}` | {} |{default} {} |",
            cell(&shape(field, rules)),
            cell(&meaning),
        );
        if name == "conditions" {
            continue;
        }
        let (below, path) = match &field["items"] {
            Value::Null => (field, format!("{path}.")),
            entries => (entries, format!("{path}[].")),
        };
        rows(out, rules, below, &path, defaults);
    }
}

/// What an optional field without words of its own means when it is absent.
fn absent(field: &Value) -> &'static str {
    match text(&field["type"]) {
        "boolean" => "false",
        "array" => "empty",
        _ => "–",
    }
}

/// The description without what it says about absence, and that.
fn meaning(field: &Value) -> (String, Option<String>) {
    let description = text(&field["description"]);
    if let Some((before, value)) = description
        .split_once(" (the default)")
        .and_then(|(before, _)| Some((before, before.rsplit('`').nth(1)?)))
    {
        let meaning = description.replacen(" (the default)", "", 1);
        debug_assert!(meaning.starts_with(before));
        return (meaning, Some(value.to_owned()));
    }
    for begin in ["Without it: ", "Without it, "] {
        if let Some((before, after)) = description.split_once(begin) {
            let (default, rest) = after
                .split_once(". ")
                .unwrap_or((after.trim_end_matches('.'), ""));
            let meaning = format!("{} {rest}", before.trim());
            return (meaning.trim().to_owned(), Some(default.to_owned()));
        }
    }
    (description.to_owned(), None)
}

/// Type, bounds and the numbers of its rules.
fn shape(field: &Value, rules: &mut Rules) -> String {
    let entries = &field["items"];
    let kind = match text(&field["type"]) {
        "array" => format!("[]{}", text(&entries["type"])),
        "object" if !field["additionalProperties"].is_null() => {
            format!("map of {}", text(&field["additionalProperties"]["type"]))
        }
        other => other.to_owned(),
    };
    let mut parts = vec![kind];
    let values: Vec<String> = items(&field["enum"])
        .iter()
        .map(|value| format!("`{}`", text(value)))
        .collect();
    if !values.is_empty() {
        parts = vec![values.join(" or ")];
    }
    parts.extend(range(field, "minimum", "maximum", ""));
    parts.extend(range(field, "minItems", "maxItems", " entries"));
    parts.extend(range(field, "minProperties", "maxProperties", " entries"));
    parts.extend(range(field, "minLength", "maxLength", " characters"));
    parts.extend(range(entries, "minLength", "maxLength", " characters each"));
    let mut numbers = rules.of(field);
    // An entry that has fields has rows of its own; its rules belong to the list.
    numbers.push_str(&rules.of(entries));
    parts.join(", ") + &suffix(&numbers)
}

fn range(schema: &Value, low: &str, high: &str, unit: &str) -> Option<String> {
    // The derive writes bounds as floating-point numbers; all of ours are whole.
    let bound = |key: &str| schema[key].as_f64().map(|bound| format!("{bound:.0}"));
    match (bound(low), bound(high)) {
        (Some(low), Some(high)) if low == high => Some(format!("{low}{unit}")),
        (Some(low), Some(high)) if low == "0" => Some(format!("up to {high}{unit}")),
        (Some(low), Some(high)) => Some(format!("{low} to {high}{unit}")),
        (Some(low), None) => Some(format!("at least {low}{unit}")),
        (None, Some(high)) => Some(format!("up to {high}{unit}")),
        (None, None) => None,
    }
}

fn suffix(numbers: &str) -> String {
    if numbers.is_empty() {
        String::new()
    } else {
        format!(" {numbers}")
    }
}

/// Rules of one kind; the same words have the same number.
#[derive(Default)]
struct Rules(Vec<String>);

impl Rules {
    /// The numbers of what a schema itself asks for, in brackets.
    fn of(&mut self, schema: &Value) -> String {
        let mut words: Vec<String> = items(&schema["x-kubernetes-validations"])
            .iter()
            .map(|rule| text(&rule["message"]).to_owned())
            .collect();
        if let Some(pattern) = schema["pattern"].as_str() {
            words.push(format!("matches `{pattern}`"));
        }
        words
            .into_iter()
            .map(|word| {
                let known = self.0.iter().position(|it| *it == word);
                let index = known.unwrap_or_else(|| {
                    self.0.push(word);
                    self.0.len() - 1
                });
                format!("[{}]", index + 1)
            })
            .collect()
    }

    fn list(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let mut out = "\nRules:\n\n".to_owned();
        for (index, rule) in self.0.iter().enumerate() {
            let _ = writeln!(out, "{}. {rule}", index + 1);
        }
        out
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn every_field_of_every_kind_has_a_row_and_every_rule_its_words() {
        fn count(schema: &Value) -> usize {
            let fields = schema["properties"].as_object().into_iter().flatten();
            fields
                .map(|(name, field)| {
                    let below = if field["items"].is_null() {
                        field
                    } else {
                        &field["items"]
                    };
                    1 + if name == "conditions" {
                        0
                    } else {
                        count(below)
                    }
                })
                .sum()
        }
        let page = page().unwrap();
        let mut fields = 0;
        for crd in tieline_crds::all() {
            let value = serde_json::to_value(&crd).unwrap();
            let schema = &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            // spec and status have a heading instead of a row.
            fields += count(schema) - schema["properties"].as_object().unwrap().len();
            for rule in messages(schema) {
                assert!(page.contains(&rule), "{rule}");
            }
        }
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, fields);
    }

    fn messages(value: &Value) -> Vec<String> {
        match value {
            Value::Object(map) => map
                .iter()
                .flat_map(|(key, value)| match (key.as_str(), value) {
                    ("message", Value::String(message)) => vec![message.clone()],
                    _ => messages(value),
                })
                .collect(),
            Value::Array(values) => values.iter().flat_map(messages).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn defaults_are_taken_from_the_words_of_the_description() {
        let of = |words: &str| meaning(&json!({"description": words}));
        assert_eq!(
            of("How many. Without it: 1."),
            ("How many.".to_owned(), Some("1".to_owned()))
        );
        assert_eq!(
            of("`Site` (the default): shared. `Node`: each."),
            (
                "`Site`: shared. `Node`: each.".to_owned(),
                Some("Site".to_owned())
            )
        );
        assert_eq!(of("A name."), ("A name.".to_owned(), None));
    }

    #[test]
    fn bounds_are_written_as_people_do() {
        let mut rules = Rules::default();
        let field = json!({"type": "integer", "minimum": 1.0, "maximum": 4.0});
        assert_eq!(shape(&field, &mut rules), "integer, 1 to 4");
        let list = json!({"type": "array", "maxItems": 64, "items": {"type": "string", "maxLength": 43, "pattern": "^a$"}});
        assert_eq!(
            shape(&list, &mut rules),
            "[]string, up to 64 entries, up to 43 characters each [1]"
        );
        assert_eq!(rules.list(), "\nRules:\n\n1. matches `^a$`\n");
    }
}
