//! The operator: hub and member of a single cluster in one process.
//!
//! ```text
//!  API server ──watches──► index ──bell──► reconcile ──► ledgers, plans, Peers, Secrets
//!       ▲                    ▲                │
//!       │                    └── own writes ──┤
//!       └──── statuses, labels, Events ◄── status lane
//! ```
//!
//! | module | what it does | |
//! |---|---|---|
//! | [`index`], [`store`] | everything that was read | pure; shared |
//! | [`watch`] | the API server's events into the store | IO |
//! | [`world`] | the index as the planner reads it | pure |
//! | [`mod@reconcile`] | one pass over everything | the sequence; each step marked |
//! | [`ledgers`] | how ledgers are stored, in which order; what waits when one is full | pure |
//! | [`restore`] | what waits after a restored backup | pure |
//! | [`vpn`] | keys of VPN attachments, sealed boxes, the other side's configuration | pure |
//! | [`status`], [`lane`] | what people read, and writing it | pure; IO |
//! | [`mod@write`] | one request each, only while leading | IO |
//! | [`leader`], [`lease`] | who leads | pure; IO |
//! | [`schema`], [`admin`], [`metrics`], [`options`] | start check, endpoints, numbers, flags | |

pub mod admin;
pub mod index;
pub mod lane;
pub mod leader;
pub mod lease;
pub mod ledgers;
pub mod metrics;
pub mod options;
pub mod reconcile;
pub mod restore;
pub mod schema;
pub mod status;
pub mod store;
pub mod vpn;
pub mod watch;
pub mod world;
pub mod write;

use crate::lease::Leadership;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::reconcile::{Decided, Keeper, reconcile};
use crate::store::Store;
use crate::write::{WriteError, Writer};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::events::{Recorder, Reporter};
use kube::{Client, Config};
use rand::Rng;
use rand::distr::Alphanumeric;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tieline_core::ids::{Lineage, NameError};
use tokio::sync::watch as channel;

