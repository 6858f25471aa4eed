//! Builds the underlay of a [`Topology`] and keeps it: switches, routers, hosts, nodes, pods.

use crate::wait::eventually;
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use tokio::runtime::{Handle, Runtime};

use super::netns::NetNs;
use super::node::{Node, Wiring};
use super::process::Process;
use super::rules::NodeRules;
use super::topology::{NodeSpec, Site, SiteKind, Topology, nth4, nth6};
use super::traffic::Endpoint;
use super::vpn::VpnBox;

/// The API server's host, reachable from every site.
pub const API4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The API server's host over IPv6, in dual-stack topologies.
pub const API6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xa);
/// The WAN address of this process itself, the administrator's machine.
pub const ADMIN4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 250);

const API_WAN4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);
const ADMIN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfa);
const HQ6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x28);

/// Pod prefixes by node name, as somebody else (an operator, a CNI) decided them.
pub type Pods = BTreeMap<String, Vec<IpNet>>;

/// A built laboratory. Dropping it ends every process in it and removes every namespace.
#[derive(Debug)]
pub struct Lab {
    topology: Topology,
    admin: Arc<NetNs>,
    switches: BTreeMap<String, Arc<NetNs>>,
    hosts: BTreeMap<String, Arc<NetNs>>,
    nodes: BTreeMap<String, Arc<Node>>,
    vpn: Option<VpnBox>,
    runtime: Option<Runtime>,
    state: PathBuf,
    logs: PathBuf,
}

impl Lab {
    /// Builds the underlay. `name` is the folder of the lab's logs under `target/lab/`.
    ///
    /// # Errors
    ///
    /// When a namespace, a link or an address is refused; whatever was made by then goes away.
    pub fn build(name: &str, topology: Topology) -> Result<Self> {
        let logs = logs_folder(name)?;
        let state = PathBuf::from("/run/lab").join(name);
        fs::create_dir_all(&state)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("lab-traffic")
            .enable_all()
            .build()?;
        let mut lab = Self {
            topology,
            admin: NetNs::own()?,
            switches: BTreeMap::new(),
            hosts: BTreeMap::new(),
            nodes: BTreeMap::new(),
            vpn: None,
            runtime: Some(runtime),
            state,
            logs,
        };
        lab.wan()?;
        for (index, site) in lab.topology.sites.clone().iter().enumerate() {
            lab.site(index, site)
                .with_context(|| format!("site {}", site.name))?;
        }
        for spec in lab.topology.nodes.clone() {
            lab.boot(spec)?;
        }
        if let Some(vpn) = lab.topology.vpn.clone() {
            let made = VpnBox::build(&lab, &vpn, lab.topology.dual_stack.then_some(HQ6))?;
            for ns in [made.ns(), &made.endpoint().ns] {
                lab.hosts.insert(ns.name().to_owned(), Arc::clone(ns));
            }
            lab.vpn = Some(made);
        }
        Ok(lab)
    }

