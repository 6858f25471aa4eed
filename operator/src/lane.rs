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
use kube::runtime::events::{Event, EventType, Recorder};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Rest between two passes.
const REST: Duration = Duration::from_millis(200);
/// How many requests run at once.
const PARALLEL: usize = 4;

/// Writes statuses for each decision until the sender is dropped. A write that failed asks for another decision.
pub async fn run(
    store: Arc<Store>,
    writer: Writer,
    recorder: Recorder,
    mut decisions: watch::Receiver<Option<Arc<Decided>>>,
    mut happened: tokio::sync::mpsc::UnboundedReceiver<Happening>,
) {
    while decisions.changed().await.is_ok() {
        let decided = decisions.borrow_and_update().clone();
        let Some(decided) = decided else { continue };
        if !writer.leads() {
            continue;
        }
        let wanted = changes(&store.snapshot(), &decided, Timestamp::now());
        let mut events = happenings(&wanted);
        while let Ok(event) = happened.try_recv() {
            events.push(event);
        }
        if let Err(error) = write(&writer, wanted).await {
            match error {
                WriteError::NotLeading => continue,
                WriteError::Conflict { .. } => tracing::debug!(%error, "status"),
                _ => tracing::warn!(%error, "status"),
            }
            // Level-triggered: the next decision sees what is there.
            tokio::time::sleep(REST).await;
            store.ring();
        }
        for event in events {
            publish(&recorder, event).await;
        }
        tokio::time::sleep(REST).await;
    }
}

async fn write(writer: &Writer, changes: Changes) -> Result<(), WriteError> {
    let mut requests: Vec<BoxFuture<'_, Result<(), WriteError>>> = Vec::new();
    macro_rules! push {
        ($list:expr, $object:ident, $value:ident, $request:expr) => {
            for ($object, $value) in $list {
                requests.push(Box::pin(async move { $request.await }));
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
    let results: Vec<_> = stream::iter(requests)
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    results.into_iter().collect()
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
