//! A kernel in memory, for tests: it keeps state, has the real one's side effects, and refuses what the real one refuses.
//!
//! A [`Fake`] is a handle: the agent owns one, the test keeps a clone, looks at the state (printed like `ip`, `wg` and
//! `nft`), damages it behind the agent's back, and makes reads and writes fail.

use super::{Backend, Observation, Platform, PlatformError, Secrets, Surroundings};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tieline_core::cidr::Family;
use tieline_core::health::{Liveness, Livenesses, PathId};
use tieline_core::host::firewall::{Hook, Ruleset};
use tieline_core::host::{Change, Device, DeviceName, HostState, Route, RouteKey, Target, print};
use tieline_core::keys::PublicKey;
use tokio::sync::Notify;

/// Least MTU that IPv6 lives with (RFC 8200, section 5), in bytes.
const MIN_MTU_V6: u32 = 1280;

/// A handle to a kernel in memory.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    kernel: Arc<Mutex<Kernel>>,
    news: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Kernel {
    state: HostState,
    liveness: Livenesses,
    surroundings: Surroundings,
    /// The bytes of pre-shared keys.
    preshared_keys: BTreeMap<PathId, [u8; 32]>,
    writes: u64,
    failing_reads: usize,
    failing_writes: Vec<(String, usize)>,
}

impl Fake {
    /// A host without anything of ours.
    #[must_use]
    pub fn new(surroundings: Surroundings) -> Self {
        let fake = Self::default();
        fake.kernel().surroundings = surroundings;
        fake
    }

    /// What the kernel holds of ours.
    #[must_use]
    pub fn state(&self) -> HostState {
        self.kernel().state.clone()
    }

    /// The same as the tools would show it: `wg`, `ip`, `nft`.
    #[must_use]
    pub fn print(&self) -> String {
        print::everything(&self.kernel().state)
    }

