//! Several operators, crashes, outages and restored backups.

use crate::Tests;
use crate::claims::all_agents;
use crate::stage::Stage;
use anyhow::{Context as _, Result, ensure};
use e2e::world::Programs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) fn tests() -> Tests {
    vec![
        (
            "availability: of two operators one writes; the other takes over when it ends, and when it dies",
            two_operators,
        ),
        (
            "availability: an operator that ends gives its Lease back after its last write, and the next leads within 3 s",
            given_back,
        ),
        (
            "availability: after an outage of the API server the operator goes on",
            outage,
        ),
        (
            "availability: the operator writes nothing to an older schema",
            older_schema,
        ),
        (
            "availability: health, readiness and metrics are served on loopback",
            endpoints,
        ),
        (
            "availability: a write that the API server refuses is told and stops nothing else",
            refused_write,
        ),
        (
            "restore: a plan that is older than what agents carry freezes new grants until an administrator accepts",
            restored,
        ),
        (
            "restore: a hub's ledger that came back alone stops all writes until an administrator has it recorded again",
            hub_restored_alone,
        ),
    ]
}

fn two_operators() -> Result<()> {
    let mut stage = Stage::three_sites()?;
    let second = stage.start("second", &[])?;
    stage.eventually("the second operator waits", || {
        Ok(stage.log(second)?.contains("waiting to lead"))
    })?;
    std::thread::sleep(Duration::from_secs(4));
    ensure!(!stage.log(second)?.contains("leading"), "two lead");
    stage.joins("oslo-3", "oslo")?;
    stage.settled()?;
    ensure!(holder(&stage)? == "first", "the Lease changed hands");

    stage.stop(0)?;
    stage.eventually("the second leads", || Ok(holder(&stage)? == "second"))?;
    stage.joins("oslo-4", "oslo")?;

    stage.start("third", &[])?;
    stage.kill(second)?;
    stage.eventually("the third leads", || Ok(holder(&stage)? == "third"))?;
    stage.joins("oslo-5", "oslo")
}

/// What the chart sets.
const LEASE: [&str; 2] = ["--lease-seconds", "15"];
/// Longest time until the next operator leads when one ends in order.
const TAKEN_OVER: Duration = Duration::from_secs(3);
/// Shortest time until the next one leads when one dies: its last renewal may be two seconds old.
const AFTER_DEATH: Duration = Duration::from_secs(12);

fn given_back() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.apply_path(&crate::stage::repository().join("examples/three-sites/network.yaml"))?;
    let first = stage.start("first", &LEASE)?;
    stage.eventually("the first leads", || Ok(holder(&stage)? == "first"))?;
    let nodes = (0..40).map(|number| {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("oslo-{number}"), "labels": {"topology.kubernetes.io/region": "oslo"}},
        })
        .to_string()
    });
    stage.apply(&nodes.collect::<Vec<_>>().join("\n---\n"))?;
    // In the middle of its work.
    stage.stop(first)?;
    let log = stage.log(first)?;
    ensure!(log.contains("gave the Lease back"), "{log}");
    let last = last_change(&stage)?;
    ensure!(last == "update leases", "its last write is {last}");
    ensure!(holder(&stage)?.is_empty(), "nobody may hold the Lease");

    let begun = Instant::now();
    let second = stage.start("second", &LEASE)?;
    let restarted = taken(&stage, "second", begun)?;
    let third = waiting(&mut stage, "third")?;
    let begun = Instant::now();
    stage.stop(second)?;
    let ended = taken(&stage, "third", begun)?;
    waiting(&mut stage, "fourth")?;
    let begun = Instant::now();
    stage.kill(third)?;
    let died = taken(&stage, "fourth", begun)?;
    let times = format!("restarted {restarted:.1?}, ended {ended:.1?}, died {died:.1?}");
    ensure!(restarted < TAKEN_OVER && ended < TAKEN_OVER, "{times}");
    ensure!(died > AFTER_DEATH, "{times}");
    stage.eventually("a Peer of every node", || {
        Ok(stage.list("peers.tieline.dev")?.len() == 40)
    })
}

/// Starts one more, which waits for the one that leads.
fn waiting(stage: &mut Stage, identity: &str) -> Result<usize> {
    let number = stage.start(identity, &LEASE)?;
    stage.eventually("one more waits", || {
        Ok(stage.log(number)?.contains("waiting to lead"))
    })?;
    Ok(number)
}

/// How long after `begun` this one holds the Lease.
fn taken(stage: &Stage, identity: &str, begun: Instant) -> Result<Duration> {
    stage.eventually(&format!("{identity} leads"), || {
        Ok(holder(stage)? == identity)
    })?;
    Ok(begun.elapsed())
}

