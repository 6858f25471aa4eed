//! `crds/yaml/`: one file per kind, generated from the Rust types and checked for drift.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::{fs, io};

const HEADER: &str =
    "# Generated from the types in crds/src by `cargo run -p xtask -- crds`. Do not edit.\n";

/// Writes the files and removes those of kinds that are gone. Returns what it did, for people.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write() -> Result<String> {
    let folder = folder()?;
    fs::create_dir_all(&folder)?;
    let wanted = wanted()?;
    for name in found()?.keys().filter(|name| !wanted.contains_key(*name)) {
        fs::remove_file(folder.join(name))?;
    }
    for (name, text) in &wanted {
        fs::write(folder.join(name), text).with_context(|| format!("writing crds/yaml/{name}"))?;
    }
    Ok(format!("wrote {} files to crds/yaml", wanted.len()))
}

/// Compares the files with the types.
///
/// # Errors
/// When a file is missing, differs or belongs to no kind; the message names the files and the command that helps.
pub(crate) fn check() -> Result<String> {
    let (wanted, found) = (wanted()?, found()?);
    let drifted = drift(&wanted, &found);
    if !drifted.is_empty() {
        let names: Vec<String> = drifted
            .into_iter()
            .map(|name| format!("crds/yaml/{name}"))
            .collect();
        bail!(
            "not what the types in crds/src say: {}; run `cargo run -p xtask -- crds` and commit the result",
            names.join(", ")
        );
    }
    Ok(format!(
        "crds/yaml: {} files are what the types say",
        wanted.len()
    ))
}

/// Names of files that are missing, differ or belong to no kind.
fn drift(wanted: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> BTreeSet<String> {
    wanted
        .keys()
        .chain(found.keys())
        .filter(|name| wanted.get(*name) != found.get(*name))
        .cloned()
        .collect()
}

fn folder() -> Result<PathBuf> {
    Ok(crate::root()?.join("crds/yaml"))
}

fn wanted() -> Result<BTreeMap<String, String>> {
    tieline_crds::all()
        .iter()
        .map(|crd| {
            let name = format!("{}.yaml", crd.spec.names.plural);
            let mut value = serde_json::to_value(crd).with_context(|| format!("writing {name}"))?;
            whole_numbers(&mut value);
            let yaml = serde_norway::to_string(&value)
                .with_context(|| format!("writing {name} as YAML"))?;
            Ok((name, format!("{HEADER}{yaml}")))
        })
        .collect()
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
    let entries = match fs::read_dir(folder()?) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(error).context("reading crds/yaml"),
    };
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            files.insert(name, fs::read_to_string(&path)?);
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
        found.remove("peers.yaml");
        found.insert("sites.yaml".to_owned(), "kind: Edited".to_owned());
        found.insert("gone.yaml".to_owned(), String::new());
        let names: Vec<String> = drift(&wanted, &found).into_iter().collect();
        assert_eq!(names, ["gone.yaml", "peers.yaml", "sites.yaml"]);
    }
}
