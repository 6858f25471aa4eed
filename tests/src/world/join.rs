//! A node joins: from its registration to the first packet that went through a tunnel and back.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::World;
use crate::lab::{Endpoint, Family, NetNs};
use crate::wait::eventually;

/// The port of every echo server of the lab.
const ECHO: u16 = 7000;

/// One join.
#[derive(Debug, Clone)]
pub struct Join {
    /// The node.
    pub node: String,
    /// From just before its Node object exists and its agent starts until its first packet was answered by a pod of
    /// another site, which saw it come from the node's mesh address.
    pub first_packet: Duration,
}

/// Several joins, for their median and the slowest.
#[derive(Debug, Clone, Default)]
pub struct Joins(Vec<Duration>);

impl Joins {
    /// Adds one.
    pub fn push(&mut self, join: &Join) {
        self.0.push(join.first_packet);
        self.0.sort();
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The median.
    #[must_use]
    pub fn p50(&self) -> Duration {
        self.0
            .get(self.0.len().saturating_sub(1) / 2)
            .copied()
            .unwrap_or_default()
    }

    /// The slowest.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

impl World {
    /// Adds a node to `site` and measures until its first packet reaches `to`, a pod of another site. Boot and credential are
    /// not part of the time; registration, addresses, keys, the agent's start and the handshake are.
    ///
    /// # Errors
    /// Nothing is answered within 30 s, or it came from another address than a mesh address.
    pub fn join(&mut self, site: &str, to: &Endpoint) -> Result<Join> {
        let cluster = self.cluster_name().to_owned();
        let node = self.lab.add_node(site, &cluster)?;
        let name = node.name().to_owned();
        let token = self.cluster.agent_token(&name)?;
        let kubeconfig = self
            .control_plane
            .token_kubeconfig(&format!("agent-{name}"), &token)?;
        self.kubeconfigs.insert(name.clone(), kubeconfig);
        let target = to
            .address(Family::V4)
            .context("the other end has no IPv4 address")?;

        let start = Instant::now();
        self.cluster.create_node(&node)?;
        self.start_agent(&name)?;
        let seen = match probe(&node.ns(), target, Duration::from_secs(30)) {
            Ok(seen) => seen,
            Err(error) => {
                self.all_run()?;
                let state = self
                    .cluster
                    .ready()
                    .err()
                    .map_or_else(|| "Ready".into(), |why| format!("{why:#}"));
                return Err(error.context(format!("{name} -> {}; the link: {state}", to.name)));
            }
        };
        let first_packet = start.elapsed();
        let own = self.mesh_addresses(&name)?;
        ensure!(
            own.contains(&seen),
            "{name} was seen as {seen}, and its mesh addresses are {own:?}"
        );
        Ok(Join {
            node: name,
            first_packet,
        })
    }

    /// Takes a node out that joined: machine off, Node object deleted, disk wiped. Returns when the operator has withdrawn
    /// its Peer.
    ///
    /// # Errors
    /// It is not the last of its site, or its Peer stays for 20 s.
    pub fn leave(&mut self, node: &str) -> Result<()> {
        self.kill_agent(node)?;
        self.kubeconfigs.remove(node);
        self.lab.remove_node(node)?;
        self.cluster.delete_node(node)?;
        let cluster = self.cluster_name().to_owned();
        eventually("the Peer's withdrawal", Duration::from_secs(20), || {
            ensure!(
                self.cluster.peer(&cluster, node)?.is_none(),
                "Peer {cluster}.{node} is still there"
            );
            Ok(())
        })
    }
}

/// Sends every 2 ms from whatever address the routes say, until an answer comes; returns the address the server saw.
/// One socket: its source is chosen for each packet, so that it is the mesh address as soon as there is a tunnel.
fn probe(ns: &NetNs, target: IpAddr, patience: Duration) -> Result<IpAddr> {
    ns.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(2)))?;
        let end = Instant::now() + patience;
        let mut buffer = [0_u8; 128];
        while Instant::now() < end {
            // Unreachable is what the guard says before the tunnel is there.
            let _ = socket.send_to(b"join", SocketAddr::new(target, ECHO));
            match socket.recv_from(&mut buffer) {
                Ok((length, _)) => {
                    let text = String::from_utf8_lossy(&buffer[..length]);
                    let seen = text.split('|').next().unwrap_or_default();
                    return seen
                        .parse()
                        .with_context(|| format!("the server said {text:?}"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        bail!("no answer from {target} within {patience:?}")
    })
}
