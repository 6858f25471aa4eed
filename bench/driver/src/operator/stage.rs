//! A control plane with one operator, many nodes, and agents that are only written.

use super::agents::{CLUSTER, LINK, claim, intents, node, node_name, peer_name};
use crate::builds::OperatorBuild;
use anyhow::{Context, Result, bail, ensure};
use e2e::control_plane::{ControlPlane, Options};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind, TypeMeta};
use kube::{Client, Config};
use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::{self, File};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tieline_crds::{ClusterLink, NetworkPlan, Peer};
use tokio::runtime::Runtime;

const NAMESPACE: &str = "tieline-system";
/// The user that the operator is for the API server.
const OPERATOR: &str = "system:serviceaccount:tieline-system:tieline-operator";
/// Requests that are under way at once while objects are written.
const AT_ONCE: usize = 32;
/// How long anything may take that concerns one node. The baseline has needed a minute beside many links.
const LIMIT: Duration = Duration::from_secs(180);
/// How long anything may take that concerns all of them.
const LONG_LIMIT: Duration = Duration::from_secs(600);

/// A control plane, and an operator that runs or not.
pub(crate) struct Stage {
    // Dropped in this order: clients before servers.
    operator: Option<Child>,
    runtime: Runtime,
    client: Client,
    control_plane: ControlPlane,
    build: OperatorBuild,
    dir: PathBuf,
}

impl Stage {
    /// A cluster of nodes whose agents carry the plan; the operator runs and has nothing left to do.
    pub(crate) fn populated(build: &OperatorBuild, nodes: u32) -> Result<Self> {
        let started = Instant::now();
        let mut stage = Self::new(build)?;
        stage.create(&intents())?;
        stage.create(&(0..nodes).map(node).collect::<Vec<_>>())?;
        stage.start()?;
        stage.eventually(&format!("{nodes} Peers"), LONG_LIMIT, || {
            Ok(stage.peers()? >= u64::from(nodes))
        })?;
        // Thousands of claims one after the other are not what is measured.
        stage.stop()?;
        stage.agents_say(0..nodes)?;
        stage.start()?;
        stage.settled(LONG_LIMIT)?;
        // Accepted endpoints may have changed the plan.
        stage.stop()?;
        stage.agents_say(0..nodes)?;
        stage.start()?;
        stage.settled(LONG_LIMIT)?;
        stage.eventually("the link converges", LIMIT, || stage.converged())?;
        eprintln!(
            "   {}: {nodes} nodes after {} s",
            build.name,
            started.elapsed().as_secs()
        );
        Ok(stage)
    }

