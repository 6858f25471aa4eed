//! One child process: started in a network namespace, logging into a file, ended on drop and with its parent.
//!
//! `nsenter` and `setpriv` (util-linux) enter the namespace and ask for the death signal, and then *become* the program, so that no
//! code has to run between fork and exec. The kernel sends a parent's death signal when the *thread* that forked ends, and test
//! threads end all the time: therefore one thread that lives as long as the process starts every child.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
};

use anyhow::{Context as _, Result, anyhow, bail};

/// What to start.
pub(super) struct Spawn {
    /// Name for messages and for the log file.
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    /// Working folder, home and place of the log.
    pub(super) dir: PathBuf,
    pub(super) netns: Option<PathBuf>,
}

/// A child process that does not outlive this value.
#[derive(Debug)]
pub(super) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub(super) fn start(spawn: Spawn) -> Result<Self> {
        let Spawn {
            name,
            program,
            args,
            dir,
            netns,
        } = spawn;
        let log = dir.join(format!("{name}.log"));
        let output = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("open {}", log.display()))?;
        let errors = output.try_clone().context("share the log file")?;

        let mut command = in_netns(netns.as_deref(), "setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&program)
            .args(args);
        command
            .current_dir(&dir)
            .env("HOME", &dir)
            .env_remove("KUBECONFIG");
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = spawn_from_lasting_thread(command).with_context(|| {
            format!(
                "start {name} ({}, through nsenter and setpriv of util-linux)",
                program.display()
            )
        })?;
        Ok(Self { name, child, log })
    }

    /// An error with the end of the log, when the process has ended.
    pub(super) fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self
            .child
            .try_wait()
            .with_context(|| format!("look after {}", self.name))?
        {
            bail!(
                "{} ended ({status}). The end of {}:\n{}",
                self.name,
                self.log.display(),
                last_lines(&self.log, 12)
            );
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // At once, as in a crash: etcd recovers by itself and the others keep nothing. Both calls fail only when the process
        // has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `program` inside the network namespace at `netns`, or in the caller's.
pub(super) fn in_netns(netns: Option<&Path>, program: impl AsRef<Path>) -> Command {
    match netns {
        None => Command::new(program.as_ref()),
        Some(netns) => {
            let mut flag = std::ffi::OsString::from("--net=");
            flag.push(netns);
            let mut command = Command::new("nsenter");
            command.arg(flag).arg("--").arg(program.as_ref());
            command
        }
    }
}

/// Starts `command` from a thread that ends with the process only.
fn spawn_from_lasting_thread(command: Command) -> Result<Child> {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            // Ends never: the static keeps a sender.
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, child) = mpsc::channel();
    spawner
        .send((command, answer))
        .map_err(|_| anyhow!("the thread that starts processes is gone"))?;
    Ok(child
        .recv()
        .context("the thread that starts processes is gone")??)
}

fn last_lines(path: &Path, count: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
