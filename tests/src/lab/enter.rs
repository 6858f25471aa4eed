//! Moves the running binary into namespaces of its own, or says loudly why it cannot.
//!
//! Three stages of the same binary, told apart by one environment variable:
//! outside (checks the machine, becomes `unshare`), init (process 1 of the new PID namespace:
//! mounts, then reaps and waits) and inside (the test itself). When init ends, the kernel
//! ends everything else in the namespace; that is the whole clean-up.

// A test harness speaks to the person who started it, before any logging exists.
#![allow(clippy::print_stderr)]

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, exit};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid};

const STAGE: &str = "TIELINE_LAB_STAGE";
/// The outermost stage's process id, which nobody can see from inside.
const OUTER: &str = "TIELINE_LAB_OUTER";
/// Set when there is a user namespace to enter too.
const USER: &str = "TIELINE_LAB_USER_NAMESPACE";

/// Commands the lab calls, with the Debian package that holds each.
const NEEDED: [(&str, &str); 9] = [
    ("unshare", "util-linux"),
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("nft", "nftables"),
    ("iptables-nft-restore", "iptables"),
    ("ip6tables-nft-restore", "iptables"),
    ("wg", "wireguard-tools"),
    ("wireguard-go", "wireguard-go"),
    ("conntrack", "conntrack"),
];

/// How long the laboratory lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// It dies with the process that started it, for example `cargo test`.
    WithParent,
    /// It lives until its own main process ends; for a demo that is left running.
    Own,
}

/// Re-executes the current binary inside its own user, network, mount and PID namespace and
/// returns once there. Call it first in `main`, before any thread exists.
///
/// The caller's arguments and environment are kept, and its exit code becomes the exit code of
/// the outer process.
///
/// # Exits
///
/// With code 1 and the list of what is missing, when this machine cannot hold a lab. A test
/// that cannot run must never look like one that passed.
pub fn enter(lifetime: Lifetime) {
    enter_for(lifetime, &Demands::default());
}

/// What a lab needs beyond namespaces.
#[derive(Debug, Clone, Default)]
pub struct Demands<'a> {
    /// Whether only the machine's own root will do: cgroups, device files and file systems are not
    /// for the root of a user namespace.
    pub root: bool,
    /// More commands, each with the Debian package that holds it.
    pub commands: &'a [(&'a str, &'a str)],
}

/// As [`enter()`], with more demands.
pub fn enter_for(lifetime: Lifetime, demands: &Demands<'_>) {
    let stage = std::env::var(STAGE).unwrap_or_default();
    let failed = match stage.as_str() {
        "inside" => match arrive() {
            Ok(()) => return,
            Err(error) => error,
        },
        "init" => init().unwrap_or_else(|error| error),
        _ => outside(lifetime, demands),
    };
    eprintln!("lab: cannot run here: {failed:#}");
    exit(1);
}

/// The process to kill (with SIGKILL) in order to end the lab, as the machine outside numbers it, and the command
/// before which any other runs inside the lab. `None` outside of a lab.
#[must_use]
pub fn from_outside() -> Option<(u32, String)> {
    let pid: u32 = std::env::var(OUTER).ok()?.parse().ok()?;
    let user = std::env::var_os(USER).map_or("", |_| " -U --preserve-credentials");
    // That process is outside the PID namespace itself and made it for its children.
    let command = format!("nsenter -t {pid}{user} -n -m --pid=/proc/{pid}/ns/pid_for_children");
    Some((pid, command))
}

/// `PATH` with the `sbin` beside every `bin`: an ordinary user's lacks the folders of ip and nft.
fn path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let given: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let beside = given.iter().filter(|folder| folder.ends_with("bin"));
    let beside: Vec<PathBuf> = beside.map(|folder| folder.with_file_name("sbin")).collect();
    given.into_iter().chain(beside).collect()
}

