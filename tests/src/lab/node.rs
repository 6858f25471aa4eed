//! A host that runs an agent: its link to the site, its pods, what can be broken on it by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use tokio::runtime::Handle;

use super::build::forwards;
use super::dump::Dump;
use super::netns::NetNs;
use super::process::Process;
use super::rules::NodeRules;
use super::topology::{NodeSpec, Site, nth, nth4, nth6};
use super::traffic::{Endpoint, Family, Server};

/// How far a node's new number is from its old one: further than a site has nodes.
const RENUMBERED: u32 = 50;

/// A pod: a namespace behind the node's `cni0`, with echo servers on all its addresses.
#[derive(Debug)]
pub struct Pod {
    endpoint: Endpoint,
    _server: Server,
}

/// Where a node is plugged in.
#[derive(Debug)]
pub(super) struct Wiring {
    pub(super) site: Site,
    /// Its number on the site's network at first; the network card's address follows from it.
    pub(super) number: u32,
    pub(super) dual_stack: bool,
    pub(super) pods: u32,
    pub(super) switch: Arc<NetNs>,
    pub(super) admin: Arc<NetNs>,
    pub(super) state: PathBuf,
    pub(super) logs: PathBuf,
    pub(super) handle: Handle,
}

/// A host of the lab.
#[derive(Debug)]
pub struct Node {
    spec: NodeSpec,
    wiring: Wiring,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    ns: Arc<NetNs>,
    /// The number that its addresses have now.
    number: u32,
    prefixes: Vec<IpNet>,
    pods: Vec<Pod>,
    rules: Option<NodeRules>,
}

impl Node {
    pub(super) fn boot(spec: NodeSpec, wiring: Wiring) -> Result<Self> {
        let number = wiring.number;
        let ns = power_on(&spec, &wiring, number)?;
        let inner = Inner {
            ns,
            number,
            prefixes: Vec::new(),
            pods: Vec::new(),
            rules: None,
        };
        Ok(Self {
            spec,
            wiring,
            inner: Mutex::new(inner),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Site, cluster and segment.
    #[must_use]
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// Its namespace; another one after a reboot, so do not keep it.
    #[must_use]
    pub fn ns(&self) -> Arc<NetNs> {
        Arc::clone(&self.inner().ns)
    }

    /// Its address on the site's network.
    #[must_use]
    pub fn address4(&self) -> Ipv4Addr {
        nth4(self.wiring.site.lan4, self.inner().number)
    }

    /// Its IPv6 address on the site's network, in dual-stack topologies.
    #[must_use]
    pub fn address6(&self) -> Option<Ipv6Addr> {
        self.wiring
            .dual_stack
            .then(|| nth6(self.wiring.site.lan6, self.inner().number))
    }

    /// Its address of a family on the site's network.
    ///
    /// # Errors
    ///
    /// When the underlay does not carry that family.
    pub fn address_of(&self, family: Family) -> Result<IpAddr> {
        let found = match family {
            Family::V4 => Some(self.address4().into()),
            Family::V6 => self.address6().map(IpAddr::from),
        };
        found.with_context(|| format!("{} has no {family} address", self.name()))
    }

    /// Gives it other addresses on the site's network, as a new lease does: the old ones go, the new ones come, and with them
    /// the routes that hang on them. Nobody is told.
    ///
    /// # Errors
    ///
    /// When the site's network is too small or the kernel refuses.
    pub fn change_addresses(&self) -> Result<()> {
        let mut inner = self.inner();
        let (site, old, new) = (&self.wiring.site, inner.number, inner.number + RENUMBERED);
        anyhow::ensure!(
            site.lan4.contains(&nth4(site.lan4, new + 1)),
            "{}: {} has no room for another address",
            self.name(),
            site.lan4
        );
        let mut lines = vec![format!(
            "addr del {}/{} dev eth0",
            nth4(site.lan4, old),
            site.lan4.prefix_len()
        )];
        if self.wiring.dual_stack {
            lines.push(format!("addr del {}/64 dev eth0", nth6(site.lan6, old)));
            lines.push(format!("route del default via {}", nth6(site.lan6, 1)));
        }
        lines.extend(addressing(&self.wiring, new));
        inner.ns.ip_batch(&lines)?;
        inner.number = new;
        Ok(())
    }

    /// Its disk: kept over a reboot, gone with the lab.
    #[must_use]
    pub fn disk(&self) -> &Path {
        &self.wiring.state
    }

    /// Starts a program on it, logging to `<node>-<name>.log`.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        let log = self.wiring.logs.join(format!("{}-{name}.log", self.name()));
        Process::start(&self.ns(), name, command, log)
    }

    /// Runs a command to its end and returns its standard output.
    ///
    /// # Errors
    ///
    /// When it fails; the error carries what it said.
    pub fn cmd(&self, program: &str, args: &[&str]) -> Result<String> {
        self.ns().cmd(program, args)
    }

    /// One `ip` command by hand, for example `route flush table 7468`.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn ip(&self, line: &str) -> Result<String> {
        self.ns().ip(line)
    }

    /// One nft script by hand, for example `delete table inet tieline`.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub fn nft(&self, script: &str) -> Result<()> {
        self.ns().nft(script)
    }

