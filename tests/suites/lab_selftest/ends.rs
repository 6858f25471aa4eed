//! What a lab leaves behind: nothing.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::lab::{Lab, SiteKind, Topology};

use super::stage::{end, three_sites};

/// Set for the copy of this binary that one test starts in order to kill it.
pub(crate) const VICTIM: &str = "LAB_SELFTEST_VICTIM";

pub(crate) fn clean_up() -> Result<()> {
    three_sites(|lab| {
        for node in lab.nodes() {
            // Left running on purpose: the lab has to end it.
            std::mem::forget(node.spawn("sleeper", Command::new("sleep").arg("1000"))?);
        }
        Ok(())
    })?;
    end();
    let names: Vec<_> = std::fs::read_dir("/run/netns")?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    ensure!(names.is_empty(), "namespaces left: {names:?}");
    let left = processes("sleep");
    ensure!(left.is_empty(), "processes left: {left:?}");
    let links = Command::new("ip").args(["-br", "link"]).output()?;
    let links = String::from_utf8_lossy(&links.stdout).into_owned();
    ensure!(links.lines().count() == 1, "links left: {links}");
    Ok(())
}

/// Builds a lab with a process in it, says so, and waits to be killed.
pub(crate) fn victim() -> Result<()> {
    let topology = Topology::empty()
        .site("oslo", SiteKind::Routed, [172, 22, 5, 0], 24)
        .nodes("oslo", "shop", 1);
    let lab = Lab::build("selftest-victim", topology)?;
    let _sleeper = lab
        .node("oslo-1")?
        .spawn("sleeper", Command::new("sleep").arg("98765"))?;
    let mut out = std::io::stdout();
    std::io::Write::write_all(&mut out, b"ready\n")?;
    std::thread::sleep(Duration::from_secs(60));
    bail!("nobody killed the victim");
}

pub(crate) fn nothing_outlives() -> Result<()> {
    let mut outer = Command::new(std::env::current_exe()?)
        .env_remove("TIELINE_LAB_STAGE")
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(outer.stdout.take().context("no output")?).read_line(&mut line)?;
    ensure!(line == "ready\n", "the victim said {line:?}");
    // A process of a nested PID namespace is visible from out here. For a moment after its start its command line is empty.
    running("98765", 1)?;
    outer.kill()?;
    outer.wait()?;
    running("98765", 0)
}

/// Waits a moment for so many processes.
fn running(word: &str, count: usize) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(3);
    loop {
        let found = processes(word);
        if found.len() == count {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "after 3 s {found:?}, which should be {count}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Command lines of running processes that hold `word`.
fn processes(word: &str) -> Vec<String> {
    let Ok(all) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    all.flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .bytes()
                .all(|byte| byte.is_ascii_digit())
        })
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok())
        .filter(|line| line.contains(word))
        .collect()
}
