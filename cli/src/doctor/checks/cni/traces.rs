//! What CNIs leave behind at the API server: DaemonSets, their ConfigMaps, annotations of nodes.

use super::super::Facts;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// Where a CNI is looked for.
pub(super) struct Traces<'a> {
    sets: &'a [DaemonSet],
    /// All nodes.
    pub nodes: &'a [Node],
    maps: Option<&'a BTreeMap<String, BTreeMap<String, String>>>,
}

impl<'a> Traces<'a> {
    /// Nothing can be said of what could not be read. ConfigMaps only refine.
    pub(super) fn of(facts: &'a Facts) -> Option<Self> {
        Some(Self {
            sets: facts.daemon_sets.as_ref().ok()?,
            nodes: facts.nodes.as_ref().ok()?,
            maps: facts.config_maps.as_ref().ok(),
        })
    }

    /// The first DaemonSet with one of these names, in whichever namespace.
    pub(super) fn set(&self, names: &[&str]) -> Option<&'a DaemonSet> {
        self.sets
            .iter()
            .find(|set| names.contains(&set.name_any().as_str()))
    }

    /// Whether a node has an annotation that begins like this.
    pub(super) fn annotated(&self, prefix: &str) -> bool {
        self.nodes
            .iter()
            .any(|node| node.annotations().keys().any(|key| key.starts_with(prefix)))
    }

    /// An entry of a ConfigMap, which is named as `namespace/name`.
    pub(super) fn entry(&self, map: &str, key: &str) -> Option<&'a str> {
        self.maps?.get(map)?.get(key).map(String::as_str)
    }
}
