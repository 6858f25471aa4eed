//! The control plane that the tests share, and how they speak of it.

use e2e::wait::eventually;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::control_plane::{ControlPlane, Options};

/// Sentences, and what proves them.
pub(crate) type Tests = Vec<(&'static str, fn(&Server) -> Result<()>)>;

/// A control plane with Tieline's kinds, roles and policies in it.
pub(crate) struct Server {
    pub(crate) control_plane: ControlPlane,
    _scratch: Scratch,
}

impl std::ops::Deref for Server {
    type Target = ControlPlane;
    fn deref(&self) -> &ControlPlane {
        &self.control_plane
    }
}

/// Starts it and waits until the policies are in force.
pub(crate) fn start() -> Result<Server, String> {
    let start = || {
        let scratch = Scratch::new("api")?;
        let control_plane =
            ControlPlane::start(Options::new(&scratch.0).with_controller_manager())?;
        let server = Server {
            control_plane,
            _scratch: scratch,
        };
        server
            .apply_crds(&repository().join("crds/yaml"))
            .context("apply crds/yaml")?;
        server
            .apply_path(&repository().join("deploy/manifests"))
            .context("apply deploy/manifests")?;
        wait_for_policies(&server)?;
        Ok(server)
    };
    start().map_err(|failure: anyhow::Error| {
        format!("the API server could not be prepared: {failure:#}")
    })
}

/// A folder that is removed when it is dropped.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("tieline-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // TIELINE_KEEP leaves the logs for somebody who looks for a failure's cause.
        if std::env::var_os("TIELINE_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// The checkout.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// Passes when the API server refused, and gave every one of `reasons`.
pub(crate) fn refused(answer: Result<String>, reasons: &[&str]) -> Result<()> {
    let message = match answer {
        Ok(accepted) => bail!(
            "was accepted and should have been refused: {}",
            accepted.trim()
        ),
        Err(failure) => format!("{failure:#}"),
    };
    for reason in reasons {
        ensure!(
            message.contains(reason),
            "was refused without saying \"{reason}\": {message}"
        );
    }
    Ok(())
}

/// The API server looks for new policies once a second; a policy that holds everything up shows that it has seen them.
fn wait_for_policies(server: &Server) -> Result<()> {
    server.apply(&ledger("cluster-canary", "canary-lineage", 1))?;
    let delete = [
        "delete",
        "--dry-run=server",
        "addressledgers.tieline.dev",
        "cluster-canary",
    ];
    let patience = Duration::from_secs(30);
    eventually("the policies of deploy/manifests", patience, || {
        ensure!(
            server.kubectl(&delete).is_err(),
            "a deletion is let through"
        );
        Ok(())
    })?;
    // All policies were applied together, and a look finds what has arrived: one more look is enough for the others.
    std::thread::sleep(Duration::from_millis(1500));
    Ok(())
}

/// A ledger without grants.
pub(crate) fn ledger(name: &str, lineage: &str, revision: u32) -> String {
    format!(
        "{{apiVersion: tieline.dev/v1alpha1, kind: AddressLedger, metadata: {{name: {name}}},
           spec: {{lineage: {lineage}, revision: {revision}}}}}"
    )
}

/// An accepted Peer of cluster `shop`, as the operator writes it.
pub(crate) fn peer(namespace: &str, node: &str) -> String {
    format!(
        "{{apiVersion: tieline.dev/v1alpha1, kind: Peer, metadata: {{name: shop.{node}, namespace: {namespace}}},
           spec: {{node: {node}, cluster: shop, site: berlin, segment: shop.berlin, planRevision: 1}}}}"
    )
}
