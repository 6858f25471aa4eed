//! What the facts mean. Pure: the same facts give the same findings, in the same order.
//!
//! | module | what it looks at |
//! |---|---|
//! | [`install`] | Kubernetes, our definitions and policies, operator and agents, versions, clocks |
//! | [`pods`] | who gives nodes their podCIDRs, kube-proxy |
//! | [`cni`] | which CNI there is and whether it masquerades: a file for each |
//! | [`pod_network`] | what the agents tell of CNI and masquerade on their nodes |
//! | [`host`] | what the agents tell of their nodes: forwarding, filters, MTU |
//! | [`mesh`] | conditions of our kinds, paths between gateways |
//! | [`access`] | who may do what |

mod access;
mod cni;
mod host;
mod install;
mod mesh;
mod pod_network;
mod pods;
mod workload;

use super::facts::Facts;
use super::reading::Reading;
use serde::Serialize;

pub(crate) use cni::config_maps as cni_config_maps;
pub(crate) use workload::variable;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// It does not work, or will not.
    Problem,
    /// It works, and will not always; or it is not proven to.
    Warning,
    /// It could not be looked at.
    Unknown,
    /// Looked at, and in order.
    Ok,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Finding {
    /// Which check, in words that stay the same.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The object or node, as `Kind name`; empty: the cluster.
    #[serde(rename = "where", skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// What was found.
    pub message: String,
    /// What to do about it; empty: nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// The API server did not answer a question, so the whole is not whole.
    #[serde(skip)]
    pub unread: bool,
}

impl Finding {
    pub(crate) fn ok(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(id, Severity::Ok, message)
    }
    pub(crate) fn warning(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(id, Severity::Warning, message)
    }
    pub(crate) fn problem(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(id, Severity::Problem, message)
    }
    pub(crate) fn unknown(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(id, Severity::Unknown, message)
    }
    /// Unknown, because the API server did not answer.
    pub(crate) fn unread(id: &'static str, message: impl Into<String>) -> Self {
        Self {
            unread: true,
            ..Self::unknown(id, message)
        }
    }
    fn new(id: &'static str, severity: Severity, message: impl Into<String>) -> Self {
        Self {
            id,
            severity,
            place: String::new(),
            message: message.into(),
            action: String::new(),
            unread: false,
        }
    }
    /// At this object or node.
    pub(crate) fn at(mut self, place: impl Into<String>) -> Self {
        self.place = place.into();
        self
    }
    /// What to do.
    pub(crate) fn todo(mut self, action: impl Into<String>) -> Self {
        self.action = action.into();
        self
    }
}

/// Everything that is to be said, the worst first; equally bad ones in the order of the checks.
#[must_use]
pub(crate) fn check(facts: &Facts) -> Vec<Finding> {
    let mut all = unread(facts);
    all.extend(install::check(facts));
    all.extend(pods::pod_cidrs(facts));
    all.extend(cni::check(facts, &pod_network::cnis(facts)));
    all.extend(pods::proxy(facts));
    all.extend(pod_network::check(facts));
    all.extend(host::check(facts));
    all.extend(mesh::check(facts));
    all.extend(access::check(facts));
    all.sort_by_key(|finding| finding.severity);
    all
}

/// Identifier of what could not be read.
const UNREAD: &str = "reading";

/// What could not be read. The checks that need it say nothing.
fn unread(facts: &Facts) -> Vec<Finding> {
    let readings = [
        failure(&facts.definitions),
        failure(&facts.policies),
        failure(&facts.bindings),
        failure(&facts.nodes),
        failure(&facts.daemon_sets),
        failure(&facts.deployments),
        failure(&facts.pods),
        failure(&facts.controller_managers),
        failure(&facts.config_maps),
        failure(&facts.links),
        failure(&facts.clusters),
        failure(&facts.sites),
        failure(&facts.vpns),
        failure(&facts.ledgers),
        failure(&facts.plans),
        failure(&facts.peers),
    ];
    let mut messages: Vec<&String> = readings.into_iter().flatten().collect();
    messages.dedup();
    messages
        .into_iter()
        .map(|message| {
            Finding::unread(UNREAD, message.clone())
                .todo("run this with a credential that may read it, such as an administrator's")
        })
        .collect()
}

fn failure<T>(reading: &Reading<T>) -> Option<&String> {
    reading.as_ref().err()
}

/// What was read; nothing when it could not be, which is said once for all checks.
fn read<T>(reading: &Reading<Vec<T>>) -> &[T] {
    reading.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
