//! The Linux kernel, and WireGuard in it or beside it.
//!
//! A host is a list of resources. Each is read whole, written one change at a time, and keeps what saves it a look; none knows
//! of another, and [`Linux`] is the order in which they are asked:
//!
//! ```text
//!  observe:  links ── addresses ── devices ── routes ── rules ── nft ── sysctls  ──► HostState
//!  apply:    one write per change, peers of a device in one call; each write is counted
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`devices`], [`labels`] | WireGuard devices and their peers, under the names that the kernel cannot remember |
//! | [`addresses`], [`routes`], [`rules`] | rtnetlink, to and from the model |
//! | [`firewall`] | our nft tables |
//! | [`sysctl`] | settings, and what the host had before |
//! | [`foreign`], [`surroundings`], [`pod_network`] | what is not ours: read only |
//! | [`sockets`], [`netlink`], [`links`], [`generation`], [`nft`], [`watch`] | what they reach the kernel by |
//! | [`wireguard`] | the kernel's, or gotatun in this process |
//! | [`state`] | small files in the state directory |

mod addresses;
mod devices;
mod firewall;
mod foreign;
mod generation;
mod labels;
mod links;
mod netlink;
mod nft;
mod pod_network;
mod routes;
mod rules;
mod sockets;
mod state;
mod surroundings;
mod sysctl;
mod watch;
mod wireguard;

use super::{Backend, Observation, Platform, PlatformError, Secrets, Surroundings};
use devices::Devices;
use firewall::Firewall;
use foreign::Foreign;
use links::Links;
use sockets::Sockets;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use sysctl::Sysctls;
use tieline_core::host::{Change, DeviceName, HostState};
use watch::Watch;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Files that are kept in the state directory.
pub const FILES: [&str; 3] = [firewall::FILE, labels::FILE, sysctl::FILE];

/// How to run on this host.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Directory for what has to survive a restart; made when missing.
    pub state_dir: PathBuf,
    /// Underlay devices beside those that are found.
    pub extra_underlay: BTreeSet<String>,
    /// Which WireGuard to use.
    pub backend: BackendChoice,
}

/// Which WireGuard to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The kernel's where it has one, else the embedded one.
    #[default]
    Auto,
    /// The kernel's.
    Kernel,
    /// The embedded one.
    Embedded,
}

/// This host's kernel, in the network namespace of the process.
pub struct Linux {
    sockets: Sockets,
    devices: Devices,
    firewall: Firewall,
    sysctls: Sysctls,
    foreign: Foreign,
    watch: Watch,
    writes: Arc<AtomicU64>,
}

impl Linux {
    /// Opens sockets, chooses a backend and probes what the kernel has. Nothing of ours is written yet.
    ///
    /// # Errors
    /// [`PlatformError::Read`] when netlink is closed to this process: it needs `CAP_NET_ADMIN` in its network namespace.
    pub async fn new(options: Options) -> Result<Self, PlatformError> {
        let Options {
            state_dir,
            extra_underlay,
            backend,
        } = options;
        let sockets = Sockets::open().map_err(reading("the routing tables"))?;
        let watch = Watch::open().map_err(reading("routing events"))?;
        let devices = Devices::open(backend, &sockets.netlink, &state_dir)
            .await
            .map_err(reading("what the kernel has"))?;
        Ok(Self {
            firewall: Firewall::open(&state_dir),
            sysctls: Sysctls::open(&state_dir),
            foreign: Foreign::open(extra_underlay).await,
            writes: Arc::default(),
            sockets,
            devices,
            watch,
        })
    }