    /// What the kernel of this node holds now, in words that compare well.
    ///
    /// # Errors
    ///
    /// When one of the tools fails.
    pub fn dump(&self) -> Result<Dump> {
        Dump::take(&self.ns())
    }

    /// Bytes received and sent by a device since it exists, for load-sharing checks.
    ///
    /// # Errors
    ///
    /// When there is no such device.
    pub fn device_bytes(&self, device: &str) -> Result<(u64, u64)> {
        let text = self.ip(&format!("-s -j link show dev {device}"))?;
        let value: serde_json::Value = serde_json::from_str(&text)?;
        let read = |way: &str| {
            value
                .pointer(&format!("/0/stats64/{way}/bytes"))
                .and_then(serde_json::Value::as_u64)
        };
        read("rx")
            .zip(read("tx"))
            .with_context(|| format!("{device} has no counters"))
    }

    /// Pulls the cable: the node's `eth0` loses its carrier.
    ///
    /// # Errors
    ///
    /// When the switch refuses.
    pub fn unplug(&self) -> Result<()> {
        self.wiring
            .switch
            .ip(&format!("link set {} down", self.name()))
            .map(drop)
    }

    /// Undoes [`Node::unplug`].
    ///
    /// # Errors
    ///
    /// When the switch refuses.
    pub fn plug(&self) -> Result<()> {
        self.wiring
            .switch
            .ip(&format!("link set {} up", self.name()))
            .map(drop)
    }

    /// Loses every packet of the node without a sign: the carrier stays, nothing passes.
    ///
    /// # Errors
    ///
    /// When the switch refuses.
    pub fn blackhole(&self, on: bool) -> Result<()> {
        // 0 is "disabled", 3 "forwarding".
        let state = if on { "0" } else { "3" };
        self.wiring
            .switch
            .cmd(
                "bridge",
                &["link", "set", "dev", self.name(), "state", state],
            )
            .map(drop)
    }

    /// The pod prefixes it was given.
    #[must_use]
    pub fn pod_prefixes(&self) -> Vec<IpNet> {
        self.inner().prefixes.clone()
    }

