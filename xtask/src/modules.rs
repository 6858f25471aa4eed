//! Circles of modules: which source files of a crate can only be understood together.
//!
//! A module is a source file. It uses another one when its code, tests left out, names something that is defined there; a
//! path through a re-export leads to the file that defines the item. A re-export and a `mod` declaration are no use by
//! themselves: they say where things are found, not what is needed to understand them.
//!
//! ```text
//!  files ──syn──► names (what each module defines, imports, passes on) ─┐
//!            └──► uses (what each file's code names) ───────────────────┴─resolve─► edges ──► circles, in words
//! ```
//! Types are not inferred: a method call is no edge, and an `impl` in another file than its type is an edge to the type alone.

mod names;
mod syntax;
mod uses;

use anyhow::{Context, Result, bail};
use names::Names;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use uses::Use;

/// Crates that are free of circles, by the folder of their manifest.
const CRATES: &[&str] = &["core", "client", "operator"];

/// Source text by path below `src/`, with `/` as separator.
type Sources = BTreeMap<String, String>;

/// Which file uses which, each edge with the first use that makes it.
type Edges = BTreeMap<String, BTreeMap<String, Use>>;

/// Reads the crates and looks for circles.
///
/// # Errors
/// When a source file cannot be read or parsed, or when modules use each other in a circle; the message names each circle
/// and what makes it.
pub(crate) fn check() -> Result<String> {
    let root = crate::root()?;
    let mut modules = 0;
    let mut circles = Vec::new();
    for folder in CRATES {
        let mut sources = Sources::new();
        read(&root.join(folder).join("src"), "", &mut sources)?;
        let edges = edges(&sources).with_context(|| format!("reading the modules of {folder}"))?;
        modules += edges.len();
        circles.extend(judge(folder, &edges));
    }
    if !circles.is_empty() {
        bail!("circles of modules:\n{}", circles.join("\n"));
    }
    Ok(format!(
        "modules: {modules} of {} use each other without a circle",
        CRATES.join(", ")
    ))
}

/// All Rust files below a folder.
fn read(folder: &Path, below: &str, sources: &mut Sources) -> Result<()> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("reading {}", folder.display()))?;
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        let path = entry.path();
        if path.is_dir() {
            read(&path, &format!("{name}/"), sources)?;
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("reading {}", path.display()))?;
            sources.insert(name, text);
        }
    }
    Ok(())
}

/// The edges of one crate, with an entry for each module.
fn edges(sources: &Sources) -> Result<Edges> {
    let mut names = Names::read(sources)?;
    let mut edges = Edges::new();
    for (file, uses) in uses::of(&mut names) {
        let targets: &mut BTreeMap<String, Use> = edges.entry(file.clone()).or_default();
        for used in uses {
            for target in names.files_of(&used.module, &used.path) {
                if target != file {
                    targets.entry(target).or_insert_with(|| used.clone());
                }
            }
        }
    }
    Ok(edges)
}

/// Every circle, in words.
fn judge(folder: &str, edges: &Edges) -> Vec<String> {
    circles(edges)
        .into_iter()
        .map(|circle| {
            let members: Vec<&str> = circle.iter().map(String::as_str).collect();
            let mut lines = vec![format!(
                "  {folder}: {} use each other; to break the circle, move what one of these lines names into a file of its own:",
                members.join(", ")
            )];
            let round = shortest(&circle, edges);
            for (at, from) in round.iter().enumerate() {
                let to = &round[(at + 1) % round.len()];
                if let Some(used) = edges.get(from).and_then(|targets| targets.get(to)) {
                    let (line, item) = (used.line, used.path.join("::"));
                    lines.push(format!(
                        "    {folder}/src/{from}:{line} names {item}, of {folder}/src/{to}"
                    ));
                }
            }
            lines.join("\n")
        })
        .collect()
}

/// The strongly connected components of more than one module.
fn circles(edges: &Edges) -> Vec<BTreeSet<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> = edges
        .keys()
        .map(|file| (file, ways(file, edges).into_keys().collect()))
        .collect();
    let mut circles = BTreeSet::new();
    for (file, targets) in &reached {
        let circle: BTreeSet<String> = targets
            .iter()
            .filter(|target| reached.get(*target).is_some_and(|back| back.contains(file)))
            .map(|target| (*target).clone())
            .collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

/// One shortest way round inside a component.
fn shortest(circle: &BTreeSet<String>, edges: &Edges) -> Vec<String> {
    circle
        .iter()
        .filter_map(|start| {
            let before = ways(start, edges);
            let mut round = vec![start.clone()];
            let mut at = *before.get(start)?;
            // Each step goes one back towards the start, so there are no more of them than modules.
            for _ in edges {
                if at == start {
                    break;
                }
                round.push(at.clone());
                at = before.get(at)?;
            }
            round[1..].reverse();
            Some(round)
        })
        .min_by_key(Vec::len)
        .unwrap_or_default()
}

/// The modules that `start` uses, directly or through others, each with the one before it on a shortest way.
/// `start` is among them when it uses itself through others.
fn ways<'a>(start: &'a String, edges: &'a Edges) -> BTreeMap<&'a String, &'a String> {
    let mut before = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(from) = queue.pop_front() {
        for to in edges.get(from).into_iter().flat_map(BTreeMap::keys) {
            if !before.contains_key(to) {
                before.insert(to, from);
                queue.push_back(to);
            }
        }
    }
    before
}

#[cfg(test)]
mod tests;
