//! What is not ready in a link, in order of kind and name: the first entries, and how many there are. A status shows a hundred; a
//! cluster can have a hundred times as many, which are counted where they lie.

use std::collections::{BTreeMap, BTreeSet};
use tieline_crds::cluster_link::NotReady;

/// Bound of `status.notReady` in the schema.
const LISTED: usize = 100;

/// What is not ready.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entries {
    /// The first ones.
    pub first: Vec<NotReady>,
    /// How many there are.
    pub total: usize,
    /// Kind and name of those that are not planned nodes.
    others: BTreeSet<(String, String)>,
}

impl Entries {
    /// Entries of planned nodes by name, one map for each cluster, and all others.
    pub(super) fn of<'m>(
        maps: impl Iterator<Item = &'m BTreeMap<String, NotReady>>,
        mut others: Vec<NotReady>,
    ) -> Self {
        sort(&mut others);
        let named = others.iter().map(|it| (it.kind.clone(), it.name.clone()));
        let named = named.collect();
        let (mut first, mut total) = (Vec::new(), 0);
        for map in maps {
            total += map.len();
            first.extend(map.values().take(LISTED).cloned());
            others.retain(|it| !(it.kind == "Node" && map.get(&it.name) == Some(it)));
        }
        total += others.len();
        first.append(&mut others);
        sort(&mut first);
        first.truncate(LISTED);
        Self {
            first,
            total,
            others: named,
        }
    }

    /// Whether a member that is no node has an entry.
    pub(super) fn has(&self, kind: &str, name: &str) -> bool {
        self.others.contains(&(kind.to_owned(), name.to_owned()))
    }

    /// Names of nodes that have an entry without being planned.
    pub(super) fn other_nodes(&self) -> impl Iterator<Item = &str> {
        let nodes = self.others.iter().filter(|(kind, _)| kind == "Node");
        nodes.map(|(_, name)| name.as_str())
    }

    /// The first reasons, in words.
    pub(super) fn reasons(&self) -> String {
        const SHOWN: usize = 5;
        let shown: Vec<String> = self
            .first
            .iter()
            .take(SHOWN)
            .map(|it| format!("{} {}: {}", it.kind, it.name, it.reason))
            .collect();
        match self.total.checked_sub(SHOWN) {
            _ if shown.is_empty() => String::new(),
            None | Some(0) => format!(" ({})", shown.join(", ")),
            Some(more) => format!(" ({} and {more} more)", shown.join(", ")),
        }
    }
}

fn sort(entries: &mut Vec<NotReady>) {
    entries.sort_by(|a, b| {
        (&a.kind, &a.name, &a.reason, &a.message).cmp(&(&b.kind, &b.name, &b.reason, &b.message))
    });
    entries.dedup();
}
