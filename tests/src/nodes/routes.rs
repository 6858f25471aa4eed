//! Routes to other nodes' pods inside a site, as a cloud's route controller or a data center's routing protocol sets them.
//!
//! Level-triggered: at every change of a Node, and after a reboot, all routes are computed again from the pod ranges that the
//! API server holds. Only for CNIs without an overlay of their own. With [`Cni::Plain`] the site's router learns them too, since
//! pods leave the node under their own address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use futures::StreamExt as _;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::Cni;
use crate::lab::{NetNs, Node};

/// Whose routes lead where.
#[derive(Debug)]
struct Member {
    node: Arc<Node>,
    /// The router of its site, when it learns pod routes.
    router: Option<Arc<NetNs>>,
}

#[derive(Debug, Default)]
struct Table {
    members: BTreeMap<String, Member>,
    pods: BTreeMap<String, Vec<IpNet>>,
}

/// The running controller.
#[derive(Debug)]
pub(super) struct Routes {
    table: Arc<Mutex<Table>>,
    cni: Cni,
    task: JoinHandle<()>,
}

impl Routes {
    pub(super) fn start(handle: &Handle, kubeconfig: &Path, cni: Cni) -> Result<Self> {
        let table = Arc::new(Mutex::new(Table::default()));
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let shared = Arc::clone(&table);
        let task = handle.spawn(async move {
            if let Err(error) = follow(kubeconfig, shared).await {
                report(&error);
            }
        });
        Ok(Self { table, cni, task })
    }

    /// A node to give routes to; its own pods become known when its object says so.
    pub(super) fn add(&self, node: Arc<Node>, router: &Arc<NetNs>) -> Result<()> {
        if self.cni == Cni::Flannel {
            return Ok(());
        }
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let router = (self.cni == Cni::Plain).then(|| Arc::clone(router));
        table
            .members
            .insert(node.name().to_owned(), Member { node, router });
        table.install()
    }

    /// The node gets no routes any more, and nobody routes to it.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ranges) = table.pods.remove(name) {
            table.forget(&ranges)?;
        }
        table.members.remove(name);
        Ok(())
    }

    /// Sets all routes again, after a reboot.
    pub(super) fn again(&self) -> Result<()> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.install()
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(kubeconfig: Kubeconfig, table: Arc<Mutex<Table>>) -> Result<()> {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let nodes: Api<NodeObject> = Api::all(Client::try_from(config)?);
    let mut events = watcher(nodes, watcher::Config::default())
        .default_backoff()
        .boxed();
    while let Some(event) = events.next().await {
        // The watcher itself goes on after an error.
        let (object, gone) = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                (object, false)
            }
            Ok(watcher::Event::Delete(object)) => (object, true),
            Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => continue,
        };
        let Some(name) = object.metadata.name else {
            continue;
        };
        let ranges = object.spec.and_then(|spec| spec.pod_cidrs);
        let ranges: Vec<IpNet> = if gone { None } else { ranges }
            .unwrap_or_default()
            .iter()
            .filter_map(|range| range.parse().ok())
            .collect();
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = table.update(name, ranges) {
            report(&error);
        }
    }
    Ok(())
}

// A background task has nobody to return to; a test that then fails shows this beside its own message.
#[allow(clippy::print_stderr)]
fn report(error: &anyhow::Error) {
    eprintln!("pod routes: {error:#}");
}

impl Table {
    fn update(&mut self, name: String, ranges: Vec<IpNet>) -> Result<()> {
        let known = self.pods.get(&name);
        if known == Some(&ranges) || (known.is_none() && ranges.is_empty()) {
            return Ok(());
        }
        if let Some(old) = self.pods.remove(&name) {
            self.forget(&old)?;
        }
        self.pods.insert(name, ranges);
        self.install()
    }

    fn install(&self) -> Result<()> {
        for member in self.members.values() {
            let others = self.members.values().filter(|other| {
                other.node.name() != member.node.name()
                    && other.node.spec().segment() == member.node.spec().segment()
            });
            let lines: Vec<String> = others.flat_map(|other| self.lines(other, "eth0")).collect();
            member.node.ns().ip_batch(&lines)?;
            if let Some(router) = &member.router {
                router.ip_batch(&self.lines(member, "lan0"))?;
            }
        }
        Ok(())
    }

    /// Routes to a node's pods over a device.
    fn lines(&self, to: &Member, device: &str) -> Vec<String> {
        let ranges = self.pods.get(to.node.name());
        ranges
            .into_iter()
            .flatten()
            .filter_map(|range| {
                let via: IpAddr = match range {
                    IpNet::V4(_) => to.node.address4().into(),
                    IpNet::V6(_) => to.node.address6()?.into(),
                };
                Some(format!("route replace {range} via {via} dev {device}"))
            })
            .collect()
    }

    fn forget(&self, ranges: &[IpNet]) -> Result<()> {
        for member in self.members.values() {
            let mut places = vec![(member.node.ns(), "eth0")];
            places.extend(
                member
                    .router
                    .iter()
                    .map(|router| (Arc::clone(router), "lan0")),
            );
            for (ns, device) in &places {
                for range in ranges {
                    let family = match range {
                        IpNet::V4(_) => "-4",
                        IpNet::V6(_) => "-6",
                    };
                    // Absent where the node was rebooted meanwhile, or in another site.
                    let present = ns
                        .ip(&format!(
                            "{family} route show {range} dev {device} proto boot"
                        ))
                        .context("looking for an old route")?;
                    if !present.trim().is_empty() && present.contains(" via ") {
                        ns.ip(&format!("route del {range} dev {device}"))?;
                    }
                }
            }
        }
        Ok(())
    }
}
