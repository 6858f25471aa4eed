//! Leaves the host as if the agent had never run.
//!
//! The kernel first, then the state directory: while anything of ours is left in the kernel, the files that say what it
//! is are kept, so that cleaning up can be tried again.

use crate::identity::{self, keys_dir};
use crate::platform::PlatformError;
use crate::platform::linux::{self, Linux};
use crate::store::Store;
use crate::{boot, files};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use tieline_client::chain;

/// Why something is left.
#[derive(Debug, Error)]
pub enum CleanupError {
    /// The kernel still holds something. A retry may help.
    #[error("the kernel still holds something of Tieline: {0}")]
    Kernel(String),
    /// A file could not be removed. A retry may help.
    #[error("cannot remove {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// What was left on purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// The private keys, when they are kept.
    pub keys: Option<PathBuf>,
    /// What lies in the state directory and is not ours.
    pub foreign: Vec<PathBuf>,
}

/// Removes everything of ours. The store's lock shows that no agent is running here.
///
/// # Errors
/// [`CleanupError`] names what is left.
pub async fn cleanup(
    platform: &mut Linux,
    store: Store,
    keep_identity: bool,
) -> Result<Left, CleanupError> {
    let failures: Vec<PlatformError> = platform.cleanup().await;
    if !failures.is_empty() {
        let texts: Vec<String> = failures.iter().map(|failure| chain(failure)).collect();
        return Err(CleanupError::Kernel(texts.join("; ")));
    }
    remove_state(store, keep_identity)
}

/// Removes the files that the agent may have written, by their names: the directory may be a mistyped one that holds
/// something else, and that stays.
fn remove_state(store: Store, keep_identity: bool) -> Result<Left, CleanupError> {
    let dir = store.dir().to_owned();
    let keys = keys_dir(&dir);
    let mut left = Left::default();
    if keep_identity && keys.exists() {
        left.keys = Some(keys.clone());
    } else {
        left.foreign = remove_files(&keys, identity::files())?;
    }
    let ours = boot::FILES.into_iter().chain(linux::FILES);
    let rest = remove_files(&dir, ours.map(str::to_owned).chain(Store::files()))?;
    left.foreign
        .extend(rest.into_iter().filter(|path| *path != keys));
    drop(store);
    Ok(left)
}

/// Removes files of these names, and the directory when it is empty then. Returns what else lies in it.
fn remove_files(
    dir: &Path,
    names: impl Iterator<Item = String>,
) -> Result<Vec<PathBuf>, CleanupError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CleanupError::File { path, source }
    };
    for path in names.map(|name| dir.join(name)) {
        for path in [files::beside(&path), path] {
            files::remove(&path).map_err(failed(&path))?;
        }
    }
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed(dir))?,
    };
    let mut rest = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(failed(dir))?;
    rest.sort();
    if rest.is_empty() {
        // It may be a mount point: then it stays, empty.
        let _ = fs::remove_dir(dir);
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::identity::Identity;
    use crate::store::{FileKind, Seen};
    use tieline_core::host::HostState;

    /// A state directory with all that an agent writes, and the rest of a file that a crash left behind.
    fn used() -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("tieline");
        let store = Store::open(&dir).unwrap();
        Identity::load_or_create(&dir).unwrap();
        store.save(FileKind::Seen, &Seen::default()).unwrap();
        boot::Files::new(&dir).keep(&HostState::default()).unwrap();
        for name in linux::FILES {
            fs::write(dir.join(name), "{}").unwrap();
        }
        fs::write(files::beside(&dir.join("plan")), "half").unwrap();
        (parent, dir)
    }

    #[test]
    fn nothing_of_ours_is_left() {
        let (_parent, dir) = used();
        let left = remove_state(Store::open(&dir).unwrap(), false).unwrap();
        assert_eq!(left, Left::default());
        assert!(!dir.exists());
    }

    #[test]
    fn private_keys_are_kept_when_asked_for() {
        let (_parent, dir) = used();
        let before = Identity::load_or_create(&dir).unwrap();
        let left = remove_state(Store::open(&dir).unwrap(), true).unwrap();
        assert_eq!((left.keys, left.foreign), (Some(dir.join("keys")), vec![]));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        let after = Identity::load_or_create(&dir).unwrap();
        assert_eq!(after.public_keys(), before.public_keys());
    }

    #[test]
    fn what_is_not_ours_stays_and_is_told() {
        let (_parent, dir) = used();
        let foreign = [
            dir.join("keys/id_ed25519"),
            dir.join("letters"),
            dir.join("plan.txt"),
        ];
        fs::create_dir(&foreign[1]).unwrap();
        fs::write(foreign[1].join("draft"), "dear").unwrap();
        for file in [&foreign[0], &foreign[2]] {
            fs::write(file, "mine").unwrap();
        }
        let left = remove_state(Store::open(&dir).unwrap(), false).unwrap();
        assert_eq!(left.foreign, foreign);
        assert!(foreign[1].join("draft").exists());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
    }
}
