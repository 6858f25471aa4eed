//! A whole network on one machine: the lab's hosts, a real control plane among them, the operator,
//! an agent on every node, and an example applied as a user would.
//!
//! ```text
//!  Lab ── underlay, nodes, pods, VPN box        this module plays what the lab has no program for:
//!   │                                             kubelet   Node objects, the agents' pods and tokens
//!   ├─ host api: etcd, kube-apiserver, operator   CNI       pods on Node.spec.podCIDRs
//!   └─ node *:   tieline-agent                    people    kubectl apply, the other side of the VPN
//! ```
//!
//! The steps are calls of their own, so that a demo can show them and a suite can stop between
//! them; [`World::up`] is all of them. Nothing here decides anything for Tieline: addresses, keys and
//! configurations come from the API server.

pub(crate) mod cluster;
mod join;
mod leak;
mod programs;
mod scrape;

use crate::wait::eventually;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;

use crate::control_plane::{ControlPlane, Options};
use crate::lab::{API4, Lab, Planned, Process, SiteKind, Topology};

use cluster::Cluster;
pub use join::{Join, Joins};
pub use programs::{NEXT_VERSION, Programs, repository};

/// Namespace of plans, Peers and Secrets.
pub const NAMESPACE: &str = "tieline-system";

/// Which network: a topology of the lab and the example that is applied to it.
#[derive(Debug, Clone)]
pub struct Story {
    /// Name of the lab, and of the folder of its logs.
    pub name: &'static str,
    /// The underlay.
    pub topology: Topology,
    /// Folder under `examples/`.
    pub example: &'static str,
}

impl Story {
    /// `examples/three-sites`: six nodes in three sites and the company VPN.
    #[must_use]
    pub fn three_sites(name: &'static str) -> Self {
        Self {
            name,
            topology: Topology::three_sites(),
            example: "three-sites",
        }
    }

    /// `examples/dual-stack`: the same over IPv4 and IPv6.
    #[must_use]
    pub fn dual_stack(name: &'static str) -> Self {
        Self {
            name,
            topology: Topology::three_sites().dual_stack(),
            example: "dual-stack",
        }
    }

    /// `examples/two-gateways`: two sites of three nodes, two active gateways each.
    #[must_use]
    pub fn two_gateways(name: &'static str) -> Self {
        Self {
            name,
            topology: Topology::empty()
                .site("dublin", SiteKind::Public, [198, 51, 100, 128], 25)
                .nodes("dublin", "media", 3)
                .site("oslo", SiteKind::Routed, [172, 22, 5, 0], 24)
                .nodes("oslo", "media", 3),
            example: "two-gateways",
        }
    }
}

/// A running network. Dropping it ends everything.
#[derive(Debug)]
pub struct World {
    story: Story,
    programs: Programs,
    kubeconfigs: BTreeMap<String, PathBuf>,
    // Dropped in this order: clients before servers, and all of them before the hosts they run on.
    agents: BTreeMap<String, Process>,
    operator: Option<Process>,
    cluster: Cluster,
    /// The control plane in host `api`.
    pub control_plane: ControlPlane,
    /// Hosts, pods and traffic.
    pub lab: Lab,
}

impl World {
    /// Builds the lab, starts the control plane and installs Tieline's kinds, roles and policies. The Node objects exist
    /// afterwards; no program of Tieline's runs yet.
    ///
    /// # Errors
    /// A program is not built, the lab cannot be built, or the control plane does not start.
    pub fn build(story: Story) -> Result<Self> {
        let programs = Programs::find()?;
        let lab = Lab::build(story.name, story.topology.clone())?;
        let options = Options::new(lab.state().join("control-plane"))
            .in_netns("/run/netns/api", API4.into())
            .with_controller_manager();
        let control_plane = ControlPlane::start(options)?;
        control_plane.apply_crds(&repository().join("crds/yaml"))?;
        control_plane.apply_path(&repository().join("deploy/manifests"))?;
        Self::attach(story, programs, lab, control_plane)
    }

    /// A network around a control plane that has Tieline's kinds, roles and policies, wherever it runs. The Node objects
    /// exist afterwards.
    ///
    /// # Errors
    /// The API server does not answer, or knows one of the nodes already.
    pub fn attach(
        story: Story,
        programs: Programs,
        lab: Lab,
        control_plane: ControlPlane,
    ) -> Result<Self> {
        let cluster = Cluster::connect(control_plane.kubeconfig())?;
        let world = Self {
            story,
            programs,
            kubeconfigs: BTreeMap::new(),
            agents: BTreeMap::new(),
            operator: None,
            cluster,
            control_plane,
            lab,
        };
        for node in world.lab.nodes() {
            world.cluster.create_node(node)?;
        }
        Ok(world)
    }

