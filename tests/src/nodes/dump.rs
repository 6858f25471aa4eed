//! What a node holds, kernel and files, as text that compares: for "the same as before the install".

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::NodeLab;
use crate::lab::Dump;

/// Folders of which every file counts, with its contents. In a host they are overlays, so they hold the whole machine's files;
/// only the host's own are looked at.
const OWN: [&str; 2] = ["etc", "opt"];
/// Folders of which the entries of the first level count: what is below belongs to kubelet and runtime, and changes with pods.
const SHALLOW: [&str; 4] = ["/run", "/run/wireguard", "/var/lib", "/var/log"];
/// Anywhere below /run and /var/lib, names with these words are somebody's who runs a mesh.
const WORDS: [&str; 2] = ["tieline", "wireguard"];
/// Depth of the search for [`WORDS`]: `/var/lib/kubelet` and the runtime's snapshots go deeper, and are not ours to clean.
const DEPTH: u32 = 2;

impl NodeLab {
    /// A running node's links, addresses, rules, routes, nft rules and sysctls, and the files that an installation could leave.
    ///
    /// # Errors
    ///
    /// When the node does not run or one of the tools fails.
    pub fn dump(&self, node: &str) -> Result<Dump> {
        let machine = self.lab.node(node)?;
        let mut dump = machine.dump()?;
        let mut files = BTreeSet::new();
        for folder in OWN {
            contents(&machine.disk().join(folder), folder, &mut files)?;
        }
        for folder in SHALLOW {
            names(&self.node_path(node, folder)?, folder, &mut files)?;
        }
        for folder in ["/run", "/var/lib"] {
            let path = self.node_path(node, folder)?;
            marked(&path, folder, DEPTH, &mut files)?;
        }
        dump.add("files", files.into_iter().collect());
        Ok(dump)
    }
}

/// Every file of a folder with a number that follows from its contents.
fn contents(folder: &Path, shown: &str, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in entries(folder)? {
        let shown = format!("{shown}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            // An overlay copies the machine's own folders when something in them is touched.
            if !Path::new("/").join(&shown).is_dir() {
                found.insert(format!("/{shown}/"));
            }
            contents(&entry.path(), &shown, found)?;
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).with_context(|| format!("reading {shown}"))?;
            found.insert(format!(
                "/{shown} {} bytes, sum {:016x}",
                bytes.len(),
                sum(&bytes)
            ));
        } else {
            found.insert(format!("/{shown} ({kind:?})"));
        }
    }
    Ok(())
}

fn names(folder: &Path, shown: &str, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in entries(folder)? {
        found.insert(format!("{shown}/{}", entry.file_name().to_string_lossy()));
    }
    Ok(())
}

fn marked(folder: &Path, shown: &str, depth: u32, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in entries(folder)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let shown = format!("{shown}/{name}");
        if WORDS.iter().any(|word| name.contains(word)) {
            found.insert(shown.clone());
        }
        // What goes away while it is looked at was not left by anybody.
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            marked(&entry.path(), &shown, depth - 1, found)?;
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", folder.display())),
    }
}

/// FNV-1a, 64 bits: tells contents apart in a test, and protects nothing.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
