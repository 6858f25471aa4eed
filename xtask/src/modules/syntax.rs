//! What is read off single pieces of syntax: ends of imports, names of items, and whether an item is there for tests alone.

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item, Meta, UseTree};

/// The path of a module from the crate's root, or of an item from some module.
pub(super) type Segments = Vec<String>;

/// One end of a tree of imports.
pub(super) struct Leaf {
    /// What is imported; of a glob, what it opens.
    pub(super) path: Segments,
    /// What it is called here; `None`: a glob.
    pub(super) name: Option<String>,
    /// Line in the file, from 1.
    pub(super) line: usize,
}

/// All ends of a tree of imports.
pub(super) fn leaves(tree: &UseTree) -> Vec<Leaf> {
    let mut found = Vec::new();
    let mut queue = vec![(Segments::new(), tree)];
    while let Some((mut path, tree)) = queue.pop() {
        let (ident, name) = match tree {
            UseTree::Path(step) => {
                path.push(step.ident.to_string());
                queue.push((path, &step.tree));
                continue;
            }
            UseTree::Group(group) => {
                queue.extend(group.items.iter().map(|tree| (path.clone(), tree)));
                continue;
            }
            UseTree::Glob(glob) => {
                let line = glob.star_token.spans[0].start().line;
                let name = None;
                found.push(Leaf { path, name, line });
                continue;
            }
            UseTree::Name(leaf) => (&leaf.ident, &leaf.ident),
            UseTree::Rename(leaf) => (&leaf.ident, &leaf.rename),
        };
        let mut name = name.to_string();
        if ident == "self" && !path.is_empty() {
            if name == "self" {
                name = path.last().cloned().unwrap_or_default();
            }
        } else {
            path.push(ident.to_string());
        }
        found.push(Leaf {
            path,
            name: Some(name),
            line: ident.span().start().line,
        });
    }
    found
}

/// Whether an item is compiled for tests alone.
pub(super) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => needs_test(list.tokens.clone()),
        _ => false,
    })
}

/// Whether a condition is `test`, or `all(…)` with it.
fn needs_test(condition: TokenStream) -> bool {
    let mut before = None;
    for tree in condition {
        match &tree {
            TokenTree::Ident(ident) if ident == "test" => return true,
            TokenTree::Group(group) => {
                let all = matches!(&before, Some(TokenTree::Ident(ident)) if ident == "all");
                if all && needs_test(group.stream()) {
                    return true;
                }
            }
            _ => {}
        }
        before = Some(tree);
    }
    false
}

/// The attributes of an item, as far as items with a condition have any.
pub(super) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(it) => &it.attrs,
        Item::Enum(it) => &it.attrs,
        Item::Fn(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Macro(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Static(it) => &it.attrs,
        Item::Struct(it) => &it.attrs,
        Item::Trait(it) => &it.attrs,
        Item::Type(it) => &it.attrs,
        Item::Union(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

/// The name that an item gives to its module.
pub(super) fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(it) => &it.ident,
        Item::Enum(it) => &it.ident,
        Item::Fn(it) => &it.sig.ident,
        Item::Static(it) => &it.ident,
        Item::Struct(it) => &it.ident,
        Item::Trait(it) => &it.ident,
        Item::TraitAlias(it) => &it.ident,
        Item::Type(it) => &it.ident,
        Item::Union(it) => &it.ident,
        _ => return None,
    };
    Some(ident.to_string())
}
