//! Walks a packet through resolved hosts: rules, tables, tunnels and firewalls, over every path that it may take.
//!
//! The main table of these hosts is what a CNI leaves there: own pods are local, the segment's other pods are reached by
//! the CNI, everything else takes the default route, which is the underlay in clear.

use crate::fleet::World;
use std::collections::BTreeMap;
use std::net::IpAddr;
use tieline_core::cidr::{Family, Prefix, PrefixSet};
use tieline_core::host::firewall::{
    Action, AddressSet, Addresses, Chain, ChainName, Interface, Match, Rule, Ruleset, SetName,
    Table,
};
use tieline_core::host::{
    Device, DeviceName, HostState, RouteKey, Selector, TABLE_GUARD, TABLE_INNER, TABLE_MAIN,
    TABLE_REMOTE, Target,
};
use tieline_core::ids::PeerName;
use tieline_core::keys::PublicKey;

/// Most nodes on one path: own, gateway, co-gateway, transit, gateway, co-gateway, far node.
const MAX_HOPS: usize = 8;

/// All nodes' resolved hosts.
pub(crate) struct Network<'a> {
    pub(crate) world: &'a World,
    pub(crate) hosts: &'a BTreeMap<PeerName, HostState>,
    /// A node that takes nothing.
    pub(crate) dead: Option<&'a PeerName>,
    by_key: BTreeMap<PublicKey, Vec<(&'a PeerName, DeviceName)>>,
}

/// Where one path ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// In a pod of this node.
    Pod(PeerName),
    /// At this node itself.
    Host(PeerName),
    /// With the CNI, on the way to another node of the own segment.
    Cni,
    /// On the underlay, in clear.
    Clear(PeerName),
    /// At a foreign box.
    Foreign(DeviceName),
    /// Dropped, with the reason.
    Dropped(String),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
}

impl<'a> Network<'a> {
    pub(crate) fn new(world: &'a World, hosts: &'a BTreeMap<PeerName, HostState>) -> Self {
        let mut by_key: BTreeMap<PublicKey, Vec<(&PeerName, DeviceName)>> = BTreeMap::new();
        for (name, host) in hosts {
            for (device, wireguard) in &host.devices {
                by_key
                    .entry(wireguard.public_key)
                    .or_default()
                    .push((name, *device));
            }
        }
        Self {
            world,
            hosts,
            dead: None,
            by_key,
        }
    }

    /// Every end that the packet may meet, starting at a node: from a pod or the host (`None`), or out of a tunnel.
    pub(crate) fn ends(&self, at: &PeerName, from: Option<DeviceName>, packet: Packet) -> Vec<End> {
        let mut ends = Vec::new();
        self.step(at, from, packet, &mut Vec::new(), &mut ends);
        ends.sort();
        ends.dedup();
        ends
    }

    /// Whether a packet of this node would leave it in clear: one step is enough.
    pub(crate) fn leaks(&self, at: &PeerName, packet: Packet) -> bool {
        let clear = matches!(self.route(at, None, packet), Routed::Default | Routed::Cni);
        clear && matches!(self.leave(at, None, "eth0", packet, End::Cni), End::Cni)
    }

    fn step(
        &self,
        at: &PeerName,
        from: Option<DeviceName>,
        packet: Packet,
        path: &mut Vec<PeerName>,
        ends: &mut Vec<End>,
    ) {
        if self.dead == Some(at) {
            ends.push(End::Dropped(format!("{at} is dead")));
            return;
        }
        if path.len() > MAX_HOPS {
            ends.push(End::Dropped(format!("loop: {path:?}")));
            return;
        }
        let host = &self.hosts[at];
        let accepted = &self.world.peers[at];
        if accepted.mesh_addresses.contains(&packet.destination) {
            ends.push(
                match self.filter(host, ChainName::Inp, from, None, packet) {
                    Verdict::Drop => End::Dropped(format!("input of {at}")),
                    Verdict::Accept => End::Host(at.clone()),
                },
            );
            return;
        }
        match self.route(at, from, packet) {
            Routed::Unreachable(table) => {
                ends.push(End::Dropped(format!("unreachable in {table} at {at}")))
            }
            Routed::Local => ends.push(self.leave(at, from, "cni0", packet, End::Pod(at.clone()))),
            // An overlay's device, which no rule closes: what gets as far as this leaves.
            Routed::Cni => ends.push(self.leave(at, from, "flannel.1", packet, End::Cni)),
            Routed::Default => {
                ends.push(self.leave(at, from, "eth0", packet, End::Clear(at.clone())))
            }
            Routed::Tunnels(devices) => {
                for device in devices {
                    let name = device.to_string();
                    match self.leave(at, from, &name, packet, End::Foreign(device)) {
                        End::Foreign(_) => {
                            path.push(at.clone());
                            self.tunnel(at, device, packet, path, ends);
                            path.pop();
                        }
                        dropped => ends.push(dropped),
                    }
                }
            }
        }
    }

