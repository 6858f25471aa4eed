//! What the agents tell of CNI and masquerade on their nodes: devices of plug-ins, and chains that give packets another source.
//!
//! A plug-in leaves its traces when its first pod starts, so a node without traces says nothing.

use super::cni::{self, is_named};
use super::{Facts, Finding, read};
use std::collections::{BTreeMap, BTreeSet};
use tieline_core::plan::listed;
use tieline_crds::peer::PodNetworkFacts;

const ID: &str = "pod-network";
/// The plug-ins bridge, ptp and others of the CNI project, which flannel uses too.
const PLUG_INS: &str = "plug-ins of the CNI project";
/// Its masquerade is that of Services, and beside a CNI's.
const KUBE_PROXY: &str = "kube-proxy";
/// The bridge of those plug-ins.
const BRIDGE: &str = "cni0";
/// Who is behind a chain and is no CNI, by its table or its own name or, where a `*` ends it, what the name begins with.
const CHAINS: &[(&str, &str)] = &[
    ("CNI-*", PLUG_INS),
    ("cni_plugins_masquerade", PLUG_INS),
    ("KUBE-POSTROUTING", KUBE_PROXY),
    ("kube-proxy", KUBE_PROXY),
    ("IP-MASQ*", "ip-masq-agent"),
];

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut all: BTreeMap<Network, Vec<&str>> = BTreeMap::new();
    let mut bare = Vec::new();
    for (node, told) in told(facts) {
        let network = Network::of(told);
        if network.cnis.is_empty() && network.masquerade.is_empty() {
            bare.push(node);
        } else {
            all.entry(network).or_default().push(node);
        }
    }
    let kinds: BTreeSet<Kind> = all.keys().filter_map(Network::kind).collect();
    let mut texts: Vec<String> = all
        .iter()
        .map(|(network, nodes)| format!("on {}: {network}", listed(nodes)))
        .collect();
    if texts.is_empty() {
        // Agents that do not tell, or nodes without traces: what the API server's objects say is all there is.
        return Vec::new();
    }
    if !bare.is_empty() {
        texts.push(format!("on {}: no traces yet", listed(bare)));
    }
    let text = texts.join("; ");
    vec![if kinds.len() > 1 {
        Finding::warning(ID, format!("nodes differ: {text}")).todo(
            "make sure that all nodes have the same CNI with the same setting of masquerade, unless this is a migration; between sites Tieline keeps planned sources on each of them",
        )
    } else {
        Finding::ok(
            ID,
            format!(
                "{text}. Between sites planned sources are kept all the same: Tieline's rule comes first"
            ),
        )
    }]
}

/// CNIs that the agents' nodes have traces of.
pub(super) fn cnis(facts: &Facts) -> BTreeSet<&'static str> {
    told(facts)
        .flat_map(|(_, told)| Network::of(told).cnis)
        .collect()
}

fn told(facts: &Facts) -> impl Iterator<Item = (&str, &PodNetworkFacts)> {
    read(&facts.peers).iter().filter_map(|peer| {
        let host = peer.status.as_ref()?.host.as_ref()?;
        Some((peer.spec.node.as_str(), host.pod_network.as_ref()?))
    })
}

/// CNIs, and whether they masquerade: what nodes of one cluster should have in common.
type Kind = (BTreeSet<&'static str>, bool);

/// What a node tells.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Network {
    cnis: BTreeSet<&'static str>,
    devices: BTreeSet<String>,
    /// Chains that masquerade, with who made them where that is known.
    masquerade: BTreeSet<(Option<&'static str>, String)>,
    /// Chains that do so with marked packets alone, and kube-proxy's.
    marked: BTreeSet<String>,
}

impl Network {
    fn of(told: &PodNetworkFacts) -> Self {
        let devices: BTreeSet<String> = told.devices.iter().cloned().collect();
        let mut masquerade = BTreeSet::new();
        let mut marked = BTreeSet::new();
        for it in &told.masquerade {
            let owner = it.chain.split(' ').skip(1).find_map(of_chain);
            // Older iptables tells no mark, and in nftables mode connections of pods to themselves need none.
            if it.only_marked || owner == Some(KUBE_PROXY) {
                marked.insert(it.chain.clone());
            } else {
                masquerade.insert((owner, it.chain.clone()));
            }
        }
        let by_chain = masquerade.iter().filter_map(|(owner, _)| *owner);
        let mut cnis: BTreeSet<&str> = devices
            .iter()
            .filter_map(|name| of_device(name))
            .chain(by_chain)
            .collect();
        if cnis.len() > 1 {
            // They work for the other one.
            cnis.remove(PLUG_INS);
        }
        Self {
            cnis,
            devices,
            masquerade,
            marked,
        }
    }

    /// What other nodes are compared with. Plug-ins masquerade for each pod, or not: a node without such pods is no other kind.
    fn kind(&self) -> Option<Kind> {
        let alone = self.cnis.iter().all(|name| *name == PLUG_INS);
        let masquerades = self.masquerade.iter().any(|(owner, _)| owner.is_some());
        (!self.cnis.is_empty()).then(|| (self.cnis.clone(), masquerades && !alone))
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.cnis.is_empty() {
            f.write_str("a CNI without traces")?;
        } else {
            f.write_str(&listed(&self.cnis))?;
        }
        if !self.devices.is_empty() {
            write!(f, " ({})", listed(&self.devices))?;
        }
        if self.masquerade.is_empty() {
            f.write_str(
                ", no masquerade of pods in nftables (iptables-legacy and eBPF were not looked at)",
            )?;
        } else {
            let chains = self.masquerade.iter().map(|(_, chain)| chain);
            write!(f, ", masquerade in {}", listed(chains))?;
        }
        if !self.marked.is_empty() {
            write!(
                f,
                ", of marked packets or Services alone in {}",
                listed(&self.marked)
            )?;
        }
        Ok(())
    }
}

fn of_device(name: &str) -> Option<&'static str> {
    (name == BRIDGE)
        .then_some(PLUG_INS)
        .or_else(|| cni::of_device(name))
}

fn of_chain(name: &str) -> Option<&'static str> {
    let other = CHAINS.iter().find(|(known, _)| is_named(known, name));
    other
        .map(|(_, owner)| *owner)
        .or_else(|| cni::of_chain(name))
}
