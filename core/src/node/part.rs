//! A configuration in parts: what one other node or segment adds to it.
//!
//! A part depends on the plan and on few peers, so that [`super::Configurator`] can replace one and leave the rest alone.

use super::config::{ConfigDevice, ConfigPeer, ConfigTarget, Hop, NodeConfig, Policy};
use crate::cidr::Prefix;
use crate::health::PathId;
use crate::host::{DeviceName, KeySource, METRIC_REMOTE, RouteKey};
use std::collections::{BTreeMap, BTreeSet};

/// What is added to a configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// Devices with a key of the node's own, with or without a peer.
    pub(super) devices: BTreeSet<DeviceName>,
    /// Peers by device and key.
    pub(super) peers: Vec<(PathId, ConfigPeer)>,
    /// Routes; of two that are given for the same key, the later counts.
    pub(super) routes: BTreeMap<RouteKey, ConfigTarget>,
}

impl Part {
    /// Adds a remote route, unless there is nowhere to go: then the guard's "unreachable" stands.
    pub(super) fn route(
        &mut self,
        table: u32,
        prefix: Prefix,
        policy: Policy,
        hops: &[Hop],
        fallback: &[Hop],
    ) {
        if hops.is_empty() && fallback.is_empty() {
            return;
        }
        let key = RouteKey {
            table,
            prefix,
            metric: METRIC_REMOTE,
        };
        let target = ConfigTarget::Hops {
            policy,
            hops: hops.to_vec(),
            fallback: fallback.to_vec(),
        };
        self.routes.insert(key, target);
    }

    /// A hop to each of its peers.
    pub(super) fn hops(&self) -> Vec<Hop> {
        let paths = self.peers.iter().map(|(path, _)| path);
        paths
            .map(|path| Hop {
                device: path.device,
                peer: path.far,
            })
            .collect()
    }
}

/// A configuration while it is made.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) config: NodeConfig,
    pub(super) contested: Contested,
}

/// What more than one part gives; the last one counts.
#[derive(Debug, Default)]
pub(super) struct Contested {
    pub(super) routes: BTreeSet<RouteKey>,
    pub(super) paths: BTreeSet<PathId>,
}

impl Draft {
    /// Adds a part.
    pub(super) fn add(&mut self, part: Part) {
        for name in part.devices {
            self.device(name, KeySource::Own);
        }
        for (path, peer) in part.peers {
            let device = self.device(path.device, KeySource::Own);
            if device.peers.insert(path.far, peer).is_some() {
                self.contested.paths.insert(path);
            }
        }
        for (key, target) in part.routes {
            if self.config.routes.insert(key, target).is_some() {
                self.contested.routes.insert(key);
            }
        }
    }

    /// The device of a name, made where it is missing.
    pub(super) fn device(&mut self, name: DeviceName, key: KeySource) -> &mut ConfigDevice {
        self.config
            .devices
            .entry(name)
            .or_insert_with(|| ConfigDevice {
                key,
                peers: BTreeMap::new(),
            })
    }
}
