//! The clusters that the tests share, and how they speak of them.

use e2e::wait::eventually;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::lab::{Endpoint, Flows, Oracle, PingStream, Server, Topology};
use e2e::nodes::tieline::CLUSTER;
use e2e::nodes::{Cni, NodeLab, PodRanges, ProxyMode, Tieline, knockers, probes};
use serde_json::Value;

/// Every wait in which programs start; seconds on two idle cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
pub(crate) const NAMESPACE: &str = "tieline-system";
/// Selector of the operator's pods.
pub(crate) const OPERATORS: &str = "app.kubernetes.io/component=operator";

/// Who gives pod ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ranges {
    /// kube-controller-manager: pods run before Tieline comes and after it has gone.
    Imported,
    /// Tieline: no node is Ready without it.
    Planned,
}

impl Ranges {
    /// A planned address of each family that no pod ever has. Every node's pods send there all the time, also while the node boots:
    /// masqueraded, as this CNI does, if nothing holds them.
    fn nobody(self) -> (Ipv4Addr, Ipv6Addr) {
        match self {
            Self::Imported => (
                Ipv4Addr::new(10, 244, 255, 1),
                Ipv6Addr::new(0xfd10, 0x244, 0, 0xff, 0, 0, 0, 1),
            ),
            Self::Planned => (
                Ipv4Addr::new(10, 127, 255, 1),
                Ipv6Addr::new(0xfd64, 0xacee, 0xff, 0xffff, 0, 0, 0, 1),
            ),
        }
    }
}

/// A dual-stack cluster of three sites with two nodes each, bridge CNI, kube-proxy in nftables mode.
pub(crate) struct Stage {
    // Before the namespaces that it holds.
    /// What answers in pods, by pod.
    servers: Mutex<BTreeMap<String, Server>>,
    pub(crate) lab: NodeLab,
    pub(crate) tieline: Tieline,
    installed: bool,
    oracle: Option<Oracle>,
}

static STAGE: Mutex<Option<(Ranges, Stage)>> = Mutex::new(None);

/// Runs a test in the cluster with these ranges, which is made when it does not run yet. A test that fails takes it along.
pub(crate) fn within(ranges: Ranges, test: impl FnOnce(&mut Stage) -> Result<()>) -> Result<()> {
    let mut shared = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    if shared
        .as_ref()
        .is_none_or(|(running, _)| *running != ranges)
    {
        // Names of namespaces are used once at a time.
        drop(shared.take());
        *shared = Some((ranges, Stage::start(ranges)?));
    }
    let (_, stage) = shared.as_mut().context("no cluster")?;
    let result = test(stage);
    if result.is_err() {
        stage.tieline.keep_logs(&stage.lab);
        drop(shared.take());
    }
    result
}

/// Ends the cluster before the process does.
pub(crate) fn end() {
    drop(STAGE.lock().unwrap_or_else(PoisonError::into_inner).take());
}

impl Stage {
    fn start(ranges: Ranges) -> Result<Self> {
        let name = match ranges {
            Ranges::Imported => "nodes-life-imported",
            Ranges::Planned => "nodes-life-planned",
        };
        let topology = Topology::three_sites().without_vpn().dual_stack();
        let mut options = Tieline::options(name, topology, Cni::Bridge, ProxyMode::Nftables)?;
        if ranges == Ranges::Planned {
            let pools = vec!["10.64.0.0/10".parse()?, "fd64:acee::/40".parse()?];
            options.pod_ranges = PodRanges::SomebodyElse(pools);
        }
        let lab = NodeLab::start_with(options)?;
        let tieline = Tieline::at(&lab)?;
        let mut stage = Self {
            lab,
            tieline,
            installed: false,
            oracle: None,
            servers: Mutex::default(),
        };
        let (v4, v6) = ranges.nobody();
        let manifests = [
            probes("web", None),
            knockers("knock-v4", v4.into()),
            knockers("knock-v6", v6.into()),
        ];
        stage.lab.control_plane().apply(&manifests.concat())?;
        if ranges == Ranges::Imported {
            stage.lab.wait_ready(PATIENCE)?;
            stage.ends()?;
            let dns = "k8s-app=kube-dns";
            stage.lab.wait_pods("kube-system", dns, 1, PATIENCE)?;
        } else {
            stage.installed()?;
        }
        println!("{name}: up after {:.1?}", stage.lab.age());
        Ok(stage)
    }