    /// Its pods as ends of traffic.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.inner()
            .pods
            .iter()
            .map(|pod| pod.endpoint.clone())
            .collect()
    }

    /// Makes `cni0` and the pods out of the given prefixes (one a family). A node that has pods
    /// already keeps them.
    ///
    /// # Errors
    ///
    /// When there is no prefix or the kernel refuses.
    pub fn add_pods(&self, prefixes: &[IpNet]) -> Result<()> {
        if prefixes.is_empty() {
            bail!("{}: no pod prefix given", self.name());
        }
        let mut inner = self.inner();
        if inner.pods.is_empty() {
            prefixes.clone_into(&mut inner.prefixes);
            inner.pods = self.make_pods(&inner.ns, prefixes)?;
        }
        Ok(())
    }

    fn make_pods(&self, ns: &Arc<NetNs>, prefixes: &[IpNet]) -> Result<Vec<Pod>> {
        let mut lines = vec![
            "link add cni0 type bridge mcast_snooping 0".to_owned(),
            "link set cni0 up".to_owned(),
        ];
        for prefix in prefixes {
            lines.push(format!(
                "addr add {}/{} dev cni0{}",
                nth(*prefix, 1),
                prefix.prefix_len(),
                nodad(prefix)
            ));
        }
        ns.ip_batch(&lines)?;
        (0..self.wiring.pods)
            .map(|index| self.make_pod(ns, prefixes, index))
            .collect()
    }

    fn make_pod(&self, ns: &Arc<NetNs>, prefixes: &[IpNet], index: u32) -> Result<Pod> {
        let name = format!("{}-p{index}", self.name());
        let pod = NetNs::create(&name)?;
        self.wiring.admin.ip(&format!(
            "link add vp{index} netns {} type veth peer name e0 netns {name}",
            ns.name()
        ))?;
        ns.ip_batch(&[
            format!("link set vp{index} master cni0"),
            format!("link set vp{index} up"),
        ])?;
        let mut lines = vec!["link set e0 up".to_owned()];
        let mut addresses = Vec::new();
        for prefix in prefixes {
            let address = nth(*prefix, 5 + index);
            lines.push(format!(
                "addr add {address}/{} dev e0{}",
                prefix.prefix_len(),
                nodad(prefix)
            ));
            lines.push(format!("route add default via {}", nth(*prefix, 1)));
            addresses.push(address);
        }
        pod.ip_batch(&lines)?;
        forwards(ns, &format!("vp{index}"))?;
        let endpoint = Endpoint {
            name,
            segment: self.spec.segment(),
            addresses,
            ns: pod,
        };
        let server = Server::start(&self.wiring.handle, &endpoint)?;
        Ok(Pod {
            endpoint,
            _server: server,
        })
    }

    /// A CNI's route to the pods of another node in the same segment, by that node's address.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the route.
    pub fn route_pods_of(&self, other: &Self) -> Result<()> {
        let mut lines = Vec::new();
        for prefix in other.pod_prefixes() {
            let via: IpAddr = match prefix {
                IpNet::V4(_) => other.address4().into(),
                IpNet::V6(_) => other
                    .address6()
                    .with_context(|| {
                        format!("{}: IPv6 pods need a dual-stack topology", other.name())
                    })?
                    .into(),
            };
            lines.push(format!("route replace {prefix} via {via} dev eth0"));
        }
        self.ns().ip_batch(&lines)
    }

    /// Installs the CNI's and kube-proxy's rules; they come back after a reboot with the pods.
    ///
    /// # Errors
    ///
    /// When the kernel refuses them.
    pub fn install_rules(&self, rules: &NodeRules) -> Result<()> {
        let mut inner = self.inner();
        let pods: Vec<IpAddr> = inner
            .pods
            .iter()
            .flat_map(|pod| pod.endpoint.addresses.clone())
            .collect();
        rules.install(&inner.ns, &inner.prefixes, &pods)?;
        inner.rules = Some(rules.clone());
        Ok(())
    }

    /// Power off and on: every process ends, every bit of kernel state is gone, `eth0` comes back
    /// with its addresses. The disk stays. Pods come back with [`super::Lab::restore_pods`].
    ///
    /// # Errors
    ///
    /// When a process does not end or the new namespace cannot be made.
    pub fn reboot(&self) -> Result<()> {
        self.power_off()?;
        let mut inner = self.inner();
        inner.ns = power_on(&self.spec, &self.wiring, inner.number)?;
        Ok(())
    }

    /// Ends every process and unplugs the node for good; its kernel state goes with the namespace.
    pub(super) fn power_off(&self) -> Result<()> {
        let mut inner = self.inner();
        inner.ns.end_processes();
        for pod in &inner.pods {
            pod.endpoint.ns.end_processes();
            pod.endpoint.ns.unname();
        }
        inner.pods.clear();
        self.wiring
            .switch
            .ip(&format!("link del {}", self.name()))?;
        inner.ns.unname();
        Ok(())
    }

    /// Undoes [`Node::route_pods_of`].
    pub(super) fn forget_pods_of(&self, other: &Self) -> Result<()> {
        let lines: Vec<String> = other
            .pod_prefixes()
            .iter()
            .map(|prefix| format!("route del {prefix} dev eth0"))
            .collect();
        self.ns().ip_batch(&lines)
    }

    pub(super) fn restore_pods(&self) -> Result<()> {
        let (prefixes, rules) = {
            let inner = self.inner();
            (inner.prefixes.clone(), inner.rules.clone())
        };
        if prefixes.is_empty() {
            return Ok(());
        }
        self.add_pods(&prefixes)?;
        rules.map_or(Ok(()), |rules| self.install_rules(&rules))
    }
}

fn power_on(spec: &NodeSpec, wiring: &Wiring, number: u32) -> Result<Arc<NetNs>> {
    let ns = NetNs::create_host(&spec.name)?;
    ns.sysctls(&[
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        // As most distributions ship it: replies over another device than expected are dropped.
        ("net/ipv4/conf/all/rp_filter", "1"),
        ("net/ipv4/conf/default/rp_filter", "1"),
    ])?;
    let site = &wiring.site;
    let name = &spec.name;
    wiring.admin.ip(&format!(
        "link add eth0 mtu {mtu} address {mac} netns {name} type veth peer name {name} mtu {mtu} netns {}",
        wiring.switch.name(),
        mtu = site.mtu,
        mac = mac(nth4(site.lan4, wiring.number)),
    ))?;
    plug_in(&wiring.switch, name)?;
    ns.ip("link set eth0 up")?;
    forwards(&wiring.switch, name)?;
    ns.ip_batch(&addressing(wiring, number))?;
    Ok(ns)
}

/// What gives `eth0` the addresses of that number, and the host its default routes.
fn addressing(wiring: &Wiring, number: u32) -> Vec<String> {
    let site = &wiring.site;
    let mut lines = vec![
        format!(
            "addr add {}/{} dev eth0",
            nth4(site.lan4, number),
            site.lan4.prefix_len()
        ),
        format!("route add default via {}", nth4(site.lan4, 1)),
    ];
    if wiring.dual_stack {
        lines.push(format!(
            "addr add {}/64 dev eth0 nodad",
            nth6(site.lan6, number)
        ));
        lines.push(format!("route add default via {}", nth6(site.lan6, 1)));
    }
    lines
}

fn plug_in(switch: &NetNs, port: &str) -> Result<()> {
    switch.ip_batch(&[
        format!("link set {port} master br0"),
        format!("link set {port} up"),
    ])
}

/// A network card keeps its address over a reboot; otherwise the neighbours would send to the old
/// one for seconds.
fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn nodad(prefix: &IpNet) -> &'static str {
    if matches!(prefix, IpNet::V6(_)) {
        " nodad"
    } else {
        ""
    }
}
