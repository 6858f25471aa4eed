//! Fills in what only the host knows: health, MTUs, keys, underlay devices, addresses of names.

use super::config::{ConfigPeer, ConfigTarget, FOREIGN_PORT, Far, Hop, NodeConfig, Policy};
use super::{LocalFacts, PREF_ENCRYPTED, chains};
use crate::cidr::{Family, Prefix, PrefixSet};
use crate::claims::{is_link_local, judge_address};
use crate::health::{PathId, PathState};
use crate::host::firewall::SetName;
use crate::host::{
    Device, DeviceName, HostState, METRIC_GUARD, METRIC_REMOTE, Route, RouteKey, Rule, Selector,
    TABLE_GUARD, TABLE_INNER, TABLE_MAIN, TABLE_REMOTE, Target, WgPeer,
};
use crate::keys::PublicKey;
use crate::peer::{Endpoint, EndpointHost};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// What a WireGuard packet adds at most: IPv6 header 40, UDP 8, WireGuard 32 bytes.
const OVERHEAD: u32 = 80;
/// Ethernet's MTU, when no underlay device is known yet.
const CUSTOMARY_MTU: u32 = 1500;
/// Least MTU of IPv6 (RFC 8200, section 5): below it the kernel silently removes IPv6 addresses.
const IPV6_MTU: u32 = 1280;
/// Least MTU of IPv4 (RFC 791 guarantees reassembly of 576 bytes).
const IPV4_MTU: u32 = 576;

/// Fills in what only the host knows.
///
/// A device whose key this host does not hold (yet) is left out, with what leads to it; its routes stay unreachable.
#[must_use]
pub fn resolve(config: &NodeConfig, facts: &LocalFacts) -> HostState {
    let mut here;
    let config = if config.site_candidates.is_empty() && !facts.without_ipv6 {
        config
    } else {
        here = config.clone();
        settle(&mut here, facts);
        if facts.without_ipv6 {
            forget_ipv6(&mut here);
        }
        &here
    };
    let host = Host::new(config, facts);
    let active = host.active_vpns();
    let devices = host.devices(&active);
    let routes = host.routes(&devices);
    HostState {
        rules: host.rules(),
        firewall: Some(chains::ruleset(
            config,
            facts,
            &active
                .iter()
                .filter(|(_, hop)| hop.device.is_vpn())
                .map(|(&index, _)| index)
                .collect(),
            devices.keys().copied().collect(),
            &host.native,
        )),
        sysctls: host.sysctls(&devices),
        devices,
        routes,
    }
}

/// Takes the site whose ranges hold one of the host's on-link prefixes for the own one.
fn settle(config: &mut NodeConfig, facts: &LocalFacts) {
    let here = |cidrs: &PrefixSet| {
        facts
            .underlay
            .values()
            .flat_map(|device| device.prefixes.iter())
            .any(|prefix| cidrs.overlapping(prefix).is_some())
    };
    let candidates = std::mem::take(&mut config.site_candidates);
    let (home, elsewhere): (Vec<_>, Vec<_>) = candidates
        .into_values()
        .partition(|candidate| here(&candidate.cidrs));
    let planned = config.firewall.set(SetName::Planned).clone();
    let mut put = |table, prefix: Prefix, metric, target| {
        if planned.overlapping(prefix).is_some() {
            let key = RouteKey {
                table,
                prefix,
                metric,
            };
            config.routes.insert(key, target);
        }
    };
    for candidate in &home {
        for prefix in candidate.cidrs.iter() {
            for table in [TABLE_REMOTE, TABLE_GUARD] {
                put(table, prefix, METRIC_REMOTE, ConfigTarget::Throw);
            }
        }
    }
    if !home.is_empty() {
        // The own site is known: pods of the cluster in other sites must not go by the CNI's overlay in clear.
        for prefix in elsewhere.iter().flat_map(|candidate| candidate.pods.iter()) {
            put(
                TABLE_REMOTE,
                prefix,
                METRIC_GUARD,
                ConfigTarget::Unreachable,
            );
            if let Some(native) = config.firewall.sets.get_mut(&SetName::Native) {
                native.remove(prefix);
            }
        }
    }
    let firewall = &mut config.firewall;
    for candidate in home {
        for name in [SetName::Native, SetName::Own, SetName::Site] {
            firewall.add(name, &candidate.cidrs);
        }
        firewall.add(SetName::Native, &candidate.pods);
    }
}

