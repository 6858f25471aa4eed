//! Where Tieline's own programs are: beside the running test in cargo's target folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

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
    /// Finds them. A test is `<target>/debug/deps/NAME`, a program `<target>/debug/NAME`.
    ///
    /// # Errors
    /// One is not there; the message names the command that builds it.
    pub fn find() -> Result<Self> {
        let own = std::env::current_exe().context("finding the own executable")?;
        let folder = own
            .ancestors()
            .skip(1)
            .find(|folder| !folder.ends_with("deps"))
            .context("the own executable is in no folder")?;
        let find = |name: &str| {
            let path = folder.join(name);
            ensure!(
                path.is_file(),
                "{} is not built: run `cargo build --workspace` first",
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

/// The checkout.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}
