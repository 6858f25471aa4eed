//! The page on troubleshooting beside what the programs say: its last table is made of the reasons that a notice can have, and
//! whatever the page explains is something that a program gives.
//!
//! All words are closed sets: [`Reason`] for notices, and those of [`tieline_crds::condition`].

use super::cell;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use tieline_core::notice::Reason;
use tieline_crds::condition::{ObjectCondition, Occurrence, PeerCondition, Standing};

/// The page.
pub(super) const PAGE: &str = "docs/troubleshooting.md";
const BEGIN: &str =
    "<!-- Every reason: written by `make docs` from core/src/notice/reason.rs -->\n";
const END: &str = "<!-- the end of every reason -->\n";

/// The page, with its last table as it should be.
///
/// # Errors
/// When the page has no place for the table, or a reason is explained in no section.
pub(super) fn page(root: &Path) -> Result<String> {
    let text = fs::read_to_string(root.join(PAGE)).with_context(|| format!("reading {PAGE}"))?;
    let (written, rest) = text
        .split_once(BEGIN)
        .with_context(|| format!("{PAGE} lacks the line {BEGIN}"))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("{PAGE} lacks the line {END}"))?;
    let table = table(&sections(written))?;
    Ok(format!("{written}{BEGIN}{table}{END}{after}"))
}

/// Compares the words of the page with those of the programs.
///
/// # Errors
/// When one explains what the other does not give; the message names all of it.
pub(super) fn check(root: &Path) -> Result<()> {
    let page = fs::read_to_string(root.join(PAGE))?;
    let unknown = unknown(&page);
    if !unknown.is_empty() {
        bail!(
            "{PAGE} explains reasons that no program gives: {}",
            unknown.join(", ")
        );
    }
    let unexplained = unexplained(&page);
    if !unexplained.is_empty() {
        bail!("{PAGE} does not explain: {}", unexplained.join(", "));
    }
    Ok(())
}

/// A part of the page under one heading.
struct Section<'p> {
    title: &'p str,
    body: &'p str,
}

impl Section<'_> {
    /// Whether one of its tables has a row for a reason.
    fn has_row_for(&self, reason: Reason) -> bool {
        in_rows(self.body).any(|word| word == reason.as_str())
    }

    /// Whether it speaks of a reason.
    fn names(&self, reason: Reason) -> bool {
        self.body.contains(&format!("`{reason}`"))
    }

    /// Where a link leads to it.
    fn anchor(&self) -> String {
        let lower = self.title.to_lowercase();
        let kept = lower
            .chars()
            .filter(|letter| letter.is_alphanumeric() || *letter == ' ');
        kept.collect::<String>().replace(' ', "-")
    }
}

fn sections(page: &str) -> Vec<Section<'_>> {
    let parts = page.split("\n## ").skip(1);
    let parts = parts.filter_map(|part| part.split_once('\n'));
    parts.map(|(title, body)| Section { title, body }).collect()
}

/// A row for each reason: what it says, and the section that has a row for it, or speaks of it.
fn table(sections: &[Section<'_>]) -> Result<String> {
    let mut rows = "| reason | what it says | explained in |\n|---|---|---|\n".to_owned();
    let mut lacking = Vec::new();
    for reason in Reason::ALL.iter().copied() {
        let row = sections.iter().find(|it| it.has_row_for(reason));
        let section = row.or_else(|| sections.iter().find(|it| it.names(reason)));
        match section {
            Some(section) => writeln!(
                rows,
                "| `{reason}` | {} | [{}](#{}) |",
                cell(reason.meaning()),
                section.title,
                section.anchor()
            )?,
            None => lacking.push(reason.as_str()),
        }
    }
    if !lacking.is_empty() {
        bail!("{PAGE} explains in no section: {}", lacking.join(", "));
    }
    Ok(rows)
}

/// Words in the tables of the page that no program gives.
fn unknown(page: &str) -> Vec<&str> {
    let notices = Reason::ALL.iter().map(|it| it.as_str());
    let given: BTreeSet<&str> = notices.chain(standings()).chain(types()).collect();
    let found: BTreeSet<&str> = in_rows(page).filter(|word| !given.contains(word)).collect();
    found.into_iter().collect()
}

/// Words that only a condition or an Event has, and the page does not name. Those of notices have to be there for the table.
fn unexplained(page: &str) -> Vec<&'static str> {
    let lacks = |word: &&str| !page.contains(&format!("`{word}`"));
    standings().filter(lacks).collect()
}

/// Every reason that only a condition or an Event has.
fn standings() -> impl Iterator<Item = &'static str> {
    let conditions = Standing::ALL.iter().map(|it| it.as_str());
    let events = Occurrence::ALL.iter().map(|it| it.as_str());
    conditions.chain(events)
}

/// Every type of a condition.
fn types() -> impl Iterator<Item = &'static str> {
    let objects = ObjectCondition::ALL.iter().map(|it| it.as_str());
    let peers = PeerCondition::ALL.iter().map(|it| it.as_str());
    objects.chain(peers)
}

/// The words in the first cells of tables.
fn in_rows(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| line.starts_with("| "))
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|word| is_word(word))
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_uppercase())
        && text.chars().all(char::is_alphanumeric)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_reason_leads_to_the_section_that_has_a_row_for_it() {
        let page = "# Page\n\n## Words\n\n`NoSite` is a word.\n\n## Nodes, but\n\n| a | b |\n|---|---|\n| Node: `NoSite` | x |\n";
        let sections = sections(page);
        let row = sections.iter().find(|it| it.has_row_for(Reason::NoSite));
        assert_eq!(row.unwrap().anchor(), "nodes-but");
        assert!(sections[0].names(Reason::NoSite));
        let error = table(&sections).unwrap_err().to_string();
        assert!(error.contains("NoPodCidr, NoPool"), "{error}");
        assert!(!error.contains("NoSite,"), "{error}");
    }

    #[test]
    fn what_the_page_explains_is_a_word_of_the_programs() {
        let page = "| `NoSite`, `SomeUp` | `Anything` |\n| Peer: `PathsUp` is False, `NoSuchThing` | x |\n";
        assert_eq!(unknown(page), ["NoSuchThing"]);
        let lacking = unexplained(page);
        assert!(!lacking.contains(&"SomeUp") && lacking.contains(&"NoneUp"));
    }
}