/// Takes away what a kernel without IPv6 refuses. The firewall's rules stay: nft loads them all the same.
fn forget_ipv6(config: &mut NodeConfig) {
    config.families.remove(&Family::V6);
    config.mesh.remove(&Family::V6);
    config.rules.retain(|rule| rule.family != Family::V6);
    config
        .routes
        .retain(|key, _| key.prefix.family() != Family::V6);
}

/// What a host makes of a configuration whose site is settled.
pub(super) struct Host<'a> {
    config: &'a NodeConfig,
    facts: &'a LocalFacts,
    /// Addresses inside super-nets that are the host's own affair: its API servers.
    native: PrefixSet,
    /// Where no endpoint's name may lead.
    closed: PrefixSet,
}

impl<'a> Host<'a> {
    pub(super) fn new(config: &'a NodeConfig, facts: &'a LocalFacts) -> Self {
        let mut host = Self {
            config,
            facts,
            native: native_addresses(config, facts),
            closed: PrefixSet::new(),
        };
        if !facts.resolved.is_empty() {
            host.closed = host.reached_in_tunnels();
        }
        host
    }

    /// Planned ranges without what is reached on the underlay, and the own cluster's pods: they are native, but behind the
    /// CNI. Encrypted packets to these would go round in circles or be dropped.
    fn reached_in_tunnels(&self) -> PrefixSet {
        let firewall = &self.config.firewall;
        let native = firewall.set(SetName::Native).union(&self.native);
        let pods = self
            .config
            .rules
            .iter()
            .filter_map(|rule| match rule.selector {
                Selector::To(prefix) => Some(prefix),
                Selector::All | Selector::Mark { .. } | Selector::From(_) => None,
            });
        let planned = firewall.set(SetName::Planned);
        planned.minus(&native).iter().chain(pods).collect()
    }

    fn path(&self, hop: &Hop) -> Option<PathState> {
        let path = PathId::new(hop.device, hop.peer);
        self.facts.paths.get(&path).copied()
    }

    fn can_run(&self, device: DeviceName) -> bool {
        self.facts.keys.contains_key(&device)
    }

    /// The first candidate that can run and is not known to be dead, else the first that can run.
    fn sticky(&self, candidates: &[Hop]) -> Option<Hop> {
        let mut able = candidates.iter().filter(|hop| self.can_run(hop.device));
        let first = able.clone().next();
        able.find(|hop| hop.device.is_vpn() || self.path(hop) != Some(PathState::Down))
            .or(first)
            .copied()
    }

    /// The active hop of each VPN, by index in [`NodeConfig::vpns`].
    pub(super) fn active_vpns(&self) -> BTreeMap<usize, Hop> {
        let vpns = self.config.vpns.iter().enumerate();
        vpns.filter_map(|(index, vpn)| Some((index, self.sticky(&vpn.candidates)?)))
            .collect()
    }

    fn mtu(&self) -> u32 {
        let underlay = self.facts.underlay.values().map(|device| device.mtu).min();
        let floor = if self.config.families.contains(&Family::V6) {
            IPV6_MTU
        } else {
            IPV4_MTU
        };
        underlay
            .unwrap_or(CUSTOMARY_MTU)
            .saturating_sub(OVERHEAD)
            .max(floor)
    }

    fn devices(&self, active: &BTreeMap<usize, Hop>) -> BTreeMap<DeviceName, Device> {
        let mtu = self.mtu();
        let addresses: BTreeSet<Prefix> = self
            .config
            .mesh
            .values()
            .map(|&a| Prefix::host(a))
            .collect();
        let mut devices = BTreeMap::new();
        for (&name, device) in &self.config.devices {
            let Some(&public_key) = self.facts.keys.get(&name) else {
                continue;
            };
            let peers = device
                .peers
                .iter()
                .map(|(&key, peer)| (key, self.peer(name, key, peer, active)))
                .collect();
            let device = Device {
                public_key,
                key: device.key.clone(),
                port: name.port(self.facts.first_port),
                fwmark: self.facts.fwmark,
                mtu,
                addresses: addresses.clone(),
                peers,
            };
            devices.insert(name, device);
        }
        devices
    }

