//! What stands against what: everything that could not be done, by the object and by the link that it concerns, so that no
//! question about one object walks all notices. Pure.

use std::collections::BTreeMap;
use tieline_core::ids::LinkName;
use tieline_core::notice::{About, Kind, Notice};
use tieline_crds::convert::Invalid;

/// Kind and name of an object, which is asked for by its name alone.
type Object = (Kind, String);

/// Everything that could not be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objections {
    unread: BTreeMap<Object, Notice>,
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
        for notice in invalid.iter().map(Notice::from) {
            found.unread.entry(object(&notice)).or_insert(notice);
        }
        let own = own.iter().map(|it| (it, it.reason.asks_for_a_change()));
        let refusals = refusals.iter().map(|it| (it, true));
        let waiting = waiting.iter().map(|it| (it, false));
        for (notice, is_refusal) in own.chain(refusals).chain(waiting) {
            let object = object(notice);
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
    pub fn unread(&self, kind: Kind, name: &str) -> Option<&Notice> {
        self.unread.get(&(kind, name.to_owned()))
    }

    /// What a user must change about an object.
    #[must_use]
    pub fn refusals(&self, kind: Kind, name: &str) -> &[Notice] {
        self.refused
            .get(&(kind, name.to_owned()))
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// The first thing that could not be done about an object.
    #[must_use]
    pub fn first(&self, kind: Kind, name: &str) -> Option<&Notice> {
        self.first.get(&(kind, name.to_owned()))
    }

    /// What could not be done about a link's members, and of it what a user must change.
    pub fn of_link(&self, link: &LinkName) -> impl Iterator<Item = (&Notice, bool)> {
        let of_link = self.of_links.get(link).into_iter().flatten();
        of_link
            .filter(|(notice, _)| !is_about_a_link(notice))
            .map(|(notice, is_refusal)| (notice, *is_refusal))
    }

    /// What a user must change that belongs to no link.
    pub fn of_no_link(&self) -> impl Iterator<Item = &Notice> {
        let unlinked = self.unlinked.iter();
        unlinked.filter(|notice| !is_about_a_link(notice))
    }
}

fn object(notice: &Notice) -> Object {
    (notice.about.kind(), notice.about.name().into_owned())
}

/// Whether a link itself is concerned, rather than one of its members.
fn is_about_a_link(notice: &Notice) -> bool {
    matches!(notice.about, About::ClusterLink(_))
}
