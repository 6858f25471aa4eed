//! The images that every node has when it boots first: imported once by a containerd of this process, then linked onto each disk. Six
//! nodes that import the same archives each for itself are busy with it for ten seconds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::around;
use super::binaries::Programs;
use crate::lab::{NetNs, Process};
use crate::wait::eventually;

/// Where seeds lie: on the file system of the nodes' disks, for as long as this process lives.
const FOLDER: &str = "/run/lab-seeds";
/// A node's copy of it.
const ROOT: &str = "varlib/containerd";
/// What containerd changes in place. Everything else there is written once and may be shared.
const DATABASES: [&str; 2] = [
    "io.containerd.metadata.v1.bolt/meta.db",
    "io.containerd.snapshotter.v1.overlayfs/metadata.db",
];

/// containerd's folder after it has imported some archives.
#[derive(Debug)]
pub(super) struct Seed {
    /// Archives beside the lab's own, as they were.
    of: Vec<(PathBuf, SystemTime)>,
    root: PathBuf,
}

static SEEDS: Mutex<Vec<Arc<Seed>>> = Mutex::new(Vec::new());

impl Seed {
    /// The seed of the lab's own images and these archives; made when this process has none of them yet.
    pub(super) fn of(programs: &Programs, archives: &[PathBuf]) -> Result<Arc<Self>> {
        let mut seeds = SEEDS.lock().unwrap_or_else(PoisonError::into_inner);
        let of = archives
            .iter()
            .map(|archive| {
                let data = fs::metadata(archive)
                    .with_context(|| format!("reading {}", archive.display()))?;
                Ok((archive.clone(), data.modified()?))
            })
            .collect::<Result<Vec<_>>>()?;
        if let Some(seed) = seeds.iter().find(|seed| seed.of == of) {
            return Ok(Arc::clone(seed));
        }
        let folder = Path::new(FOLDER).join(seeds.len().to_string());
        fs::create_dir_all(&folder)?;
        let mut all = around::write_archives(&folder, programs)?;
        all.extend_from_slice(archives);
        let root = make(&folder, &all).context("importing images once for all nodes")?;
        let seed = Arc::new(Self { of, root });
        seeds.push(Arc::clone(&seed));
        Ok(seed)
    }

    /// Puts it onto an empty disk; one that has images already keeps them.
    pub(super) fn plant(&self, disk: &Path) -> Result<()> {
        let root = disk.join(ROOT);
        if root.exists() {
            return Ok(());
        }
        run(Command::new("cp").args(["-al"]).arg(&self.root).arg(&root))?;
        for database in DATABASES {
            let (from, to) = (self.root.join(database), root.join(database));
            fs::remove_file(&to)
                .and_then(|()| fs::copy(&from, &to))
                .with_context(|| format!("copying {}", from.display()))?;
        }
        Ok(())
    }
}

fn make(folder: &Path, archives: &[PathBuf]) -> Result<PathBuf> {
    let (root, socket) = (folder.join("root"), folder.join("containerd.sock"));
    let config = folder.join("containerd.toml");
    fs::write(
        &config,
        "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
    )?;
    let mut command = Command::new("containerd");
    command.arg("--config").arg(&config);
    for (flag, path) in [
        ("--root", &root),
        ("--state", &folder.join("state")),
        ("--address", &socket),
    ] {
        command.arg(flag).arg(path);
    }
    let log = folder.join("containerd.log");
    let mut containerd = Process::start(&*NetNs::own()?, "containerd", &mut command, log)?;
    let ctr = |arguments: &[&str]| {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&socket).args(arguments);
        run(&mut command)
    };
    eventually("containerd to answer", Duration::from_secs(30), || {
        ctr(&["version"])
    })?;
    for archive in archives {
        let archive = archive.to_str().context("the archive's path is no UTF-8")?;
        ctr(&["-n", "k8s.io", "images", "import", archive])?;
    }
    containerd.signal(Signal::SIGTERM)?;
    let ended = containerd.wait(Duration::from_secs(10))?;
    ensure!(ended.is_some(), "containerd does not end");
    Ok(root)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
