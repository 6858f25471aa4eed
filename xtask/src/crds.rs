//! `crds/yaml/` and the chart's `templates/crds/`: one file per kind in each, generated from the Rust types and checked for
//! drift.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::{fs, io};

const HEADER: &str =
    "# Generated from the types in crds/src by `cargo run -p xtask -- crds`. Do not edit.\n";
/// The folders that hold nothing else.
const PLAIN: &str = "crds/yaml";
const CHART: &str = "deploy/helm/tieline/templates/crds";

/// Writes the files and removes those of kinds that are gone. Returns what it did, for people.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write() -> Result<String> {
    let root = crate::root()?;
    for folder in [PLAIN, CHART] {
        fs::create_dir_all(root.join(folder))?;
    }
    let wanted = wanted()?;
    for path in found()?.keys().filter(|path| !wanted.contains_key(*path)) {
        fs::remove_file(root.join(path))?;
    }
    for (path, text) in &wanted {
        fs::write(root.join(path), text).with_context(|| format!("writing {path}"))?;
    }
    Ok(format!(
        "wrote {} files to {PLAIN} and {CHART}",
        wanted.len()
    ))
}

/// Compares the files with the types.
///
/// # Errors
/// When a file is missing, differs or belongs to no kind; the message names the files and the command that helps.
pub(crate) fn check() -> Result<String> {
    let (wanted, found) = (wanted()?, found()?);
    let drifted = drift(&wanted, &found);
    if !drifted.is_empty() {
        let paths: Vec<String> = drifted.into_iter().collect();
        bail!(
            "not what the types in crds/src say: {}; run `cargo run -p xtask -- crds` and commit the result",
            paths.join(", ")
        );
    }
    Ok(format!(
        "{PLAIN} and {CHART}: {} files are what the types say",
        wanted.len()
    ))
}

/// Paths of files that are missing, differ or belong to no kind.
fn drift(wanted: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> BTreeSet<String> {
    wanted
        .keys()
        .chain(found.keys())
        .filter(|name| wanted.get(*name) != found.get(*name))
        .cloned()
        .collect()
}

/// Path below the root, and text.
fn wanted() -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for crd in tieline_crds::all() {
        let name = format!("{}.yaml", crd.spec.names.plural);
        let mut value = serde_json::to_value(&crd).with_context(|| format!("writing {name}"))?;
        whole_numbers(&mut value);
        files.insert(
            format!("{PLAIN}/{name}"),
            format!("{HEADER}{}", yaml(&value)?),
        );
        files.insert(format!("{CHART}/{name}"), template(value)?);
    }
    Ok(files)
}

/// The same definition as a template of the chart: kept on uninstall, because deleting it deletes every object of its kind.
fn template(mut value: Value) -> Result<String> {
    value["metadata"]["annotations"]["helm.sh/resource-policy"] = "keep".into();
    let yaml = yaml(&value)?;
    // Helm would take these for its own.
    ensure!(
        !yaml.contains("{{"),
        "a text of {} holds two opening braces, which a chart cannot carry",
        value["metadata"]["name"]
    );
    Ok(format!(
        "{HEADER}{{{{- if .Values.crds.install }}}}\n{yaml}{{{{- end }}}}\n"
    ))
}

fn yaml(value: &Value) -> Result<String> {
    serde_norway::to_string(value)
        .with_context(|| format!("writing {} as YAML", value["metadata"]["name"]))
}

/// Bounds are floating-point numbers in the CRD's Rust types; people write `3`, not `3.0`.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            // Only bounds of our own schemas come here; all of them are far below 2^53.
            if let Some(float) = number
                .as_f64()
                .filter(|float| number.is_f64() && float.fract() == 0.0)
            {
                #[allow(clippy::cast_possible_truncation)]
                let whole = float as i64;
                *value = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

fn found() -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for folder in [PLAIN, CHART] {
        let entries = match fs::read_dir(crate::root()?.join(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("reading {folder}")),
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(".yaml") {
                files.insert(format!("{folder}/{name}"), fs::read_to_string(&path)?);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_committed_yaml_is_what_the_types_say() {
        check().unwrap();
    }

    #[test]
    fn a_changed_a_missing_and_a_left_over_file_are_drift() {
        let wanted = wanted().unwrap();
        assert!(drift(&wanted, &wanted).is_empty());
        let mut found = wanted.clone();
        found.remove("crds/yaml/peers.yaml");
        let chart = "deploy/helm/tieline/templates/crds/sites.yaml";
        found.insert(chart.to_owned(), "kind: Edited".to_owned());
        found.insert("crds/yaml/gone.yaml".to_owned(), String::new());
        let paths: Vec<String> = drift(&wanted, &found).into_iter().collect();
        assert_eq!(
            paths,
            ["crds/yaml/gone.yaml", "crds/yaml/peers.yaml", chart]
        );
    }

    #[test]
    fn the_chart_keeps_every_definition_on_uninstall() {
        let wanted = wanted().unwrap();
        let templates: Vec<_> = wanted
            .iter()
            .filter(|(path, _)| path.starts_with(CHART))
            .collect();
        assert_eq!(templates.len(), tieline_crds::all().len());
        for (path, text) in templates {
            assert!(text.contains("helm.sh/resource-policy: keep"), "{path}");
        }
    }
}