/// The last change that operators asked for, as verb and resource; renewals of the Lease count.
fn last_change(stage: &Stage) -> Result<String> {
    let log = std::fs::read_to_string(stage.audit_log()).context("read the audit log")?;
    let mut last = String::new();
    for line in log.lines() {
        let event: serde_json::Value = serde_json::from_str(line).context("parse the audit log")?;
        let verb = event["verb"].as_str().unwrap_or_default();
        let reads = matches!(verb, "get" | "list" | "watch");
        if event["user"]["username"] == crate::stage::OPERATOR && !reads {
            let resource = &event["objectRef"]["resource"];
            last = format!("{verb} {}", resource.as_str().unwrap_or_default());
        }
    }
    Ok(last)
}

fn holder(stage: &Stage) -> Result<String> {
    stage.kubectl(&[
        "get",
        "lease",
        "tieline-operator",
        "-n",
        "tieline-system",
        "-o",
        "jsonpath={.spec.holderIdentity}",
    ])
}

fn outage() -> Result<()> {
    let mut stage = Stage::three_sites()?;
    stage.control_plane.stop();
    std::thread::sleep(Duration::from_secs(5));
    stage.control_plane.start_again()?;
    stage.joins("oslo-3", "oslo")?;
    stage.settled()?;
    stage.quiet_for(Duration::from_secs(3))
}

fn older_schema() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.kubectl(&[
        "annotate",
        "crd",
        "peers.tieline.dev",
        "tieline.dev/schema=0",
        "--overwrite",
    ])?;
    let mark = stage.audit_mark();
    let operator = stage.start("first", &[])?;
    stage.node("oslo-1", "oslo")?;
    stage.apply_path(&crate::stage::repository().join("examples/three-sites/network.yaml"))?;
    stage.eventually("the operator says what is wrong", || {
        let log = stage.log(operator)?;
        Ok(log.contains("peers.tieline.dev has schema") && log.contains("apply the CRDs"))
    })?;
    stage
        .quiet_since(mark, Duration::from_secs(2))
        .context("with an older schema")?;
    stage.kubectl(&[
        "annotate",
        "crd",
        "peers.tieline.dev",
        &format!("tieline.dev/schema={}", tieline_crds::SCHEMA_NUMBER),
        "--overwrite",
    ])?;
    stage.eventually("a Peer once the schema is new enough", || {
        Ok(!stage.get("peers.tieline.dev", "shop.oslo-1")?.is_null())
    })
}

fn restored() -> Result<()> {
    let stage = Stage::three_sites()?;
    all_agents(&stage)?;
    stage.eventually_condition("clusterlinks.tieline.dev", "acme", "Ready", "True/")?;
    // An agent that carries revision 40 is what a restored backup looks like from inside.
    stage.claim("paris-2", 6, 40)?;
    stage.eventually_condition(
        "addressledgers.tieline.dev",
        "cluster-shop",
        "Frozen",
        "True/RevisionBehind",
    )?;
    let message = stage.condition("addressledgers.tieline.dev", "cluster-shop", "Frozen")?;
    ensure!(
        message.contains("the agent of Peer shop.paris-2"),
        "{message}"
    );
    stage.node("oslo-3", "oslo")?;
    stage.eventually("oslo-3 waits", || {
        Ok(
            stage.get("clusterlinks.tieline.dev", "acme")?["status"]["notReady"]
                .to_string()
                .contains("LedgerFrozen"),
        )
    })?;
    stage.settled()?;
    ensure!(
        stage.get("peers.tieline.dev", "shop.oslo-3")?.is_null(),
        "a frozen ledger granted"
    );
    ensure!(
        stage.list("peers.tieline.dev")?.len() == 6,
        "a frozen ledger withdrew"
    );

    let waits = accept_restore(&stage, &[])?;
    ensure!(
        waits.contains("AddressLedger cluster-shop") && waits.contains("say --yes"),
        "{waits}"
    );
    let accepted = accept_restore(&stage, &["--yes"])?;
    for ledger in ["hub", "cluster-shop"] {
        let line = format!("AddressLedger {ledger}: accepted up to revision 40");
        ensure!(accepted.contains(&line), "{accepted}");
    }
    stage.eventually("oslo-3 gets its Peer", || {
        Ok(!stage.get("peers.tieline.dev", "shop.oslo-3")?.is_null())
    })?;
    // Agents that carry 40 would refuse any other. The plan is written after the Peers.
    let mut revision = 0;
    stage.eventually("a plan above revision 40", || {
        let plan = stage.get("networkplans.tieline.dev", "acme")?;
        revision = plan["spec"]["revision"].as_u64().unwrap_or_default();
        Ok(revision > 40)
    })?;
    stage.eventually_condition(
        "addressledgers.tieline.dev",
        "cluster-shop",
        "Frozen",
        "False/UpToDate",
    )?;
    // The word counts once: the next pass takes it away.
    stage.claim("paris-2", 6, revision)?;
    stage.eventually("the annotations are gone", || {
        let ledgers = stage.list("addressledgers.tieline.dev")?;
        let mut annotations = ledgers.iter().map(|it| &it["metadata"]["annotations"]);
        Ok(annotations.all(|it| it["tieline.dev/accept-restore"].is_null()))
    })
}

