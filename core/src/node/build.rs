//! The configuration of an accepted node: what a gateway, another node and a gateway with a VPN run.

use super::config::{ConfigPeer, ConfigVpn, Far, Hop, NodeConfig, Policy};
use super::guard::Guard;
use super::numbers::{KEEPALIVE, PREF_INNER};
use super::part::{Draft, Part};
use super::reach::{Reach, Way};
use crate::cidr::{Family, Prefix, PrefixSet};
use crate::fleet::Granularity;
use crate::health::PathId;
use crate::host::{DeviceKind, DeviceName, KeySource, Rule, Selector, TABLE_INNER, TABLE_REMOTE};
use crate::ids::PeerName;
use crate::keys::PublicKey;
use crate::network_plan::{Class, Gateway, NetworkPlan, PlanVpn, Segment};
use crate::peer::{AcceptedPeer, AcceptedPeers};

/// Everything that decides one node's configuration.
pub(super) struct View<'a> {
    plan: &'a NetworkPlan,
    peers: &'a AcceptedPeers,
    reach: Reach<'a>,
    name: &'a PeerName,
    me: &'a AcceptedPeer,
    segment: &'a Segment,
}

impl<'a> View<'a> {
    /// What a node goes by; `None`: its peer is not accepted, or the plan does not hold its segment (yet).
    pub(super) fn new(
        plan: &'a NetworkPlan,
        peers: &'a AcceptedPeers,
        name: &'a PeerName,
    ) -> Option<Self> {
        let me = peers.get(name)?;
        Some(Self {
            plan,
            peers,
            reach: Reach::new(plan),
            name,
            me,
            segment: plan.segment(&me.segment)?,
        })
    }

    /// The node's configuration.
    pub(super) fn draft(&self) -> Draft {
        let config = NodeConfig {
            revision: self.plan.revision,
            families: self.plan.super_nets.iter().map(Prefix::family).collect(),
            mesh: self
                .me
                .mesh_addresses
                .iter()
                .map(|&address| (Family::of(address), address))
                .collect(),
            ..NodeConfig::default()
        };
        let mut draft = Draft {
            config,
            ..Draft::default()
        };
        match self.rank() {
            Some(rank) => self.gateway(&mut draft, rank),
            None => self.other_node(&mut draft),
        }
        // The guard comes last: what it throws back to the host wins over a tunnel for the same prefix.
        Guard::of_member(self.plan, &self.reach, self.me, self.segment, self.rank())
            .apply(&mut draft.config);
        draft
    }

