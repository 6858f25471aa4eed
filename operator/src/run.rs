//! One pass after the other until the end: when to decide, when to try again, when to let the announcer write.
//!
//! Events that come close together are one pass. After a decision about everything the next one waits a multiple of the time that
//! it took: meanwhile Nodes and Peers go on, so that a burst of users' objects delays no node.

use crate::announce::{self, Round, Word};
use crate::index::Scope;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::reconcile::{Keeper, Pass, reconcile};
use crate::shared::Shared;
use crate::write::{self, WriteError, Writer};
use crate::{RunError, admin, status, watch};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use rand::Rng;
use rand::distr::Alphanumeric;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tieline_client::chain;
use tieline_client::lease::{self, Candidacy, Candidate, Leadership};
use tieline_client::schema::{self, SchemaError};
use tieline_core::ids::Lineage;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::watch as channel;

/// How long events are gathered before a pass: one user action is often several objects.
const GATHER: Duration = Duration::from_millis(4);
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// How long a link has to be ready before it is called so: longer than agents take to tell of a path at both of its ends.
const READY_LASTS: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// How many times as long as a decision about everything took the next one waits.
const REST: u32 = 2;
/// Pause between two looks at definitions that are too old.
const SCHEMA_PAUSE: Duration = Duration::from_secs(2);
/// Name of the Lease.
const LEASE: &str = "tieline-operator";
/// How long each part may take to end at shutdown.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Runs until `shutdown` becomes true, then finishes the current writes, gives the Lease back and returns.
///
/// # Errors
/// [`RunError`] when it cannot start. Once it runs, it goes on: every failure is logged and tried again.
pub async fn run(
    client: Client,
    options: Options,
    mut shutdown: channel::Receiver<bool>,
) -> Result<(), RunError> {
    let shared = Arc::new(Shared::default());
    let metrics = Metrics::new(options.version);
    let admin = admin::serve(
        options.metrics_address,
        metrics.clone(),
        shared.clone(),
        shutdown.clone(),
    )
    .await
    .map_err(RunError::Listen)?;
    let watches = watch::follow_all(&client, &options, &shared, &metrics);
    let identity = options
        .identity
        .clone()
        .unwrap_or_else(|| lease::identity("operator"));
    if !schema_fits(&client, &mut shutdown).await {
        return Ok(());
    }
    let (leadership, candidacy) =
        candidate(&client, &options, &identity, &shared, &metrics, &shutdown);
    let writer = Writer::new(
        client.clone(),
        options.namespace.clone(),
        leadership,
        shared.clone(),
        metrics.clone(),
    );
    let (rounds, taken) = mpsc::unbounded_channel();
    let (say, words) = mpsc::unbounded_channel();
    let reporter = Reporter {
        controller: write::MANAGER.into(),
        instance: Some(identity),
    };
    let recorder = Recorder::new(client, reporter);
    let announcer = tokio::spawn(announce::run(writer.clone(), recorder, taken, say));
    let fresh = Lineage::new(random(16))?;
    let keeper = Keeper::new(options.cluster_name.clone(), fresh, options.agent_port)
        .holding_ready(READY_LASTS);
    let mut passes = Passes {
        shared: &shared,
        writer: &writer,
        metrics: &metrics,
        rounds,
        keeper,
        resync: Duration::from_secs(options.resync),
        retry: FIRST_RETRY,
        whole: None,
        announcer_is_idle: false,
        happened: Vec::new(),
        told: BTreeSet::new(),
    };
    passes.follow(words, shutdown).await;
    tracing::info!("shutting down");
    watches.abort();
    drop(passes);
    // The pass has ended and the announcer ends here: only then may the Lease go. An announcer that hangs leaves it to run out.
    let announcer_ended = tokio::time::timeout(LAST_WORDS, announcer).await.is_ok();
    if let (true, Some(candidacy)) = (announcer_ended, candidacy) {
        let _ = tokio::time::timeout(LAST_WORDS, candidacy.give_back()).await;
    }
    let _ = tokio::time::timeout(LAST_WORDS, admin).await;
    Ok(())
}

