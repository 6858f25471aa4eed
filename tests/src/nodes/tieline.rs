//! Tieline on real nodes as its users have it: the image in containerd, the chart installed by helm, objects applied by kubectl.
//!
//! ```text
//!  target/debug/* ── xtask image --programs ──► target/lab-image/tieline-<tag>.oci.tar ──► every node's containerd
//!  deploy/helm/tieline ── helm install ──► operator, agents                       once a process, kept while it is newer
//!  examples/three-sites ── kubectl apply ──► ClusterLink Ready                    than the programs
//! ```
//!
//! ```no_run
//! # use e2e::{lab::Topology, nodes::{Cni, NodeLab, ProxyMode, Tieline}};
//! # fn main() -> anyhow::Result<()> {
//! let topology = Topology::three_sites().without_vpn();
//! let lab = NodeLab::start_with(Tieline::options("mine", topology, Cni::Bridge, ProxyMode::Nftables)?)?;
//! let tieline = Tieline::at(&lab)?;
//! let took = tieline.bring_up(&lab)?; // helm install, kubectl apply, Ready
//! tieline.uninstall()?; // helm uninstall
//! # Ok(())
//! # }
//! ```
//!
//! It decides nothing for Tieline: what the chart's defaults do not say is not said here either, but for the image's tag and the
//! cluster's name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde_norway::Value;

use super::{Cni, NodeLab, Options, PodRanges, ProxyMode};
use crate::lab::{Endpoint, Oracle, Planned, Topology};
use crate::wait::eventually;
use crate::world::cluster::Cluster;
use crate::world::{NAMESPACE, Programs, repository};

/// Tag of the image of this build.
pub const TAG: &str = "lab";
/// Name of the Cluster object, as in `examples/three-sites`.
pub const CLUSTER: &str = "shop";
/// How long a first installation may take, from `helm install` to a Ready ClusterLink.
pub const READY_WITHIN: Duration = Duration::from_secs(60);

/// One archive is built once, by whoever comes first.
static BUILDING: Mutex<()> = Mutex::new(());

/// The release `tieline` in `tieline-system`, installed or about to be.
#[derive(Debug)]
pub struct Tieline {
    helm: PathBuf,
    kubeconfig: PathBuf,
    folder: PathBuf,
    example: String,
    cluster: Cluster,
    chart: PathBuf,
    settings: Vec<String>,
}

impl Tieline {
    /// [`Options::new`] with Tieline's image on every node. Pod ranges come from kube-controller-manager; set `pod_ranges` for
    /// anything else.
    ///
    /// # Errors
    ///
    /// The image cannot be built.
    pub fn options(name: &str, topology: Topology, cni: Cni, proxy: ProxyMode) -> Result<Options> {
        let mut options = Options::new(name, topology, cni, proxy);
        options.archives.push(Self::archive(TAG)?);
        Ok(options)
    }

    /// The image archive of the programs beside this test, under a tag. Built when a program is newer.
    ///
    /// # Errors
    ///
    /// A program is missing or `xtask image` failed; the message is its own.
    pub fn archive(tag: &str) -> Result<PathBuf> {
        let programs = Programs::find()?;
        let built = programs.agent.parent().context("no target folder")?;
        Self::archive_of(built, tag)
    }

