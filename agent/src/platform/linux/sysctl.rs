//! Sysctls below `/proc/sys`, which shows the network settings of the reader's own network namespace.

use super::state;
use crate::files;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use tieline_core::host::DeviceName;

/// Name of the file in the state directory.
pub(super) const FILE: &str = "sysctls.json";
/// Root of all sysctls.
const ROOT: &str = "/proc/sys";
/// Where a container is given the network part of them to write: its own `/proc/sys` is read-only unless it is privileged. What
/// is mounted there shows the reader's network namespace all the same.
const MOUNTED: &str = "/host/proc/sys";
/// What makes a host a router, in IPv4 and IPv6.
const FORWARDING: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];

/// What the kernel's WireGuard switches off for the whole host when a device of it comes up, and never on again (`wg_open` in
/// drivers/net/wireguard/device.c).
pub(super) const REDIRECTS: &str = "net/ipv4/conf/all/send_redirects";

/// Sysctls that are read back: every one that was ever set, so that what is not wanted is not looked at. What the host had
/// before is kept in a file, for [`Sysctls::restore`].
#[derive(Debug)]
pub(super) struct Sysctls {
    watched: BTreeSet<String>,
    file: PathBuf,
    changes: BTreeMap<String, Changed>,
}

/// A setting that we have changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Changed {
    /// What the host had.
    before: String,
    /// What we wrote last.
    ours: String,
}

impl Sysctls {
    /// With what was written down in the state directory; a missing or damaged file is no record.
    pub(super) fn open(state_dir: &Path) -> Self {
        let file = state_dir.join(FILE);
        Self {
            watched: BTreeSet::new(),
            changes: state::load(&file).unwrap_or_default(),
            file,
        }
    }

