//! Observed and wanted host state to an ordered list of changes.
//!
//! Order keeps the host fail-closed at every step: guard routes and rules first, then the firewall, then devices,
//! peers and routes; removals run the other way round and the guard goes last.

mod apply;
mod describe;

use super::{
    Device, DeviceName, HostState, Route, RouteKey, Rule, Target, WgPeer, firewall::Ruleset,
};
use crate::cidr::{Prefix, PrefixSet};
use crate::differences::differences;
pub use crate::health::Livenesses;
use crate::health::{Liveness, PathId, PathState};
use crate::keys::PublicKey;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// One write to the kernel. `Display` says it in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Write a sysctl.
    SetSysctl {
        /// Path below /proc/sys.
        path: String,
        /// Value.
        value: String,
    },
    /// Add or replace a route.
    PutRoute(RouteKey, Route),
    /// Remove a route.
    RemoveRoute(RouteKey),
    /// Add a policy rule.
    AddRule(Rule),
    /// Remove a policy rule.
    RemoveRule(Rule),
    /// Replace our nft tables in one transaction.
    ReplaceFirewall(Box<Ruleset>),
    /// Remove our nft tables.
    RemoveFirewall,
    /// Create a device (without peers and addresses) and bring it up.
    CreateDevice(DeviceName, Box<Device>),
    /// Change key, port, mark or MTU of a device.
    ConfigureDevice(DeviceName, Box<Device>),
    /// Remove a device.
    RemoveDevice(DeviceName),
    /// Add an address to a device.
    AddAddress(DeviceName, Prefix),
    /// Remove an address from a device.
    RemoveAddress(DeviceName, Prefix),
    /// Add a peer, or change what differs without touching its session. No endpoint: leave the one that it has.
    PutPeer {
        /// Device.
        device: DeviceName,
        /// The peer's key.
        key: PublicKey,
        /// Its configuration.
        peer: Box<WgPeer>,
    },
    /// Remove a peer.
    RemovePeer {
        /// Device.
        device: DeviceName,
        /// The peer's key.
        key: PublicKey,
    },
}

/// The changes that turn what was observed into what is wanted, in the order in which they are to be applied.
///
/// Sysctls that are not wanted any more stay as they are: what they were before is not known. Endpoints of living
/// sessions stay too, since a peer may have roamed.
#[must_use]
pub fn diff(observed: &HostState, liveness: &Livenesses, wanted: &HostState) -> Vec<Change> {
    let mut changes = Vec::new();
    let routes: Vec<Differing<'_>> =
        differences(&observed.routes, &wanted.routes, Route::eq).collect();
    put_routes(&routes, &mut changes, is_guard);
    let new_rules = wanted.rules.difference(&observed.rules).cloned();
    changes.extend(new_rules.map(Change::AddRule));
    if let Some(firewall) = &wanted.firewall
        && observed.firewall.as_ref() != Some(firewall)
    {
        changes.push(Change::ReplaceFirewall(Box::new(firewall.clone())));
    }
    put_sysctls(observed, wanted, None, &mut changes);
    let mut early = BTreeSet::new();
    for (&name, device) in &wanted.devices {
        put_device(observed, name, device, &mut changes);
        put_sysctls(observed, wanted, Some(name), &mut changes);
        put_addresses(observed, name, device, &mut changes);
        put_peers(observed, liveness, name, device, &mut early, &mut changes);
    }
    put_routes(&routes, &mut changes, |route| !is_guard(route));
    remove_routes(&routes, &mut changes, |route| !is_guard(route));
    for (&name, device) in &observed.devices {
        remove_from_device(wanted, name, device, &early, &mut changes);
    }
    let mut old_rules: Vec<Rule> = observed.rules.difference(&wanted.rules).cloned().collect();
    old_rules.reverse();
    changes.extend(old_rules.into_iter().map(Change::RemoveRule));
    remove_routes(&routes, &mut changes, is_guard);
    if wanted.firewall.is_none() && observed.firewall.is_some() {
        changes.push(Change::RemoveFirewall);
    }
    changes
}

