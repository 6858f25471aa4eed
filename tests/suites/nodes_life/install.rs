//! Installed, withdrawn, installed again, upgraded.

use e2e::wait::eventually;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::lab::Dump;
use e2e::nodes::Tieline;
use e2e::world::{NEXT_VERSION as NEXT, Programs};

use super::stage::{PATIENCE, Ranges, Stage, across, inside, within};

/// Longest silence between two sites while one gateway's agent is replaced: an embedded device ends with its agent.
const GAP: Duration = Duration::from_secs(10);

pub(crate) fn leaves_no_trace() -> Result<()> {
    within(Ranges::Imported, |stage| {
        let dumps = |stage: &Stage| -> Result<BTreeMap<String, Dump>> {
            let names: Vec<String> = stage
                .lab
                .running()
                .iter()
                .map(|&name| name.into())
                .collect();
            names
                .into_iter()
                .map(|name| Ok((name.clone(), stage.lab.dump(&name)?)))
                .collect()
        };
        // kube-proxy follows the last pod that came.
        let before = eventually("the nodes to come to rest", PATIENCE, || {
            let one = dumps(stage)?;
            std::thread::sleep(Duration::from_secs(2));
            ensure!(one == dumps(stage)?, "the nodes are not at rest");
            Ok(one)
        })?;
        let stream = stage.ping(&inside(&stage.ends()?), Duration::from_millis(20))?;
        stage.installed()?;
        let during = dumps(stage)?;
        for (node, dump) in &before {
            ensure!(
                !dump.diff(&during[node]).is_empty(),
                "{node}: an installation shows nowhere, so the comparison is blind"
            );
        }
        stage.nothing_clear()?;
        let took = stage.uninstall()?;
        println!("uninstalled in {took:.1?}");
        let pings = stream.stop();
        println!("inside the sites meanwhile: {pings}");
        let after = dumps(stage)?;
        let mut differences = Vec::new();
        for (node, dump) in &before {
            differences.extend(
                dump.diff(&after[node])
                    .iter()
                    .map(|line| format!("{node}: {line}")),
            );
        }
        ensure!(
            differences.is_empty(),
            "not as before the install:\n{}",
            differences.join("\n")
        );
        pings.expect_no_loss()
    })
}

pub(crate) fn again_at_once() -> Result<()> {
    within(Ranges::Imported, |stage| {
        stage.installed()?;
        let before = stage.holdings()?;
        stage.uninstall()?;
        stage.installed()?;
        stage.nothing_renumbered(&before, None)
    })
}

pub(crate) fn upgrade() -> Result<()> {
    within(Ranges::Imported, |stage| {
        stage.installed()?;
        let before = stage.holdings()?;
        let programs = Programs::next()?;
        let folder = programs.agent.parent().context("a program in no folder")?;
        stage.lab.import(&Tieline::archive_of(folder, NEXT)?)?;
        let chart = next_chart(&stage.lab.lab().state().join("chart"))?;
        // 960 echoes a second through embedded devices of debug programs: at 4,800 they only fill their sockets' queues.
        let stream = stage.ping(&across(&stage.ends()?), Duration::from_millis(50))?;
        let begun = Instant::now();
        stage.tieline.upgrade_to(&chart, NEXT)?;
        stage.tieline.wait_rolled_out(&stage.lab, PATIENCE * 2)?;
        eventually("every agent to report the next version", PATIENCE, || {
            for (node, peer) in stage.peers()? {
                let version = &peer["status"]["version"];
                ensure!(version == NEXT, "{node} reports {version}");
            }
            Ok(())
        })?;
        let took = begun.elapsed();
        stage.follows()?;
        let pings = stream.stop();
        let (sent, lost) = pings.totals();
        println!(
            "upgraded in {took:.1?}; {lost} of {sent} echoes across sites lost, longest gap {:.1?}",
            pings.longest_gap()
        );
        ensure!(sent > 0, "nothing was sent");
        ensure!(pings.longest_gap() <= GAP, "a gap above {GAP:?}: {pings}");
        stage.nothing_clear()?;
        stage.nothing_renumbered(&before, None)?;
        // An operator that was replaced may take a moment to end.
        eventually("every program to be of the next version", PATIENCE, || {
            versions(stage)
        })?;
        let columns = stage.lab.control_plane().kubectl(&[
            "get",
            "crd",
            "peers.tieline.dev",
            "-o",
            "jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}",
        ])?;
        ensure!(
            columns.contains(NEW_COLUMN),
            "the definition is the old one: {columns}"
        );
        Ok(())
    })
}

