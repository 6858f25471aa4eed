//! What each module of a crate defines, imports and passes on, and where a path leads.
//!
//! Only files that a non-test `mod` declaration reaches from `lib.rs` are read, so test files need no naming rule. An item
//! that a macro's invocation makes has no name in the syntax tree: a name that a module with such an invocation does not
//! show is taken to be defined in that module's file.

use super::Sources;
use super::syntax::{Leaf, Segments, attributes, is_test, leaves, name};
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use syn::Item;

/// The names of a crate.
#[derive(Default)]
pub(super) struct Names {
    modules: BTreeMap<Segments, Module>,
    /// Syntax tree by file, with the path of the file's own module.
    pub(super) files: BTreeMap<String, (Segments, Vec<Item>)>,
}

/// One module: a file's own, or one written out inside a file.
#[derive(Default)]
struct Module {
    file: String,
    /// Items, without modules and imports.
    items: BTreeSet<String>,
    /// Macros by example, which child modules see without an import.
    macros: BTreeSet<String>,
    children: BTreeSet<String>,
    /// What a name is imported from.
    imports: BTreeMap<String, BTreeSet<Segments>>,
    globs: BTreeSet<Segments>,
    makes_items_by_macro: bool,
}

/// What a path leads to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    /// Something that is defined in this file.
    Item(String),
    Module(Segments),
}

/// The names, each in its module, that are being followed now: `use rand::rand;` would lead from `rand` to `rand` for ever.
type Followed = BTreeSet<(Segments, String)>;

impl Names {
    /// Reads a crate from `lib.rs` on.
    pub(super) fn read(sources: &Sources) -> Result<Self> {
        let mut names = Self::default();
        let mut queue = vec![(Segments::new(), "lib.rs".to_owned())];
        while let Some((path, file)) = queue.pop() {
            let text = sources.get(&file).with_context(|| {
                format!("{file} is declared as a module, but there is no such file")
            })?;
            let tree = syn::parse_file(text).map_err(|error| {
                anyhow::anyhow!("{file}:{}: {error}", error.span().start().line)
            })?;
            for child in names.define(&path, &file, &tree.items) {
                queue.push((child.clone(), file_of(&child, sources)?));
            }
            names.files.insert(file, (path, tree.items));
        }
        Ok(names)
    }

    /// Takes in what a module holds; answers the modules that are files of their own.
    fn define(&mut self, path: &[String], file: &str, items: &[Item]) -> Vec<Segments> {
        let mut elsewhere = Vec::new();
        let mut module = Module {
            file: file.to_owned(),
            ..Module::default()
        };
        for item in items.iter().filter(|item| !is_test(attributes(item))) {
            match item {
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    let below = [path, std::slice::from_ref(&name)].concat();
                    module.children.insert(name);
                    match &child.content {
                        Some((_, items)) => elsewhere.extend(self.define(&below, file, items)),
                        None => elsewhere.push(below),
                    }
                }
                Item::Use(import) => module.import(leaves(&import.tree)),
                Item::Macro(made) => match &made.ident {
                    Some(name) => {
                        module.macros.insert(name.to_string());
                    }
                    None => module.makes_items_by_macro = true,
                },
                other => module.items.extend(name(other)),
            }
        }
        self.modules.insert(path.to_vec(), module);
        elsewhere
    }

    /// Adds an import that is written inside a function.
    pub(super) fn import(&mut self, path: &[String], leaves: Vec<Leaf>) {
        if let Some(module) = self.modules.get_mut(path) {
            module.import(leaves);
        }
    }

    /// The files that define what `path` names when it is written in `module`; none for a module as such and for what other
    /// crates define.
    pub(super) fn files_of(&self, module: &[String], path: &[String]) -> BTreeSet<String> {
        let mut found = self.resolve(module, path, &mut Followed::new());
        if let ([name], true) = (path, found.is_empty()) {
            let above = (0..=module.len()).rev();
            let definer = above
                .filter_map(|end| self.modules.get(&module[..end]))
                .find(|module| module.macros.contains(name));
            found.extend(definer.map(|module| Target::Item(module.file.clone())));
        }
        found
            .into_iter()
            .filter_map(|target| match target {
                Target::Item(file) => Some(file),
                Target::Module(_) => None,
            })
            .collect()
    }

    fn resolve(&self, at: &[String], path: &[String], followed: &mut Followed) -> BTreeSet<Target> {
        let Some((first, rest)) = path.split_first() else {
            return BTreeSet::from([Target::Module(at.to_vec())]);
        };
        match first.as_str() {
            "crate" => self.inside(&[], rest, followed),
            "self" => self.inside(at, rest, followed),
            "super" => self.inside(&at[..at.len().saturating_sub(1)], rest, followed),
            _ => self.named(at, path, followed),
        }
    }

    /// Goes on in a module that the path named.
    fn inside(&self, at: &[String], path: &[String], followed: &mut Followed) -> BTreeSet<Target> {
        let found = self.resolve(at, path, followed);
        match self.modules.get(at) {
            Some(module) if found.is_empty() && module.makes_items_by_macro => {
                BTreeSet::from([Target::Item(module.file.clone())])
            }
            _ => found,
        }
    }

    /// What the first name of the path is in a module, and from there on.
    fn named(&self, at: &[String], path: &[String], followed: &mut Followed) -> BTreeSet<Target> {
        let mut found = BTreeSet::new();
        let (Some(module), Some((first, rest))) = (self.modules.get(at), path.split_first()) else {
            return found;
        };
        if !followed.insert((at.to_vec(), first.clone())) {
            return found;
        }
        if module.items.contains(first) {
            found.insert(Target::Item(module.file.clone()));
        }
        if module.children.contains(first) {
            let below = [at, std::slice::from_ref(first)].concat();
            found.extend(self.inside(&below, rest, followed));
        }
        for source in module.imports.get(first).into_iter().flatten() {
            found.extend(self.resolve(at, &[source, rest].concat(), followed));
        }
        if found.is_empty() {
            for source in &module.globs {
                for target in self.resolve(at, source, followed) {
                    match target {
                        Target::Module(source) => found.extend(self.named(&source, path, followed)),
                        // The variants of an enum: which they are makes no difference to whoever imports them.
                        Target::Item(_) => {}
                    }
                }
            }
        }
        followed.remove(&(at.to_vec(), first.clone()));
        found
    }
}

impl Module {
    fn import(&mut self, leaves: Vec<Leaf>) {
        for leaf in leaves {
            match leaf.name {
                Some(name) => {
                    self.imports.entry(name).or_default().insert(leaf.path);
                }
                None => {
                    self.globs.insert(leaf.path);
                }
            }
        }
    }
}

/// The file of a module that is declared without a body.
fn file_of(module: &[String], sources: &Sources) -> Result<String> {
    let path = module.join("/");
    let candidates = [format!("{path}.rs"), format!("{path}/mod.rs")];
    match candidates.iter().find(|file| sources.contains_key(*file)) {
        Some(file) => Ok(file.clone()),
        None => bail!(
            "mod {}: there is neither {}",
            module.join("::"),
            candidates.join(" nor ")
        ),
    }
}
