//! Where the programs of real nodes are: in the cache that `tests/real-nodes/build` fills.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The versions are written once, in the module files that the build script reads too.
const MODULES: [(&str, &str); 4] = [
    (
        "k8s.io/kubernetes",
        include_str!("../../control-plane/kubernetes/go.mod"),
    ),
    (
        "github.com/containernetworking/plugins",
        include_str!("../../real-nodes/cni/go.mod"),
    ),
    (
        "github.com/flannel-io/flannel",
        include_str!("../../real-nodes/flannel/go.mod"),
    ),
    (
        "github.com/coredns/coredns",
        include_str!("../../real-nodes/coredns/go.mod"),
    ),
];

const PROGRAMS: [&str; 8] = [
    "kubelet",
    "kube-scheduler",
    "kube-proxy",
    "flannel",
    "coredns",
    "probe",
    "cni/bridge",
    "cni/ptp",
];

/// The folder with all programs.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// # Errors
    /// Names the programs that are missing and the command that builds them.
    pub(super) fn find() -> Result<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let cache = variable("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache")))
            .context("neither XDG_CACHE_HOME nor HOME is set, so there is no cache to look in")?;
        Self::find_in(&cache.join("tieline/real-nodes").join(folder_name()?))
    }

    fn find_in(folder: &Path) -> Result<Self> {
        let missing: Vec<&str> = PROGRAMS
            .into_iter()
            .filter(|name| !folder.join(name).is_file())
            .collect();
        ensure!(
            missing.is_empty(),
            "real nodes lack {} (looked in {}). Build them once with {}, 3-6 minutes on two cores",
            missing.join(", "),
            folder.display(),
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("real-nodes/build")
                .display(),
        );
        Ok(Self {
            folder: folder.to_path_buf(),
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// As the build script composes it.
fn folder_name() -> Result<String> {
    let [kubernetes, cni, flannel, coredns] = MODULES.map(|(module, text)| version(text, module));
    Ok(format!(
        "{}-cni-{}-flannel-{}-coredns-{}",
        kubernetes?, cni?, flannel?, coredns?
    ))
}

fn version<'a>(module_file: &'a str, module: &str) -> Result<&'a str> {
    module_file
        .lines()
        .find_map(|line| {
            let mut words = line.trim_start_matches("require ").split_whitespace();
            let found = words.next()? == module;
            words.next().filter(|word| found && word.starts_with('v'))
        })
        .with_context(|| format!("a module file has no line 'require {module} VERSION'"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_missing_program_is_named_together_with_the_build_command() {
        let message = Programs::find_in(Path::new("/nonexistent"))
            .unwrap_err()
            .to_string();
        assert!(message.contains("kubelet, kube-scheduler"), "{message}");
        assert!(message.contains("real-nodes/build"), "{message}");
    }

    #[test]
    fn versions_come_from_the_module_files() {
        let name = folder_name().unwrap();
        assert!(name.starts_with("v1.36."), "{name}");
        assert!(
            name.contains("-cni-v1.") && name.contains("-coredns-v1."),
            "{name}"
        );
    }
}
