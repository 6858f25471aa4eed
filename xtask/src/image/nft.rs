//! `nft` and the libraries it is linked with, from Debian's packages: exactly those, found by walking what each file names.

use super::layer::Tree;
use super::{Arch, readelf};
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = "usr/sbin/nft";

/// What goes into the image.
#[derive(Debug)]
pub(super) struct Nft {
    /// The files.
    pub(super) tree: Tree,
    /// Debian packages that they come from, with versions.
    pub(super) packages: BTreeMap<String, String>,
}

/// Fetches the packages into `folder`, unless they are there, and picks the files.
///
/// # Errors
/// The packages cannot be fetched, or a library that is named is in none of them.
pub(super) fn find(arch: Arch, folder: &Path) -> Result<Nft> {
    let script = crate::root()?.join("deploy/image/fetch-nft");
    let status = Command::new(&script)
        .arg(arch.name())
        .arg(folder)
        .stdout(std::process::Stdio::null())
        .status()
        .with_context(|| format!("running {}", script.display()))?;
    ensure!(status.success(), "cannot fetch nft for {}", arch.name());
    let root = folder.join("root");
    let mut tree = Tree::default();
    let program = root.join(PROGRAM);
    tree.file("bin/nft", read(&program)?, 0o755);

    let folders = ["lib", "usr/lib"].map(|base| root.join(base).join(arch.triplet()));
    let library = |name: &str| -> Result<PathBuf> {
        let found = folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| path.exists());
        found.with_context(|| {
            format!(
                "nft for {} needs {name}, and no package has it",
                arch.name()
            )
        })
    };
    let mut seen = BTreeSet::new();
    let mut open = vec![program.clone()];
    while let Some(path) = open.pop() {
        for name in needed(&path)? {
            if seen.insert(name.clone()) {
                let path = library(&name)?;
                tree.file(
                    &format!("lib/{}/{name}", arch.triplet()),
                    read(&path)?,
                    0o755,
                );
                open.push(path);
            }
        }
    }
    let loader = loader(&program)?;
    let name = loader.rsplit('/').next().unwrap_or_default().to_owned();
    tree.file(
        loader.trim_start_matches('/'),
        read(&library(&name)?)?,
        0o755,
    );

    let packages = packages(folder)?;
    for name in packages.keys() {
        let copyright = format!("usr/share/doc/{name}/copyright");
        tree.file(&copyright, read(&root.join(&copyright))?, 0o644);
    }
    Ok(Nft { tree, packages })
}

/// Follows links that stay inside the package.
fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// Libraries that a file is linked with.
pub(super) fn needed(file: &Path) -> Result<Vec<String>> {
    let names = |line: &str| {
        let (_, rest) = line.split_once("(NEEDED)")?;
        let (_, rest) = rest.split_once('[')?;
        Some(rest.split_once(']')?.0.to_owned())
    };
    Ok(readelf("-d", file)?.lines().filter_map(names).collect())
}

fn loader(file: &Path) -> Result<String> {
    let headers = readelf("-l", file)?;
    let found = headers.lines().find_map(|line| {
        let (_, rest) = line.split_once("program interpreter: ")?;
        Some(rest.trim_end_matches(']').to_owned())
    });
    match found {
        Some(path) if path.starts_with("/lib") => Ok(path),
        other => bail!("{} names no usual loader: {other:?}", file.display()),
    }
}

fn packages(folder: &Path) -> Result<BTreeMap<String, String>> {
    let text =
        fs::read_to_string(folder.join("packages")).context("reading the list of packages")?;
    text.lines()
        .map(|line| {
            let mut words = line.split(' ').map(str::to_owned);
            words
                .next()
                .zip(words.next())
                .with_context(|| format!("odd line {line:?}"))
        })
        .collect()
}
