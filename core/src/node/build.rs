//! The configuration of an accepted node: what a gateway, another node and a gateway with a VPN run.

use super::config::{
    ConfigDevice, ConfigPeer, ConfigTarget, ConfigVpn, Far, Hop, NodeConfig, Policy,
};
use super::guard::Guard;
use super::numbers::{KEEPALIVE, PREF_INNER};
use super::reach::{Reach, Way};
use crate::cidr::{Family, Prefix, PrefixSet};
use crate::fleet::Granularity;
use crate::host::{
    DeviceKind, DeviceName, KeySource, METRIC_REMOTE, RouteKey, Rule, Selector, TABLE_INNER,
    TABLE_REMOTE,
};
use crate::ids::{PeerName, SegmentName};
use crate::keys::PublicKey;
use crate::network_plan::{Class, ClassPrefix, Gateway, NetworkPlan, PlanVpn, Segment};
use crate::peer::{AcceptedPeer, AcceptedPeers};
use std::collections::BTreeMap;

/// Everything that decides one node's configuration.
struct View<'a> {
    plan: &'a NetworkPlan,
    peers: &'a AcceptedPeers,
    reach: Reach<'a>,
    name: &'a PeerName,
    me: &'a AcceptedPeer,
    segment: &'a Segment,
}

/// The configuration of a node whose peer and segment are known.
pub(super) fn node(
    plan: &NetworkPlan,
    peers: &AcceptedPeers,
    name: &PeerName,
    me: &AcceptedPeer,
    segment: &Segment,
) -> NodeConfig {
    let view = View {
        plan,
        peers,
        reach: Reach::new(plan),
        name,
        me,
        segment,
    };
    let mut config = NodeConfig {
        revision: plan.revision,
        families: plan.super_nets.iter().map(Prefix::family).collect(),
        mesh: me
            .mesh_addresses
            .iter()
            .map(|&address| (Family::of(address), address))
            .collect(),
        ..NodeConfig::default()
    };
    match view.rank() {
        Some(rank) => view.gateway(&mut config, rank),
        None => view.other_node(&mut config),
    }
    // The guard comes last: what it throws back to the host wins over a tunnel for the same prefix.
    Guard::of_member(plan, &view.reach, me, segment, view.rank()).apply(&mut config);
    config
}

