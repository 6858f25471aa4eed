//! The guest's file system: a cpio archive of programs of this machine, with the libraries that they ask for, behind the
//! cached archive of kernel modules. The kernel unpacks one after the other.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{HOME, Kernel};

/// Programs of this machine that run in the guest, and the Debian packages that hold them.
const PROGRAMS: [(&str, &str); 15] = [
    ("dash", "dash"),
    ("mount", "mount"),
    ("unshare", "util-linux"),
    ("modprobe", "kmod"),
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("tc", "iproute2"),
    ("nft", "nftables"),
    ("wg", "wireguard-tools"),
    ("ping", "iputils-ping"),
    ("conntrack", "conntrack"),
    ("mkdir", "coreutils"),
    ("cat", "coreutils"),
    ("seq", "coreutils"),
    ("sleep", "coreutils"),
];

/// What the outside needs beside those of a lab, each with its Debian package.
pub const DEMANDS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("cpio", "cpio"),
    ("modprobe", "kmod"),
    ("depmod", "kmod"),
    ("strip", "binutils"),
    ("ldd", "libc-bin"),
    ("dash", "dash"),
    ("ping", "iputils-ping"),
];

/// Process 1. The kernel panics, and QEMU ends, when it ends.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TIELINE_LOG=info,gotatun=off,tieline_agent::reconcile=debug
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=0755 run /run
mount -t tmpfs tmp /tmp
mkdir -p /run/netns /run/wireguard /run/lab /run/lock /dev/shm
mount -t tmpfs -o mode=0755 netns /run/netns
# An emulated CPU can stand still for a second; packets of all namespaces wait here meanwhile.
echo 50000 >/proc/sys/net/core/netdev_max_backlog
modprobe virtio_pci && modprobe virtio_net && modprobe tun || echo "init: the modules do not load"
/tieline/test >/dev/console 2>&1
echo "init: the test ended with $?" >/dev/console
echo o >/proc/sysrq-trigger
sleep 60
"#;

/// What the guest holds beside Debian's programs.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// The program that init starts.
    pub test: PathBuf,
    /// More programs, by their names in the guest's folder.
    pub programs: Vec<(String, PathBuf)>,
    /// More files, by their paths in the guest's folder.
    pub files: Vec<(String, Vec<u8>)>,
}

/// Makes the archive at `target`, with a staging folder beside it.
pub(super) fn make(kernel: &Kernel, contents: &Contents, target: &Path) -> Result<()> {
    let root = target.with_extension("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for folder in [
        "bin", "sbin", "usr/bin", "usr/sbin", "proc", "sys", "dev", "run", "tmp", "etc", "root",
        "var",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    symlink("../run", root.join("var/run"))?;
    write(&root.join("init"), INIT.as_bytes(), 0o755)?;
    write(
        &root.join("etc/passwd"),
        b"root:x:0:0:root:/root:/bin/sh\n",
        0o644,
    )?;
    write(&root.join("etc/group"), b"root:x:0:\n", 0o644)?;

    let mut libraries = BTreeSet::new();
    for (name, package) in PROGRAMS {
        let found = find(name)
            .with_context(|| format!("no {name} on this machine (Debian package {package})"))?;
        fs::copy(&found, root.join("bin").join(name))
            .with_context(|| format!("copying {}", found.display()))?;
        libraries.extend(linked(&found)?);
    }
    symlink("dash", root.join("bin/sh"))?;
    // Where the kernel looks for it.
    symlink("../bin/modprobe", root.join("sbin/modprobe"))?;

    let home = root.join(HOME.trim_start_matches('/'));
    fs::create_dir_all(&home)?;
    let test = [("test".to_owned(), contents.test.clone())];
    for (name, path) in test.iter().chain(&contents.programs) {
        let status = Command::new("strip")
            .arg("-o")
            .arg(home.join(name))
            .arg(path)
            .status()
            .context("running strip (Debian package binutils)")?;
        ensure!(status.success(), "strip {}: {status}", path.display());
        libraries.extend(linked(path)?);
    }
    for (name, bytes) in &contents.files {
        write(&home.join(name), bytes, 0o600)?;
    }
    for library in libraries {
        let copy = root.join(library.strip_prefix("/").unwrap_or(&library));
        fs::create_dir_all(copy.parent().unwrap_or(&root))?;
        fs::copy(&library, &copy).with_context(|| format!("copying {}", library.display()))?;
    }

    let programs = target.with_extension("programs");
    let status = Command::new("sh")
        .args([
            "-ec",
            "cd \"$1\"; find . | cpio --quiet -o -H newc -R 0:0 >\"$2\"",
            "cpio",
        ])
        .args([&root, &programs])
        .status()?;
    ensure!(status.success(), "cpio: {status}");
    let mut archive =
        File::create(target).with_context(|| format!("making {}", target.display()))?;
    for part in [&kernel.modules(), &programs] {
        let mut part = File::open(part).with_context(|| format!("opening {}", part.display()))?;
        io::copy(&mut part, &mut archive)?;
    }
    fs::remove_dir_all(&root)?;
    fs::remove_file(&programs)?;
    Ok(())
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let given: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    given
        .into_iter()
        .chain(usual)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// The shared libraries and the loader of a program, by `ldd`; none for a static one.
fn linked(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("running ldd (Debian package libc-bin)")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(!text.contains("not found"), "{}: {text}", program.display());
    Ok(text
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(PathBuf::from)
        .collect())
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}
