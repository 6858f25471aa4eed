//! What each file's code names: imports that are not passed on, paths, and paths inside the tokens of macros.
//!
//! A single name counts too: a `mod.rs` passes an item on and uses it by the same line. Local variables are not told apart
//! from items; one that is called like an imported item adds no edge that the import has not made.

use super::names::Names;
use super::syntax::{Leaf, Segments, attributes, is_test, leaves};
use proc_macro2::{Spacing, TokenStream, TokenTree};
use std::collections::BTreeMap;
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, ItemUse, Macro, Meta, TraitItem, Visibility};

/// One place where code names something.
#[derive(Clone)]
pub(super) struct Use {
    /// The module that the code is in.
    pub(super) module: Segments,
    /// What it names, as written.
    pub(super) path: Segments,
    /// Line in the file, from 1.
    pub(super) line: usize,
}

/// The uses of each file, in the order of the source. Imports inside functions are added to `names`' modules first, since
/// the paths beside them lead through them.
pub(super) fn of(names: &mut Names) -> BTreeMap<String, Vec<Use>> {
    let mut found = BTreeMap::new();
    let mut imports = Vec::new();
    for (file, (module, items)) in &names.files {
        let mut visitor = Visitor {
            module: module.clone(),
            uses: Vec::new(),
            imports: Vec::new(),
        };
        for item in items {
            visitor.visit_item(item);
        }
        imports.append(&mut visitor.imports);
        found.insert(file.clone(), visitor.uses);
    }
    for (module, leaves) in imports {
        names.import(&module, leaves);
    }
    found
}

struct Visitor {
    module: Segments,
    uses: Vec<Use>,
    imports: Vec<(Segments, Vec<Leaf>)>,
}

impl Visitor {
    fn add(&mut self, path: Segments, line: usize) {
        let module = self.module.clone();
        self.uses.push(Use { module, path, line });
    }

    /// The paths in the tokens of a macro or an attribute, which have no syntax tree.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = Segments::new();
        let mut line = 0;
        // What the path still needs: a name (behind `::`), or `::`.
        let mut open = false;
        let mut field = false;
        let mut colons = 0;
        for tree in tokens {
            match tree {
                TokenTree::Ident(ident) => {
                    if !open || colons != 2 {
                        self.finish(&mut path, line);
                    }
                    if !field {
                        if path.is_empty() {
                            line = ident.span().start().line;
                        }
                        path.push(ident.to_string());
                    }
                    (open, field, colons) = (!field, false, 0);
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    let joint = punct.spacing() == Spacing::Joint;
                    colons = if colons == 1 || joint { colons + 1 } else { 0 };
                }
                TokenTree::Punct(punct) => {
                    self.finish(&mut path, line);
                    (open, field, colons) = (false, punct.as_char() == '.', 0);
                }
                TokenTree::Group(group) => {
                    self.finish(&mut path, line);
                    (open, field, colons) = (false, false, 0);
                    self.tokens(group.stream());
                }
                TokenTree::Literal(_) => {
                    self.finish(&mut path, line);
                    (open, field, colons) = (false, false, 0);
                }
            }
        }
        self.finish(&mut path, line);
    }

    fn finish(&mut self, path: &mut Segments, line: usize) {
        if !path.is_empty() {
            self.add(std::mem::take(path), line);
        }
    }
}

impl<'ast> Visit<'ast> for Visitor {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_test(attributes(item)) {
            return;
        }
        match item {
            Item::Mod(child) => {
                if child.content.is_some() {
                    self.module.push(child.ident.to_string());
                    visit::visit_item(self, item);
                    self.module.pop();
                }
            }
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes: &[Attribute] = match item {
            ImplItem::Fn(it) => &it.attrs,
            ImplItem::Const(it) => &it.attrs,
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        let attributes: &[Attribute] = match item {
            TraitItem::Fn(it) => &it.attrs,
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.imports.push((self.module.clone(), leaves(&item.tree)));
        if matches!(item.vis, Visibility::Inherited) {
            for leaf in leaves(&item.tree) {
                self.add(leaf.path, leaf.line);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Segments = path
            .segments
            .iter()
            .map(|it| it.ident.to_string())
            .collect();
        let first = path.segments.first();
        let line = first.map_or(0, |it| it.ident.span().start().line);
        if path.leading_colon.is_none() {
            self.add(names, line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invoked: &'ast Macro) {
        self.visit_path(&invoked.path);
        self.tokens(invoked.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        // Documentation is a name and a text, and names nothing that the code needs.
        if let Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }
}
