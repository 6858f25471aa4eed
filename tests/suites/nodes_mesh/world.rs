//! The lab of one combination, with pods and with traffic inside every site that never stops; Tieline is installed when a test
//! needs it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::lab::{Dump, Endpoint, PingStream, Server, Topology};
use e2e::nodes::{Cni, NodeLab, Options, Pod, ProxyMode, Tieline};

use crate::real_nodes;

/// From the start of a lab to all nodes Ready, on a machine that does something else too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Six nodes in three sites with a pod each, and a second pod on those of paris.
pub(crate) struct World {
    // Dropped in this order: what lives in a pod before the pod.
    pub(crate) inside: Option<PingStream>,
    _servers: Vec<Server>,
    /// The pods as ends of traffic, in the order of `pods`.
    pub(crate) ends: Vec<Endpoint>,
    /// Pods of `web`, one a node.
    pub(crate) pods: Vec<Pod>,
    pub(crate) tieline: Tieline,
    installed: bool,
    /// What nodes held before the last installation.
    before: BTreeMap<String, Dump>,
    pub(crate) lab: NodeLab,
    pub(crate) cni: Cni,
    /// For what is printed.
    pub(crate) name: String,
}

impl World {
    fn start(cni: Cni, proxy: ProxyMode) -> Result<Self> {
        let name = format!("{}-{}", word(cni), proxy.as_str());
        let topology = if dual_stack(cni, proxy) {
            three_sites().dual_stack()
        } else {
            three_sites()
        };
        let mut options = Tieline::options(&format!("mesh-{name}"), topology, cni, proxy)?;
        options.dns_site = Some("paris".into());
        Self::with(name, options)
    }

    fn with(name: String, options: Options) -> Result<Self> {
        let cni = options.cni;
        let lab = NodeLab::start_with(options)?;
        lab.wait_ready(PATIENCE)?;
        println!("{name}: nodes Ready after {:.1?}", lab.age());
        lab.control_plane().apply(&real_nodes::pods())?;
        lab.wait_pods("default", "app=other", 2, PATIENCE)?;
        lab.wait_pods("kube-system", "k8s-app=kube-dns", 1, PATIENCE)?;
        let pods = lab.wait_pods("default", "app=web", 6, PATIENCE)?;
        println!("{name}: 9 pods Ready after {:.1?}", lab.age());
        let ends: Vec<Endpoint> = pods
            .iter()
            .map(|pod| lab.endpoint(pod))
            .collect::<Result<_>>()?;
        let servers = ends
            .iter()
            .map(|end| lab.lab().serve(end))
            .collect::<Result<_>>()?;
        Ok(Self {
            inside: Some(inside(&lab, &ends)?),
            _servers: servers,
            ends,
            pods,
            tieline: Tieline::at(&lab)?,
            installed: false,
            before: BTreeMap::new(),
            lab,
            cni,
            name,
        })
    }

    /// Tieline installed and Ready; does nothing when it is.
    pub(crate) fn up(&mut self) -> Result<()> {
        if !self.installed {
            self.before = self.dumps()?;
            let took = self.tieline.bring_up(&self.lab)?;
            println!("{}: helm install to Ready {took:.1?}", self.name);
            self.installed = true;
        }
        Ok(())
    }

    /// `helm uninstall`.
    pub(crate) fn down(&mut self) -> Result<()> {
        self.installed = false;
        let took = self.tieline.uninstall()?;
        println!("{}: helm uninstall {took:.1?}", self.name);
        Ok(())
    }

    pub(crate) fn was_installed(&self) -> bool {
        !self.before.is_empty()
    }

    /// Fails unless the nodes hold what they held before the installation.
    pub(crate) fn as_before(&self) -> Result<()> {
        ensure!(!self.before.is_empty(), "nothing was installed");
        let now = self.dumps()?;
        let differences: Vec<String> = self
            .before
            .iter()
            .flat_map(|(node, before)| {
                let lines = differences(before, &now[node]);
                lines.into_iter().map(move |line| format!("{node}: {line}"))
            })
            .collect();
        ensure!(
            differences.is_empty(),
            "not as before the install:\n{}",
            differences.join("\n")
        );
        Ok(())
    }

