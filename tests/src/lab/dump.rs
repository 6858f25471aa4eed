//! What a node's kernel holds, as text that compares: counters, ages and interface numbers are
//! left out, so that two dumps are equal exactly when the state is.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::Result;

use super::netns::NetNs;

/// A node's network state by area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dump {
    areas: BTreeMap<&'static str, Vec<String>>,
}

/// Area name and the command that shows it. Areas whose order has no meaning are sorted.
const COMMANDS: [(&str, bool, &str, &[&str]); 9] = [
    ("links", true, "ip", &["-d", "-o", "link", "show"]),
    ("addresses", true, "ip", &["-o", "addr", "show"]),
    ("rules IPv4", false, "ip", &["-4", "rule", "show"]),
    ("rules IPv6", false, "ip", &["-6", "rule", "show"]),
    (
        "routes IPv4",
        true,
        "ip",
        &["-4", "-d", "route", "show", "table", "all"],
    ),
    (
        "routes IPv6",
        true,
        "ip",
        &["-6", "-d", "route", "show", "table", "all"],
    ),
    ("next hops", true, "ip", &["nexthop", "show"]),
    ("nft", false, "nft", &["-s", "list", "ruleset"]),
    ("xfrm", false, "ip", &["xfrm", "policy"]),
];

/// What changes by itself below `/proc/sys/net`.
const MEASURED: [&str; 1] = ["netfilter/nf_conntrack_count"];

impl Dump {
    pub(super) fn take(ns: &NetNs) -> Result<Self> {
        let mut areas = BTreeMap::new();
        for (area, sorted, program, args) in COMMANDS {
            let mut lines: Vec<String> = ns
                .cmd(program, args)?
                .lines()
                .map(|line| normal(area, line))
                .filter(|line| !line.is_empty())
                .collect();
            if sorted {
                lines.sort();
            }
            if area == "nft" {
                lines = by_table(lines);
            }
            areas.insert(area, lines);
        }
        areas.insert("sysctls", ns.run(|| Ok(settings()))?);
        Ok(Self { areas })
    }

    /// Adds an area that is read by other means.
    pub(crate) fn add(&mut self, area: &'static str, lines: Vec<String>) {
        self.areas.insert(area, lines);
    }

    /// The lines of one area: `links`, `addresses`, `rules IPv4`, `routes IPv6`, `nft`, `sysctls` …
    #[must_use]
    pub fn area(&self, name: &str) -> &[String] {
        self.areas.get(name).map_or(&[], Vec::as_slice)
    }

    /// All lines that hold `word`, for "nothing of ours is left".
    #[must_use]
    pub fn mentions(&self, word: &str) -> Vec<String> {
        let all = self
            .areas
            .iter()
            .flat_map(|(area, lines)| lines.iter().map(move |line| (area, line)));
        all.filter(|(_, line)| line.contains(word))
            .map(|(area, line)| format!("{area}: {line}"))
            .collect()
    }

    /// What differs from `later`: `-` for lines that are gone, `+` for new ones; where no line is, that their order or count
    /// does. Empty means equal.
    #[must_use]
    pub fn diff(&self, later: &Self) -> Vec<String> {
        let mut out = Vec::new();
        for (area, before) in &self.areas {
            let after = later.area(area);
            let found = out.len();
            out.extend(
                before
                    .iter()
                    .filter(|line| !after.contains(line))
                    .map(|line| format!("{area}: -{line}")),
            );
            out.extend(
                after
                    .iter()
                    .filter(|line| !before.contains(line))
                    .map(|line| format!("{area}: +{line}")),
            );
            if out.len() == found && before != after {
                out.push(format!("{area}: order or count differs"));
            }
        }
        out
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (area, lines) in &self.areas {
            writeln!(f, "# {area}")?;
            for line in lines {
                writeln!(f, "{line}")?;
            }
        }
        Ok(())
    }
}

/// The tables in the order of their names, each as it is: one that is deleted and made again comes last, and means the same.
fn by_table(lines: Vec<String>) -> Vec<String> {
    let mut tables: Vec<Vec<String>> = Vec::new();
    // nft's warning stands before the table that it is about, and says nothing of the state.
    let state = |line: &String| !line.starts_with("# Warning: table ");
    for line in lines.into_iter().filter(state) {
        match tables.last_mut() {
            Some(table) if !line.starts_with("table ") => table.push(line),
            _ => tables.push(vec![line]),
        }
    }
    tables.sort_by(|one, other| one.first().cmp(&other.first()));
    tables.into_iter().flatten().collect()
}

/// Drops what changes by itself: interface numbers, MAC addresses, byte counts and life times.
fn normal(area: &str, line: &str) -> String {
    let line = line.replace('\\', " ");
    let mut words = Vec::new();
    let mut rest = line.split_whitespace().peekable();
    if matches!(area, "links" | "addresses")
        && let Some(first) = rest.peek()
        && first
            .strip_suffix(':')
            .is_some_and(|number| number.parse::<u32>().is_ok())
    {
        rest.next();
    }
    while let Some(word) = rest.next() {
        match word {
            // The next word is a number of no meaning, or what a moment's settling changes.
            "packets" | "bytes" | "expires" | "handle" | "link-netnsid" | "link-netns"
            | "bridge_id" | "designated_root" | "root_id" | "designated_bridge" | "numtxqueues"
            | "numrxqueues" | "link/ether" | "parentdev" | "age" => {
                rest.next();
            }
            "state" if area == "links" => {
                rest.next();
            }
            timer if timer.ends_with("_timer") => {
                rest.next();
            }
            _ => words.push(word.split("@if").next().unwrap_or(word).to_owned()),
        }
    }
    let text = words.join(" ");
    // Link-local addresses follow from MAC addresses, which are drawn anew.
    if text.contains("fe80::") && !text.starts_with("fe80::/64") {
        String::new()
    } else {
        text
    }
}

/// Every setting of the network that can be read.
fn settings() -> Vec<String> {
    let root = Path::new("/proc/sys/net");
    let mut folders = vec![root.to_owned()];
    let mut lines = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.strip_prefix(root).unwrap_or(&path).display();
            if path.is_dir() {
                folders.push(path);
            } else if !MEASURED.contains(&name.to_string().as_str())
                && let Ok(value) = std::fs::read_to_string(&path)
            {
                lines.push(format!("{name} = {}", value.trim()));
            }
        }
    }
    lines.sort();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(lines: &[&str]) -> Dump {
        let lines = lines.iter().map(|&line| line.to_owned()).collect();
        Dump {
            areas: BTreeMap::from([("nft", by_table(lines))]),
        }
    }

    #[test]
    fn dumps_differ_by_lines_by_order_and_by_count() {
        let before = dump(&["table ip a {", "accept", "drop", "}"]);
        for (later, told) in [
            (vec!["table ip a {", "accept", "drop", "}"], vec![]),
            (vec!["table ip a {", "accept", "}"], vec!["nft: -drop"]),
            (
                vec!["table ip a {", "drop", "accept", "}"],
                vec!["nft: order or count differs"],
            ),
            (
                vec!["table ip a {", "accept", "accept", "drop", "}"],
                vec!["nft: order or count differs"],
            ),
        ] {
            let later = dump(&later);
            assert_eq!(before.diff(&later), told);
            assert_eq!(before == later, told.is_empty());
        }
    }

    #[test]
    fn tables_are_compared_in_any_order() {
        let one = dump(&["table ip a {", "x", "}", "table inet b {", "y", "}"]);
        let other = dump(&["table inet b {", "y", "}", "table ip a {", "x", "}"]);
        assert_eq!(one, other);
    }
}
