//! The agent's life: restore from disk, then follow the API server and the kernel until told to stop.
//!
//! ```text
//!  disk ──► reconcile        before any contact with the API server
//!  index, names ──┐ 5 ms
//!  kernel events ─┼─► reconcile ──► statement ──► publisher
//!  resync ────────┘
//!  tick ──► a cheap look at handshakes; a reconcile only when there is news
//!    └────► a first handshake that was lost is asked for again
//! ```
//!
//! Stopping changes nothing in the kernel.

use crate::facts::{ApiServer, claimed_endpoints};
use crate::index::{Own, Shared};
use crate::metrics::Metrics;
use crate::names::Names;
use crate::options::Settings;
use crate::platform::{Backend, Platform};
use crate::publish::{self, Statement};
use crate::reconcile::Agent;
use crate::report::{Outcome, Role};
use crate::watch;
use kube::{Api, Client, Config, CustomResourceExt};
use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tieline_client::chain;
use tieline_client::config::{self, CredentialError, Source};
use tieline_client::schema::{self, SchemaError};
use tieline_core::ids::NodeName;
use tieline_core::peer::Claim;
use tieline_crds::Peer;
use tokio::sync::watch::{Receiver, Sender};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// Events that come this close together are answered at once.
const DEBOUNCE: Duration = Duration::from_millis(5);
/// Time between looks at handshakes: first after a change, and at rest.
const TICK: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Longest time between looks while a path is missing: readiness waits for it.
const MISSING_TICK: Duration = Duration::from_millis(1500);
/// Least time between two looks.
const SOON: Duration = Duration::from_millis(20);
/// Pause before a repair, when the one before did not last: first and longest.
const REPAIR_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Time after which a reconcile that failed is tried again.
const RETRY: Duration = Duration::from_secs(3);
/// Pause between two looks at the definition of Peers.
const SCHEMA_PAUSE: Duration = Duration::from_secs(10);
/// Pause before the credential is read again, when it could not be.
const CREDENTIAL_PAUSE: Duration = Duration::from_secs(5);

/// Runs until `stop` is ready.
pub async fn run<P: Platform>(
    agent: Agent<P>,
    settings: &Settings,
    stop: impl Future<Output = ()>,
) {
    let metrics = Metrics::new(agent.platform.backend(), settings.version);
    let shared = Arc::new(Shared::default());
    let (state, statements) = tokio::sync::watch::channel(None);
    let server = tokio::spawn(serve(metrics.clone(), settings.metrics_address));
    // Known without a client: the address that its configuration names. What follows the API tells of later ones.
    let (servers, api_servers) = tokio::sync::watch::channel(Vec::new());
    if let Ok(config) = configuration(settings.kubeconfig.as_deref()).await {
        tell_api_server(&servers, &config);
    }
    let follower = Follower::start({
        let (settings, own, metrics) = (settings.clone(), agent.own().clone(), metrics.clone());
        let shared = Arc::clone(&shared);
        move || {
            tokio::spawn(follow_api(
                settings.clone(),
                Arc::clone(&shared),
                own.clone(),
                statements.clone(),
                servers.clone(),
                metrics.clone(),
            ))
        }
    });
    let known_names = agent.memory.seen().names.clone();
    let mut shell = Loop {
        agent,
        shared,
        api_servers,
        names: Names::start(known_names),
        metrics,
        state,
        settings,
        previous: None,
        follower,
    };
    tokio::select! {
        () = shell.run() => {}
        () = stop => tracing::info!("stopping; what is in the kernel stays"),
    }
    shell.agent.memory.flush(std_now(), true);
    server.abort();
}

/// The connection to the API server. Made again when the host loses an address: what was connected from there is dead, and
/// without a word from the other side that would be noticed minutes later.
struct Follower {
    start: Box<dyn Fn() -> JoinHandle<()> + Send + Sync>,
    task: JoinHandle<()>,
    addresses: BTreeSet<IpAddr>,
}

impl Follower {
    fn start(start: impl Fn() -> JoinHandle<()> + Send + Sync + 'static) -> Self {
        Self {
            task: start(),
            start: Box::new(start),
            addresses: BTreeSet::new(),
        }
    }

