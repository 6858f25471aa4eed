//! `docs/api.md` and `docs/metrics.md`: generated from the API's types, and from what the programs serve, and checked for drift.

mod api;
mod metrics;

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
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
    let root = crate::root()?;
    let page = fs::read_to_string(root.join("docs/troubleshooting.md"))?;
    let mut sources = String::new();
    for folder in ["core/src", "operator/src", "agent/src"] {
        read_all(&root.join(folder), &mut sources)?;
    }
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
        .filter(|word| {
            word.starts_with(|first: char| first.is_ascii_uppercase())
                && word.chars().all(char::is_alphanumeric)
        });
    let mut unknown: Vec<String> = named
        .filter(|word| !given(word))
        .map(str::to_owned)
        .collect();
    unknown.sort();
    unknown.dedup();
    Ok(unknown)
}

fn read_all(folder: &Path, into: &mut String) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            read_all(&path, into)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.push_str(&fs::read_to_string(&path)?);
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
