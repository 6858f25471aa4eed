//! A program under test as a child process: its own log file, its own process group, ended by pid.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::netns::NetNs;

/// A running (or ended) program. Dropping it kills it with everything it started.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` inside `netns`, both outputs appended to `log`.
    ///
    /// # Errors
    ///
    /// When the log cannot be opened or the program not started.
    pub fn start(netns: &NetNs, name: &str, command: &mut Command, log: PathBuf) -> Result<Self> {
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder)?;
        }
        let out = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let err = out.try_clone()?;
        command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        let child = netns.run(|| command.spawn().with_context(|| format!("starting {name}")))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Its process id inside the lab.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal to it and all it started.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; an ended process is no error.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match killpg(Pid::from_raw(i32::try_from(self.child.id())?), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => bail!("{signal} to {}: {error}", self.name),
        }
    }

    /// SIGKILL: a crash.
    ///
    /// # Errors
    ///
    /// When it cannot be signalled or waited for.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        Ok(self.child.wait()?)
    }

    /// SIGTERM and up to `patience` for an orderly end.
    ///
    /// # Errors
    ///
    /// When it is still running then; it is killed in that case.
    pub fn stop(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        match self.wait(patience)? {
            Some(status) => Ok(status),
            None => {
                self.kill()?;
                bail!("{} did not end within {patience:?} of SIGTERM", self.name)
            }
        }
    }

    /// Waits for its end, `None` when it still runs after `patience`.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    pub fn wait(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.kill();
        }
    }
}
