//! The stages of a binary that runs real nodes.
//!
//! ```text
//! outside ── starts ──> sweeper      lives beside the lab; when the lab is dead, however it died, removes its cgroups
//!    │
//!    └─ becomes the lab (`lab::enter_for`) ── inside: the test
//!                                                │ per host
//!                                                └─ host: joins the host's cgroups, becomes `unshare`
//!                                                     └─ init: process 1 of the host
//! ```
//!
//! All of them are the same program, told apart by one environment variable. Mounts, processes and network devices go with
//! their namespaces; cgroup folders belong to the machine and stay, which is why there is a sweeper.

// Stages speak to the person who started the test, or into a host's log.
#![allow(clippy::print_stderr)]

use std::path::PathBuf;
use std::process::{Command, Stdio, exit};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::geteuid;

use super::boot::Boot;
use super::cgroups::Cgroups;
use super::init;
use crate::lab::{self, Demands, Lifetime};

const STAGE: &str = "TIELINE_NODE_STAGE";
const ARGUMENT: &str = "TIELINE_NODE_STAGE_ARGUMENT";

const COMMANDS: [(&str, &str); 7] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("runc", "runc"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("openssl", "openssl"),
];

/// As [`lab::enter`], for a laboratory with real nodes: as the machine's root only. Call it first in `main`.
///
/// # Exits
///
/// With code 1 and what is missing, when this machine cannot hold real nodes; that is never a pass.
pub fn enter(lifetime: Lifetime) {
    let stage = std::env::var(STAGE).unwrap_or_default();
    if !stage.is_empty() {
        let argument = std::env::var(ARGUMENT).unwrap_or_default();
        let failed = match stage.as_str() {
            "sweeper" => sweep(&argument),
            "host" => host(&argument),
            "init" => init::run(&argument),
            other => Err(anyhow::anyhow!("{STAGE}={other} is no stage; unset it")),
        };
        if let Err(error) = failed {
            eprintln!("real nodes, stage {stage}: {error:#}");
            exit(1);
        }
        exit(0);
    }
    if lab::from_outside().is_none()
        && geteuid().is_root()
        && let Err(error) = start_sweeper()
    {
        eprintln!("real nodes: cannot run here: {error:#}");
        exit(1);
    }
    lab::enter_for(
        lifetime,
        &Demands {
            root: true,
            commands: &COMMANDS,
        },
    );
}

/// The cgroup of this lab, named by the lab's outermost process.
pub(super) fn cgroup_name() -> Result<String> {
    let (outer, _) =
        lab::from_outside().context("no lab for real nodes: call nodes::enter() first in main")?;
    Ok(name_for(outer))
}

fn name_for(outer: u32) -> String {
    format!("tieline-nodes-{outer}")
}

/// This program in another stage.
pub(super) fn stage(name: &str, argument: &str) -> Result<Command> {
    let own = std::env::current_exe().context("finding the own executable")?;
    let mut command = Command::new(own);
    command.env(STAGE, name).env(ARGUMENT, argument);
    Ok(command)
}

fn start_sweeper() -> Result<()> {
    // This process becomes the lab's outermost one and keeps its number.
    let mut command = stage("sweeper", &std::process::id().to_string())?;
    // No pipe of the test stays open because of it, and no folder busy; it does not belong to the terminal's job.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/");
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().context("starting the sweeper")?;
    Ok(())
}

/// Waits for the end of the lab, then removes its cgroups as soon as the kernel lets go of them.
fn sweep(argument: &str) -> Result<()> {
    let outer: u32 = argument.parse().context("a process number is expected")?;
    let born = start_time(outer);
    while born.is_some() && start_time(outer) == born {
        std::thread::sleep(Duration::from_millis(200));
    }
    Cgroups::of_machine(&name_for(outer))?.remove(Duration::from_secs(60))
}

/// When a process that is no zombie started, in ticks since boot: tells it from a later one with the same number.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc(5): after the name in parentheses come the state (field 3) and, as field 22, the start time.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Joins the host's cgroups and becomes `unshare`, whose child is the host's process 1.
fn host(argument: &str) -> Result<()> {
    let boot = Boot::read(&PathBuf::from(argument))?;
    boot.cgroups.join_as_root_of_namespace()?;
    let own = std::env::current_exe().context("finding the own executable")?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--uts", "--ipc", "--pid", "--fork"])
        .args(["--kill-child", "--propagation", "private", "--"])
        .arg(own)
        .env(STAGE, "init");
    Err(std::os::unix::process::CommandExt::exec(&mut command)).context("starting unshare")
}