    /// The addresses that the host has now.
    fn host_has(&mut self, addresses: &BTreeSet<IpAddr>) {
        let lost: Vec<String> = self
            .addresses
            .difference(addresses)
            .map(ToString::to_string)
            .collect();
        self.addresses.clone_from(addresses);
        if !lost.is_empty() {
            tracing::info!(lost = %lost.join(", "), "connecting to the API server again");
            self.task.abort();
            self.task = (self.start)();
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Loop<'a, P> {
    agent: Agent<P>,
    shared: Arc<Shared>,
    api_servers: Receiver<Vec<ApiServer>>,
    names: Names,
    metrics: Metrics,
    state: Sender<Option<Statement>>,
    settings: &'a Settings,
    previous: Option<Outcome>,
    follower: Follower,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Start,
    Index,
    ApiServer,
    Names,
    Kernel,
    Tick,
    Resync,
}

impl<P: Platform> Loop<'_, P> {
    async fn run(&mut self) {
        let mut cause = Cause::Start;
        let mut tick = TICK.0;
        let mut repair = REPAIR_PAUSE.0;
        loop {
            let before = self.previous.as_ref().map(Outcome::verdicts);
            let outcome = self.reconcile(cause).await;
            // Handshakes follow soon after a change, and are news then.
            if outcome.writes > 0 || before != Some(outcome.verdicts()) {
                tick = TICK.0;
            }
            // Somebody undoes what we write, or it does not take: answer more slowly each time.
            let restless = outcome.writes > 0 && cause == Cause::Kernel;
            repair = if restless {
                (repair * 2).min(REPAIR_PAUSE.1)
            } else {
                REPAIR_PAUSE.0
            };
            if restless {
                sleep(repair).await;
            }
            let settled = outcome.is_applied() || outcome.role == Role::Unknown;
            cause = self.next(&mut tick, settled).await;
        }
    }

    /// Waits for something to do. What did not settle is tried again soon, without being told to.
    async fn next(&mut self, tick: &mut Duration, settled: bool) -> Cause {
        let jitter = 0.8 + 0.4 * rand::random::<f64>();
        let pause = Duration::from_secs(self.settings.resync);
        let pause = if settled { pause } else { pause.min(RETRY) };
        let resync = Instant::now() + pause.mul_f64(jitter);
        loop {
            if self.agent.misses_paths() {
                *tick = (*tick).min(MISSING_TICK);
            }
            let mut look = Instant::now() + *tick;
            if let Some(contact) = self.agent.next_contact(std_now()) {
                // Not in a tight loop, whatever is due.
                look = look.min(Instant::from_std(contact).max(Instant::now() + SOON));
            }
            let cause = tokio::select! {
                () = self.shared.changed() => Cause::Index,
                Ok(()) = self.api_servers.changed() => Cause::ApiServer,
                () = self.names.changed() => Cause::Names,
                () = self.agent.platform.changed() => Cause::Kernel,
                () = sleep_until(resync) => Cause::Resync,
                () = sleep_until(look) => Cause::Tick,
            };
            if cause != Cause::Tick {
                sleep(DEBOUNCE).await;
                return cause;
            }
            *tick = (*tick * 2).min(TICK.1);
            let news = self.agent.has_news(std_now()).await;
            self.agent.retry_contacts(std_now()).await;
            self.agent.memory.flush(std_now(), false);
            // A host that cannot be read is no news while it is known.
            if news && settled {
                return cause;
            }
        }
    }

    async fn reconcile(&mut self, cause: Cause) -> Outcome {
        let started = Instant::now();
        let snapshot = self.shared.snapshot();
        let answers = self.names.answers();
        self.agent
            .set_api_servers(self.api_servers.borrow_and_update().clone());
        let outcome = self.agent.reconcile(&snapshot, &answers, std_now).await;
        let took = started.elapsed();
        if let Some(around) = self.agent.surroundings() {
            self.follower.host_has(&around.addresses);
        }
        self.names.want(self.agent.names());
        self.state.send_replace(Some(self.statement(&outcome)));
        self.agent.memory.flush(std_now(), false);
        self.metrics.reconciled(&outcome, took);
        let (devices, peers) = self.agent.counts();
        self.metrics.observed(devices, peers);
        self.log(cause, &outcome, took);
        self.previous = Some(outcome.clone());
        outcome
    }

    fn statement(&self, outcome: &Outcome) -> Statement {
        let found = self
            .agent
            .surroundings()
            .map(|around| around.addresses.clone())
            .unwrap_or_default();
        Statement {
            claim: Claim {
                keys: self.agent.identity.public_keys(),
                sealing_key: Some(self.agent.identity.sealing_public()),
                endpoints: claimed_endpoints(&found, &self.settings.endpoints),
                applied_revision: self.agent.memory.applied().unwrap_or_default(),
            },
            backend: match self.agent.platform.backend() {
                Backend::Kernel => tieline_crds::peer::Backend::Kernel,
                Backend::Embedded => tieline_crds::peer::Backend::Embedded,
            },
            paths: outcome.path_count(),
            sessions: outcome.session_counts(),
            host: self.agent.host(),
            version: self.settings.version,
            verdicts: outcome.verdicts(),
        }
    }

    fn log(&self, cause: Cause, outcome: &Outcome, took: Duration) {
        let took = took.as_millis() as u64;
        if outcome.writes > 0 {
            tracing::info!(?cause, changes = outcome.writes, took, "kernel changed");
        } else {
            tracing::debug!(?cause, took, "nothing to change");
        }
        let verdicts = outcome.verdicts();
        let before = self.previous.as_ref().map(Outcome::verdicts);
        for verdict in &verdicts {
            let known = before.as_ref().is_some_and(|before| {
                before.iter().any(|old| {
                    (old.kind, old.holds, old.reason)
                        == (verdict.kind, verdict.holds, verdict.reason)
                })
            });
            if !known {
                tracing::info!(
                    condition = verdict.kind.as_str(),
                    holds = verdict.holds,
                    reason = verdict.reason.as_str(),
                    message = %verdict.message,
                    "condition"
                );
            }
        }
    }
}

async fn serve(metrics: Metrics, address: std::net::SocketAddr) {
    if let Err(error) = metrics.serve(address).await {
        tracing::error!(%address, %error, "no metrics: choose a free address with --metrics-address");
    }
}

/// The time, in the words of those that know nothing of tokio.
fn std_now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Watches and publishes, once there is a client; the mesh on disk does not wait for one.
async fn follow_api(
    settings: Settings,
    shared: Arc<Shared>,
    own: Own,
    statements: Receiver<Option<Statement>>,
    servers: Sender<Vec<ApiServer>>,
    metrics: Metrics,
) {
    let client = loop {
        match client(settings.kubeconfig.as_deref(), &servers).await {
            Ok(client) => break client,
            Err(error) => {
                tracing::error!(error = %chain(&error), "no credential for the API server");
                sleep(CREDENTIAL_PAUSE).await;
            }
        }
    };
    let peers = Api::namespaced(client.clone(), &settings.namespace);
    let own_peer = shared.own();
    let writer = client.clone();
    tokio::join!(
        watch::run(
            client,
            shared,
            &settings.namespace,
            &settings.mesh_namespace,
            &own
        ),
        async {
            schema_fits(&writer).await;
            publish::run(peers, statements, own_peer, metrics).await;
        },
    );
}

async fn client(
    kubeconfig: Option<&Path>,
    servers: &Sender<Vec<ApiServer>>,
) -> Result<Client, CredentialError> {
    let config = configuration(kubeconfig).await?;
    tell_api_server(servers, &config);
    tieline_client::connect(config)
}

async fn configuration(kubeconfig: Option<&Path>) -> Result<Config, CredentialError> {
    config::read(kubeconfig.map_or(Source::Pod, |path| Source::File(path, None))).await
}

/// Returns when Peers may be written. Asked once, beside the first watches, so that it delays nothing.
async fn schema_fits(client: &Client) {
    let definition = [Peer::crd_name().to_owned()];
    let objection = |error: &SchemaError| {
        // An installation may withhold this read: the operator's own check stands in for it.
        if error.is_forbidden() {
            tracing::warn!(error = %chain(error), "schema not checked");
            return ControlFlow::Break(());
        }
        match error {
            SchemaError::Older { .. } => {
                tracing::error!("{error}; the Peer's status is not written until then");
            }
            error => tracing::info!(error = %chain(error), "schema not read yet"),
        }
        ControlFlow::Continue(())
    };
    schema::wait_for(client, &definition, SCHEMA_PAUSE, objection).await;
}

fn tell_api_server(servers: &Sender<Vec<ApiServer>>, config: &Config) {
    let found: Vec<ApiServer> = api_server(config).into_iter().collect();
    servers.send_if_modified(|known| {
        let differs = *known != found;
        *known = found;
        differs
    });
}

fn api_server(config: &Config) -> Option<ApiServer> {
    let host = config.cluster_url.host()?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(address) => Some(ApiServer::Address(address)),
        Err(_) => NodeName::new(host).ok().map(ApiServer::Name),
    }
}

#[cfg(test)]
mod tests;