    /// Everything: built, installed, the example applied, the VPN's other side configured, Ready, pods started.
    ///
    /// # Errors
    /// As the steps.
    pub fn up(story: Story) -> Result<Self> {
        let mut world = Self::build(story)?;
        world.install()?;
        world.apply_example()?;
        world.connect_vpn()?;
        world.wait_ready(Duration::from_secs(90), |_| {})?;
        world.assign_pods()?;
        Ok(world)
    }

    /// Starts the operator and every node's agent.
    ///
    /// # Errors
    /// A credential is refused or a program does not start.
    pub fn install(&mut self) -> Result<()> {
        self.start_operator()?;
        let nodes = self.node_names();
        nodes.iter().try_for_each(|node| self.start_agent(node))
    }

    /// Names of all nodes.
    #[must_use]
    pub fn node_names(&self) -> Vec<String> {
        let nodes = self.lab.nodes();
        nodes.map(|node| node.name().to_owned()).collect()
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster_name(&self) -> &str {
        self.story
            .topology
            .nodes
            .first()
            .map_or("", |node| &node.cluster)
    }

    /// Tieline's programs.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Starts the operator in host `api` with the credential of its ServiceAccount.
    ///
    /// # Errors
    /// The credential is refused or the program does not start.
    pub fn start_operator(&mut self) -> Result<()> {
        let kubeconfig = self.control_plane.operator_kubeconfig()?;
        let mut command = Command::new(&self.programs.operator);
        command
            .args(["--cluster-name", self.cluster_name(), "--kubeconfig"])
            .arg(kubeconfig);
        self.operator = Some(self.lab.spawn("api", "operator", &mut command)?);
        Ok(())
    }

    /// Kills the operator, as a crash does.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_operator(&mut self) -> Result<()> {
        let mut operator = self.operator.take().context("the operator does not run")?;
        operator.kill().map(drop)
    }

    /// Starts the agent of a node, with the token of its pod and its state on the node's disk.
    ///
    /// # Errors
    /// The credential is refused or the program does not start.
    pub fn start_agent(&mut self, node: &str) -> Result<()> {
        if !self.kubeconfigs.contains_key(node) {
            let token = self.cluster.agent_token(node)?;
            let kubeconfig = self
                .control_plane
                .token_kubeconfig(&format!("agent-{node}"), &token)?;
            self.kubeconfigs.insert(node.to_owned(), kubeconfig);
        }
        let mut command = self.agent_command(node)?;
        let process = self.lab.node(node)?.spawn("agent", &mut command)?;
        self.agents.insert(node.to_owned(), process);
        Ok(())
    }

    /// Starts agents from this program from now on: with those of another version, a restart is an upgrade.
    pub fn set_agent(&mut self, program: PathBuf) {
        self.programs.agent = program;
    }

    fn agent_command(&self, node: &str) -> Result<Command> {
        let mut command = Command::new(&self.programs.agent);
        command
            .args([
                "--node-name",
                node,
                "--cluster-name",
                self.cluster_name(),
                "--state-dir",
            ])
            .arg(self.agent_state(node)?);
        if let Some(kubeconfig) = self.kubeconfigs.get(node) {
            command.arg("--kubeconfig").arg(kubeconfig);
        }
        Ok(command)
    }

    /// Where a node's agent keeps keys and the last good plan.
    ///
    /// # Errors
    /// There is no such node.
    pub fn agent_state(&self, node: &str) -> Result<PathBuf> {
        Ok(self.lab.node(node)?.disk().join("tieline"))
    }

    /// The running agent of a node.
    ///
    /// # Errors
    /// None runs.
    pub fn agent(&mut self, node: &str) -> Result<&mut Process> {
        self.agents
            .get_mut(node)
            .with_context(|| format!("no agent runs on {node}"))
    }

    /// Ends the agent of a node at once, as a crash does.
    ///
    /// # Errors
    /// None runs.
    pub fn kill_agent(&mut self, node: &str) -> Result<()> {
        self.agent(node)?.kill()?;
        self.agents.remove(node);
        Ok(())
    }

    /// Asks the agent of a node to end.
    ///
    /// # Errors
    /// None runs, or it has not ended within 10 s.
    pub fn stop_agent(&mut self, node: &str) -> Result<()> {
        let stopped = self.agent(node)?.stop(Duration::from_secs(10));
        self.agents.remove(node);
        stopped.map(drop)
    }

