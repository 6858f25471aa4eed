//! A cluster whose ledger does not fit into one object.

use crate::Tests;
use crate::availability::accept_restore;
use crate::stage::Stage;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

const LEDGERS: &str = "addressledgers.tieline.dev";
/// Dual-stack nodes: four grants each, so more than the 2,000 that one object holds.
const NODES: usize = 540;

pub(crate) fn tests() -> Tests {
    vec![
        (
            "ledgers: in slices, a join writes the head alone, and a lost slice stops everything until it is back or given up",
            slices,
        ),
        (
            "ledgers: an object that does not fit into etcd is refused in the words that the operator knows",
            too_large,
        ),
    ]
}

fn slices() -> Result<()> {
    let mut stage = large()?;
    let head = stage.get(LEDGERS, "cluster-shop")?["spec"].clone();
    ensure!(
        head["grants"].as_array().map_or(0, Vec::len) <= 1000 && head["slices"].is_array(),
        "the head is not small"
    );
    let names = slice_names(&stage)?;
    let named: Vec<String> = head["slices"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|digest| format!("cluster-shop.{digest}"))
        .collect();
    ensure!(
        names.len() >= 2 && named.iter().all(|it| names.contains(it)),
        "{names:?} are there, {named:?} are named"
    );

    let mark = stage.audit_mark();
    stage.joins("late", "oslo")?;
    stage.settled()?;
    let writes = stage.operator_writes(mark)?;
    let of_ledgers: Vec<String> = writes
        .iter()
        .map(ToString::to_string)
        .filter(|it| it.contains("addressledgers") && !it.contains("status"))
        .collect();
    ensure!(of_ledgers.len() == 1, "a join wrote {of_ledgers:?}");

    // What the operator deletes, nobody else may.
    let by_hand = stage.kubectl(&["delete", LEDGERS, &names[0]]);
    ensure!(
        by_hand.is_err_and(|it| format!("{it:#}").contains("confirm-delete")),
        "a slice was deleted by hand"
    );
    // The first by name: its grants are in a slice, whenever the head was full.
    stage.kubectl(&["delete", "node", "n0"])?;
    stage.eventually("the slices of n0 are written anew", || {
        let now = slice_names(&stage)?;
        Ok(now.len() == names.len() && now != names)
    })?;

    // Another operator reads the same.
    stage.hand_over(&[])?;
    stage.joins("later", "oslo")?;
    stage.settled()?;

    let lost = slice_names(&stage)?.remove(0);
    let saved = stage.get(LEDGERS, &lost)?;
    let confirm = json!({"metadata": {"annotations": {"tieline.dev/confirm-delete": lost}}});
    stage.patch(LEDGERS, &lost, &confirm)?;
    stage.kubectl(&["delete", LEDGERS, &lost])?;
    let acme = "clusterlinks.tieline.dev";
    stage.eventually_condition(acme, "acme", "Planned", "False/SliceMissing")?;
    stage.eventually_condition(LEDGERS, "cluster-shop", "Frozen", "True/SliceMissing")?;
    let message = stage.condition(LEDGERS, "cluster-shop", "Frozen")?;
    ensure!(message.contains(&lost), "{message}");
    // Put back as a backup has it.
    stage.create(&json!({
        "apiVersion": "tieline.dev/v1alpha1", "kind": "AddressLedger", "metadata": {"name": lost}, "spec": saved["spec"],
    }))?;
    stage.eventually_condition(acme, "acme", "Planned", "True/")?;
    // Lost for good.
    stage.patch(LEDGERS, &lost, &confirm)?;
    stage.kubectl(&["delete", LEDGERS, &lost])?;
    stage.eventually_condition(LEDGERS, "cluster-shop", "Frozen", "True/SliceMissing")?;
    let said = accept_restore(&stage, &["cluster-shop", "--yes"])?;
    ensure!(said.contains("accepted up to revision"), "{said}");
    stage.eventually_condition(acme, "acme", "Planned", "True/")?;
    stage.eventually_condition(LEDGERS, "cluster-shop", "Frozen", "False/")
}

/// A stage whose one cluster has a ledger in slices.
fn large() -> Result<Stage> {
    let stage = Stage::with_operator()?;
    stage.create(&json!({
        "apiVersion": "tieline.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "shop"},
        "spec": {"sites": {"fromNodeLabel": "topology.kubernetes.io/region"}, "pods": {"assign": true}},
    }))?;
    stage.create(&json!({
        "apiVersion": "tieline.dev/v1alpha1", "kind": "ClusterLink", "metadata": {"name": "acme"},
        "spec": {
            "addressing": {"podPools": ["10.128.0.0/10", "fd00:64::/40"], "clusterPrefixLength": {"v4": 12}},
            "members": {"clusters": ["shop"]},
        },
    }))?;
    let nodes = (0..NODES).map(|number| {
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("n{number}"), "labels": {"topology.kubernetes.io/region": "oslo"}},
        })
        .to_string()
    });
    stage.apply(&nodes.collect::<Vec<_>>().join("\n---\n"))?;
    stage.eventually("a Peer of every node", || {
        Ok(stage.list("peers.tieline.dev")?.len() == NODES)
    })?;
    stage.settled()?;
    Ok(stage)
}

fn slice_names(stage: &Stage) -> Result<Vec<String>> {
    let ledgers = stage.list(LEDGERS)?;
    let names = ledgers
        .iter()
        .filter_map(|it| it["metadata"]["name"].as_str());
    let slices = names.filter(|it| it.contains('.'));
    Ok(slices.map(ToOwned::to_owned).collect())
}

fn too_large() -> Result<()> {
    let stage = Stage::new()?;
    let ledger = |long: usize| {
        let grants: Vec<Value> = (0..18_000)
            .map(|number| {
                let owner = json!({"kind": "Node", "name": "n".repeat(long)});
                let prefix = format!("10.{}.{}.0/24", number / 256, number % 256);
                json!({"prefix": prefix, "use": "Pod", "owner": owner, "state": "Active"})
            })
            .collect();
        let file = std::env::temp_dir().join(format!("tieline-large-{}.json", std::process::id()));
        let object = json!({
            "apiVersion": "tieline.dev/v1alpha1", "kind": "AddressLedger", "metadata": {"name": "cluster-large"},
            "spec": {"lineage": "lineage1", "revision": 1, "grants": grants},
        });
        std::fs::write(&file, object.to_string()).context("write a large object")?;
        let path = file.display().to_string();
        let said = stage.kubectl(&["create", "-f", &path]);
        std::fs::remove_file(&file).context("remove it")?;
        Ok::<_, anyhow::Error>(said.map_or_else(|error| format!("{error:#}"), |it| it.to_string()))
    };
    // Above etcd's bound, above that of the connection to it, and above the API server's own.
    for (long, words) in [
        (10, "request is too large"),
        (40, "trying to send message larger than max"),
        (120, "equest entity too large"),
    ] {
        let said = ledger(long)?;
        ensure!(said.contains(words), "no {words:?} in: {said}");
    }
    Ok(())
}