    /// Counter of writes to the kernel so far, shared with whoever shows it.
    #[must_use]
    pub fn writes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.writes)
    }

    /// Removes everything that carries our names, also what was never observed and when the state directory is lost:
    /// devices, routes of our tables, rules, nft tables; the firewall goes last. Every failure is returned.
    ///
    /// Sysctls that were changed get back what the host had, where nobody else has set them since; forwarding stays on.
    pub async fn cleanup(&mut self) -> Vec<PlatformError> {
        let mut failures = Vec::new();
        let observation = match self.observe().await {
            Ok(observation) => observation.state,
            Err(error) => {
                failures.push(error);
                HostState::default()
            }
        };
        let changes: Vec<Change> = observation
            .devices
            .keys()
            .map(|name| Change::RemoveDevice(*name))
            .chain(
                observation
                    .routes
                    .keys()
                    .map(|key| Change::RemoveRoute(*key)),
            )
            .chain(observation.rules.into_iter().map(Change::RemoveRule))
            .chain(
                observation
                    .firewall
                    .is_some()
                    .then_some(Change::RemoveFirewall),
            )
            .collect();
        failures.extend(self.apply(&changes, &Secrets::default()).await);
        if let Err(error) = self.devices.clear() {
            failures.push(writing("remove the file of names", error));
        }
        if let Err(error) = self.sysctls.restore() {
            failures.push(writing("give the host its sysctls back", error));
        }
        failures
    }

    /// Applies one change that is not about peers. Tells whether that took a write.
    async fn write(&mut self, change: &Change, secrets: &Secrets) -> Result<bool, Cause> {
        let sockets = &mut self.sockets;
        match change {
            Change::SetSysctl { path, value } => return Ok(self.sysctls.write(path, value)?),
            Change::ReplaceFirewall(ruleset) => {
                return Ok(self.firewall.write(sockets, Some(ruleset)).await?);
            }
            Change::RemoveFirewall => return Ok(self.firewall.write(sockets, None).await?),
            Change::PutRoute(key, route) => routes::write(sockets, key, Some(route)).await?,
            Change::RemoveRoute(key) => routes::write(sockets, key, None).await?,
            Change::AddRule(rule) => rules::add(&sockets.netlink, rule).await?,
            Change::RemoveRule(rule) => rules::remove(&sockets.netlink, rule).await?,
            Change::AddAddress(name, address) => addresses::add(sockets, *name, *address).await?,
            Change::RemoveAddress(name, address) => {
                addresses::remove(sockets, *name, *address).await?;
            }
            Change::CreateDevice(name, device) | Change::ConfigureDevice(name, device) => {
                if self.devices.backend() == Backend::Kernel {
                    self.sysctls.foresee(sysctl::REDIRECTS, "0");
                }
                self.devices
                    .write(sockets, *name, Some(device), secrets)
                    .await?;
            }
            Change::RemoveDevice(name) => {
                self.devices.write(sockets, *name, None, secrets).await?;
            }
            Change::PutPeer { device, .. } | Change::RemovePeer { device, .. } => {
                return Err(format!("peers of {device} change together").into());
            }
        }
        Ok(true)
    }
}

impl Platform for Linux {
    fn backend(&self) -> Backend {
        self.devices.backend()
    }

    async fn observe(&mut self) -> Result<Observation, PlatformError> {
        let netlink = &self.sockets.netlink;
        let mut seen = Observation::default();
        let links = Links::read(netlink).await.map_err(reading("links"))?;
        let addresses = addresses::read(netlink)
            .await
            .map_err(reading("addresses"))?;
        self.devices
            .read(&links, addresses::ours(&addresses, &links), &mut seen)
            .await
            .map_err(|source| PlatformError::Read {
                what: "WireGuard devices",
                source,
            })?;
        seen.state.routes = routes::read(netlink, &links)
            .await
            .map_err(reading("routes"))?;
        seen.state.rules = rules::read(netlink).await.map_err(reading("rules"))?;
        seen.state.firewall = self
            .firewall
            .read(self.sockets.basis(&links).await)
            .await
            .map_err(reading("nft tables"))?;
        seen.state.sysctls = self.sysctls.read();
        self.foreign.follow(&seen.state);
        Ok(seen)
    }

    async fn surroundings(&mut self) -> Result<Surroundings, PlatformError> {
        let links = Links::read(&self.sockets.netlink)
            .await
            .map_err(reading("links"))?;
        self.foreign
            .read(&self.sockets, &links, &self.sysctls)
            .await
            .map_err(reading("the host's own network"))
    }

    fn unname_outdated(&self, state: &mut HostState, secrets: &Secrets) {
        self.devices.unname_outdated(state, secrets);
    }

    async fn apply(&mut self, changes: &[Change], secrets: &Secrets) -> Vec<PlatformError> {
        let mut failures = Vec::new();
        self.sockets.forget_links();
        for group in changes.chunk_by(|a, b| peers_of(a).is_some() && peers_of(a) == peers_of(b)) {
            let [first, ..] = group else { continue };
            let results = match peers_of(first) {
                Some(name) => self.devices.write_peers(name, group, secrets).await,
                None => vec![self.write(first, secrets).await],
            };
            for (change, result) in group.iter().zip(results) {
                match result {
                    Ok(wrote) => {
                        self.writes.fetch_add(u64::from(wrote), Ordering::Relaxed);
                    }
                    Err(cause) => {
                        // What was known may be why it failed.
                        self.sockets.forget_links();
                        failures.push(failed(change, cause));
                    }
                }
            }
            if peers_of(first).is_some()
                && let Err(error) = self.devices.save()
            {
                failures.push(writing("keep the file of names", error));
            }
        }
        failures
    }

    async fn changed(&mut self) {
        self.watch.changed().await;
    }
}

/// The device whose peers a change is about.
fn peers_of(change: &Change) -> Option<DeviceName> {
    match change {
        Change::PutPeer { device, .. } | Change::RemovePeer { device, .. } => Some(*device),
        _ => None,
    }
}

fn reading(what: &'static str) -> impl Fn(std::io::Error) -> PlatformError {
    move |source| PlatformError::Read {
        what,
        source: source.into(),
    }
}

fn writing(change: &str, source: std::io::Error) -> PlatformError {
    PlatformError::Write {
        change: change.to_owned(),
        source: source.into(),
    }
}

fn failed(change: &Change, source: Cause) -> PlatformError {
    PlatformError::Write {
        change: change.to_string(),
        source,
    }
}
