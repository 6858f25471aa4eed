//! The announcer: statuses, labels and Events are written beside the reconcile, because nothing in the mesh waits for
//! them. It asks for work when it is idle, and rests a little before: so a burst of joins is one status, judged last.

use crate::status::{Announcement, Happening, happenings};
use crate::write::{WriteError, Writer};
use futures::stream::{self, StreamExt};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;
use std::time::Duration;
use tieline_client::chain;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

/// Rest between two rounds.
const REST: Duration = Duration::from_millis(200);
/// Longest wait until a write that failed is tried again.
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// How many requests run at once.
const PARALLEL: usize = 4;

/// What the announcer says to whoever decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It takes another round.
    Idle,
    /// Something that it should have written is not there: every status has to be judged again.
    Again,
}

/// Statuses and labels to write, and Events to tell.
pub type Round = (Vec<Announcement>, Vec<Happening>);

/// Writes one round after the other until the sender is dropped. A write that failed asks for all statuses again, later each time
/// that it fails again.
pub async fn run(
    writer: Writer,
    recorder: Recorder,
    mut rounds: UnboundedReceiver<Round>,
    words: UnboundedSender<Word>,
) {
    // Whoever decides hears no word any more only after the rounds have ended.
    let say = |word| {
        let _ = words.send(word);
    };
    let mut retry = Retry::default();
    say(Word::Idle);
    loop {
        let round = tokio::select! {
            round = rounds.recv() => round,
            // Level-triggered: what is judged again sees what is there.
            () = retry.due() => {
                say(Word::Again);
                continue;
            }
        };
        let Some((wanted, done)) = round else { break };
        let mut events = happenings(&wanted);
        let failed = write(&writer, wanted).await;
        events.retain(|event| {
            !failed.contains_key(event.regarding.uid.as_deref().unwrap_or_default())
        });
        for event in events.into_iter().chain(done) {
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
        say(Word::Idle);
    }
}

/// When all statuses are asked for again.
#[derive(Debug, Default)]
struct Retry {
    at: Option<Instant>,
    pause: Duration,
}

impl Retry {
    /// Notes how a round went: a failure is tried again after a pause that doubles each time.
    fn note(&mut self, failed: bool, now: Instant) {
        if !failed && self.at.is_none() {
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
async fn write(writer: &Writer, wanted: Vec<Announcement>) -> BTreeMap<String, WriteError> {
    stream::iter(wanted)
        .map(|announcement| send(writer, announcement))
        .buffer_unordered(PARALLEL)
        .filter_map(|(uid, result)| async { Some((uid, result.err()?)) })
        .collect()
        .await
}

/// Writes one; returns the object's UID beside what came of it.
async fn send(writer: &Writer, announcement: Announcement) -> (String, Result<(), WriteError>) {
    use Announcement as It;
    fn uid<K: Resource>(object: &K) -> String {
        object.uid().unwrap_or_default()
    }
    match announcement {
        It::Link(it, status) => (uid(&*it), writer.status(&*it, &status).await),
        It::Cluster(it, status) => (uid(&*it), writer.status(&*it, &status).await),
        It::Site(it, status) => (uid(&*it), writer.status(&*it, &status).await),
        It::Vpn(it, status) => (uid(&*it), writer.status(&*it, &status).await),
        It::Ledger(it, status) => (uid(&*it), writer.status(&*it, &status).await),
        It::Plan(it, status) => (uid(&*it), writer.namespaced_status(&*it, &status).await),
        It::ClusterInUse(it, used) => (uid(&*it), writer.in_use(&*it, used).await),
        It::SiteInUse(it, used) => (uid(&*it), writer.in_use(&*it, used).await),
        It::VpnInUse(it, used) => (uid(&*it), writer.in_use(&*it, used).await),
    }
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