    /// The topology as it is now.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The node of that name.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn node(&self, name: &str) -> Result<&Arc<Node>> {
        self.nodes
            .get(name)
            .with_context(|| format!("the lab has no node {name}"))
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// A host that is no node: `api`, `rt-<site>`, the VPN's box and its LAN host.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn host(&self, name: &str) -> Result<&Arc<NetNs>> {
        self.hosts
            .get(name)
            .with_context(|| format!("the lab has no host {name}"))
    }

    /// The switches that carry the underlay: `wan` and one a site.
    #[must_use]
    pub fn underlay_switches(&self) -> &BTreeMap<String, Arc<NetNs>> {
        &self.switches
    }

    /// The company VPN.
    ///
    /// # Errors
    ///
    /// When the topology has none.
    pub fn vpn(&self) -> Result<&VpnBox> {
        self.vpn.as_ref().context("the topology has no VPN")
    }

    /// Where logs go; they outlive the lab.
    #[must_use]
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Scratch space in memory, gone with the lab.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Starts a program on a host that is no node.
    ///
    /// # Errors
    ///
    /// When there is no such host or the program does not start.
    pub fn spawn(&self, host: &str, name: &str, command: &mut Command) -> Result<Process> {
        let log = self.logs.join(format!("{host}-{name}.log"));
        Process::start(self.host(host)?, name, command, log)
    }

    /// Gives nodes their pods and the CNI's routes between nodes of one segment. Nodes that have
    /// pods already keep them.
    ///
    /// # Errors
    ///
    /// When a node is unknown or a prefix cannot be used.
    pub fn assign_pods(&self, pods: &Pods) -> Result<()> {
        for name in pods.keys() {
            self.node(name)?;
        }
        std::thread::scope(|scope| {
            let started: Vec<_> = pods
                .iter()
                .filter_map(|(name, prefixes)| Some((self.nodes.get(name)?, prefixes)))
                .map(|(node, prefixes)| scope.spawn(move || node.add_pods(prefixes)))
                .collect();
            started.into_iter().try_for_each(joined)
        })?;
        self.cni_routes()
    }

    /// Installs the CNI's and kube-proxy's rules on every node that has pods.
    ///
    /// # Errors
    ///
    /// When the kernel refuses them.
    pub fn install_rules(&self, rules: &NodeRules) -> Result<()> {
        std::thread::scope(|scope| {
            let started: Vec<_> = self
                .nodes
                .values()
                .map(|node| scope.spawn(move || node.install_rules(rules)))
                .collect();
            started.into_iter().try_for_each(joined)
        })
    }

    /// What a CNI in host-gateway mode does: a route to every other node of the segment.
    fn cni_routes(&self) -> Result<()> {
        for node in self.nodes.values() {
            for other in self.nodes.values() {
                if node.name() != other.name() && node.spec().segment() == other.spec().segment() {
                    node.route_pods_of(other)?;
                }
            }
        }
        Ok(())
    }

    /// Adds a node to a running lab: wired and booted, without pods.
    ///
    /// # Errors
    ///
    /// When the site is unknown or the kernel refuses.
    pub fn add_node(&mut self, site: &str, cluster: &str) -> Result<Arc<Node>> {
        let spec = self.topology.next_node(site, cluster);
        self.topology.nodes.push(spec.clone());
        self.boot(spec)
    }

    /// Takes the node that joined its site last out again: processes, pods, the CNI's routes to
    /// them, and its disk are gone, and its name and address are free.
    ///
    /// # Errors
    ///
    /// When it is not the last of its site or the kernel refuses.
    pub fn remove_node(&mut self, name: &str) -> Result<()> {
        let node = Arc::clone(self.node(name)?);
        let site = &node.spec().site;
        let last = self.topology.nodes.iter().rfind(|spec| spec.site == *site);
        if last.is_none_or(|last| last.name != name) {
            bail!("{name} is not the node that joined {site} last");
        }
        node.power_off()?;
        self.nodes.remove(name);
        self.topology.nodes.retain(|spec| spec.name != name);
        for other in self.nodes.values() {
            if other.spec().segment() == node.spec().segment() {
                other.forget_pods_of(&node)?;
            }
        }
        fs::remove_dir_all(node.disk()).with_context(|| format!("wiping {}", node.disk().display()))
    }

    /// Brings a rebooted node's pods, CNI routes and rules back, as its kubelet would.
    ///
    /// # Errors
    ///
    /// When the node is unknown or the kernel refuses.
    pub fn restore_pods(&self, name: &str) -> Result<()> {
        self.node(name)?.restore_pods()?;
        self.cni_routes()
    }

    /// All pods and the VPN's LAN host: the ends of the traffic matrix.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let mut all: Vec<Endpoint> = self
            .nodes
            .values()
            .flat_map(|node| node.endpoints())
            .collect();
        all.extend(self.vpn.as_ref().map(VpnBox::endpoint));
        all
    }

    /// One end by its name, for example `berlin-1-p0` or `hq-host`.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn endpoint(&self, name: &str) -> Result<Endpoint> {
        let all = self.endpoints();
        let names: Vec<_> = all.iter().map(|end| end.name.clone()).collect();
        all.into_iter()
            .find(|end| end.name == name)
            .with_context(|| format!("no end {name}; there are {}", names.join(", ")))
    }

    /// The runtime that carries the lab's own traffic.
    ///
    /// # Panics
    ///
    /// Never while the lab lives: only its drop takes the runtime.
    #[must_use]
    pub fn handle(&self) -> Handle {
        #[allow(clippy::unwrap_used)]
        self.runtime.as_ref().unwrap().handle().clone()
    }

    /// A switch: a namespace with one bridge.
    pub(super) fn switch(&self, name: &str) -> Result<Arc<NetNs>> {
        let ns = NetNs::create(&format!("sw-{name}"))?;
        ns.ip_batch(&[
            "link add br0 type bridge mcast_snooping 0",
            "link set br0 up",
        ])?;
        Ok(ns)
    }

    /// A cable from `device` in `ns` to the port `port` of a switch.
    pub(super) fn cable(
        &self,
        ns: &NetNs,
        device: &str,
        switch: &NetNs,
        port: &str,
        mtu: u32,
    ) -> Result<()> {
        cable(&self.admin, ns, device, switch, port, &format!("mtu {mtu}"))
    }

    fn wan(&mut self) -> Result<()> {
        let wan = self.switch("wan")?;
        let api = NetNs::create_host("api")?;
        self.cable(&api, "eth0", &wan, "api", 1500)?;
        let mut lines = vec![
            format!("addr add {API_WAN4}/24 dev eth0"),
            format!("addr add {API4}/32 dev eth0"),
        ];
        if self.topology.dual_stack {
            lines.push(format!("addr add {API6}/64 dev eth0 nodad"));
        }
        lines.extend(self.wan_routes(None, false));
        api.ip_batch(&lines)?;
        self.hosts.insert("api".into(), api);

        // The administrator is this process's own namespace, which has no name to `ip`.
        wan.ip(&format!(
            "link add admin type veth peer name adm0 netns {}",
            std::process::id()
        ))?;
        wan.ip_batch(&["link set admin master br0", "link set admin up"])?;
        let mut lines = vec![
            "link set adm0 up".to_owned(),
            format!("addr add {ADMIN4}/24 dev adm0"),
        ];
        if self.topology.dual_stack {
            lines.push(format!("addr add {ADMIN6}/64 dev adm0 nodad"));
        }
        lines.extend(self.wan_routes(None, true));
        self.admin.ip_batch(&lines)?;
        self.switches.insert("wan".into(), wan);
        Ok(())
    }

    /// The routes of a participant of the WAN: what the provider's routers would know.
    pub(super) fn wan_routes(&self, own: Option<usize>, to_api: bool) -> Vec<String> {
        let mut lines = Vec::new();
        if to_api {
            lines.push(format!("route add {API4}/32 via {API_WAN4}"));
        }
        for (index, site) in self.topology.sites.iter().enumerate() {
            if own == Some(index) {
                continue;
            }
            if site.kind != SiteKind::Nat {
                lines.push(format!("route add {} via {}", site.lan4, router4(index)));
            }
            if self.topology.dual_stack {
                lines.push(format!("route add {} via {}", site.lan6, router6(index)));
            }
        }
        lines
    }

    fn site(&mut self, index: usize, site: &Site) -> Result<()> {
        let switch = self.switch(&site.name)?;
        let name = format!("rt-{}", site.name);
        let router = NetNs::create(&name)?;
        let wan = self.switches.get("wan").context("no WAN yet")?;
        self.cable(&router, "wan0", wan, &name, 1500)?;
        self.cable(&router, "lan0", &switch, "router", site.mtu)?;
        let mut lines = vec![
            format!("addr add {}/24 dev wan0", router4(index)),
            format!(
                "addr add {}/{} dev lan0",
                nth4(site.lan4, 1),
                site.lan4.prefix_len()
            ),
        ];
        if self.topology.dual_stack {
            lines.push(format!("addr add {}/64 dev wan0 nodad", router6(index)));
            lines.push(format!("addr add {}/64 dev lan0 nodad", nth6(site.lan6, 1)));
        }
        lines.extend(self.wan_routes(Some(index), true));
        router.ip_batch(&lines)?;
        router.sysctls(&[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
        ])?;
        if site.kind == SiteKind::Nat {
            router.nft(NAT_ROUTER)?;
        }
        self.hosts.insert(name, router);
        self.switches.insert(site.name.clone(), switch);
        Ok(())
    }

    fn boot(&mut self, spec: NodeSpec) -> Result<Arc<Node>> {
        let Some((_, site)) = self.topology.find_site(&spec.site) else {
            bail!("node {}: the topology has no site {}", spec.name, spec.site);
        };
        let number = self
            .topology
            .nodes
            .iter()
            .filter(|node| node.site == spec.site)
            .position(|node| node.name == spec.name)
            .context("a node that is not part of the topology")?;
        let switch = self
            .switches
            .get(&spec.site)
            .context("a site without a switch")?;
        let state = self.state.join(&spec.name);
        fs::create_dir_all(&state)?;
        let wiring = Wiring {
            site: site.clone(),
            number: u32::try_from(number)? + 11,
            dual_stack: self.topology.dual_stack,
            pods: self.topology.pods_per_node,
            switch: Arc::clone(switch),
            admin: Arc::clone(&self.admin),
            state,
            logs: self.logs.clone(),
            handle: self.handle(),
        };
        let node = Arc::new(Node::boot(spec.clone(), wiring)?);
        self.nodes.insert(spec.name, Arc::clone(&node));
        Ok(node)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The servers' sockets would keep the pods' namespaces alive.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let everywhere = self.nodes.values().map(|node| node.ns());
        let everywhere: Vec<_> = everywhere.chain(self.hosts.values().cloned()).collect();
        for ns in everywhere {
            ns.end_processes();
        }
        let _ = self.admin.ip("link del adm0");
        let _ = fs::remove_dir_all(&self.state);
    }
}

