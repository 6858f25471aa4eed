//! Small files of the platform's own in the state directory: written whole or not at all, readable by root alone.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Reads a file; one that is missing or damaged is `None`.
pub(super) fn load<T: DeserializeOwned>(file: &Path) -> Option<T> {
    let bytes = fs::read(file).ok()?;
    serde_json::from_slice(&bytes)
        .inspect_err(
            |error| tracing::warn!(file = %file.display(), %error, "ignoring a damaged file"),
        )
        .ok()
}

/// Writes a file, and makes its directory if there is none.
pub(super) fn save(file: &Path, value: &impl Serialize) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    let fresh = file.with_extension("new");
    let mut handle = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    handle.write_all(&serde_json::to_vec(value)?)?;
    handle.sync_all()?;
    fs::rename(&fresh, file)
}

/// Removes a file; one that is gone already is no error.
pub(super) fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