/// Every program's own word for its version.
fn versions(stage: &Stage) -> Result<()> {
    let kubectl = |arguments: &[&str]| stage.lab.control_plane().kubectl(arguments);
    let image = kubectl(&[
        "get",
        "pods",
        "-n",
        super::stage::NAMESPACE,
        "-o",
        "jsonpath={.items[*].spec.containers[*].image}",
    ])?;
    ensure!(
        image.split_whitespace().all(|image| image.ends_with(NEXT)),
        "images: {image}"
    );
    let wanted = kubectl(&[
        "get",
        "deployment",
        "tieline-operator",
        "-n",
        super::stage::NAMESPACE,
        "-o",
        "jsonpath={.spec.replicas}",
    ])?;
    let wanted: usize = wanted.trim().parse().context("the operator's replicas")?;
    let mut operators = 0;
    for node in stage.lab.running() {
        let agent = build(stage, node, AGENT)?
            .with_context(|| format!("{node}: nobody serves an agent's metrics"))?;
        let operator = build(stage, node, OPERATOR)?;
        operators += usize::from(operator.is_some());
        for line in operator.iter().chain([&agent]) {
            ensure!(
                line.contains(&format!("version=\"{NEXT}\"")),
                "{node}: {line}"
            );
        }
    }
    ensure!(
        operators == wanted,
        "{operators} operators answer, of {wanted}"
    );
    Ok(())
}

/// Where a program serves its metrics, and which of them says what it is.
const AGENT: (u16, &str) = (21980, "tieline_agent_build_info");
const OPERATOR: (u16, &str) = (21981, "tieline_operator_build_info");

/// What a program on a node says it is; nothing where nobody listens.
fn build(stage: &Stage, node: &str, (port, metric): (u16, &str)) -> Result<Option<String>> {
    let said = match stage.lab.lab().node(node)?.ns().run(|| metrics(port)) {
        Err(error) if nobody_listens(&error) => return Ok(None),
        said => said?,
    };
    let line = said.lines().find(|line| line.starts_with(metric));
    let line = line.with_context(|| format!("{node}: no {metric} on port {port}"))?;
    Ok(Some(line.to_owned()))
}

fn nobody_listens(error: &anyhow::Error) -> bool {
    let refused = std::io::ErrorKind::ConnectionRefused;
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == refused)
}

/// A program's metrics, on the loopback of its host.
fn metrics(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// A column that only the next version's definition of Peers has.
const NEW_COLUMN: &str = "Mesh-IP";

/// The chart as its next version: other numbers, another column.
fn next_chart(folder: &Path) -> Result<PathBuf> {
    copy(
        &e2e::world::repository().join("deploy/helm/tieline"),
        folder,
    )?;
    replace(
        &folder.join("Chart.yaml"),
        "appVersion: 0.1.0",
        &format!("appVersion: {NEXT}"),
    )?;
    replace(
        &folder.join("Chart.yaml"),
        "\nversion: 0.1.0",
        "\nversion: 0.1.1",
    )?;
    replace(
        &folder.join("templates/crds/peers.yaml"),
        "name: Mesh-Address",
        &format!("name: {NEW_COLUMN}"),
    )?;
    Ok(folder.to_owned())
}

fn replace(file: &Path, from: &str, to: &str) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    ensure!(text.contains(from), "{} has no '{from}'", file.display());
    Ok(fs::write(file, text.replace(from, to))?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
