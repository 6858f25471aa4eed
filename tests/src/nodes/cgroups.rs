//! Cgroup folders of hosts: found on the machine as it is (version 1, hybrid or version 2), made below the test's own
//! place, removed when nothing runs in them.
//!
//! Version 1 and hybrid are what the labs run on today; the version 2 branch follows cgroups(7) and its rule that only
//! leaves hold processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

/// One mounted hierarchy and a folder in it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
struct Hierarchy {
    /// Mount options of version 1 (`cpu`, `none,name=systemd`); `None` for version 2.
    options: Option<String>,
    /// Where it is mounted.
    mounted: PathBuf,
    /// The folder, below the mount point.
    folder: PathBuf,
}

/// The same folder in every hierarchy of the machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
}

impl Cgroups {
    /// The folders called `name` below the caller's own cgroups. Makes nothing.
    pub(super) fn of_machine(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
        let own = fs::read_to_string("/proc/self/cgroup").context("reading the own cgroups")?;
        let hierarchies = hierarchies(&mounts, &own, name);
        if hierarchies.is_empty() {
            bail!("no cgroup hierarchy is mounted below /sys/fs/cgroup");
        }
        Ok(Self { hierarchies })
    }

    /// The folders called `name` below these.
    pub(super) fn child(&self, name: &str) -> Self {
        let mut child = self.clone();
        for hierarchy in &mut child.hierarchies {
            hierarchy.folder.push(name);
        }
        child
    }

    /// Makes the folders and gives them the parents' processors, memory nodes and controllers.
    pub(super) fn create(&self) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let folder = hierarchy.path();
            fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
            let Some(parent) = folder.parent() else {
                continue;
            };
            match &hierarchy.options {
                None => {
                    if hierarchy.is_unified() {
                        enable_controllers(parent)?;
                    }
                }
                // A new cpuset of version 1 is empty, and then no process can join it.
                Some(options) if options.split(',').any(|option| option == "cpuset") => {
                    for file in ["cpuset.cpus", "cpuset.mems"] {
                        let inherited = fs::read_to_string(parent.join(file))?;
                        fs::write(folder.join(file), inherited.trim())
                            .with_context(|| format!("{file} of {}", folder.display()))?;
                    }
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Moves this process in and makes the folders the roots of a cgroup namespace.
    pub(super) fn join_as_root_of_namespace(&self) -> Result<()> {
        self.join(Path::new(""))?;
        unshare(CloneFlags::CLONE_NEWCGROUP).context("a cgroup namespace")?;
        // Version 2 lets only leaves hold processes, and the kubelet makes folders beside this one.
        for hierarchy in self.hierarchies.iter().filter(|h| h.is_unified()) {
            let leaf = hierarchy.path().join("init");
            fs::create_dir_all(&leaf).with_context(|| format!("making {}", leaf.display()))?;
            fs::write(leaf.join("cgroup.procs"), "0")?;
            enable_controllers(&hierarchy.path())?;
        }
        Ok(())
    }

    fn join(&self, below: &Path) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let file = hierarchy.path().join(below).join("cgroup.procs");
            fs::write(&file, "0").with_context(|| format!("joining {}", file.display()))?;
        }
        Ok(())
    }

    /// Mounts the caller's own cgroup namespace at `/sys/fs/cgroup`, laid out as on the machine.
    pub(super) fn mount(&self) -> Result<()> {
        let top = Path::new("/sys/fs/cgroup");
        let none: Option<&str> = None;
        if self.hierarchies.iter().any(Hierarchy::is_unified) {
            return mount(
                Some("cgroup2"),
                top,
                Some("cgroup2"),
                MsFlags::empty(),
                none,
            )
            .context("mounting /sys/fs/cgroup");
        }
        mount(
            Some("tmpfs"),
            top,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=755"),
        )?;
        for hierarchy in &self.hierarchies {
            let point = &hierarchy.mounted;
            fs::create_dir_all(point)?;
            let (kind, options) = match &hierarchy.options {
                Some(options) => ("cgroup", Some(options.as_str())),
                None => ("cgroup2", None),
            };
            mount(Some(kind), point, Some(kind), MsFlags::empty(), options)
                .with_context(|| format!("mounting {}", point.display()))?;
        }
        Ok(())
    }

    /// One process whose cgroup's path has a folder called `name`.
    pub(super) fn process_in(&self, name: &str) -> Option<u32> {
        self.hierarchies.iter().find_map(|hierarchy| {
            folders(&hierarchy.path())
                .into_iter()
                .filter(|folder| folder.iter().any(|part| part == name))
                .filter_map(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok())
                .find_map(|text| text.lines().find_map(|line| line.parse().ok()))
        })
    }

