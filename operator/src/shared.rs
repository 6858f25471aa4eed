//! The index, shared between watches, the reconcile loop and the writers.

use crate::index::{Index, Indexed, News, Scope};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The shared index, and a bell that rings when something changed that a decision could depend on.
#[derive(Debug, Default)]
pub struct Shared {
    index: Mutex<Index>,
    changed: Notify,
}

impl Shared {
    /// Brings a decider's own copy up to date, at the cost of what changed.
    pub fn follow(&self, view: &mut Index, scope: Scope) -> News {
        self.lock().follow(view, scope)
    }

    /// Whether users' objects have changed since [`Scope::All`] was followed last.
    #[must_use]
    pub fn has_news_of_users(&self) -> bool {
        self.lock().has_news_of_users()
    }

    /// Whether somebody else has changed a Node or a Peer since it was followed last.
    #[must_use]
    pub fn has_news_of_nodes(&self) -> bool {
        self.lock().has_news_of_nodes()
    }

    /// The kinds that have not been listed yet.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.lock().missing()
    }

    /// Takes in what a watch saw and rings the bell when it matters.
    pub fn observe(&self, change: impl FnOnce(&mut Index) -> bool) {
        if change(&mut self.lock()) {
            self.changed.notify_one();
        }
    }

    /// Takes in the API server's answer to an own write, without ringing: the writer knows.
    pub fn wrote<K: Indexed>(&self, object: K) {
        self.lock().apply_own(object);
    }

    /// Takes out what was deleted by an own request, without ringing.
    pub fn removed<K: Indexed>(&self, object: &K) {
        self.lock().delete_own(object);
    }

    /// Rings the bell: something beside the index changed.
    pub fn ring(&self) {
        self.changed.notify_one();
    }

    /// Waits for the bell. One that rang before is not lost.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // The index holds no half-made change: every operation on it is one call.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
