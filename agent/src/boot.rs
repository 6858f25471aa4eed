//! Keeps planned ranges closed from the host's boot until the agent runs: files that the host's own `ip` and `nft` load, and
//! the systemd unit that loads them before the kubelet starts any pod.
//!
//! The running agent writes the files ([`Files`]); the unit is put in place once, by a start of its own
//! ([`install_unit`]), because only that needs a place in the host's `/etc`. Where the host has no systemd or its `/etc` is
//! read-only, that is said and nothing is changed: there, a reboot leaves a gap until the agent runs.

use crate::files;
use nix::errno::Errno;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tieline_core::host::HostState;
use tieline_core::host::boot::BootGuard;

/// Name of the unit.
pub const UNIT: &str = "tieline-guard.service";
/// Folder of links to what every boot starts; every systemd has it.
const WANTED: &str = "multi-user.target.wants";

/// The guard's files in the state directory, for `ip -4`, `ip -6` and `nft`.
pub const FILES: [&str; 3] = ["guard.ip4", "guard.ip6", "guard.nft"];

/// The guard's files, kept in step with what the kernel is to hold.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    written: Option<BootGuard>,
}

impl Files {
    /// Files that nobody has looked at yet.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            written: None,
        }
    }

    /// Keeps the files in step with the kernel's state.
    ///
    /// # Errors
    /// A file cannot be written; the old one stays, and the next call tries again.
    pub fn keep(&mut self, state: &HostState) -> io::Result<()> {
        let guard = BootGuard::of(state);
        if self.written.as_ref() == Some(&guard) {
            return Ok(());
        }
        for (path, text) in names(&self.dir)
            .iter()
            .zip([&guard.ipv4, &guard.ipv6, &guard.nft])
        {
            if fs::read_to_string(path).ok().as_ref() != Some(text) {
                files::replace(path, text.as_bytes(), 0o600)?;
            }
        }
        self.written = Some(guard);
        Ok(())
    }

    /// Removes the files: there is nothing to keep closed any more.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn erase(&mut self) -> io::Result<()> {
        self.written = None;
        names(&self.dir)
            .iter()
            .try_for_each(|path| files::remove(path))
    }
}

fn names(dir: &Path) -> [PathBuf; 3] {
    FILES.map(|name| dir.join(name))
}

/// Puts the unit into the host's folder of systemd units and has every boot start it. Returns whether there is one now.
///
/// # Errors
/// The folder cannot be written, for another reason than that it is read-only.
pub fn install_unit(units: &Path, state_dir: &Path) -> io::Result<bool> {
    let wanted = units.join(WANTED);
    if !wanted.is_dir() {
        return Ok(false);
    }
    let write = || {
        let path = units.join(UNIT);
        let text = unit(state_dir);
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            files::replace(&path, text.as_bytes(), 0o644)?;
        }
        match symlink(Path::new("..").join(UNIT), wanted.join(UNIT)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    };
    match write() {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::EROFS as i32) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the unit; none is fine.
///
/// # Errors
/// A file cannot be removed.
pub fn remove_unit(units: &Path) -> io::Result<()> {
    files::remove(&units.join(WANTED).join(UNIT))?;
    files::remove(&units.join(UNIT))
}

/// After the network manager, which removes at its start what it does not know; before whatever starts pods.
fn unit(state_dir: &Path) -> String {
    let dir = state_dir.display();
    format!(
        "[Unit]
Description=Tieline: planned ranges stay closed until the agent runs
ConditionPathExists={dir}/guard.ip4
After=systemd-sysctl.service systemd-networkd.service NetworkManager.service
Before=containerd.service crio.service docker.service kubelet.service k3s.service k3s-agent.service rke2-server.service rke2-agent.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=-ip -4 -force -batch {dir}/guard.ip4
ExecStart=-ip -6 -force -batch {dir}/guard.ip6
ExecStart=-nft -f {dir}/guard.nft

[Install]
WantedBy=multi-user.target
"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_unit_is_wanted_by_every_boot_and_leaves_nothing_behind() {
        let etc = tempfile::tempdir().unwrap();
        fs::create_dir(etc.path().join(WANTED)).unwrap();
        for _ in 0..2 {
            assert!(install_unit(etc.path(), Path::new("/var/lib/tieline")).unwrap());
        }
        let text = fs::read_to_string(etc.path().join(WANTED).join(UNIT)).unwrap();
        assert!(text.contains("-batch /var/lib/tieline/guard.ip4"), "{text}");
        for _ in 0..2 {
            remove_unit(etc.path()).unwrap();
        }
        let left: Vec<_> = fs::read_dir(etc.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(fs::read_dir(etc.path().join(WANTED)).unwrap().count(), 0);
    }

    #[test]
    fn a_host_without_systemd_is_left_alone() {
        let etc = tempfile::tempdir().unwrap();
        assert!(!install_unit(etc.path(), Path::new("/var/lib/tieline")).unwrap());
        assert_eq!(fs::read_dir(etc.path()).unwrap().count(), 0);
        remove_unit(etc.path()).unwrap();
    }

    #[test]
    fn files_follow_the_state_and_go_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new(dir.path());
        files.keep(&HostState::default()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        files.erase().unwrap();
        files.erase().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