/// `tieline ledger accept-restore`: what it prints, whether it did something or not.
pub(crate) fn accept_restore(stage: &Stage, arguments: &[&str]) -> Result<String> {
    let output = Command::new(Programs::find()?.cli)
        .args(["ledger", "accept-restore", "--kubeconfig"])
        .arg(stage.kubeconfig())
        .args(arguments)
        .output()
        .context("run tieline")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(text(&output.stdout) + &text(&output.stderr))
}

fn hub_restored_alone() -> Result<()> {
    let stage = Stage::three_sites()?;
    all_agents(&stage)?;
    stage.eventually_condition("clusterlinks.tieline.dev", "acme", "Ready", "True/")?;
    let grants = stage.get("addressledgers.tieline.dev", "hub")?["spec"]["grants"].clone();
    let edit = serde_json::json!({"spec": {"grants": []}});
    stage.patch("addressledgers.tieline.dev", "hub", &edit)?;
    stage.eventually_condition(
        "addressledgers.tieline.dev",
        "hub",
        "Frozen",
        "True/LedgersDisagree",
    )?;
    stage.eventually_condition(
        "clusterlinks.tieline.dev",
        "acme",
        "Planned",
        "False/LedgersDisagree",
    )?;
    ensure!(
        stage.list("peers.tieline.dev")?.len() == 6,
        "something was withdrawn"
    );
    let accepted = accept_restore(&stage, &["hub", "--yes"])?;
    ensure!(
        accepted.contains("AddressLedger hub: accepted"),
        "{accepted}"
    );
    stage.eventually_condition("clusterlinks.tieline.dev", "acme", "Ready", "True/")?;
    stage.eventually("the hub's grants are recorded again", || {
        Ok(stage.get("addressledgers.tieline.dev", "hub")?["spec"]["grants"] == grants)
    })?;
    stage.eventually_condition(
        "addressledgers.tieline.dev",
        "hub",
        "Frozen",
        "False/UpToDate",
    )
}

fn endpoints() -> Result<()> {
    let stage = Stage::three_sites()?;
    let log = stage.log(0)?;
    let address = log
        .split_whitespace()
        .find_map(|word| word.strip_prefix("address="))
        .context("the log names no address")?;
    ensure!(address.starts_with("127.0.0.1:"), "serves on {address}");
    for (path, expected) in [
        ("/healthz", "ok"),
        ("/readyz", "ok"),
        ("/metrics", "tieline_operator_peers 6"),
        ("/metrics", "tieline_operator_leading 1"),
        ("/metrics", "tieline_operator_findings 0"),
        (
            "/metrics",
            "tieline_operator_writes_total{resource=\"peers\",outcome=\"stored\"}",
        ),
    ] {
        let answer = http_get(address, path)?;
        ensure!(
            answer.contains(expected),
            "{path} lacks {expected:?}:\n{answer}"
        );
    }
    Ok(())
}

fn http_get(address: &str, path: &str) -> Result<String> {
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    Ok(answer)
}

fn refused_write() -> Result<()> {
    let stage = Stage::three_sites()?;
    stage.apply(
        r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-oslo-3.example.com}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - {apiGroups: [tieline.dev], apiVersions: [v1alpha1], operations: [CREATE], resources: [peers]}
  validations:
  - {expression: "object.metadata.name != 'shop.oslo-3'", message: oslo-3 is not welcome}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-oslo-3.example.com}
spec: {policyName: no-oslo-3.example.com, validationActions: [Deny]}
"#,
    )?;
    // The API server looks for new policies once a second.
    std::thread::sleep(Duration::from_secs(3));
    stage.node("oslo-3", "oslo")?;
    stage.joins("oslo-4", "oslo")?;
    stage.eventually_condition(
        "clusterlinks.tieline.dev",
        "acme",
        "Planned",
        "False/WriteRefused",
    )?;
    stage.eventually_condition(
        "clusterlinks.tieline.dev",
        "acme",
        "Planned",
        "oslo-3 is not welcome",
    )?;
    ensure!(
        stage.get("peers.tieline.dev", "shop.oslo-3")?.is_null(),
        "the policy was not in force"
    );
    stage.kubectl(&[
        "delete",
        "validatingadmissionpolicybinding",
        "no-oslo-3.example.com",
    ])?;
    stage.eventually("a Peer for oslo-3 after all", || {
        Ok(!stage.get("peers.tieline.dev", "shop.oslo-3")?.is_null())
    })?;
    stage.eventually_condition("clusterlinks.tieline.dev", "acme", "Planned", "True/")
}
