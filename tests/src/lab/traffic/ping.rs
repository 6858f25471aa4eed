//! Streams of numbered UDP echoes: how many were lost, and how long the longest gap was.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Endpoint, Family, PORT};

/// How long after the last echo its answer still counts.
const GRACE: Duration = Duration::from_millis(800);

/// The socket of one pair and what it has sent and heard.
type Echo = (Arc<tokio::net::UdpSocket>, Arc<Mutex<Log>>);

/// A running stream; [`PingStream::stop`] gives the report.
#[derive(Debug)]
pub struct PingStream {
    pairs: Vec<Pair>,
    senders: Vec<JoinHandle<()>>,
    receivers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Pair {
    from: String,
    to: String,
    family: Family,
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    sent: Vec<Instant>,
    back: Vec<Option<Duration>>,
}

/// What a stream measured for one ordered pair.
#[derive(Debug, Clone)]
pub struct PingStats {
    /// Client.
    pub from: String,
    /// Server.
    pub to: String,
    /// IP version.
    pub family: Family,
    /// Echoes sent.
    pub sent: usize,
    /// Echoes never answered.
    pub lost: usize,
    /// When the first of them was sent, to be found in the logs of others.
    pub first_lost: Option<SystemTime>,
    /// From the first echo of the longest unanswered run to the first answered one after it.
    pub longest_gap: Duration,
    /// Median round trip of the answered ones.
    pub median: Duration,
    /// Slowest round trip of the answered ones.
    pub slowest: Duration,
}

/// What a stream measured.
#[derive(Debug, Clone, Default)]
pub struct PingReport {
    /// By pair and family.
    pub pairs: Vec<PingStats>,
}

impl PingReport {
    /// Echoes sent and lost over all pairs.
    #[must_use]
    pub fn totals(&self) -> (usize, usize) {
        self.pairs.iter().fold((0, 0), |(sent, lost), pair| {
            (sent + pair.sent, lost + pair.lost)
        })
    }

    /// Pairs that lost at least one echo.
    #[must_use]
    pub fn losers(&self) -> Vec<&PingStats> {
        self.pairs.iter().filter(|pair| pair.lost > 0).collect()
    }

    /// The longest gap of any pair.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        self.pairs
            .iter()
            .map(|pair| pair.longest_gap)
            .max()
            .unwrap_or_default()
    }

    /// Fails unless echoes were sent and none was lost.
    ///
    /// # Errors
    ///
    /// With the pairs that lost some.
    pub fn expect_no_loss(&self) -> Result<()> {
        let (sent, lost) = self.totals();
        if sent == 0 || self.pairs.iter().any(|pair| pair.sent == 0) {
            bail!("a pair sent nothing: {self}");
        }
        if lost == 0 { Ok(()) } else { bail!("{self}") }
    }
}

impl fmt::Display for PingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, lost) = self.totals();
        writeln!(
            f,
            "{lost} of {sent} echoes lost between {} pairs",
            self.pairs.len()
        )?;
        for PingStats {
            from,
            to,
            family,
            sent,
            lost,
            first_lost,
            longest_gap,
            ..
        } in self.losers().iter().take(12)
        {
            writeln!(
                f,
                "  {from} -> {to} {family}: {lost} of {sent}, longest gap {longest_gap:.0?}, the first at {}",
                first_lost.map_or_else(String::new, clock)
            )?;
        }
        Ok(())
    }
}

impl PingStream {
    pub(super) fn start(handle: &Handle, ends: &[Endpoint], every: Duration) -> Result<Self> {
        let all = |from: &Endpoint| {
            let others = ends.iter().filter(|to| to.name != from.name);
            others
                .map(|to| (from.clone(), to.clone()))
                .collect::<Vec<_>>()
        };
        Self::start_pairs(
            handle,
            &ends.iter().flat_map(all).collect::<Vec<_>>(),
            every,
        )
    }

    pub(super) fn start_pairs(
        handle: &Handle,
        wanted: &[(Endpoint, Endpoint)],
        every: Duration,
    ) -> Result<Self> {
        let _guard = handle.enter();
        let mut stream = Self {
            pairs: Vec::new(),
            senders: Vec::new(),
            receivers: Vec::new(),
        };
        // One sender a client: its echoes to all servers leave in one go.
        let mut clients: BTreeMap<&str, Vec<Echo>> = BTreeMap::new();
        for (from, to) in wanted {
            for family in [Family::V4, Family::V6] {
                let Some(target) = from.address(family).and(to.address(family)) else {
                    continue;
                };
                let socket = connected(from, family, SocketAddr::new(target, PORT))?;
                let socket = Arc::new(tokio::net::UdpSocket::from_std(socket)?);
                let log = Arc::new(Mutex::new(Log::default()));
                stream
                    .receivers
                    .push(handle.spawn(receive(Arc::clone(&socket), Arc::clone(&log))));
                clients
                    .entry(&from.name)
                    .or_default()
                    .push((socket, Arc::clone(&log)));
                stream.pairs.push(Pair {
                    from: from.name.clone(),
                    to: to.name.clone(),
                    family,
                    log,
                });
            }
        }
        stream.senders = clients
            .into_values()
            .map(|pairs| handle.spawn(send(pairs, every)))
            .collect();
        Ok(stream)
    }

    /// Stops sending, waits for the last answers and reports.
    #[must_use]
    pub fn stop(self) -> PingReport {
        self.stop_within(GRACE)
    }