    /// Writes so far; refused ones and ones that changed nothing do not count.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.kernel().writes
    }

    /// Changes the state behind the agent's back, and tells the agent that something happened.
    pub fn damage(&self, damage: impl FnOnce(&mut HostState)) {
        let mut kernel = self.kernel();
        damage(&mut kernel.state);
        kernel.settle();
        drop(kernel);
        self.news.notify_one();
    }

    /// Makes a peer as alive as this.
    pub fn enliven(&self, device: DeviceName, peer: PublicKey, liveness: Liveness) {
        self.kernel()
            .liveness
            .insert(PathId::new(device, peer), liveness);
    }

    /// The pre-shared key of a peer.
    #[must_use]
    pub fn preshared_key(&self, device: DeviceName, peer: PublicKey) -> Option<[u8; 32]> {
        self.kernel()
            .preshared_keys
            .get(&PathId::new(device, peer))
            .copied()
    }

    /// The next `times` reads fail.
    pub fn fail_reads(&self, times: usize) {
        self.kernel().failing_reads = times;
    }

    /// The next `times` changes whose words contain `text` fail.
    pub fn fail_writes(&self, text: &str, times: usize) {
        self.kernel().failing_writes.push((text.to_owned(), times));
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        // A test that failed while it held the lock has nothing to fear from what it left.
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Platform for Fake {
    fn backend(&self) -> Backend {
        Backend::Embedded
    }

    async fn observe(&mut self) -> Result<Observation, PlatformError> {
        let mut kernel = self.kernel();
        kernel.read("devices")?;
        Ok(Observation {
            state: kernel.state.clone(),
            liveness: kernel.liveness.clone(),
        })
    }

    async fn surroundings(&mut self) -> Result<Surroundings, PlatformError> {
        let mut kernel = self.kernel();
        kernel.read("the host's own network")?;
        Ok(kernel.surroundings.clone())
    }

    fn unname_outdated(&self, state: &mut HostState, secrets: &Secrets) {
        let kernel = self.kernel();
        for (name, device) in &mut state.devices {
            for (key, peer) in &mut device.peers {
                let wanted = peer
                    .preshared_key
                    .as_ref()
                    .and_then(|vpn| secrets.preshared_keys.get(vpn));
                if wanted.is_some()
                    && wanted != kernel.preshared_keys.get(&PathId::new(*name, *key))
                {
                    peer.preshared_key = None;
                }
            }
        }
    }

    async fn apply(&mut self, changes: &[Change], secrets: &Secrets) -> Vec<PlatformError> {
        let mut failures = Vec::new();
        for change in changes {
            if let Err(reason) = self.kernel().write(change, secrets) {
                failures.push(PlatformError::Write {
                    change: change.to_string(),
                    source: reason.into(),
                });
            }
        }
        if !changes.is_empty() {
            self.news.notify_one();
        }
        failures
    }

    async fn changed(&mut self) {
        self.news.notified().await;
    }
}

impl Kernel {
    fn read(&mut self, what: &'static str) -> Result<(), PlatformError> {
        if self.failing_reads == 0 {
            return Ok(());
        }
        self.failing_reads -= 1;
        Err(PlatformError::Read {
            what,
            source: "the test said so".into(),
        })
    }

    fn write(&mut self, change: &Change, secrets: &Secrets) -> Result<(), String> {
        let words = change.to_string();
        for (text, times) in &mut self.failing_writes {
            if *times > 0 && words.contains(text.as_str()) {
                *times -= 1;
                return Err("the test said so".into());
            }
        }
        self.check(change, secrets)?;
        let before = self.state.clone();
        match change {
            // Made anew, and yet empty: peers and addresses come by changes of their own.
            Change::CreateDevice(name, device) => {
                let empty = Device {
                    addresses: Default::default(),
                    peers: Default::default(),
                    ..(**device).clone()
                };
                self.state
                    .apply(&Change::CreateDevice(*name, Box::new(empty)));
            }
            other => self.state.apply(other),
        }
        if let Change::PutPeer { device, key, peer } = change {
            let bytes = peer
                .preshared_key
                .as_ref()
                .and_then(|vpn| secrets.preshared_keys.get(vpn));
            let path = PathId::new(*device, *key);
            match bytes {
                Some(bytes) => self.preshared_keys.insert(path, *bytes),
                None => self.preshared_keys.remove(&path),
            };
        }
        self.settle();
        self.writes += u64::from(self.state != before);
        Ok(())
    }

    /// Refuses what the kernel would refuse.
    fn check(&self, change: &Change, secrets: &Secrets) -> Result<(), String> {
        match change {
            Change::SetSysctl { path, .. } => path
                .split('/')
                .filter_map(|part| part.parse().ok())
                .try_for_each(|name| self.device(name).map(drop)),
            Change::PutRoute(key, route) => self.check_route(key, route),
            Change::ReplaceFirewall(ruleset) => self.check_firewall(ruleset),
            Change::CreateDevice(name, device) => self.check_device(*name, device, secrets),
            Change::ConfigureDevice(name, device) => {
                self.device(*name)?;
                self.check_device(*name, device, secrets)
            }
            Change::AddAddress(name, address) => {
                let device = self.device(*name)?;
                if address.family() == Family::V6 && device.mtu < MIN_MTU_V6 {
                    return Err(format!("{name} has no IPv6 with an MTU of {}", device.mtu));
                }
                Ok(())
            }
            Change::PutPeer { device, peer, .. } => {
                self.device(*device)?;
                match &peer.preshared_key {
                    Some(vpn) if !secrets.preshared_keys.contains_key(vpn) => {
                        Err(format!("the pre-shared key of {vpn} is not known yet"))
                    }
                    _ => Ok(()),
                }
            }
            Change::RemoveRoute(_)
            | Change::AddRule(_)
            | Change::RemoveRule(_)
            | Change::RemoveFirewall
            | Change::RemoveDevice(_)
            | Change::RemoveAddress(..)
            | Change::RemovePeer { .. } => Ok(()),
        }
    }

    fn device(&self, name: DeviceName) -> Result<&Device, String> {
        self.state
            .devices
            .get(&name)
            .ok_or_else(|| format!("device {name} is not there"))
    }

    fn check_device(
        &self,
        name: DeviceName,
        device: &Device,
        secrets: &Secrets,
    ) -> Result<(), String> {
        let private = secrets
            .private_keys
            .get(&name)
            .ok_or("there is no private key for it")?;
        let public = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(*private));
        if public.as_bytes() != device.public_key.as_bytes() {
            return Err("its private key belongs to another public key".into());
        }
        let holder = self
            .state
            .devices
            .iter()
            .find(|(other, found)| **other != name && found.port == device.port);
        match holder {
            Some((other, _)) => Err(format!("port {} is {other}'s", device.port)),
            None => Ok(()),
        }
    }

    fn check_route(&self, key: &RouteKey, route: &Route) -> Result<(), String> {
        if let Target::Devices(devices) = &route.target {
            if devices.is_empty() {
                return Err("a route needs a device to lead to".into());
            }
            for name in devices {
                let device = self.device(*name)?;
                if key.prefix.family() == Family::V6 && device.mtu < MIN_MTU_V6 {
                    return Err(format!("{name} has no IPv6 with an MTU of {}", device.mtu));
                }
            }
        }
        match route.source {
            Some(source) if !self.is_local(source) => {
                Err(format!("source {source} is no address of this host"))
            }
            _ => Ok(()),
        }
    }

    fn check_firewall(&self, ruleset: &Ruleset) -> Result<(), String> {
        let chains = ruleset.tables.iter().flat_map(|table| &table.chains);
        for chain in chains {
            if let Hook::Egress(interface) = &chain.hook
                && !self
                    .surroundings
                    .underlay
                    .contains_key(&interface.to_string())
            {
                return Err(format!("interface {interface} is not there"));
            }
        }
        Ok(())
    }

    fn is_local(&self, address: std::net::IpAddr) -> bool {
        self.surroundings.addresses.contains(&address)
            || self
                .state
                .devices
                .values()
                .flat_map(|device| &device.addresses)
                .any(|prefix| prefix.address() == address)
    }

    /// What the kernel does by itself after a change: a small MTU or a missing device takes addresses and routes along, an
    /// address takes the routes that name it as source (IPv4) or their source (IPv6).
    fn settle(&mut self) {
        for device in self.state.devices.values_mut() {
            if device.mtu < MIN_MTU_V6 {
                device
                    .addresses
                    .retain(|address| address.family() == Family::V4);
            }
        }
        let mut routes = std::mem::take(&mut self.state.routes);
        routes.retain(|key, route| self.survives(key, route));
        self.state.routes = routes;
        let devices = &self.state.devices;
        self.liveness.retain(|path, _| {
            devices
                .get(&path.device)
                .is_some_and(|device| device.peers.contains_key(&path.far))
        });
    }

    fn survives(&self, key: &RouteKey, route: &mut Route) -> bool {
        let family = key.prefix.family();
        if let Some(source) = route.source
            && !self.is_local(source)
        {
            match family {
                Family::V4 => return false,
                Family::V6 => route.source = None,
            }
        }
        match &mut route.target {
            Target::Unreachable | Target::Throw => true,
            Target::Devices(devices) => {
                devices.retain(|name| {
                    self.state
                        .devices
                        .get(name)
                        .is_some_and(|device| family == Family::V4 || device.mtu >= MIN_MTU_V6)
                });
                !devices.is_empty()
            }
        }
    }
}

#[cfg(test)]
mod tests;