impl View<'_> {
    /// Own rank. The plan's word counts, also about others: plan and peers are written one after the other.
    fn rank(&self) -> Option<u8> {
        self.segment
            .gateways
            .iter()
            .find(|gateway| gateway.peer == *self.name)
            .map(|gateway| gateway.rank)
    }

    fn gateway(&self, config: &mut NodeConfig, rank: u8) {
        let leaves = match self.plan.granularity {
            Granularity::Node => Vec::new(),
            Granularity::Site => {
                let leaves = self.leaves(config, Some(rank));
                self.hub(config, rank);
                leaves
            }
        };
        self.outer(config, rank, &leaves);
        for vpn in self
            .plan
            .vpns
            .iter()
            .filter(|vpn| vpn.segment == self.segment.name)
        {
            self.terminate(config, rank, vpn);
        }
        for device in config.devices.keys().copied().collect::<Vec<_>>() {
            if matches!(device.kind, DeviceKind::Outer | DeviceKind::Vpn) {
                for &family in &config.families {
                    config.rules.insert(Rule {
                        preference: PREF_INNER,
                        family,
                        selector: Selector::From(device),
                        table: TABLE_INNER,
                        suppress_prefix_len: None,
                    });
                }
            }
        }
    }

    /// A node that is no gateway sends everything planned to its segment's gateways.
    fn other_node(&self, config: &mut NodeConfig) {
        let leaves = self.leaves(config, None);
        for prefix in self.plan.super_nets.iter() {
            put(
                config,
                TABLE_REMOTE,
                prefix,
                Policy::Multipath,
                &leaves,
                &[],
            );
        }
        for prefix in self.segment.of(&[Class::Vpn]).iter() {
            put(config, TABLE_REMOTE, prefix, Policy::Ordered, &leaves, &[]);
        }
        for gateway in &self.segment.gateways {
            let device = DeviceName::inner(gateway.rank);
            let hop: Vec<Hop> = leaves
                .iter()
                .copied()
                .filter(|hop| hop.device == device)
                .collect();
            for prefix in self.mesh_of(&gateway.peer) {
                put(config, TABLE_REMOTE, prefix, Policy::Sticky, &hop, &[]);
            }
        }
    }

    /// Inner devices as leaf: one for each gateway of the own segment other than this node. Returns the hops to them.
    fn leaves(&self, config: &mut NodeConfig, own: Option<u8>) -> Vec<Hop> {
        let mut hops = Vec::new();
        for gateway in &self.segment.gateways {
            if Some(gateway.rank) == own {
                continue;
            }
            let name = DeviceName::inner(gateway.rank);
            let device = device(config, name, KeySource::Own);
            if let Some((key, peer)) = self.peer(
                &gateway.peer,
                name,
                Some(gateway.rank),
                self.plan.super_nets.clone(),
            ) {
                device.peers.insert(key, peer);
                hops.push(Hop {
                    device: name,
                    peer: key,
                });
            }
        }
        hops
    }

    /// The inner device of the own rank as hub: all other nodes of the segment.
    fn hub(&self, config: &mut NodeConfig, rank: u8) {
        let name = DeviceName::inner(rank);
        device(config, name, KeySource::Own);
        let lan = self.segment.of(&[Class::Lan]);
        let first = self.segment.gateways.first();
        for (member, accepted) in self.peers {
            if accepted.segment != self.segment.name || member == self.name {
                continue;
            }
            let own: Vec<Prefix> = accepted
                .pod_cidrs
                .iter()
                .copied()
                .chain(
                    accepted
                        .mesh_addresses
                        .iter()
                        .map(|&address| Prefix::host(address)),
                )
                .collect();
            // The gateway that the LAN is ordered to sends on what it cannot send itself, with the LAN's addresses.
            let carries_lan = first.is_some_and(|gateway| gateway.peer == *member);
            let allowed = own
                .iter()
                .copied()
                .chain(lan.iter().filter(|_| carries_lan))
                .collect();
            let member_rank = self.rank_of(self.segment, member);
            let Some((key, peer)) = self.peer(member, name, member_rank, allowed) else {
                continue;
            };
            let hop = [Hop {
                device: name,
                peer: key,
            }];
            for &prefix in &own {
                put(config, TABLE_INNER, prefix, Policy::Sticky, &hop, &[]);
            }
            for prefix in self.mesh_of(member) {
                put(config, TABLE_REMOTE, prefix, Policy::Sticky, &hop, &[]);
            }
            device(config, name, KeySource::Own).peers.insert(key, peer);
        }
    }

    /// Outer devices: rails to every segment, directly or through the transit site.
    fn outer(&self, config: &mut NodeConfig, rank: u8, leaves: &[Hop]) {
        // What lies behind each segment that we have rails to, itself included.
        let mut behind: BTreeMap<&SegmentName, Vec<&ClassPrefix>> = BTreeMap::new();
        let mut ways = Vec::new();
        for segment in &self.plan.segments {
            if segment.name == self.segment.name {
                continue;
            }
            let way = self.reach.way(self.segment, segment);
            let carrier = match way {
                Way::Direct => &segment.name,
                Way::Through(transit) => &transit.name,
                Way::None => continue,
            };
            behind.entry(carrier).or_default().extend(&segment.prefixes);
            ways.push((segment, way, carrier));
        }
        let mut rails: BTreeMap<&SegmentName, Vec<(&Gateway, Hop)>> = BTreeMap::new();
        for (segment, way, _) in &ways {
            if *way != Way::Direct {
                continue;
            }
            let allowed: PrefixSet = behind
                .get(&segment.name)
                .into_iter()
                .flatten()
                .map(|entry| entry.prefix)
                .collect();
            for gateway in &segment.gateways {
                let name = DeviceName::outer(gateway.rank);
                let device = device(config, name, KeySource::Own);
                // On my device of its rank I meet its device of my rank.
                let far = DeviceName::outer(rank);
                if let Some((key, peer)) =
                    self.peer(&gateway.peer, far, Some(gateway.rank), allowed.clone())
                {
                    device.peers.insert(key, peer);
                    let hop = Hop {
                        device: name,
                        peer: key,
                    };
                    rails.entry(&segment.name).or_default().push((gateway, hop));
                }
            }
        }
        for (segment, way, carrier) in ways {
            let rails = rails.get(carrier).map_or(&[][..], Vec::as_slice);
            let hops: Vec<Hop> = rails.iter().map(|(_, hop)| *hop).collect();
            for entry in &segment.prefixes {
                let policy = if entry.class.is_multipath() {
                    Policy::Multipath
                } else {
                    Policy::Ordered
                };
                put(config, TABLE_REMOTE, entry.prefix, policy, &hops, leaves);
            }
            if way == Way::Direct {
                for (gateway, hop) in rails {
                    for prefix in self.mesh_of(&gateway.peer) {
                        put(config, TABLE_REMOTE, prefix, Policy::Sticky, &[*hop], &[]);
                    }
                }
            }
        }
    }

    /// The device of a VPN that this gateway can terminate, and who of the segment's gateways is to be active.
    fn terminate(&self, config: &mut NodeConfig, rank: u8, vpn: &PlanVpn) {
        let name = DeviceName::vpn(vpn.index);
        let foreign = ConfigPeer {
            far: Far::Foreign(vpn.name.clone()),
            allowed_ips: vpn.prefixes.clone(),
            endpoints: vpn.endpoint.iter().cloned().collect(),
            keepalive: Some(KEEPALIVE),
            preshared_key: vpn.preshared_key.then(|| vpn.name.clone()),
        };
        device(config, name, KeySource::Attachment(vpn.name.clone()))
            .peers
            .insert(vpn.peer_public_key, foreign);
        let hub = DeviceName::inner(rank);
        let mut candidates: Vec<Hop> = self
            .segment
            .gateways
            .iter()
            .filter(|gateway| gateway.rank < rank)
            .filter_map(|gateway| self.key(&gateway.peer, hub))
            .map(|peer| Hop { device: hub, peer })
            .collect();
        candidates.push(Hop {
            device: name,
            peer: vpn.peer_public_key,
        });
        for prefix in vpn.prefixes.iter() {
            put(
                config,
                TABLE_REMOTE,
                prefix,
                Policy::Sticky,
                &candidates,
                &[],
            );
        }
        let clusters = self
            .plan
            .clusters
            .iter()
            .filter(|cluster| vpn.allow.clusters.contains(&cluster.name))
            .flat_map(|cluster| cluster.pod_cidrs.iter().chain(cluster.service_cidrs.iter()));
        let sites = self
            .plan
            .sites
            .iter()
            .filter(|site| vpn.allow.sites.contains(&site.name))
            .flat_map(|site| site.cidrs.iter());
        config.vpns.push(ConfigVpn {
            name: vpn.name.clone(),
            device: name,
            prefixes: vpn.prefixes.clone(),
            allow: clusters.chain(sites).collect(),
            candidates,
        });
    }

    /// A node as peer, by the key of its device `far`; `None` while no such key is accepted.
    fn peer(
        &self,
        name: &PeerName,
        far: DeviceName,
        rank: Option<u8>,
        allowed_ips: PrefixSet,
    ) -> Option<(PublicKey, ConfigPeer)> {
        let accepted = self.peers.get(name)?;
        let key = *accepted.keys.get(&far)?;
        let peer = ConfigPeer {
            far: Far::Node {
                peer: name.clone(),
                device: far,
            },
            allowed_ips,
            endpoints: self.reach.endpoints(&self.me.site, accepted, rank),
            keepalive: Some(KEEPALIVE),
            preshared_key: None,
        };
        Some((key, peer))
    }

    fn key(&self, name: &PeerName, device: DeviceName) -> Option<PublicKey> {
        self.peers.get(name)?.keys.get(&device).copied()
    }

    fn mesh_of(&self, name: &PeerName) -> Vec<Prefix> {
        self.peers
            .get(name)
            .into_iter()
            .flat_map(|peer| &peer.mesh_addresses)
            .map(|&address| Prefix::host(address))
            .collect()
    }

    fn rank_of(&self, segment: &Segment, name: &PeerName) -> Option<u8> {
        segment
            .gateways
            .iter()
            .find(|gateway| gateway.peer == *name)
            .map(|gateway| gateway.rank)
    }
}

fn device(config: &mut NodeConfig, name: DeviceName, key: KeySource) -> &mut ConfigDevice {
    config.devices.entry(name).or_insert_with(|| ConfigDevice {
        key,
        peers: BTreeMap::new(),
    })
}

/// Puts a remote route, unless there is nowhere to go: then the guard's "unreachable" stands.
fn put(
    config: &mut NodeConfig,
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
    config.routes.insert(key, target);
}
