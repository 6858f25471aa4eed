//! A node's wanted state, carried from one look to the next: work follows the change.
//!
//! [`super::node_config`] and [`super::resolve()`] say what a node needs, from nothing. A gateway of ten thousand peers asks them
//! again each time that one of them moves, so [`Configurator`] keeps their answer with what it was made from, and replaces
//! the parts that depend on peers and paths which have changed. It decides nothing: whenever it is not plain that only parts
//! are concerned (another plan, another own peer or gateway of the own segment, a fact of the whole host, two parts that
//! want the same route), it asks them again. A property test holds it to their answer.

use super::build::View;
use super::config::{ConfigPeer, ConfigTarget, Hop, NodeConfig, Policy};
use super::part::{Contested, Draft, Part};
use super::resolve::Host;
use super::{LocalFacts, node_config, resolve};
use crate::differences::differences;
use crate::health::PathId;
use crate::host::{HostState, RouteKey};
use crate::ids::PeerName;
use crate::network_plan::NetworkPlan;
use crate::peer::AcceptedPeers;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// What a node's wanted state is made from.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The plan.
    pub plan: Arc<NetworkPlan>,
    /// All accepted peers.
    pub peers: Arc<AcceptedPeers>,
    /// The node's own name, once it is known.
    pub own: Option<PeerName>,
    /// What only the host knows.
    pub facts: LocalFacts,
}

/// How the wanted state differs from the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    /// Endpoints that were wanted of a path and are not any more, because another is.
    pub left: BTreeMap<PathId, SocketAddr>,
    /// What may be different.
    pub touched: Touched,
}

/// Where two wanted states may differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// Everywhere.
    Everything,
    /// In these peers and routes, and nowhere else.
    Parts {
        /// Peers by path; that of a path whose state has changed is among them.
        paths: BTreeSet<PathId>,
        /// Routes.
        routes: BTreeSet<RouteKey>,
    },
}

impl Default for Touched {
    fn default() -> Self {
        Self::Parts {
            paths: BTreeSet::new(),
            routes: BTreeSet::new(),
        }
    }
}

/// The wanted state, and what it was made from.
#[derive(Debug, Default)]
pub struct Configurator {
    last: Option<Last>,
}

static NOTHING: HostState = HostState {
    devices: BTreeMap::new(),
    rules: BTreeSet::new(),
    routes: BTreeMap::new(),
    firewall: None,
    sysctls: BTreeMap::new(),
};

#[derive(Debug)]
struct Last {
    inputs: Inputs,
    config: NodeConfig,
    contested: Contested,
    /// On a gateway: of which segments of the plan each peer is a gateway, by index.
    gateways: BTreeMap<PeerName, Vec<usize>>,
    state: HostState,
}

impl Configurator {
    /// The wanted state: nothing before the first inputs.
    #[must_use]
    pub fn state(&self) -> &HostState {
        self.last.as_ref().map_or(&NOTHING, |last| &last.state)
    }

    /// Forgets everything: nothing is wanted any more.
    pub fn clear(&mut self) {
        self.last = None;
    }

    /// Makes the state that these inputs want.
    pub fn follow(&mut self, inputs: Inputs) -> Turn {
        let patch = self.last.as_ref().and_then(|last| last.patch(&inputs));
        match (&mut self.last, patch) {
            (Some(last), Some(patch)) => last.apply(patch, inputs),
            (last, _) => {
                let before = last.take().map(|last| last.state);
                let made = last.insert(Last::new(inputs));
                Turn {
                    left: before.map_or_else(BTreeMap::new, |it| left(&it, &made.state)),
                    touched: Touched::Everything,
                }
            }
        }
    }
}

/// What changes in a configuration.
#[derive(Debug, Default)]
struct Patch {
    /// Parts as they were and as they are.
    parts: Vec<(Part, Part)>,
    /// Paths about which the host knows something else.
    paths: BTreeSet<PathId>,
    /// Whether some of these are alive now, or dead.
    health: bool,
}

impl Last {
    fn new(inputs: Inputs) -> Self {
        let view = view(&inputs);
        let Draft { config, contested } = match &view {
            Some(view) => view.draft(),
            None => Draft {
                config: node_config(&inputs.plan, &inputs.peers, inputs.own.as_ref()),
                contested: Contested::default(),
            },
        };
        let mut gateways: BTreeMap<PeerName, Vec<usize>> = BTreeMap::new();
        if view.is_some_and(|view| view.rank().is_some()) {
            for (at, segment) in inputs.plan.segments.iter().enumerate() {
                for gateway in &segment.gateways {
                    gateways.entry(gateway.peer.clone()).or_default().push(at);
                }
            }
        }
        let state = resolve(&config, &inputs.facts);
        Self {
            inputs,
            config,
            contested,
            gateways,
            state,
        }
    }

