//! Firewall rules written as a ruleset reads: `rules.iif(&underlay).saddr(Planned).not_saddr(Native).drop()`.
//!
//! A line becomes a rule of each family where it speaks of addresses, and no rule where it asks for one of no devices.

use crate::cidr::{Family, PrefixSet};
use crate::host::firewall::{
    Action, AddressSet, Addresses, Connection, Interface, Match, Rule, SetName,
};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The rules of one chain, in order.
pub(super) struct Rules {
    rules: Vec<Rule>,
    families: Vec<Family>,
}

impl Rules {
    /// The rules that `write` says.
    pub(super) fn written(write: impl FnOnce(&mut Self)) -> Vec<Rule> {
        let mut rules = Self {
            rules: Vec::new(),
            families: Family::BOTH.into(),
        };
        write(&mut rules);
        rules.rules
    }

    /// All lines of `write` for IPv4, then all for IPv6, where one line decides over what the next one sees.
    pub(super) fn by_family(&mut self, mut write: impl FnMut(&mut Self, Family)) {
        for family in std::mem::take(&mut self.families) {
            self.families = vec![family];
            write(self, family);
        }
        self.families = Family::BOTH.into();
    }

    /// A line that matches every packet yet.
    pub(super) fn line(&mut self) -> Line<'_> {
        Line {
            families: self.families.clone(),
            rules: &mut self.rules,
            parts: Vec::new(),
            of_addresses: false,
            counter: true,
        }
    }

    /// A line about what came in by one of these.
    pub(super) fn iif(&mut self, devices: &BTreeSet<Interface>) -> Line<'_> {
        self.line().iif(devices)
    }

    /// A line about what goes out by one of these.
    pub(super) fn oif(&mut self, devices: &BTreeSet<Interface>) -> Line<'_> {
        self.line().oif(devices)
    }
}

/// What a line matches, part by part.
enum Part {
    Plain(Match),
    Address(fn(Addresses) -> Match, AddressSet, bool),
    Family,
}

/// A line that is being written; its action ends it.
#[must_use]
pub(super) struct Line<'r> {
    rules: &'r mut Vec<Rule>,
    families: Vec<Family>,
    parts: Vec<Part>,
    of_addresses: bool,
    counter: bool,
}

impl Line<'_> {
    /// Any condition that is of no family.
    pub(super) fn and(mut self, condition: Match) -> Self {
        self.parts.push(Part::Plain(condition));
        self
    }

    pub(super) fn iif(self, devices: &BTreeSet<Interface>) -> Self {
        self.devices(devices).and(Match::In(devices.clone()))
    }

    pub(super) fn oif(self, devices: &BTreeSet<Interface>) -> Self {
        self.devices(devices).and(Match::Out(devices.clone()))
    }

    fn devices(mut self, devices: &BTreeSet<Interface>) -> Self {
        if devices.is_empty() {
            self.families.clear();
        }
        self
    }

    fn address(mut self, of: fn(Addresses) -> Match, set: AddressSet, inside: bool) -> Self {
        self.parts.push(Part::Address(of, set, inside));
        self.of_addresses = true;
        self
    }

    pub(super) fn saddr(self, set: SetName) -> Self {
        self.address(Match::Source, AddressSet::Named(set), true)
    }

    pub(super) fn not_saddr(self, set: SetName) -> Self {
        self.address(Match::Source, AddressSet::Named(set), false)
    }

    pub(super) fn daddr(self, set: SetName) -> Self {
        self.address(Match::Destination, AddressSet::Named(set), true)
    }

    pub(super) fn not_daddr(self, set: SetName) -> Self {
        self.address(Match::Destination, AddressSet::Named(set), false)
    }

    /// The destination of the connection's first packet lies in it.
    pub(super) fn original_daddr(self, set: SetName) -> Self {
        self.address(Match::OriginalDestination, AddressSet::Named(set), true)
    }

    /// The source is one of these.
    pub(super) fn from(self, prefixes: &PrefixSet) -> Self {
        let inline = AddressSet::Inline(prefixes.clone());
        self.only_of(prefixes).address(Match::Source, inline, true)
    }

    /// The destination is one of these.
    pub(super) fn to(self, prefixes: &PrefixSet) -> Self {
        let inline = AddressSet::Inline(prefixes.clone());
        self.only_of(prefixes)
            .address(Match::Destination, inline, true)
    }

    /// In families alone of which `prefixes` has some.
    pub(super) fn only_of(mut self, prefixes: &PrefixSet) -> Self {
        self.families
            .retain(|family| prefixes.of(*family).next().is_some());
        self
    }

    /// The bits of the mask are set in the packet's mark.
    pub(super) fn mark(self, mask: u32) -> Self {
        self.and(Match::Mark { mask, set: true })
    }

    /// The bits of the mask are clear in the packet's mark.
    pub(super) fn not_mark(self, mask: u32) -> Self {
        self.and(Match::Mark { mask, set: false })
    }

    /// The connection is in one of these states.
    pub(super) fn state(self, states: impl Into<BTreeSet<Connection>>) -> Self {
        self.and(Match::Connection(states.into()))
    }

    /// Without a counter.
    pub(super) fn uncounted(mut self) -> Self {
        self.counter = false;
        self
    }

    pub(super) fn drop(self) {
        self.act(|_| Action::Drop);
    }

    pub(super) fn accept(self) {
        self.act(|_| Action::Accept);
    }

    pub(super) fn act(self, action: impl Fn(Family) -> Action) {
        let of_each = if self.of_addresses { usize::MAX } else { 1 };
        for &family in self.families.iter().take(of_each) {
            let matches = self.parts.iter().map(|part| part.of(family)).collect();
            self.rules.push(Rule {
                matches,
                counter: self.counter,
                action: action(family),
            });
        }
    }

    /// The address becomes the source, in packets of its family.
    pub(super) fn source_to(mut self, address: IpAddr) {
        let family = Family::of(address);
        self.families.retain(|own| *own == family);
        self.parts.push(Part::Family);
        self.act(|_| Action::SourceTo(address));
    }
}

impl Part {
    fn of(&self, family: Family) -> Match {
        match self {
            Self::Plain(condition) => condition.clone(),
            Self::Family => Match::Family(family),
            Self::Address(of, set, inside) => of(Addresses {
                family,
                of: match set {
                    AddressSet::Named(name) => AddressSet::Named(*name),
                    AddressSet::Inline(prefixes) => {
                        AddressSet::Inline(prefixes.of(family).collect())
                    }
                },
                inside: *inside,
            }),
        }
    }
}
