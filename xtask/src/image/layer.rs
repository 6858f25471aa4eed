//! Trees of files, as tar (POSIX.1-1988 "ustar") and gzip. Nothing of the machine gets in: no time, owner or order of its own.

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

const BLOCK: usize = 512;

/// Files by path below the root.
#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<String, Entry>);

#[derive(Debug)]
enum Entry {
    Folder,
    File { bytes: Vec<u8>, mode: u32 },
}

impl Tree {
    /// Adds a file, and the folders above it.
    pub(super) fn file(&mut self, path: &str, bytes: Vec<u8>, mode: u32) {
        for (at, _) in path.match_indices('/') {
            self.0
                .entry(format!("{}/", &path[..at]))
                .or_insert(Entry::Folder);
        }
        self.0.insert(path.to_owned(), Entry::File { bytes, mode });
    }

    /// As tar.
    pub(super) fn tar(&self) -> Result<Vec<u8>> {
        let mut tar = Vec::new();
        for (path, entry) in &self.0 {
            match entry {
                Entry::Folder => tar.extend(header(path, 0, 0o755, b'5')?),
                Entry::File { bytes, mode } => {
                    tar.extend(header(path, bytes.len(), *mode, b'0')?);
                    tar.extend(bytes);
                    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
                }
            }
        }
        tar.resize(tar.len() + 2 * BLOCK, 0);
        Ok(tar)
    }
}

fn header(path: &str, size: usize, mode: u32, kind: u8) -> Result<[u8; BLOCK]> {
    ensure!(path.len() <= 100, "{path} is too long for a tar header");
    ensure!(size < 1 << 33, "{path} is too large for a tar header");
    let mut block = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, path);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    // The sum is taken with blanks in its own place.
    put(148, "        ");
    put(257, "ustar\u{0}00");
    block[156] = kind;
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    Ok(block)
}

/// A layer.
#[derive(Debug)]
pub(super) struct Packed {
    /// What is stored.
    pub(super) gzip: Vec<u8>,
    /// Digest of the tar, as an image's config names it.
    pub(super) diff_id: String,
    /// Size of the tar.
    pub(super) unpacked: u64,
}

/// Packs a tree.
///
/// # Errors
/// `gzip` cannot be run.
pub(super) fn pack(tree: &Tree) -> Result<Packed> {
    let tar = tree.tar()?;
    Ok(Packed {
        diff_id: format!("sha256:{}", sha256(&tar)),
        unpacked: tar.len() as u64,
        gzip: gzip(&tar)?,
    })
}

/// Without name and time (`-n`), so that the same tar gives the same bytes.
fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("gzip")
        .args(["-n", "-9"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("running gzip")?;
    let mut stdin = child.stdin.take().context("gzip takes no input")?;
    // Both ends at once: a full pipe would stop the other.
    let output = std::thread::scope(|scope| {
        let feed = scope.spawn(move || stdin.write_all(bytes));
        let output = child.wait_with_output();
        feed.join()
            .map_err(|_| std::io::Error::other("the writer died"))??;
        output
    })
    .context("talking to gzip")?;
    ensure!(output.status.success(), "gzip failed");
    Ok(output.stdout)
}

/// SHA-256 in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.file("b/c/two", b"2".to_vec(), 0o644);
        tree.file("b/one", vec![7; BLOCK + 1], 0o755);
        tree
    }

    #[test]
    fn tar_lists_what_was_put_in_and_gives_it_back() {
        let dir = std::env::temp_dir().join(format!("tieline-layer-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("x.tar");
        std::fs::write(&file, tree().tar().unwrap()).unwrap();
        let list = Command::new("tar").arg("-tf").arg(&file).output().unwrap();
        let extract = Command::new("tar")
            .arg("-xf")
            .arg(&file)
            .arg("-C")
            .arg(&dir)
            .status()
            .unwrap();
        let one = std::fs::read(dir.join("b/one")).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(
            String::from_utf8(list.stdout).unwrap(),
            "b/\nb/c/\nb/c/two\nb/one\n"
        );
        assert!(extract.success());
        assert_eq!(one, vec![7; BLOCK + 1]);
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        let (first, second) = (pack(&tree()).unwrap(), pack(&tree()).unwrap());
        assert_eq!(first.gzip, second.gzip);
        assert_ne!(format!("sha256:{}", sha256(&first.gzip)), first.diff_id);
    }

    #[test]
    fn a_path_that_a_header_cannot_hold_is_refused() {
        let mut tree = Tree::default();
        tree.file(&"x".repeat(101), Vec::new(), 0o644);
        assert!(tree.tar().is_err());
    }
}
