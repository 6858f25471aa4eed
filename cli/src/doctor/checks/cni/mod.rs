//! Which CNI carries pods beside us: one file each says what it leaves behind, and what that means for planned ranges.
//!
//! A new one is a file here and an entry in [`KNOWN`]. What is found is said as found; a CNI that leaves no trace is unknown.

mod antrea;
mod aws;
mod azure;
mod calico;
mod cilium;
mod flannel;
mod gke;
mod kindnet;
mod known;
mod kube_router;
mod ovn;
mod traces;
mod weave;

use super::{Facts, Finding};
use known::{Cni, Known};
use std::collections::BTreeSet;
use tieline_core::plan::listed;
use traces::Traces;

pub(super) use flannel::is_k3s;

const ID: &str = "cni";

/// In the order in which they are told.
const KNOWN: &[&Known] = &[
    &flannel::FLANNEL,
    &calico::CALICO,
    &cilium::CILIUM,
    &aws::AWS,
    &kindnet::KINDNET,
    &weave::WEAVE,
    &antrea::ANTREA,
    &kube_router::KUBE_ROUTER,
    &ovn::OVN,
    &azure::AZURE,
    &gke::GKE,
];

/// What the API server's objects tell; where they tell nothing, the `seen` ones, of which agents have found traces on their nodes.
pub(super) fn check(facts: &Facts, seen: &BTreeSet<&str>) -> Vec<Finding> {
    let Some(traces) = Traces::of(facts) else {
        return Vec::new();
    };
    let found: Vec<Cni> = KNOWN
        .iter()
        .filter_map(|known| (known.look)(&traces))
        .collect();
    if found.is_empty() {
        return not_recognised(seen, &traces);
    }
    let mut all: Vec<Finding> = found.iter().map(judge).collect();
    if found.len() > 1 {
        all.push(
            Finding::warning(
                ID,
                format!(
                    "several CNIs left traces: {}",
                    listed(found.iter().map(|cni| &cni.name))
                ),
            )
            .todo("make sure that only one of them gives pods their addresses"),
        );
    }
    all
}

fn judge(cni: &Cni) -> Finding {
    let text = format!("{}; {}", cni.name, cni.masquerade);
    if let Some(why) = &cni.own_addresses {
        Finding::problem(ID, format!("{text}. Pods' addresses do not follow Node.spec.podCIDRs ({why}), which is what Tieline routes by"))
            .todo("use the CNI's host-local or Kubernetes IPAM mode; others are not supported by this version")
    } else if cni.proven {
        Finding::ok(ID, text)
    } else {
        Finding::warning(ID, format!("{text}. Tieline was not proven beside it"))
            .todo("try it on a cluster that may fail first; make sure that pods' addresses come from Node.spec.podCIDRs")
    }
}

fn not_recognised(seen: &BTreeSet<&str>, traces: &Traces<'_>) -> Vec<Finding> {
    if traces.nodes.is_empty() {
        Vec::new()
    } else if !seen.is_empty() {
        vec![Finding::ok(
            ID,
            format!(
                "the nodes have traces of {}; where pods take their addresses from is not written where this program reads, and must be Node.spec.podCIDRs",
                listed(seen)
            ),
        )]
    } else {
        vec![Finding::unknown(ID, "no CNI was recognised (looked for flannel, Calico, Cilium, kindnet, k3s, the AWS VPC CNI and others)")
            .todo("make sure that pods take their addresses from Node.spec.podCIDRs, and that the CNI routes each node's podCIDR inside its site")]
    }
}

/// ConfigMaps that tell of CNIs, as namespace and name.
pub(crate) fn config_maps() -> impl Iterator<Item = (&'static str, &'static str)> {
    KNOWN.iter().flat_map(|known| known.config_maps).copied()
}

/// Who is behind a device of a node.
pub(super) fn of_device(name: &str) -> Option<&'static str> {
    owner(|known| known.devices, name)
}

/// Who is behind a chain of a node, by its table or its own name.
pub(super) fn of_chain(name: &str) -> Option<&'static str> {
    owner(|known| known.chains, name)
}

fn owner(traces: fn(&Known) -> &[&str], name: &str) -> Option<&'static str> {
    KNOWN
        .iter()
        .find(|known| traces(known).iter().any(|trace| is_named(trace, name)))
        .map(|known| known.name)
}

/// Whether that is the name, or where the pattern ends in `*`, begins it.
pub(super) fn is_named(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}
