//! The commands of a page under `docs/`, as a reader copies them.
//!
//! A fenced block in `sh` is a command; the comment before it names it, unseen when the page is rendered:
//!
//! ````text
//! <!-- test: install -->
//! ```sh
//! helm install …
//! ```
//! ````
//!
//! A block in `yaml` is a set of whole objects that an API server takes.

use std::fs;

use anyhow::{Context, Result, bail, ensure};

use crate::world::repository;

/// A fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What the comment before it calls it.
    pub name: Option<String>,
    /// Language behind the opening fence.
    pub language: String,
    /// What is inside.
    pub text: String,
    /// Line of the opening fence, from 1.
    pub line: usize,
}

/// A page and its blocks.
#[derive(Debug, Clone)]
pub struct Page {
    file: String,
    blocks: Vec<Block>,
}

/// How it is installed.
pub const INSTALL: &str = "install.md";
/// How it is upgraded, and back.
pub const UPGRADE: &str = "upgrade.md";
/// How it is uninstalled.
pub const UNINSTALL: &str = "uninstall.md";
/// The pages whose commands a test runs; elsewhere none are in blocks.
pub const FOLLOWED: [&str; 3] = [INSTALL, UPGRADE, UNINSTALL];

impl Page {
    /// Reads `docs/<file>`.
    ///
    /// # Errors
    /// The page cannot be read, a fence is left open, or a comment names no block.
    pub fn read(file: &str) -> Result<Self> {
        let path = repository().join("docs").join(file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let blocks = blocks(&text).with_context(|| format!("docs/{file}"))?;
        Ok(Self {
            file: file.to_owned(),
            blocks,
        })
    }

    /// Its commands in order: name and text.
    ///
    /// # Errors
    /// One has no name, or two have the same.
    pub fn commands(&self) -> Result<Vec<(&str, &str)>> {
        let mut commands: Vec<(&str, &str)> = Vec::new();
        for block in self.blocks.iter().filter(|block| block.language == "sh") {
            let name = block.name.as_deref().with_context(|| {
                format!(
                    "docs/{}:{}: no test runs this block: name it with `<!-- test: NAME -->`",
                    self.file, block.line
                )
            })?;
            ensure!(
                commands.iter().all(|(other, _)| *other != name),
                "docs/{}:{}: a second block is called {name}",
                self.file,
                block.line
            );
            commands.push((name, &block.text));
        }
        Ok(commands)
    }

    /// Its blocks of objects.
    pub fn objects(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(|block| block.language == "yaml")
    }
}

/// The fenced blocks of a Markdown text.
///
/// # Errors
/// A fence is left open, or a comment names no block.
pub fn blocks(markdown: &str) -> Result<Vec<Block>> {
    let mut found = Vec::new();
    let mut name = None;
    let mut open: Option<Block> = None;
    for (number, line) in markdown.lines().enumerate() {
        let number = number + 1;
        match (&mut open, line.strip_prefix("```")) {
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(language)) => {
                ensure!(
                    ["sh", "yaml"].contains(&language.trim()),
                    "line {number}: a block is of language `sh` or `yaml`, so that a test looks at it"
                );
                open = Some(Block {
                    name: name.take(),
                    language: language.trim().to_owned(),
                    text: String::new(),
                    line: number,
                });
            }
            (None, None) => {
                let comment = line
                    .strip_prefix("<!-- test:")
                    .and_then(|rest| rest.strip_suffix("-->"));
                if let Some(named) = comment {
                    name = Some(named.trim().to_owned());
                } else if let Some(name) = name.as_ref().filter(|_| !line.trim().is_empty()) {
                    bail!("line {number}: no block follows the comment that names {name}");
                }
            }
        }
    }
    if let Some(block) = open {
        bail!("line {}: the block is never closed", block.line);
    }
    ensure!(name.is_none(), "no block follows the last comment");
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn blocks_are_found_with_name_language_and_text() {
        let text = "# A\n\n<!-- test: one -->\n```sh\na\n\nb\n```\nwords\n```yaml\nx: 1\n```\n";
        let found = blocks(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].name.as_deref(), Some("one"));
        assert_eq!(
            (found[0].language.as_str(), found[0].text.as_str()),
            ("sh", "a\n\nb\n")
        );
        assert_eq!((&found[1].name, found[1].line), (&None, 10));
    }

    #[test]
    fn an_open_fence_and_a_name_without_a_block_are_errors() {
        for text in [
            "```sh\na\n",
            "<!-- test: one -->\nwords\n```sh\n```\n",
            "<!-- test: one -->\n",
        ] {
            assert!(blocks(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_command_of_the_pages_has_a_name_and_links_lead_somewhere() {
        let folder = repository().join("docs");
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|end| end != "md") {
                continue;
            }
            let file = path.file_name().unwrap().to_str().unwrap();
            let page = Page::read(file).unwrap();
            assert!(
                page.commands().unwrap().is_empty() || FOLLOWED.contains(&file),
                "docs/{file} has commands in blocks, and no test follows it"
            );
            let text = fs::read_to_string(&path).unwrap();
            // Patterns between backticks look like links.
            let words: String = text.split('`').step_by(2).collect();
            for target in words.split("](").skip(1) {
                let target = target.split(')').next().unwrap();
                let (to, anchor) = target.split_once('#').unwrap_or((target, ""));
                let to = if to.is_empty() { file } else { to };
                let linked = fs::read_to_string(folder.join(to))
                    .unwrap_or_else(|_| panic!("docs/{file}: {to} does not exist"));
                let anchors: Vec<String> = linked
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .map(anchor_of)
                    .collect();
                assert!(
                    anchor.is_empty() || anchors.iter().any(|it| it == anchor),
                    "docs/{file}: {to} has no heading for #{anchor}: {anchors:?}"
                );
            }
        }
    }

    /// The anchor that web pages give a heading.
    fn anchor_of(heading: &str) -> String {
        heading
            .trim_start_matches('#')
            .trim()
            .to_lowercase()
            .chars()
            .filter(|it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_'))
            .map(|it| if it == ' ' { '-' } else { it })
            .collect()
    }
}