    /// Power off and on, with the unit that `tieline-agent boot-unit` puts on a host: it holds planned ranges closed before any
    /// pod comes back ([`Lab::restore_pods`]) and before the agent is started again.
    ///
    /// # Errors
    /// The node does not come back, or a command of the unit fails.
    pub fn reboot(&mut self, node: &str) -> Result<()> {
        let units = self.units(node)?;
        std::fs::create_dir_all(units.join("multi-user.target.wants"))?;
        self.agent_once(node, "boot-unit")?;
        let unit = std::fs::read_to_string(units.join("tieline-guard.service"))?;
        self.agents.remove(node);
        let node = self.lab.node(node)?;
        node.reboot()?;
        for line in unit.lines().filter_map(|it| it.strip_prefix("ExecStart=-")) {
            let (program, arguments) = line.split_once(' ').context("a command of the unit")?;
            let arguments: Vec<&str> = arguments.split(' ').collect();
            node.cmd(program, &arguments)?;
        }
        Ok(())
    }

    /// `tieline-agent cleanup` on a node whose agent is stopped; returns what it said.
    ///
    /// # Errors
    /// It failed.
    pub fn clean_up(&self, node: &str) -> Result<String> {
        self.agent_once(node, "cleanup")
    }

    /// One of the agent's commands that end, with a folder of systemd units of the node's own.
    fn agent_once(&self, node: &str, command: &str) -> Result<String> {
        let text = |path: PathBuf| path.into_os_string().into_string();
        let [agent, state, units] = [
            self.programs.agent.clone(),
            self.agent_state(node)?,
            self.units(node)?,
        ]
        .map(text)
        .map(|path| path.map_err(|path| anyhow::anyhow!("{path:?} is no UTF-8")));
        let (agent, state, units) = (agent?, state?, units?);
        let arguments = [command, "--state-dir", &state, "--units", &units];
        self.lab.node(node)?.cmd(&agent, &arguments)
    }

    fn units(&self, node: &str) -> Result<PathBuf> {
        Ok(self.lab.node(node)?.disk().join("units"))
    }

    /// Fails with the name and the end of the log of a program of ours that has ended by itself.
    ///
    /// # Errors
    /// One has ended.
    pub fn all_run(&mut self) -> Result<()> {
        for (name, process) in self
            .agents
            .iter_mut()
            .map(|(node, agent)| (node.as_str(), agent))
            .chain(
                self.operator
                    .iter_mut()
                    .map(|operator| ("operator", operator)),
            )
        {
            let log = process.log();
            let tail = log.lines().rev().take(15).collect::<Vec<_>>();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            ensure!(
                process.is_running(),
                "{name} has ended by itself; its last words:\n{}",
                tail.join("\n")
            );
        }
        Ok(())
    }

    /// Applies the example with kubectl, after the one change that its reader has to make: the real public key of the
    /// VPN box. The pre-shared key goes into its Secret first.
    ///
    /// # Errors
    /// The example cannot be read or an object is refused.
    pub fn apply_example(&mut self) -> Result<()> {
        let folder = self.edited_example()?;
        let folder = folder.to_str().context("the folder's path is no UTF-8")?;
        self.control_plane
            .kubectl(&["apply", "-f", folder])
            .map(drop)
    }

    /// A copy of the example's folder with the VPN box's key in it.
    fn edited_example(&mut self) -> Result<PathBuf> {
        let source = repository().join("examples").join(self.story.example);
        let copy = self.lab.state().join("example");
        std::fs::create_dir_all(&copy)?;
        for entry in
            std::fs::read_dir(&source).with_context(|| format!("reading {}", source.display()))?
        {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let mut text = std::fs::read_to_string(&path)?;
            if let Some(start) = text.find("peerPublicKey: ") {
                let key = start + "peerPublicKey: ".len();
                let end = text[key..]
                    .find('\n')
                    .map_or(text.len(), |length| key + length);
                text.replace_range(key..end, &self.vpn_keys()?.1);
            }
            if text.contains("presharedKeySecret") {
                let key = self.lab.vpn()?.ns().cmd("wg", &["genpsk"])?;
                self.cluster.create_preshared_key("hq-psk", key.trim())?;
            }
            std::fs::write(copy.join(path.file_name().unwrap_or_default()), text)?;
        }
        Ok(copy)
    }

    /// The VPN box's own keys, made once: private, public.
    fn vpn_keys(&self) -> Result<(String, String)> {
        let path = self.lab.state().join("vpn-keys");
        if let Ok(text) = std::fs::read_to_string(&path)
            && let Some((private, public)) = text.split_once(' ')
        {
            return Ok((private.to_owned(), public.to_owned()));
        }
        let (private, public) = self.lab.vpn()?.new_keys()?;
        std::fs::write(&path, format!("{private} {public}"))?;
        Ok((private, public))
    }