    /// As [`PingStream::stop`], for a machine so slow that an answer may take as long as `grace`.
    #[must_use]
    pub fn stop_within(mut self, grace: Duration) -> PingReport {
        for task in self.senders.drain(..) {
            task.abort();
        }
        let end = Instant::now() + grace;
        loop {
            // The sender may have been in the middle of a round.
            std::thread::sleep(GRACE.min(grace) / 4);
            let (sent, back) = self.progress();
            if sent == back || Instant::now() > end {
                break;
            }
        }
        for task in self.receivers.drain(..) {
            task.abort();
        }
        PingReport {
            pairs: self.pairs.iter().map(Pair::stats).collect(),
        }
    }

    /// Echoes sent and answered so far over all pairs.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        self.pairs.iter().fold((0, 0), |(sent, back), pair| {
            let log = locked(&pair.log);
            (
                sent + log.sent.len(),
                back + log.back.iter().flatten().count(),
            )
        })
    }
}

impl Drop for PingStream {
    fn drop(&mut self) {
        for task in self.senders.iter().chain(&self.receivers) {
            task.abort();
        }
    }
}

impl Pair {
    fn stats(&self) -> PingStats {
        let log = locked(&self.log);
        let mut times: Vec<Duration> = log.back.iter().flatten().copied().collect();
        times.sort();
        PingStats {
            from: self.from.clone(),
            to: self.to.clone(),
            family: self.family,
            sent: log.sent.len(),
            lost: log.sent.len() - times.len(),
            first_lost: first_lost(&log),
            longest_gap: longest_gap(&log),
            median: times.get(times.len() / 2).copied().unwrap_or_default(),
            slowest: times.last().copied().unwrap_or_default(),
        }
    }
}

/// Time of day in UTC, as logs write it.
fn clock(at: SystemTime) -> String {
    let day = at
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis()
        % 86_400_000;
    let (seconds, millis) = (day / 1000, day % 1000);
    format!(
        "{:02}:{:02}:{:02}.{millis:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

fn first_lost(log: &Log) -> Option<SystemTime> {
    let at = log.back.iter().position(Option::is_none)?;
    Some(SystemTime::now() - log.sent[at].elapsed())
}

fn longest_gap(log: &Log) -> Duration {
    let (mut longest, mut since) = (Duration::ZERO, None);
    for (sent, back) in log.sent.iter().zip(&log.back) {
        match (since, back) {
            (None, None) => since = Some(*sent),
            (Some(start), Some(_)) => {
                longest = longest.max(sent.duration_since(start));
                since = None;
            }
            _ => {}
        }
    }
    let open = since
        .zip(log.sent.last())
        .map_or(Duration::ZERO, |(start, last)| last.duration_since(start));
    longest.max(open)
}

async fn send(pairs: Vec<Echo>, every: Duration) {
    let mut ticks = interval(every);
    // A late tick is not made up for: a burst would measure the queue and not the path.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (socket, log) in &pairs {
            let number = {
                let mut log = locked(log);
                log.sent.push(Instant::now());
                log.back.push(None);
                log.sent.len() as u64 - 1
            };
            // A send that the kernel refuses (unreachable) is an echo lost.
            let _ = socket.send(&number.to_be_bytes()).await;
        }
    }
}

async fn receive(socket: Arc<tokio::net::UdpSocket>, log: Arc<Mutex<Log>>) {
    let mut buffer = [0_u8; 256];
    loop {
        let Ok(length) = socket.recv(&mut buffer).await else {
            continue;
        };
        let now = Instant::now();
        let Some(number) = number(&buffer[..length]) else {
            continue;
        };
        let mut log = locked(&log);
        let sent = log.sent.get(number).copied();
        if let Some((slot, sent)) = log.back.get_mut(number).zip(sent) {
            slot.get_or_insert(now.duration_since(sent));
        }
    }
}

fn number(answer: &[u8]) -> Option<usize> {
    let bar = answer.iter().position(|byte| *byte == b'|')?;
    usize::try_from(u64::from_be_bytes(answer.get(bar + 1..)?.try_into().ok()?)).ok()
}

pub(super) async fn first_answer(
    from: &Endpoint,
    to: &Endpoint,
    family: Family,
    patience: Duration,
) -> Result<Duration> {
    let target = SocketAddr::new(to.needs(family)?, PORT);
    let socket = tokio::net::UdpSocket::from_std(connected(from, family, target)?)?;
    let start = Instant::now();
    let mut buffer = [0_u8; 256];
    while start.elapsed() < patience {
        let _ = socket.send(b"first").await;
        if let Ok(Ok(_)) = timeout(Duration::from_millis(5), socket.recv(&mut buffer)).await {
            return Ok(start.elapsed());
        }
        // An error comes back at once; without a pause this would spin.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bail!(
        "{} -> {} over {family}: no answer within {patience:?}",
        from.name,
        to.name
    )
}

pub(super) async fn round_trips(
    from: &Endpoint,
    to: &Endpoint,
    family: Family,
    count: u32,
) -> Result<Vec<Duration>> {
    let target = SocketAddr::new(to.needs(family)?, PORT);
    let socket = tokio::net::UdpSocket::from_std(connected(from, family, target)?)?;
    let mut buffer = [0_u8; 256];
    let mut times = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        socket.send(b"rtt").await?;
        timeout(Duration::from_secs(1), socket.recv(&mut buffer))
            .await
            .with_context(|| {
                format!(
                    "{} -> {} over {family}: no answer within 1 s",
                    from.name, to.name
                )
            })??;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times)
}

/// A socket whose peer is fixed, so that unreachable errors come back to it.
fn connected(from: &Endpoint, family: Family, target: SocketAddr) -> Result<UdpSocket> {
    let socket = from.udp(family)?;
    socket
        .connect(target)
        .with_context(|| format!("{} -> {target}", from.name))?;
    Ok(socket)
}

fn locked(log: &Mutex<Log>) -> std::sync::MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}
