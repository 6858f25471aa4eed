//! A watch that never ends: a list, then what changed since; after every break a list again.
//!
//! ```text
//!  begin ─► read, read, … ─► reset ─► (read, apply | delete)* ──delete says so──► list again at once
//!    ▲                                        │
//!    └───── pause, growing, jittered ◄── broken
//! ```
//!
//! A watch that broke is not resumed. A restored etcd repeats resource versions, so a resumed watch could miss what the restore took
//! back. What is concluded from news and from outages is the [`Follower`]'s business: this file decides only when to ask again.

use futures::{StreamExt, pin_mut};
use kube::runtime::watcher::{Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;

pub use kube::runtime::watcher::{Config, Error};

/// Takes in what a watch says, and decides what deletions and outages mean.
pub trait Follower<K> {
    /// An object as it is kept from the list's beginning to its end; small, for a list may be long.
    type Item;

    /// A list begins. What an unfinished one said before is void.
    fn begin(&mut self) {}

    /// An object of a list, or one that was added or changed.
    fn read(&mut self, object: K) -> Self::Item;

    /// The list is complete: what is not in it is gone.
    fn reset(&mut self, list: Vec<Self::Item>);

    /// One object was added or changed.
    fn apply(&mut self, item: Self::Item);

    /// One object was deleted.
    fn delete(&mut self, object: &K) -> Deletion;

    /// The watch broke, and a list comes after a pause. Returns what to wait in addition.
    fn broken(&mut self, error: &Error) -> Duration;
}

/// What comes after a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The next event: the deletion is believed.
    Believed,
    /// A complete list, at once: the deletion alone proves nothing.
    ListAgain,
}

/// Pauses between a broken watch and the next list. Each is twice as long as the one before until a list succeeds, and is shortened at
/// random by up to a half, so that a returning API server does not meet all its clients at once.
#[derive(Debug, Clone, Copy)]
pub struct Pauses {
    /// The first one.
    pub first: Duration,
    /// The longest one.
    pub longest: Duration,
}

/// Follows one kind; never returns.
pub async fn follow<K, F>(api: Api<K>, config: Config, pauses: Pauses, mut follower: F)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    F: Follower<K>,
{
    let mut pause = pauses.first;
    loop {
        let watch = once(&api, &config, &mut follower, || pause = pauses.first);
        if let Err(error) = watch.await {
            let more = follower.broken(&error);
            tokio::time::sleep(more + jittered(pause)).await;
            pause = (pause * 2).min(pauses.longest);
        }
    }
}

/// One list and the watch behind it. Returns when the list has to be read again without a pause.
async fn once<K, F>(
    api: &Api<K>,
    config: &Config,
    follower: &mut F,
    mut complete: impl FnMut(),
) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    F: Follower<K>,
{
    let events = watcher(api.clone(), config.clone());
    pin_mut!(events);
    let mut list = Vec::new();
    while let Some(event) = events.next().await {
        match event? {
            Event::Init => {
                list.clear();
                follower.begin();
            }
            Event::InitApply(object) => list.push(follower.read(object)),
            Event::InitDone => {
                follower.reset(std::mem::take(&mut list));
                complete();
            }
            Event::Apply(object) => {
                let item = follower.read(object);
                follower.apply(item);
            }
            Event::Delete(object) => {
                if follower.delete(&object) == Deletion::ListAgain {
                    return Ok(());
                }
            }
        }
    }
    // kube's stream has no end.
    Ok(())
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

#[cfg(test)]
mod tests;
