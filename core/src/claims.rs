//! Which agents' claims become accepted truth.
//!
//! A claim is accepted only after checks: a key that another node or device holds already, a key of low order (cannot even be
//! parsed), an endpoint inside a planned range. The first owner keeps; what was accepted before stays until a good
//! claim replaces it.

use crate::cidr::{Prefix, PrefixSet};
use crate::host::{DeviceKind, DeviceName};
use crate::ids::{NodeId, PeerName};
use crate::keys::PublicKey;
use crate::network_plan::{Class, NetworkPlan};
use crate::notice::Reason;
use crate::peer::{AcceptedPeer, AcceptedPeers, Claim, Endpoint, EndpointHost};
use crate::plan::{NodePlan, Proposal};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Endpoints that one peer can have, and that one claim may hold (the schema's bound).
pub const MAX_ENDPOINTS: usize = 16;
/// Device keys that one peer can have.
pub const MAX_KEYS: usize = 64;

/// Why (a part of) a claim was refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// Why, for machines.
    pub reason: Reason,
    /// A sentence for people.
    pub message: String,
}

/// The outcome for all peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Every planned node's peer, with the keys and endpoints that were accepted.
    pub peers: AcceptedPeers,
    /// Refusals by peer.
    pub refused: BTreeMap<PeerName, Vec<Refusal>>,
}

/// Turns the plan's nodes and the agents' claims into accepted peers. `before` are the peers as they stand.
///
/// Sealed secrets are carried over from `before`; making them needs randomness and is the operator's.
/// A peer's `plan_revision` changes only together with something else in it, so a plan that changes writes no peers.
#[must_use]
pub fn accept(
    proposal: &Proposal,
    before: &AcceptedPeers,
    claims: &BTreeMap<PeerName, Claim>,
) -> Accepted {
    accept_all(proposal, before, claims).0
}

/// [`accept`], and the judge that goes on from there with one peer at a time.
#[must_use]
pub fn accept_all(
    proposal: &Proposal,
    before: &AcceptedPeers,
    claims: &BTreeMap<PeerName, Claim>,
) -> (Accepted, Judge) {
    let mut judge = Judge {
        planned: planned_ranges(proposal.plans.values()),
        keys: KeyRegister::default(),
    };
    let mut accepted = Accepted::default();
    let nodes: BTreeMap<&PeerName, &NodeId> = proposal
        .nodes
        .iter()
        .map(|(id, node)| (&node.peer, id))
        .collect();
    judge.accept(&mut accepted, &nodes, proposal, before, claims);
    (accepted, judge)
}

/// Who holds which key, and where no endpoint may lie: what a claim is judged by beside itself.
#[derive(Debug, Clone, Default)]
pub struct Judge {
    planned: PrefixSet,
    keys: KeyRegister,
}

impl Judge {
    /// Goes on with other plans. Returns whether an endpoint of any peer may have become good or bad by that.
    pub fn replan<'p>(&mut self, plans: impl Iterator<Item = &'p NetworkPlan>) -> bool {
        let planned = planned_ranges(plans);
        let changed = planned != self.planned;
        self.planned = planned;
        changed
    }

    /// Judges again the peers of these nodes, whose plan, claim or accepted form has changed, and all whose refused key may have
    /// become free by that; what is not planned any more is taken out. Returns the peers that were judged.
    pub fn accept_again(
        &mut self,
        accepted: &mut Accepted,
        nodes: &BTreeMap<PeerName, NodeId>,
        proposal: &Proposal,
        before: &AcceptedPeers,
        claims: &BTreeMap<PeerName, Claim>,
    ) -> BTreeSet<PeerName> {
        let mut judged = BTreeSet::new();
        let mut turn: BTreeMap<&PeerName, &NodeId> = nodes.iter().collect();
        let waiting: BTreeMap<PeerName, NodeId> = accepted
            .refused
            .keys()
            .filter_map(|name| {
                let peer = accepted.peers.get(name)?;
                let (cluster, node) = (peer.cluster.clone(), peer.node.clone());
                Some((name.clone(), NodeId { cluster, node }))
            })
            .collect();
        while !turn.is_empty() {
            let held: Vec<PublicKey> = turn.keys().flat_map(|name| self.keys.of(name)).collect();
            for name in turn.keys() {
                self.keys.forget(name);
                accepted.peers.remove(*name);
                accepted.refused.remove(*name);
            }
            self.accept(accepted, &turn, proposal, before, claims);
            judged.extend(turn.keys().map(|name| (*name).clone()));
            // Ends: each turn judges peers that were not judged before.
            let freed = held.iter().any(|key| self.keys.is_free(key));
            turn = waiting
                .iter()
                .filter(|(name, _)| freed && !judged.contains(*name))
                .collect();
        }
        judged
    }

    /// Judges peers in order of their names. Whatever is held already goes before what is only claimed.
    fn accept(
        &mut self,
        accepted: &mut Accepted,
        nodes: &BTreeMap<&PeerName, &NodeId>,
        proposal: &Proposal,
        before: &AcceptedPeers,
        claims: &BTreeMap<PeerName, Claim>,
    ) {
        let planned = || {
            nodes
                .iter()
                .filter_map(|(name, id)| Some((*name, *id, proposal.nodes.get(*id)?)))
        };
        for (name, _, _) in planned() {
            self.keys.hold(name, before.get(name).map(Arc::as_ref));
        }
        for (name, id, node) in planned() {
            let (old, claim) = (before.get(name).map(Arc::as_ref), claims.get(name));
            let mut refused = Vec::new();
            let mut peer = AcceptedPeer {
                node: id.node.clone(),
                cluster: id.cluster.clone(),
                site: node.site.clone(),
                segment: node.segment.clone(),
                pod_cidrs: node.pod_cidrs.clone(),
                mesh_addresses: node.mesh_addresses.clone(),
                gateway_rank: node.gateway_rank,
                keys: self.keys.accept(name, old, claim, &mut refused),
                endpoints: endpoints(node, old, claim, &self.planned, &mut refused),
                sealed: old.map(|old| old.sealed.clone()).unwrap_or_default(),
                plan_revision: old.map_or(0, |old| old.plan_revision),
            };
            let same = old == Some(&peer);
            if !same {
                peer.plan_revision = proposal
                    .plans
                    .get(&node.link)
                    .map_or(0, |plan| plan.revision);
            }
            if !refused.is_empty() {
                refused.sort_unstable();
                refused.dedup();
                accepted.refused.insert(name.clone(), refused);
            }
            let peer = match before.get(name) {
                Some(old) if same => old.clone(),
                _ => Arc::new(peer),
            };
            accepted.peers.insert(name.clone(), peer);
        }
    }
}

