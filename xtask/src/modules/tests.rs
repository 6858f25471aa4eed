#![allow(clippy::unwrap_used)]
use super::{Sources, edges, judge};

/// The judgement of a crate `demo` of these files.
fn judged(files: &[(&str, &str)]) -> String {
    let sources: Sources = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect();
    judge("demo", &edges(&sources).unwrap()).join("\n")
}

#[test]
fn modules_that_use_each_other_one_way_are_no_circle() {
    let found = judged(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B; use crate::c::C; struct A(B, C);"),
        ("b.rs", "use crate::c::C; pub struct B(C);"),
        ("c.rs", "pub struct C;"),
    ]);
    assert_eq!(found, "");
}

#[test]
fn a_circle_is_named_with_the_lines_that_make_it() {
    let found = judged(&[
        ("lib.rs", "mod a; mod b;"),
        (
            "a.rs",
            "use crate::b::{\n    B as Other,\n};\npub const LIMIT: u8 = 1;",
        ),
        (
            "b.rs",
            "pub struct B;\nfn limit() -> u8 {\n    crate::a::LIMIT\n}",
        ),
    ]);
    assert_eq!(
        found,
        "  demo: a.rs, b.rs use each other; to break the circle, move what one of these lines names into a file of its own:\n    \
         demo/src/a.rs:2 names crate::b::B, of demo/src/b.rs\n    \
         demo/src/b.rs:3 names crate::a::LIMIT, of demo/src/a.rs"
    );
}

#[test]
fn of_a_large_circle_a_shortest_way_round_is_shown() {
    let found = judged(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B; pub struct A;"),
        ("b.rs", "use crate::c::C; pub struct B;"),
        ("c.rs", "use crate::a::A; use crate::b::B; pub struct C;"),
    ]);
    assert!(found.contains("a.rs, b.rs, c.rs use each other"), "{found}");
    assert_eq!(found.lines().count(), 3, "{found}");
    assert!(found.contains("b.rs:1 names crate::c::C"), "{found}");
    assert!(found.contains("c.rs:1 names crate::b::B"), "{found}");
}

#[test]
fn a_path_through_reexports_leads_to_the_file_that_defines_the_item() {
    fn files(other: &str) -> [(&str, &str); 4] {
        [
            ("lib.rs", "pub mod folder; mod other; pub use folder::Item;"),
            (
                "folder/mod.rs",
                "mod item; pub use item::Item; pub use item::*;",
            ),
            (
                "folder/item.rs",
                "use crate::other::Other; pub struct Item; pub struct Open;",
            ),
            ("other.rs", other),
        ]
    }
    for through in ["crate::Item", "crate::folder::Item", "crate::folder::Open"] {
        let other = format!("pub struct Other; fn f(_: {through}) {{}}");
        let found = judged(&files(&other));
        assert!(
            found.contains("folder/item.rs, other.rs use each other"),
            "{through}: {found}"
        );
    }
    assert_eq!(judged(&files("pub struct Other;")), "");
}

#[test]
fn a_parent_that_uses_a_child_which_uses_it_by_super_is_a_circle() {
    for child in [
        "use super::Rule; pub fn judge() {}",
        "use super::*; pub fn judge(_: Rule) {}",
        "pub fn judge(_: super::Rule) {}",
        "mod inner { use super::super::Rule; } pub fn judge() {}",
        "pub fn judge() { println!(\"{}\", super::Rule::new()); }",
        "pub fn judge() { use crate::parent::{self as p}; p::Rule::new(); }",
    ] {
        let found = judged(&[
            ("lib.rs", "mod parent;"),
            (
                "parent/mod.rs",
                "mod child; pub struct Rule; fn f() { child::judge(); }",
            ),
            ("parent/child.rs", child),
        ]);
        assert!(
            found.contains("parent/child.rs, parent/mod.rs use each other"),
            "{child}: {found}"
        );
    }
}

#[test]
fn declaring_and_passing_on_a_child_is_no_use_of_it() {
    let found = judged(&[
        ("lib.rs", "mod parent;"),
        (
            "parent/mod.rs",
            "mod child; pub(crate) use child::judge; pub struct Rule;",
        ),
        (
            "parent/child.rs",
            "use super::Rule; pub fn judge(_: Rule) {}",
        ),
    ]);
    assert_eq!(found, "");
}

#[test]
fn code_that_uses_what_its_file_passes_on_uses_the_child() {
    let found = judged(&[
        ("lib.rs", "mod parent;"),
        (
            "parent/mod.rs",
            "mod child; pub use child::Child; pub struct Rule(Child);",
        ),
        ("parent/child.rs", "use super::Rule; pub struct Child;"),
    ]);
    assert!(found.contains("parent/mod.rs:1 names Child"), "{found}");
}

#[test]
fn a_macro_of_the_parent_and_items_made_by_macros_count() {
    let by_macro = judged(&[
        ("lib.rs", "mod parent;"),
        (
            "parent.rs",
            "macro_rules! made { () => {} } mod child; fn f() { child::g(); }",
        ),
        ("parent/child.rs", "pub fn g() { made!(); }"),
    ]);
    assert!(by_macro.contains("names made"), "{by_macro}");
    let made = judged(&[
        ("lib.rs", "mod ids; mod other;"),
        (
            "ids.rs",
            "macro_rules! name { ($n:ident) => {} } name!(Name); use crate::other::O;",
        ),
        ("other.rs", "use crate::ids::Name; pub struct O;"),
    ]);
    assert!(made.contains("ids.rs, other.rs use each other"), "{made}");
}

#[test]
fn tests_and_documentation_are_left_out() {
    let found = judged(&[
        ("lib.rs", "mod a; mod b;"),
        (
            "a.rs",
            "use crate::b::B; pub struct A; #[cfg(test)] mod tests;",
        ),
        (
            "b.rs",
            "//! Made by [`crate::a::A`].\n/// See [`crate::a::A`].\npub struct B;\n#[cfg(test)] use crate::a::A;\n\
             #[cfg(test)] mod tests { use crate::a::A; }\nimpl B { #[cfg(test)] fn f(_: crate::a::A) {} }",
        ),
        ("a/tests.rs", "not even Rust"),
    ]);
    assert_eq!(found, "");
}

#[test]
fn other_crates_and_the_standard_library_are_no_modules() {
    let found = judged(&[
        ("lib.rs", "mod fmt; mod b; use serde;"),
        ("fmt.rs", "use crate::b::B; pub struct F;"),
        (
            "b.rs",
            "use std::fmt; pub struct B; fn f(_: fmt::F, _: ::fmt::F, _: serde::F) {}",
        ),
    ]);
    assert_eq!(found, "");
}

#[test]
fn a_module_without_a_file_is_named() {
    let sources = Sources::from([("lib.rs".to_owned(), "mod gone;".to_owned())]);
    let error = edges(&sources).err().map(|error| error.to_string());
    assert_eq!(
        error.unwrap_or_default(),
        "mod gone: there is neither gone.rs nor gone/mod.rs"
    );
}