    fn leave(
        &self,
        at: &PeerName,
        from: Option<DeviceName>,
        out: &str,
        packet: Packet,
        end: End,
    ) -> End {
        let host = &self.hosts[at];
        let through_tunnel = from.is_some() || out.starts_with("tie");
        match self.filter(host, ChainName::Forw, from, Some(out), packet) {
            Verdict::Drop => End::Dropped(format!("forward of {at} from {from:?} to {out}")),
            Verdict::Accept
                if self.filter(host, ChainName::Leak, None, Some(out), packet) == Verdict::Drop =>
            {
                End::Dropped(format!("leak chain of {at}"))
            }
            // Behind our translation comes the CNI's masquerade: what ours does not settle, that one would.
            Verdict::Accept
                if through_tunnel
                    && self.source(host, from, out, packet)
                        != Some(Action::SourceKept(Family::of(packet.source))) =>
            {
                End::Dropped(format!("source lost at {at} from {from:?} to {out}"))
            }
            Verdict::Accept => end,
        }
    }

    /// Into a device: the peer whose allowed IPs hold the destination; out of the far device, if that one allows the source.
    fn tunnel(
        &self,
        at: &PeerName,
        device: DeviceName,
        packet: Packet,
        path: &mut Vec<PeerName>,
        ends: &mut Vec<End>,
    ) {
        let own: &Device = &self.hosts[at].devices[&device];
        let holders: Vec<_> = own
            .peers
            .iter()
            .filter(|(_, peer)| peer.allowed_ips.contains_address(packet.destination))
            .collect();
        let [(key, peer)] = holders[..] else {
            ends.push(End::Dropped(format!(
                "{} peers of {device} at {at} hold {}",
                holders.len(),
                packet.destination
            )));
            return;
        };
        let Some(far) = self.by_key.get(key) else {
            ends.push(End::Foreign(device));
            return;
        };
        for (name, far_device) in far {
            let theirs = &self.hosts[*name].devices[far_device];
            let Some(back) = theirs.peers.get(&own.public_key) else {
                ends.push(End::Dropped(format!(
                    "{far_device} of {name} does not know {device} of {at}"
                )));
                continue;
            };
            if let Some(endpoint) = peer.endpoint {
                assert_eq!(
                    endpoint.port(),
                    theirs.port,
                    "{device} of {at} to {far_device} of {name}"
                );
            }
            if peer.endpoint.is_none() && back.endpoint.is_none() {
                ends.push(End::Dropped(format!(
                    "neither {at} nor {name} can speak first"
                )));
            } else if !back.allowed_ips.contains_address(packet.source) {
                ends.push(End::Dropped(format!(
                    "{far_device} of {name} does not take {} from {at}",
                    packet.source
                )));
            } else {
                self.step(name, Some(*far_device), packet, path, ends);
            }
        }
    }

    fn route(&self, at: &PeerName, from: Option<DeviceName>, packet: Packet) -> Routed {
        let host = &self.hosts[at];
        let family = Family::of(packet.destination);
        for rule in host.rules.iter().filter(|rule| rule.family == family) {
            let applies = match &rule.selector {
                Selector::All => true,
                Selector::Mark { .. } => false,
                Selector::From(device) => from == Some(*device),
                Selector::To(prefix) => prefix.contains_address(packet.destination),
            };
            if !applies {
                continue;
            }
            if rule.table == TABLE_MAIN {
                let (routed, len) = self.main(at, packet);
                if len > rule.suppress_prefix_len.unwrap_or(0) {
                    return routed;
                }
                continue;
            }
            assert!([TABLE_REMOTE, TABLE_GUARD, TABLE_INNER].contains(&rule.table));
            match lookup(host, rule.table, packet.destination) {
                None | Some(Target::Throw) => {}
                Some(Target::Unreachable) => return Routed::Unreachable(rule.table),
                Some(Target::Devices(devices)) => return Routed::Tunnels(devices.clone()),
            }
        }
        self.main(at, packet).0
    }