/// Takes part in the election, if there is one.
fn candidate(
    client: &Client,
    options: &Options,
    identity: &str,
    shared: &Arc<Shared>,
    metrics: &Metrics,
    shutdown: &channel::Receiver<bool>,
) -> (Leadership, Option<Candidacy>) {
    if !options.leader_elect {
        metrics.leading.set(1);
        return (Leadership::always(), None);
    }
    let (bell, gauge) = (shared.clone(), metrics.clone());
    let (leadership, candidacy) = lease::elect(
        client.clone(),
        Candidate {
            namespace: options.namespace.clone(),
            lease: LEASE.to_owned(),
            identity: identity.to_owned(),
            duration: Duration::from_secs(u64::from(options.lease_seconds)),
        },
        shutdown.clone(),
        move |leads| {
            gauge.leading.set(i64::from(leads));
            if leads {
                bell.ring();
            }
        },
    );
    (leadership, Some(candidacy))
}

/// The passes, and what stands between them.
struct Passes<'a> {
    shared: &'a Shared,
    writer: &'a Writer,
    metrics: &'a Metrics,
    rounds: UnboundedSender<Round>,
    keeper: Keeper,
    resync: Duration,
    retry: Duration,
    /// When everything was decided last, and how long that took.
    whole: Option<(Instant, Duration)>,
    announcer_is_idle: bool,
    happened: Vec<status::Happening>,
    told: BTreeSet<String>,
}

impl Passes<'_> {
    async fn follow(
        &mut self,
        mut words: mpsc::UnboundedReceiver<Word>,
        mut shutdown: channel::Receiver<bool>,
    ) {
        let mut next = Instant::now() + self.resync;
        loop {
            tokio::select! {
                // What changed comes before statuses.
                biased;
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = self.shared.changed() => tokio::time::sleep(GATHER).await,
                Some(word) = words.recv() => {
                    match word {
                        Word::Idle => self.announcer_is_idle = true,
                        Word::Again => self.keeper.judge_anew(),
                    }
                    self.tell();
                    continue;
                }
                () = tokio::time::sleep_until(next.into()) => {}
                () = wait_until(self.keeper.holds_until()), if self.announcer_is_idle => {
                    self.tell();
                    continue;
                }
                () = tokio::task::yield_now(), if self.may_tell() => {
                    self.tell();
                    continue;
                }
            }
            let mut wait = self.resync;
            if !self.writer.leads() {
                // Another process writes meanwhile.
                self.keeper.start_anew();
            } else if self.shared.missing().is_empty() {
                wait = self.pass().await;
                self.tell();
            }
            next = Instant::now() + wait + wait.mul_f64(rand::rng().random_range(0.0..0.1));
        }
    }

    /// One pass. Returns how long to wait for the next one if nothing happens.
    async fn pass(&mut self) -> Duration {
        let started = Instant::now();
        if self
            .whole
            .is_some_and(|(at, _)| at.elapsed() >= self.resync)
        {
            self.keeper.start_anew();
        }
        let rests =
            |(at, took): (Instant, Duration)| (at + took * REST).checked_duration_since(started);
        let rest = self.whole.and_then(rests).unwrap_or_default();
        let scope = if rest.is_zero() {
            Scope::All
        } else {
            Scope::Nodes
        };
        self.metrics.passes.inc();
        let wait = match reconcile(self.shared, self.writer, &mut self.keeper, scope).await {
            Ok(pass) => {
                let seconds = started.elapsed().as_secs_f64();
                self.metrics.pass_seconds.observe(seconds);
                self.note(&pass);
                if self.keeper.refused().is_empty() {
                    self.retry = FIRST_RETRY;
                    self.resync
                } else {
                    self.later()
                }
            }
            Err(error) => {
                match &error {
                    WriteError::NotLeading => {
                        self.metrics.failed_passes.inc();
                        return self.resync;
                    }
                    WriteError::Conflict { .. } => tracing::info!(%error, "deciding again"),
                    _ => tracing::error!(%error, "a pass ended early"),
                }
                self.metrics.failed_passes.inc();
                self.later()
            }
        };
        if self.keeper.has_late() {
            Duration::ZERO
        } else if self.shared.has_news_of_users() {
            wait.min(rest)
        } else {
            wait
        }
    }

    /// How long to wait after a failure: twice as long each time.
    fn later(&mut self) -> Duration {
        let wait = self.retry;
        self.retry = (self.retry * 2).min(LONGEST_RETRY);
        wait
    }

    /// Notes what a pass did.
    fn note(&mut self, pass: &Pass) {
        if let Some(took) = pass.whole {
            self.whole = Some((Instant::now(), took));
        }
        let Some(decided) = self.keeper.decided() else {
            return;
        };
        let done = status::done(self.keeper.index(), decided, &pass.stored);
        self.happened.extend(done);
        report(&self.keeper, self.metrics, &mut self.told);
    }

    /// Whether a round can be made for the announcer.
    fn may_tell(&self) -> bool {
        self.announcer_is_idle && (self.keeper.has_due(Instant::now()) || !self.happened.is_empty())
    }

    /// Gives the announcer a round, if it takes one and a bounded look finds something to write.
    fn tell(&mut self) {
        if !self.may_tell() {
            return;
        }
        let wanted = self.keeper.statuses(Timestamp::now(), Instant::now());
        if wanted.is_empty() && self.happened.is_empty() {
            return;
        }
        let round = (wanted, std::mem::take(&mut self.happened));
        // The announcer lives until this end is dropped.
        let _ = self.rounds.send(round);
        self.announcer_is_idle = false;
    }
}

