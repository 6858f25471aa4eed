//! The node's own private keys: one per device that it could ever have, and one to which secrets are sealed.
//!
//! They are made here, once, and never leave the node: only their public halves are claimed. All keys are made at the
//! first start, before anybody asks for them, so that a node joins with one claim. A file that exists is never
//! written again: a damaged one stops the agent, because a new key in its place would silently cut the node's tunnels.
//!
//! ```text
//!  <state dir>/keys/         0700
//!    tie0 … tie3             0600   outer devices by rank, 44 characters of base64 as `wg genkey` prints them
//!    tiei0 … tiei3           0600   inner devices by rank
//!    sealing                 0600   for sealed secrets
//! ```

use crate::files;
use base64::{Engine, prelude::BASE64_STANDARD};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;
use tieline_core::host::DeviceName;
use tieline_core::keys::{KeyError, PublicKey};

/// Highest rank of a gateway.
const MAX_RANK: u8 = 3;
/// Longest key file that is read, in bytes; a good one has 44 and a line end.
const MAX_FILE: u64 = 256;
/// Name of the file of the key to which secrets are sealed.
const SEALING: &str = "sealing";

/// The node's private keys.
pub struct Identity {
    devices: BTreeMap<DeviceName, ([u8; 32], PublicKey)>,
    sealing: (crypto_box::SecretKey, PublicKey),
}

/// Why the keys cannot be used.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A file or folder could not be read or written. A retry may help.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Not a key. A retry cannot help.
    #[error(
        "{} holds no private key: restore it from a backup, or remove it so that the agent makes a new one \
         (this node's tunnels stand still until the new key is accepted)", path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// Others may read the key. A retry cannot help.
    #[error(
        "{} can be read by others (mode {mode:03o}): if nobody did, `chmod 600` it; otherwise remove it so that the \
         agent makes a new one", path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key's public half is of low order; practically impossible by chance.
    #[error("{} holds an unusable private key: remove it so that the agent makes a new one", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: KeyError,
    },
}

impl Identity {
    /// Reads the keys below the state directory, and makes those that do not exist.
    ///
    /// The caller holds the state directory's lock ([`crate::store::Store::open`]).
    ///
    /// # Errors
    /// [`IdentityError`]: nothing that exists has been changed.
    pub fn load_or_create(state_dir: &Path) -> Result<Self, IdentityError> {
        let dir = keys_dir(state_dir);
        private_dir(&dir)?;
        let mut devices = BTreeMap::new();
        for name in own_devices() {
            let path = dir.join(name.to_string());
            let private = load_or_create(&path)?;
            devices.insert(name, (private, public_half(&private, &path)?));
        }
        let path = dir.join(SEALING);
        let private = load_or_create(&path)?;
        let sealing = (
            crypto_box::SecretKey::from_bytes(private),
            public_half(&private, &path)?,
        );
        Ok(Self { devices, sealing })
    }

    /// Public key of each device.
    #[must_use]
    pub fn public_keys(&self) -> BTreeMap<DeviceName, PublicKey> {
        self.devices
            .iter()
            .map(|(name, (_, public))| (*name, *public))
            .collect()
    }

    /// Private key of each device.
    #[must_use]
    pub fn private_keys(&self) -> BTreeMap<DeviceName, [u8; 32]> {
        self.devices
            .iter()
            .map(|(name, (private, _))| (*name, *private))
            .collect()
    }

    /// Public key to seal secrets to.
    #[must_use]
    pub fn sealing_public(&self) -> PublicKey {
        self.sealing.1
    }

    /// Private key that opens sealed secrets.
    #[must_use]
    pub fn sealing_private(&self) -> &crypto_box::SecretKey {
        &self.sealing.0
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("devices", &self.public_keys())
            .field("sealing", &self.sealing.1)
            .finish()
    }
}

/// Where the keys lie.
#[must_use]
pub fn keys_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("keys")
}

/// Names of all files that lie there.
pub fn files() -> impl Iterator<Item = String> {
    own_devices()
        .map(|device| device.to_string())
        .chain([SEALING.to_owned()])
}

