//! Names that WireGuard does not know: which attachment a device's key or a peer's pre-shared key belongs to.
//!
//! The kernel holds key bytes, the model holds names. A name is believed only while the bytes are the ones that were set
//! under it (of a pre-shared key, its digest is kept, never the key).

use super::state;
use super::wireguard::SeenDevice;
use crate::files;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use tieline_core::host::{DeviceName, KeySource};
use tieline_core::ids::VpnName;
use tieline_core::keys::PublicKey;

/// Name of the file in the state directory.
pub(super) const FILE: &str = "labels.json";

/// Names given so far, kept on disk.
#[derive(Debug)]
pub(super) struct Labels {
    file: PathBuf,
    known: Known,
    changed: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    devices: BTreeMap<DeviceName, (PublicKey, VpnName)>,
    peers: BTreeMap<DeviceName, BTreeMap<PublicKey, (String, VpnName)>>,
}

impl Labels {
    /// Reads what a former run named.
    pub(super) fn open(state_dir: &Path) -> Self {
        let file = state_dir.join(FILE);
        Self {
            known: state::load(&file).unwrap_or_default(),
            file,
            changed: false,
        }
    }

    /// Where a device's key comes from.
    pub(super) fn key_source(&self, name: DeviceName, device: &SeenDevice) -> KeySource {
        match self.known.devices.get(&name) {
            Some((key, vpn)) if *key == device.public_key => KeySource::Attachment(vpn.clone()),
            _ => KeySource::Own,
        }
    }

    /// The attachment whose pre-shared key these bytes are.
    pub(super) fn preshared_key(
        &self,
        name: DeviceName,
        peer: PublicKey,
        bytes: Option<&[u8; 32]>,
    ) -> Option<VpnName> {
        let (digest, vpn) = self.known.peers.get(&name)?.get(&peer)?;
        (*digest == digest_of(bytes?)).then(|| vpn.clone())
    }

    /// Names a device's key.
    pub(super) fn name_device(&mut self, name: DeviceName, key: PublicKey, source: &KeySource) {
        let label = match source {
            KeySource::Own => None,
            KeySource::Attachment(vpn) => Some((key, vpn.clone())),
        };
        if self.known.devices.get(&name) != label.as_ref() {
            self.changed = true;
            match label {
                Some(label) => self.known.devices.insert(name, label),
                None => self.known.devices.remove(&name),
            };
        }
    }

    /// Names a peer's pre-shared key; `None`: it has none.
    pub(super) fn name_peer(
        &mut self,
        name: DeviceName,
        peer: PublicKey,
        preshared_key: Option<(&VpnName, &[u8; 32])>,
    ) {
        let label = preshared_key.map(|(vpn, bytes)| (digest_of(bytes), vpn.clone()));
        let peers = self.known.peers.entry(name).or_default();
        if peers.get(&peer) != label.as_ref() {
            self.changed = true;
            match label {
                Some(label) => peers.insert(peer, label),
                None => peers.remove(&peer),
            };
        }
        if peers.is_empty() {
            self.known.peers.remove(&name);
        }
    }

    /// Forgets a device and its peers.
    pub(super) fn forget(&mut self, name: DeviceName) {
        self.changed |= self.known.devices.remove(&name).is_some();
        self.changed |= self.known.peers.remove(&name).is_some();
    }

    /// Writes what changed to disk.
    pub(super) fn save(&mut self) -> io::Result<()> {
        if self.changed {
            state::save(&self.file, &self.known)?;
            self.changed = false;
        }
        Ok(())
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.known = Known::default();
        self.changed = false;
        files::remove(&self.file)
    }
}

fn digest_of(bytes: &[u8; 32]) -> String {
    BASE64_STANDARD.encode(Sha256::digest(bytes))
}