    /// Gives the host its own values back, where nobody has set another since, and forgets them.
    ///
    /// Forwarding stays on: on a Kubernetes node, others rely on it from their first pod on, and ask nobody. So `accept_ra` stays
    /// at 2 where IPv6 forwarding is ours, because advertisements would not be heard any more.
    pub(super) fn restore(&mut self) -> io::Result<()> {
        let routes_ipv6 = self.changes.contains_key(FORWARDING[1]);
        for (path, Changed { before, ours }) in &self.changes {
            if FORWARDING.contains(&path.as_str()) || (routes_ipv6 && path.ends_with("/accept_ra"))
            {
                continue;
            }
            match get(path) {
                Ok(now) if now == *ours => std::fs::write(file(path)?, before)?,
                Ok(_) => {}
                // Its device is gone.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.changes.clear();
        files::remove(&self.file)
    }

    /// Whether a device forwards IPv6 by the host's own will. The switch for all devices is ours where the host had it off, and
    /// what single devices had then was noted.
    pub(super) fn forwards_ipv6(&self, device: &str) -> bool {
        let path = forwarding_of(device);
        let ours = self
            .changes
            .get(FORWARDING[1])
            .is_some_and(|all| all.before == "0");
        if ours {
            self.changes.contains_key(&path)
        } else {
            get(&path).is_ok_and(|value| value == "1")
        }
    }

    fn remember(&mut self, path: &str, now: &str, value: &str) {
        let mut news = note(&mut self.changes, path, now, value);
        if news && path == FORWARDING[1] {
            for device in forwarding_devices() {
                news |= note(&mut self.changes, &forwarding_of(&device), "1", "1");
            }
        }
        if news && let Err(error) = state::save(&self.file, &self.changes) {
            tracing::warn!(%error, "what {path} was before cannot be kept, so the clean-up will not restore it");
        }
    }

    /// Writes down what a setting is before the kernel makes this value of it by itself.
    pub(super) fn foresee(&mut self, path: &str, value: &str) {
        if let Ok(now) = get(path)
            && now != value
        {
            self.remember(path, &now, value);
        }
    }

    /// Reads those that are there; a device's vanish with the device.
    pub(super) fn read(&self) -> BTreeMap<String, String> {
        self.watched
            .iter()
            .filter_map(|path| Some((path.clone(), get(path).ok()?)))
            .collect()
    }

    /// Sets one unless it has the value already. Tells whether it wrote.
    pub(super) fn write(&mut self, path: &str, value: &str) -> io::Result<bool> {
        self.watched.insert(path.to_owned());
        let now = get(path)?;
        if now == normalise(value) {
            return Ok(false);
        }
        self.remember(path, &now, &normalise(value));
        put(path, value)?;
        Ok(true)
    }
}

/// Whether the kernel has IPv6; with `ipv6.disable=1` it has no such settings.
pub(super) fn has_ipv6() -> bool {
    !get(FORWARDING[1]).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn forwarding_of(device: &str) -> String {
    format!("net/ipv6/conf/{device}/forwarding")
}

/// Devices that forward IPv6 at this moment.
fn forwarding_devices() -> Vec<String> {
    let entries = file("net/ipv6/conf").and_then(std::fs::read_dir);
    let entries = entries.into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| !["all", "default"].contains(&name.as_str()))
        .filter(|name| get(&forwarding_of(name)).is_ok_and(|value| value == "1"))
        .collect()
}

/// Writes one sysctl and reads it back. It is not watched, and what was there before is not kept.
pub(super) fn put(path: &str, value: &str) -> io::Result<()> {
    std::fs::write(file(path)?, value)?;
    let now = get(path)?;
    if now == normalise(value) {
        Ok(())
    } else {
        Err(io::Error::other(format!("the kernel made {now} of it")))
    }
}

/// Writes down that a setting goes from `now` to `value`. Tells whether that is news. Settings of our own devices go with them.
fn note(changes: &mut BTreeMap<String, Changed>, path: &str, now: &str, value: &str) -> bool {
    if path
        .split('/')
        .any(|part| part.parse::<DeviceName>().is_ok())
    {
        return false;
    }
    let before = match changes.get(path) {
        // Ours until now; otherwise somebody else has set it since, or the host has booted.
        Some(known) if known.ours == now => known.before.clone(),
        _ => now.to_owned(),
    };
    let changed = Changed {
        before,
        ours: value.to_owned(),
    };
    changes.insert(path.to_owned(), changed.clone()) != Some(changed)
}

/// One sysctl's value, without surrounding blanks.
pub(super) fn get(path: &str) -> io::Result<String> {
    Ok(normalise(&std::fs::read_to_string(file(path)?)?))
}

fn normalise(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The file of a sysctl. A path that would leave `/proc/sys` is refused.
fn file(path: &str) -> io::Result<PathBuf> {
    let path = Path::new(path);
    if path
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        let mounted = path.starts_with("net") && Path::new(MOUNTED).join("net").is_dir();
        Ok(Path::new(if mounted { MOUNTED } else { ROOT }).join(path))
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{} is no sysctl: write it like net/ipv4/ip_forward",
                path.display()
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_path_cannot_leave_proc_sys() {
        for bad in ["../kernel", "/etc/passwd", "net/../../self/mem"] {
            assert!(file(bad).is_err(), "{bad}");
        }
        assert_eq!(
            file("net/ipv4/conf/tie0/rp_filter").unwrap(),
            Path::new("/proc/sys/net/ipv4/conf/tie0/rp_filter")
        );
    }

    #[test]
    fn what_the_host_had_is_kept_until_somebody_else_sets_it() {
        const PATH: &str = "net/ipv4/fib_multipath_hash_policy";
        let mut changes = BTreeMap::new();
        let before = |changes: &BTreeMap<String, Changed>| changes[PATH].before.clone();
        assert!(note(&mut changes, PATH, "0", "1"));
        assert!(note(&mut changes, PATH, "1", "2"));
        assert_eq!(before(&changes), "0");
        assert!(note(&mut changes, PATH, "7", "2"));
        assert_eq!(before(&changes), "7");
        assert!(!note(&mut changes, PATH, "7", "2"));
        assert!(!note(
            &mut changes,
            "net/ipv4/conf/tiei0/rp_filter",
            "1",
            "2"
        ));
        assert_eq!(changes.len(), 1);
    }

    #[test]
    fn values_are_compared_without_blanks() {
        assert_eq!(normalise("4096\t131072 6291456\n"), "4096 131072 6291456");
    }
}