async fn wait_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits until the definitions are new enough; false when the process shall end first.
async fn schema_fits(client: &Client, shutdown: &mut channel::Receiver<bool>) -> bool {
    let definitions = schema::all();
    let mut told = false;
    let objection = |error: &SchemaError| {
        if !std::mem::replace(&mut told, true) {
            tracing::error!(error = %chain(error), "nothing is written until this is solved");
        }
        ControlFlow::Continue(())
    };
    tokio::select! {
        () = schema::wait_for(client, &definitions, SCHEMA_PAUSE, objection) => true,
        _ = shutdown.wait_for(|stop| *stop) => false,
    }
}

/// Counts what a pass found, and logs what the pass before had not found.
fn report(keeper: &Keeper, metrics: &Metrics, told: &mut BTreeSet<String>) {
    let Some(decided) = keeper.decided() else {
        return;
    };
    let report = &decided.proposal().report;
    let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    metrics.refusals.set(gauge(report.refusals.len()));
    metrics.waiting.set(gauge(report.waiting.len()));
    metrics.peers.set(gauge(decided.accepted.peers.len()));
    metrics.findings.set(i64::from(decided.trouble.is_some()));
    let trouble = decided
        .trouble
        .iter()
        .map(|(reason, message)| format!("{reason}: {message}"));
    let errors: BTreeSet<String> = trouble
        .chain(keeper.refused().iter().map(ToString::to_string))
        .collect();
    let invalid = decided.world.invalid.iter();
    let warnings: BTreeSet<String> = invalid.map(ToString::to_string).collect();
    for error in errors.difference(told) {
        tracing::error!("{error}");
    }
    for warning in warnings.difference(told) {
        tracing::warn!("{warning}");
    }
    *told = errors.into_iter().chain(warnings).collect();
}

/// Random lower-case letters and digits.
fn random(length: usize) -> String {
    rand::rng()
        .sample_iter(Alphanumeric)
        .map(|byte| char::from(byte).to_ascii_lowercase())
        .take(length)
        .collect()
}
