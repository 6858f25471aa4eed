//! `docs/api.md` and `docs/metrics.md`: generated from the API's types, and from what the programs serve, and checked for drift.

mod api;
mod metrics;

use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Writes the pages. Returns what it did, for people.
///
/// # Errors
/// When a source cannot be read or a page cannot be written.
pub(crate) fn write() -> Result<String> {
    let root = crate::root()?;
    let pages = wanted()?;
    for (path, text) in &pages {
        fs::write(root.join(path), text).with_context(|| format!("writing {path}"))?;
    }
    let paths: Vec<&str> = pages.keys().copied().collect();
    Ok(format!("wrote {}", paths.join(" and ")))
}

/// Compares the pages with their sources.
///
/// # Errors
/// When a page is missing or differs; the message names it and the command that helps.
pub(crate) fn check() -> Result<String> {
    let root = crate::root()?;
    let pages = wanted()?;
    let drifted: Vec<&str> = pages
        .iter()
        .filter(|(path, text)| fs::read_to_string(root.join(path)).ok().as_ref() != Some(text))
        .map(|(path, _)| *path)
        .collect();
    if !drifted.is_empty() {
        bail!(
            "not what the sources say: {}; run `make docs` and commit the result",
            drifted.join(", ")
        );
    }
    let unknown = unknown_reasons()?;
    if !unknown.is_empty() {
        bail!(
            "docs/troubleshooting.md explains reasons that no program gives: {}",
            unknown.join(", ")
        );
    }
    let unexplained = unexplained_reasons()?;
    if !unexplained.is_empty() {
        bail!(
            "docs/troubleshooting.md does not explain: {}",
            unexplained.join(", ")
        );
    }
    Ok(format!(
        "docs: {} generated pages are what the sources say",
        pages.len()
    ))
}

fn wanted() -> Result<BTreeMap<&'static str, String>> {
    Ok(BTreeMap::from([
        ("docs/api.md", api::page()?),
        ("docs/metrics.md", metrics::page(&crate::root()?)?),
    ]))
}

/// Reasons that the page on troubleshooting explains and no program gives.
///
/// # Errors
/// When the page or a source cannot be read.
fn unknown_reasons() -> Result<Vec<String>> {
    let (page, sources) = page_and_sources()?;
    // `{kind}NotFound` and the like are put together by the program.
    let given = |reason: &str| {
        let literal = |word: &str| sources.contains(&format!("{word}\""));
        literal(&format!("\"{reason}"))
            || ["Cluster", "Site", "VpnAttachment"].iter().any(|kind| {
                let rest = reason.strip_prefix(kind).filter(|rest| !rest.is_empty());
                rest.is_some_and(|rest| literal(&format!("{{kind}}{rest}")))
            })
    };
    let named = page
        .lines()
        .filter(|line| line.starts_with("| "))
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|word| is_word(word));
    Ok(sorted(named.filter(|word| !given(word))))
}

/// Reasons that a program gives and the page on troubleshooting does not name. Every word of two parts or more that stands in the
/// programs by itself is taken for a reason, unless it is a kind or the like.
///
/// # Errors
/// When the page or a source cannot be read.
fn unexplained_reasons() -> Result<Vec<String>> {
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
    let (page, sources) = page_and_sources()?;
    let words = sources
        .lines()
        .flat_map(|line| line.split('"').skip(1).step_by(2))
        .filter(|word| is_word(word) && word.chars().any(|letter| letter.is_ascii_lowercase()))
        .filter(|word| word.chars().filter(char::is_ascii_uppercase).count() > 1)
        .filter(|word| !OTHERS.contains(word));
    Ok(sorted(
        words.filter(|word| !page.contains(&format!("`{word}`"))),
    ))
}

/// The page on troubleshooting, and all sources that give reasons.
fn page_and_sources() -> Result<(String, String)> {
    let root = crate::root()?;
    let page = fs::read_to_string(root.join("docs/troubleshooting.md"))?;
    let mut sources = String::new();
    for folder in ["core/src", "operator/src", "agent/src"] {
        read_all(&root.join(folder), &mut sources)?;
    }
    Ok((page, sources))
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

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_committed_pages_are_what_the_sources_say() {
        check().unwrap();
    }

    #[test]
    fn a_cell_stays_one_cell() {
        assert_eq!(cell("one\n or | two"), "one or \\| two");
    }
}
