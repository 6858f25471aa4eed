//! DNS names of endpoints, resolved beside the reconcile and never in it.
//!
//! A name keeps its last good answer for ever: a resolver that is down, or that is reached through the mesh itself,
//! must not take tunnels with it. The address in use stays first while the answer still holds it, so that round-robin
//! DNS moves nobody.

use futures::{StreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use tieline_core::ids::NodeName;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Time between two looks at the same name.
const REFRESH: Duration = Duration::from_secs(60);
/// Time between looks while a name has no answer.
const RETRY: Duration = Duration::from_secs(5);
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// Names looked up at once.
const PARALLEL: usize = 16;

/// Last good answers.
pub type Answers = BTreeMap<NodeName, Vec<IpAddr>>;

/// The resolver's two ends.
#[derive(Debug)]
pub struct Names {
    wanted: watch::Sender<BTreeSet<NodeName>>,
    answers: watch::Receiver<Answers>,
}

impl Names {
    /// Starts resolving in the background, with the answers of an earlier run.
    #[must_use]
    pub fn start(known: Answers) -> Self {
        let (wanted, want) = watch::channel(BTreeSet::new());
        let (answer, answers) = watch::channel(known);
        tokio::spawn(resolve_all(want, answer));
        Self { wanted, answers }
    }

    /// Says which names are needed.
    pub fn want(&self, names: BTreeSet<NodeName>) {
        self.wanted.send_if_modified(|wanted| {
            let differs = *wanted != names;
            *wanted = names;
            differs
        });
    }

    /// The last good answers.
    #[must_use]
    pub fn answers(&self) -> Answers {
        self.answers.borrow().clone()
    }

    /// Returns when an answer has changed.
    pub async fn changed(&mut self) {
        if self.answers.changed().await.is_err() {
            // The resolver has ended with the runtime: there is no news any more.
            std::future::pending::<()>().await;
        }
    }
}

async fn resolve_all(
    mut want: watch::Receiver<BTreeSet<NodeName>>,
    answer: watch::Sender<Answers>,
) {
    loop {
        let names = want.borrow_and_update().clone();
        let found: Vec<(NodeName, Vec<IpAddr>)> = stream::iter(names.iter().cloned())
            .map(|name| async move {
                let addresses = look_up(&name).await;
                (name, addresses)
            })
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        let missing = found.iter().any(|(_, addresses)| addresses.is_empty());
        answer.send_if_modified(|answers| {
            let mut next: Answers = answers
                .iter()
                .filter(|(name, _)| names.contains(*name))
                .map(|(name, addresses)| (name.clone(), addresses.clone()))
                .collect();
            for (name, addresses) in found {
                if !addresses.is_empty() {
                    let before = next.get(&name).map(Vec::as_slice).unwrap_or_default();
                    let merged = merge(before, addresses);
                    next.insert(name, merged);
                }
            }
            // Before the first wish, nothing is dropped: the answers of the last run are still to be used.
            let differs = !names.is_empty() && *answers != next;
            if differs {
                *answers = next;
            }
            differs
        });
        let pause = if missing { RETRY } else { REFRESH };
        tokio::select! {
            () = sleep(pause) => {}
            changed = want.changed() => if changed.is_err() { return },
        }
    }
}

async fn look_up(name: &NodeName) -> Vec<IpAddr> {
    match timeout(PATIENCE, tokio::net::lookup_host((name.as_str(), 0))).await {
        Ok(Ok(addresses)) => addresses.map(|socket| socket.ip()).collect(),
        Ok(Err(error)) => {
            tracing::debug!(%name, %error, "name not resolved");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

/// A new answer in a stable order, the address in use first.
fn merge(before: &[IpAddr], mut answer: Vec<IpAddr>) -> Vec<IpAddr> {
    answer.sort_unstable();
    answer.dedup();
    if let Some(at) = before
        .first()
        .and_then(|used| answer.iter().position(|address| address == used))
    {
        answer[..=at].rotate_right(1);
    }
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_address_in_use_stays_first_while_the_answer_holds_it() {
        let answer = addresses(&["192.0.2.3", "192.0.2.1", "192.0.2.2", "192.0.2.1"]);
        assert_eq!(
            merge(&addresses(&["192.0.2.2"]), answer.clone()),
            addresses(&["192.0.2.2", "192.0.2.1", "192.0.2.3"])
        );
        assert_eq!(
            merge(&addresses(&["192.0.2.9"]), answer),
            addresses(&["192.0.2.1", "192.0.2.2", "192.0.2.3"])
        );
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_keeps_its_last_good_answer() {
        let name = NodeName::new("gateway.invalid").unwrap();
        let known = Answers::from([(name.clone(), addresses(&["192.0.2.1"]))]);
        let names = Names::start(known.clone());
        names.want(BTreeSet::from([name]));
        sleep(Duration::from_millis(300)).await;
        assert_eq!(names.answers(), known);
    }
}