    /// As [`Tieline::archive`], of the programs in a folder.
    ///
    /// # Errors
    ///
    /// As [`Tieline::archive`].
    pub fn archive_of(programs: &Path, tag: &str) -> Result<PathBuf> {
        let _one = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        let beside = Programs::find()?;
        let built = beside.agent.parent().context("no target folder")?;
        let xtask = built.join("xtask");
        let folder = built
            .parent()
            .context("no target folder")?
            .join("lab-image");
        let name = format!("tieline-{tag}.oci.tar");
        let archive = folder.join(&name);
        let names = ["tieline-operator", "tieline-agent", "tieline"];
        let mut inputs: Vec<PathBuf> = names.iter().map(|name| programs.join(name)).collect();
        inputs.push(xtask.clone());
        if is_newer(&archive, &inputs)? {
            return Ok(archive);
        }
        // Renamed when it is whole: another test may look at the same moment.
        let own = folder.join(std::process::id().to_string());
        let output = Command::new(&xtask)
            .args(["image", "--arch", architecture()?, "--tag", tag])
            .arg("--programs")
            .arg(programs)
            .arg("--out")
            .arg(&own)
            .output()
            .with_context(|| format!("running {}", xtask.display()))?;
        ensure!(
            output.status.success(),
            "xtask image: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        fs::rename(own.join(&name), &archive)?;
        fs::remove_dir_all(&own)?;
        Ok(archive)
    }

    /// The release on this lab, which nothing is done to yet.
    ///
    /// # Errors
    ///
    /// helm cannot be built, or the API server does not answer.
    pub fn at(lab: &NodeLab) -> Result<Self> {
        let example = repository().join(example_of(lab.lab().topology()));
        let text = fs::read_to_string(&example)
            .with_context(|| format!("reading {}", example.display()))?;
        let kubeconfig = lab.control_plane().kubeconfig().to_path_buf();
        Ok(Self {
            helm: helm()?,
            cluster: Cluster::connect(&kubeconfig)?,
            kubeconfig,
            folder: lab.lab().state().join("helm"),
            example: adapt(&text, &lab.pod_ranges)?,
            chart: repository().join("deploy/helm/tieline"),
            settings: vec![
                format!("clusterName={CLUSTER}"),
                format!("image.tag={TAG}"),
                "image.pullPolicy=Never".into(),
            ],
        })
    }

    /// `examples/three-sites`, in dual-stack topologies `examples/dual-stack`, as it is applied here: without the VPN, whose other
    /// side is not part of these labs, and, where kube-controller-manager gives pod ranges, with those instead of `assign: true`;
    /// elsewhere without `serviceCidrs`, which the pool covers and the API server knows.
    #[must_use]
    pub fn example(&self) -> &str {
        &self.example
    }

    /// `helm install`, which returns when the API server has all objects; returns how long it took.
    ///
    /// # Errors
    ///
    /// helm's own message.
    pub fn install(&self) -> Result<Duration> {
        self.helm_with_chart("install", &["--create-namespace"])
    }

    /// `helm upgrade` to the image of `tag`, which must be on the nodes ([`NodeLab::import`] of [`Tieline::archive`]). Returns
    /// when the API server has all objects; the rollout goes on ([`Tieline::wait_rolled_out`]).
    ///
    /// # Errors
    ///
    /// helm's own message.
    pub fn upgrade(&mut self, tag: &str) -> Result<Duration> {
        self.settings
            .retain(|setting| !setting.starts_with("image.tag="));
        self.settings.push(format!("image.tag={tag}"));
        self.helm_with_chart("upgrade", &[])
    }

    /// As [`Tieline::upgrade`], to another chart.
    ///
    /// # Errors
    ///
    /// helm's own message.
    pub fn upgrade_to(&mut self, chart: &Path, tag: &str) -> Result<Duration> {
        chart.clone_into(&mut self.chart);
        self.upgrade(tag)
    }

    /// `helm uninstall` as a user types it: the chart withdraws the mesh and cleans the nodes first. Returns how long it took.
    ///
    /// # Errors
    ///
    /// helm's own message, with what the withdrawing Job said while it is there.
    pub fn uninstall(&self) -> Result<Duration> {
        self.helm(&["uninstall", "tieline", "--namespace", NAMESPACE])
    }

    /// Waits until operator and agents run as the chart says now.
    ///
    /// # Errors
    ///
    /// `patience` is over; the message lists the pods.
    pub fn wait_rolled_out(&self, lab: &NodeLab, patience: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", patience.as_secs());
        for workload in ["daemonset/tieline-agent", "deployment/tieline-operator"] {
            let status = ["rollout", "status", workload, "-n", NAMESPACE, &timeout];
            let status = lab.control_plane().kubectl(&status);
            if let Err(error) = status {
                return Err(error.context(state(lab)));
            }
        }
        Ok(())
    }

    /// Applies objects of Tieline's, waiting for a moment while the API server does not serve their kinds yet.
    ///
    /// # Errors
    ///
    /// An object is refused.
    pub fn apply(&self, lab: &NodeLab, manifest: &str) -> Result<()> {
        eventually(
            "the kinds to be served",
            Duration::from_secs(10),
            || match lab.control_plane().apply(manifest) {
                Err(error) if format!("{error:#}").contains("no matches for kind") => Err(error),
                done => Ok(done),
            },
        )?
        .map(drop)
    }

    /// Waits until every ClusterLink is Ready for what its spec says now, and returns how long that took.
    ///
    /// # Errors
    ///
    /// `patience` is over; the message says what is not ready, and lists the pods.
    pub fn wait_ready(&self, lab: &NodeLab, patience: Duration) -> Result<Duration> {
        let begun = Instant::now();
        eventually("the mesh to be Ready", patience, || self.cluster.ready()).map_err(|error| {
            self.keep_logs(lab);
            error.context(state(lab))
        })?;
        Ok(begun.elapsed())
    }

    /// What a user does: `helm install`, `kubectl apply` of the example, and waiting. Returns how long all of it took.
    ///
    /// # Errors
    ///
    /// Something is refused, or nothing is Ready [`READY_WITHIN`] the start.
    pub fn bring_up(&self, lab: &NodeLab) -> Result<Duration> {
        let begun = Instant::now();
        self.install()?;
        self.apply(lab, &self.example)?;
        self.wait_ready(lab, READY_WITHIN.saturating_sub(begun.elapsed()))?;
        Ok(begun.elapsed())
    }

    /// What the eavesdropper has to look for: every node's pods and mesh addresses, and whatever else lies in a super-net.
    ///
    /// # Errors
    ///
    /// The API server does not answer, or nothing is planned.
    pub fn planned(&self) -> Result<Vec<Planned>> {
        self.cluster.planned()
    }

    /// An eavesdropper that is known to hear ([`Oracle::proven`]).
    ///
    /// # Errors
    ///
    /// It is deaf, or nothing is planned.
    pub fn listening(&self, lab: &NodeLab, ends: &[Endpoint]) -> Result<Oracle> {
        Oracle::proven(lab.lab(), self.planned()?, ends)
    }

    /// Copies what operator and agents said into the lab's folder of logs, also from sites that the API server does not reach.
    /// For the time after a failure, so what cannot be read is left out.
    pub fn keep_logs(&self, lab: &NodeLab) {
        for node in lab.running() {
            let Ok(pods) = lab.node_path(node, "/var/log/pods") else {
                continue;
            };
            let Ok(pods) = fs::read_dir(pods) else {
                continue;
            };
            for pod in pods.flatten() {
                let name = pod.file_name().to_string_lossy().into_owned();
                let Some(name) = name.strip_prefix(&format!("{NAMESPACE}_")) else {
                    continue;
                };
                for container in fs::read_dir(pod.path()).into_iter().flatten().flatten() {
                    for log in fs::read_dir(container.path())
                        .into_iter()
                        .flatten()
                        .flatten()
                    {
                        let [container, log_name] = [container.file_name(), log.file_name()]
                            .map(|it| it.to_string_lossy().into_owned());
                        let to = format!("{node}-{name}-{container}-{log_name}");
                        drop(fs::copy(log.path(), lab.lab().logs().join(to)));
                    }
                }
            }
        }
    }

    /// The nodes that are gateways of a site, by rank.
    ///
    /// # Errors
    ///
    /// The API server does not answer.
    pub fn gateways(&self, site: &str) -> Result<Vec<String>> {
        self.cluster.gateways(site)
    }

    /// The findings of `tieline doctor`.
    ///
    /// # Errors
    ///
    /// The program does not run, or does not print a report.
    pub fn doctor(&self) -> Result<Vec<serde_json::Value>> {
        let output = Command::new(Programs::find()?.cli)
            .args(["doctor", "-o", "json"])
            .env("KUBECONFIG", &self.kubeconfig)
            .output()
            .context("running tieline doctor")?;
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let findings = report["findings"].as_array().context("no findings")?;
        Ok(findings.clone())
    }

    /// The program, for people who want to look around.
    #[must_use]
    pub fn helm_path(&self) -> &Path {
        &self.helm
    }

    fn helm_with_chart(&self, verb: &str, more: &[&str]) -> Result<Duration> {
        let chart = self
            .chart
            .to_str()
            .context("the chart's path is no UTF-8")?;
        let mut arguments = vec![verb, "tieline", chart, "--namespace", NAMESPACE];
        arguments.extend(more);
        for setting in &self.settings {
            arguments.extend(["--set", setting.as_str()]);
        }
        self.helm(&arguments)
    }

    fn helm(&self, arguments: &[&str]) -> Result<Duration> {
        let begun = Instant::now();
        let output = Command::new(&self.helm)
            .args(arguments)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .env("HELM_CACHE_HOME", self.folder.join("cache"))
            .env("HELM_CONFIG_HOME", self.folder.join("config"))
            .env("HELM_DATA_HOME", self.folder.join("data"))
            .output()
            .with_context(|| format!("running {}", self.helm.display()))?;
        if !output.status.success() {
            bail!(
                "helm {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(begun.elapsed())
    }
}

/// This machine's, as images name it.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("there is no image for {other}"),
    }
}

/// The program, from the cache that its script fills.
fn helm() -> Result<PathBuf> {
    let script = repository().join("deploy/tools/build");
    let output = Command::new(&script)
        .output()
        .with_context(|| format!("running {}", script.display()))?;
    ensure!(
        output.status.success(),
        "{} failed, and a lab has no Internet to build helm with; run it once outside: {}",
        script.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(PathBuf::from(
        String::from_utf8_lossy(&output.stdout).trim(),
    ))
}

fn is_newer(archive: &Path, inputs: &[PathBuf]) -> Result<bool> {
    let time = |path: &Path| -> Result<SystemTime> {
        let data = fs::metadata(path);
        Ok(data
            .with_context(|| format!("{}: run `cargo build --workspace` first", path.display()))?
            .modified()?)
    };
    let Ok(archive) = time(archive) else {
        return Ok(false);
    };
    for input in inputs {
        if time(input)? >= archive {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The same sites under the same names, with pools of one family or of both.
fn example_of(topology: &Topology) -> &'static str {
    if topology.dual_stack {
        "examples/dual-stack/network.yaml"
    } else {
        "examples/three-sites/network.yaml"
    }
}

/// The example for this lab, see [`Tieline::example`].
fn adapt(text: &str, pod_ranges: &PodRanges) -> Result<String> {
    let mut objects = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        let mut object: Value = serde::Deserialize::deserialize(document)?;
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        match (kind.as_str(), pod_ranges) {
            ("VpnAttachment", _) => continue,
            ("ClusterLink", _) => {
                if let Some(members) = object["spec"]["members"].as_mapping_mut() {
                    members.remove("vpnAttachments");
                }
            }
            // The pool covers the service range, and the API server says so.
            ("Cluster", PodRanges::SomebodyElse(_)) => {
                if let Some(spec) = object["spec"].as_mapping_mut() {
                    spec.remove("serviceCidrs");
                }
            }
            ("Cluster", PodRanges::ControllerManager(ranges)) => {
                let ranges: Vec<Value> = ranges
                    .iter()
                    .map(|range| Value::from(range.to_string()))
                    .collect();
                let mut pods = serde_norway::Mapping::new();
                pods.insert("cidrs".into(), ranges.into());
                object["spec"]["pods"] = pods.into();
            }
            _ => {}
        }
        objects.push(serde_norway::to_string(&object)?);
    }
    ensure!(
        objects.len() >= 3,
        "the example has lost its objects: {text}"
    );
    Ok(objects.join("---\n"))
}

/// Pods of the release and the last words of the one that is not well, for messages.
fn state(lab: &NodeLab) -> String {
    let ask = |arguments: &[&str]| {
        lab.control_plane()
            .kubectl(arguments)
            .unwrap_or_else(|error| format!("{error:#}"))
    };
    format!(
        "{}\n{}\n{}",
        ask(&["get", "pods", "-n", NAMESPACE, "-o", "wide"]),
        ask(&[
            "get",
            "events",
            "-n",
            NAMESPACE,
            "--field-selector=type=Warning"
        ]),
        ask(&[
            "get",
            "clusterlinks.tieline.dev,clusters.tieline.dev",
            "-o",
            "wide"
        ]),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn example() -> String {
        text_for(&Topology::three_sites())
    }

    fn text_for(topology: &Topology) -> String {
        fs::read_to_string(repository().join(example_of(topology))).unwrap()
    }

    #[test]
    fn the_example_loses_its_vpn_and_keeps_the_rest() {
        let own = PodRanges::SomebodyElse(vec!["10.64.0.0/10".parse().unwrap()]);
        let text = adapt(&example(), &own).unwrap();
        assert!(
            !text.contains("hq") && !text.contains("serviceCidrs"),
            "{text}"
        );
        assert!(
            text.contains("assign: true") && text.contains("behindNat: true"),
            "{text}"
        );
    }

    #[test]
    fn a_dual_stack_lab_takes_the_example_with_both_pools() {
        let topology = Topology::three_sites().dual_stack();
        let ranges = ["10.244.0.0/16", "fd10:244::/56"];
        let others = PodRanges::ControllerManager(
            ranges.iter().map(|range| range.parse().unwrap()).collect(),
        );
        let text = adapt(&text_for(&topology), &others).unwrap();
        assert!(!text.contains("hq") && !text.contains("assign"), "{text}");
        for word in ["- 10.64.0.0/10", "- fd64:acee::/40", ranges[0], ranges[1]] {
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn ranges_of_another_manager_are_imported() {
        let others = PodRanges::ControllerManager(vec!["10.244.0.0/16".parse().unwrap()]);
        let text = adapt(&example(), &others).unwrap();
        assert!(
            !text.contains("assign") && text.contains("- 10.244.0.0/16"),
            "{text}"
        );
    }
}
