//! The eavesdropper: listens on every port of every underlay switch and counts what it could read.
//!
//! Clear text is a packet whose source and destination both lie in planned prefixes of different
//! segments. VXLAN and IP-in-IP payloads are looked into. A frame is counted where it enters a
//! switch, so once for each switch it crosses. A filter in the kernel passes on only what can
//! matter, so that a fast encrypted transfer does not overrun the listener; the totals come from
//! the ports' own counters, and frames the listener had to drop are reported, never hidden.

mod classify;
mod filter;
mod forge;

use std::collections::BTreeMap;
use std::fmt;
use std::io::IoSliceMut;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::build::Lab;
use super::netns::NetNs;
use super::traffic::Endpoint;

pub use classify::{Planned, Verdict};
use classify::{Prefixes, verdict};

/// At most this many clear packets are described one by one.
const DESCRIBED: usize = 50;

/// A running capture on all underlay switches.
#[derive(Debug)]
pub struct Oracle {
    ears: Vec<Ear>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    prefixes: Mutex<Arc<Prefixes>>,
    heard: Mutex<Heard>,
    end: AtomicBool,
}

#[derive(Debug, Default, Clone)]
struct Heard {
    clear: BTreeMap<(String, String), u64>,
    described: Vec<String>,
    to_planned: u64,
    to_planned_described: Vec<String>,
    icmp: u64,
    dropped: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Ear {
    switch: String,
    ns: Arc<NetNs>,
    socket: Arc<Socket>,
    before: BTreeMap<u64, u64>,
    thread: Option<JoinHandle<()>>,
}

/// What the eavesdropper heard.
#[derive(Debug, Clone)]
pub struct CaptureReport {
    /// Frames that entered an underlay switch port since the capture began.
    pub frames: u64,
    /// Clear packets by source and destination segment.
    pub clear: BTreeMap<(String, String), u64>,
    /// The first of them in words.
    pub described: Vec<String>,
    /// Packets to a planned prefix from an address that is not planned: what a masquerade makes of a
    /// leak. What a CNI masquerades inside the site is none.
    pub to_planned: u64,
    /// The first of those in words.
    pub to_planned_described: Vec<String>,
    /// ICMP and ICMPv6 packets, neighbour discovery excepted.
    pub icmp: u64,
    /// Frames that the kernel had to drop because the listener was too slow. Anything but 0
    /// makes the rest worthless.
    pub dropped: u64,
}

impl CaptureReport {
    /// Clear packets in all.
    #[must_use]
    pub fn clear_packets(&self) -> u64 {
        self.clear.values().sum()
    }

    /// Fails unless the capture saw frames, lost none and none was clear text, under its own address or another.
    ///
    /// # Errors
    ///
    /// With the first clear packets in words.
    pub fn expect_nothing_clear(&self) -> Result<()> {
        ensure!(self.to_planned == 0, "{self}");
        self.expect_nothing_clear_but_from_hosts()
    }

