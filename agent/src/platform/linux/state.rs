//! Small files of the platform's own in the state directory: written whole or not at all, readable by root alone.

use crate::files;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io;
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
    files::replace(file, &serde_json::to_vec(value)?, 0o600)
}