    fn new(build: &OperatorBuild) -> Result<Self> {
        static STAGES: AtomicU32 = AtomicU32::new(0);
        let number = STAGES.fetch_add(1, Ordering::Relaxed);
        let name = format!("tieline-bench-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let control_plane = ControlPlane::start(Options::new(&dir))?;
        control_plane
            .apply_crds(&build.source.join("crds/yaml"))
            .context("apply crds/yaml")?;
        control_plane
            .apply_path(&build.source.join("deploy/manifests"))
            .context("apply deploy/manifests")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let kubeconfig = Kubeconfig::read_from(control_plane.kubeconfig())?;
        let client = runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        Ok(Self {
            operator: None,
            runtime,
            client,
            control_plane,
            build: build.clone(),
            dir,
        })
    }

    /// Starts the operator.
    pub(crate) fn start(&mut self) -> Result<()> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .context("open the operator's log")?;
        let program = &self.build.program;
        let child = Command::new(program)
            .args([
                "--cluster-name",
                CLUSTER,
                "--metrics-address",
                "127.0.0.1:0",
            ])
            // A full pass by the clock would meet one side and not the other.
            .args(["--resync", "86400"])
            .arg("--kubeconfig")
            .arg(self.control_plane.operator_kubeconfig()?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        self.operator = Some(child);
        Ok(())
    }

    /// Ends the operator as Kubernetes does.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.operator.take() else {
            return Ok(());
        };
        kill(pid(&child)?, Signal::SIGTERM).context("signal the operator")?;
        let give_up = Instant::now() + LIMIT;
        while child.try_wait().context("wait for the operator")?.is_none() {
            if Instant::now() > give_up {
                child.kill().context("kill the operator")?;
                child.wait().context("wait for the operator")?;
                bail!("the operator did not end within {LIMIT:?} of SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// CPU time that the running operator has used, user and system.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let child = self
            .operator
            .as_ref()
            .context("the operator does not run")?;
        let clock = clock_getcpuclockid(pid(child)?).context("find the operator's CPU clock")?;
        Ok(clock_gettime(clock)
            .context("read the operator's CPU clock")?
            .into())
    }

    /// Creates objects, many at once.
    pub(crate) fn create(&self, objects: &[Value]) -> Result<()> {
        let created =
            stream::iter(objects)
                .map(Ok)
                .try_for_each_concurrent(AT_ONCE, |object| async {
                    let object: DynamicObject = serde_json::from_value(object.clone())?;
                    let types = object.types.clone().unwrap_or_default();
                    let api =
                        Api::<DynamicObject>::all_with(self.client.clone(), &resource(&types)?);
                    let name = object.metadata.name.clone().unwrap_or_default();
                    let created = api.create(&PostParams::default(), &object).await;
                    created.with_context(|| format!("create {} {name}", types.kind))?;
                    anyhow::Ok(())
                });
        self.runtime.block_on(created)
    }

    /// Agents say that their kernels carry the plan as it stands. Their Peers exist.
    fn agents_say(&self, numbers: Range<u32>) -> Result<()> {
        let plan = self
            .runtime
            .block_on(self.namespaced::<NetworkPlan>().get(LINK));
        let revision = plan.context("read the plan")?.spec.revision;
        let peers = self.namespaced::<Peer>();
        let said = stream::iter(numbers)
            .map(Ok)
            .try_for_each_concurrent(AT_ONCE, |number| {
                let peers = peers.clone();
                async move {
                    let (name, how) = (peer_name(number), PatchParams::default());
                    let claim = Patch::Merge(claim(number, revision));
                    let said = peers.patch_status(&name, &how, &claim).await;
                    said.with_context(|| format!("write the status of {name}"))?;
                    anyhow::Ok(())
                }
            });
        self.runtime.block_on(said)
    }

    /// Agents of new nodes wait for their Peers, carry the plan, and get their podCIDRs.
    pub(crate) fn agents_speak(&self, numbers: Range<u32>) -> Result<()> {
        for number in numbers.clone() {
            self.eventually(&format!("a Peer for {}", node_name(number)), LIMIT, || {
                self.has_peer(number)
            })?;
        }
        self.agents_say(numbers.clone())?;
        for number in numbers {
            self.eventually(
                &format!("keys and podCIDR of {}", node_name(number)),
                LIMIT,
                || Ok(self.has_keys(number)? && self.has_pod_cidr(number)?),
            )?;
        }
        Ok(())
    }

    /// Creates a Node and waits for its Peer.
    pub(crate) fn time_to_peer(&self, number: u32) -> Result<Duration> {
        let started = Instant::now();
        self.create(&[node(number)])?;
        self.eventually(&format!("a Peer for {}", node_name(number)), LIMIT, || {
            self.has_peer(number)
        })?;
        Ok(started.elapsed())
    }

    /// Waits until the operator has computed nothing for half a second.
    pub(crate) fn at_rest(&self) -> Result<()> {
        let mut since = Instant::now();
        let mut before = self.cpu()?;
        self.eventually("the operator comes to rest", LIMIT, || {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.cpu()?;
            // Renewing its Lease takes less.
            if now - before > Duration::from_millis(2) {
                since = Instant::now();
            }
            before = now;
            Ok(since.elapsed() > Duration::from_millis(500))
        })
    }

    /// Waits until the operator has written nothing for three seconds and is at rest.
    pub(crate) fn settled(&self, limit: Duration) -> Result<()> {
        self.eventually("the operator has nothing left to write", limit, || {
            let mark = self.control_plane.audit_mark();
            let before = self.cpu()?;
            std::thread::sleep(Duration::from_secs(3));
            let writes = self.control_plane.audit_writes_since(mark)?;
            let computed = self.cpu()? - before;
            Ok(writes.iter().all(|write| write.user != OPERATOR)
                && computed < Duration::from_millis(50))
        })
    }

    fn has_peer(&self, number: u32) -> Result<bool> {
        let peer = self.namespaced::<Peer>();
        let found = self
            .runtime
            .block_on(peer.get_metadata_opt(&peer_name(number)));
        Ok(found.context("read a Peer")?.is_some())
    }

    fn has_keys(&self, number: u32) -> Result<bool> {
        let peers = self.namespaced::<Peer>();
        let peer = self.runtime.block_on(peers.get(&peer_name(number)));
        Ok(!peer.context("read a Peer")?.spec.accepted_keys.is_empty())
    }

    /// Whether the operator says that every node carries the plan.
    fn converged(&self) -> Result<bool> {
        let links = Api::<ClusterLink>::all(self.client.clone());
        let link = self.runtime.block_on(links.get(LINK));
        let status = link.context("read the link")?.status.unwrap_or_default();
        let mut conditions = status.conditions.iter();
        Ok(conditions.any(|it| it.type_ == "Converged" && it.status == "True"))
    }

    fn has_pod_cidr(&self, number: u32) -> Result<bool> {
        let nodes = Api::<Node>::all(self.client.clone());
        let node = self.runtime.block_on(nodes.get(&node_name(number)));
        let spec = node.context("read a Node")?.spec.unwrap_or_default();
        Ok(spec.pod_cidr.is_some())
    }

    /// How many Peers there are.
    fn peers(&self) -> Result<u64> {
        let first = ListParams::default().limit(1);
        let list = self
            .runtime
            .block_on(self.namespaced::<Peer>().list_metadata(&first));
        let list = list.context("count Peers")?;
        let rest = list.metadata.remaining_item_count.unwrap_or(0);
        Ok(list.items.len() as u64 + u64::try_from(rest).unwrap_or(0))
    }

    fn namespaced<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    fn eventually(
        &self,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let give_up = Instant::now() + limit;
        while !holds()? {
            ensure!(
                Instant::now() < give_up,
                "{what}: not after {limit:?}. The end of the log of {}:\n{}",
                self.build.name,
                self.log_end()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.dir.join("operator.log")
    }

    fn log_end(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut child) = self.operator.take() {
            // Both fail only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        // TIELINE_KEEP leaves the logs for somebody who looks for a failure's cause.
        if std::env::var_os("TIELINE_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn pid(child: &Child) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

/// Requests are made of the plural: the kind in lower case with an s, for every kind here.
fn resource(types: &TypeMeta) -> Result<ApiResource> {
    let gvk = GroupVersionKind::try_from(types)?;
    let plural = types.kind.to_lowercase() + "s";
    Ok(ApiResource::from_gvk_with_plural(&gvk, &plural))
}