    /// The same, but for what hosts send under their own addresses: those that have no plan yet.
    ///
    /// # Errors
    ///
    /// As [`CaptureReport::expect_nothing_clear`].
    pub fn expect_nothing_clear_but_from_hosts(&self) -> Result<()> {
        ensure!(
            self.frames > 0,
            "the capture saw no frame at all, so it proves nothing"
        );
        ensure!(
            self.dropped == 0,
            "the capture lost {} frames, so it proves nothing",
            self.dropped
        );
        ensure!(self.clear_packets() == 0, "{self}");
        Ok(())
    }
}

impl fmt::Display for CaptureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} clear packets of {} frames, {} towards planned prefixes from elsewhere, {} ICMP, {} not captured",
            self.clear_packets(),
            self.frames,
            self.to_planned,
            self.icmp,
            self.dropped
        )?;
        for line in self
            .described
            .iter()
            .chain(&self.to_planned_described)
            .take(20)
        {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

impl Oracle {
    /// An oracle that is known to hear: forged clear packets between two of `ends` were counted on every site's switch.
    ///
    /// # Errors
    ///
    /// It is deaf, `ends` are of one segment, or as for [`Oracle::start`] and [`Oracle::inject`].
    pub fn proven(lab: &Lab, planned: Vec<Planned>, ends: &[Endpoint]) -> Result<Self> {
        let from = ends.first().context("no pods")?;
        let to = ends
            .iter()
            .find(|end| end.segment != from.segment)
            .context("one segment only")?;
        let (from, to) = (from.addresses[0], to.addresses[0]);
        let mut oracle = Self::start(lab, planned)?;
        for site in &lab.topology().sites {
            oracle.reset()?;
            oracle.inject(lab, &site.name, from, to, 3)?;
            let report = oracle.report()?;
            ensure!(
                report.clear_packets() >= 3,
                "positive control at {}: {report}",
                site.name
            );
        }
        oracle.reset()?;
        Ok(oracle)
    }

    /// Starts listening, with what is planned so far (super-nets are a good start: between two of
    /// the same segment nothing counts, so give each its own).
    ///
    /// # Errors
    ///
    /// When a packet socket is refused.
    pub fn start(lab: &Lab, planned: Vec<Planned>) -> Result<Self> {
        let shared = Arc::new(Shared {
            prefixes: Mutex::new(Arc::new(Prefixes::new(planned))),
            heard: Mutex::default(),
            end: AtomicBool::new(false),
        });
        let mut oracle = Self {
            ears: Vec::new(),
            shared,
        };
        for (switch, ns) in lab.underlay_switches() {
            let ear = oracle
                .listen(switch, ns)
                .with_context(|| format!("listening on switch {switch}"))?;
            oracle.ears.push(ear);
        }
        Ok(oracle)
    }

    /// Replaces what is planned, for packets from now on.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the new filter.
    pub fn update(&self, planned: Vec<Planned>) -> Result<()> {
        let prefixes = Arc::new(Prefixes::new(planned));
        // Wider of the two for a moment: first the judge, then the filter.
        *locked(&self.shared.prefixes) = Arc::clone(&prefixes);
        for ear in &self.ears {
            ear.socket
                .attach_filter(&filter::program(&prefixes.nets()))?;
        }
        Ok(())
    }

    /// What was heard so far.
    ///
    /// # Errors
    ///
    /// When the ports' counters cannot be read.
    pub fn report(&self) -> Result<CaptureReport> {
        // A frame that passed a moment ago may still be on its way to the listener.
        std::thread::sleep(Duration::from_millis(100));
        let mut frames = 0;
        for ear in &self.ears {
            for (port, entered) in frames_entered(&ear.ns)? {
                frames += entered - ear.before.get(&port).copied().unwrap_or(0).min(entered);
            }
        }
        let heard = locked(&self.shared.heard).clone();
        Ok(CaptureReport {
            frames,
            clear: heard.clear,
            described: heard.described,
            to_planned: heard.to_planned,
            to_planned_described: heard.to_planned_described,
            icmp: heard.icmp,
            dropped: heard.dropped.values().sum(),
        })
    }

    /// Forgets what was heard, for example after a positive control.
    ///
    /// # Errors
    ///
    /// When the ports' counters cannot be read.
    pub fn reset(&mut self) -> Result<()> {
        std::thread::sleep(Duration::from_millis(100));
        for ear in &mut self.ears {
            ear.before = frames_entered(&ear.ns)?;
        }
        *locked(&self.shared.heard) = Heard::default();
        Ok(())
    }

    /// The positive control: a stranger on the switch of `site` sends `count` packets with these
    /// addresses in clear. They must be counted, or the oracle is deaf.
    ///
    /// # Errors
    ///
    /// When the stranger cannot be plugged in or send.
    pub fn inject(
        &self,
        lab: &Lab,
        site: &str,
        from: IpAddr,
        to: IpAddr,
        count: u32,
    ) -> Result<()> {
        forge::send(lab, site, count, &forge::udp_packet(from, to))
    }

    /// As [`Oracle::inject`], inside VXLAN between two underlay addresses: what an overlay CNI does.
    ///
    /// # Errors
    ///
    /// As [`Oracle::inject`].
    pub fn inject_vxlan(
        &self,
        lab: &Lab,
        site: &str,
        from: IpAddr,
        to: IpAddr,
        count: u32,
    ) -> Result<()> {
        forge::send(lab, site, count, &forge::vxlan_packet(lab, site, from, to)?)
    }

    fn listen(&self, switch: &str, ns: &Arc<NetNs>) -> Result<Ear> {
        let nets = locked(&self.shared.prefixes).nets();
        let (socket, bridge) = ns.run(|| {
            // ETH_P_ALL in network byte order, as packet(7) wants it.
            let everything = Protocol::from(i32::from(0x0003_u16.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(everything))?;
            socket.attach_filter(&filter::program(&nets))?;
            Ok((socket, nix::net::if_::if_nametoindex("br0")?))
        })?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        // Refused sizes are clipped by the kernel; what does not fit is counted as dropped.
        let _ = socket.set_recv_buffer_size(4 << 20);
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let socket = Arc::new(socket);
        let before = frames_entered(ns)?;
        let thread = {
            let (socket, shared, switch) = (
                Arc::clone(&socket),
                Arc::clone(&self.shared),
                switch.to_owned(),
            );
            std::thread::Builder::new()
                .name(format!("ear-{switch}"))
                .spawn(move || listen(&socket, &shared, &switch, bridge as usize))?
        };
        Ok(Ear {
            switch: switch.to_owned(),
            ns: Arc::clone(ns),
            socket,
            before,
            thread: Some(thread),
        })
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::SeqCst);
        for ear in &mut self.ears {
            if let Some(thread) = ear.thread.take() {
                // A panic of the listener has been printed with its switch's name.
                let _ = thread.join().map_err(|_| &ear.switch);
            }
        }
    }
}

fn listen(socket: &Socket, shared: &Shared, switch: &str, bridge: usize) {
    let mut frame = [0_u8; 256];
    let mut control = nix::cmsg_space!(u32);
    while !shared.end.load(Ordering::SeqCst) {
        let (length, port) = {
            let mut parts = [IoSliceMut::new(&mut frame)];
            let Ok(message) = recvmsg::<LinkAddr>(
                socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::empty(),
            ) else {
                continue;
            };
            if let Ok(controls) = message.cmsgs() {
                for each in controls {
                    if let ControlMessageOwned::RxqOvfl(dropped) = each {
                        locked(&shared.heard)
                            .dropped
                            .insert(switch.to_owned(), dropped.into());
                    }
                }
            }
            (
                message.bytes,
                message.address.map(|address| address.ifindex()),
            )
        };
        // The bridge itself hears broadcasts that a port has already heard.
        if port == Some(bridge) {
            continue;
        }
        let prefixes = Arc::clone(&locked(&shared.prefixes));
        let verdict = verdict(&frame[..length], &prefixes, switch);
        let mut heard = locked(&shared.heard);
        match verdict {
            Verdict::Other => {}
            Verdict::Icmp => heard.icmp += 1,
            Verdict::ToPlanned { what } => {
                heard.to_planned += 1;
                if heard.to_planned_described.len() < DESCRIBED {
                    heard.to_planned_described.push(format!("{switch}: {what}"));
                }
            }
            Verdict::Clear {
                from,
                to,
                what,
                icmp,
            } => {
                heard.icmp += u64::from(icmp);
                *heard.clear.entry((from, to)).or_default() += 1;
                if heard.described.len() < DESCRIBED {
                    heard.described.push(format!("{switch}: {what}"));
                }
            }
        }
    }
}

/// Frames received by each port of a switch, by interface number; the bridge itself is no port.
fn frames_entered(ns: &NetNs) -> Result<BTreeMap<u64, u64>> {
    let text = ns.ip("-s -j link show type veth")?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    let links = links.as_array().context("ip -j link gave no list")?;
    let number = |link: &serde_json::Value, at: &str| link.pointer(at)?.as_u64();
    Ok(links
        .iter()
        .filter_map(|link| number(link, "/ifindex").zip(number(link, "/stats64/rx/packets")))
        .collect())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