/// Ranges in which no endpoint may lie: encrypted packets to it would be routed into the mesh.
fn planned_ranges<'p>(plans: impl Iterator<Item = &'p NetworkPlan>) -> PrefixSet {
    plans
        .flat_map(|plan| {
            let segments = plan
                .segments
                .iter()
                .flat_map(|segment| &segment.prefixes)
                .filter(|entry| entry.class != Class::Lan)
                .map(|entry| entry.prefix);
            let clusters = plan
                .clusters
                .iter()
                .flat_map(|cluster| cluster.pod_cidrs.iter().chain(cluster.service_cidrs.iter()));
            segments.chain(clusters)
        })
        .collect()
}

/// Who holds which key.
#[derive(Debug, Clone, Default)]
struct KeyRegister {
    holders: BTreeMap<PublicKey, (PeerName, DeviceName)>,
    keys: BTreeMap<PeerName, BTreeSet<PublicKey>>,
}

impl KeyRegister {
    /// What is accepted already of a peer that is planned. The first holder keeps.
    fn hold(&mut self, name: &PeerName, peer: Option<&AcceptedPeer>) {
        for (device, key) in peer.iter().flat_map(|peer| &peer.keys) {
            if !self.holders.contains_key(key) {
                self.put(name, *device, *key);
            }
        }
    }

    fn put(&mut self, name: &PeerName, device: DeviceName, key: PublicKey) {
        self.holders.insert(key, (name.clone(), device));
        self.keys.entry(name.clone()).or_default().insert(key);
    }

    /// All keys that a peer holds.
    fn of(&self, name: &PeerName) -> impl Iterator<Item = PublicKey> + '_ {
        self.keys.get(name).into_iter().flatten().copied()
    }

    fn is_free(&self, key: &PublicKey) -> bool {
        !self.holders.contains_key(key)
    }

    fn forget(&mut self, name: &PeerName) {
        for key in self.keys.remove(name).unwrap_or_default() {
            self.holders.remove(&key);
        }
    }

    /// The keys of one peer: claimed ones where they are good, else what was accepted before.
    fn accept(
        &mut self,
        name: &PeerName,
        old: Option<&AcceptedPeer>,
        claim: Option<&Claim>,
        refused: &mut Vec<Refusal>,
    ) -> BTreeMap<DeviceName, PublicKey> {
        let mut keys = old.map(|old| old.keys.clone()).unwrap_or_default();
        // An agent that has not spoken (again) yet takes nothing back.
        let Some(claim) = claim.filter(|claim| !claim.keys.is_empty()) else {
            return keys;
        };
        if claim.keys.len() > MAX_KEYS {
            refused.push(Refusal {
                reason: Reason::TooManyKeys,
                message: format!(
                    "{} device keys are claimed, {MAX_KEYS} are allowed: what was accepted before stays",
                    claim.keys.len()
                ),
            });
            return keys;
        }
        keys.retain(|device, _| device.kind != DeviceKind::Vpn && claim.keys.contains_key(device));
        // A VPN's key is the attachment's, made by the operator and shared by all gateways: nobody's to claim.
        let own = claim
            .keys
            .iter()
            .filter(|(device, _)| device.kind != DeviceKind::Vpn);
        for (device, key) in own {
            match self.holders.get(key) {
                Some((owner, held)) if owner != name || held != device => {
                    refused.push(Refusal {
                        reason: Reason::DuplicateKey,
                        message: format!(
                            "the key of {device} is the key of {held} on {owner} already: delete the key file of {device} on this node, so that the agent makes a new one"
                        ),
                    });
                }
                _ => {
                    self.put(name, *device, *key);
                    keys.insert(*device, *key);
                }
            }
        }
        keys
    }
}

