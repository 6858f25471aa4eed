//! The guest's own part: its way out, and how it reports.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

use super::{FORWARDED, GUEST, HOME, Line};
use crate::lab::{API4, Lab, NetNs};
use crate::wait::eventually;

/// The second serial port.
const REPORT: &str = "/dev/ttyS1";
/// How much of a log file leaves the guest.
const LOG_BYTES: usize = 48 * 1024;

/// Whether this is the guest: its test program lies where init starts it, and process 1 is that init.
#[must_use]
pub fn is_guest() -> bool {
    std::env::current_exe().is_ok_and(|path| path == Path::new(HOME).join("test"))
}

/// A file that was put into the guest's folder.
///
/// # Errors
/// It is not there.
pub fn file(name: &str) -> Result<Vec<u8>> {
    let path = Path::new(HOME).join(name);
    std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

/// Makes the machine ready to hold a lab. Comes first.
///
/// # Errors
/// There is no network card within 10 s, or the kernel refuses.
pub fn prepare() -> Result<()> {
    // Servers and flows of a whole matrix live in one process.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let admin = NetNs::own()?;
    admin.ip("link set lo up")?;
    // The lab makes devices of its usual name here before it moves them.
    eventually("the guest's network card", Duration::from_secs(10), || {
        admin.ip("link set dev eth0 name up0").map(drop)
    })
}

/// Plugs the guest's network card into the lab's host `api`, which hands on what comes for the API server.
///
/// # Errors
/// The kernel refuses.
pub fn connect(lab: &Lab) -> Result<()> {
    let api = lab.host("api")?;
    NetNs::own()?.ip(&format!("link set up0 netns {}", api.name()))?;
    api.ip_batch(&[
        "link set up0 up".to_owned(),
        format!("addr add {GUEST} dev up0"),
    ])?;
    api.sysctls(&[("net/ipv4/ip_forward", "1")])?;
    let (to, port) = (FORWARDED.ip(), FORWARDED.port());
    api.nft(&format!(
        "table ip uplink {{
           chain in {{ type nat hook prerouting priority -100; ip daddr {API4} tcp dport {port} dnat to {to}:{port}; }}
           chain out {{ type nat hook postrouting priority 100; oifname up0 masquerade; }}
         }}"
    ))
}

/// Says what happened, line by line.
#[derive(Debug)]
pub struct Reporter {
    port: File,
}

impl Reporter {
    /// Opens the line to the outside.
    ///
    /// # Errors
    /// There is no second serial port.
    pub fn open() -> Result<Self> {
        let port = OpenOptions::new()
            .write(true)
            .open(REPORT)
            .with_context(|| format!("opening {REPORT}"))?;
        Ok(Self { port })
    }

    fn say(&mut self, line: &Line) -> Result<()> {
        let mut text = ascii(&serde_json::to_string(line)?);
        text.push('\n');
        self.port.write_all(text.as_bytes())?;
        Ok(())
    }

    /// A step begins.
    ///
    /// # Errors
    /// The line is cut.
    pub fn step(&mut self, what: &str) -> Result<()> {
        self.say(&Line::Step(what.to_owned()))
    }

    /// Figures for the outside.
    ///
    /// # Errors
    /// The line is cut.
    pub fn figures(&mut self, what: &str, figures: Value) -> Result<()> {
        self.say(&Line::Figures {
            what: what.to_owned(),
            figures,
        })
    }

    /// Runs a scenario and says how it went.
    ///
    /// # Errors
    /// The line is cut; a scenario that fails is no error here.
    pub fn scenario(
        &mut self,
        name: &str,
        run: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<bool> {
        self.step(name)?;
        let start = Instant::now();
        let result = run(self);
        let passed = result.is_ok();
        self.say(&Line::Result {
            name: name.to_owned(),
            failure: result.err().map(|error| format!("{error:#}")),
            seconds: start.elapsed().as_secs_f64(),
        })?;
        Ok(passed)
    }

    /// Hands the ends of all files of a folder out.
    ///
    /// # Errors
    /// The folder cannot be read, or the line is cut.
    pub fn logs(&mut self, folder: &Path) -> Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let bytes = std::fs::read(&path)?;
            let tail = &bytes[bytes.len().saturating_sub(LOG_BYTES)..];
            self.say(&Line::Log {
                name: path
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default(),
                text: String::from_utf8_lossy(tail).into_owned(),
            })?;
        }
        Ok(())
    }
}

/// A serial port carries ASCII safely; JSON can say the rest with it.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter.is_ascii() {
            out.push(letter);
            continue;
        }
        for unit in letter.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::ascii;

    #[test]
    fn what_is_not_ascii_is_escaped_and_comes_back() {
        let text = "−80 °C, 🚀";
        let json = ascii(&serde_json::to_string(text).unwrap());
        assert!(json.is_ascii());
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
