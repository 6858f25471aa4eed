//! What the agent keeps on disk, so that a reboot without an API server restores the mesh.
//!
//! | file | holds | lost or damaged |
//! |---|---|---|
//! | `plan` | the last good plan and accepted peers ([`LastGood`]) | the node waits for the API server; what the kernel holds stays |
//! | `revisions` | the highest revision seen of each lineage ([`Revisions`]) | a plan older than the last good one could be applied |
//! | `seen` | where peers were last seen, and the last good DNS answers ([`Seen`]) | peers behind NAT need to speak first |
//! | `lock` | nothing; whoever runs holds it | |
//!
//! A file is one header line (`tieline <kind> <format version> <sha256 of the rest>`) and JSON. A crash leaves the old or
//! the new one ([`crate::files`]). A damaged file is an error of its own and never mistaken for an absent one. Private keys
//! lie elsewhere ([`crate::identity`]).

use crate::files;
use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tieline_core::host::DeviceName;
use tieline_core::ids::{Lineage, NodeName, PeerName};
use tieline_core::keys::PublicKey;
use tieline_core::network_plan::NetworkPlan;
use tieline_core::peer::{AcceptedPeer, AcceptedPeers};

/// Version of the files' contents. Another one is not read: the API server has the truth.
const FORMAT: u32 = 1;
/// Name of the file that whoever runs holds.
const LOCK: &str = "lock";

/// What was applied last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGood {
    /// The plan.
    pub plan: Arc<NetworkPlan>,
    /// Accepted peers of this cluster.
    pub local: Arc<AcceptedPeers>,
    /// Accepted peers of other clusters.
    pub foreign: Arc<AcceptedPeers>,
}

/// The highest revision seen of each lineage.
pub type Revisions = BTreeMap<Lineage, u64>;

/// What was observed and saves time after a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Where peers were last seen.
    pub endpoints: Vec<SeenEndpoint>,
    /// Last good answer for each DNS name.
    pub names: BTreeMap<NodeName, Vec<IpAddr>>,
}

/// Where one peer of one device was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenEndpoint {
    /// The device.
    pub device: DeviceName,
    /// The peer's key.
    pub key: PublicKey,
    /// Address and port.
    pub endpoint: SocketAddr,
}

/// Which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// [`LastGood`].
    Plan,
    /// [`Revisions`].
    Revisions,
    /// [`Seen`].
    Seen,
}

impl FileKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plan, Self::Revisions, Self::Seen];
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plan => "plan",
            Self::Revisions => "revisions",
            Self::Seen => "seen",
        })
    }
}

/// Why a file could not be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The operating system refused. A retry may help.
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
    /// The contents are not what was written. A retry cannot help; the file is replaced at the next good plan.
    #[error("{} is damaged ({what}); it is ignored, and written anew when the API server has answered", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another agent runs on this state directory.
    #[error(
        "{} is in use by another tieline-agent: stop that one first, or name another --state-dir", path.display()
    )]
    InUse {
        /// The state directory.
        path: PathBuf,
    },
    /// The value has no JSON form; a defect of the agent.
    #[error("cannot write {kind} as JSON")]
    Encode {
        /// Which file.
        kind: FileKind,
        /// Cause.
        #[source]
        source: serde_json::Error,
    },
}

/// The state directory, held by this process alone.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    _lock: Flock<File>,
}

