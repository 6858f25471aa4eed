//! The agent of one node.

use anyhow::{Context, Result};
use std::io::IsTerminal;
use std::path::Path;
use tieline_agent::boot;
use tieline_agent::cleanup::cleanup;
use tieline_agent::identity::Identity;
use tieline_agent::index::Own;
use tieline_agent::memory::Memory;
use tieline_agent::options::{BackendChoice, Command, LogFormat, Options, Settings};
use tieline_agent::platform::linux::{self, Linux};
use tieline_agent::reconcile::{Agent, Constants};
use tieline_agent::run::run;
use tieline_agent::store::{Store, StoreError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Duration, sleep};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The version that this build reports; only this file is compiled again for another one.
const VERSION: &str = match option_env!("TIELINE_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};
/// Pause before the state directory is tried again, while another agent holds it.
const LOCK_PAUSE: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> Result<()> {
    let Options { command, settings } = Options::read(VERSION);
    start_log(&settings)?;
    match command.unwrap_or(Command::Run) {
        Command::Run => keep_running(settings).await,
        Command::BootUnit { units } => put_boot_unit(&settings, &units),
        Command::Cleanup {
            keep_identity,
            units,
        } => clean(settings, keep_identity, &units).await,
    }
}

async fn keep_running(settings: Settings) -> Result<()> {
    let node = settings
        .node_name
        .clone()
        .context("name this node with --node-name or NODE_NAME (its name as a Kubernetes Node)")?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(stop);
    let store = tokio::select! {
        store = wait_for_store(&settings) => store?,
        () = &mut stop => return Ok(()),
    };
    let identity = Identity::load_or_create(&settings.state_dir)?;
    let memory = Memory::load(store);
    let platform = platform(&settings).await?;
    let own = Own {
        node,
        cluster: settings.cluster_name.clone(),
    };
    let constants = Constants {
        first_port: settings.port,
        fwmark: settings.fwmark,
        api_servers: Vec::new(),
    };
    let agent = Agent::new(platform, identity, memory, own, constants);
    run(agent, &settings, stop).await;
    Ok(())
}

fn put_boot_unit(settings: &Settings, units: &Path) -> Result<()> {
    let there = boot::install_unit(units, &settings.state_dir)
        .with_context(|| format!("putting {} into {}", boot::UNIT, units.display()))?;
    if there {
        tracing::info!(
            unit = boot::UNIT,
            "planned ranges stay closed while this host boots"
        );
    } else {
        tracing::warn!(
            units = %units.display(),
            "no systemd here, or a read-only folder: after a reboot, planned ranges are closed only when the agent runs"
        );
    }
    Ok(())
}

async fn clean(settings: Settings, keep_identity: bool, units: &Path) -> Result<()> {
    boot::remove_unit(units)
        .with_context(|| format!("removing {} from {}", boot::UNIT, units.display()))?;
    let store = Store::open(&settings.state_dir)?;
    let mut platform = platform(&settings).await?;
    let left = cleanup(&mut platform, store, keep_identity).await?;
    if !left.foreign.is_empty() {
        let foreign: Vec<_> = left.foreign.iter().map(|path| path.display()).collect();
        tracing::warn!(
            ?foreign,
            "the state directory holds what is not Tieline's: it stays; is --state-dir the right one?"
        );
    }
    match left.keys {
        Some(keys) => {
            tracing::info!(keys = %keys.display(), "everything of Tieline is removed but the private keys")
        }
        None => tracing::info!("everything of Tieline is removed, the private keys too"),
    }
    Ok(())
}

/// While a rolling update replaces the agent, the old one may hold the directory for a moment.
async fn wait_for_store(settings: &Settings) -> Result<Store> {
    let mut told = false;
    loop {
        match Store::open(&settings.state_dir) {
            Err(error @ StoreError::InUse { .. }) => {
                if !told {
                    tracing::warn!(%error, "waiting");
                    told = true;
                }
                sleep(LOCK_PAUSE).await;
            }
            other => return Ok(other?),
        }
    }
}

async fn platform(settings: &Settings) -> Result<Linux> {
    let options = linux::Options {
        state_dir: settings.state_dir.clone(),
        extra_underlay: settings.underlay.iter().cloned().collect(),
        backend: match settings.backend {
            BackendChoice::Auto => linux::BackendChoice::Auto,
            BackendChoice::Kernel => linux::BackendChoice::Kernel,
            BackendChoice::Embedded => linux::BackendChoice::Embedded,
        },
    };
    Ok(Linux::new(options).await?)
}

fn start_log(settings: &Settings) -> Result<()> {
    let filter = EnvFilter::try_new(&settings.log)
        .with_context(|| format!("--log {:?} is no filter", settings.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
