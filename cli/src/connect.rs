//! The way to the API server, for the commands that need one.

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::PathBuf;

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
pub(crate) async fn client(connection: &Connection) -> Result<Client> {
    let options = KubeConfigOptions {
        context: connection.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = match &connection.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &options).await?
        }
        None if connection.context.is_some() => Config::from_kubeconfig(&options).await?,
        None => Config::infer()
            .await
            .context("found no kubeconfig: name one with --kubeconfig")?,
    };
    Ok(Client::try_from(config)?)
}
