//! Traffic between the ends of the lab, measured in this process: every pod answers with the
//! source address it saw, so that a test can tell "arrived" from "arrived as itself".

mod bulk;
mod matrix;
mod ping;
mod server;

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpSocket;
use tokio::runtime::Handle;

use super::build::Lab;
use super::netns::NetNs;

pub use bulk::Bulk;
pub use matrix::{Flows, MatrixReport, PairResult};
pub use ping::{PingReport, PingStats, PingStream};
pub use server::Server;

/// The port of every echo server, TCP and UDP.
pub(super) const PORT: u16 = 7000;

/// One end of traffic: a pod, or the host behind the company VPN.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its name, for reports.
    pub name: String,
    /// Ends of one segment talk by the CNI alone, which may translate; others must not be.
    pub segment: String,
    /// Its own addresses, one a family.
    pub addresses: Vec<IpAddr>,
    /// Where it lives.
    pub ns: Arc<NetNs>,
}

/// IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv6() {
            Self::V6
        } else {
            Self::V4
        }
    }
}

/// Transport of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// A connection; the server speaks first.
    Tcp,
    /// One datagram each way.
    Udp,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

impl Endpoint {
    /// Its address of that family, if it has one.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|address| Family::of(*address) == family)
    }

    fn needs(&self, family: Family) -> Result<IpAddr> {
        self.address(family)
            .with_context(|| format!("{} has no {family} address", self.name))
    }

    /// A UDP socket of this end, on a port no earlier flow had.
    fn udp(&self, family: Family) -> Result<UdpSocket> {
        let own = self.needs(family)?;
        self.ns.run(|| udp_from(own))
    }
}

impl Lab {
    /// All ordered pairs of all ends, with the given flows.
    ///
    /// # Errors
    ///
    /// When sockets cannot be made; flows that fail are in the report.
    pub fn matrix(&self, flows: &Flows) -> Result<MatrixReport> {
        self.matrix_of(&self.endpoints(), flows)
    }

    /// All ordered pairs of some ends.
    ///
    /// # Errors
    ///
    /// As [`Lab::matrix`].
    pub fn matrix_of(&self, ends: &[Endpoint], flows: &Flows) -> Result<MatrixReport> {
        block(&self.handle(), matrix::run(ends, flows))
    }

    /// Sends `bytes` over one TCP connection and compares both ends' hashes.
    ///
    /// # Errors
    ///
    /// When the transfer fails or takes longer than `patience`.
    pub fn bulk(
        &self,
        from: &Endpoint,
        to: &Endpoint,
        family: Family,
        bytes: u64,
        patience: Duration,
    ) -> Result<Bulk> {
        block(&self.handle(), bulk::run(from, to, family, bytes, patience))
    }

    /// Echo servers on addresses that are no pod's, for example a node's own; they end on drop.
    ///
    /// # Errors
    ///
    /// When an address is not there or port 7000 is taken.
    pub fn serve(&self, end: &Endpoint) -> Result<Server> {
        Server::start(&self.handle(), end)
    }

    /// Starts a stream of UDP echoes between all ordered pairs of `ends` in each family that both
    /// have; it runs until stopped.
    ///
    /// # Errors
    ///
    /// When sockets cannot be made.
    pub fn ping(&self, ends: &[Endpoint], interval: Duration) -> Result<PingStream> {
        PingStream::start(&self.handle(), ends, interval)
    }

    /// As [`Lab::ping`], for chosen pairs.
    ///
    /// # Errors
    ///
    /// As [`Lab::ping`].
    pub fn ping_pairs(
        &self,
        pairs: &[(Endpoint, Endpoint)],
        interval: Duration,
    ) -> Result<PingStream> {
        PingStream::start_pairs(&self.handle(), pairs, interval)
    }

    /// Probes every 5 ms until an echo comes back; returns how long that took.
    ///
    /// # Errors
    ///
    /// When nothing was answered within `patience`.
    pub fn first_answer(
        &self,
        from: &Endpoint,
        to: &Endpoint,
        family: Family,
        patience: Duration,
    ) -> Result<Duration> {
        block(
            &self.handle(),
            ping::first_answer(from, to, family, patience),
        )
    }

    /// Round-trip times of `count` echoes one after the other, sorted.
    ///
    /// # Errors
    ///
    /// When one of them stays unanswered for a second.
    pub fn round_trips(
        &self,
        from: &Endpoint,
        to: &Endpoint,
        family: Family,
        count: u32,
    ) -> Result<Vec<Duration>> {
        block(&self.handle(), ping::round_trips(from, to, family, count))
    }
}

/// Waits for a future from any thread, also from one that belongs to another runtime.
fn block<T: Send>(handle: &Handle, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
    match std::thread::scope(|scope| scope.spawn(|| handle.block_on(work)).join()) {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Source ports rotate below the ephemeral range, so that no flow meets the connection tracking
/// entry (and the old translation) of an earlier one.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

fn next_port() -> u16 {
    22_000 + NEXT_PORT.fetch_add(1, Ordering::Relaxed) % 10_000
}

fn udp_from(own: IpAddr) -> Result<UdpSocket> {
    for _ in 0..1000 {
        if let Ok(socket) = UdpSocket::bind(SocketAddr::new(own, next_port())) {
            socket.set_nonblocking(true)?;
            return Ok(socket);
        }
    }
    bail!("no free UDP port on {own}")
}

fn tcp_from(own: IpAddr) -> Result<TcpSocket> {
    let mut last = None;
    for _ in 0..1000 {
        let socket = if own.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        match socket.bind(SocketAddr::new(own, next_port())) {
            Ok(()) => return Ok(socket),
            Err(error) => last = Some(error),
        }
    }
    bail!("no free TCP port on {own}: {last:?}")
}
