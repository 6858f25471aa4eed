//! `tieline-operator`: reads the command line, sets up logging and signals, and runs.

use anyhow::{Context, Result};
use std::io::IsTerminal;
use tieline_operator::options::{LogFormat, Options};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The version that this build reports; only this file is compiled again for another one.
const VERSION: &str = match option_env!("TIELINE_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(VERSION);
    log(&options)?;
    let (stop, shutdown) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
    });
    tracing::info!(version = VERSION, cluster = %options.cluster_name, "tieline-operator");
    let client = tieline_operator::client(options.kubeconfig.as_deref()).await?;
    tieline_operator::run(client, options, shutdown).await?;
    Ok(())
}

fn log(options: &Options) -> Result<()> {
    let filter = EnvFilter::try_new(&options.log)
        .with_context(|| format!("--log {:?} is no filter", options.log))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match options.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
