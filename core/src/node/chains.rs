//! The firewall's rules, from the symbolic sets of a configuration and the host's facts.
//!
//! Every chain only ever drops, counts or keeps; it never opens what another table closed. Device classes are exact sets
//! of names: a wildcard `tie*` would match outer, inner and VPN devices alike.

use super::LocalFacts;
use super::config::{ConfigFirewall, ConfigVpn, NodeConfig};
use crate::cidr::{Family, PrefixSet};
use crate::host::firewall::{
    Action, AddressSet, Addresses, Chain, ChainKind, ChainName, Connection, Hook, Interface, Match,
    Rule, Ruleset, Set, SetName, Table, TableFamily,
};
use crate::host::{DeviceKind, DeviceName};
use std::collections::BTreeSet;

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
        native: config.firewall.native.union(bypass),
        // A standby sees one direction of a connection only, so it must not track it.
        stateful: config
            .vpns
            .iter()
            .zip(0..)
            .filter(|(_, index)| active.contains(index))
            .fold(config.firewall.stateful.clone(), |all, (vpn, _)| {
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
        let mut sets: Vec<Set> = Vec::new();
        let mut add = |name: SetName, elements: &PrefixSet| {
            for family in Family::BOTH {
                sets.push(Set {
                    name,
                    family,
                    elements: elements.of(family).collect(),
                });
            }
        };
        // The kernel fills the sets of a new ruleset one after the other while its rules are in force already (seen on 6.18). What
        // lets packets pass comes first, and what keeps them in last: the guard's routes hold meanwhile.
        add(SetName::Known, &self.sets.planned);
        add(SetName::Native, &self.native);
        add(SetName::Own, &self.sets.own);
        add(SetName::Lan, &self.sets.lan);
        if self.sets.rank.is_some() {
            add(SetName::Stateful, &self.stateful);
            add(SetName::Site, &self.sets.site);
            add(SetName::Services, &self.sets.services);
        }
        if self.sets.transit.len() > 1 {
            add(SetName::Transit, &self.transit());
        }
        for vpn in &self.vpns {
            add(SetName::Allowed(vpn.device.index), &vpn.allow);
        }
        add(SetName::Planned, &self.sets.planned);
        let filter = ChainKind::Filter;
        let chains = vec![
            chain(
                ChainName::RawPre,
                filter,
                Hook::Prerouting,
                -450,
                self.raw_pre(),
            ),
            chain(ChainName::Mss, filter, Hook::Forward, -150, self.mss()),
            chain(ChainName::Forw, filter, Hook::Forward, -10, self.forw()),
            chain(ChainName::Outp, filter, Hook::Output, -10, self.outp()),
            chain(ChainName::Inp, filter, Hook::Input, -10, self.inp()),
            chain(
                ChainName::NatPost,
                ChainKind::Nat,
                Hook::Postrouting,
                90,
                self.nat_post(),
            ),
            chain(ChainName::Leak, filter, Hook::Postrouting, 300, self.leak()),
        ];
        Table {
            family: TableFamily::Inet,
            sets,
            chains,
        }
    }

    fn transit(&self) -> PrefixSet {
        self.sets
            .transit
            .values()
            .flat_map(PrefixSet::iter)
            .collect()
    }

    fn raw_pre(&self) -> Vec<Rule> {
        let mut rules = Rules::default();
        if !self.underlay.is_empty() {
            let from = || Match::In(self.underlay.clone());
            for family in Family::BOTH {
                rules.count_drop(vec![
                    from(),
                    source(family, SetName::Planned),
                    source_not(family, SetName::Native),
                ]);
            }
            if self.sets.rank.is_some() {
                for family in Family::BOTH {
                    rules.count_drop(vec![
                        from(),
                        source_not(family, SetName::Site),
                        destination(family, SetName::Planned),
                        destination_not(family, SetName::Native),
                    ]);
                }
            }
        }
        // Two rails are two paths, and a reply may take the other: tracking would call it invalid.
        if self.sets.rank.is_some() {
            for family in Family::BOTH {
                rules.put(
                    vec![
                        source(family, SetName::Known),
                        destination(family, SetName::Known),
                        source_not(family, SetName::Stateful),
                        destination_not(family, SetName::Stateful),
                        Match::NotLocal,
                    ],
                    true,
                    Action::Notrack,
                );
            }
        }
        rules.0
    }

    fn mss(&self) -> Vec<Rule> {
        let mut rules = Rules::default();
        if !self.tunnels.is_empty() {
            for way in [Match::Out, Match::In] {
                let matches = vec![way(self.tunnels.clone()), Match::TcpSyn];
                rules.put(matches, false, Action::ClampMss);
            }
        }
        rules.0
    }

    fn forw(&self) -> Vec<Rule> {
        let mut rules = Rules::default();
        let outer_to_outer = || {
            vec![
                Match::In(self.outer.clone()),
                Match::Out(self.outer.clone()),
            ]
        };
        if !self.outer.is_empty() {
            self.forw_transit(&mut rules, &outer_to_outer);
            self.forw_services(&mut rules, &outer_to_outer);
            rules.count_drop(outer_to_outer());
        }
        if !self.leaf.is_empty() {
            if !self.outer.is_empty() {
                rules.count_drop(vec![
                    Match::In(self.leaf.clone()),
                    Match::Out(self.outer.clone()),
                ]);
            }
            rules.count_drop(vec![
                Match::In(self.tunnels.clone()),
                Match::Out(self.leaf.clone()),
            ]);
        }
        for vpn in &self.vpns {
            let device = || BTreeSet::from([Interface::from(vpn.device)]);
            let allowed = SetName::Allowed(vpn.device.index);
            for family in Family::BOTH {
                rules.count_drop(vec![Match::In(device()), destination_not(family, allowed)]);
                rules.count_drop(vec![Match::Out(device()), source_not(family, allowed)]);
            }
        }
        if !self.underlay.is_empty() {
            self.forw_underlay(&mut rules);
        }
        rules.0
    }

    /// Segments behind NAT reach each other through this gateway; those of one site do so by themselves.
    fn forw_transit(&self, rules: &mut Rules, outer_to_outer: &dyn Fn() -> Vec<Match>) {
        if self.sets.transit.len() < 2 {
            return;
        }
        for family in Family::BOTH {
            for group in self.sets.transit.values() {
                let inside: PrefixSet = group.of(family).collect();
                if !inside.is_empty() {
                    let inline = |of: &PrefixSet| Addresses {
                        family,
                        of: AddressSet::Inline(of.clone()),
                        inside: true,
                    };
                    let mut matches = outer_to_outer();
                    matches.push(Match::Source(inline(&inside)));
                    matches.push(Match::Destination(inline(&inside)));
                    rules.count_drop(matches);
                }
            }
            let mut matches = outer_to_outer();
            matches.push(source(family, SetName::Transit));
            matches.push(destination(family, SetName::Transit));
            rules.put(matches, true, Action::Accept);
        }
    }

    /// kube-proxy may choose a pod in another segment for a service that this gateway delivers.
    fn forw_services(&self, rules: &mut Rules, outer_to_outer: &dyn Fn() -> Vec<Match>) {
        for family in Family::BOTH {
            if self.sets.services.of(family).next().is_some() {
                let mut matches = outer_to_outer();
                matches.push(original(family, SetName::Services));
                rules.put(matches, true, Action::Accept);
            }
        }
    }

    fn forw_underlay(&self, rules: &mut Rules) {
        let to = || Match::Out(self.underlay.clone());
        if !self.tunnels.is_empty() {
            // A NodePort of this host whose pod is elsewhere: kube-proxy marks the first packet alone, and answers come back this way.
            let tunnels = || self.tunnels.clone();
            let underlay = || self.underlay.clone();
            for (from, out) in [(underlay(), tunnels()), (tunnels(), underlay())] {
                let known = BTreeSet::from([Connection::Established]);
                let matches = vec![
                    Match::In(from),
                    Match::Out(out),
                    Match::Connection(known),
                    Match::Translated,
                ];
                rules.put(matches, true, Action::Accept);
            }
            for family in Family::BOTH {
                // What enters from the site's own network is its exported range, or was translated by kube-proxy.
                rules.count_drop(vec![
                    Match::In(self.underlay.clone()),
                    Match::Out(self.tunnels.clone()),
                    Match::Mark {
                        mask: MASQUERADE_MARK,
                        set: false,
                    },
                    source_not(family, SetName::Lan),
                ]);
                if self.sets.lan.of(family).next().is_some() {
                    let matches = vec![
                        Match::In(self.tunnels.clone()),
                        to(),
                        destination(family, SetName::Lan),
                    ];
                    rules.put(matches, true, Action::Accept);
                }
            }
            rules.count_drop(vec![Match::In(self.tunnels.clone()), to()]);
        }
        for family in Family::BOTH {
            rules.count_drop(vec![
                to(),
                destination(family, SetName::Planned),
                destination_not(family, SetName::Native),
            ]);
        }
    }

    fn outp(&self) -> Vec<Rule> {
        let mut rules = Rules::default();
        if self.vpns.is_empty() {
            return rules.0;
        }
        rules.put(vec![self.encrypted()], false, Action::Accept);
        for vpn in &self.vpns {
            for family in Family::BOTH {
                rules.count_drop(vec![
                    Match::Out(BTreeSet::from([Interface::from(vpn.device)])),
                    source_not(family, SetName::Allowed(vpn.device.index)),
                ]);
            }
        }
        rules.0
    }

    fn encrypted(&self) -> Match {
        Match::Mark {
            mask: self.fwmark,
            set: true,
        }
    }

    fn inp(&self) -> Vec<Rule> {
        let mut rules = Rules::default();
        if self.tunnels.is_empty() {
            return rules.0;
        }
        let from = || Match::In(self.tunnels.clone());
        for vpn in &self.vpns {
            for family in Family::BOTH {
                rules.count_drop(vec![
                    Match::In(BTreeSet::from([Interface::from(vpn.device)])),
                    destination_not(family, SetName::Allowed(vpn.device.index)),
                ]);
            }
        }
        let known = BTreeSet::from([Connection::Established, Connection::Related]);
        rules.put(
            vec![from(), Match::Connection(known)],
            false,
            Action::Accept,
        );
        rules.put(
            vec![from(), Match::Protocol(BTreeSet::from(ICMP))],
            false,
            Action::Accept,
        );
        for family in Family::BOTH {
            if self.sets.services.of(family).next().is_some() {
                let matches = vec![from(), original(family, SetName::Services)];
                rules.put(matches, true, Action::Accept);
            }
        }
        rules.count_drop(vec![from()]);
        rules.0
    }

    fn nat_post(&self) -> Vec<Rule> {
        let mut rules = Rules::default();
        let out = || Match::Out(self.tunnels.clone());
        let mark = |set| Match::Mark {
            mask: MASQUERADE_MARK,
            set,
        };
        if !self.tunnels.is_empty() {
            for &address in self.config.mesh.values() {
                let matches = vec![out(), mark(true), of_family(Family::of(address))];
                rules.put(matches, true, Action::SourceTo(address));
            }
        }
        // The first verdict wins, so the CNI's masquerade behind this chain never applies between segments.
        for family in Family::BOTH {
            let planned = || {
                vec![
                    source(family, SetName::Known),
                    destination(family, SetName::Known),
                    mark(false),
                ]
            };
            for far in [
                source_not(family, SetName::Own),
                destination_not(family, SetName::Own),
            ] {
                let mut matches = planned();
                matches.push(far);
                rules.put(matches, true, Action::SourceKept(family));
            }
        }
        if !self.tunnels.is_empty() {
            for &address in self.config.mesh.values() {
                let matches = vec![out(), of_family(Family::of(address))];
                rules.put(matches, true, Action::SourceTo(address));
            }
        }
        rules.0
    }

    fn leak(&self) -> Vec<Rule> {
        let mut rules = Rules::default();
        // The host's own packets too, and here, not in `outp`: a service's packet is given its new destination in that hook, and
        // there its device is still the one on the way to the service's address.
        if !self.underlay.is_empty() {
            for family in Family::BOTH {
                rules.count_drop(vec![
                    Match::Mark {
                        mask: self.fwmark,
                        set: false,
                    },
                    Match::Out(self.underlay.clone()),
                    destination(family, SetName::Planned),
                    destination_not(family, SetName::Native),
                ]);
            }
        }
        if self.tunnels.is_empty() {
            return rules.0;
        }
        let out = || Match::Out(self.tunnels.clone());
        let inline = |text: [u16; 1], len| {
            let address = std::net::Ipv6Addr::new(text[0], 0, 0, 0, 0, 0, 0, 0).into();
            Addresses {
                family: Family::V6,
                of: AddressSet::Inline(
                    [crate::cidr::Prefix::containing(address, len)]
                        .into_iter()
                        .collect(),
                ),
                inside: true,
            }
        };
        // A TUN device emits these by itself; they mean nothing.
        rules.put(
            vec![out(), Match::Source(inline([0xfe80], 10))],
            false,
            Action::Drop,
        );
        rules.put(
            vec![out(), Match::Destination(inline([0xff00], 8))],
            false,
            Action::Drop,
        );
        for family in Family::BOTH {
            rules.count_drop(vec![out(), source_not(family, SetName::Known)]);
        }
        rules.0
    }

    fn netdev(&self) -> Table {
        let mut sets = Vec::new();
        for (name, elements) in [
            (SetName::Native, &self.native),
            // Last, as above.
            (SetName::Planned, &self.sets.planned),
        ] {
            for family in Family::BOTH {
                sets.push(Set {
                    name,
                    family,
                    elements: elements.of(family).collect(),
                });
            }
        }
        let chains = self.underlay.iter().zip(0..).map(|(device, number)| {
            let mut rules = Rules::default();
            rules.put(vec![self.encrypted()], false, Action::Accept);
            for family in Family::BOTH {
                rules.put(
                    vec![destination(family, SetName::Native)],
                    false,
                    Action::Accept,
                );
                rules.count_drop(vec![destination(family, SetName::Planned)]);
            }
            chain(
                ChainName::Egress(number),
                ChainKind::Filter,
                Hook::Egress(device.clone()),
                0,
                rules.0,
            )
        });
        Table {
            family: TableFamily::Netdev,
            sets,
            chains: chains.collect(),
        }
    }
}

#[derive(Default)]
struct Rules(Vec<Rule>);

impl Rules {
    fn put(&mut self, matches: Vec<Match>, counter: bool, action: Action) {
        self.0.push(Rule {
            matches,
            counter,
            action,
        });
    }

    fn count_drop(&mut self, matches: Vec<Match>) {
        self.put(matches, true, Action::Drop);
    }
}

fn chain(name: ChainName, kind: ChainKind, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain {
        name,
        kind,
        hook,
        priority,
        rules,
    }
}

fn named(family: Family, set: SetName, inside: bool) -> Addresses {
    Addresses {
        family,
        of: AddressSet::Named(set),
        inside,
    }
}

fn source(family: Family, set: SetName) -> Match {
    Match::Source(named(family, set, true))
}

fn source_not(family: Family, set: SetName) -> Match {
    Match::Source(named(family, set, false))
}

fn destination(family: Family, set: SetName) -> Match {
    Match::Destination(named(family, set, true))
}

fn destination_not(family: Family, set: SetName) -> Match {
    Match::Destination(named(family, set, false))
}

fn original(family: Family, set: SetName) -> Match {
    Match::OriginalDestination(named(family, set, true))
}

fn of_family(family: Family) -> Match {
    Match::Family(family)
}