impl Store {
    /// Makes the directory where it does not exist, and takes its lock.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process holds it, [`StoreError::Io`] when it cannot be made.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(io_error("make", dir))?;
        let path = dir.join(LOCK);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self {
                dir: dir.to_owned(),
                _lock: lock,
            }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(StoreError::InUse {
                path: dir.to_owned(),
            }),
            Err((_, errno)) => Err(io_error("lock", &path)(errno.into())),
        }
    }

    /// Names of all files that a store may hold; the lock is the last.
    pub fn files() -> impl Iterator<Item = String> {
        let kinds = FileKind::ALL.into_iter().map(|kind| kind.to_string());
        kinds.chain([LOCK.to_owned()])
    }

    /// The state directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads a file; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when it does not hold what was written, [`StoreError::Io`] when it cannot be read.
    pub fn load<T: DeserializeOwned>(&self, kind: FileKind) -> Result<Option<T>, StoreError> {
        let path = self.path(kind);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        decode(kind, &bytes)
            .map(Some)
            .map_err(|what| StoreError::Damaged { path, what })
    }

    /// Writes a file in place of the old one, whole or not at all.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the old file stays.
    pub fn save<T: Serialize>(&self, kind: FileKind, value: &T) -> Result<(), StoreError> {
        let body =
            serde_json::to_vec(value).map_err(|source| StoreError::Encode { kind, source })?;
        let path = self.path(kind);
        let bytes = [header(kind, &body).into_bytes(), body].concat();
        files::replace(&path, &bytes, 0o600).map_err(io_error("write", &path))
    }

    /// Removes a file; none is fine.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it cannot be removed.
    pub fn erase(&self, kind: FileKind) -> Result<(), StoreError> {
        let path = self.path(kind);
        files::remove(&path).map_err(io_error("remove", &path))
    }

    fn path(&self, kind: FileKind) -> PathBuf {
        self.dir.join(kind.to_string())
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

fn header(kind: FileKind, body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    let mut text = format!("tieline {kind} {FORMAT} ");
    for byte in digest {
        text.push_str(&format!("{byte:02x}"));
    }
    text.push('\n');
    text
}

fn decode<T: DeserializeOwned>(kind: FileKind, bytes: &[u8]) -> Result<T, String> {
    let end = bytes
        .iter()
        .take(128)
        .position(|&byte| byte == b'\n')
        .ok_or("no header")?;
    let (head, body) = bytes.split_at(end + 1);
    if head != header(kind, body).as_bytes() {
        return Err("its header names another kind, version or checksum".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// [`LastGood`] as it is written: the shared parts by reference.
#[derive(Serialize)]
struct LastGoodOut<'a> {
    plan: &'a NetworkPlan,
    local: BTreeMap<&'a PeerName, &'a AcceptedPeer>,
    foreign: BTreeMap<&'a PeerName, &'a AcceptedPeer>,
}

#[derive(Deserialize)]
struct LastGoodIn {
    plan: NetworkPlan,
    local: BTreeMap<PeerName, AcceptedPeer>,
    foreign: BTreeMap<PeerName, AcceptedPeer>,
}

impl Serialize for LastGood {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn by_reference(peers: &AcceptedPeers) -> BTreeMap<&PeerName, &AcceptedPeer> {
            peers.iter().map(|(name, peer)| (name, &**peer)).collect()
        }
        LastGoodOut {
            plan: &self.plan,
            local: by_reference(&self.local),
            foreign: by_reference(&self.foreign),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LastGood {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let LastGoodIn {
            plan,
            local,
            foreign,
        } = LastGoodIn::deserialize(deserializer)?;
        let shared = |peers: BTreeMap<PeerName, AcceptedPeer>| {
            let peers = peers.into_iter();
            Arc::new(peers.map(|(name, peer)| (name, Arc::new(peer))).collect())
        };
        Ok(Self {
            plan: Arc::new(plan),
            local: shared(local),
            foreign: shared(foreign),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn revisions(revision: u64) -> Revisions {
        BTreeMap::from([(Lineage::new("abcdefgh").unwrap(), revision)])
    }

    #[test]
    fn what_was_saved_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.load::<Revisions>(FileKind::Revisions).unwrap(), None);
        store.save(FileKind::Revisions, &revisions(7)).unwrap();
        store.save(FileKind::Revisions, &revisions(8)).unwrap();
        assert_eq!(store.load(FileKind::Revisions).unwrap(), Some(revisions(8)));
        store.erase(FileKind::Revisions).unwrap();
        store.erase(FileKind::Revisions).unwrap();
        assert_eq!(store.load::<Revisions>(FileKind::Revisions).unwrap(), None);
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.save(FileKind::Revisions, &revisions(7)).unwrap();
        let path = dir.path().join("revisions");
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            let error = store.load::<Revisions>(FileKind::Revisions).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "byte {at}");
        }
        for len in 0..good.len() {
            fs::write(&path, &good[..len]).unwrap();
            assert!(store.load::<Revisions>(FileKind::Revisions).is_err());
        }
    }

    #[test]
    fn one_file_is_not_taken_for_another() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.save(FileKind::Revisions, &revisions(7)).unwrap();
        fs::rename(dir.path().join("revisions"), dir.path().join("seen")).unwrap();
        assert!(store.load::<Revisions>(FileKind::Seen).is_err());
    }

    #[test]
    fn two_agents_do_not_share_a_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::open(dir.path()).unwrap();
        assert!(matches!(
            Store::open(dir.path()),
            Err(StoreError::InUse { .. })
        ));
        drop(first);
        assert!(Store::open(dir.path()).is_ok());
    }
}
