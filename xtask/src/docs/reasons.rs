//! The page on troubleshooting beside what the programs say: its last table is made of the reasons that a notice can have, and
//! whatever the page explains is something that a program gives.
//!
//! Reasons of notices come from [`Reason`]. Those that only a condition or an Event has are words in the sources of the operator and
//! the agent, and are looked for there.

use super::cell;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use tieline_core::notice::Reason;

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
    let mut sources = String::new();
    for folder in ["operator/src", "agent/src"] {
        read_all(&root.join(folder), &mut sources)?;
    }
    let unknown = unknown(&page, &sources);
    if !unknown.is_empty() {
        bail!(
            "{PAGE} explains reasons that no program gives: {}",
            unknown.join(", ")
        );
    }
    let unexplained = unexplained(&page, &sources);
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

/// Reasons that the page explains and no program gives.
fn unknown(page: &str, sources: &str) -> Vec<String> {
    let given =
        |word: &str| Reason::parse(word).is_some() || sources.contains(&format!("\"{word}\""));
    sorted(in_rows(page).filter(|word| !given(word)))
}

/// Reasons that a program gives and the page does not name. Every word of two parts or more that stands in the programs by itself is
/// taken for a reason, unless it is a kind or the like.
fn unexplained(page: &str, sources: &str) -> Vec<String> {
    const OTHERS: [&str; 8] = [
        "AddressLedger",
        "ClusterLink",
        "IPv4",
        "IPv6",
        "NetworkPlan",
        "NetworkPlans",
        "ServiceCIDR",
        "VpnAttachment",
    ];
    let words = sources
        .lines()
        .flat_map(|line| line.split('"').skip(1).step_by(2))
        .filter(|word| is_word(word) && word.chars().any(|letter| letter.is_ascii_lowercase()))
        .filter(|word| word.chars().filter(char::is_ascii_uppercase).count() > 1)
        .filter(|word| !OTHERS.contains(word));
    sorted(words.filter(|word| !page.contains(&format!("`{word}`"))))
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

fn sorted<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let words: BTreeSet<String> = words.map(str::to_owned).collect();
    words.into_iter().collect()
}

fn read_all(folder: &Path, into: &mut String) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            read_all(&path, into)?;
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path)?;
            let tests = text.find("#[cfg(test)]").unwrap_or(text.len());
            into.push_str(&text[..tests]);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SOURCES: &str = r#"Gone = "GoneAway", Sum = "MostlyGone","#;

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
    fn what_the_page_explains_is_a_reason_of_a_notice_or_a_word_of_the_programs() {
        let page = "| `NoSite`, `GoneAway` | x |\n| Node: `NoSuchThing` | `MostlyGone` |\n";
        assert_eq!(unknown(page, SOURCES), ["NoSuchThing"]);
        assert!(unexplained(page, SOURCES).is_empty());
        assert_eq!(unexplained("", SOURCES), ["GoneAway", "MostlyGone"]);
    }
}