    /// Installs Tieline and the example unless that has been done, and waits until every pod reaches every pod.
    pub(crate) fn installed(&mut self) -> Result<()> {
        if !self.installed {
            let took = self.tieline.bring_up(&self.lab)?;
            println!("installed, and Ready after {took:.1?}");
            self.installed = true;
            self.lab.wait_ready(PATIENCE)?;
            let ends = self.ends()?;
            let mut oracle = self.tieline.listening(&self.lab, &ends)?;
            self.leaks_without_the_guard(&mut oracle)?;
            self.oracle = Some(oracle);
            self.matrix()?;
        }
        Ok(())
    }

    /// The counter-proof: takes the guard from a node and fails unless its pods' packets are then heard, until the agent has put the
    /// guard back.
    fn leaks_without_the_guard(&self, oracle: &mut Oracle) -> Result<()> {
        let node = "oslo-2";
        oracle.report()?.expect_nothing_clear()?;
        // Again and again, for the agent puts it back at once.
        let unguard = "for turn in $(seq 20); do \
             nft delete table inet tieline; nft delete table netdev tieline; \
             for family in -4 -6; do ip $family rule del pref 103; ip $family rule del pref 105; done; \
             sleep 0.1; done; true";
        self.lab.on_node(node, "sh", &["-c", unguard])?;
        let heard = oracle.report()?;
        ensure!(heard.to_planned > 0, "no leak without the guard: {heard}");
        eventually(
            "a second without a planned packet in clear",
            PATIENCE,
            || {
                oracle.reset()?;
                std::thread::sleep(Duration::from_secs(1));
                oracle.report()?.expect_nothing_clear()
            },
        )
    }

    /// Lets this many operators run.
    pub(crate) fn operators(&self, count: usize) -> Result<()> {
        let replicas = format!("--replicas={count}");
        let scale = [
            "scale",
            "deployment/tieline-operator",
            "-n",
            NAMESPACE,
            &replicas,
        ];
        self.lab.control_plane().kubectl(&scale)?;
        let pods = self.lab.wait_pods(NAMESPACE, OPERATORS, count, PATIENCE);
        pods.map(drop)
    }

    /// `helm uninstall` as a user types it.
    pub(crate) fn uninstall(&mut self) -> Result<Duration> {
        self.oracle = None;
        self.installed = false;
        self.tieline.uninstall()
    }

    /// One pod a running node, Ready.
    pub(crate) fn ends(&self) -> Result<Vec<Endpoint>> {
        let count = self.lab.running().len();
        let pods = self.lab.wait_pods("default", "app=web", count, PATIENCE)?;
        pods.iter().map(|pod| self.lab.endpoint(pod)).collect()
    }

    /// Fails unless every pod reaches every pod, those of other sites see its own address, and nothing was heard in clear.
    pub(crate) fn matrix(&self) -> Result<()> {
        let ends = self.ends()?;
        self.serve(&ends)?;
        let flows = Flows {
            // A lost first handshake is asked for again within seconds; on a busy machine more than once.
            patience: Duration::from_secs(8),
            ..Flows::default()
        };
        let report = self.lab.lab().matrix_of(&ends, &flows)?;
        report.expect_all()?;
        self.nothing_clear()
    }

