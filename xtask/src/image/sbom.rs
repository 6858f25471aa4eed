//! What is in the image, as CycloneDX 1.5: every crate that is linked into the programs, and Debian's packages around `nft`.

use super::Arch;
use super::nft::Nft;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// The document, without a time or a random number: the same image has the same one.
///
/// # Errors
/// `cargo metadata` failed, or a program is no package.
pub(super) fn write(arch: Arch, version: &str, programs: &[&str], nft: &Nft) -> Result<String> {
    let metadata = metadata(arch)?;
    let mut components = crates(&metadata, programs)?;
    ensure!(!components.is_empty(), "cargo metadata names no crate");
    components.extend(nft.packages.iter().map(|(name, version)| {
        json!({
            "type": "library",
            "name": name,
            "version": version,
            "purl": format!("pkg:deb/debian/{name}@{}?arch={}", version.replace(':', "%3A").replace('+', "%2B"), arch.name()),
        })
    }));
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "name": "tieline",
                "version": version,
                "licenses": [{"expression": env!("CARGO_PKG_LICENSE")}],
            },
            "properties": [
                {"name": "tieline:architecture", "value": arch.name()},
                {"name": "tieline:target", "value": arch.target()},
            ],
        },
        "components": components,
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn metadata(arch: Arch) -> Result<Value> {
    let output = Command::new("cargo")
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
        ])
        .arg(arch.target())
        .current_dir(crate::root()?)
        .output()
        .context("running cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("reading cargo metadata")
}

/// Crates that are linked in: reached over ordinary dependencies, not those of builds and tests.
fn crates(metadata: &Value, programs: &[&str]) -> Result<Vec<Value>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let edges: BTreeMap<String, Vec<String>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            let linked = list(&node["deps"]).into_iter().filter(|dep| {
                list(&dep["dep_kinds"])
                    .iter()
                    .any(|kind| kind["kind"].is_null())
            });
            (
                text(&node["id"]),
                linked.map(|dep| text(&dep["pkg"])).collect(),
            )
        })
        .collect();
    let mut open = Vec::new();
    for program in programs {
        let id = packages
            .iter()
            .find(|(_, package)| package["name"] == *program);
        open.push(
            id.with_context(|| format!("no package {program}"))?
                .0
                .clone(),
        );
    }
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id.clone()) {
            open.extend(edges.get(&id).into_iter().flatten().cloned());
        }
    }
    let mut found: Vec<(String, String, Value)> = seen
        .iter()
        .filter_map(|id| packages.get(id))
        .map(|package| {
            let (name, version) = (text(&package["name"]), text(&package["version"]));
            let mut component = json!({
                "type": "library", "name": name, "version": version,
                "purl": format!("pkg:cargo/{name}@{version}"),
            });
            if let Some(license) = package["license"].as_str() {
                // The old way of writing OR is no expression of today.
                component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
            }
            (name, version, component)
        })
        .collect();
    found.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    Ok(found
        .into_iter()
        .map(|(_, _, component)| component)
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn build_and_test_dependencies_are_not_linked_in() {
        let dep = |id: &str, kind: Value| json!({"pkg": id, "dep_kinds": [{"kind": kind}]});
        let package = |id: &str| json!({"id": id, "name": id, "version": "1.0.0", "license": "MIT/Apache-2.0"});
        let metadata = json!({
            "packages": [package("app"), package("used"), package("deep"), package("built"), package("tested")],
            "resolve": {"nodes": [
                {"id": "app", "deps": [dep("used", Value::Null), dep("built", json!("build")), dep("tested", json!("dev"))]},
                {"id": "used", "deps": [dep("deep", Value::Null)]},
            ]},
        });
        let found = crates(&metadata, &["app"]).unwrap();
        let names: Vec<&str> = found
            .iter()
            .filter_map(|one| one["name"].as_str())
            .collect();
        assert_eq!(names, ["app", "deep", "used"]);
        assert_eq!(found[0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert!(crates(&metadata, &["other"]).is_err());
    }
}