    /// The main table as a CNI with routes between nodes leaves it, and the length of the prefix that matched.
    fn main(&self, at: &PeerName, packet: Packet) -> (Routed, u8) {
        let holder = self.world.peers.iter().find_map(|(name, peer)| {
            let mut pods = peer.pod_cidrs.iter();
            Some((
                name,
                peer,
                pods.find(|prefix| prefix.contains_address(packet.destination))?,
            ))
        });
        let cluster = &self.world.peers[at].cluster;
        match holder {
            Some((name, _, prefix)) if name == at => (Routed::Local, prefix.len()),
            // A CNI knows every node of its cluster, also those in other sites.
            Some((_, peer, prefix)) if peer.cluster == *cluster => {
                if peer.site == self.world.peers[at].site {
                    (Routed::Cni, prefix.len())
                } else {
                    (Routed::Default, prefix.len())
                }
            }
            _ => (Routed::Default, 0),
        }
    }

    fn filter(
        &self,
        host: &HostState,
        chain: ChainName,
        from: Option<DeviceName>,
        out: Option<&str>,
        packet: Packet,
    ) -> Verdict {
        let ruleset: &Ruleset = host.firewall.as_ref().unwrap();
        let table = &ruleset.tables[0];
        let chain = table
            .chains
            .iter()
            .find(|found| found.name == chain)
            .unwrap();
        match first(table, chain, from, out, packet) {
            Some(Action::Drop) => Verdict::Drop,
            _ => Verdict::Accept,
        }
    }

    /// What becomes of the source on the way out; `None`: what the tables behind ours decide.
    fn source(
        &self,
        host: &HostState,
        from: Option<DeviceName>,
        out: &str,
        packet: Packet,
    ) -> Option<Action> {
        let table = &host.firewall.as_ref().unwrap().tables[0];
        let chain = table
            .chains
            .iter()
            .find(|found| found.name == ChainName::NatPost)?;
        first(table, chain, from, Some(out), packet)
    }
}

fn lookup(host: &HostState, table: u32, destination: IpAddr) -> Option<&Target> {
    let matching = host
        .routes
        .iter()
        .filter(|(key, _)| key.table == table && key.prefix.contains_address(destination));
    let rank = |key: &RouteKey| (key.prefix.len(), std::cmp::Reverse(key.metric));
    matching
        .max_by_key(|(key, _)| rank(key))
        .map(|(_, route)| &route.target)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Routed {
    Unreachable(u32),
    Local,
    Cni,
    Default,
    Tunnels(Vec<DeviceName>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Accept,
    Drop,
}

/// The verdict on a new TCP connection's first packet, without a mark, in one chain.
fn first(
    table: &Table,
    chain: &Chain,
    from: Option<DeviceName>,
    out: Option<&str>,
    packet: Packet,
) -> Option<Action> {
    let from = from.map_or_else(|| "cni0".to_owned(), |device| device.to_string());
    let passes = |rule: &&Rule| {
        let mut conditions = rule.matches.iter();
        conditions.all(|condition| holds(table, condition, &from, out, packet))
    };
    let verdicts = chain
        .rules
        .iter()
        .filter(|rule| !matches!(rule.action, Action::Notrack | Action::ClampMss));
    verdicts.into_iter().find(passes).map(|rule| rule.action)
}

fn holds(table: &Table, condition: &Match, from: &str, out: Option<&str>, packet: Packet) -> bool {
    let among = |devices: &std::collections::BTreeSet<Interface>, name: &str| {
        devices.iter().any(|device| device.to_string() == name)
    };
    match condition {
        Match::In(devices) => among(devices, from),
        Match::Out(devices) => out.is_some_and(|out| among(devices, out)),
        Match::Family(family) => Family::of(packet.source) == *family,
        Match::Source(addresses) => inside(table, addresses, packet.source),
        Match::Destination(addresses) | Match::OriginalDestination(addresses) => {
            inside(table, addresses, packet.destination)
        }
        Match::Mark { set, .. } => !set,
        Match::Connection(_) | Match::Translated => false,
        Match::Protocol(numbers) => numbers.contains(&6),
        Match::TcpSyn | Match::NotLocal => true,
    }
}

fn inside(table: &Table, addresses: &Addresses, address: IpAddr) -> bool {
    if Family::of(address) != addresses.family {
        return false;
    }
    let set: &PrefixSet = match &addresses.of {
        AddressSet::Named(name) => named(table, *name, addresses.family),
        AddressSet::Inline(prefixes) => prefixes,
    };
    set.contains(Prefix::host(address)) == addresses.inside
}

fn named(table: &Table, name: SetName, family: Family) -> &PrefixSet {
    let found = table
        .sets
        .iter()
        .find(|set| set.name == name && set.family == family);
    &found
        .unwrap_or_else(|| panic!("rule names a set {name} that the table does not have"))
        .elements
}
