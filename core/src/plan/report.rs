//! What could not be done, as data. Sorted and without duplicates, so that the same trouble gives the same report.

use crate::ids::LinkName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What could not be done, as data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanReport {
    /// What the user must change.
    pub refusals: Vec<Notice>,
    /// What is expected to come, and what it waits for.
    pub waiting: Vec<Notice>,
    /// For links with mode Plan: what would change, in words.
    pub withheld: BTreeMap<LinkName, Vec<String>>,
}

/// One thing that could not be done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Notice {
    /// Kind of the object concerned: ClusterLink, Cluster, Site, VpnAttachment, Node, AddressLedger.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The link concerned, when it is known.
    pub link: Option<LinkName>,
    /// One CamelCase word for machines.
    pub reason: String,
    /// A sentence for people: what is wrong, where, what would help. Stable: no times, sorted lists.
    pub message: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: {}: {}",
            self.kind, self.name, self.reason, self.message
        )
    }
}

/// The report while it is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reporter {
    refusals: BTreeSet<Notice>,
    waiting: BTreeSet<Notice>,
}

impl Reporter {
    /// Something that the user must change.
    pub(super) fn refuse(
        &mut self,
        kind: &str,
        name: &str,
        link: Option<&LinkName>,
        reason: &str,
        message: String,
    ) {
        self.refusals
            .insert(notice(kind, name, link, reason, message));
    }

    /// Something that is expected to come.
    pub(super) fn wait(
        &mut self,
        kind: &str,
        name: &str,
        link: Option<&LinkName>,
        reason: &str,
        message: String,
    ) {
        self.waiting
            .insert(notice(kind, name, link, reason, message));
    }

    /// What another part of the planner has to say.
    pub(super) fn add(&mut self, other: &Self) {
        self.refusals.extend(other.refusals.iter().cloned());
        self.waiting.extend(other.waiting.iter().cloned());
    }

    /// The report.
    pub(super) fn finish(self) -> PlanReport {
        PlanReport {
            refusals: self.refusals.into_iter().collect(),
            waiting: self.waiting.into_iter().collect(),
            withheld: BTreeMap::new(),
        }
    }
}

fn notice(
    kind: &str,
    name: &str,
    link: Option<&LinkName>,
    reason: &str,
    message: String,
) -> Notice {
    Notice {
        kind: kind.to_owned(),
        name: name.to_owned(),
        link: link.cloned(),
        reason: reason.to_owned(),
        message,
    }
}

/// A list for people: the first few in order, and how many more there are.
#[must_use]
pub fn listed<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 5;
    let all: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match all.len().checked_sub(SHOWN) {
        None | Some(0) => all.join(", "),
        Some(more) => format!("{} and {more} more", all[..SHOWN].join(", ")),
    }
}