/// Connects two namespaces: a device in the first, a bridge port in the second, which forwards
/// when this returns.
pub(super) fn cable(
    admin: &NetNs,
    ns: &NetNs,
    device: &str,
    switch: &NetNs,
    port: &str,
    options: &str,
) -> Result<()> {
    let (near, far) = (ns.name(), switch.name());
    admin.ip(&format!(
        "link add {device} {options} netns {near} type veth peer name {port} {options} netns {far}"
    ))?;
    switch.ip_batch(&[
        format!("link set {port} master br0"),
        format!("link set {port} up"),
    ])?;
    ns.ip(&format!("link set {device} up"))?;
    forwards(switch, port)
}

/// Waits until a bridge port forwards. The kernel notices a new carrier a moment later, and what
/// is sent before that is lost, address resolution for instance.
pub(super) fn forwards(switch: &NetNs, port: &str) -> Result<()> {
    let what = format!("port {port} of {} to forward", switch.name());
    eventually(&what, Duration::from_secs(2), || {
        let shown = switch.cmd("bridge", &["link", "show", "dev", port])?;
        ensure!(shown.contains("state forwarding"), "{shown}");
        Ok(())
    })
}

fn joined(thread: std::thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn router4(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, u8::try_from(index + 11).unwrap_or(u8::MAX))
}