    /// The segment that the node is in.
    pub(super) fn segment(&self) -> &'a Segment {
        self.segment
    }

    /// Own rank. The plan's word counts, also about others: plan and peers are written one after the other.
    pub(super) fn rank(&self) -> Option<u8> {
        self.rank_of(self.segment, self.name)
    }

    fn gateway(&self, draft: &mut Draft, rank: u8) {
        let leaves = self.leaves(Some(rank));
        let hops = leaves.hops();
        draft.add(leaves);
        if self.has_members() {
            draft.device(DeviceName::inner(rank), KeySource::Own);
            for member in self.peers.keys() {
                draft.add(self.member(rank, member));
            }
        }
        self.outer(draft, rank, &hops);
        for vpn in self
            .plan
            .vpns
            .iter()
            .filter(|vpn| vpn.segment == self.segment.name)
        {
            self.terminate(draft, rank, vpn);
        }
        let config = &mut draft.config;
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
    fn other_node(&self, draft: &mut Draft) {
        let mut part = self.leaves(None);
        let leaves = part.hops();
        for prefix in self.plan.super_nets.iter() {
            part.route(TABLE_REMOTE, prefix, Policy::Multipath, &leaves, &[]);
        }
        for prefix in self.segment.of(&[Class::Vpn]).iter() {
            part.route(TABLE_REMOTE, prefix, Policy::Ordered, &leaves, &[]);
        }
        for gateway in &self.segment.gateways {
            let device = DeviceName::inner(gateway.rank);
            let hop: Vec<Hop> = leaves
                .iter()
                .copied()
                .filter(|hop| hop.device == device)
                .collect();
            for prefix in self.mesh_of(&gateway.peer) {
                part.route(TABLE_REMOTE, prefix, Policy::Sticky, &hop, &[]);
            }
        }
        draft.add(part);
    }

    /// Inner devices as leaf: one for each gateway of the own segment other than this node. A segment of one node has none.
    fn leaves(&self, own: Option<u8>) -> Part {
        let mut part = Part::default();
        if own.is_some() && !self.has_members() {
            return part;
        }
        for gateway in &self.segment.gateways {
            if Some(gateway.rank) == own {
                continue;
            }
            let name = DeviceName::inner(gateway.rank);
            part.devices.insert(name);
            let rank = Some(gateway.rank);
            if let Some((key, peer)) =
                self.peer(&gateway.peer, name, rank, self.plan.super_nets.clone())
            {
                part.peers.push((PathId::new(name, key), peer));
            }
        }
        part
    }

    /// Whether gateways have other nodes of their segment behind them.
    pub(super) fn has_members(&self) -> bool {
        self.plan.granularity == Granularity::Site
    }

    /// What another node of the own segment adds to the gateway of `rank`: a peer of its inner device, which is the hub.
    pub(super) fn member(&self, rank: u8, member: &PeerName) -> Part {
        let mut part = Part::default();
        let accepted = self.peers.get(member);
        let Some(accepted) = accepted.filter(|it| it.segment == self.segment.name) else {
            return part;
        };
        if member == self.name {
            return part;
        }
        let mesh = accepted.mesh_addresses.iter();
        let own: Vec<Prefix> = accepted
            .pod_cidrs
            .iter()
            .copied()
            .chain(mesh.map(|&address| Prefix::host(address)))
            .collect();
        // The gateway that the LAN is ordered to sends on what it cannot send itself, with the LAN's addresses.
        let first = self.segment.gateways.first();
        let carries_lan = first.is_some_and(|gateway| gateway.peer == *member);
        let lan = carries_lan.then(|| self.segment.of(&[Class::Lan]));
        let lan = lan.iter().flat_map(PrefixSet::iter);
        let allowed = own.iter().copied().chain(lan).collect();
        let name = DeviceName::inner(rank);
        let member_rank = self.rank_of(self.segment, member);
        let Some((key, peer)) = self.peer(member, name, member_rank, allowed) else {
            return part;
        };
        let hop = [Hop {
            device: name,
            peer: key,
        }];
        for &prefix in &own {
            part.route(TABLE_INNER, prefix, Policy::Sticky, &hop, &[]);
        }
        for prefix in self.mesh_of(member) {
            part.route(TABLE_REMOTE, prefix, Policy::Sticky, &hop, &[]);
        }
        part.peers.push((PathId::new(name, key), peer));
        part
    }

    /// Outer devices: rails to every segment, directly or through the transit site.
    fn outer(&self, draft: &mut Draft, rank: u8, leaves: &[Hop]) {
        for segment in &self.plan.segments {
            if segment.name == self.segment.name {
                continue;
            }
            match self.reach.way(self.segment, segment) {
                Way::Direct => draft.add(self.neighbour(rank, segment, leaves)),
                Way::Through(transit) => {
                    let mut part = Part::default();
                    let rails = self.rails(rank, transit, &PrefixSet::new());
                    let hops: Vec<Hop> = rails.iter().map(Rail::hop).collect();
                    to_segment(&mut part, segment, &hops, leaves);
                    draft.add(part);
                }
                Way::None => {}
            }
        }
    }

    /// Whether ways to other segments lead through this one.
    pub(super) fn is_transit(&self, segment: &Segment) -> bool {
        self.reach.is_transit(segment)
    }

    /// What another segment with rails to its gateways adds to the gateway of `rank`; nothing where there are none.
    pub(super) fn neighbour(&self, rank: u8, segment: &Segment, leaves: &[Hop]) -> Part {
        let mut part = Part::default();
        if segment.name == self.segment.name || self.reach.way(self.segment, segment) != Way::Direct
        {
            return part;
        }
        let rails = self.rails(rank, segment, &self.behind(segment));
        let hops: Vec<Hop> = rails.iter().map(Rail::hop).collect();
        to_segment(&mut part, segment, &hops, leaves);
        for rail in &rails {
            for prefix in self.mesh_of(&rail.gateway.peer) {
                part.route(TABLE_REMOTE, prefix, Policy::Sticky, &[rail.hop()], &[]);
            }
        }
        let devices = segment.gateways.iter();
        part.devices = devices.map(|it| DeviceName::outer(it.rank)).collect();
        let peers = rails.into_iter();
        part.peers = peers.map(|rail| (rail.path, rail.peer)).collect();
        part
    }

    /// What lies behind the gateways of another segment: the segment, and what it carries for others.
    fn behind(&self, segment: &Segment) -> PrefixSet {
        let others = self.plan.segments.iter().filter(|other| {
            let way = || self.reach.way(self.segment, other);
            other.name != self.segment.name
                && matches!(way(), Way::Through(transit) if transit.name == segment.name)
        });
        let carried = self.reach.is_transit(segment).then_some(others);
        let all = std::iter::once(segment).chain(carried.into_iter().flatten());
        all.flat_map(|it| &it.prefixes)
            .map(|it| it.prefix)
            .collect()
    }

    /// Ways to the gateways of another segment whose keys are accepted, in order of rank.
    fn rails<'s>(&self, rank: u8, segment: &'s Segment, allowed: &PrefixSet) -> Vec<Rail<'s>> {
        let rails = segment.gateways.iter().filter_map(|gateway| {
            // On my device of its rank I meet its device of my rank.
            let far = DeviceName::outer(rank);
            let (key, peer) = self.peer(&gateway.peer, far, Some(gateway.rank), allowed.clone())?;
            Some(Rail {
                gateway,
                path: PathId::new(DeviceName::outer(gateway.rank), key),
                peer,
            })
        });
        rails.collect()
    }

    /// Hops to the other gateways of the own segment, which stand in where a gateway has no rail that works.
    pub(super) fn leaf_hops(&self, rank: u8) -> Vec<Hop> {
        self.leaves(Some(rank)).hops()
    }

    /// The device of a VPN that this gateway can terminate, and who of the segment's gateways is to be active.
    fn terminate(&self, draft: &mut Draft, rank: u8, vpn: &PlanVpn) {
        let mut part = Part::default();
        let name = DeviceName::vpn(vpn.index);
        let foreign = ConfigPeer {
            far: Far::Foreign(vpn.name.clone()),
            allowed_ips: vpn.prefixes.clone(),
            endpoints: vpn.endpoint.iter().cloned().collect(),
            keepalive: Some(KEEPALIVE),
            preshared_key: vpn.preshared_key.then(|| vpn.name.clone()),
        };
        draft.device(name, KeySource::Attachment(vpn.name.clone()));
        let path = PathId::new(name, vpn.peer_public_key);
        part.peers.push((path, foreign));
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
            part.route(TABLE_REMOTE, prefix, Policy::Sticky, &candidates, &[]);
        }
        draft.add(part);
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
        draft.config.vpns.push(ConfigVpn {
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

/// One tunnel to a gateway of another segment.
struct Rail<'a> {
    gateway: &'a Gateway,
    path: PathId,
    peer: ConfigPeer,
}

impl Rail<'_> {
    fn hop(&self) -> Hop {
        Hop {
            device: self.path.device,
            peer: self.path.far,
        }
    }
}

/// Routes to what another segment holds.
fn to_segment(part: &mut Part, segment: &Segment, hops: &[Hop], leaves: &[Hop]) {
    for entry in &segment.prefixes {
        let policy = if entry.class.is_multipath() {
            Policy::Multipath
        } else {
            Policy::Ordered
        };
        part.route(TABLE_REMOTE, entry.prefix, policy, hops, leaves);
    }
}
