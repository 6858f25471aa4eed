//! Sysctls below `/proc/sys`, which shows the network settings of the reader's own network namespace.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Root of all sysctls.
const ROOT: &str = "/proc/sys";
/// Where a container is given the network part of them to write: its own `/proc/sys` is read-only unless it is privileged. What
/// is mounted there shows the reader's network namespace all the same.
const MOUNTED: &str = "/host/proc/sys";

/// Sysctls that are read back: every one that was ever set, so that what is not wanted is not looked at.
#[derive(Debug, Default)]
pub(super) struct Sysctls {
    watched: BTreeMap<String, ()>,
}

impl Sysctls {
    /// Reads those that are there; a device's vanish with the device.
    pub(super) fn read(&self) -> BTreeMap<String, String> {
        self.watched
            .keys()
            .filter_map(|path| Some((path.clone(), get(path).ok()?)))
            .collect()
    }

    /// Sets one unless it has the value already. Tells whether it wrote.
    pub(super) fn set(&mut self, path: &str, value: &str) -> io::Result<bool> {
        let file = file(path)?;
        self.watched.insert(path.to_owned(), ());
        if normalise(&std::fs::read_to_string(&file)?) == normalise(value) {
            return Ok(false);
        }
        std::fs::write(&file, value)?;
        let now = get(path)?;
        if now == normalise(value) {
            Ok(true)
        } else {
            Err(io::Error::other(format!("the kernel made {now} of it")))
        }
    }
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
    fn values_are_compared_without_blanks() {
        assert_eq!(normalise("4096\t131072 6291456\n"), "4096 131072 6291456");
    }
}