    /// Lets these pods answer, until [`Stage::hush`].
    pub(crate) fn serve(&self, ends: &[Endpoint]) -> Result<()> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        for end in ends {
            if !servers.contains_key(&end.name) {
                servers.insert(end.name.clone(), self.lab.lab().serve(end)?);
            }
        }
        Ok(())
    }

    /// Nobody answers any more: before pods go, because a server holds its pod's namespace.
    pub(crate) fn hush(&self) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.clear();
    }

    /// Echoes between pods that answer.
    pub(crate) fn ping(
        &self,
        pairs: &[(Endpoint, Endpoint)],
        interval: Duration,
    ) -> Result<PingStream> {
        for (one, other) in pairs {
            self.serve(&[one.clone(), other.clone()])?;
        }
        self.lab.lab().ping_pairs(pairs, interval)
    }

    /// Fails when a planned packet was heard in clear since the installation.
    pub(crate) fn nothing_clear(&self) -> Result<()> {
        let oracle = self.oracle.as_ref().context("nobody listens")?;
        oracle.report()?.expect_nothing_clear()
    }

    /// Lets the oracle know the plan of this moment: what a new node sends inside its site is not clear text.
    pub(crate) fn hear_of_plan(&self) -> Result<()> {
        let Some(oracle) = &self.oracle else {
            return Ok(());
        };
        oracle.update(self.tieline.planned()?)
    }

    /// Waits until nodes, ClusterLinks and pods are Ready again, then as [`Stage::matrix`].
    pub(crate) fn follows(&self) -> Result<()> {
        self.lab.wait_ready(PATIENCE)?;
        self.tieline.wait_ready(&self.lab, PATIENCE)?;
        self.hear_of_plan()?;
        // After a reboot, the API server tells for a while how things were before.
        eventually("every pod to reach every pod", PATIENCE, || self.matrix())
    }

    /// What is granted and given: every ledger's grants with their owners, and every node's pod ranges. Only what is held counts,
    /// so that a released grant is told from one that is in use.
    pub(crate) fn holdings(&self) -> Result<BTreeSet<String>> {
        let mut held = BTreeSet::new();
        for ledger in self.list(&["addressledgers.tieline.dev"])? {
            for grant in ledger["spec"]["grants"].as_array().into_iter().flatten() {
                held.insert(format!("{}: {grant}", ledger["metadata"]["name"]));
            }
        }
        for node in self.list(&["nodes"])? {
            held.insert(format!(
                "{}: {}",
                node["metadata"]["name"], node["spec"]["podCIDRs"]
            ));
        }
        ensure!(!held.is_empty(), "nothing is granted");
        Ok(held)
    }

    /// Fails unless everything that was held is held still, but for what names `except`.
    pub(crate) fn nothing_renumbered(
        &self,
        before: &BTreeSet<String>,
        except: Option<&str>,
    ) -> Result<()> {
        let now = self.holdings()?;
        let moved: Vec<&String> = before
            .difference(&now)
            .filter(|held| except.is_none_or(|name| !held.contains(name)))
            .collect();
        ensure!(moved.is_empty(), "not held any more: {moved:?}");
        Ok(())
    }

    /// The objects of `kubectl get`.
    pub(crate) fn list(&self, what: &[&str]) -> Result<Vec<Value>> {
        let arguments = [&["get"], what, &["-o", "json"]].concat();
        let text = self.lab.control_plane().kubectl(&arguments)?;
        let list: Value = serde_json::from_str(&text)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Peers by node.
    pub(crate) fn peers(&self) -> Result<BTreeMap<String, Value>> {
        let peers = self.list(&["peers.tieline.dev", "-n", NAMESPACE])?;
        Ok(peers
            .into_iter()
            .map(|peer| {
                let node = peer["spec"]["node"].as_str().unwrap_or_default();
                (node.to_owned(), peer)
            })
            .collect())
    }

    /// The only gateway of a site.
    pub(crate) fn gateway(&self, site: &str) -> Result<String> {
        let gateways = self.tieline.gateways(site)?;
        gateways
            .into_iter()
            .next()
            .with_context(|| format!("{site} has no gateway"))
    }
}

/// A condition of a Peer, when it is there.
pub(crate) fn condition<'a>(peer: &'a Value, kind: &str) -> Option<&'a Value> {
    let all = peer["status"]["conditions"].as_array()?;
    all.iter().find(|condition| condition["type"] == kind)
}

/// Name of a node's Peer.
pub(crate) fn peer_name(node: &str) -> String {
    format!("{CLUSTER}.{node}")
}

/// Pairs of pods of different sites, each site with each, in both directions.
pub(crate) fn across(ends: &[Endpoint]) -> Vec<(Endpoint, Endpoint)> {
    pairs(ends, |one, other| one.segment != other.segment)
}

/// Pairs of pods inside a site.
pub(crate) fn inside(ends: &[Endpoint]) -> Vec<(Endpoint, Endpoint)> {
    pairs(ends, |one, other| {
        one.segment == other.segment && one.name != other.name
    })
}

fn pairs(
    ends: &[Endpoint],
    wanted: impl Fn(&Endpoint, &Endpoint) -> bool,
) -> Vec<(Endpoint, Endpoint)> {
    ends.iter()
        .flat_map(|one| ends.iter().map(move |other| (one, other)))
        .filter(|(one, other)| wanted(one, other))
        .map(|(one, other)| (one.clone(), other.clone()))
        .collect()
}