    pub(super) fn peer(
        &self,
        device: DeviceName,
        key: PublicKey,
        peer: &ConfigPeer,
        active: &BTreeMap<usize, Hop>,
    ) -> WgPeer {
        let hop = Hop { device, peer: key };
        let mut allowed_ips = peer.allowed_ips.clone();
        for (index, _) in active
            .iter()
            .filter(|(_, at)| **at == hop && !device.is_vpn())
        {
            allowed_ips = allowed_ips.union(&self.config.vpns[*index].prefixes);
        }
        // A standby must never speak first: the foreign box would follow it.
        let standby = device.is_vpn() && !active.values().any(|at| *at == hop);
        let (endpoint, keepalive) = if standby {
            (None, None)
        } else {
            let seen = || self.facts.last_seen.get(&PathId::new(device, key)).copied();
            (self.endpoint(peer).or_else(seen), peer.keepalive)
        };
        WgPeer {
            allowed_ips,
            endpoint,
            keepalive,
            preshared_key: peer.preshared_key.clone(),
        }
    }

    /// The first usable endpoint, in a family that this host has on its underlay.
    fn endpoint(&self, peer: &ConfigPeer) -> Option<SocketAddr> {
        let port = match &peer.far {
            Far::Node { device, .. } => device.port(self.facts.first_port),
            Far::Foreign(_) => FOREIGN_PORT,
        };
        let addresses: Vec<SocketAddr> = peer
            .endpoints
            .iter()
            .flat_map(|endpoint| self.addresses(endpoint, port))
            .collect();
        let usable = |address: &&SocketAddr| self.has(Family::of(address.ip()));
        addresses.iter().find(usable).or(addresses.first()).copied()
    }

    fn addresses(&self, endpoint: &Endpoint, port: u16) -> Vec<SocketAddr> {
        let port = endpoint.port.unwrap_or(port);
        let addresses: Vec<IpAddr> = match &endpoint.host {
            EndpointHost::Address(address) => vec![*address],
            EndpointHost::Name(name) => {
                let found = self.facts.resolved.get(name).into_iter().flatten();
                found
                    .filter(|address| judge_address(**address, &self.closed).is_ok())
                    .copied()
                    .collect()
            }
        };
        let sockets = addresses.into_iter();
        sockets
            .map(|address| SocketAddr::new(address, port))
            .collect()
    }

    fn has(&self, family: Family) -> bool {
        self.facts
            .underlay
            .values()
            .flat_map(|device| device.prefixes.of(family))
            .any(|prefix| !is_link_local(prefix.address()))
    }

    fn rules(&self) -> BTreeSet<Rule> {
        let mut rules = self.config.rules.clone();
        for &family in &self.config.families {
            rules.insert(Rule {
                preference: PREF_ENCRYPTED,
                family,
                selector: Selector::Mark {
                    mark: self.facts.fwmark,
                    mask: self.facts.fwmark,
                },
                table: TABLE_MAIN,
                suppress_prefix_len: None,
            });
        }
        rules
    }

    fn routes(&self, devices: &BTreeMap<DeviceName, Device>) -> BTreeMap<RouteKey, Route> {
        let routes = self.config.routes.iter();
        let mut routes: BTreeMap<RouteKey, Route> = routes
            .filter_map(|(&key, target)| Some((key, self.route(key, Some(target), devices)?)))
            .collect();
        for prefix in self.native.iter() {
            for table in [TABLE_REMOTE, TABLE_GUARD] {
                let key = RouteKey {
                    table,
                    prefix,
                    metric: METRIC_REMOTE,
                };
                routes.insert(key, Route::bare(Target::Throw));
            }
        }
        routes
    }

    /// What the route of a key is, by the configuration's `target` for it; `None`: no route.
    pub(super) fn route(
        &self,
        key: RouteKey,
        target: Option<&ConfigTarget>,
        devices: &BTreeMap<DeviceName, Device>,
    ) -> Option<Route> {
        // What is the host's own affair is thrown back to it, whatever the configuration has in its place.
        let is_remote = key.metric == METRIC_REMOTE && key.table != TABLE_INNER;
        if is_remote && self.native.iter().any(|native| native == key.prefix) {
            return Some(Route::bare(Target::Throw));
        }
        let (policy, hops, fallback) = match target? {
            ConfigTarget::Unreachable => return Some(Route::bare(Target::Unreachable)),
            ConfigTarget::Throw => return Some(Route::bare(Target::Throw)),
            ConfigTarget::Hops {
                policy,
                hops,
                fallback,
            } => (*policy, hops, fallback),
        };
        let chosen = self.choose(policy, hops, fallback);
        if chosen.is_empty() {
            return None;
        }
        let mtus = chosen
            .iter()
            .filter_map(|name| Some(devices.get(name)?.mtu));
        Some(Route {
            mtu: mtus.min(),
            target: Target::Devices(chosen.into_iter().collect()),
            source: self.config.mesh.get(&key.prefix.family()).copied(),
        })
    }

