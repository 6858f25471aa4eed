//! Leader election over a Lease: the IO around [`crate::leader`].

use crate::error::chain;
use crate::leader::{Action, Elector, Record};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Which election, and who takes part in it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease: one for each kind of program.
    pub lease: String,
    /// This process among the others; see [`identity`].
    pub identity: String,
    /// How long a silent leader keeps the Lease.
    pub duration: Duration,
}

/// The host's name, or where it has none `program`, and a random suffix: two processes never share it.
#[must_use]
pub fn identity(program: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!(
        "{}_{:08x}",
        if host.is_empty() { program } else { host },
        rand::random::<u32>()
    )
}

/// Whether this process may write.
#[derive(Debug, Clone)]
pub struct Leadership(watch::Receiver<Term>);

/// For how long this process may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Term {
    /// Without election: always.
    Always,
    /// Until an instant of the local monotonic clock.
    Until(Instant),
    /// Not now.
    No,
}

impl Leadership {
    /// Leadership without election.
    #[must_use]
    pub fn always() -> Self {
        Self(watch::channel(Term::Always).1)
    }

    /// Whether this process may write now.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.0.borrow().holds(Instant::now())
    }
}

/// A part in the election that is to end in order. Dropped, it leaves the Lease to run out.
#[derive(Debug)]
pub struct Candidacy {
    idle: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Candidacy {
    /// Gives the Lease back if this process holds it, so that the next one leads at once. Comes after the shutdown, when no write of
    /// this process is under way any more: what arrived after the Lease is free could undo its successor's work.
    pub async fn give_back(self) {
        // The task ends by itself only when it cannot do anything for the Lease.
        if self.idle.send(()).is_ok() {
            let _ = self.task.await;
        }
    }
}

impl Term {
    fn holds(self, at: Instant) -> bool {
        match self {
            Self::Always => true,
            Self::Until(until) => at < until,
            Self::No => false,
        }
    }
}

/// What a look at the Lease has changed for a process that `led`: `Some(true)` when leadership begins, `Some(false)` when it
/// ends. One that lapsed while the API server was silent begins anew when it is renewed: what came up in between was not done.
fn turn(led: bool, was: Term, now: Term, at: Instant) -> Option<bool> {
    let held = led && was.holds(at);
    match now.holds(at) {
        true => (!held).then_some(true),
        false => led.then_some(false),
    }
}

/// Takes part in the election until `shutdown`; from then on nobody leads here, and [`Candidacy::give_back`] frees the Lease. `turned` is
/// told when leadership begins and ends.
pub fn elect(
    client: Client,
    candidate: Candidate,
    mut shutdown: watch::Receiver<bool>,
    turned: impl Fn(bool) + Send + 'static,
) -> (Leadership, Candidacy) {
    let (idle, nothing_under_way) = oneshot::channel();
    let (sender, receiver) = watch::channel(Term::No);
    let Candidate {
        namespace,
        lease,
        identity,
        duration,
    } = candidate;
    let slot = Slot {
        api: Api::namespaced(client, &namespace),
        lease,
    };
    let task = tokio::spawn(async move {
        let mut elector = Elector::new(identity.clone(), duration);
        let mut led = false;
        tracing::info!(%identity, lease = %slot.lease, "waiting to lead");
        loop {
            // A request that takes longer than the deadline is of no use any more.
            let look = tokio::time::timeout(elector.renew_deadline(), slot.look(&mut elector));
            match look.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(error = %chain(&error), "cannot look at the Lease")
                }
                Err(_) => tracing::warn!("the API server does not answer about the Lease"),
            }
            let now = elector.leads_until().map_or(Term::No, Term::Until);
            let was = sender.send_replace(now);
            if let Some(leads) = turn(led, was, now, Instant::now()) {
                if leads {
                    tracing::info!(%identity, "leading");
                } else {
                    tracing::warn!(%identity, "no longer leading");
                }
                led = leads;
                turned(leads);
            }
            tokio::select! {
                () = tokio::time::sleep(elector.period()) => {}
                _ = shutdown.wait_for(|stop| *stop) => break,
            }
        }
        sender.send_replace(Term::No);
        if nothing_under_way.await.is_ok() {
            let _ = tokio::time::timeout(Duration::from_secs(2), slot.release(&mut elector)).await;
        }
    });
    (Leadership(receiver), Candidacy { idle, task })
}

/// The Lease as the API server has it.
struct Slot {
    api: Api<Lease>,
    lease: String,
}

impl Slot {
    async fn look(&self, elector: &mut Elector) -> Result<(), kube::Error> {
        let found = self.api.get_opt(&self.lease).await?;
        let Action::Write { record, taken } =
            elector.read(found.as_ref().map(record_of).as_ref(), Instant::now())
        else {
            return Ok(());
        };
        let sent = Instant::now();
        match self.write(found, &record, taken).await {
            Ok(stored) => {
                elector.stored(stored.metadata.resource_version, sent);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                elector.lost();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn release(&self, elector: &mut Elector) {
        let Ok(Some(found)) = self.api.get_opt(&self.lease).await else {
            return;
        };
        if let Some(record) = elector.release(&record_of(&found)) {
            match self.write(Some(found), &record, false).await {
                Ok(_) => tracing::info!("gave the Lease back"),
                Err(error) => tracing::warn!(error = %chain(&error), "cannot give the Lease back"),
            }
        }
    }

    async fn write(
        &self,
        found: Option<Lease>,
        record: &Record,
        taken: bool,
    ) -> Result<Lease, kube::Error> {
        let now = Some(MicroTime(Timestamp::now()));
        let before = found
            .as_ref()
            .and_then(|lease| lease.spec.clone())
            .unwrap_or_default();
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.lease.clone()),
                resource_version: record.version.clone(),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(record.holder.clone()),
                lease_duration_seconds: i32::try_from(record.duration.as_secs()).ok(),
                // Times are for people: nobody compares them.
                acquire_time: if taken {
                    now.clone()
                } else {
                    before.acquire_time
                },
                renew_time: now,
                lease_transitions: Some(record.transitions),
                ..LeaseSpec::default()
            }),
        };
        match found {
            None => self.api.create(&PostParams::default(), &lease).await,
            Some(_) => {
                self.api
                    .replace(&self.lease, &PostParams::default(), &lease)
                    .await
            }
        }
    }
}

fn record_of(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(
            spec.lease_duration_seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .unwrap_or(15),
        ),
        transitions: spec.lease_transitions.unwrap_or(0),
        version: lease.metadata.resource_version.clone(),
    }
}

#[cfg(test)]
mod tests;