    /// Of paris and berlin: the tests let a node join oslo, whose neighbours get routes to it.
    fn dumps(&self) -> Result<BTreeMap<String, Dump>> {
        let nodes = ["paris-1", "paris-2", "berlin-1", "berlin-2"];
        nodes
            .iter()
            .map(|&node| Ok((node.to_owned(), self.lab.dump(node)?)))
            .collect()
    }

    pub(crate) fn pod_on(&self, node: &str) -> Result<&Pod> {
        let pod = self.pods.iter().find(|pod| pod.node == node);
        pod.with_context(|| format!("no pod on {node}"))
    }

    /// Pods of one site.
    pub(crate) fn pods_of(&self, site: &str) -> Vec<&Pod> {
        let prefix = format!("{site}-");
        self.pods
            .iter()
            .filter(|pod| pod.node.starts_with(&prefix))
            .collect()
    }
}

/// Between two dumps, but for kube-proxy's tables and chains: the tests give services their endpoints.
fn differences(before: &Dump, after: &Dump) -> Vec<String> {
    let others = |dump: &Dump| -> Vec<String> {
        let (mut table, mut chain) = (false, false);
        let lines = dump.area("nft").iter().filter(|line| {
            if line.starts_with("table ") {
                table = line.ends_with(" kube-proxy {");
            }
            chain |= line.starts_with("chain KUBE-");
            let skipped = table || chain;
            // The table's own end comes after that of its last chain.
            chain &= *line != "}";
            !skipped
        });
        lines.cloned().collect()
    };
    let mut found = before.diff(after);
    found.retain(|line| !line.starts_with("nft: "));
    let (before, after) = (others(before), others(after));
    if before != after {
        found.push(format!("nft: {before:#?}\nhas become {after:#?}"));
    }
    found
}

/// Echoes between the two pods of every site, both ways, fifty a second.
fn inside(lab: &NodeLab, ends: &[Endpoint]) -> Result<PingStream> {
    let pairs: Vec<(Endpoint, Endpoint)> = ends
        .iter()
        .flat_map(|from| {
            ends.iter()
                .filter(|to| to.segment == from.segment && to.name != from.name)
                .map(|to| (from.clone(), to.clone()))
        })
        .collect();
    ensure!(pairs.len() == 6, "{} pairs inside sites", pairs.len());
    lab.lab().ping_pairs(&pairs, Duration::from_millis(20))
}

pub(crate) fn three_sites() -> Topology {
    Topology::three_sites().without_vpn()
}

/// The combination that has IPv6 too; one of each would double the suite.
pub(crate) fn dual_stack(cni: Cni, proxy: ProxyMode) -> bool {
    (cni, proxy) == (Cni::Bridge, ProxyMode::Nftables)
}

pub(crate) fn word(cni: Cni) -> &'static str {
    match cni {
        Cni::Bridge => "bridge",
        Cni::Flannel => "flannel",
        Cni::Plain => "plain",
    }
}

/// The world that tests share.
static WORLD: Mutex<Option<(Cni, ProxyMode, World)>> = Mutex::new(None);

/// Runs a test in the world of a combination, which is built when it does not run yet. A test that fails takes the world with it:
/// what it broke must not fail the next one.
pub(crate) fn within(
    cni: Cni,
    proxy: ProxyMode,
    test: impl FnOnce(&mut World) -> Result<()>,
) -> Result<()> {
    let mut shared = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    if shared
        .as_ref()
        .is_none_or(|(a, b, _)| (*a, *b) != (cni, proxy))
    {
        // Names of namespaces are used once at a time.
        drop(shared.take());
        *shared = Some((cni, proxy, World::start(cni, proxy)?));
    }
    let (.., world) = shared.as_mut().context("no world")?;
    let result = test(world);
    if result.is_err() {
        world.tieline.keep_logs(&world.lab);
        drop(shared.take());
    }
    result
}

/// Ends the world.
pub(crate) fn end() {
    drop(WORLD.lock().unwrap_or_else(PoisonError::into_inner).take());
}
