//! What the suites with a whole network share: one world at a time, and how they speak of it.

mod hearing;

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use e2e::world::{Story, World};
pub(crate) use hearing::{listening, recovers};
use libtest_mimic::Trial;

/// A sentence and what proves it.
pub(crate) fn trial(name: &'static str, test: fn() -> Result<()>) -> Trial {
    Trial::test(name, move || {
        test().map_err(|error| format!("{error:#}").into())
    })
}

/// The world that tests share, under the name of its story.
static WORLD: Mutex<Option<(&str, World)>> = Mutex::new(None);

/// Runs a test in the world of `story`, which is built when it does not run yet. A test that fails takes the world with
/// it: what it broke must not fail the next one.
pub(crate) fn within(story: Story, test: impl FnOnce(&mut World) -> Result<()>) -> Result<()> {
    let mut shared = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    let name = story.name;
    if shared.as_ref().is_none_or(|(running, _)| *running != name) {
        // Names of namespaces are used once at a time.
        drop(shared.take());
        let world =
            World::up(story).with_context(|| format!("the world {name} does not come up"))?;
        *shared = Some((name, world));
    }
    let (_, world) = shared.as_mut().context("no world")?;
    let result = test(world).and_then(|()| world.all_run());
    if result.is_err() {
        drop(shared.take());
    }
    result
}

/// Ends the world before the process does.
pub(crate) fn end() {
    drop(WORLD.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// A line with figures, into the test's output and into `target/lab/figures.jsonl`.
pub(crate) fn figures(world: &World, what: &str, value: serde_json::Value) -> Result<()> {
    let line = serde_json::json!({"what": what, "figures": value}).to_string();
    let folder = world
        .lab
        .logs()
        .parent()
        .context("the logs are in no folder")?;
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("figures.jsonl"))?;
    writeln!(file, "{line}")?;
    let mut out = std::io::stdout();
    writeln!(out, "figures: {line}")?;
    Ok(())
}
