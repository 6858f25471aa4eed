//! The platform on this machine's own kernel.
//!
//! Every test runs in a process of its own inside fresh user, network and mount namespaces, so that it may do everything
//! and nothing outlives it. A machine without user namespaces fails these tests; they are never skipped.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "platform/host.rs"]
mod host;
#[path = "platform/pair.rs"]
mod pair;
#[path = "platform/single.rs"]
mod single;
#[path = "platform/walls.rs"]
mod walls;

use libtest_mimic::{Arguments, Failed, Trial};
use std::process::Command;

/// Set in processes inside namespaces: what to run there.
const INSIDE: &str = "TIELINE_PLATFORM_TEST";

/// A test, by its name.
type Test = (&'static str, fn());

fn main() {
    let tests: Vec<Test> = [single::TESTS, walls::TESTS, pair::TESTS].concat();
    if let Ok(name) = std::env::var(INSIDE) {
        match tests.iter().find(|test| test.0 == name) {
            Some((_, run)) => return run(),
            None => return pair::other_end(&name),
        }
    }
    let trials = tests
        .iter()
        .map(|(name, _)| Trial::test(*name, || inside(name)))
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Runs a test in namespaces of its own.
fn inside(name: &str) -> Result<(), Failed> {
    let output = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
        ])
        .arg(std::env::current_exe()?)
        .env(INSIDE, name)
        .env("RUST_BACKTRACE", "0")
        .output()
        .map_err(|error| format!("cannot run unshare (package util-linux): {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
    .into())
}