/// Checks the machine and becomes `unshare`; comes back only with the reason why not.
fn outside(lifetime: Lifetime, demands: &Demands<'_>) -> anyhow::Error {
    if demands.root && !geteuid().is_root() {
        return anyhow::anyhow!(
            "real nodes need the machine's own root, because of cgroups and mounts; run as root"
        );
    }
    let folders = path();
    let missing = missing(&folders, demands.commands);
    if !missing.is_empty() {
        return anyhow::anyhow!("{}", missing.join("; "));
    }
    let as_root = demands.root || !user_namespaces_work();
    if as_root && !geteuid().is_root() {
        return anyhow::anyhow!(
            "unprivileged user namespaces are switched off (see sysctl user.max_user_namespaces, \
             kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns); \
             allow them or run as root"
        );
    }
    if lifetime == Lifetime::WithParent
        && let Err(error) = prctl::set_pdeathsig(Signal::SIGKILL)
    {
        return anyhow::Error::new(error).context("asking to die with the parent process");
    }
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return anyhow::Error::new(error).context("finding the own executable"),
    };
    let path = match std::env::join_paths(folders) {
        Ok(path) => path,
        Err(error) => return anyhow::Error::new(error).context("reading PATH"),
    };
    let mut command = Command::new("unshare");
    if !as_root {
        command.args(["--user", "--map-root-user"]).env(USER, "1");
    }
    command
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "--",
        ])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env("PATH", path)
        .env(OUTER, std::process::id().to_string())
        .env(STAGE, "init");
    anyhow::Error::new(command.exec()).context("starting unshare")
}

fn missing(folders: &[PathBuf], more: &[(&str, &str)]) -> Vec<String> {
    let mut lines: Vec<String> = NEEDED
        .iter()
        .chain(more)
        .filter(|(name, _)| !folders.iter().any(|folder| folder.join(name).is_file()))
        .map(|(name, package)| format!("no {name} in PATH (Debian package {package})"))
        .collect();
    if let Err(error) = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
    {
        lines.push(format!(
            "/dev/net/tun cannot be opened ({error}); as root: chmod 0666 /dev/net/tun"
        ));
    }
    lines
}

fn user_namespaces_work() -> bool {
    Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Process 1: prepares the mounts, starts the test, reaps, and ends with the test's own code.
fn init() -> Result<anyhow::Error> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("making / private")?;
    tmpfs("/run")?;
    if !fs::symlink_metadata("/var/run").is_ok_and(|meta| meta.is_symlink()) {
        tmpfs("/var/run")?;
    }
    for folder in [
        "/run/netns",
        "/run/wireguard",
        "/run/lock",
        "/var/run/wireguard",
    ] {
        fs::create_dir_all(folder).with_context(|| format!("making {folder}"))?;
    }
    // A mount of its own, so that a node can drop its copies of all namespace names at once.
    tmpfs("/run/netns")?;

    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
    ] {
        signals.add(signal);
    }
    // Blocked signals reach process 1 even without a handler; unblocked ones would be dropped.
    signals.thread_block()?;
    let own = std::env::current_exe().context("finding the own executable")?;
    let child = Command::new(own)
        .args(std::env::args_os().skip(1))
        .env(STAGE, "inside")
        .spawn()
        .context("starting the test inside")?;
    let main = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        if signals.wait()? != Signal::SIGCHLD {
            exit(130);
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == main => exit(code),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => {
                    exit(128 + signal as i32)
                }
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) => {}
                Err(error) => bail!("waiting for the test: {error}"),
            }
        }
    }
}

/// The test inside: undoes the blocked signals it inherited and checks where it is.
fn arrive() -> Result<()> {
    SigSet::all().thread_unblock()?;
    if !Path::new("/run/netns").is_dir() {
        bail!("{STAGE}=inside is set, but this is no lab; unset it");
    }
    let status = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()?;
    if !status.success() {
        bail!("the loopback device of the new network namespace does not come up");
    }
    // Servers and flows of a whole matrix live in this one process.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(())
}

fn tmpfs(target: &str) -> Result<()> {
    mount(
        Some("tmpfs"),
        target,
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some("mode=0755"),
    )
    .with_context(|| format!("mounting a fresh tmpfs on {target}"))
}
