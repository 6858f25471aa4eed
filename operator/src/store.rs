//! The index, shared between watches, the reconcile loop and the writers.

use crate::index::{Index, Indexed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The shared index, and a bell that rings when something changed that a decision could depend on.
#[derive(Debug, Default)]
pub struct Store {
    index: Mutex<Index>,
    changed: Notify,
}

impl Store {
    /// A copy to decide from. Objects are shared, so this is cheap.
    #[must_use]
    pub fn snapshot(&self) -> Index {
        self.lock().clone()
    }

    /// Takes in what a watch saw and rings the bell when it matters.
    pub fn observe(&self, change: impl FnOnce(&mut Index) -> bool) {
        if change(&mut self.lock()) {
            self.changed.notify_one();
        }
    }

    /// Takes in the API server's answer to an own write, without ringing: the writer knows.
    pub fn wrote<K: Indexed>(&self, object: K) {
        self.lock().apply(object);
    }

    /// Takes out what was deleted by an own request, without ringing.
    pub fn removed<K: Indexed>(&self, object: &K) {
        self.lock().delete(object);
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
