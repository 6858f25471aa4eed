//! Prints a ruleset as `nft -f -` reads it.

use super::{
    Action, AddressSet, Addresses, Chain, ChainKind, ChainName, Connection, Hook, Interface, Match,
    Rule, Ruleset, Set, SetName, Table, TableFamily,
};
use crate::cidr::{Family, Prefix};
use std::collections::BTreeSet;
use std::fmt::{self, Write};

impl Ruleset {
    /// The script that replaces our tables by this ruleset in one transaction of `nft -f -`.
    ///
    /// A table is added, deleted and defined anew, which works whether it was there or not.
    #[must_use]
    pub fn script(&self) -> String {
        script(self)
    }

    /// The script that turns tables as `before` describes them into these, when only elements of sets differ: then nothing else
    /// is touched, counters go on, and no set is empty for a moment, as those of a new table are.
    #[must_use]
    pub fn update_script(&self, before: &Self) -> Option<String> {
        update(before, self)
    }

    /// The script that removes our tables, whether they are there or not. `netdev`: also the table of egress guards.
    #[must_use]
    pub fn removal_script(netdev: bool) -> String {
        removal(netdev)
    }
}

fn script(ruleset: &Ruleset) -> String {
    let mut text = String::new();
    for table in &ruleset.tables {
        let family = table.family;
        text.push_str(&clear(family));
        let _ = write!(text, "{table}");
    }
    text
}

fn update(before: &Ruleset, after: &Ruleset) -> Option<String> {
    let mut filled = before.clone();
    let sets = filled.tables.iter_mut().flat_map(|table| &mut table.sets);
    let wanted = after.tables.iter().flat_map(|table| &table.sets);
    for (set, wanted) in sets.zip(wanted) {
        set.elements.clone_from(&wanted.elements);
    }
    if filled != *after {
        return None;
    }
    let mut text = String::new();
    for (old, new) in before.tables.iter().zip(&after.tables) {
        let sets = old.sets.iter().zip(&new.sets);
        for (old, new_set) in sets.filter(|(old, new)| old != new) {
            let family = new_set.family;
            let name = format!("{} tieline {}{}", new.family, new_set.name, digit(family));
            let [was, is] = [old, new_set].map(|set| set.elements.of(family).collect());
            let [was, is]: [BTreeSet<Prefix>; 2] = [was, is];
            // What stays is not written: a packet that is looked up just then would not find it.
            for (change, elements) in [("delete", &was - &is), ("add", &is - &was)] {
                if !elements.is_empty() {
                    let elements = list(elements);
                    let _ = writeln!(text, "{change} element {name} {{ {elements} }}");
                }
            }
        }
    }
    Some(text)
}

fn removal(netdev: bool) -> String {
    let mut text = clear(TableFamily::Inet);
    if netdev {
        text.push_str(&clear(TableFamily::Netdev));
    }
    text
}

fn clear(family: TableFamily) -> String {
    format!("table {family} tieline\ndelete table {family} tieline\n")
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Netdev => "netdev",
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} tieline {{", self.family)?;
        for set in &self.sets {
            set.fmt(f)?;
        }
        for chain in &self.chains {
            chain.fmt(f)?;
        }
        f.write_str("}\n")
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Planned => "planned",
            Self::Known => "known",
            Self::Native => "native",
            Self::Stateful => "stateful",
            Self::Own => "own",
            Self::Site => "site",
            Self::Lan => "lan",
            Self::Services => "services",
            Self::Transit => "transit",
            Self::Allowed(index) => return write!(f, "allowed{index}_"),
        })
    }
}

fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

fn protocol(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        };
        writeln!(f, "\tset {}{} {{", self.name, digit(self.family))?;
        writeln!(f, "\t\ttype {kind}; flags interval;")?;
        // An empty list of elements is a syntax error.
        if self.elements.of(self.family).next().is_some() {
            writeln!(
                f,
                "\t\telements = {{ {} }}",
                list(self.elements.of(self.family))
            )?;
        }
        f.write_str("\t}\n")
    }
}

fn list(prefixes: impl IntoIterator<Item = Prefix>) -> String {
    let texts: Vec<String> = prefixes
        .into_iter()
        .map(|prefix| prefix.to_string())
        .collect();
    texts.join(", ")
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RawPre => "raw_pre",
            Self::Mss => "mss",
            Self::Forw => "forw",
            Self::Outp => "outp",
            Self::Inp => "inp",
            Self::NatPost => "nat_post",
            Self::Leak => "leak",
            Self::Egress(number) => return write!(f, "egress{number}"),
        })
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        };
        writeln!(f, "\tchain {} {{", self.name)?;
        writeln!(
            f,
            "\t\ttype {kind} hook {} priority {}; policy accept;",
            self.hook, self.priority
        )?;
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        f.write_str("\t}\n")
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Egress(device) => return write!(f, "egress device \"{device}\""),
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        if self.counter {
            f.write_str("counter ")?;
        }
        self.action.fmt(f)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(devices) => write!(f, "iifname {}", names(devices)),
            Self::Out(devices) => write!(f, "oifname {}", names(devices)),
            Self::Family(Family::V4) => f.write_str("meta nfproto ipv4"),
            Self::Family(Family::V6) => f.write_str("meta nfproto ipv6"),
            Self::Source(addresses) => {
                write!(f, "{} saddr {addresses}", protocol(addresses.family))
            }
            Self::Destination(addresses) => {
                write!(f, "{} daddr {addresses}", protocol(addresses.family))
            }
            Self::OriginalDestination(addresses) => write!(
                f,
                "ct original {} daddr {addresses}",
                protocol(addresses.family)
            ),
            Self::Mark { mask, set } => {
                let value = if *set { *mask } else { 0 };
                write!(f, "meta mark & {mask:#x} == {value:#x}")
            }
            Self::Connection(states) => {
                let words: Vec<&str> = states
                    .iter()
                    .map(|state| match state {
                        Connection::Established => "established",
                        Connection::Related => "related",
                    })
                    .collect();
                write!(f, "ct state {{ {} }}", words.join(", "))
            }
            Self::Translated => f.write_str("ct status dnat"),
            Self::Protocol(numbers) => {
                let words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                write!(f, "meta l4proto {{ {} }}", words.join(", "))
            }
            Self::TcpSyn => f.write_str("meta l4proto 6 tcp flags & (syn | rst) == syn"),
            Self::NotLocal => f.write_str("fib daddr type != local"),
        }
    }
}

fn names(devices: &BTreeSet<Interface>) -> String {
    let words: Vec<String> = devices
        .iter()
        .map(|device| format!("\"{device}\""))
        .collect();
    format!("{{ {} }}", words.join(", "))
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.inside {
            f.write_str("!= ")?;
        }
        match &self.of {
            AddressSet::Named(name) => write!(f, "@{name}{}", digit(self.family)),
            AddressSet::Inline(prefixes) => write!(f, "{{ {} }}", list(prefixes.of(self.family))),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Notrack => f.write_str("notrack"),
            Self::ClampMss => f.write_str("tcp option maxseg size set rt mtu"),
            Self::SourceTo(address) => {
                write!(f, "snat {} to {address}", protocol(Family::of(*address)))
            }
            Self::SourceKept(family) => {
                let protocol = protocol(*family);
                write!(f, "snat {protocol} to {protocol} saddr")
            }
        }
    }
}
