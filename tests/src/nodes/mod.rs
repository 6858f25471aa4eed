//! Clusters of real Kubernetes nodes on one machine, without a container engine.
//!
//! ```text
//!            Lab: sites, routers, WAN, oracle (crate::lab)
//!   host api        etcd, kube-apiserver, controller manager (crate::control_plane), kube-scheduler
//!   node <site>-<n> namespaces: net, mount, pid, ipc, uts, cgroup      cgroups: tieline-nodes-<pid>/<node>
//!     init          process 1: own /etc, /opt, /run, /var/lib, /var/log; starts and restarts
//!     ├─ containerd ── runc ── pods, in network namespaces that the CNI plug-in made
//!     ├─ kubelet    client certificate of `system:node:<node>`, serving certificate of the cluster's authority
//!     ├─ kube-proxy nftables or iptables
//!     └─ flannel    when that is the CNI
//! ```
//!
//! [`enter()`] must come first in `main`; it needs the machine's own root. [`NodeLab::start`] makes everything; dropping the lab
//! removes everything, and so does the death of the test, however it dies. The lab knows nothing of Tieline; [`Tieline`] installs it there.
//!
//! Nodes carry the label `topology.kubernetes.io/region=<site>`. A pod that runs [`PROBE_IMAGE`] can be driven by
//! [`NodeLab::exec`] as a user would, or become a [`crate::lab::Endpoint`] ([`NodeLab::endpoint`]), so that the lab's traffic
//! matrix, ping streams and transfers run between real pods.
//!
//! A dual-stack topology makes a dual-stack cluster: two InternalIPs, two pod ranges and two service ranges. Not with flannel.
//!
//! Two things stand for what surrounds a real cluster. With [`Cni::Flannel`] the edge of every site drops VXLAN, as firewalls
//! do: otherwise flannel's overlay would join the sites that have public addresses, in clear. With [`Cni::Plain`] the routers of
//! sites know their pods and translate them towards the WAN, as a VPC's NAT gateway does.

mod around;
mod binaries;
mod boot;
mod cgroups;
mod config;
mod dump;
mod enter;
mod host;
mod image;
mod init;
mod pods;
mod routes;
mod seed;
pub mod tieline;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;

use crate::control_plane::ControlPlane;
use crate::lab::{Lab, Node, Process, Topology};

use binaries::Programs;
use cgroups::Cgroups;
use host::{Common, Host};
use routes::Routes;
use seed::Seed;

pub use config::{DNS_SERVICE, PROBE_IMAGE};
pub use enter::enter;
pub use image::Image;
pub use pods::{Answer, Pod, knockers, probes, url};
pub use tieline::Tieline;

/// How pods are connected to their node and to other nodes of the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cni {
    /// The `bridge` plug-in with `ipMasq`: what leaves the node leaves under the node's address. Static routes between the
    /// nodes of a site.
    Bridge,
    /// flannel with VXLAN and its masquerade rules. IPv4 only.
    Flannel,
    /// The `ptp` plug-in, nothing translated on the node: pods keep their addresses inside the site, whose router knows them.
    Plain,
}

/// How kube-proxy (and the CNI's own rules) are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// Native nftables.
    Nftables,
    /// iptables, whichever back end the machine's `iptables` has.
    Iptables,
}

impl ProxyMode {
    /// kube-proxy's word for it, and the CNI plug-ins'.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// Who gives nodes their pod ranges.
#[derive(Debug, Clone)]
pub enum PodRanges {
    /// kube-controller-manager, from these cluster ranges.
    ControllerManager(Vec<IpNet>),
    /// Somebody else, who is yet to be installed; kube-proxy and flannel take these for the cluster's ranges. Until then nodes are
    /// not Ready.
    SomebodyElse(Vec<IpNet>),
}

impl PodRanges {
    fn cluster_cidrs(&self) -> &[IpNet] {
        match self {
            Self::ControllerManager(ranges) | Self::SomebodyElse(ranges) => ranges,
        }
    }
}

/// Which cluster to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the lab; its logs are in `target/lab/<name>/`.
    pub name: String,
    /// Sites and nodes. All nodes join one cluster, whatever their `cluster` says.
    pub topology: Topology,
    /// The CNI.
    pub cni: Cni,
    /// kube-proxy's mode.
    pub proxy: ProxyMode,
    /// Who gives pod ranges.
    pub pod_ranges: PodRanges,
    /// The site where CoreDNS runs; none: no DNS.
    pub dns_site: Option<String>,
    /// More image archives for every node.
    pub archives: Vec<PathBuf>,
    /// More flags for the API server.
    pub api_server_flags: Vec<String>,
}

