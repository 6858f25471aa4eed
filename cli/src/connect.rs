//! The way to the API server, for the commands that need one.

use kube::Client;
use std::path::PathBuf;
use tieline_client::config::{self, CredentialError, Source};
use tieline_client::connect;

/// Flags of every command that asks the API server.
#[derive(Debug, clap::Args)]
pub(crate) struct Connection {
    /// Kubeconfig file; without it $KUBECONFIG, ~/.kube/config, or the pod's own service account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace of the operator and the agents.
    #[arg(
        long,
        short,
        default_value = "tieline-system",
        env = "TIELINE_NAMESPACE"
    )]
    pub namespace: String,
}

/// A client with the credential that the flags name.
///
/// # Errors
/// When there is none, or it cannot be used.
pub(crate) async fn client(connection: &Connection) -> Result<Client, CredentialError> {
    let context = connection.context.as_deref();
    let source = match (&connection.kubeconfig, context) {
        (Some(path), context) => Source::File(path, context),
        (None, Some(context)) => Source::Context(context),
        (None, None) => Source::Found,
    };
    connect(config::read(source).await?)
}
