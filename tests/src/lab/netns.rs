//! One network namespace, with or without the mount and host name of a host of its own.
//!
//! Work happens in short-lived threads that move into the namespace: what such a thread opens
//! or starts stays there, and no other thread of the test is ever moved.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, sethostname};

/// A named network namespace (`/run/netns/<name>`, so that `ip netns exec` works too).
/// Dropping it removes the name; the kernel removes the rest once nothing runs there.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    net: OwnedFd,
    host: Option<Host>,
    bound: Option<PathBuf>,
    named: AtomicBool,
}

#[derive(Debug)]
struct Host {
    mounts: OwnedFd,
    names: OwnedFd,
}

impl NetNs {
    /// A bare namespace: a switch, a router or a pod.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a namespace or the name is taken.
    pub fn create(name: &str) -> Result<Arc<Self>> {
        Self::new(name, false)
    }

    /// A namespace with a host name and a private `/run/wireguard`, which network namespaces do
    /// not separate by themselves.
    ///
    /// # Errors
    ///
    /// As [`NetNs::create`].
    pub fn create_host(name: &str) -> Result<Arc<Self>> {
        Self::new(name, true)
    }

    /// The namespace this process itself lives in: the lab's administrator.
    ///
    /// # Errors
    ///
    /// When `/proc` is not readable.
    pub fn own() -> Result<Arc<Self>> {
        let net = open("net")?;
        Ok(Arc::new(Self {
            name: "admin".into(),
            net,
            host: None,
            bound: None,
            named: AtomicBool::new(false),
        }))
    }

    /// A namespace that somebody else made, a pod's for instance: `path` is what `setns` takes,
    /// such as `/proc/<pid>/ns/net`. It is kept alive as long as this value.
    ///
    /// # Errors
    ///
    /// When there is no such file.
    pub fn open(name: &str, path: &Path) -> Result<Arc<Self>> {
        let net = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        Ok(Arc::new(Self {
            name: name.to_owned(),
            net: net.into(),
            host: None,
            bound: None,
            named: AtomicBool::new(false),
        }))
    }

