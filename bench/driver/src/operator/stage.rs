//! A control plane with one operator, many nodes, and agents that are only written.

use super::agents::{intents, node, node_name};
use super::objects::Objects;
use super::process::{Operator, end_of};
use crate::builds::OperatorBuild;
use anyhow::{Context, Result, ensure};
use e2e::control_plane::{ControlPlane, Options};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The user that the operator is for the API server.
const OPERATOR: &str = "system:serviceaccount:tieline-system:tieline-operator";
/// How long anything may take that concerns one node. A debug build of the baseline needs a minute beside many links.
const LIMIT: Duration = Duration::from_secs(120);
/// How long anything may take that concerns all objects.
const LONG_LIMIT: Duration = Duration::from_secs(480);
/// How long no Peer may come while some are missing.
const STANDSTILL: Duration = Duration::from_secs(60);

/// A control plane, and an operator that runs or not.
pub(crate) struct Stage {
    // Dropped in this order: clients before servers.
    operator: Option<Operator>,
    /// Everything that is written and read beside the operator.
    pub(crate) objects: Objects,
    control_plane: ControlPlane,
    build: OperatorBuild,
    dir: PathBuf,
}

impl Stage {
    /// A cluster of nodes whose agents carry the plan; the operator runs and has nothing left to do.
    ///
    /// # Errors
    /// It does not come to that; the message quotes the operator's log.
    pub(crate) fn populated(build: &OperatorBuild, nodes: u32) -> Result<Self> {
        let started = Instant::now();
        let mut stage = Self::new(build)?;
        stage.objects.create(&intents())?;
        stage
            .objects
            .create(&(0..nodes).map(node).collect::<Vec<_>>())?;
        stage.start()?;
        stage.peers(nodes)?;
        // Agents speak twice, because accepted endpoints may change the plan; and while the operator is away, because thousands of
        // claims one after the other are not what is measured.
        for _ in 0..2 {
            stage.stop()?;
            stage.objects.claim(0..nodes)?;
            stage.start()?;
            stage.settled()?;
        }
        stage.eventually("the link converges", LIMIT, || stage.objects.is_converged())?;
        eprintln!(
            "   {}: {nodes} nodes after {} s",
            build.name,
            started.elapsed().as_secs()
        );
        Ok(stage)
    }

    /// Waits for as many Peers, while there come more.
    fn peers(&self, nodes: u32) -> Result<()> {
        let mut before = 0;
        let mut since = Instant::now();
        self.eventually(&format!("{nodes} Peers"), LONG_LIMIT, || {
            let now = self.objects.peers()?;
            if now != before {
                (before, since) = (now, Instant::now());
            }
            ensure!(
                since.elapsed() < STANDSTILL,
                "{now} Peers of {nodes}, and no more within {STANDSTILL:?}. The end of the log of {}:\n{}",
                self.build.name,
                end_of(&self.log())
            );
            Ok(now >= u64::from(nodes))
        })
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
        Ok(Self {
            operator: None,
            objects: Objects::connect(control_plane.kubeconfig())?,
            control_plane,
            build: build.clone(),
            dir,
        })
    }

    /// Starts the operator.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(&mut self) -> Result<()> {
        let kubeconfig = self.control_plane.operator_kubeconfig()?;
        self.operator = Some(Operator::start(&self.build, &kubeconfig, &self.log())?);
        Ok(())
    }

    /// Ends the operator as Kubernetes does.
    ///
    /// # Errors
    /// It does not end.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.operator.take().map_or(Ok(()), Operator::stop)
    }

    /// CPU time that the running operator has used.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let operator = self.operator.as_ref();
        operator.context("the operator does not run")?.cpu()
    }

    /// A node joins: its kubelet registers it, its agent waits for the Peer and carries the plan, and it gets its podCIDR. Returns how
    /// long the Peer took.
    ///
    /// # Errors
    /// It does not come to that; the message quotes the operator's log.
    pub(crate) fn join(&self, number: u32) -> Result<Duration> {
        let name = node_name(number);
        let started = Instant::now();
        self.objects.create(&[node(number)])?;
        let what = format!("a Peer for {name}");
        self.eventually(&what, LIMIT, || self.objects.has_peer(number))?;
        let took = started.elapsed();
        self.objects.claim(number..number + 1)?;
        let what = format!("accepted keys and podCIDR of {name}");
        self.eventually(&what, LIMIT, || self.objects.has_joined(number))?;
        self.at_rest()?;
        Ok(took)
    }

    /// Waits until the operator has computed nothing for half a second.
    fn at_rest(&self) -> Result<()> {
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
    ///
    /// # Errors
    /// It does not come to that; the message quotes the operator's log.
    pub(crate) fn settled(&self) -> Result<()> {
        self.eventually("the operator has nothing left to do", LONG_LIMIT, || {
            let mark = self.control_plane.audit_mark();
            let before = self.cpu()?;
            std::thread::sleep(Duration::from_secs(3));
            let writes = self.control_plane.audit_writes_since(mark)?;
            let computed = self.cpu()? - before;
            let silent = writes.iter().all(|write| write.user != OPERATOR);
            Ok(silent && computed < Duration::from_millis(50))
        })
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
                end_of(&self.log())
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.dir.join("operator.log")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.operator = None;
        // TIELINE_KEEP leaves the logs for somebody who looks for a failure's cause.
        if std::env::var_os("TIELINE_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
