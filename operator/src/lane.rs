//! The status lane: statuses, labels and Events are written beside the reconcile, because nothing in the mesh waits for
//! them. The latest decision wins; in between, the lane rests a little, so that a burst of joins is one status.

use crate::reconcile::Decided;
use crate::status::{Changes, Happening, changes, happenings};
use crate::store::Store;
use crate::watch::chain;
use crate::write::{WriteError, Writer};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::events::{Event, EventType, Recorder};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Rest between two passes.
const REST: Duration = Duration::from_millis(200);
/// Longest wait until a write that failed is tried again.
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// How many requests run at once.
const PARALLEL: usize = 4;

/// Writes statuses for each decision until the sender is dropped. A write that failed asks for another decision, later each
/// time that it fails again.
pub async fn run(
    store: Arc<Store>,
    writer: Writer,
    recorder: Recorder,
    mut decisions: watch::Receiver<Option<Arc<Decided>>>,
    mut happened: tokio::sync::mpsc::UnboundedReceiver<Happening>,
) {
    let mut retry = Retry::default();
    loop {
        tokio::select! {
            changed = decisions.changed() => if changed.is_err() { break },
            // Level-triggered: the next decision sees what is there.
            () = retry.due() => {
                store.ring();
                continue;
            }
        }
        let decided = decisions.borrow_and_update().clone();
        let Some(decided) = decided else { continue };
        if !writer.leads() {
            continue;
        }
        let wanted = changes(&store.snapshot(), &decided, Timestamp::now());
        let mut events = happenings(&wanted);
        let failed = write(&writer, wanted).await;
        events.retain(|event| {
            !failed.contains_key(event.regarding.uid.as_deref().unwrap_or_default())
        });
        while let Ok(event) = happened.try_recv() {
            events.push(event);
        }
        for event in events {
            publish(&recorder, event).await;
        }
        for error in failed.values() {
            match error {
                WriteError::NotLeading => {}
                WriteError::Conflict { .. } => tracing::debug!(%error, "status"),
                _ => tracing::warn!(%error, "status"),
            }
        }
        // Whoever leads next decides anew.
        let again = failed
            .values()
            .any(|error| !matches!(error, WriteError::NotLeading));
        retry.note(again, Instant::now());
        tokio::time::sleep(REST).await;
    }
}

/// When another decision is asked for.
#[derive(Debug, Default)]
struct Retry {
    at: Option<Instant>,
    pause: Duration,
}

impl Retry {
    /// Notes how a pass went: a failure is tried again after a pause that doubles each time.
    fn note(&mut self, failed: bool, now: Instant) {
        if !failed {
            *self = Self::default();
        } else if self.at.is_none() {
            self.pause = (self.pause * 2).clamp(REST, LONGEST_RETRY);
            self.at = Some(now + self.pause);
        }
    }

    /// Returns when it is time, once.
    async fn due(&mut self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
        self.at = None;
    }
}

/// Writes all; what failed is returned by the object's UID.
async fn write(writer: &Writer, changes: Changes) -> BTreeMap<String, WriteError> {
    let mut requests: Vec<BoxFuture<'_, (String, Result<(), WriteError>)>> = Vec::new();
    macro_rules! push {
        ($list:expr, $object:ident, $value:ident, $request:expr) => {
            for ($object, $value) in $list {
                requests.push(Box::pin(async move {
                    ($object.uid().unwrap_or_default(), $request.await)
                }));
            }
        };
    }
    // The label first: it is what keeps an object from being deleted.
    push!(
        changes.clusters_in_use,
        object,
        used,
        writer.in_use(&*object, used)
    );
    push!(
        changes.sites_in_use,
        object,
        used,
        writer.in_use(&*object, used)
    );
    push!(
        changes.vpns_in_use,
        object,
        used,
        writer.in_use(&*object, used)
    );
    push!(
        changes.links,
        object,
        status,
        writer.status(&*object, &status)
    );
    push!(
        changes.clusters,
        object,
        status,
        writer.status(&*object, &status)
    );
    push!(
        changes.sites,
        object,
        status,
        writer.status(&*object, &status)
    );
    push!(
        changes.vpns,
        object,
        status,
        writer.status(&*object, &status)
    );
    push!(
        changes.ledgers,
        object,
        status,
        writer.status(&*object, &status)
    );
    push!(
        changes.plans,
        object,
        status,
        writer.namespaced_status(&*object, &status)
    );
    stream::iter(requests)
        .buffer_unordered(PARALLEL)
        .filter_map(|(uid, result)| async { Some((uid, result.err()?)) })
        .collect()
        .await
}

async fn publish(recorder: &Recorder, happening: Happening) {
    let event = Event {
        type_: if happening.warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: happening.reason,
        note: Some(happening.note),
        action: happening.action.to_owned(),
        secondary: None,
    };
    // An Event that is lost is no reason to do anything again.
    if let Err(error) = recorder.publish(&event, &happening.regarding).await {
        tracing::debug!(error = %chain(&error), "an Event was not published");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_is_refused_for_good_is_tried_ever_more_seldom() {
        let (mut retry, now) = (Retry::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            retry.note(true, now);
            // Another decision before the time has come changes nothing.
            retry.note(true, now);
            pauses.push(retry.at.map(|at| (at - now).as_millis()));
            retry.at = None;
        }
        let expected = [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000];
        assert_eq!(pauses, expected.map(Some));
        retry.note(false, now);
        assert!(retry.at.is_none());
        retry.note(true, now);
        assert_eq!(retry.at, Some(now + REST));
    }
}