/// The devices that a node may get: outer and inner ones of every rank, in lane 0 and epoch 0.
fn own_devices() -> impl Iterator<Item = DeviceName> {
    (0..=MAX_RANK).flat_map(|rank| [DeviceName::outer(rank), DeviceName::inner(rank)])
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    move |source| IdentityError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

fn private_dir(dir: &Path) -> Result<(), IdentityError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io_error("make", dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
        .map_err(io_error("protect (mode 0700)", dir))
}

fn load_or_create(path: &Path) -> Result<[u8; 32], IdentityError> {
    match load(path)? {
        Some(key) => Ok(key),
        None => create(path),
    }
}

fn load(path: &Path) -> Result<Option<[u8; 32]>, IdentityError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("open", path)(error)),
    };
    let mode = file.metadata().map_err(io_error("examine", path))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = Vec::new();
    file.take(MAX_FILE)
        .read_to_end(&mut text)
        .map_err(io_error("read", path))?;
    BASE64_STANDARD
        .decode(text.trim_ascii())
        .ok()
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .filter(|bytes| *bytes != [0; 32])
        .map(Some)
        .ok_or_else(|| IdentityError::Corrupt {
            path: path.to_owned(),
        })
}

/// Makes a key: a crash leaves either none or all of it, and one that exists is never replaced.
fn create(path: &Path) -> Result<[u8; 32], IdentityError> {
    let private = x25519_dalek::StaticSecret::from(rand::random::<[u8; 32]>()).to_bytes();
    let text = format!("{}\n", BASE64_STANDARD.encode(private));
    files::create(path, text.as_bytes(), 0o600).map_err(io_error("make", path))?;
    Ok(private)
}

fn public_half(private: &[u8; 32], path: &Path) -> Result<PublicKey, IdentityError> {
    let secret = x25519_dalek::StaticSecret::from(*private);
    PublicKey::from_bytes(x25519_dalek::PublicKey::from(&secret).to_bytes()).map_err(|source| {
        IdentityError::Unusable {
            path: path.to_owned(),
            source,
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_second_start_finds_the_keys_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(dir.path()).unwrap();
        let second = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!(first.public_keys(), second.public_keys());
        assert_eq!(first.sealing_public(), second.sealing_public());
        assert_eq!(first.public_keys().len(), 8);
    }

    #[test]
    fn all_keys_differ_and_nobody_else_may_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(dir.path()).unwrap();
        let mut keys: Vec<_> = identity.public_keys().into_values().collect();
        keys.push(identity.sealing_public());
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 9);
        let keys_dir = keys_dir(dir.path());
        assert_eq!(fs::metadata(&keys_dir).unwrap().mode() & 0o777, 0o700);
        let files: Vec<_> = fs::read_dir(&keys_dir)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(files.len(), 9);
        for file in files {
            assert_eq!(
                file.metadata().unwrap().mode() & 0o777,
                0o600,
                "{:?}",
                file.path()
            );
        }
    }

    #[test]
    fn a_corrupt_key_is_an_error_that_says_what_to_do_and_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_create(dir.path()).unwrap();
        let path = keys_dir(dir.path()).join("tie0");
        for damaged in [
            "",
            "short",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
        ] {
            fs::write(&path, damaged).unwrap();
            let error = Identity::load_or_create(dir.path()).unwrap_err();
            assert!(matches!(error, IdentityError::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains("remove it"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_create(dir.path()).unwrap();
        let path = keys_dir(dir.path()).join("sealing");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Identity::load_or_create(dir.path()).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn what_a_crash_left_behind_does_not_stop_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(keys_dir(dir.path())).unwrap();
        fs::write(keys_dir(dir.path()).join(".tie0.new"), "half a k").unwrap();
        assert!(Identity::load_or_create(dir.path()).is_ok());
    }

    #[test]
    fn private_keys_are_not_printed() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(dir.path()).unwrap();
        let printed = format!("{identity:?}");
        for private in identity.private_keys().values() {
            assert!(!printed.contains(&BASE64_STANDARD.encode(private)));
        }
    }
}