impl Options {
    /// Pod ranges 10.244.0.0/16, in dual-stack topologies fd10:244::/56 too, by kube-controller-manager; CoreDNS in the first
    /// site.
    #[must_use]
    pub fn new(name: &str, topology: Topology, cni: Cni, proxy: ProxyMode) -> Self {
        Self {
            name: name.to_owned(),
            dns_site: topology.sites.first().map(|site| site.name.clone()),
            pod_ranges: PodRanges::ControllerManager(config::pod_ranges(topology.dual_stack)),
            topology,
            cni,
            proxy,
            archives: Vec::new(),
            api_server_flags: Vec::new(),
        }
    }
}

/// A running cluster of real nodes.
#[derive(Debug)]
pub struct NodeLab {
    // Dropped in this order: what uses something before what it uses.
    hosts: BTreeMap<String, Host>,
    routes: Routes,
    _scheduler: Process,
    control_plane: ControlPlane,
    common: Common,
    lab: Lab,
    pod_ranges: PodRanges,
    started: Instant,
}

impl NodeLab {
    /// Starts a cluster: [`Options::new`] and [`NodeLab::start_with`].
    ///
    /// # Errors
    ///
    /// As [`NodeLab::start_with`].
    pub fn start(name: &str, topology: Topology, cni: Cni, proxy: ProxyMode) -> Result<Self> {
        Self::start_with(Options::new(name, topology, cni, proxy))
    }