    /// Waits for the configuration that the operator writes for the other side, puts the box's own key in, and starts the
    /// box with it. Without a VPN nothing happens.
    ///
    /// # Errors
    /// No complete configuration within a minute, or the box refuses it.
    pub fn connect_vpn(&mut self) -> Result<()> {
        let Some(vpn) = &self.story.topology.vpn else {
            return Ok(());
        };
        let text = eventually(
            "the configuration for the VPN's other side",
            Duration::from_secs(60),
            || {
                let text = self.cluster.vpn_configuration(&vpn.name)?;
                ensure!(text.contains("\nEndpoint = "), "it names no endpoint yet");
                Ok(text)
            },
        );
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                self.all_run()?;
                return Err(error);
            }
        };
        let (private, _) = self.vpn_keys()?;
        self.lab
            .vpn()?
            .up(&text.replace("REPLACE-WITH-YOUR-PRIVATE-KEY", &private))
    }

    /// Waits until every ClusterLink is Ready for what its spec says now; `tell` hears about it whenever something
    /// changes.
    ///
    /// # Errors
    /// A program of ours ended, or `patience` passed; the message says what is not ready.
    pub fn wait_ready(&mut self, patience: Duration, mut tell: impl FnMut(&str)) -> Result<()> {
        let end = Instant::now() + patience;
        let mut last = String::new();
        loop {
            match self.cluster.ready() {
                Ok(()) => return Ok(()),
                Err(why) => {
                    let why = format!("{why:#}");
                    if why != last {
                        tell(&why);
                    }
                    last = why;
                }
            }
            self.all_run()?;
            ensure!(
                Instant::now() < end,
                "not Ready within {patience:?}: {last}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the CNI does: pods on every node's podCIDRs, as its Node object has them.
    ///
    /// # Errors
    /// A node has no podCIDR, or the kernel refuses.
    pub fn assign_pods(&self) -> Result<()> {
        let mut pods = BTreeMap::new();
        for node in self.lab.nodes() {
            let ranges = self.cluster.pod_cidrs(node.name())?;
            ensure!(!ranges.is_empty(), "Node {} has no podCIDR", node.name());
            pods.insert(node.name().to_owned(), ranges);
        }
        self.lab.assign_pods(&pods)
    }

    /// What the eavesdropper has to look for: every node's pods and mesh addresses, the VPN's prefixes, and whatever else
    /// lies in a super-net, which belongs to nobody and must not travel either.
    ///
    /// # Errors
    /// The API server does not answer.
    pub fn planned(&self) -> Result<Vec<Planned>> {
        self.cluster.planned()
    }

    /// All pod ranges of the cluster, as a CNI and kube-proxy are configured with them.
    ///
    /// # Errors
    /// The API server does not answer.
    pub fn cluster_cidrs(&self) -> Result<Vec<IpNet>> {
        self.cluster.granted(self.cluster_name())
    }

    /// The mesh addresses of a node.
    ///
    /// # Errors
    /// It has no Peer.
    pub fn mesh_addresses(&self, node: &str) -> Result<Vec<std::net::IpAddr>> {
        self.cluster.mesh_addresses(self.cluster_name(), node)
    }

    /// The nodes that are gateways of a site, by rank.
    ///
    /// # Errors
    /// The API server does not answer.
    pub fn gateways(&self, site: &str) -> Result<Vec<String>> {
        self.cluster.gateways(site)
    }

    /// Which WireGuard the agents use: `Kernel`, `Embedded`, or both.
    ///
    /// # Errors
    /// The API server does not answer.
    pub fn backend(&self) -> Result<String> {
        self.cluster.backend()
    }

    /// Versions of the agents, as they say.
    ///
    /// # Errors
    /// The API server does not answer.
    pub fn agent_versions(&self) -> Result<String> {
        self.cluster.agent_versions()
    }

    /// Writes to the kernel by a node's agent since it started.
    ///
    /// # Errors
    /// The agent's metrics are not served.
    pub fn kernel_writes(&self, node: &str) -> Result<u64> {
        scrape::counter(
            &self.lab.node(node)?.ns(),
            "tieline_agent_kernel_writes_total",
        )
    }

    /// The path of kubectl, for people who want to look around.
    #[must_use]
    pub fn kubectl_path(&self) -> &Path {
        &self.control_plane.binaries().kubectl
    }
}
