//! `tieline gather` of a running installation: the logs of real kubelets are in it, and no key of any node.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::world::Programs;

use super::stage::{NAMESPACE, PATIENCE, Ranges, Stage, within};

pub(crate) fn gathered() -> Result<()> {
    within(Ranges::Imported, |stage| {
        stage.installed()?;
        let folder = stage.lab.lab().state().join("bundle");
        fs::create_dir_all(&folder)?;
        let archive = folder.join("bundle.tar.gz");
        let gather = Command::new(Programs::find()?.cli)
            .args(["gather", "-o"])
            .arg(&archive)
            .env("KUBECONFIG", stage.lab.control_plane().kubeconfig())
            .output()
            .context("running tieline gather")?;
        let said = String::from_utf8_lossy(&gather.stdout);
        ensure!(gather.status.success(), "tieline gather: {said}");
        let all = unpacked(&archive)?;
        println!("{} kB", all.len() / 1000);

        let agents = "app.kubernetes.io/component=agent";
        let count = stage.lab.running().len();
        for pod in stage.lab.wait_pods(NAMESPACE, agents, count, PATIENCE)? {
            // The API server does not reach kubelets behind the NAT, and the bundle says so.
            if !pod.node.starts_with("berlin") {
                for container in ["agent", "boot-guard"] {
                    let log = format!("logs/{}/{container}.log", pod.name);
                    ensure!(said.contains(&log), "no {log}: {said}");
                }
            }
        }
        ensure!(
            all.contains("the kernel carries plan revision"),
            "no agent's log tells of its plan"
        );
        let mut keys = 0;
        for node in stage.lab.running() {
            for key in private_keys(stage, node)? {
                ensure!(!all.contains(&key), "the bundle holds a key of {node}");
                keys += 1;
            }
        }
        ensure!(keys > 2 * count, "only {keys} keys were looked for");
        Ok(())
    })
}

/// What an archive's files hold, one after the other.
fn unpacked(archive: &Path) -> Result<String> {
    let tar = Command::new("tar")
        .args(["--to-stdout", "-xzf"])
        .arg(archive)
        .output()
        .context("running tar")?;
    ensure!(tar.status.success(), "tar cannot read the bundle");
    String::from_utf8(tar.stdout).context("a file of the bundle is no text")
}

/// What a node keeps for itself.
fn private_keys(stage: &Stage, node: &str) -> Result<Vec<String>> {
    let folder = stage.lab.node_path(node, "/var/lib/tieline/keys")?;
    let entries = fs::read_dir(&folder).with_context(|| format!("the keys of {node}"))?;
    entries
        .map(|entry| Ok(fs::read_to_string(entry?.path())?.trim().to_owned()))
        .collect()
}
