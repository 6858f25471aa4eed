//! Where the credential for the API server comes from: a kubeconfig, or the pod's own service account.

use kube::Config;
use kube::config::{
    InClusterError, InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError,
};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// This kubeconfig file; with another context than its current one, where that is named.
    File(&'a Path, Option<&'a str>),
    /// This context of `$KUBECONFIG` or `~/.kube/config`.
    Context(&'a str),
    /// `$KUBECONFIG`, `~/.kube/config`, or else the pod's service account.
    Found,
    /// The pod's service account, and nothing else: who serves a node does not act as the person whose files lie there.
    Pod,
}

/// Why there is no way to the API server. A retry may help: a file may come.
#[derive(Debug, Error)]
pub enum CredentialError {
    /// The file cannot be read, or says nothing that can be used.
    #[error("cannot use the kubeconfig {} (--kubeconfig)", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: KubeconfigError,
    },
    /// The kubeconfig of the environment does not have this context, or cannot be read.
    #[error("cannot use the context {context} of $KUBECONFIG or ~/.kube/config (--context)")]
    Context {
        /// Name of the context.
        context: String,
        /// What is wrong with it.
        #[source]
        source: KubeconfigError,
    },
    /// There is neither a kubeconfig nor a service account.
    #[error(
        "found no credential: name a kubeconfig with --kubeconfig, or run in a pod with a ServiceAccount"
    )]
    NotFound(#[source] InferConfigError),
    /// Not in a pod, or its service account is not mounted.
    #[error(
        "cannot use the pod's service account; outside a cluster, name a file with --kubeconfig"
    )]
    Pod(#[source] InClusterError),
    /// What it names cannot be used: certificates, a token, a proxy.
    #[error("cannot make a client of the credential")]
    Unusable(#[source] Box<kube::Error>),
}

/// Reads the configuration of a client; connects to nothing.
///
/// # Errors
/// [`CredentialError`] when there is none.
pub async fn read(source: Source<'_>) -> Result<Config, CredentialError> {
    let options = |context: Option<&str>| KubeConfigOptions {
        context: context.map(str::to_owned),
        ..KubeConfigOptions::default()
    };
    match source {
        Source::File(path, context) => {
            let failed = |source| CredentialError::File {
                path: path.to_owned(),
                source,
            };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &options(context))
                .await
                .map_err(failed)
        }
        Source::Context(context) => Config::from_kubeconfig(&options(Some(context)))
            .await
            .map_err(|source| CredentialError::Context {
                context: context.to_owned(),
                source,
            }),
        Source::Found => Config::infer().await.map_err(CredentialError::NotFound),
        Source::Pod => Config::incluster().map_err(CredentialError::Pod),
    }
}
