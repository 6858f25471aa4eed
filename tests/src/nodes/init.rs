//! Process 1 of a host: its own file systems, then its programs, until the namespace ends.
//!
//! Everything here happens in the host's mount, PID, IPC, host-name and cgroup namespaces. It decides nothing: [`Boot`] says
//! what to do. It never ends by itself; the lab kills it, and the kernel then ends all that ever ran in the host.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::sethostname;

use super::boot::{Boot, Unit, UnitKind};

/// Made when all file systems are in place.
pub(super) const BOOTED: &str = "/run/booted";
/// Links to what systemd starts at every boot, below `/etc`.
const WANTED: &str = "systemd/system/multi-user.target.wants";

/// Sysctls of the whole machine that the kubelet writes, and what it wants there: it finds ordinary files instead.
const SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

pub(super) fn run(argument: &str) -> Result<()> {
    let boot = Boot::read(Path::new(argument))?;
    // Blocked, a signal to process 1 waits; the lab ends hosts by SIGKILL only.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGHUP);
    signals.thread_block()?;
    // The disk cannot be seen any more when its folders are in place.
    let installed = installed_units(&boot)?;
    file_systems(&boot)?;
    sethostname(&boot.name)?;
    run_once(&boot, &installed)?;
    fs::write(BOOTED, "")?;
    supervise(&boot)
}

/// Names of what somebody has put on this host's disk for systemd to run at boot.
fn installed_units(boot: &Boot) -> Result<Vec<OsString>> {
    let wanted = boot.disk.join("etc").join(WANTED);
    if !wanted.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&wanted).with_context(|| format!("reading {}", wanted.display()))?;
    let mut names: Vec<_> = entries
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<_>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Runs units before containers and kubelet: in the order of their names, each `ExecStart=` to its end, as a unit of type oneshot is.
fn run_once(boot: &Boot, names: &[OsString]) -> Result<()> {
    for name in names {
        // A removed link of the machine's own is a device node in an overlay, and hidden when seen from above.
        let path = Path::new("/etc").join(WANTED).join(name);
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for (number, line) in text
            .lines()
            .filter_map(|line| line.strip_prefix("ExecStart=-"))
            .enumerate()
        {
            let unit = Unit {
                name: format!("{}-{number}", name.to_string_lossy()),
                command: line.split_whitespace().map(str::to_owned).collect(),
                environment: Vec::new(),
                after: Vec::new(),
                kind: UnitKind::Service,
            };
            let pid = start(boot, &unit)?;
            waitpid(nix::unistd::Pid::from_raw(pid), None)?;
        }
    }
    Ok(())
}

fn file_systems(boot: &Boot) -> Result<()> {
    let none: Option<&str> = None;
    let empty = MsFlags::empty();
    // The kubelet hands mounts to pods and takes theirs (mount propagation).
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none).context("sharing /")?;
    bind(&boot.disk.join("varlib"), Path::new("/var/lib"))?;
    bind(&boot.disk.join("varlog"), Path::new("/var/log"))?;
    for folder in ["etc", "opt"] {
        overlay(&boot.disk, folder)?;
    }
    for (source, target) in &boot.folders {
        fs::create_dir_all(target).with_context(|| format!("making {}", target.display()))?;
        bind(source, target)?;
    }
    mount(Some("proc"), "/proc", Some("proc"), empty, none).context("mounting /proc")?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), empty, none).context("mounting /sys")?;
    boot.cgroups.mount()?;
    for (name, wanted) in SYSCTLS {
        let file = boot.disk.join("sysctl").join(name.replace('/', "."));
        fs::write(&file, format!("{wanted}\n"))?;
        bind(&file, &Path::new("/proc/sys").join(name))?;
    }
    // Last: the disk lies below /run.
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        empty,
        Some("mode=0755"),
    )
    .context("mounting /run")?;
    for folder in ["/run/lock", "/run/netns", "/run/flannel", "/run/wireguard"] {
        fs::create_dir_all(folder)?;
    }
    Ok(())
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    let none: Option<&str> = None;
    mount(Some(source), target, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("binding {} to {}", source.display(), target.display()))
}

/// The machine's folder with the host's own changes over it.
fn overlay(disk: &Path, folder: &str) -> Result<()> {
    let target = Path::new("/").join(folder);
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        target.display(),
        disk.join(folder).display(),
        disk.join("work").join(folder).display()
    );
    mount(
        Some("overlay"),
        &target,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .with_context(|| format!("mounting an overlay on {}", target.display()))
}

enum State {
    Waiting(Instant),
    Running(i32),
    Done,
}

/// Starts what may start, reaps what ended, for ever.
fn supervise(boot: &Boot) -> Result<()> {
    let mut states: Vec<State> = boot
        .units
        .iter()
        .map(|_| State::Waiting(Instant::now()))
        .collect();
    loop {
        for (unit, state) in boot.units.iter().zip(&mut states) {
            if let State::Waiting(since) = state
                && Instant::now() >= *since
                && unit.after.iter().all(|path| path.exists())
            {
                *state = State::Running(start(boot, unit)?);
            }
        }
        let ended = reap()?;
        for (unit, state) in boot.units.iter().zip(&mut states) {
            if let State::Running(pid) = state
                && let Some(good) = ended.get(pid)
            {
                *state = match &unit.kind {
                    UnitKind::Once(made) if *good => {
                        fs::write(made, "")?;
                        State::Done
                    }
                    _ => State::Waiting(Instant::now() + Duration::from_secs(1)),
                };
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn start(boot: &Boot, unit: &Unit) -> Result<i32> {
    let Some((program, arguments)) = unit.command.split_first() else {
        bail!("unit {} has no command", unit.name);
    };
    let path = boot.logs.join(format!("{}-{}.log", boot.name, unit.name));
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    // Command looks a bare name up in the PATH that it is given.
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", &boot.path)
        .env("HOME", "/root")
        .envs(unit.environment.iter().cloned())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {} ({program})", unit.name))?;
    // The handle is not needed: `reap` waits for every process, known or orphaned.
    Ok(i32::try_from(child.id())?)
}

/// All processes that ended, and whether their end was good.
fn reap() -> Result<BTreeMap<i32, bool>> {
    let mut ended = BTreeMap::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => {
                ended.insert(pid.as_raw(), code == 0);
            }
            Ok(WaitStatus::Signaled(pid, ..)) => {
                ended.insert(pid.as_raw(), false);
            }
            Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return Ok(ended),
            Ok(_) => {}
            Err(error) => return Err(error).context("waiting for processes"),
        }
    }
}

/// The folders of a disk that [`run`] expects.
pub(super) fn disk_folders(disk: &Path) -> Vec<PathBuf> {
    [
        "varlib", "varlog", "etc", "opt", "sysctl", "work/etc", "work/opt",
    ]
    .iter()
    .map(|folder| disk.join(folder))
    .collect()
}
