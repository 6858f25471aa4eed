//! How the agent writes files: beside their place first, so that a crash or a full disk leaves the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes a file in place of the old one, whole or not at all.
///
/// # Errors
/// It cannot be written; the old one stays.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = write_beside(path, bytes, mode)?;
    fs::rename(beside, path)?;
    sync_parent(path)
}

/// Writes a file where there is none, whole or not at all.
///
/// # Errors
/// It cannot be written, or there is one already: that one stays.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = write_beside(path, bytes, mode)?;
    // A hard link, unlike a rename, never replaces what is there.
    fs::hard_link(&beside, path)?;
    fs::remove_file(beside)?;
    sync_parent(path)
}

/// Removes a file; none is fine.
///
/// # Errors
/// It cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(()),
        other => other,
    }
}

/// Where a file is written before it takes its place. Something is left there only after a crash or a failure.
#[must_use]
pub fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn write_beside(path: &Path, bytes: &[u8], mode: u32) -> io::Result<PathBuf> {
    let beside = beside(path);
    remove(&beside)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(beside)
}

/// A name is on disk when its directory is.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan");
        fs::write(beside(&path), "half of a longer one").unwrap();
        for text in ["first", "second"] {
            replace(&path, text.as_bytes(), 0o600).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(names(dir.path()), ["plan"]);
    }

    #[test]
    fn what_exists_is_not_created_again_and_what_is_gone_is_removed_without_complaint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tie0");
        create(&path, b"first", 0o600).unwrap();
        assert!(create(&path, b"second", 0o600).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        for _ in 0..2 {
            remove(&path).unwrap();
        }
    }

    #[test]
    fn where_nothing_can_be_written_the_old_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan");
        replace(&path, b"old", 0o600).unwrap();
        fs::create_dir(beside(&path)).unwrap();
        assert!(replace(&path, b"new", 0o600).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }
}
