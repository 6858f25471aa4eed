//! What is around us and not ours: read, never written.
//!
//! Looking at other tables' chains costs a process each, so what was found is kept for as long as the kernel's rulesets and
//! links are the same.

use super::generation::Basis;
use super::links::Links;
use super::sockets::Sockets;
use super::sysctl::Sysctls;
use super::{nft, pod_network, surroundings};
use crate::platform::Surroundings;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tieline_core::host::HostState;

/// How old what is known of others' masquerading may be before a changed ruleset is looked at again.
const MASQUERADE_PAUSE: Duration = Duration::from_secs(30);

/// Chains of others that give packets another source, and whether only those with a mark.
type Masquerade = BTreeMap<String, bool>;

/// The host's own network, and what of it need not be looked at again.
pub(super) struct Foreign {
    /// Underlay devices beside those that are found.
    extra_underlay: BTreeSet<String>,
    netdev_egress: bool,
    /// Addresses that peers were last seen at, except among the own cluster's pods; the underlay has to reach them.
    endpoints: BTreeSet<IpAddr>,
    /// Forward chains of others that drop, and what that depends on.
    forward_drops: Option<(Basis, BTreeSet<String>)>,
    /// What was found of others' masquerading, on what basis, and when.
    masquerade: Option<(Option<Basis>, Instant, Masquerade)>,
}

impl Foreign {
    /// Probes what the kernel has.
    pub(super) async fn open(extra_underlay: BTreeSet<String>) -> Self {
        Self {
            extra_underlay,
            netdev_egress: surroundings::has_netdev_egress().await,
            endpoints: BTreeSet::new(),
            forward_drops: None,
            masquerade: None,
        }
    }

    /// Takes in where peers are, since the underlay is what reaches them.
    pub(super) fn follow(&mut self, state: &HostState) {
        let peers = state.devices.values().flat_map(|it| it.peers.values());
        let endpoints = peers.filter_map(|peer| Some(peer.endpoint?.ip())).collect();
        self.endpoints = surroundings::outside_cni(&endpoints, &state.rules);
    }

    /// What the host looks like around us.
    pub(super) async fn read(
        &mut self,
        sockets: &Sockets,
        links: &Links,
        sysctls: &Sysctls,
    ) -> io::Result<Surroundings> {
        let mut around = surroundings::read(
            &sockets.netlink,
            links,
            &self.extra_underlay,
            &self.endpoints,
            sysctls,
        )
        .await?;
        around.netdev_egress = self.netdev_egress;
        around.plug_in_devices = pod_network::devices(links.iter().map(|link| link.name.as_str()));
        around.foreign_forward_drops = self.forward_drops(sockets, links).await?;
        around.foreign_masquerade = self.masquerade(sockets, links).await?;
        Ok(around)
    }

    async fn forward_drops(
        &mut self,
        sockets: &Sockets,
        links: &Links,
    ) -> io::Result<BTreeSet<String>> {
        let basis = sockets.basis(links).await;
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
    async fn masquerade(&mut self, sockets: &Sockets, links: &Links) -> io::Result<Masquerade> {
        let basis = sockets.basis(links).await;
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
}
