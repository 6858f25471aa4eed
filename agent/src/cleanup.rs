//! Leaves the host as if the agent had never run.
//!
//! The kernel first, then the state directory: while anything of ours is left in the kernel, the files that say what it
//! is are kept, so that cleaning up can be tried again.

use crate::identity::keys_dir;
use crate::platform::PlatformError;
use crate::platform::linux::Linux;
use crate::report::chain;
use crate::store::Store;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The private keys, when they are kept.
    pub keys: Option<PathBuf>,
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
    let dir = store.dir().to_owned();
    let keys = keys_dir(&dir);
    let keep = keep_identity && keys.exists();
    remove_contents(&dir, if keep { Some(&keys) } else { None })?;
    drop(store);
    if !keep {
        // The directory itself may be a mount point: then it stays, empty.
        let _ = fs::remove_dir(&dir);
    }
    Ok(Left {
        keys: keep.then_some(keys),
    })
}

/// Everything below a directory that is ours alone.
fn remove_contents(dir: &Path, keep: Option<&Path>) -> Result<(), CleanupError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CleanupError::File { path, source }
    };
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let path = entry.map_err(failed(dir))?.path();
        if keep == Some(path.as_path()) {
            continue;
        }
        let is_dir = fs::symlink_metadata(&path).map_err(failed(&path))?.is_dir();
        let removed = if is_dir {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(failed(&path))?;
    }
    Ok(())
}
