//! What stands against what: everything that could not be done, by the object and by the link that it concerns, so that no
//! question about one object walks all notices. Pure.

use crate::restore::LEDGER_FROZEN;
use std::collections::BTreeMap;
use tieline_core::ids::LinkName;
use tieline_core::plan::Notice;
use tieline_crds::convert::Invalid;

/// Kind and name of an object.
type Object = (String, String);

/// Everything that could not be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objections {
    invalid: BTreeMap<(&'static str, String), Invalid>,
    refused: BTreeMap<Object, Vec<Notice>>,
    first: BTreeMap<Object, Notice>,
    of_links: BTreeMap<LinkName, Vec<(Notice, bool)>>,
    unlinked: Vec<Notice>,
}

impl Objections {
    /// Sorts what was found: `own` by this program, `refusals` and `waiting` by the planner.
    #[must_use]
    pub fn of(
        invalid: &[Invalid],
        own: &[Notice],
        refusals: &[Notice],
        waiting: &[Notice],
    ) -> Self {
        let mut found = Self::default();
        for it in invalid {
            let object = (it.kind, it.name.clone());
            found.invalid.entry(object).or_insert_with(|| it.clone());
        }
        let own = own.iter().map(|it| (it, it.reason != LEDGER_FROZEN));
        let refusals = refusals.iter().map(|it| (it, true));
        let waiting = waiting.iter().map(|it| (it, false));
        for (notice, is_refusal) in own.chain(refusals).chain(waiting) {
            let object = (notice.kind.clone(), notice.name.clone());
            if is_refusal {
                let of_object = found.refused.entry(object.clone()).or_default();
                of_object.push(notice.clone());
            }
            found.first.entry(object).or_insert_with(|| notice.clone());
            match &notice.link {
                Some(link) => {
                    let of_link = found.of_links.entry(link.clone()).or_default();
                    of_link.push((notice.clone(), is_refusal));
                }
                None if is_refusal => found.unlinked.push(notice.clone()),
                None => {}
            }
        }
        found
    }

    /// Why an object cannot be read.
    #[must_use]
    pub fn invalid(&self, kind: &'static str, name: &str) -> Option<&Invalid> {
        self.invalid.get(&(kind, name.to_owned()))
    }

    /// What a user must change about an object.
    #[must_use]
    pub fn refusals(&self, kind: &str, name: &str) -> &[Notice] {
        self.refused
            .get(&(kind.to_owned(), name.to_owned()))
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// The first thing that could not be done about an object.
    #[must_use]
    pub fn first(&self, kind: &str, name: &str) -> Option<&Notice> {
        self.first.get(&(kind.to_owned(), name.to_owned()))
    }

    /// What could not be done about a link's members, and of it what a user must change.
    pub fn of_link(&self, link: &LinkName) -> impl Iterator<Item = (&Notice, bool)> {
        let of_link = self.of_links.get(link).into_iter().flatten();
        of_link
            .filter(|(notice, _)| notice.kind != "ClusterLink")
            .map(|(notice, is_refusal)| (notice, *is_refusal))
    }

    /// What a user must change that belongs to no link.
    pub fn of_no_link(&self) -> impl Iterator<Item = &Notice> {
        let unlinked = self.unlinked.iter();
        unlinked.filter(|notice| notice.kind != "ClusterLink")
    }
}
