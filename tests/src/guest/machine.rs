//! QEMU, and what comes out of it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Contents, FORWARDED, Kernel, Line, initramfs};
use crate::lab::{NetNs, Process, logs_folder};

/// Memory of the guest in MiB: the unpacked programs, and room for two dozen namespaces.
const MEMORY: &str = "1024";
/// How much of the console is quoted.
const CONSOLE_LINES: usize = 40;

/// A running guest. Dropping it pulls its plug.
#[derive(Debug)]
pub struct Machine {
    qemu: Process,
    folder: PathBuf,
    report: PathBuf,
    read: u64,
    partial: String,
    give_up: Instant,
}

impl Machine {
    /// Boots `kernel` with `contents`; connections to the forwarded port reach `api_server`, through processes of
    /// `pipe`: a program with its environment that calls [`super::pipe`]. Whoever waits for the guest longer than
    /// `patience` is told that it hangs. Files go to `target/lab/<name>`.
    ///
    /// # Errors
    /// The initramfs cannot be made or QEMU not started.
    pub fn boot(
        name: &str,
        kernel: &Kernel,
        contents: &Contents,
        (pipe, variable): (&Path, &str),
        api_server: SocketAddr,
        patience: Duration,
    ) -> Result<Self> {
        let folder = logs_folder(name)?;
        let initramfs = folder.join("initramfs");
        initramfs::make(kernel, contents, &initramfs)?;
        let report = folder.join("report.jsonl");
        File::create(&report)?;
        let serial = |file: &str| format!("file:{}", folder.join(file).display());
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-M", "pc", "-accel", "tcg,thread=multi", "-cpu", "max"])
            .args(["-smp", "2", "-m", MEMORY])
            .args(["-display", "none", "-nodefaults", "-no-reboot"])
            .args(["-serial", &serial("console.log")])
            .args(["-serial", &serial("report.jsonl")])
            .arg("-kernel")
            .arg(kernel.image())
            .arg("-initrd")
            .arg(&initramfs)
            .args([
                "-append",
                "console=ttyS0 quiet panic=-1 random.trust_cpu=on",
            ])
            .arg("-netdev")
            .arg(format!(
                "user,id=up,ipv6=off,restrict=on,guestfwd=tcp:{}:{}-cmd:{}",
                FORWARDED.ip(),
                FORWARDED.port(),
                pipe.display()
            ))
            // No boot from the network, and no package with the ROM for it.
            .args(["-device", "virtio-net-pci,netdev=up,romfile="])
            .env(variable, api_server.to_string());
        let qemu = Process::start(
            &*NetNs::own()?,
            "qemu",
            &mut command,
            folder.join("qemu.log"),
        )?;
        Ok(Self {
            qemu,
            folder,
            report,
            read: 0,
            partial: String::new(),
            give_up: Instant::now() + patience,
        })
    }

    /// Folder with console, report and logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The next line of the guest's report; `None` when the guest has ended in order.
    ///
    /// # Errors
    /// QEMU died, the guest hangs, or it said something that is no report; with the end of its console.
    pub fn next_line(&mut self) -> Result<Option<Line>> {
        loop {
            // In this order: what was written before the end is read after it.
            let running = self.qemu.is_running();
            self.fill()?;
            if let Some((line, rest)) = self.partial.split_once('\n') {
                let line = line.trim().to_owned();
                self.partial = rest.to_owned();
                if line.is_empty() {
                    continue;
                }
                return serde_json::from_str(&line)
                    .map(Some)
                    .with_context(|| format!("the guest said {line:?}; {}", self.last_words()));
            }
            if !running {
                let _ = fs::remove_file(self.folder.join("initramfs"));
                let status = self.qemu.wait(Duration::ZERO)?;
                if status.is_some_and(|status| status.success()) {
                    return Ok(None);
                }
                bail!(
                    "QEMU ended with {status:?}: {}; {}",
                    self.qemu.log().trim(),
                    self.last_words()
                );
            }
            if Instant::now() > self.give_up {
                self.qemu.kill()?;
                bail!(
                    "the guest did not come to an end in time; {}",
                    self.last_words()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn fill(&mut self) -> Result<()> {
        let mut file = File::open(&self.report)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        self.read += bytes.len() as u64;
        // Reports are ASCII: JSON with everything else escaped.
        self.partial.push_str(&String::from_utf8_lossy(&bytes));
        Ok(())
    }

    /// The end of the console, in words.
    #[must_use]
    pub fn last_words(&self) -> String {
        let path = self.folder.join("console.log");
        let text = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n");
        format!("the end of {}:\n{tail}", path.display())
    }
}