    /// What is to be replaced for these inputs; `None`: it is not plain that parts are enough.
    fn patch(&self, now: &Inputs) -> Option<Patch> {
        let before = &self.inputs;
        let same_plan = Arc::ptr_eq(&before.plan, &now.plan) || before.plan == now.plan;
        if !same_plan || before.own != now.own {
            return None;
        }
        let mut patch = Patch {
            parts: self.parts(now)?,
            ..Patch::default()
        };
        self.paths(&now.facts, &mut patch)?;
        let changes = !patch.parts.is_empty() || !patch.paths.is_empty();
        // Of these the state does not hold everything that the configuration says.
        let settled = self.config.site_candidates.is_empty() && !now.facts.without_ipv6;
        (settled || !changes).then_some(patch)
    }

    /// The parts of peers that have changed.
    fn parts(&self, now: &Inputs) -> Option<Vec<(Part, Part)>> {
        let before = &self.inputs;
        if Arc::ptr_eq(&before.peers, &now.peers) {
            return Some(Vec::new());
        }
        let same = |one: &Arc<_>, other: &Arc<_>| Arc::ptr_eq(one, other) || one == other;
        let changed = differences(&*before.peers, &*now.peers, same).map(|(name, _, _)| name);
        let changed: BTreeSet<&PeerName> = changed.collect();
        if before.own.as_ref().is_some_and(|own| changed.contains(own)) {
            return None;
        }
        let (Some(old), Some(new)) = (view(before), view(now)) else {
            return Some(Vec::new());
        };
        let mut own_gateways = old.segment().gateways.iter();
        if own_gateways.any(|gateway| changed.contains(&gateway.peer)) {
            return None;
        }
        let Some(rank) = old.rank() else {
            // All that it meets is its own segment's gateways.
            return Some(Vec::new());
        };
        let mut parts = Vec::new();
        if old.has_members() {
            let members = changed.iter().copied();
            parts.extend(members.map(|name| (old.member(rank, name), new.member(rank, name))));
        }
        let segments = changed.iter().filter_map(|name| self.gateways.get(*name));
        let segments: BTreeSet<usize> = segments.flatten().copied().collect();
        let mut concerned = segments.iter().map(|at| &now.plan.segments[*at]);
        if concerned.any(|segment| old.is_transit(segment)) {
            // Ways to other segments lead through it.
            return None;
        }
        let leaves = old.leaf_hops(rank);
        parts.extend(segments.into_iter().map(|at| {
            let segment = &now.plan.segments[at];
            let of = |view: &View<'_>| view.neighbour(rank, segment, &leaves);
            (of(&old), of(&new))
        }));
        parts.retain(|(old, new)| old != new);
        let plain = parts.iter().all(|(old, new)| self.is_plain(old, new));
        plain.then_some(parts)
    }

    /// Whether a part can be replaced without a look at the others.
    fn is_plain(&self, old: &Part, new: &Part) -> bool {
        let met: BTreeSet<PathId> = old.peers.iter().map(|(path, _)| *path).collect();
        let contested = &self.contested;
        let mut routes = old.routes.keys().chain(new.routes.keys());
        let peers = old.peers.iter().chain(&new.peers);
        let mut paths = peers.map(|(path, _)| path);
        old.devices == new.devices
            && has_choice(old) == has_choice(new)
            && routes.all(|key| {
                let free = old.routes.contains_key(key) || !self.config.routes.contains_key(key);
                free && !contested.routes.contains(key)
            })
            // What the guard throws back to the host is the guard's.
            && old.routes.keys().all(|key| matches!(self.config.routes.get(key), Some(ConfigTarget::Hops { .. })))
            && paths.all(|path| {
                let free = met.contains(path) || self.peer(*path).is_none();
                free && !contested.paths.contains(path)
            })
    }

    fn peer(&self, path: PathId) -> Option<&ConfigPeer> {
        self.config.devices.get(&path.device)?.peers.get(&path.far)
    }

    /// The paths about which the host knows something else; `None`: other facts differ too.
    fn paths(&self, now: &LocalFacts, patch: &mut Patch) -> Option<()> {
        let before = &self.inputs.facts;
        if before == now {
            return Some(());
        }
        let LocalFacts {
            underlay,
            api_servers,
            keys,
            resolved,
            last_seen,
            paths,
            netdev_egress,
            accept_ra,
            forwards_ipv6,
            without_ipv6,
            first_port,
            fwmark,
        } = before;
        let same = *underlay == now.underlay
            && *api_servers == now.api_servers
            && *keys == now.keys
            && *resolved == now.resolved
            && *netdev_egress == now.netdev_egress
            && *accept_ra == now.accept_ra
            && *forwards_ipv6 == now.forwards_ipv6
            && *without_ipv6 == now.without_ipv6
            && *first_port == now.first_port
            && *fwmark == now.fwmark;
        if !same {
            return None;
        }
        let health = differences(paths, &now.paths, PartialEq::eq).map(|(path, _, _)| *path);
        let health: BTreeSet<PathId> = health.collect();
        // Which gateway of the segment speaks to a VPN is a matter of the firewall too.
        let mut candidates = self.config.vpns.iter().flat_map(|vpn| &vpn.candidates);
        if candidates.any(|hop| health.contains(&path_of(hop))) {
            return None;
        }
        let seen = differences(last_seen, &now.last_seen, PartialEq::eq).map(|(path, _, _)| *path);
        patch.health = !health.is_empty();
        patch.paths = health;
        patch.paths.extend(seen);
        Some(())
    }

