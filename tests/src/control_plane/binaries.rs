//! Where the control plane's programs are: `KUBEBUILDER_ASSETS` first, then the cache that `tests/control-plane/build` fills.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// The versions are written once, in the module files that the build script reads too.
const KUBERNETES_MODULE: &str = include_str!("../../control-plane/kubernetes/go.mod");
const ETCD_MODULE: &str = include_str!("../../control-plane/etcd/go.mod");

/// Paths of the control plane's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub kube_apiserver: PathBuf,
    /// kube-controller-manager.
    pub kube_controller_manager: PathBuf,
    /// kubectl.
    pub kubectl: PathBuf,
}

impl Binaries {
    /// None of them is on this machine.
    pub(super) fn elsewhere() -> Self {
        let nowhere = || PathBuf::from("/nonexistent/runs-elsewhere");
        Self {
            etcd: nowhere(),
            kube_apiserver: nowhere(),
            kube_controller_manager: nowhere(),
            kubectl: nowhere(),
        }
    }

    /// Finds every program in the folder that `KUBEBUILDER_ASSETS` names, or else in the cache.
    ///
    /// # Errors
    /// Names the programs that are missing and the command that builds them.
    pub fn find() -> Result<Self> {
        let assets = std::env::var_os("KUBEBUILDER_ASSETS")
            .filter(|folder| !folder.is_empty())
            .map(PathBuf::from);
        Self::find_in(assets.as_deref(), &cache_folder()?)
    }

    fn find_in(assets: Option<&Path>, cache: &Path) -> Result<Self> {
        let mut missing = Vec::new();
        let mut find = |name: &str| {
            let candidates = assets
                .into_iter()
                .chain([cache])
                .map(|folder| folder.join(name));
            candidates
                .into_iter()
                .find(|path| path.is_file())
                .unwrap_or_else(|| {
                    missing.push(name.to_owned());
                    PathBuf::new()
                })
        };
        let found = Self {
            etcd: find("etcd"),
            kube_apiserver: find("kube-apiserver"),
            kube_controller_manager: find("kube-controller-manager"),
            kubectl: find("kubectl"),
        };
        if !missing.is_empty() {
            bail!(
                "the control plane lacks {} (looked in {}{}). Build it once with {}, 4-8 minutes on two cores",
                missing.join(", "),
                assets
                    .map(|folder| format!("KUBEBUILDER_ASSETS={}, ", folder.display()))
                    .unwrap_or_default(),
                cache.display(),
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("control-plane/build")
                    .display(),
            );
        }
        Ok(found)
    }
}

/// `${XDG_CACHE_HOME:-~/.cache}/tieline/control-plane/<version>`, as the build script has it.
fn cache_folder() -> Result<PathBuf> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = variable("XDG_CACHE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".cache")))
        .context(
            "neither XDG_CACHE_HOME nor HOME is set, so there is no cache folder to look in",
        )?;
    let kubernetes = version(KUBERNETES_MODULE, "k8s.io/kubernetes")?;
    let etcd = version(ETCD_MODULE, "go.etcd.io/etcd/server/v3")?;
    Ok(cache
        .join("tieline/control-plane")
        .join(format!("{kubernetes}-etcd-{etcd}")))
}

/// The version that a module file requires of `module`.
fn version<'a>(module_file: &'a str, module: &str) -> Result<&'a str> {
    module_file
        .lines()
        .find_map(|line| {
            line.strip_prefix("require ")?
                .strip_prefix(module)?
                .strip_prefix(' ')
        })
        .with_context(|| format!("the module file has no line 'require {module} VERSION'"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_missing_program_is_named_together_with_the_build_command() {
        let folder = Path::new("/nonexistent-control-plane");
        let message = Binaries::find_in(None, folder).unwrap_err().to_string();
        assert!(
            message.contains("etcd, kube-apiserver, kube-controller-manager, kubectl"),
            "{message}"
        );
        assert!(message.contains("tests/control-plane/build"), "{message}");
    }

    #[test]
    fn kubebuilder_assets_win_over_the_cache() {
        let scratch = std::env::temp_dir().join(format!("tieline-binaries-{}", std::process::id()));
        let (assets, cache) = (scratch.join("assets"), scratch.join("cache"));
        for (folder, names) in [
            (&assets, &["etcd"][..]),
            (
                &cache,
                &[
                    "etcd",
                    "kube-apiserver",
                    "kube-controller-manager",
                    "kubectl",
                ],
            ),
        ] {
            std::fs::create_dir_all(folder).unwrap();
            names
                .iter()
                .for_each(|name| std::fs::write(folder.join(name), "").unwrap());
        }
        let found = Binaries::find_in(Some(&assets), &cache).unwrap();
        std::fs::remove_dir_all(&scratch).unwrap();
        assert_eq!(found.etcd, assets.join("etcd"));
        assert_eq!(found.kubectl, cache.join("kubectl"));
    }

    #[test]
    fn versions_come_from_the_module_files() {
        assert!(
            version(KUBERNETES_MODULE, "k8s.io/kubernetes")
                .unwrap()
                .starts_with("v1.36.")
        );
        assert!(
            version(ETCD_MODULE, "go.etcd.io/etcd/server/v3")
                .unwrap()
                .starts_with("v3.6.")
        );
    }
}
