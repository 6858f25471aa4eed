//! What a host's process 1 has to do, as data: written by the test, read inside the host.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::cgroups::Cgroups;

/// A program of the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Unit {
    /// Its name and that of its log.
    pub(super) name: String,
    /// Program and arguments.
    pub(super) command: Vec<String>,
    /// More environment variables.
    pub(super) environment: Vec<(String, String)>,
    /// Starts when all these files exist.
    pub(super) after: Vec<PathBuf>,
    /// What its end means.
    pub(super) kind: UnitKind,
}

/// What the end of a program means.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum UnitKind {
    /// It is started again after a second.
    Service,
    /// It runs to a good end once; then this file is made. After a bad end it is tried again.
    Once(PathBuf),
}

/// A host to be booted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Boot {
    /// Host name.
    pub(super) name: String,
    /// Folders that survive a reboot: `varlib`, `varlog`, `etc`, `opt`, and the overlays' `work`.
    pub(super) disk: PathBuf,
    /// Read-only folders: what is there, and where it appears.
    pub(super) folders: Vec<(PathBuf, PathBuf)>,
    /// Where logs of the units go, outside the host.
    pub(super) logs: PathBuf,
    /// Its place in the machine's cgroups.
    pub(super) cgroups: Cgroups,
    /// `PATH` of the units.
    pub(super) path: String,
    /// Its programs.
    pub(super) units: Vec<Unit>,
}

impl Boot {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("parsing {}", path.display()))
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("writing {}", path.display()))
    }
}
