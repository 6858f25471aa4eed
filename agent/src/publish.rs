//! Writes this node's Peer status: the claim, and the conditions.
//!
//! One task owns the status. It compares what should be said with what the API holds and writes the difference with one
//! server-side apply, so that a node at rest writes nothing:
//!
//! * a difference in the **claim** (keys, endpoints), which others wait for, is written at once, as long as the budget
//!   lasts: eight writes in a row, then one every fifteen seconds;
//! * a **major** one (revision, paths and sessions that are up, a condition that turned) waits a moment for others to join
//!   it, within the same budget;
//! * a **minor** one (a message, the generation, a fact about the host) waits until a minute has passed since the last write.

use crate::index::OwnPeer;
use crate::metrics::Metrics;
use crate::report::Verdict;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde_json::json;
use std::time::Duration;
use tieline_client::chain;
use tieline_core::peer::Claim;
use tieline_crds::condition::PeerCondition;
use tieline_crds::convert::peer_status;
use tieline_crds::peer::{Backend, HostFacts, PeerPaths, VpnSessions};
use tieline_crds::{Condition, Peer, PeerStatus};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Field manager of everything that an agent writes.
const MANAGER: &str = "tieline-agent";
/// Writes that may follow each other at once.
const BURST: u32 = 8;
/// Time after which one more write may be made at once.
const REFILL: Duration = Duration::from_secs(15);
/// Time in which major differences gather: a reconcile and the first handshake after it are one piece of news.
const SETTLE: Duration = Duration::from_millis(400);
/// Least time between a write and a minor one.
const MINOR_PAUSE: Duration = Duration::from_secs(60);
/// Time that the watch gets to show our own write, before what it shows is believed to be somebody else's.
const ECHO: Duration = Duration::from_secs(2);
/// First and longest pause after a failed write.
const PAUSES: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(20));

/// What should be said.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// The claim.
    pub claim: Claim,
    /// Which WireGuard carries the traffic.
    pub backend: Backend,
    /// Paths to gateways; absent while the node is not part of the mesh.
    pub paths: Option<PeerPaths>,
    /// Sessions of the VPNs that this node is the active gateway of, in order of name.
    pub sessions: Vec<VpnSessions>,
    /// What the host's own network is like, once it was looked at.
    pub host: Option<HostFacts>,
    /// The agent's version.
    pub version: &'static str,
    /// Conditions, in order of type.
    pub verdicts: Vec<Verdict>,
}

/// How much a statement differs from what the API holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Difference {
    None,
    Minor,
    Major,
    Claim,
}

/// Publishes statements until the process ends.
pub async fn run(
    api: Api<Peer>,
    mut statements: watch::Receiver<Option<Statement>>,
    mut own: watch::Receiver<Option<OwnPeer>>,
    metrics: Metrics,
) {
    let mut budget = Budget::new(Instant::now());
    let mut pause = PAUSES.0;
    let mut written: Option<(Instant, OwnPeer)> = None;
    let mut retry_at: Option<Instant> = None;
    let mut clock = None;
    loop {
        let mut statement = statements.borrow_and_update().clone();
        if let Some(host) = statement.as_mut().and_then(|said| said.host.as_mut()) {
            host.clock_ahead_seconds = clock;
        }
        let seen = own.borrow_and_update().clone();
        let now = Instant::now();
        let mut wake = retry_at.filter(|at| *at > now);
        if let (Some(statement), Some(seen), None) = (statement, seen, wake) {
            let current = current(&seen, written.as_ref(), now);
            let wanted = compose(&statement, &current, Timestamp::now());
            match budget.due(difference(&current.status, &wanted), now) {
                Due::Never => {
                    // What the watch shows may be older than what we wrote; look again when it has caught up.
                    wake = written
                        .as_ref()
                        .map(|(at, _)| *at + ECHO)
                        .filter(|at| *at > now && *current != seen);
                }
                Due::At(at) => wake = Some(at),
                Due::Now => match write(&api, &current, &wanted).await {
                    Ok(stamped) => {
                        // A clock that is off is news of its own, and a minor one; none that is right causes a write.
                        clock = stamped.map_or(clock, |stamp| {
                            clock::step(clock, Timestamp::now().duration_since(stamp).as_secs_f64())
                        });
                        let now = Instant::now();
                        budget.spend(now);
                        metrics.api_written();
                        pause = PAUSES.0;
                        retry_at = None;
                        let status = wanted;
                        written = Some((now, OwnPeer { status, ..seen }));
                        continue;
                    }
                    Err(error) => {
                        tracing::info!(error = %chain(&error), "status not written");
                        let at = Instant::now() + pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
                        pause = (pause * 2).min(PAUSES.1);
                        retry_at = Some(at);
                        wake = Some(at);
                    }
                },
            }
        }
        let sleep = async {
            match wake {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let alive = tokio::select! {
            changed = statements.changed() => changed.is_ok(),
            changed = own.changed() => changed.is_ok(),
            () = sleep => true,
        };
        if !alive {
            return;
        }
    }
}

/// What the API holds: what we wrote, as long as the watch may not have shown it yet.
fn current<'a>(
    seen: &'a OwnPeer,
    written: Option<&'a (Instant, OwnPeer)>,
    now: Instant,
) -> std::borrow::Cow<'a, OwnPeer> {
    use std::borrow::Cow;
    match written {
        Some((at, ours)) if ours.name == seen.name && now < *at + ECHO => Cow::Owned(OwnPeer {
            generation: seen.generation,
            ..ours.clone()
        }),
        _ => Cow::Borrowed(seen),
    }
}

