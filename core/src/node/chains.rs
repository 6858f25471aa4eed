//! The firewall's rules, from the symbolic sets of a configuration and the host's facts.
//!
//! Every chain only ever drops, counts or keeps; it never opens what another table closed. Device classes are exact sets
//! of names: a wildcard `tie*` would match outer, inner and VPN devices alike.

use super::LocalFacts;
use super::config::{ConfigFirewall, ConfigVpn, NodeConfig};
use super::rules::{Line, Rules};
use crate::cidr::{Family, Prefix, PrefixSet};
use crate::host::firewall::SetName::{
    Allowed, Known, Lan, Native, Own, Planned, Services, Site, Stateful, Transit,
};
use crate::host::firewall::{
    Action, Chain, ChainKind, ChainName, Connection, Hook, Interface, Match, Rule, Ruleset, Set,
    SetName, Table, TableFamily,
};
use crate::host::{DeviceKind, DeviceName};
use std::collections::BTreeSet;
use std::net::Ipv6Addr;

/// Mark that kube-proxy puts on what it wants translated.
const MASQUERADE_MARK: u32 = 0x4000;
/// ICMP and ICMPv6, by number: names need /etc/protocols, and without it the whole table fails to load.
const ICMP: [u8; 2] = [1, 58];

/// All tables. `active`: indexes of the VPNs that this node is active for. `devices`: the devices that run.
/// `bypass`: further addresses that are reached on the underlay.
pub(super) fn ruleset(
    config: &NodeConfig,
    facts: &LocalFacts,
    active: &BTreeSet<usize>,
    devices: BTreeSet<DeviceName>,
    bypass: &PrefixSet,
) -> Ruleset {
    let of_kind = |kind| {
        let chosen = devices.iter().filter(move |device| device.kind == kind);
        chosen.map(|&device| Interface::from(device)).collect()
    };
    let own_rank = config.firewall.rank;
    let leaf =
        |device: &&DeviceName| device.kind == DeviceKind::Inner && Some(device.rank()) != own_rank;
    let writer = Writer {
        config,
        sets: &config.firewall,
        native: config.firewall.set(Native).union(bypass),
        // A standby sees one direction of a connection only, so it must not track it.
        stateful: config
            .vpns
            .iter()
            .zip(0..)
            .filter(|(_, index)| active.contains(index))
            .fold(config.firewall.set(Stateful).clone(), |all, (vpn, _)| {
                all.union(&vpn.prefixes)
            }),
        vpns: config
            .vpns
            .iter()
            .filter(|vpn| devices.contains(&vpn.device))
            .collect(),
        // A name that nft cannot quote is left to the guard of the routes.
        underlay: facts
            .underlay
            .keys()
            .filter_map(|name| Interface::new(name.as_str()).ok())
            .collect(),
        outer: of_kind(DeviceKind::Outer),
        leaf: devices
            .iter()
            .filter(leaf)
            .map(|&device| Interface::from(device))
            .collect(),
        tunnels: devices
            .iter()
            .map(|&device| Interface::from(device))
            .collect(),
        fwmark: facts.fwmark,
    };
    let mut tables = vec![writer.inet()];
    if facts.netdev_egress {
        tables.push(writer.netdev());
    }
    Ruleset { tables }
}

struct Writer<'a> {
    config: &'a NodeConfig,
    sets: &'a ConfigFirewall,
    native: PrefixSet,
    stateful: PrefixSet,
    vpns: Vec<&'a ConfigVpn>,
    underlay: BTreeSet<Interface>,
    outer: BTreeSet<Interface>,
    leaf: BTreeSet<Interface>,
    tunnels: BTreeSet<Interface>,
    fwmark: u32,
}

