//! The Linux kernel, and WireGuard in it or beside it.
//!
//! ```text
//!  observe:  links ── wireguard ── addresses ── routes ── rules ── nft ── sysctls  ──► HostState
//!  apply:    one write per change, peers of a device in one call; each write is counted
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`wireguard`] | devices and peers: the kernel's, or gotatun in this process |
//! | [`links`], [`addresses`], [`routes`], [`rules`] | rtnetlink, to and from the model |
//! | [`firewall`], [`nft`], [`generation`] | our nft tables, and whether they can have changed |
//! | [`sysctl`], [`surroundings`], [`watch`] | the rest of the host |
//! | [`labels`], [`state`] | what the kernel cannot remember |
//!
//! A link of ours that is down is observed with MTU 0, and one that no WireGuard stands behind with a key that nobody has:
//! either is then configured anew when wanted, and removed when not.

mod addresses;
mod firewall;
mod generation;
mod labels;
mod links;
mod netlink;
mod nft;
mod pod_network;
mod routes;
mod rules;
mod state;
mod surroundings;
mod sysctl;
mod watch;
mod wireguard;

use super::{Backend, Observation, Platform, PlatformError, Secrets, Surroundings};
use firewall::{Basis, Firewall};
use generation::Generation;
use labels::Labels;
use links::{Link, Links};
use netlink::Netlink;
use nix::errno::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use sysctl::Sysctls;
use tieline_core::cidr::Prefix;
use tieline_core::health::{Livenesses, PathId};
use tieline_core::host::{Change, Device, DeviceName, HostState, KeySource, WgPeer};
use tieline_core::keys::PublicKey;
use watch::Watch;
use wireguard::embedded::Embedded;
use wireguard::kernel::Kernel;
use wireguard::{PeerChange, SeenDevice, Wireguard};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Name of the link that is made and removed to learn whether the kernel has WireGuard.
const PROBE: &str = "tieprobe";

/// How old what is known of others' masquerading may be before a changed ruleset is looked at again.
const MASQUERADE_PAUSE: Duration = Duration::from_secs(30);

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
    options: Options,
    netlink: Netlink,
    wireguard: Wireguard,
    firewall: Firewall,
    labels: Labels,
    sysctls: Sysctls,
    watch: Watch,
    generation: Option<Generation>,
    /// Forward chains of others that drop, and what that depends on.
    forward_drops: Option<(Basis, BTreeSet<String>)>,
    /// What was found of others' masquerading, on what basis, and when.
    masquerade: Option<(Option<Basis>, Instant, Masquerade)>,
    netdev_egress: bool,
    /// Addresses that peers were last seen at, except among the own cluster's pods; the underlay has to reach them.
    endpoints: BTreeSet<IpAddr>,
    writes: Arc<AtomicU64>,
    /// Links as long as no device of ours was made or removed since they were read.
    links: Option<Links>,
}

/// Chains of others that give packets another source, and whether only those with a mark.
type Masquerade = BTreeMap<String, bool>;

