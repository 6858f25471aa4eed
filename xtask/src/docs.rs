//! `docs/api.md`, `docs/metrics.md` and the last table of `docs/troubleshooting.md`: generated from the API's types, from what the
//! programs serve and from the reasons that they give, and checked for drift.

mod api;
mod metrics;
mod reasons;

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;

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
    Ok(format!("wrote {}", paths.join(", ")))
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
    reasons::check(&root)?;
    Ok(format!(
        "docs: {} generated pages are what the sources say",
        pages.len()
    ))
}

fn wanted() -> Result<BTreeMap<&'static str, String>> {
    let root = crate::root()?;
    Ok(BTreeMap::from([
        ("docs/api.md", api::page()?),
        ("docs/metrics.md", metrics::page(&root)?),
        (reasons::PAGE, reasons::page(&root)?),
    ]))
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
