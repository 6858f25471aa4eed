//! The operator as a process: started, ended, and how much it has computed.

use super::agents::CLUSTER;
use crate::builds::OperatorBuild;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long an operator may take to finish its writes.
const LAST_WRITES: Duration = Duration::from_secs(60);

/// A running operator; dropping it ends it, and it ends with the bench.
pub(crate) struct Operator {
    child: Child,
    pid: Pid,
}

impl Operator {
    /// Starts a build's operator. What it logs is added to a file.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(build: &OperatorBuild, kubeconfig: &Path, log: &Path) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log);
        let output = output.with_context(|| format!("open {}", log.display()))?;
        // setpriv becomes the operator, and lets it end with the bench.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&build.program)
            .args(["--cluster-name", CLUSTER])
            .args(["--metrics-address", "127.0.0.1:0"])
            // A full pass by the clock would meet one side and not the other.
            .args(["--resync", "86400"])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {}", build.program.display()))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        Ok(Self { child, pid })
    }

    /// Ends it as Kubernetes does, and waits for it.
    ///
    /// # Errors
    /// It does not end; then it is killed.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill(self.pid, Signal::SIGTERM).context("signal the operator")?;
        let give_up = Instant::now() + LAST_WRITES;
        while self
            .child
            .try_wait()
            .context("wait for the operator")?
            .is_none()
        {
            if Instant::now() > give_up {
                bail!("the operator did not end within {LAST_WRITES:?} of SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// CPU time that it has used, user and system.
    ///
    /// # Errors
    /// It has ended by itself.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let clock = clock_getcpuclockid(self.pid).context("the operator has ended by itself")?;
        let time = clock_gettime(clock).context("the operator has ended by itself")?;
        Ok(time.into())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The end of a log.
pub(crate) fn end_of(log: &PathBuf) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