    fn apply(&mut self, patch: Patch, inputs: Inputs) -> Turn {
        self.inputs = inputs;
        let mut routes = BTreeSet::new();
        let mut paths = patch.paths;
        if patch.health {
            let concerned = self.config.routes.iter().filter(|(_, target)| {
                let (hops, fallback) = match target {
                    ConfigTarget::Hops { hops, fallback, .. } => (&hops[..], &fallback[..]),
                    ConfigTarget::Unreachable | ConfigTarget::Throw => (&[][..], &[][..]),
                };
                let mut hops = hops.iter().chain(fallback);
                hops.any(|hop| paths.contains(&path_of(hop)))
            });
            routes.extend(concerned.map(|(key, _)| *key));
        }
        for (old, new) in patch.parts {
            for (path, _) in old.peers {
                if let Some(device) = self.config.devices.get_mut(&path.device) {
                    device.peers.remove(&path.far);
                }
                paths.insert(path);
            }
            for key in old.routes.into_keys() {
                self.config.routes.remove(&key);
                routes.insert(key);
            }
            paths.extend(new.peers.iter().map(|(path, _)| *path));
            routes.extend(new.routes.keys());
            let mut draft = Draft {
                config: std::mem::take(&mut self.config),
                contested: Contested::default(),
            };
            draft.add(new);
            self.config = draft.config;
        }
        self.resolve(paths, routes)
    }

    /// Resolves these peers and routes anew.
    fn resolve(&mut self, paths: BTreeSet<PathId>, routes: BTreeSet<RouteKey>) -> Turn {
        let host = Host::new(&self.config, &self.inputs.facts);
        let active = host.active_vpns();
        let mut left = BTreeMap::new();
        for &path in &paths {
            let Some(device) = self.state.devices.get_mut(&path.device) else {
                continue;
            };
            let config = self.config.devices.get(&path.device);
            let now = config
                .and_then(|it| it.peers.get(&path.far))
                .map(|peer| host.peer(path.device, path.far, peer, &active));
            let endpoint = now.as_ref().and_then(|peer| peer.endpoint);
            let before = match now {
                Some(peer) => device.peers.insert(path.far, peer),
                None => device.peers.remove(&path.far),
            };
            left.extend(is_left(before.and_then(|it| it.endpoint), endpoint).map(|it| (path, it)));
        }
        for &key in &routes {
            let target = self.config.routes.get(&key);
            match host.route(key, target, &self.state.devices) {
                Some(route) => drop(self.state.routes.insert(key, route)),
                None => drop(self.state.routes.remove(&key)),
            }
        }
        Turn {
            left,
            touched: Touched::Parts { paths, routes },
        }
    }
}

fn view(inputs: &Inputs) -> Option<View<'_>> {
    View::new(&inputs.plan, &inputs.peers, inputs.own.as_ref()?)
}

fn path_of(hop: &Hop) -> PathId {
    PathId::new(hop.device, hop.peer)
}

/// Whether some route of it has several ways at once, which a sysctl of the whole host depends on.
fn has_choice(part: &Part) -> bool {
    part.routes.values().any(|target| {
        matches!(target, ConfigTarget::Hops { policy: Policy::Multipath, hops, fallback }
            if hops.len() > 1 || fallback.len() > 1)
    })
}

/// Endpoints that peers had and have no more, because they have another.
fn left(before: &HostState, now: &HostState) -> BTreeMap<PathId, SocketAddr> {
    let mut left = BTreeMap::new();
    for (name, device) in &now.devices {
        let Some(had) = before.devices.get(name) else {
            continue;
        };
        for (key, old, new) in
            differences(&had.peers, &device.peers, |a, b| a.endpoint == b.endpoint)
        {
            let endpoint = |peer: Option<&crate::host::WgPeer>| peer?.endpoint;
            let path = PathId::new(*name, *key);
            left.extend(is_left(endpoint(old), endpoint(new)).map(|it| (path, it)));
        }
    }
    left
}

fn is_left(before: Option<SocketAddr>, now: Option<SocketAddr>) -> Option<SocketAddr> {
    before.filter(|_| now.is_some() && now != before)
}
