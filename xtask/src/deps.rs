//! Dependency edges: which crate may use which, ours and others'.
//!
//! The rules are those of the workspace table in ARCHITECTURE.md. They are judged over `cargo metadata`: the dependency graph
//! that Cargo resolved, so a forbidden crate is found behind any number of others, and the features that each of our
//! crates asks for. Development dependencies are not judged: they reach no binary.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// What one of our crates must not use.
struct Rule {
    /// The crate.
    package: &'static str,
    /// Crates of ours that it may depend on, directly.
    ours: &'static [&'static str],
    /// Crates that must not be in its graph: an exact name, or a prefix that ends in `*`.
    never: &'static [&'static str],
    /// Features that it must not ask for, as `crate/feature`.
    never_feature: &'static [&'static str],
}

const NETLINK: &[&str] = &[
    "netlink-*",
    "rtnetlink",
    "wireguard-control",
    "gotatun",
    "nftables",
];

const RULES: &[Rule] = &[
    Rule {
        package: "tieline-core",
        ours: &[],
        never: &[
            "tokio",
            "tokio-*",
            "futures",
            "futures-*",
            "kube",
            "kube-*",
            "k8s-openapi",
            "netlink-*",
            "rtnetlink",
            "wireguard-control",
            "gotatun",
            "nftables",
            "aws-*",
            "rand",
            "chrono",
            "jiff",
            "time",
            "nix",
        ],
        never_feature: &[],
    },
    Rule {
        package: "tieline-crds",
        ours: &["tieline-core"],
        never: &[
            "tokio",
            "tokio-*",
            "netlink-*",
            "rtnetlink",
            "wireguard-control",
            "gotatun",
            "nftables",
            "aws-*",
            "hyper",
            "hyper-*",
        ],
        never_feature: &["kube/client", "kube/runtime", "kube/config", "kube/default"],
    },
    Rule {
        package: "tieline-client",
        ours: &["tieline-crds"],
        never: NETLINK,
        never_feature: &[],
    },
    Rule {
        package: "tieline-operator",
        ours: &["tieline-core", "tieline-crds", "tieline-client"],
        never: NETLINK,
        never_feature: &[],
    },
    Rule {
        package: "tieline-agent",
        ours: &["tieline-core", "tieline-crds", "tieline-client"],
        never: &["aws-*"],
        never_feature: &[],
    },
    Rule {
        package: "tieline-providers",
        ours: &["tieline-core", "tieline-crds", "tieline-client"],
        never: NETLINK,
        never_feature: &[],
    },
    Rule {
        package: "tieline-cli",
        ours: &["tieline-core", "tieline-crds", "tieline-client"],
        never: NETLINK,
        never_feature: &[],
    },
    Rule {
        package: "xtask",
        ours: &["tieline-core", "tieline-crds"],
        never: &["tokio", "aws-*"],
        never_feature: &[],
    },
];

/// Members that may use everything.
const FREE: &[&str] = &["e2e", "bench", "bench-core"];

/// Judges the workspace as Cargo sees it.
///
/// # Errors
/// When Cargo cannot be asked, or when an edge is forbidden; the message names each.
pub(crate) fn check() -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(crate::root()?)
        .output()
        .context("running cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
    let forbidden = judge(&metadata);
    if !forbidden.is_empty() {
        bail!("forbidden dependencies:\n  {}", forbidden.join("\n  "));
    }
    Ok(format!(
        "dependencies: {} crates keep the rules",
        metadata.workspace_members.len()
    ))
}

/// Every forbidden edge, in words.
fn judge(metadata: &Metadata) -> Vec<String> {
    let packages: BTreeMap<&str, &Package> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package))
        .collect();
    let nodes: BTreeMap<&str, &Node> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let members: BTreeSet<&str> = metadata
        .workspace_members
        .iter()
        .filter_map(|id| Some(packages.get(id.as_str())?.name.as_str()))
        .collect();

    let mut forbidden = Vec::new();
    for id in &metadata.workspace_members {
        let Some(package) = packages.get(id.as_str()) else {
            continue;
        };
        let name = package.name.as_str();
        let Some(rule) = RULES.iter().find(|rule| rule.package == name) else {
            if !FREE.contains(&name) {
                forbidden.push(format!(
                    "{name}: no rule says what it may use; add one to xtask/src/deps.rs"
                ));
            }
            continue;
        };
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
        {
            let used = dependency.name.as_str();
            if members.contains(used) && !rule.ours.contains(&used) {
                forbidden.push(format!("{name} must not use {used}"));
            }
            let mut features: Vec<&str> = dependency.features.iter().map(String::as_str).collect();
            if dependency.uses_default_features {
                features.push("default");
            }
            for feature in features {
                let asked = format!("{used}/{feature}");
                if rule.never_feature.contains(&asked.as_str()) {
                    forbidden.push(format!("{name} must not use the feature {asked}"));
                }
            }
        }
        for path in paths(id, &packages, &nodes) {
            let used = path.last().copied().unwrap_or_default();
            if !members.contains(used) && rule.never.iter().any(|pattern| matches(pattern, used)) {
                forbidden.push(format!(
                    "{name} must not use {used} (through {})",
                    path.join(" -> ")
                ));
            }
        }
    }
    forbidden
}

/// One path to each package that `root` reaches, without `root` itself. A kube dependency's own graph is judged by
/// feature instead ([`Rule::never_feature`]): Cargo unifies features over the workspace, so the graph shows kube's client
/// below every crate that uses kube's derive.
fn paths<'a>(
    root: &str,
    packages: &BTreeMap<&str, &'a Package>,
    nodes: &BTreeMap<&str, &Node>,
) -> Vec<Vec<&'a str>> {
    let mut seen = BTreeSet::from([root.to_owned()]);
    let mut queue = vec![(root.to_owned(), Vec::new())];
    let mut found = Vec::new();
    while let Some((id, path)) = queue.pop() {
        let Some(node) = nodes.get(id.as_str()) else {
            continue;
        };
        for dependency in node
            .deps
            .iter()
            .filter(|dependency| !dependency.is_dev_only())
        {
            let Some(package) = packages.get(dependency.pkg.as_str()) else {
                continue;
            };
            if !seen.insert(dependency.pkg.clone()) {
                continue;
            }
            let mut path: Vec<&str> = path.clone();
            path.push(&package.name);
            found.push(path.clone());
            if package.name != "kube" {
                queue.push((dependency.pkg.clone(), path));
            }
        }
    }
    found
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// The part of `cargo metadata` that is judged.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    features: Vec<String>,
    uses_default_features: bool,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<NodeDependency>,
}

#[derive(Deserialize)]
struct NodeDependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

impl NodeDependency {
    fn is_dev_only(&self) -> bool {
        self.dep_kinds
            .iter()
            .all(|kind| kind.kind.as_deref() == Some("dev"))
    }
}

#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

#[cfg(test)]
mod tests;
