//! What is measured, built: programs of this checkout, the same of the baseline commit, and Kubernetes' allocator.
//!
//! ```text
//!  ${XDG_CACHE_HOME:-~/.cache}/tieline/bench/<commit>/source             the commit's files
//!                                                    /programs           a copy of bench/baseline, with its target folder
//!                                                    /tieline-operator   the commit's operator, built once
//! ```

use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How rows call the baseline.
pub(crate) const BASELINE: &str = "bf19959";
/// The commit that new builds are compared with.
const COMMIT: &str = "bf19959d5ed4583005fad0e401598524cd8c368c";

/// Builds what benches ask for.
pub(crate) struct Builds {
    checkout: PathBuf,
    target: PathBuf,
    baseline: PathBuf,
}

/// An operator, and what belongs to it.
#[derive(Debug, Clone)]
pub(crate) struct OperatorBuild {
    /// How rows call it.
    pub(crate) name: &'static str,
    /// The program.
    pub(crate) program: PathBuf,
    /// The checkout with its definitions and manifests.
    pub(crate) source: PathBuf,
}

impl Builds {
    /// Builds nothing yet.
    ///
    /// # Errors
    /// There is neither XDG_CACHE_HOME nor HOME.
    pub(crate) fn new() -> Result<Self> {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .context("the bench has no checkout")?
            .to_owned();
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
            || checkout.join("target"),
            |folder| checkout.join(PathBuf::from(folder)),
        );
        let cache = match std::env::var_os("XDG_CACHE_HOME") {
            Some(cache) => PathBuf::from(cache),
            None => {
                PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache")
            }
        };
        Ok(Self {
            checkout,
            target,
            baseline: cache.join("tieline/bench").join(BASELINE),
        })
    }

    /// The checkout that is measured.
    pub(crate) fn checkout(&self) -> &Path {
        &self.checkout
    }

    /// A program of `bench/core` with its argument.
    ///
    /// # Errors
    /// It does not build.
    pub(crate) fn core(&self, program: &str, argument: &str) -> Result<Command> {
        cargo(&self.checkout, &self.target, &["-p", "bench-core"])?;
        Ok(command(
            &self.target.join("release").join(program),
            argument,
        ))
    }

    /// A program of `bench/baseline` with its argument.
    ///
    /// # Errors
    /// It does not build, or the commit is not there.
    pub(crate) fn baseline(&self, program: &str, argument: &str) -> Result<Command> {
        self.baseline_source()?;
        let programs = self.baseline.join("programs");
        copy(&self.checkout.join("bench/baseline"), &programs)?;
        let target = programs.join("target");
        cargo(&programs, &target, &[])?;
        Ok(command(&target.join("release").join(program), argument))
    }

    /// The programs of a control plane, in the cache of the labs.
    ///
    /// # Errors
    /// One of them does not build.
    pub(crate) fn control_plane(&self) -> Result<()> {
        let build = self.checkout.join("tests/control-plane/build");
        // It prints the folder for other scripts.
        run(Command::new(build).stdout(Stdio::null()))
    }

    /// The operator of the checkout.
    ///
    /// # Errors
    /// It does not build.
    pub(crate) fn operator(&self) -> Result<OperatorBuild> {
        cargo(&self.checkout, &self.target, &["-p", "tieline-operator"])?;
        // Where the baseline's would replace it.
        let program = self.target.join("bench/tieline-operator");
        place(&self.target.join("release/tieline-operator"), &program)?;
        Ok(OperatorBuild {
            name: "this checkout",
            program,
            source: self.checkout.clone(),
        })
    }

    /// The operator of the baseline.
    ///
    /// # Errors
    /// It does not build, or the commit is not there.
    pub(crate) fn baseline_operator(&self) -> Result<OperatorBuild> {
        let source = self.baseline_source()?;
        let program = self.baseline.join("tieline-operator");
        if !program.is_file() {
            // In the checkout's own target folder, where most of its dependencies are built already.
            cargo(&source, &self.target, &["-p", "tieline-operator"])?;
            place(&self.target.join("release/tieline-operator"), &program)?;
        }
        Ok(OperatorBuild {
            name: BASELINE,
            program,
            source,
        })
    }

    /// The program of `bench/cidrset`.
    ///
    /// # Errors
    /// It does not build.
    pub(crate) fn cidrset(&self) -> Result<Command> {
        let program = self.target.join("bench/cidrset");
        run(Command::new("go")
            .args(["build", "-trimpath", "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(self.checkout.join("bench/cidrset"))
            .env("GOFLAGS", "-mod=readonly")
            .env("GOWORK", "off")
            .env("CGO_ENABLED", "0"))
        .context("build bench/cidrset; it needs Go 1.26 or newer")?;
        Ok(Command::new(program))
    }

    /// The baseline's files, taken out of the repository once.
    fn baseline_source(&self) -> Result<PathBuf> {
        let source = self.baseline.join("source");
        if source.is_dir() {
            return Ok(source);
        }
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.arg("-C").arg(&self.checkout).args(arguments);
            git
        };
        let known = git(&["cat-file", "-e", &format!("{COMMIT}^{{commit}}")])
            .stderr(Stdio::null())
            .status()
            .context("start git")?;
        if !known.success() {
            bail!(
                "commit {COMMIT}, which new builds are compared with, is not in {}: this is a shallow clone, or none. \
                 Fetch it with `git fetch --unshallow`, or with `git fetch origin {COMMIT}` alone",
                self.checkout.display()
            );
        }
        eprintln!("taking {BASELINE} out into {}", source.display());
        fs::create_dir_all(&self.baseline)
            .with_context(|| format!("create {}", self.baseline.display()))?;
        // Written beside its place and renamed: a run that is cut off leaves nothing that looks finished.
        let archive = self.baseline.join("source.tar");
        run(git(&["archive", "-o"]).arg(&archive).arg(COMMIT))?;
        let partial = self.baseline.join("source.partial");
        fs::create_dir_all(&partial).with_context(|| format!("create {}", partial.display()))?;
        run(Command::new("tar")
            .arg("-xf")
            .arg(&archive)
            .arg("-C")
            .arg(&partial))?;
        fs::rename(&partial, &source).with_context(|| format!("create {}", source.display()))?;
        fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))?;
        Ok(source)
    }
}

