//! Every ordered pair of ends, several flows each: who reaches whom, and as whom.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::join_all;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

use super::{Endpoint, Family, PORT, Protocol, tcp_from, udp_from};

/// Which flows a matrix sends.
#[derive(Debug, Clone)]
pub struct Flows {
    /// Flows for each pair, family and protocol, each from a source port of its own.
    pub each: u32,
    /// How long one flow may take. A datagram is repeated once a second within it.
    pub patience: Duration,
    /// Families; a pair that lacks one on either side is left out of it.
    pub families: Vec<Family>,
    /// Protocols.
    pub protocols: Vec<Protocol>,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            each: 2,
            patience: Duration::from_secs(3),
            families: vec![Family::V4, Family::V6],
            protocols: vec![Protocol::Tcp, Protocol::Udp],
        }
    }
}

/// What happened to the flows of one pair in one family and protocol.
#[derive(Debug, Clone)]
pub struct PairResult {
    /// Client.
    pub from: String,
    /// Server.
    pub to: String,
    /// IP version.
    pub family: Family,
    /// Transport.
    pub protocol: Protocol,
    /// Whether the two are in different segments, so that the mesh and not the CNI carries it.
    pub crosses: bool,
    /// Flows sent.
    pub total: u32,
    /// Flows answered.
    pub ok: u32,
    /// Source addresses that the server saw.
    pub seen: BTreeSet<IpAddr>,
    /// Whether the server saw the client's own address and nothing else.
    pub source_kept: bool,
    /// Why flows failed.
    pub errors: BTreeSet<String>,
}

/// The results of a matrix.
#[derive(Debug, Clone, Default)]
pub struct MatrixReport {
    /// By client, server, family and protocol.
    pub pairs: Vec<PairResult>,
}

impl MatrixReport {
    /// Ordered pairs of ends tried.
    #[must_use]
    pub fn pairs_total(&self) -> usize {
        self.named(|_| true).len()
    }

    /// Ordered pairs of ends of which every flow was answered.
    #[must_use]
    pub fn pairs_ok(&self) -> usize {
        self.pairs_total() - self.named(|pair| pair.ok < pair.total).len()
    }

    /// Flows sent and flows answered.
    #[must_use]
    pub fn flows(&self) -> (u32, u32) {
        self.pairs.iter().fold((0, 0), |(total, ok), pair| {
            (total + pair.total, ok + pair.ok)
        })
    }

    /// Results with an unanswered flow.
    #[must_use]
    pub fn failures(&self) -> Vec<&PairResult> {
        self.pairs
            .iter()
            .filter(|pair| pair.ok < pair.total)
            .collect()
    }

    /// Results between segments where the server saw another source than the client's own.
    #[must_use]
    pub fn sources_lost(&self) -> Vec<&PairResult> {
        self.pairs
            .iter()
            .filter(|pair| pair.crosses && pair.ok > 0 && !pair.source_kept)
            .collect()
    }

    /// Results with at least one answered flow, for "nothing gets through".
    #[must_use]
    pub fn answered(&self) -> Vec<&PairResult> {
        self.pairs.iter().filter(|pair| pair.ok > 0).collect()
    }

    /// Fails unless there were flows, every one was answered, and every source that crossed segments
    /// was kept.
    ///
    /// # Errors
    ///
    /// With the first failures by name.
    pub fn expect_all(&self) -> Result<()> {
        let (total, _) = self.flows();
        if total == 0 {
            bail!("the matrix is empty: no two ends share a family");
        }
        if self.failures().is_empty() && self.sources_lost().is_empty() {
            return Ok(());
        }
        bail!("{self}")
    }

    fn named(&self, which: impl Fn(&PairResult) -> bool) -> BTreeSet<(&str, &str)> {
        self.pairs
            .iter()
            .filter(|pair| which(pair))
            .map(|pair| (&*pair.from, &*pair.to))
            .collect()
    }
}

impl fmt::Display for PairResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            to,
            family,
            protocol,
            total,
            ok,
            seen,
            errors,
            ..
        } = self;
        write!(
            f,
            "{from} -> {to} {family} {protocol}: {ok} of {total}, seen as {seen:?}"
        )?;
        if errors.is_empty() {
            Ok(())
        } else {
            write!(f, ", {errors:?}")
        }
    }
}