    /// The devices of the next hops to use: the healthy ones; if there is none, those not tried yet; if there is none, a
    /// healthy fallback; if there is none, all, so that traffic can wake them.
    fn choose(&self, policy: Policy, hops: &[Hop], fallback: &[Hop]) -> BTreeSet<DeviceName> {
        if policy == Policy::Sticky {
            return self
                .sticky(hops)
                .map(|hop| hop.device)
                .into_iter()
                .collect();
        }
        let with = |hops: &[Hop], state: Option<PathState>| -> Vec<DeviceName> {
            hops.iter()
                .filter(|hop| self.can_run(hop.device) && self.path(hop) == state)
                .map(|hop| hop.device)
                .collect()
        };
        let all = |hops: &[Hop]| -> Vec<DeviceName> {
            let able = hops.iter().filter(|hop| self.can_run(hop.device));
            able.map(|hop| hop.device).collect()
        };
        let steps: [&dyn Fn() -> Vec<DeviceName>; 6] = [
            &|| with(hops, Some(PathState::Up)),
            &|| with(hops, None),
            &|| with(fallback, Some(PathState::Up)),
            &|| with(fallback, None),
            &|| all(hops),
            &|| all(fallback),
        ];
        let found = steps
            .iter()
            .map(|step| step())
            .find(|found| !found.is_empty());
        let found = found.unwrap_or_default().into_iter();
        match policy {
            Policy::Ordered => found.take(1).collect(),
            Policy::Multipath | Policy::Sticky => found.collect(),
        }
    }

    fn sysctls(&self, devices: &BTreeMap<DeviceName, Device>) -> BTreeMap<String, String> {
        let mut sysctls = BTreeMap::new();
        let mut set = |path: String, value: &str| {
            sysctls.insert(path, value.to_owned());
        };
        // Node-wide, so only where some route has a choice to make.
        let several = self.config.routes.values().any(|target| {
            matches!(target, ConfigTarget::Hops { policy: Policy::Multipath, hops, fallback }
                if hops.len() > 1 || fallback.len() > 1)
        });
        if self.config.families.contains(&Family::V4) {
            set("net/ipv4/ip_forward".to_owned(), "1");
            if several {
                set("net/ipv4/fib_multipath_hash_policy".to_owned(), "1");
            }
            for device in devices.keys() {
                set(format!("net/ipv4/conf/{device}/rp_filter"), "2");
            }
        }
        if self.config.families.contains(&Family::V6) {
            // With forwarding on, advertisements are heard only at 2. Where they are heard they must stay so, and where a router
            // does not listen it must not begin to.
            for (device, value) in &self.facts.accept_ra {
                let deaf = self.facts.forwards_ipv6.contains(device);
                if *value == 2 || (*value == 1 && !deaf) {
                    set(format!("net/ipv6/conf/{device}/accept_ra"), "2");
                }
            }
            set("net/ipv6/conf/all/forwarding".to_owned(), "1");
            if several {
                set("net/ipv6/fib_multipath_hash_policy".to_owned(), "1");
            }
            for device in devices.keys() {
                set(format!("net/ipv6/conf/{device}/disable_ipv6"), "0");
            }
        }
        sysctls
    }
}

/// Addresses of API servers inside super-nets.
fn native_addresses(config: &NodeConfig, facts: &LocalFacts) -> PrefixSet {
    let servers = facts
        .api_servers
        .iter()
        .map(|&address| Prefix::host(address));
    let planned = config.firewall.set(SetName::Planned);
    servers
        .filter(|&prefix| config.families.contains(&prefix.family()) && planned.contains(prefix))
        .collect()
}

#[cfg(test)]
mod tests;