fn command(program: &Path, argument: &str) -> Command {
    let mut command = Command::new(program);
    command.args((!argument.is_empty()).then_some(argument));
    command
}

/// A release build, as releases are made.
fn cargo(folder: &Path, target: &Path, what: &[&str]) -> Result<()> {
    run(Command::new("cargo")
        .args(["build", "--release", "--locked"])
        .args(what)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", target))
}

fn run(command: &mut Command) -> Result<()> {
    let text = format!("{command:?}");
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("start {text}"))?;
    ensure!(status.success(), "{text}: {status}");
    Ok(())
}

/// Copies a program to where nothing replaces it.
fn place(from: &Path, to: &Path) -> Result<()> {
    let partial = to.with_extension("partial");
    let copy = || {
        fs::create_dir_all(to.parent().unwrap_or(to))?;
        fs::copy(from, &partial)?;
        fs::rename(&partial, to)
    };
    copy().with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

/// Copies a folder's files. Those that are the same already stay untouched: nothing is built anew for them.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let entries = fs::read_dir(from).with_context(|| format!("read {}", from.display()))?;
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name() else {
            continue;
        };
        let target = to.join(name);
        if path.is_dir() {
            copy(&path, &target)?;
            continue;
        }
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        if fs::read(&target).ok().as_ref() != Some(&text) {
            fs::write(&target, text).with_context(|| format!("write {}", target.display()))?;
        }
    }
    Ok(())
}
