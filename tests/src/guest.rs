//! A machine with a stock kernel: Debian's cloud kernel under QEMU, for what the kernel at hand lacks (WireGuard, netem).
//!
//! ```text
//!  this machine, in namespaces of its own            guest (initramfs, no disk)
//!    etcd, kube-apiserver, operator                    init: mounts, then the test program
//!    127.0.0.1:PORT  ◄── pipe, one a connection ──►    10.0.2.100:6443 ◄─ DNAT ─ 192.0.2.10:6443 ◄─ agents
//!    report.jsonl    ◄── second serial port ─────      lab: namespaces, agents, pods, eavesdropper
//!    console.log     ◄── first serial port ──────
//! ```
//!
//! The emulation is twenty times slower than the machine: what need not run on the guest's kernel runs outside. QEMU's user network is
//! restricted to that one forwarded port. Emulation without KVM on purpose: it is the same on every machine.
//!
//! [`Machine`] is the outside, [`inside`] the guest's part; [`Line`] is what the guest says.

mod initramfs;
pub mod inside;
mod machine;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

pub use initramfs::{Contents, DEMANDS};
pub use machine::Machine;

use crate::world::repository;

/// Where QEMU's user network answers for the API server.
const FORWARDED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 2, 100)), 6443);
/// The guest's address in QEMU's user network.
const GUEST: &str = "10.0.2.15/24";
/// Folder of the guest with the test's programs and files.
const HOME: &str = "/tieline";

/// One line of the guest's report.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// A step began; for whoever watches.
    Step(String),
    /// A scenario ended.
    Result {
        /// Its name.
        name: String,
        /// Why it failed; absent: it passed.
        failure: Option<String>,
        /// How long it took, by the guest's clock.
        seconds: f64,
    },
    /// Figures that somebody will want to see.
    Figures {
        /// Of what.
        what: String,
        /// The figures.
        figures: serde_json::Value,
    },
    /// The end of a log file of the guest.
    Log {
        /// Its file name.
        name: String,
        /// Its text.
        text: String,
    },
}

/// Kernel, release and modules, as `tests/kernel-guest/build` left them in the cache.
#[derive(Debug, Clone)]
pub struct Kernel {
    folder: PathBuf,
}

impl Kernel {
    /// Asks the build script, which finds what is there and otherwise fetches it.
    ///
    /// # Errors
    /// The script failed; it has said why.
    pub fn find() -> Result<Self> {
        let script = repository().join("tests/kernel-guest/build");
        let output = Command::new(&script)
            .output()
            .with_context(|| format!("running {}", script.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{}: {}",
            script.display(),
            said.trim()
        );
        let folder = String::from_utf8_lossy(&output.stdout).trim().into();
        Ok(Self { folder })
    }

    /// Its release, as `uname -r` has it.
    ///
    /// # Errors
    /// The cache is damaged.
    pub fn release(&self) -> Result<String> {
        let path = self.folder.join("release");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        Ok(text.trim().to_owned())
    }

    fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    fn modules(&self) -> PathBuf {
        self.folder.join("modules.cpio")
    }
}

/// One connection from the guest: what comes in on standard input goes to `target`, its answers to standard output. QEMU
/// starts a process of this for every connection to the forwarded port.
///
/// # Errors
/// Nobody listens at `target`, or the connection broke.
pub fn pipe(target: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(target).with_context(|| format!("connecting {target}"))?;
    let mut up = stream.try_clone()?;
    std::thread::spawn(move || {
        // An end of either side ends the connection; which error it was does not matter to anybody.
        let _ = copy(&mut std::io::stdin().lock(), &mut up);
        let _ = up.shutdown(Shutdown::Write);
    });
    copy(&mut stream, &mut std::io::stdout().lock())
}

/// Passes on at once what has arrived: a line buffer would hold back the end of a TLS record.
fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<()> {
    let mut buffer = [0_u8; 16 * 1024];
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length])?;
        to.flush()?;
    }
}