    fn new(name: &str, host: bool) -> Result<Arc<Self>> {
        let bound = PathBuf::from("/run/netns").join(name);
        let target = bound.clone();
        let hostname = name.to_owned();
        let made = std::thread::spawn(move || -> Result<(OwnedFd, Option<Host>)> {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_FS).context("new namespace")?;
            File::create_new(&target).with_context(|| format!("naming {}", target.display()))?;
            let none: Option<&str> = None;
            mount(
                Some("/proc/thread-self/ns/net"),
                &target,
                none,
                MsFlags::MS_BIND,
                none,
            )
            .with_context(|| format!("binding {}", target.display()))?;
            settle()?;
            let net = open("net")?;
            if !host {
                return Ok((net, None));
            }
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)?;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            // Copies of the other namespaces' names would keep those alive after their end.
            umount2("/run/netns", MntFlags::MNT_DETACH)?;
            mount(
                Some("tmpfs"),
                "/run/wireguard",
                Some("tmpfs"),
                MsFlags::MS_NOSUID,
                none,
            )?;
            sethostname(&hostname)?;
            Ok((
                net,
                Some(Host {
                    mounts: open("mnt")?,
                    names: open("uts")?,
                }),
            ))
        })
        .join();
        match made {
            Ok(Ok((net, host))) => Ok(Arc::new(Self {
                name: name.to_owned(),
                net,
                host,
                bound: Some(bound),
                named: AtomicBool::new(true),
            })),
            Ok(Err(error)) => Err(error.context(format!("making network namespace {name}"))),
            Err(_) => bail!("making network namespace {name}: the thread panicked"),
        }
    }

    /// The name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` in a thread inside this namespace. Sockets and processes it makes stay here.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered, or whatever `work` returns.
    ///
    /// # Panics
    ///
    /// When `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || -> Result<T> {
            setns(self.net.as_fd(), CloneFlags::CLONE_NEWNET)?;
            if let Some(host) = &self.host {
                unshare(CloneFlags::CLONE_FS)?;
                setns(host.mounts.as_fd(), CloneFlags::CLONE_NEWNS)?;
                setns(host.names.as_fd(), CloneFlags::CLONE_NEWUTS)?;
            }
            work()
        };
        match std::thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(result) => result.with_context(|| format!("in {}", self.name)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a command and returns its standard output.
    ///
    /// # Errors
    ///
    /// When it cannot start or fails; the error carries its standard error.
    pub fn cmd(&self, program: &str, args: &[&str]) -> Result<String> {
        self.feed(program, args, "")
    }

    /// As [`NetNs::cmd`], with `input` on standard input.
    ///
    /// # Errors
    ///
    /// As [`NetNs::cmd`].
    pub fn feed(&self, program: &str, args: &[&str], input: &str) -> Result<String> {
        let output = self.output(program, args, input)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let what = if input.is_empty() {
                String::new()
            } else {
                format!("\ninput:\n{input}")
            };
            bail!(
                "{}: {program} {}: {}{what}",
                self.name,
                args.join(" "),
                said.trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command and returns all it gave, also when it failed.
    ///
    /// # Errors
    ///
    /// When it cannot start.
    pub fn output(&self, program: &str, args: &[&str], input: &str) -> Result<Output> {
        self.run(|| {
            let mut child = Command::new(program)
                .args(args)
                .stdin(if input.is_empty() {
                    Stdio::null()
                } else {
                    Stdio::piped()
                })
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("starting {program}"))?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input.as_bytes())?;
            }
            Ok(child.wait_with_output()?)
        })
    }

    /// One `ip` command, words separated by spaces: `route flush table 7468`.
    ///
    /// # Errors
    ///
    /// As [`NetNs::cmd`].
    pub fn ip(&self, line: &str) -> Result<String> {
        self.cmd("ip", &line.split_whitespace().collect::<Vec<_>>())
    }

    /// Many `ip` commands in one process, which is what keeps building a lab fast.
    ///
    /// # Errors
    ///
    /// At the first line that fails.
    pub fn ip_batch<S: AsRef<str>>(&self, lines: &[S]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let text: String = lines
            .iter()
            .map(|line| format!("{}\n", line.as_ref()))
            .collect();
        self.feed("ip", &["-batch", "-"], &text).map(drop)
    }

    /// Loads an nft script, atomically.
    ///
    /// # Errors
    ///
    /// As [`NetNs::cmd`].
    pub fn nft(&self, script: &str) -> Result<()> {
        self.feed("nft", &["-f", "-"], script).map(drop)
    }

    /// Sets sysctls under `/proc/sys`, names with slashes: `net/ipv4/ip_forward`.
    ///
    /// # Errors
    ///
    /// When one cannot be written.
    pub fn sysctls(&self, pairs: &[(&str, &str)]) -> Result<()> {
        self.run(|| write_sysctls(pairs))
    }

    /// The processes whose main thread is in this namespace, this process excepted.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        let Ok(own) = File::from(match self.net.try_clone() {
            Ok(fd) => fd,
            Err(_) => return Vec::new(),
        })
        .metadata() else {
            return Vec::new();
        };
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| u32::try_from(*pid).is_ok_and(|pid| pid != std::process::id()))
            .filter(|pid| {
                fs::metadata(format!("/proc/{pid}/ns/net"))
                    .is_ok_and(|meta| meta.ino() == own.ino() && meta.dev() == own.dev())
            })
            .collect()
    }

    /// Kills every process in this namespace and waits (at most 5 s) until they are gone.
    pub fn end_processes(&self) {
        for _ in 0..500 {
            let running: Vec<i32> = self
                .pids()
                .into_iter()
                .filter(|pid| !is_zombie(*pid))
                .collect();
            if running.is_empty() {
                return;
            }
            for pid in running {
                // A process that ended meanwhile is what is wanted.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Gives the name free, for a successor with the same name.
    pub(super) fn unname(&self) {
        if let Some(bound) = &self.bound
            && self.named.swap(false, Ordering::SeqCst)
        {
            // Both fail only when the whole lab is going away already.
            let _ = umount2(bound, MntFlags::MNT_DETACH);
            let _ = fs::remove_file(bound);
        }
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        self.unname();
    }
}

fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'))
    })
}

/// Defaults of every namespace: loopback up and no waiting for duplicate addresses.
fn settle() -> Result<()> {
    let status = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()?;
    if !status.success() {
        bail!("ip link set lo up: {status}");
    }
    write_sysctls(&[
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
        ("net/ipv6/conf/default/router_solicitations", "0"),
    ])
}

fn write_sysctls(pairs: &[(&str, &str)]) -> Result<()> {
    for (name, value) in pairs {
        fs::write(PathBuf::from("/proc/sys").join(name), value)
            .with_context(|| format!("sysctl {name}={value}"))?;
    }
    Ok(())
}

fn open(kind: &str) -> Result<OwnedFd> {
    let path = format!("/proc/thread-self/ns/{kind}");
    Ok(File::open(&path)
        .with_context(|| format!("opening {path}"))?
        .into())
}