    /// Starts a cluster and returns when the API server is ready and every node's process 1 runs; nodes become Ready later
    /// ([`NodeLab::wait_ready`]).
    ///
    /// # Errors
    ///
    /// When a program is missing (the message names the command that builds it) or the machine refuses something; whatever was
    /// made by then goes away.
    pub fn start_with(options: Options) -> Result<Self> {
        ensure!(
            options.cni != Cni::Flannel || !options.topology.dual_stack,
            "flannel's plug-in here (of CNI plug-ins 0.9) gives pods no IPv6 address: use another CNI for dual-stack"
        );
        let started = Instant::now();
        let programs = Programs::find()?;
        let cgroups = Cgroups::of_machine(&enter::cgroup_name()?)?;
        cgroups.create()?;
        let cluster_cidrs = options.pod_ranges.cluster_cidrs().to_vec();
        let lab = Lab::build(&options.name, options.topology)?;
        around::edges(&lab, options.cni)?;

        let archives = lab.state().join("images");
        fs::create_dir_all(&archives)?;
        let (control_plane, seed) = std::thread::scope(|scope| -> Result<_> {
            let seed = scope.spawn(|| Seed::of(&programs, &options.archives));
            let control_plane = around::start_control_plane(
                &lab,
                &options.pod_ranges,
                options.api_server_flags.clone(),
            )?;
            match seed.join() {
                Ok(seed) => Ok((control_plane, seed?)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        let scheduler = around::start_scheduler(&lab, &control_plane, &programs)?;
        let common = Common {
            cni: options.cni,
            proxy: options.proxy,
            cluster_cidrs,
            programs,
            seed,
            archives,
            logs: lab.logs().to_path_buf(),
            cgroups,
            proxy_kubeconfig: control_plane
                .client_kubeconfig("kube-proxy", "/CN=system:kube-proxy")?,
            flannel_kubeconfig: control_plane.client_kubeconfig("flannel", "/CN=lab-flannel")?,
        };
        control_plane.apply(include_str!("../../real-nodes/manifests/flannel.yaml"))?;
        let routes = Routes::start(&lab.handle(), control_plane.kubeconfig(), options.cni)?;
        let mut made = Self {
            hosts: BTreeMap::new(),
            routes,
            _scheduler: scheduler,
            control_plane,
            common,
            lab,
            pod_ranges: options.pod_ranges,
            started,
        };
        let nodes: Vec<Arc<Node>> = made.lab.nodes().cloned().collect();
        for node in &nodes {
            host::provision(node, &made.common, &made.control_plane, None)?;
        }
        made.boot_all(&nodes)?;
        if let Some(site) = &options.dns_site {
            let manifest = include_str!("../../real-nodes/manifests/coredns.yaml");
            made.control_plane.apply(&manifest.replace("SITE", site))?;
        }
        Ok(made)
    }

    fn boot_all(&mut self, nodes: &[Arc<Node>]) -> Result<()> {
        let common = &self.common;
        let booted: Vec<Result<(String, Host)>> = std::thread::scope(|scope| {
            let threads: Vec<_> = nodes
                .iter()
                .map(|node| {
                    scope.spawn(move || {
                        host::reset_cni(node, common)?;
                        Ok((node.name().to_owned(), Host::boot(node, common)?))
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect()
        });
        for host in booted {
            let (name, host) = host?;
            self.hosts.insert(name, host);
        }
        for node in nodes {
            let router = self.lab.host(&format!("rt-{}", node.spec().site))?;
            self.routes.add(Arc::clone(node), router)?;
        }
        Ok(())
    }

    /// The network below: sites, switches, routers, oracle, traffic.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The API server, and `kubectl` as administrator.
    #[must_use]
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// As above, for stopping and starting it.
    pub fn control_plane_mut(&mut self) -> &mut ControlPlane {
        &mut self.control_plane
    }

    /// How long ago the start began.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Names of the nodes whose hosts run.
    #[must_use]
    pub fn running(&self) -> Vec<&str> {
        self.hosts.keys().map(String::as_str).collect()
    }

    /// Waits until all nodes whose hosts run are Ready, and returns how long that took.
    ///
    /// # Errors
    ///
    /// When `patience` is over; the message holds each node's own words.
    pub fn wait_ready(&self, patience: Duration) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            let nodes = self
                .control_plane
                .kubectl(&["get", "nodes", "-o", "json"])?;
            let nodes: serde_json::Value = serde_json::from_str(&nodes)?;
            let waiting: Vec<String> = self
                .hosts
                .keys()
                .filter_map(|name| not_ready(&nodes, name))
                .collect();
            if waiting.is_empty() {
                return Ok(begun.elapsed());
            }
            ensure!(
                begun.elapsed() < patience,
                "not Ready after {patience:?} (logs in {}): {}",
                self.lab.logs().display(),
                waiting.join("; ")
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Imports an image archive on every node, and on those that come later.
    ///
    /// # Errors
    ///
    /// When the archive cannot be read or containerd refuses it.
    pub fn import(&self, archive: &Path) -> Result<()> {
        around::copy_into(&self.common.archives, archive)?;
        let file = fs::canonicalize(archive)?;
        let file = file.to_str().context("the archive's path is no UTF-8")?;
        for name in self.hosts.keys() {
            self.on_node(name, "ctr", &["-n", "k8s.io", "images", "import", file])?;
        }
        Ok(())
    }

    /// Runs a program in all namespaces of a node, as a login there would, and returns what it printed.
    ///
    /// # Errors
    ///
    /// When the node does not run or the program fails; the message is what it said.
    pub fn on_node(&self, node: &str, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.host(node)?.command(program, arguments).output()?;
        ensure!(
            output.status.success(),
            "{node}: {program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A path of a node's file system as this process reaches it, while the node runs.
    ///
    /// # Errors
    ///
    /// When the node does not run.
    pub fn node_path(&self, node: &str, path: &str) -> Result<PathBuf> {
        Ok(self.host(node)?.path(path))
    }

    /// Powers a node off: everything on it ends at once. Its Node object and its disk stay.
    ///
    /// # Errors
    ///
    /// When the node does not run or something on it does not end.
    pub fn power_off(&mut self, node: &str) -> Result<()> {
        self.hosts
            .remove(node)
            .with_context(|| format!("{node} does not run"))?
            .stop()
    }

    /// Powers a node on that was powered off: a new kernel state, the old disk.
    ///
    /// # Errors
    ///
    /// When it runs already or does not boot.
    pub fn power_on(&mut self, node: &str) -> Result<()> {
        ensure!(!self.hosts.contains_key(node), "{node} runs already");
        let node = Arc::clone(self.lab.node(node)?);
        node.reboot()?;
        self.boot_all(&[node])?;
        self.routes.again()
    }

    /// Power off and on.
    ///
    /// # Errors
    ///
    /// As [`NodeLab::power_off`] and [`NodeLab::power_on`].
    pub fn reboot(&mut self, node: &str) -> Result<()> {
        self.power_off(node)?;
        self.power_on(node)
    }

    /// Gives a running node other addresses: the network's new lease, then kubelet and kube-proxy start again with the new
    /// ones, and the site learns the way to its pods.
    ///
    /// # Errors
    ///
    /// When the node does not run or something is refused.
    pub fn change_addresses(&mut self, node: &str) -> Result<()> {
        let machine = Arc::clone(self.lab.node(node)?);
        let host = self.host(node)?;
        machine.change_addresses()?;
        host::provision_addresses(&machine, &host.path("/etc/kubernetes"), &self.control_plane)?;
        host.restart("kubelet")?;
        host.restart("kube-proxy")?;
        self.routes.again()
    }

    /// Deletes a node: its host is powered off and its object goes, with the pods on it.
    ///
    /// # Errors
    ///
    /// When the node does not run or the API server refuses.
    pub fn delete(&mut self, node: &str) -> Result<()> {
        self.power_off(node)?;
        self.routes.remove(node)?;
        self.control_plane.kubectl(&["delete", "node", node])?;
        Ok(())
    }

    /// A new machine under the name and address of a deleted node: empty disk, new keys.
    ///
    /// # Errors
    ///
    /// When the node still runs or does not boot.
    pub fn create_again(&mut self, node: &str) -> Result<()> {
        ensure!(
            !self.hosts.contains_key(node),
            "{node} runs; delete it first"
        );
        let machine = Arc::clone(self.lab.node(node)?);
        fs::remove_dir_all(machine.disk())
            .and_then(|()| fs::create_dir_all(machine.disk()))
            .with_context(|| format!("wiping the disk of {node}"))?;
        host::provision(&machine, &self.common, &self.control_plane, None)?;
        self.power_on(node)
    }

    /// A new node joins a site; returns its name.
    ///
    /// # Errors
    ///
    /// When there is no such site or the node does not boot.
    pub fn join(&mut self, site: &str) -> Result<String> {
        self.join_with(site, None)
    }

    /// A new node joins whose kubelet registers it with a taint of this key and the effect NoSchedule.
    ///
    /// # Errors
    ///
    /// As [`NodeLab::join`].
    pub fn join_tainted(&mut self, site: &str, key: &str) -> Result<String> {
        self.join_with(site, Some(key))
    }

    fn join_with(&mut self, site: &str, taint: Option<&str>) -> Result<String> {
        let cluster = self
            .lab
            .topology()
            .nodes
            .first()
            .map_or_else(|| "shop".to_owned(), |node| node.cluster.clone());
        let node = self.lab.add_node(site, &cluster)?;
        host::provision(&node, &self.common, &self.control_plane, taint)?;
        let name = node.name().to_owned();
        self.boot_all(&[node])?;
        Ok(name)
    }

    /// Cgroup folders of this lab that exist on the machine; for tests of the clean-up.
    #[must_use]
    pub fn cgroup_folders(&self) -> Vec<PathBuf> {
        self.common.cgroups.existing()
    }

    fn host(&self, node: &str) -> Result<&Host> {
        self.hosts
            .get(node)
            .with_context(|| format!("{node} does not run"))
    }
}

impl Drop for NodeLab {
    fn drop(&mut self) {
        // All hosts at once; each waits for the kernel to let go of its cgroups.
        let hosts = std::mem::take(&mut self.hosts);
        std::thread::scope(|scope| {
            for host in hosts.into_values() {
                scope.spawn(move || drop(host));
            }
        });
        // The folder of all hosts; the sweeper tries again when this fails.
        let _ = self.common.cgroups.remove(Duration::from_secs(5));
    }
}

/// Why a node is not Ready, `None` when it is.
fn not_ready(nodes: &serde_json::Value, name: &str) -> Option<String> {
    let items = nodes["items"].as_array().map_or(&[][..], Vec::as_slice);
    let Some(node) = items.iter().find(|node| node["metadata"]["name"] == name) else {
        return Some(format!("{name} is not registered"));
    };
    let conditions = node["status"]["conditions"].as_array();
    let Some(ready) = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Ready")
    else {
        return Some(format!("{name} has said nothing yet"));
    };
    if ready["status"] == "True" {
        return None;
    }
    let message = ready["message"].as_str().unwrap_or("no message");
    Some(format!("{name}: {message}"))
}
