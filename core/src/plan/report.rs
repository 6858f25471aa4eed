//! What could not be done, as data. Sorted and without duplicates, so that the same trouble gives the same report.

use crate::ids::LinkName;
use crate::notice::{About, Notice, Reason};
use std::collections::{BTreeMap, BTreeSet};

/// What could not be done, as data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanReport {
    /// What the user must change.
    pub refusals: Vec<Notice>,
    /// What is expected to come, and what it waits for.
    pub waiting: Vec<Notice>,
    /// For links with mode Plan: what would change, in words.
    pub withheld: BTreeMap<LinkName, Vec<String>>,
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
        about: About,
        link: Option<&LinkName>,
        reason: Reason,
        message: String,
    ) {
        self.refusals.insert(notice(about, link, reason, message));
    }

    /// Something that is expected to come.
    pub(super) fn wait(
        &mut self,
        about: About,
        link: Option<&LinkName>,
        reason: Reason,
        message: String,
    ) {
        self.waiting.insert(notice(about, link, reason, message));
    }

    /// Whether there is nothing to say.
    pub(super) fn is_empty(&self) -> bool {
        self.refusals.is_empty() && self.waiting.is_empty()
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

fn notice(about: About, link: Option<&LinkName>, reason: Reason, message: String) -> Notice {
    Notice {
        about,
        link: link.cloned(),
        reason,
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