/// How long events are gathered before a pass: one user action is often several objects.
const GATHER: Duration = Duration::from_millis(4);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// How long each part may take to end at shutdown.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why the operator ends by itself.
#[derive(Debug, Error)]
pub enum RunError {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig")]
    Kubeconfig(#[source] kube::config::KubeconfigError),
    /// No way to the API server.
    #[error("cannot make a client for the API server")]
    Client(#[source] Box<kube::Error>),
    /// The credential of the environment cannot be used.
    #[error("found no credential: give --kubeconfig, or run in a pod with a ServiceAccount")]
    NoCredential(#[source] kube::config::InferConfigError),
    /// The admin address cannot be bound.
    #[error("cannot listen on --metrics-address")]
    Listen(#[source] std::io::Error),
    /// A generated name is not valid, which is a bug.
    #[error("cannot make a lineage")]
    Lineage(#[from] NameError),
}

/// A client with the credential that the options name.
///
/// # Errors
/// [`RunError`] when there is none or it cannot be used.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, RunError> {
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(RunError::Kubeconfig)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(RunError::Kubeconfig)?
        }
        None => Config::infer().await.map_err(RunError::NoCredential)?,
    };
    tieline_client::connect(config).map_err(|error| RunError::Client(Box::new(error)))
}

/// Runs until `shutdown` becomes true, then finishes the current writes, gives the Lease back and returns.
///
/// # Errors
/// [`RunError`] when it cannot start. Once it runs, it goes on: every failure is logged and tried again.
pub async fn run(
    client: Client,
    options: Options,
    mut shutdown: channel::Receiver<bool>,
) -> Result<(), RunError> {
    let store = Arc::new(Store::default());
    let metrics = Metrics::new(options.version);
    let admin = admin::serve(
        options.metrics_address,
        metrics.clone(),
        store.clone(),
        shutdown.clone(),
    )
    .await
    .map_err(RunError::Listen)?;
    let watches = watch::follow_all(&client, &options, &store, &metrics);
    let identity = options.identity.clone().unwrap_or_else(identity);
    if !schema_fits(&client, &mut shutdown).await {
        return Ok(());
    }
    let (leadership, candidacy) = if options.leader_elect {
        let (bell, gauge) = (store.clone(), metrics.clone());
        let duration = Duration::from_secs(u64::from(options.lease_seconds));
        let candidate = (client.clone(), options.namespace.clone(), identity.clone());
        let (leadership, candidacy) = lease::elect(
            candidate.0,
            candidate.1,
            candidate.2,
            duration,
            shutdown.clone(),
            move |leads| {
                gauge.leading.set(i64::from(leads));
                if leads {
                    bell.ring();
                }
            },
        );
        (leadership, Some(candidacy))
    } else {
        metrics.leading.set(1);
        (Leadership::always(), None)
    };

    let writer = Writer::new(
        client.clone(),
        options.namespace.clone(),
        leadership,
        store.clone(),
        metrics.clone(),
    );
    let (decisions, decided) = channel::channel(None);
    let (events, happened) = tokio::sync::mpsc::unbounded_channel();
    let reporter = Reporter {
        controller: write::MANAGER.into(),
        instance: Some(identity),
    };
    let lane = tokio::spawn(lane::run(
        store.clone(),
        writer.clone(),
        Recorder::new(client, reporter),
        decided,
        happened,
    ));
    let mut keeper = Keeper {
        cluster: options.cluster_name.clone(),
        fresh: Lineage::new(random(16))?,
        memory: world::Memory::default(),
        seen: restore::Seen::default(),
        agent_port: options.agent_port,
    };

    let resync = Duration::from_secs(options.resync);
    let mut wait = resync;
    let mut retry = FIRST_RETRY;
    let mut told = BTreeSet::new();
    loop {
        let jittered = wait + wait.mul_f64(rand::rng().random_range(0.0..0.1));
        tokio::select! {
            () = store.changed() => {}
            () = tokio::time::sleep(jittered) => {}
            _ = shutdown.wait_for(|stop| *stop) => break,
        }
        wait = resync;
        if !writer.leads() || !store.snapshot().is_complete() {
            continue;
        }
        tokio::time::sleep(GATHER).await;
        let started = Instant::now();
        metrics.passes.inc();
        match reconcile(&store, &writer, &mut keeper).await {
            Ok(pass) => {
                if pass.refused.is_empty() {
                    retry = FIRST_RETRY;
                } else {
                    wait = retry;
                    retry = (retry * 2).min(LONGEST_RETRY);
                }
                metrics
                    .pass_seconds
                    .observe(started.elapsed().as_secs_f64());
                report(&pass, &metrics, &mut told);
                for happening in status::done(&store.snapshot(), &pass) {
                    // The receiver lives as long as the lane.
                    let _ = events.send(happening);
                }
                decisions.send_replace(Some(Arc::new(pass)));
            }
            Err(error) => {
                metrics.failed_passes.inc();
                match &error {
                    WriteError::NotLeading => continue,
                    WriteError::Conflict { .. } => tracing::info!(%error, "deciding again"),
                    _ => tracing::error!(%error, "a pass ended early"),
                }
                wait = retry;
                retry = (retry * 2).min(LONGEST_RETRY);
            }
        }
    }
    tracing::info!("shutting down");
    watches.abort();
    drop(decisions);
    drop(events);
    // The pass has ended and the lane ends here: only then may the Lease go. A lane that hangs leaves it to run out.
    let lane_ended = tokio::time::timeout(LAST_WORDS, lane).await.is_ok();
    if let (true, Some(candidacy)) = (lane_ended, candidacy) {
        let _ = tokio::time::timeout(LAST_WORDS, candidacy.give_back()).await;
    }
    let _ = tokio::time::timeout(LAST_WORDS, admin).await;
    Ok(())
}

/// Waits until the definitions are new enough; false when the process shall end first.
async fn schema_fits(client: &Client, shutdown: &mut channel::Receiver<bool>) -> bool {
    let mut told = false;
    loop {
        match schema::check(client).await {
            Ok(()) => return true,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(error = %watch::chain(&error), "nothing is written until this is solved");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            _ = shutdown.wait_for(|stop| *stop) => return false,
        }
    }
}

/// Counts what a pass found, and logs what the pass before had not found.
fn report(pass: &Decided, metrics: &Metrics, told: &mut BTreeSet<String>) {
    let report = &pass.proposal.report;
    let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    metrics.refusals.set(gauge(report.refusals.len()));
    metrics.waiting.set(gauge(report.waiting.len()));
    metrics.peers.set(gauge(pass.accepted.peers.len()));
    metrics.findings.set(i64::from(pass.trouble.is_some()));
    let trouble = pass
        .trouble
        .iter()
        .map(|(reason, message)| format!("{reason}: {message}"));
    let errors: BTreeSet<String> = trouble
        .chain(pass.refused.iter().map(|it| it.error.to_string()))
        .collect();
    let warnings: BTreeSet<String> = pass.world.invalid.iter().map(ToString::to_string).collect();
    for error in errors.difference(told) {
        tracing::error!("{error}");
    }
    for warning in warnings.difference(told) {
        tracing::warn!("{warning}");
    }
    *told = errors.into_iter().chain(warnings).collect();
}

/// The host's name and a random suffix: two processes never share it.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!(
        "{}_{}",
        if host.is_empty() { "operator" } else { host },
        random(8)
    )
}

/// Random lower-case letters and digits.
fn random(length: usize) -> String {
    rand::rng()
        .sample_iter(Alphanumeric)
        .map(|byte| char::from(byte).to_ascii_lowercase())
        .take(length)
        .collect()
}