fn router6(index: usize) -> Ipv6Addr {
    Ipv6Addr::new(
        0x2001,
        0xdb8,
        0xffff,
        0,
        0,
        0,
        1,
        u16::try_from(index + 0x11).unwrap_or(u16::MAX),
    )
}

/// The address that a site's nodes seem to have from outside.
impl Lab {
    /// The WAN address of a site's router; behind a NAT also that of all its nodes.
    ///
    /// # Errors
    ///
    /// When there is no such site.
    pub fn router_address(&self, site: &str) -> Result<IpAddr> {
        let (index, _) = self
            .topology
            .find_site(site)
            .with_context(|| format!("no site {site}"))?;
        Ok(router4(index).into())
    }
}

/// `target/lab/<name>`, emptied.
pub(crate) fn logs_folder(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own
        .ancestors()
        .find(|folder| folder.ends_with("debug") || folder.ends_with("release"))
        .and_then(Path::parent)
        .map_or_else(std::env::temp_dir, Path::to_path_buf);
    let logs = target.join("lab").join(name);
    if logs.exists() {
        fs::remove_dir_all(&logs).with_context(|| format!("emptying {}", logs.display()))?;
    }
    fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
    Ok(logs)
}

/// Port-restricted: a packet comes in only as the answer to one that went out to that very port.
const NAT_ROUTER: &str = r#"
table ip nat {
  chain post { type nat hook postrouting priority 100; policy accept; oifname "wan0" masquerade; }
}
table inet edge {
  chain forward {
    type filter hook forward priority 0; policy accept;
    iifname "wan0" ct state established,related accept
    iifname "wan0" meta l4proto 58 icmpv6 type { 133, 134, 135, 136 } accept
    iifname "wan0" counter drop
  }
  chain input {
    type filter hook input priority 0; policy accept;
    iifname "wan0" ct state established,related accept
    iifname "wan0" meta l4proto { 6, 17 } counter drop
  }
}
"#;