impl fmt::Display for MatrixReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (total, ok) = self.flows();
        let (failures, lost) = (self.failures(), self.sources_lost());
        writeln!(
            f,
            "{} of {} pairs, {ok} of {total} flows, {} results with a lost source",
            self.pairs_ok(),
            self.pairs_total(),
            lost.len()
        )?;
        for pair in failures.iter().take(12) {
            writeln!(f, "  failed: {pair}")?;
        }
        for pair in lost.iter().take(12) {
            writeln!(f, "  source lost: {pair}")?;
        }
        Ok(())
    }
}

enum Ready {
    Tcp(TcpSocket),
    Udp(std::net::UdpSocket),
}

pub(super) async fn run(ends: &[Endpoint], flows: &Flows) -> Result<MatrixReport> {
    let mut pairs = Vec::new();
    let mut work = Vec::new();
    for from in ends {
        for to in ends {
            if from.name == to.name {
                continue;
            }
            for &family in &flows.families {
                let Some((own, target)) = from.address(family).zip(to.address(family)) else {
                    continue;
                };
                for &protocol in &flows.protocols {
                    let index = pairs.len();
                    pairs.push(PairResult {
                        from: from.name.clone(),
                        to: to.name.clone(),
                        family,
                        protocol,
                        crosses: from.segment != to.segment,
                        total: flows.each,
                        ok: 0,
                        seen: BTreeSet::new(),
                        source_kept: false,
                        errors: BTreeSet::new(),
                    });
                    work.push((from, own, target, protocol, index));
                }
            }
        }
    }
    // One visit to a namespace makes all the sockets of that end.
    let mut ready = Vec::new();
    for from in ends {
        let mine: Vec<_> = work
            .iter()
            .filter(|(end, ..)| end.name == from.name)
            .collect();
        let made = from.ns.run(|| {
            let mut made = Vec::new();
            for (_, own, target, protocol, index) in mine {
                for _ in 0..flows.each {
                    let socket = match protocol {
                        Protocol::Tcp => Ready::Tcp(tcp_from(*own)?),
                        Protocol::Udp => Ready::Udp(udp_from(*own)?),
                    };
                    made.push((*index, SocketAddr::new(*target, PORT), socket));
                }
            }
            Ok(made)
        })?;
        ready.extend(made);
    }
    let patience = flows.patience;
    let answers = join_all(ready.into_iter().map(|(index, target, socket)| async move {
        let answer = match socket {
            Ready::Tcp(socket) => timeout(patience, tcp(socket, target)).await,
            Ready::Udp(socket) => timeout(patience, udp(socket, target)).await,
        };
        (
            index,
            answer.unwrap_or_else(|_| bail!("no answer within {patience:?}")),
        )
    }))
    .await;
    for (index, answer) in answers {
        let pair: &mut PairResult = &mut pairs[index];
        match answer {
            Ok(seen) => {
                pair.ok += 1;
                pair.seen.insert(seen);
            }
            Err(error) => drop(pair.errors.insert(format!("{error:#}"))),
        }
    }
    for (_, own, _, _, index) in work {
        pairs[index].source_kept = pairs[index].seen.iter().eq([&own]);
    }
    Ok(MatrixReport { pairs })
}

async fn tcp(socket: TcpSocket, target: SocketAddr) -> Result<IpAddr> {
    let mut stream = socket.connect(target).await?;
    let (mut line, mut byte) = (String::new(), [0_u8; 1]);
    while stream.read(&mut byte).await? == 1 && byte[0] != b'\n' && line.len() < 64 {
        line.push(char::from(byte[0]));
    }
    line.parse()
        .with_context(|| format!("the server said {line:?}"))
}

async fn udp(socket: std::net::UdpSocket, target: SocketAddr) -> Result<IpAddr> {
    let socket = UdpSocket::from_std(socket)?;
    socket.connect(target).await?;
    let mut buffer = [0_u8; 256];
    loop {
        socket.send(b"flow").await?;
        match timeout(Duration::from_secs(1), socket.recv(&mut buffer)).await {
            Ok(length) => {
                let text = String::from_utf8_lossy(&buffer[..length?]).into_owned();
                let seen = text.split('|').next().unwrap_or_default();
                return seen
                    .parse()
                    .with_context(|| format!("the server said {text:?}"));
            }
            Err(_) => continue,
        }
    }
}