/// The status that says all this; a condition that has not turned keeps its time.
fn compose(statement: &Statement, current: &OwnPeer, now: Timestamp) -> PeerStatus {
    let conditions = statement.verdicts.iter().map(|verdict| {
        let status = if verdict.holds { "True" } else { "False" };
        let before = verdict.kind.of(&current.status.conditions);
        let before = before.filter(|condition| condition.status == status);
        Condition {
            type_: verdict.kind.to_string(),
            status: status.to_owned(),
            reason: verdict.reason.to_string(),
            message: verdict.message.clone(),
            last_transition_time: before
                .map_or(Time(now), |before| before.last_transition_time.clone()),
            observed_generation: None,
        }
    });
    PeerStatus {
        observed_generation: current.generation,
        paths: statement.paths,
        sessions: statement.sessions.clone(),
        backend: Some(statement.backend),
        host: statement.host.clone(),
        version: Some(statement.version.to_owned()),
        conditions: conditions.collect(),
        ..peer_status(&statement.claim)
    }
}

fn difference(current: &PeerStatus, wanted: &PeerStatus) -> Difference {
    let essence = |status: &PeerStatus| PeerStatus {
        observed_generation: None,
        conditions: Vec::new(),
        host: None,
        ..status.clone()
    };
    // The operator may add conditions of its own; ours are compared.
    let turned = wanted.conditions.iter().any(|wanted| {
        !current.conditions.iter().any(|current| {
            current.type_ == wanted.type_
                && current.status == wanted.status
                && current.reason == wanted.reason
        })
    });
    let outdated = current.conditions.iter().any(|current| {
        PeerCondition::is_any(current)
            && !wanted
                .conditions
                .iter()
                .any(|wanted| wanted.type_ == current.type_)
    });
    let reworded = wanted.conditions.iter().any(|wanted| {
        !current
            .conditions
            .iter()
            .any(|current| current.type_ == wanted.type_ && current.message == wanted.message)
    });
    let claim = |status: &PeerStatus| PeerStatus {
        applied_revision: None,
        paths: None,
        sessions: Vec::new(),
        backend: None,
        version: None,
        ..essence(status)
    };
    if claim(current) != claim(wanted) {
        Difference::Claim
    } else if essence(current) != essence(wanted) || turned || outdated {
        Difference::Major
    } else if reworded
        || current.observed_generation != wanted.observed_generation
        || current.host != wanted.host
    {
        Difference::Minor
    } else {
        Difference::None
    }
}

/// Writes, and returns the time that the API server put on it.
async fn write(
    api: &Api<Peer>,
    current: &OwnPeer,
    wanted: &PeerStatus,
) -> Result<Option<Timestamp>, kube::Error> {
    let patch = json!({
        "apiVersion": Peer::api_version(&()),
        "kind": Peer::kind(&()),
        "metadata": {"name": current.name},
        "status": wanted,
    });
    let params = PatchParams::apply(MANAGER).force();
    api.patch_status(current.name.as_str(), &params, &Patch::Apply(&patch))
        .await
        .map(|written| clock::stamp(&written))
}

enum Due {
    Never,
    At(Instant),
    Now,
}

/// How often may be written.
struct Budget {
    tokens: u32,
    refilled: Instant,
    last: Option<Instant>,
    /// Since when there is a major difference.
    differs_since: Option<Instant>,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            tokens: BURST,
            refilled: now,
            last: None,
            differs_since: None,
        }
    }

    fn due(&mut self, difference: Difference, now: Instant) -> Due {
        self.refill(now);
        let settled = match difference {
            Difference::Major => *self.differs_since.get_or_insert(now) + SETTLE,
            _ => {
                self.differs_since = None;
                now
            }
        };
        match difference {
            Difference::None => Due::Never,
            Difference::Major if now < settled => Due::At(settled),
            Difference::Claim | Difference::Major if self.tokens > 0 => Due::Now,
            Difference::Claim | Difference::Major => Due::At(self.refilled + REFILL),
            Difference::Minor => match self.last {
                Some(last) if now < last + MINOR_PAUSE => Due::At(last + MINOR_PAUSE),
                _ => Due::Now,
            },
        }
    }

    fn spend(&mut self, now: Instant) {
        self.refill(now);
        self.tokens = self.tokens.saturating_sub(1);
        self.last = Some(now);
        self.differs_since = None;
    }

    fn refill(&mut self, now: Instant) {
        while self.tokens < BURST && now >= self.refilled + REFILL {
            self.tokens += 1;
            self.refilled += REFILL;
        }
        if self.tokens == BURST {
            self.refilled = now;
        }
    }
}

mod clock;

#[cfg(test)]
mod tests;
