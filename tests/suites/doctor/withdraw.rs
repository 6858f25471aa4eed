//! What withdraw leaves behind where it could not clean, and what it takes away.

use crate::support::{Stage, Tests};
use anyhow::{Result, ensure};

pub(crate) fn tests() -> Tests {
    vec![(
        "withdraw: a node that is not ready is told of by an Event with the command to run there, and the operator ends",
        not_cleaned,
    )]
}

/// One that needs no node.
const OPERATOR: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: withdrawn, namespace: tieline-system}
spec:
  replicas: 0
  selector: {matchLabels: {app: withdrawn}}
  template:
    metadata: {labels: {app: withdrawn}}
    spec: {containers: [{name: c, image: none.invalid/none}]}
"#;

fn not_cleaned(stage: &Stage) -> Result<()> {
    // Nobody leads here, so what the operator would remove must not be there.
    stage.kubectl(&[
        "delete",
        "clusterlinks.tieline.dev,networkplans.tieline.dev,peers.tieline.dev",
        "--all",
        "-n",
        "tieline-system",
    ])?;
    stage.apply(OPERATOR)?;
    let pod = stage.folder().join("cleanup.yaml");
    std::fs::write(
        &pod,
        "{apiVersion: v1, kind: Pod, spec: {containers: [{name: c, image: none.invalid/none}]}}",
    )?;
    // No kubelet says that a node is ready, so no pod is started.
    let run = stage.tieline(&[
        "withdraw",
        "--yes",
        "--timeout=20",
        "--cleanup-pod",
        &pod.display().to_string(),
        "--operator=withdrawn",
    ])?;
    run.ended_with(0)?;
    ensure!(
        run.output.contains("not ready, so not cleaned: a"),
        "{}",
        run.output
    );
    ensure!(
        run.output.contains("the operator has stopped"),
        "{}",
        run.output
    );
    let left = stage.kubectl(&["get", "deployments", "-n", "tieline-system", "-o", "name"])?;
    ensure!(!left.contains("withdrawn"), "{left}");
    let told = stage.kubectl(&["describe", "node", "a"])?;
    for word in ["TielineNotCleaned", "tieline-agent cleanup"] {
        ensure!(told.contains(word), "{word} is not in {told}");
    }
    // As the uninstall page asks.
    let all = stage.kubectl(&[
        "get",
        "events",
        "--namespace=default",
        "--field-selector=reason=TielineNotCleaned",
    ])?;
    ensure!(all.contains("node/a"), "{all}");
    Ok(())
}