/// The changes for these peers and routes alone, where everything else is known to be as it is wanted.
#[must_use]
pub fn diff_parts(
    observed: &HostState,
    liveness: &Livenesses,
    wanted: &HostState,
    paths: &BTreeSet<PathId>,
    routes: &BTreeSet<RouteKey>,
) -> Vec<Change> {
    let [observed, wanted] = [observed, wanted].map(|state| state.only(paths, routes));
    diff(&observed, liveness, &wanted)
}

fn is_guard(route: &Route) -> bool {
    !matches!(route.target, Target::Devices(_))
}

/// A route that is not as wanted: as observed, and as wanted.
type Differing<'a> = (&'a RouteKey, Option<&'a Route>, Option<&'a Route>);

/// What is thrown back to the host comes before what is made unreachable, so that the CNI never waits in between.
fn put_routes(routes: &[Differing<'_>], changes: &mut Vec<Change>, which: fn(&Route) -> bool) {
    let wanted = routes.iter().filter_map(|(key, _, wanted)| {
        let route = wanted.filter(|route| which(route))?;
        Some((**key, route))
    });
    let (late, first): (Vec<_>, Vec<_>) =
        wanted.partition(|(_, route)| route.target == Target::Unreachable);
    let ordered = first.into_iter().chain(late);
    changes.extend(ordered.map(|(key, route)| Change::PutRoute(key, route.clone())));
}

fn remove_routes(routes: &[Differing<'_>], changes: &mut Vec<Change>, which: fn(&Route) -> bool) {
    let old = routes.iter().filter_map(|(key, found, wanted)| {
        let route = found.filter(|route| wanted.is_none() && which(route))?;
        Some((**key, route))
    });
    let (first, late): (Vec<_>, Vec<_>) =
        old.partition(|(_, route)| route.target == Target::Unreachable);
    let keys = first.into_iter().chain(late).map(|(key, _)| key);
    changes.extend(keys.map(Change::RemoveRoute));
}

/// Sysctls of one of our devices, or all others. `accept_ra` comes before `forwarding`: the other order deletes the
/// default route until the next advertisement.
fn put_sysctls(
    observed: &HostState,
    wanted: &HostState,
    device: Option<DeviceName>,
    changes: &mut Vec<Change>,
) {
    let of_device = |path: &str| {
        path.split('/')
            .find_map(|part| part.parse::<DeviceName>().ok())
    };
    let created = device.is_some_and(|name| !observed.devices.contains_key(&name));
    let mut differing: Vec<(&String, &String)> = wanted
        .sysctls
        .iter()
        .filter(|(path, _)| of_device(path) == device)
        .filter(|(path, value)| created || observed.sysctls.get(*path) != Some(value))
        .collect();
    differing.sort_by_key(|(path, _)| !path.ends_with("/accept_ra"));
    changes.extend(
        differing
            .into_iter()
            .map(|(path, value)| Change::SetSysctl {
                path: path.clone(),
                value: value.clone(),
            }),
    );
}

fn put_device(observed: &HostState, name: DeviceName, device: &Device, changes: &mut Vec<Change>) {
    // A device is configured first and filled after, so that a failure in one peer does not undo the rest.
    let bare = || {
        Box::new(Device {
            addresses: BTreeSet::new(),
            peers: BTreeMap::new(),
            ..device.clone()
        })
    };
    match observed.devices.get(&name) {
        None => changes.push(Change::CreateDevice(name, bare())),
        Some(found)
            if (found.public_key, found.port, found.fwmark, found.mtu)
                != (device.public_key, device.port, device.fwmark, device.mtu)
                || found.key != device.key =>
        {
            changes.push(Change::ConfigureDevice(name, bare()));
        }
        Some(_) => {}
    }
}

fn put_addresses(
    observed: &HostState,
    name: DeviceName,
    device: &Device,
    changes: &mut Vec<Change>,
) {
    let none = BTreeSet::new();
    let found = observed
        .devices
        .get(&name)
        .map_or(&none, |found| &found.addresses);
    let new = device.addresses.difference(found);
    changes.extend(new.map(|&address| Change::AddAddress(name, address)));
    let old = found.difference(&device.addresses);
    changes.extend(old.map(|&address| Change::RemoveAddress(name, address)));
}

fn put_peers(
    observed: &HostState,
    liveness: &Livenesses,
    name: DeviceName,
    device: &Device,
    removed: &mut BTreeSet<(DeviceName, PublicKey)>,
    changes: &mut Vec<Change>,
) {
    let none = BTreeMap::new();
    let found = observed
        .devices
        .get(&name)
        .map_or(&none, |found| &found.peers);
    let put = |key: PublicKey, peer: WgPeer| Change::PutPeer {
        device: name,
        key,
        peer: Box::new(peer),
    };
    let mut finals = Vec::new();
    let mut gained: Vec<Prefix> = Vec::new();
    for (&key, before, peer) in differences(found, &device.peers, WgPeer::eq) {
        let Some(peer) = peer else {
            continue;
        };
        let seen = liveness.get(&PathId::new(name, key));
        let alive = seen.and_then(Liveness::judge) == Some(PathState::Up);
        let endpoint = new_endpoint(before, alive, peer.endpoint);
        let same = before.is_some_and(|before| {
            endpoint.is_none()
                && before.allowed_ips == peer.allowed_ips
                && before.keepalive == peer.keepalive
                && before.preshared_key == peer.preshared_key
        });
        if same {
            continue;
        }
        let kept = before.map(|before| &before.allowed_ips);
        let new = |prefix: &Prefix| kept.is_none_or(|kept| !kept.contains(*prefix));
        gained.extend(peer.allowed_ips.iter().filter(new));
        finals.push(put(
            key,
            WgPeer {
                endpoint,
                ..peer.clone()
            },
        ));
    }
    // A prefix belongs to one peer of a device. Whoever holds one that another peer gains gives it up first.
    let gained: PrefixSet = gained.into_iter().collect();
    let loses = |prefix: Prefix| gained.overlapping(prefix).is_some();
    for (&key, before) in found.iter().filter(|_| !gained.is_empty()) {
        if !before.allowed_ips.iter().any(loses) {
            continue;
        }
        match device.peers.get(&key) {
            None => {
                removed.insert((name, key));
                changes.push(Change::RemovePeer { device: name, key });
            }
            Some(peer) if peer.allowed_ips != before.allowed_ips => {
                let rest = before
                    .allowed_ips
                    .minus(&before.allowed_ips.minus(&peer.allowed_ips));
                let narrowed = WgPeer {
                    allowed_ips: rest,
                    endpoint: None,
                    ..before.clone()
                };
                changes.push(put(key, narrowed));
            }
            Some(_) => {}
        }
    }
    changes.append(&mut finals);
}

/// The endpoint to set, if one is to be set: a living session is left where its peer was heard last.
fn new_endpoint(
    before: Option<&WgPeer>,
    alive: bool,
    wanted: Option<SocketAddr>,
) -> Option<SocketAddr> {
    let wanted = wanted?;
    match before.and_then(|before| before.endpoint) {
        Some(current) if current == wanted || alive => None,
        _ => Some(wanted),
    }
}

fn remove_from_device(
    wanted: &HostState,
    name: DeviceName,
    device: &Device,
    removed: &BTreeSet<(DeviceName, PublicKey)>,
    changes: &mut Vec<Change>,
) {
    let Some(kept) = wanted.devices.get(&name) else {
        changes.push(Change::RemoveDevice(name));
        return;
    };
    let both = |_: &WgPeer, _: &WgPeer| true;
    let gone = differences(&device.peers, &kept.peers, both)
        .filter(|(_, _, kept)| kept.is_none())
        .map(|(key, _, _)| *key);
    let keys = gone.filter(|key| !removed.contains(&(name, *key)));
    changes.extend(keys.map(|key| Change::RemovePeer { device: name, key }));
}

#[cfg(test)]
mod tests;
