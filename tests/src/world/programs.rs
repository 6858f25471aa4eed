//! Where Tieline's own programs are: beside the running test in cargo's target folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// What `tests/next-version` calls the version that it builds.
pub const NEXT_VERSION: &str = "0.1.1-next";

/// Tieline's programs, as cargo built them.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `tieline-operator`.
    pub operator: PathBuf,
    /// `tieline-agent`.
    pub agent: PathBuf,
    /// `tieline`.
    pub cli: PathBuf,
}

impl Programs {
    /// Finds those of this version.
    ///
    /// # Errors
    /// One is not there; the message names the command that builds it.
    pub fn find() -> Result<Self> {
        Self::of(&built()?, "cargo build --workspace")
    }

    /// Finds those of [`NEXT_VERSION`].
    ///
    /// # Errors
    /// As [`Programs::find`].
    pub fn next() -> Result<Self> {
        Self::of(&built()?.with_file_name("next"), "tests/next-version")
    }

    /// Those in a folder that a command fills.
    fn of(folder: &Path, command: &str) -> Result<Self> {
        let find = |name: &str| {
            let path = folder.join(name);
            ensure!(
                path.is_file(),
                "{} is not built: run `{command}` first",
                path.display()
            );
            Ok(path)
        };
        Ok(Self {
            operator: find("tieline-operator")?,
            agent: find("tieline-agent")?,
            cli: find("tieline")?,
        })
    }
}

/// `<target>/debug`: a test is `<target>/debug/deps/NAME`, a program `<target>/debug/NAME`.
fn built() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the own executable")?;
    let folder = own
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .context("the own executable is in no folder")?;
    Ok(folder.to_owned())
}

/// The checkout.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}
