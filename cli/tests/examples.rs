//! Every example is a golden test: what `tieline plan` and `tieline node-config` print stands under `expected/`.
//!
//! `UPDATE_EXPECTED=1 cargo test -p tieline-cli --test examples` rewrites the files; look at their diff.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn tieline(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tieline"))
        .args(args)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Compares with (or, on request, rewrites) `examples/<story>/expected/<name>`.
fn expect(story: &str, name: &str, actual: &str) {
    let path = examples().join(story).join("expected").join(name);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        expected,
        actual,
        "{} differs; UPDATE_EXPECTED=1 rewrites it",
        path.display()
    );
}

/// Plans a story and checks the plan and some nodes' configurations.
fn story(name: &str, accepted: bool, nodes: &[&str]) -> Value {
    let folder = examples().join(name);
    let folder = folder.to_str().unwrap();
    let table = tieline(&["plan", "-f", folder]);
    assert_eq!(
        table.status.success(),
        accepted,
        "{}",
        String::from_utf8_lossy(&table.stderr)
    );
    expect(name, "plan.txt", &stdout(&table));
    for node in nodes {
        let config = tieline(&["node-config", "-f", folder, "--node", node]);
        assert!(
            config.status.success(),
            "{}",
            String::from_utf8_lossy(&config.stderr)
        );
        expect(name, &format!("{node}.txt"), &stdout(&config));
    }
    serde_json::from_slice(&tieline(&["plan", "-f", folder, "-o", "json"]).stdout).unwrap()
}

#[test]
fn three_sites_and_the_company_vpn() {
    let plan = story("three-sites", true, &["berlin-1", "berlin-2", "paris-1"]);
    let sites: Vec<&str> = plan["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["site"].as_str().unwrap())
        .collect();
    assert_eq!(sites, ["berlin", "oslo", "paris"]);
    assert_eq!(plan["waiting"], Value::Array(vec![]));
}

#[test]
fn the_ports_are_counted_from_the_agents_first_one() {
    let folder = examples().join("three-sites");
    let with = |args: &[&str]| {
        let all = [
            args,
            &["-f", folder.to_str().unwrap(), "--agent-port", "30000"],
        ]
        .concat();
        stdout(&tieline(&all))
    };
    let plan: Value = serde_json::from_str(&with(&["plan", "-o", "json"])).unwrap();
    assert_eq!(plan["vpns"][0]["port"], 30064);
    let config = with(&["node-config", "--node", "paris-1"]);
    for port in ["30000", "30064"] {
        let line = format!("listening port: {port}\n");
        assert!(config.contains(&line), "no {line} in {config}");
    }
    let output = tieline(&["plan", "-f", ".", "--agent-port", "65500"]);
    assert_eq!(output.status.code(), Some(2), "ports end at 65535");
}

#[test]
fn two_gateways_a_site() {
    let plan = story("two-gateways", true, &["dublin-1", "dublin-2", "dublin-3"]);
    for segment in plan["segments"].as_array().unwrap() {
        let ranks: Vec<u64> = segment["gateways"]
            .as_array()
            .unwrap()
            .iter()
            .map(|g| g["rank"].as_u64().unwrap())
            .collect();
        assert_eq!(ranks, [0, 1], "{segment}");
    }
}

#[test]
fn both_families() {
    let plan = story("dual-stack", true, &["paris-1", "oslo-2"]);
    for segment in plan["segments"].as_array().unwrap() {
        let pods: Vec<&str> = segment["prefixes"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| p["class"] == "Pod")
            .map(|p| p["prefix"].as_str().unwrap())
            .collect();
        assert!(
            pods.iter().any(|p| p.contains(':')) && pods.iter().any(|p| p.contains('.')),
            "{pods:?}"
        );
    }
}

#[test]
fn what_is_there_already_is_imported_and_what_is_missing_waits() {
    let plan = story("brownfield", true, &["erp-1", "shop-1", "lab-2"]);
    let imported = |prefix: &str| {
        plan["grants"]
            .as_array()
            .unwrap()
            .iter()
            .any(|g| g["prefix"] == prefix && g["state"] == "Imported")
    };
    assert!(
        imported("10.244.0.0/16") && imported("10.8.1.0/24"),
        "{}",
        plan["grants"]
    );
    let waiting = plan["waiting"].as_array().unwrap();
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    assert_eq!(
        (waiting[0]["kind"].as_str(), waiting[0]["name"].as_str()),
        (Some("Node"), Some("shop-3"))
    );
}

#[test]
fn the_objects_that_would_be_written_are_the_state_before_of_the_next_plan() {
    let folder = examples().join("three-sites");
    let folder = folder.to_str().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let written = dir.path().join("written.yaml");
    fs::write(
        &written,
        tieline(&["plan", "-f", folder, "-o", "yaml"]).stdout,
    )
    .unwrap();
    let first = stdout(&tieline(&["plan", "-f", folder, "-o", "json"]));
    // The Nodes that would be written carry podCIDRs only; the originals keep the rest.
    let objects = fs::read_to_string(&written).unwrap();
    let ledgers: Vec<&str> = objects
        .split("---\n")
        .filter(|o| !o.contains("kind: Node\n"))
        .collect();
    fs::write(&written, ledgers.join("---\n")).unwrap();
    let again = stdout(&tieline(&[
        "plan",
        "-f",
        folder,
        "-f",
        written.to_str().unwrap(),
        "-o",
        "json",
    ]));
    assert_eq!(first, again);
}

#[test]
fn a_refusal_names_the_field_and_what_to_write_and_exits_with_one() {
    let dir = tempfile::tempdir().unwrap();
    let bad = "apiVersion: tieline.dev/v1alpha1\nkind: ClusterLink\nmetadata: {name: acme}\nspec:\n  addressing: {podPools: [10.64.0.1/10]}\n  members: {clusters: [shop]}\n";
    fs::write(dir.path().join("bad.yaml"), bad).unwrap();
    let output = tieline(&["plan", "-f", dir.path().to_str().unwrap(), "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["accepted"], false);
    let message = report["refusals"][0]["message"].as_str().unwrap();
    assert!(message.contains("podPools[0]"), "{message}");
}
