//! What is not ready in a link, in order of kind and name: the first entries, and how many there are. A status shows a hundred; a
//! cluster can have a hundred times as many, which are counted where they lie.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use tieline_core::ids::{NodeId, NodeName};
use tieline_core::notice::{About, Kind, Notice, Reason};

/// Bound of `status.notReady` in the schema.
const LISTED: usize = 100;

/// What is not ready.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entries {
    /// The first ones.
    pub first: Vec<Notice>,
    /// How many there are.
    pub total: usize,
    /// What those are about that are not planned nodes.
    others: BTreeSet<About>,
}

impl Entries {
    /// Entries of planned nodes by name, one map for each cluster, and all others.
    pub(super) fn of<'m>(
        maps: impl Iterator<Item = &'m BTreeMap<NodeName, Notice>>,
        mut others: Vec<Notice>,
    ) -> Self {
        sort(&mut others);
        let about = others.iter().map(|it| it.about.clone()).collect();
        let (mut first, mut total) = (Vec::new(), 0);
        for map in maps {
            total += map.len();
            first.extend(map.values().take(LISTED).cloned());
            others.retain(|it| match &it.about {
                About::Node(id) => map.get(&id.node).is_none_or(|own| read(own) != read(it)),
                _ => true,
            });
        }
        total += others.len();
        first.append(&mut others);
        sort(&mut first);
        first.truncate(LISTED);
        Self {
            first,
            total,
            others: about,
        }
    }

    /// Whether a member that is no node has an entry.
    pub(super) fn has(&self, member: &About) -> bool {
        self.others.contains(member)
    }

    /// Nodes that have an entry without being planned.
    pub(super) fn other_nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.others.iter().filter_map(|about| match about {
            About::Node(id) => Some(id),
            _ => None,
        })
    }

    /// The first reasons, in words.
    pub(super) fn reasons(&self) -> String {
        const SHOWN: usize = 5;
        let shown: Vec<String> = self
            .first
            .iter()
            .take(SHOWN)
            .map(|it| format!("{}: {}", it.about, it.reason))
            .collect();
        match self.total.checked_sub(SHOWN) {
            _ if shown.is_empty() => String::new(),
            None | Some(0) => format!(" ({})", shown.join(", ")),
            Some(more) => format!(" ({} and {more} more)", shown.join(", ")),
        }
    }
}

fn sort(entries: &mut Vec<Notice>) {
    entries.sort_by(|a, b| read(a).cmp(&read(b)));
    entries.dedup_by(|a, b| read(a) == read(b));
}

/// All that an entry of a status says; the link is the same for all.
fn read(notice: &Notice) -> (Kind, Cow<'_, str>, Reason, &str) {
    let about = &notice.about;
    (about.kind(), about.name(), notice.reason, &notice.message)
}