impl Linux {
    /// Opens sockets, chooses a backend and probes what the kernel has. Nothing of ours is written yet.
    ///
    /// # Errors
    /// [`PlatformError::Read`] when netlink is closed to this process: it needs `CAP_NET_ADMIN` in its network namespace.
    pub async fn new(options: Options) -> Result<Self, PlatformError> {
        let netlink = Netlink::open().map_err(reading("the routing tables"))?;
        let watch = Watch::open().map_err(reading("routing events"))?;
        let wireguard = match options.backend {
            BackendChoice::Kernel => Wireguard::Kernel(Kernel::default()),
            BackendChoice::Embedded => Wireguard::Embedded(Box::default()),
            BackendChoice::Auto => {
                if kernel_has_wireguard(&netlink)
                    .await
                    .map_err(reading("what the kernel has"))?
                {
                    Wireguard::Kernel(Kernel::default())
                } else {
                    Wireguard::Embedded(Box::<Embedded>::default())
                }
            }
        };
        Ok(Self {
            netdev_egress: surroundings::has_netdev_egress().await,
            firewall: Firewall::open(&options.state_dir),
            labels: Labels::open(&options.state_dir),
            sysctls: Sysctls::open(&options.state_dir),
            generation: Generation::open().ok(),
            forward_drops: None,
            masquerade: None,
            endpoints: BTreeSet::new(),
            writes: Arc::default(),
            links: None,
            options,
            netlink,
            wireguard,
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
        if let Err(error) = self.labels.clear() {
            failures.push(writing("remove the file of names", error));
        }
        if let Err(error) = self.sysctls.restore() {
            failures.push(writing("give the host its sysctls back", error));
        }
        failures
    }

    async fn basis(&self, links: &Links) -> Option<Basis> {
        let generation = self.generation.as_ref()?.read().await?;
        Some(Basis {
            generation,
            links: links.names(),
        })
    }

    async fn forward_drops(&mut self, links: &Links) -> std::io::Result<BTreeSet<String>> {
        let basis = self.basis(links).await;
        if let (Some((then, drops)), Some(now)) = (&self.forward_drops, &basis)
            && then == now
        {
            return Ok(drops.clone());
        }
        let mut drops = BTreeSet::new();
        for (chain, by_policy) in surroundings::forward_chains(&nft::list_chains().await?) {
            let rules = nft::list_chain(&chain).await;
            if surroundings::forward_drops(by_policy, rules.as_ref()) {
                drops.insert(chain);
            }
        }
        self.forward_drops = basis.map(|basis| (basis, drops.clone()));
        Ok(drops)
    }

    /// A process a chain, for a diagnosis alone: not with every change of a ruleset, which kube-proxy may make every second.
    async fn masquerade(&mut self, links: &Links) -> std::io::Result<Masquerade> {
        let basis = self.basis(links).await;
        if let Some((then, read, found)) = &self.masquerade
            && (read.elapsed() < MASQUERADE_PAUSE || basis.is_some() && *then == basis)
        {
            return Ok(found.clone());
        }
        let chains = nft::list_chains().await?;
        let found =
            pod_network::masquerade(&chains, async |chain: &str| nft::list_chain(chain).await)
                .await;
        self.masquerade = Some((basis, Instant::now(), found.clone()));
        Ok(found)
    }

    async fn observe_devices(&mut self, links: &Links) -> Result<Observation, PlatformError> {
        let seen = self
            .wireguard
            .observe(links)
            .await
            .map_err(|source| PlatformError::Read {
                what: "WireGuard devices",
                source,
            })?;
        let addresses = addresses::read(&self.netlink)
            .await
            .map_err(reading("addresses"))?;
        let mut addresses = addresses::ours(&addresses, links);
        let mut observation = Observation::default();
        self.endpoints.clear();
        for (name, link) in links.ours() {
            let device = match seen.get(&name) {
                Some(seen) => {
                    self.endpoints.extend(
                        seen.peers
                            .values()
                            .filter_map(|peer| Some(peer.peer.endpoint?.ip())),
                    );
                    liveness(name, seen, &mut observation.liveness);
                    self.device(
                        name,
                        link,
                        seen,
                        addresses.remove(&name).unwrap_or_default(),
                    )
                }
                None => shell(),
            };
            observation.state.devices.insert(name, device);
        }
        Ok(observation)
    }

    fn device(
        &self,
        name: DeviceName,
        link: &Link,
        seen: &SeenDevice,
        addresses: BTreeSet<Prefix>,
    ) -> Device {
        let peers = seen.peers.iter().map(|(key, peer)| {
            let preshared_key = self
                .labels
                .preshared_key(name, *key, peer.preshared_key.as_ref());
            (
                *key,
                WgPeer {
                    preshared_key,
                    ..peer.peer.clone()
                },
            )
        });
        Device {
            public_key: seen.public_key,
            key: self.labels.key_source(name, seen),
            port: seen.port,
            fwmark: seen.fwmark,
            mtu: if link.up { link.mtu } else { 0 },
            addresses,
            peers: peers.collect(),
        }
    }

    /// Applies one change that is not about peers. Tells how many writes it took.
    async fn write(&mut self, change: &Change, secrets: &Secrets) -> Result<u64, Cause> {
        let links = match self.links.take() {
            Some(links) => links,
            None => Links::read(&self.netlink).await?,
        };
        let netlink = &self.netlink;
        match change {
            Change::SetSysctl { path, value } => {
                let wrote = self.sysctls.set(path, value)?;
                self.links = Some(links);
                return Ok(u64::from(wrote));
            }
            Change::PutRoute(key, route) => routes::put(netlink, &links, key, route).await?,
            Change::RemoveRoute(key) => routes::remove(netlink, key).await?,
            Change::AddRule(rule) => rules::add(netlink, rule).await?,
            Change::RemoveRule(rule) => rules::remove(netlink, rule).await?,
            Change::ReplaceFirewall(ruleset) => {
                self.firewall
                    .replace(ruleset, self.generation.as_ref())
                    .await?;
            }
            Change::RemoveFirewall => return Ok(u64::from(self.firewall.remove().await?)),
            Change::CreateDevice(name, device) | Change::ConfigureDevice(name, device) => {
                let private_key = secrets.private_keys.get(name);
                if matches!(self.wireguard, Wireguard::Kernel(_)) {
                    self.sysctls.foresee(sysctl::REDIRECTS, "0");
                }
                self.wireguard
                    .ensure(netlink, *name, device, private_key)
                    .await?;
                self.labels
                    .name_device(*name, device.public_key, &device.key);
                self.labels.save()?;
                return Ok(1); // the links are others now
            }
            Change::RemoveDevice(name) => {
                self.wireguard.remove(netlink, *name).await?;
                self.labels.forget(*name);
                self.labels.save()?;
                return Ok(1);
            }
            Change::AddAddress(name, address) => {
                addresses::add(netlink, links.index_of(*name)?, *address).await?;
            }
            Change::RemoveAddress(name, address) => {
                if let Some(link) = links.by_name(&name.to_string()) {
                    addresses::remove(netlink, link.index, *address).await?;
                }
            }
            Change::PutPeer { device, .. } | Change::RemovePeer { device, .. } => {
                return Err(format!("peers of {device} change together").into());
            }
        }
        self.links = Some(links);
        Ok(1)
    }

    /// Applies changes to peers of one device, all in one go.
    async fn write_peers(
        &mut self,
        name: DeviceName,
        changes: &[Change],
        secrets: &Secrets,
        failures: &mut Vec<PlatformError>,
    ) {
        let mut wanted = Vec::with_capacity(changes.len());
        for change in changes {
            match peer_change(change, secrets) {
                Ok(peer_change) => wanted.push((change, peer_change)),
                Err(cause) => failures.push(failed(change, cause)),
            }
        }
        let peer_changes: Vec<PeerChange<'_>> =
            wanted.iter().map(|(_, change)| change.clone()).collect();
        let results = self.wireguard.peers(name, &peer_changes).await;
        for ((change, peer_change), result) in wanted.into_iter().zip(results) {
            match result {
                Ok(()) => {
                    self.writes.fetch_add(1, Ordering::Relaxed);
                    self.label_peer(name, &peer_change);
                }
                Err(cause) => failures.push(failed(change, cause)),
            }
        }
        if let Err(error) = self.labels.save() {
            failures.push(writing("keep the file of names", error));
        }
    }

    fn label_peer(&mut self, name: DeviceName, change: &PeerChange<'_>) {
        match change {
            PeerChange::Put {
                key,
                peer,
                preshared_key,
            } => self.labels.name_peer(
                name,
                *key,
                peer.preshared_key.as_ref().zip(preshared_key.as_ref()),
            ),
            PeerChange::Remove(key) => self.labels.name_peer(name, *key, None),
        }
    }
}

impl Platform for Linux {
    fn backend(&self) -> Backend {
        match self.wireguard {
            Wireguard::Kernel(_) => Backend::Kernel,
            Wireguard::Embedded(_) => Backend::Embedded,
        }
    }

    async fn observe(&mut self) -> Result<Observation, PlatformError> {
        let links = Links::read(&self.netlink).await.map_err(reading("links"))?;
        let mut observation = self.observe_devices(&links).await?;
        let state = &mut observation.state;
        state.routes = routes::read(&self.netlink, &links)
            .await
            .map_err(reading("routes"))?;
        state.rules = rules::read(&self.netlink).await.map_err(reading("rules"))?;
        self.endpoints = surroundings::outside_cni(&self.endpoints, &state.rules);
        let basis = self.basis(&links).await;
        state.firewall = self
            .firewall
            .observe(basis)
            .await
            .map_err(reading("nft tables"))?;
        state.sysctls = self.sysctls.read();
        Ok(observation)
    }

    async fn surroundings(&mut self) -> Result<Surroundings, PlatformError> {
        const WHAT: &str = "the host's own network";
        let links = Links::read(&self.netlink).await.map_err(reading("links"))?;
        let mut around = surroundings::read(
            &self.netlink,
            &links,
            &self.options.extra_underlay,
            &self.endpoints,
            &self.sysctls,
        )
        .await
        .map_err(reading(WHAT))?;
        around.netdev_egress = self.netdev_egress;
        around.plug_in_devices = pod_network::devices(links.iter().map(|link| link.name.as_str()));
        around.foreign_forward_drops = self.forward_drops(&links).await.map_err(reading(WHAT))?;
        around.foreign_masquerade = self.masquerade(&links).await.map_err(reading(WHAT))?;
        Ok(around)
    }

    fn unname_outdated(&self, state: &mut HostState, secrets: &Secrets) {
        for (name, device) in &mut state.devices {
            for (key, peer) in &mut device.peers {
                let wanted = peer
                    .preshared_key
                    .as_ref()
                    .and_then(|vpn| secrets.preshared_keys.get(vpn));
                if wanted.is_some()
                    && self.labels.preshared_key(*name, *key, wanted) != peer.preshared_key
                {
                    peer.preshared_key = None;
                }
            }
        }
    }

    async fn apply(&mut self, changes: &[Change], secrets: &Secrets) -> Vec<PlatformError> {
        let mut failures = Vec::new();
        self.links = None;
        for group in changes.chunk_by(|a, b| peers_of(a).is_some() && peers_of(a) == peers_of(b)) {
            let [first, ..] = group else { continue };
            if let Some(name) = peers_of(first) {
                self.write_peers(name, group, secrets, &mut failures).await;
                continue;
            }
            match self.write(first, secrets).await {
                Ok(writes) => {
                    self.writes.fetch_add(writes, Ordering::Relaxed);
                }
                Err(cause) => failures.push(failed(first, cause)),
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

fn peer_change<'a>(change: &'a Change, secrets: &Secrets) -> Result<PeerChange<'a>, Cause> {
    match change {
        Change::PutPeer { key, peer, .. } => {
            let preshared_key = match &peer.preshared_key {
                None => None,
                Some(vpn) => Some(
                    *secrets
                        .preshared_keys
                        .get(vpn)
                        .ok_or_else(|| format!("the pre-shared key of {vpn} is not known yet"))?,
                ),
            };
            Ok(PeerChange::Put {
                key: *key,
                peer,
                preshared_key,
            })
        }
        Change::RemovePeer { key, .. } => Ok(PeerChange::Remove(*key)),
        other => Err(format!("{other:?} is not about a peer").into()),
    }
}

fn liveness(name: DeviceName, seen: &SeenDevice, livenesses: &mut Livenesses) {
    for (key, peer) in &seen.peers {
        livenesses.insert(PathId::new(name, *key), peer.liveness);
    }
}

/// A link of ours that no WireGuard stands behind.
fn shell() -> Device {
    /// A key that nobody has: the base point of Curve25519 is public, its logarithm as a private key is 1.
    const NOBODY: [u8; 32] = {
        let mut bytes = [0; 32];
        bytes[0] = 9;
        bytes
    };
    Device {
        // The base point is of large order, so this cannot fail; the fallback is as good a stranger.
        public_key: PublicKey::from_bytes(NOBODY).unwrap_or_else(|_| unreachable!()),
        key: KeySource::Own,
        port: 0,
        fwmark: 0,
        mtu: 0,
        addresses: BTreeSet::new(),
        peers: BTreeMap::new(),
    }
}

/// Whether a WireGuard link can be made. A kernel that loads modules loads it now.
async fn kernel_has_wireguard(netlink: &Netlink) -> std::io::Result<bool> {
    match links::create_wireguard(netlink, PROBE).await {
        Ok(()) => {}
        // Left by a process that was killed between the two.
        Err(error) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {}
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => return Ok(false),
        Err(error) => return Err(error),
    }
    if let Some(link) = Links::read(netlink).await?.by_name(PROBE) {
        links::remove(netlink, link.index).await?;
    }
    Ok(true)
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
