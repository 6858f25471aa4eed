//! Structural schemas: the part of JSON Schema that Kubernetes has, for the keywords that our CRDs use.
//!
//! A keyword that is not known here is an error when the schema is read, never silently ignored: a test reads all CRDs.

use super::Violation;
use regex::Regex;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A violation, and whether it is only a field that the API server would drop with a warning.
pub(super) struct Found {
    pub(super) violation: Violation,
    pub(super) unknown_field: bool,
}

/// A schema, ready to judge values.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Structure {
    r#type: Type,
    #[serde(default)]
    properties: BTreeMap<String, Structure>,
    #[serde(default)]
    required: BTreeSet<String>,
    additional_properties: Option<Box<Structure>>,
    min_properties: Option<usize>,
    max_properties: Option<usize>,
    items: Option<Box<Structure>>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    #[serde(rename = "x-kubernetes-list-type")]
    list_type: Option<ListType>,
    #[serde(default, rename = "x-kubernetes-list-map-keys")]
    list_map_keys: Vec<String>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    #[serde(default, deserialize_with = "pattern")]
    pattern: Option<Regex>,
    #[serde(rename = "enum")]
    one_of: Option<Vec<Value>>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    // Known, and judged elsewhere or not at all.
    #[serde(rename = "description")]
    _description: Option<String>,
    #[serde(rename = "format")]
    _format: Option<String>,
    #[serde(rename = "x-kubernetes-map-type")]
    _map_type: Option<String>,
    #[serde(rename = "x-kubernetes-validations")]
    _rules: Option<Value>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    Object,
    Array,
    String,
    Integer,
    Boolean,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ListType {
    Atomic,
    Set,
    Map,
}

fn pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Regex>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    Regex::new(&text)
        .map(Some)
        .map_err(serde::de::Error::custom)
}

impl Structure {
    /// Reads a schema.
    ///
    /// # Errors
    /// When a keyword is not known here.
    pub(super) fn read(schema: &Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(schema)
    }

    /// Judges a whole object, whose `apiVersion`, `kind` and `metadata` no schema describes.
    pub(super) fn judge_root(&self, object: &Value) -> Vec<Found> {
        let mut found = Vec::new();
        let mut rest = object.as_object().cloned().unwrap_or_default();
        for key in ["apiVersion", "kind", "metadata"] {
            rest.remove(key);
        }
        self.judge(&Value::Object(rest), "", &mut found);
        found
    }

    fn judge(&self, value: &Value, path: &str, found: &mut Vec<Found>) {
        match (self.r#type, value) {
            (Type::Object, Value::Object(fields)) => self.object(fields, path, found),
            (Type::Array, Value::Array(items)) => self.array(items, path, found),
            (Type::String, Value::String(text)) => self.string(text, path, found),
            (Type::Integer, Value::Number(number)) if is_whole(number) => {
                self.number(number, path, found)
            }
            (Type::Boolean, Value::Bool(_)) => {}
            (wanted, _) => {
                return refuse(
                    found,
                    path,
                    format!(
                        "{} stands here: write {}",
                        in_words(value),
                        wanted.in_words()
                    ),
                );
            }
        }
        if let Some(allowed) = &self.one_of
            && !allowed.contains(value)
        {
            let allowed: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
            refuse(
                found,
                path,
                format!(
                    "{value} is not possible: write one of {}",
                    allowed.join(", ")
                ),
            );
        }
    }

    fn object(&self, fields: &Map<String, Value>, path: &str, found: &mut Vec<Found>) {
        for key in self
            .required
            .iter()
            .filter(|key| !fields.contains_key(*key))
        {
            refuse(
                found,
                &join(path, key),
                "missing: this field is required".to_owned(),
            );
        }
        between(
            fields.len(),
            self.min_properties,
            self.max_properties,
            "entries",
            path,
            found,
        );
        for (key, value) in fields {
            match self
                .properties
                .get(key)
                .or(self.additional_properties.as_deref())
            {
                Some(schema) => schema.judge(value, &join(path, key), found),
                None => found.push(Found {
                    violation: Violation::new(join(path, key), self.unknown_field()),
                    unknown_field: true,
                }),
            }
        }
    }

    fn unknown_field(&self) -> String {
        let known: Vec<&str> = self.properties.keys().map(String::as_str).collect();
        format!("no such field: there are {}", known.join(", "))
    }

    fn array(&self, items: &[Value], path: &str, found: &mut Vec<Found>) {
        between(
            items.len(),
            self.min_items,
            self.max_items,
            "items",
            path,
            found,
        );
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if let Some(schema) = &self.items {
                schema.judge(item, &path, found);
            }
            let identity = match self.list_type {
                Some(ListType::Set) => item.to_string(),
                Some(ListType::Map) => self
                    .list_map_keys
                    .iter()
                    .map(|key| item[key].to_string())
                    .collect::<Vec<_>>()
                    .join(" "),
                Some(ListType::Atomic) | None => continue,
            };
            if !seen.insert(identity.clone()) {
                refuse(
                    found,
                    &path,
                    format!("{identity} stands here twice: write it once"),
                );
            }
        }
    }

    fn string(&self, text: &str, path: &str, found: &mut Vec<Found>) {
        between(
            text.chars().count(),
            self.min_length,
            self.max_length,
            "characters",
            path,
            found,
        );
        if let Some(pattern) = self
            .pattern
            .as_ref()
            .filter(|pattern| !pattern.is_match(text))
        {
            refuse(
                found,
                path,
                format!("{text:?} does not match {}", pattern.as_str()),
            );
        }
    }

    fn number(&self, number: &serde_json::Number, path: &str, found: &mut Vec<Found>) {
        let value = number.as_f64().unwrap_or(f64::NAN);
        if self.minimum.is_some_and(|least| value < least)
            || self.maximum.is_some_and(|most| value > most)
        {
            let range = match (self.minimum, self.maximum) {
                (Some(least), Some(most)) => format!("{least} to {most}"),
                (Some(least), None) => format!("{least} or more"),
                (_, most) => format!("at most {}", most.unwrap_or(f64::MAX)),
            };
            refuse(
                found,
                path,
                format!("{number} is not possible: write {range}"),
            );
        }
    }
}

impl Type {
    fn in_words(self) -> &'static str {
        match self {
            Self::Object => "an object (field: value)",
            Self::Array => "a list",
            Self::String => "a text",
            Self::Integer => "a whole number",
            Self::Boolean => "true or false",
        }
    }
}

fn in_words(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn is_whole(number: &serde_json::Number) -> bool {
    number.is_i64() || number.is_u64()
}

fn between(
    count: usize,
    least: Option<usize>,
    most: Option<usize>,
    of: &str,
    path: &str,
    found: &mut Vec<Found>,
) {
    if let Some(least) = least.filter(|least| count < *least) {
        refuse(found, path, format!("{count} {of}: write at least {least}"));
    }
    if let Some(most) = most.filter(|most| count > *most) {
        refuse(found, path, format!("{count} {of}: write at most {most}"));
    }
}

fn refuse(found: &mut Vec<Found>, path: &str, message: String) {
    found.push(Found {
        violation: Violation::new(path, message),
        unknown_field: false,
    });
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