impl Writer<'_> {
    fn inet(&self) -> Table {
        use ChainKind::{Filter, Nat};
        let chain = |name, kind, hook, priority, rules| Chain {
            name,
            kind,
            hook,
            priority,
            rules,
        };
        Table {
            family: TableFamily::Inet,
            sets: self.inet_sets(),
            chains: vec![
                chain(
                    ChainName::RawPre,
                    Filter,
                    Hook::Prerouting,
                    -450,
                    self.raw_pre(),
                ),
                chain(ChainName::Mss, Filter, Hook::Forward, -150, self.mss()),
                chain(ChainName::Forw, Filter, Hook::Forward, -10, self.forw()),
                chain(ChainName::Outp, Filter, Hook::Output, -10, self.outp()),
                chain(ChainName::Inp, Filter, Hook::Input, -10, self.inp()),
                chain(
                    ChainName::NatPost,
                    Nat,
                    Hook::Postrouting,
                    90,
                    self.nat_post(),
                ),
                chain(ChainName::Leak, Filter, Hook::Postrouting, 300, self.leak()),
            ],
        }
    }

    /// The kernel fills the sets of a new ruleset one after the other while its rules are in force already (seen on 6.18). What
    /// lets packets pass comes first, and what keeps them in last: the guard's routes hold meanwhile.
    fn inet_sets(&self) -> Vec<Set> {
        let mut sets = Vec::new();
        let mut add = |name: SetName, elements: &PrefixSet| sets.extend(of_both(name, elements));
        add(Known, self.sets.set(Planned));
        add(Native, &self.native);
        add(Own, self.sets.set(Own));
        add(Lan, self.sets.set(Lan));
        if self.is_gateway() {
            add(Stateful, &self.stateful);
            add(Site, self.sets.set(Site));
            add(Services, self.sets.set(Services));
        }
        if self.carries_transit() {
            let groups = self.sets.transit.values();
            add(Transit, &groups.flat_map(PrefixSet::iter).collect());
        }
        for vpn in &self.vpns {
            add(Allowed(vpn.device.index), &vpn.allow);
        }
        add(Planned, self.sets.set(Planned));
        sets
    }

    fn is_gateway(&self) -> bool {
        self.sets.rank.is_some()
    }

    /// Whether sites reach each other through this gateway; the segments of one site do so by themselves.
    fn carries_transit(&self) -> bool {
        self.sets.transit.len() > 1
    }

    fn raw_pre(&self) -> Vec<Rule> {
        Rules::written(|r| {
            r.iif(&self.underlay)
                .saddr(Planned)
                .not_saddr(Native)
                .drop();
            if self.is_gateway() {
                r.iif(&self.underlay)
                    .not_saddr(Site)
                    .daddr(Planned)
                    .not_daddr(Native)
                    .drop();
                // Two rails are two paths, and a reply may take the other: tracking would call it invalid.
                r.line()
                    .saddr(Known)
                    .daddr(Known)
                    .not_saddr(Stateful)
                    .not_daddr(Stateful)
                    .and(Match::NotLocal)
                    .act(|_| Action::Notrack);
            }
        })
    }

    fn mss(&self) -> Vec<Rule> {
        Rules::written(|r| {
            for line in [Rules::oif, Rules::iif] {
                line(r, &self.tunnels)
                    .and(Match::TcpSyn)
                    .uncounted()
                    .act(|_| Action::ClampMss);
            }
        })
    }

    fn forw(&self) -> Vec<Rule> {
        Rules::written(|r| {
            self.forw_transit(r);
            // kube-proxy may choose a pod in another segment for a service that this gateway delivers.
            r.iif(&self.outer)
                .oif(&self.outer)
                .only_of(self.sets.set(Services))
                .original_daddr(Services)
                .accept();
            r.iif(&self.outer).oif(&self.outer).drop();
            r.iif(&self.leaf).oif(&self.outer).drop();
            r.iif(&self.tunnels).oif(&self.leaf).drop();
            for vpn in &self.vpns {
                let (device, allowed) = terminal(vpn);
                r.by_family(|r, _| {
                    r.iif(&device).not_daddr(allowed).drop();
                    r.oif(&device).not_saddr(allowed).drop();
                });
            }
            self.forw_underlay(r);
        })
    }

    /// Segments behind NAT reach each other through this gateway; those of one site do so by themselves.
    fn forw_transit(&self, r: &mut Rules) {
        if !self.carries_transit() {
            return;
        }
        r.by_family(|r, _| {
            for group in self.sets.transit.values() {
                let line = r.iif(&self.outer).oif(&self.outer);
                line.from(group).to(group).drop();
            }
            let line = r.iif(&self.outer).oif(&self.outer);
            line.saddr(Transit).daddr(Transit).accept();
        });
    }

    fn forw_underlay(&self, r: &mut Rules) {
        let (underlay, tunnels) = (&self.underlay, &self.tunnels);
        // A NodePort of this host whose pod is elsewhere: kube-proxy marks the first packet alone, and answers come back this way.
        for (from, out) in [(underlay, tunnels), (tunnels, underlay)] {
            r.iif(from)
                .oif(out)
                .state([Connection::Established])
                .and(Match::Translated)
                .accept();
        }
        r.by_family(|r, _| {
            // What enters from the site's own network is its exported range, or was translated by kube-proxy.
            r.iif(underlay)
                .oif(tunnels)
                .not_mark(MASQUERADE_MARK)
                .not_saddr(Lan)
                .drop();
            r.iif(tunnels)
                .oif(underlay)
                .only_of(self.sets.set(Lan))
                .daddr(Lan)
                .accept();
        });
        r.iif(tunnels).oif(underlay).drop();
        r.oif(underlay).daddr(Planned).not_daddr(Native).drop();
    }

    fn outp(&self) -> Vec<Rule> {
        Rules::written(|r| {
            if !self.vpns.is_empty() {
                r.line().mark(self.fwmark).uncounted().accept();
            }
            for vpn in &self.vpns {
                let (device, allowed) = terminal(vpn);
                r.oif(&device).not_saddr(allowed).drop();
            }
        })
    }

    fn inp(&self) -> Vec<Rule> {
        use Connection::{Established, Related};
        Rules::written(|r| {
            for vpn in &self.vpns {
                let (device, allowed) = terminal(vpn);
                r.iif(&device).not_daddr(allowed).drop();
            }
            let known = r.iif(&self.tunnels).state([Established, Related]);
            known.uncounted().accept();
            let icmp = r.iif(&self.tunnels).and(Match::Protocol(ICMP.into()));
            icmp.uncounted().accept();
            r.iif(&self.tunnels)
                .only_of(self.sets.set(Services))
                .original_daddr(Services)
                .accept();
            r.iif(&self.tunnels).drop();
        })
    }

    fn nat_post(&self) -> Vec<Rule> {
        Rules::written(|r| {
            for &address in self.config.mesh.values() {
                let marked = r.oif(&self.tunnels).mark(MASQUERADE_MARK);
                marked.source_to(address);
            }
            // The first verdict wins, so the CNI's masquerade behind this chain never applies between segments.
            r.by_family(|r, _| {
                fn planned(r: &mut Rules) -> Line<'_> {
                    r.line().saddr(Known).daddr(Known).not_mark(MASQUERADE_MARK)
                }
                planned(r).not_saddr(Own).act(Action::SourceKept);
                planned(r).not_daddr(Own).act(Action::SourceKept);
            });
            for &address in self.config.mesh.values() {
                r.oif(&self.tunnels).source_to(address);
            }
        })
    }

    fn leak(&self) -> Vec<Rule> {
        Rules::written(|r| {
            // The host's own packets too, and here, not in `outp`: a service's packet is given its new destination in that hook, and
            // there its device is still the one on the way to the service's address.
            r.line()
                .not_mark(self.fwmark)
                .oif(&self.underlay)
                .daddr(Planned)
                .not_daddr(Native)
                .drop();
            // A TUN device emits these by itself; they mean nothing.
            let link_local = r.oif(&self.tunnels).from(&ipv6(0xfe80, 10));
            link_local.uncounted().drop();
            let multicast = r.oif(&self.tunnels).to(&ipv6(0xff00, 8));
            multicast.uncounted().drop();
            r.oif(&self.tunnels).not_saddr(Known).drop();
        })
    }

    fn netdev(&self) -> Table {
        let chains = self.underlay.iter().zip(0..).map(|(device, number)| Chain {
            name: ChainName::Egress(number),
            kind: ChainKind::Filter,
            hook: Hook::Egress(device.clone()),
            priority: 0,
            rules: Rules::written(|r| {
                r.line().mark(self.fwmark).uncounted().accept();
                r.by_family(|r, _| {
                    r.line().daddr(Native).uncounted().accept();
                    r.line().daddr(Planned).drop();
                });
            }),
        });
        // What keeps packets in comes last here too.
        let sets = of_both(Native, &self.native).chain(of_both(Planned, self.sets.set(Planned)));
        Table {
            family: TableFamily::Netdev,
            sets: sets.collect(),
            chains: chains.collect(),
        }
    }
}

/// A set of each family.
fn of_both(name: SetName, elements: &PrefixSet) -> impl Iterator<Item = Set> {
    Family::BOTH.into_iter().map(move |family| Set {
        name,
        family,
        elements: elements.of(family).collect(),
    })
}

/// The device of a VPN that ends here, and the set of what it may talk to.
fn terminal(vpn: &ConfigVpn) -> (BTreeSet<Interface>, SetName) {
    let device = BTreeSet::from([Interface::from(vpn.device)]);
    (device, Allowed(vpn.device.index))
}

fn ipv6(first: u16, len: u8) -> PrefixSet {
    let address = Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0);
    [Prefix::containing(address.into(), len)]
        .into_iter()
        .collect()
}