/// Where a node can be reached: what its Node object says, then what its agent claims, in the agent's order. Whoever dials
/// takes the first: an address that the host merely holds for a while (a virtual one of kube-vip or keepalived) must not
/// come before the node's own.
fn endpoints(
    node: &NodePlan,
    old: Option<&AcceptedPeer>,
    claim: Option<&Claim>,
    planned: &PrefixSet,
    refused: &mut Vec<Refusal>,
) -> Vec<Endpoint> {
    let known: BTreeSet<Endpoint> = node
        .addresses
        .iter()
        .map(|(address, scope)| Endpoint {
            host: EndpointHost::Address(*address),
            port: None,
            scope: *scope,
        })
        .collect();
    let claimed = claim.map(|claim| claim.endpoints.as_slice());
    if let Some(claimed) = claimed.filter(|claimed| claimed.len() > MAX_ENDPOINTS) {
        refused.push(Refusal {
            reason: Reason::TooManyEndpoints,
            message: format!(
                "{} endpoints are claimed, {MAX_ENDPOINTS} are allowed: what was accepted before stays",
                claimed.len()
            ),
        });
    }
    let claimed = claimed.filter(|claimed| claimed.len() <= MAX_ENDPOINTS);
    let mut good: Vec<Endpoint> = Vec::new();
    let mut accept = |endpoint: &Endpoint| {
        if !good.contains(endpoint) {
            good.push(endpoint.clone());
        }
    };
    let mut bad = false;
    for endpoint in known.iter().chain(claimed.unwrap_or_default()) {
        match judge(endpoint, planned) {
            Ok(()) => accept(endpoint),
            Err(refusal) => {
                bad |= !known.contains(endpoint);
                refused.push(refusal);
            }
        }
    }
    // A claim that is refused, or not made yet, leaves what was accepted before, as far as that is still good.
    let silent = claimed.is_none_or(<[Endpoint]>::is_empty);
    if bad || silent {
        let kept = old.into_iter().flat_map(|old| &old.endpoints);
        kept.filter(|endpoint| judge(endpoint, planned).is_ok())
            .for_each(accept);
    }
    good.truncate(MAX_ENDPOINTS);
    good
}

fn judge(endpoint: &Endpoint, planned: &PrefixSet) -> Result<(), Refusal> {
    let refuse = |reason: Reason, message: String| {
        Err(Refusal {
            reason,
            message: format!("endpoint {endpoint} {message}"),
        })
    };
    let unusable = |why: &str| {
        refuse(
            Reason::UnusableEndpoint,
            format!("is {why}: nobody else can reach this node there"),
        )
    };
    // What a name resolves to is judged by whoever resolves it.
    let verdict = match endpoint.host {
        EndpointHost::Address(address) => judge_address(address, planned),
        EndpointHost::Name(_) => Ok(()),
    };
    match verdict {
        Err(BadAddress::Unusable(why)) => unusable(why),
        Err(BadAddress::Planned(range)) => refuse(
            Reason::EndpointInPlannedRange,
            format!(
                "lies in the planned range {range}, which is reached through the mesh only: give the node an address outside pod, service, mesh and VPN ranges"
            ),
        ),
        Ok(()) if endpoint.port == Some(0) => unusable("without a port (0)"),
        Ok(()) => Ok(()),
    }
}

/// Why nobody can be reached at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadAddress {
    /// It means this host, this link or nobody; what it is, in words.
    Unusable(&'static str),
    /// It lies in this range, which is reached through the mesh only.
    Planned(Prefix),
}

/// Whether encrypted packets may be sent to an address: of every endpoint that is claimed, and of everything that an
/// endpoint's name resolves to.
///
/// # Errors
/// [`BadAddress`] says why not.
pub fn judge_address(address: IpAddr, planned: &PrefixSet) -> Result<(), BadAddress> {
    // ::ffff:a.b.c.d is an IPv4 address in disguise.
    let plain = address.to_canonical();
    let broadcast = plain == IpAddr::V4(Ipv4Addr::BROADCAST);
    if plain.is_unspecified() {
        Err(BadAddress::Unusable("the unspecified address"))
    } else if plain.is_loopback() {
        Err(BadAddress::Unusable("a loopback address"))
    } else if plain.is_multicast() {
        Err(BadAddress::Unusable("a multicast address"))
    } else if is_link_local(plain) || broadcast {
        Err(BadAddress::Unusable("a link-local or broadcast address"))
    } else if let Some(range) = planned.overlapping(Prefix::host(plain)) {
        Err(BadAddress::Planned(range))
    } else {
        Ok(())
    }
}

/// Whether an address is good on its own link alone: 169.254.0.0/16, fe80::/10.
#[must_use]
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
