//! Collects what could not be done. Sorted and without duplicates, so that the same trouble gives the same report.

use super::{Notice, PlanReport};
use crate::ids::LinkName;
use std::collections::{BTreeMap, BTreeSet};

/// The report while it is made.
#[derive(Debug, Default)]
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