    /// Removes the folders and all below, waiting for the processes in them to be gone.
    pub(super) fn remove(&self, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        for hierarchy in &self.hierarchies {
            let top = hierarchy.path();
            loop {
                // Deepest first; a folder that is still busy fails and is tried again.
                for folder in folders(&top).iter().rev() {
                    let _ = fs::remove_dir(folder);
                }
                if !top.exists() {
                    break;
                }
                if Instant::now() >= end {
                    bail!("{} is still in use after {patience:?}", top.display());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Folders that exist, for tests of the clean-up.
    pub(super) fn existing(&self) -> Vec<PathBuf> {
        self.hierarchies
            .iter()
            .map(Hierarchy::path)
            .filter(|path| path.exists())
            .collect()
    }
}

impl Hierarchy {
    fn path(&self) -> PathBuf {
        self.mounted.join(&self.folder)
    }

    /// Whether this is version 2 with controllers, not the bare one beside version 1.
    fn is_unified(&self) -> bool {
        self.options.is_none() && self.mounted == Path::new("/sys/fs/cgroup")
    }
}

fn enable_controllers(folder: &Path) -> Result<()> {
    let known = fs::read_to_string(folder.join("cgroup.controllers"))?;
    for controller in known.split_whitespace() {
        let file = folder.join("cgroup.subtree_control");
        fs::write(&file, format!("+{controller}"))
            .with_context(|| format!("enabling {controller} in {}", file.display()))?;
    }
    Ok(())
}

/// A folder and all below it, parents first.
fn folders(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_path_buf()];
    let mut next = 0;
    while let Some(folder) = found.get(next) {
        let entries: Vec<PathBuf> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        found.extend(entries);
        next += 1;
    }
    found
}

/// `/proc/self/mountinfo` and `/proc/self/cgroup` (proc(5), cgroups(7)) as hierarchies.
fn hierarchies(mounts: &str, own: &str, name: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        let (Some(point), mut after) = (before.split(' ').nth(4), after.split(' ')) else {
            continue;
        };
        let (kind, options) = (after.next(), after.nth(1).unwrap_or_default());
        let mounted = PathBuf::from(point);
        if !mounted.starts_with("/sys/fs/cgroup") || found.iter().any(|h| h.mounted == mounted) {
            continue;
        }
        // What names the hierarchy: its controllers or its name, among ordinary mount options.
        let named: Vec<&str> = options
            .split(',')
            .filter(|option| !["rw", "ro", "xattr"].contains(option))
            .filter(|option| !option.starts_with("release_agent"))
            .collect();
        let line_of = |wanted: &dyn Fn(&str) -> bool| {
            own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                parts
                    .next()
                    .filter(|controllers| wanted(controllers))
                    .and(parts.next())
            })
        };
        match kind {
            Some("cgroup") => {
                let Some(first) = named.first() else { continue };
                let place = line_of(&|names| names.split(',').any(|name| name == *first));
                let mut options = named.join(",");
                if options.starts_with("name=") {
                    options.insert_str(0, "none,");
                }
                found.push(Hierarchy {
                    options: Some(options),
                    folder: below(place, name),
                    mounted,
                });
            }
            Some("cgroup2") => {
                // With controllers, only the top may be divided further, because the caller sits in its own folder.
                let unified = mounted == Path::new("/sys/fs/cgroup");
                let place = if unified {
                    None
                } else {
                    line_of(&str::is_empty)
                };
                found.push(Hierarchy {
                    options: None,
                    folder: below(place, name),
                    mounted,
                });
            }
            _ => {}
        }
    }
    found
}

fn below(place: Option<&str>, name: &str) -> PathBuf {
    Path::new(place.unwrap_or("/").trim_start_matches('/')).join(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hierarchies_of_a_hybrid_machine_are_found_below_the_own_place() {
        let mounts = "25 24 0:23 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            26 25 0:24 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
            27 25 0:25 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            28 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "2:name=systemd:/a\n1:cpu,cpuacct:/b/c\n0::/\n";
        let found = hierarchies(mounts, own, "lab");
        let seen: Vec<(Option<&str>, String)> = found
            .iter()
            .map(|h| (h.options.as_deref(), h.path().display().to_string()))
            .collect();
        assert_eq!(
            seen,
            [
                (
                    Some("cpu,cpuacct"),
                    "/sys/fs/cgroup/cpu,cpuacct/b/c/lab".to_owned()
                ),
                (
                    Some("none,name=systemd"),
                    "/sys/fs/cgroup/systemd/a/lab".to_owned()
                ),
                (None, "/sys/fs/cgroup/unified/lab".to_owned()),
            ]
        );
        assert!(!found.iter().any(Hierarchy::is_unified));
    }

    #[test]
    fn a_version_2_machine_has_one_hierarchy_at_the_top() {
        let mounts = "26 25 0:24 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = hierarchies(mounts, "0::/user.slice/session\n", "lab");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path(), Path::new("/sys/fs/cgroup/lab"));
        assert!(found[0].is_unified());
    }
}
