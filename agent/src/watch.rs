//! Three watches that fold into the index: plans and Peers of this cluster, and Peers of other clusters.
//!
//! Whatever goes wrong, a watch begins again, with a complete list: an API server that was away may have been restored
//! from a backup, and then resource versions repeat and events are missed. Errors never end a watch; the pause between
//! attempts grows to [`MAX_PAUSE`] and is jittered, so that a returning API server does not meet all agents at once.

use crate::index::{Collection, Complaint, Folded, Index, Own, OwnPeer, Parsed, Shared};
use crate::report::chain;
use futures::StreamExt;
use kube::runtime::watcher::{Config, Error, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tieline_core::ids::PeerName;
use tieline_core::network_plan::NetworkPlan;
use tieline_core::peer::AcceptedPeer;
use tieline_crds::Peer;
use tieline_crds::convert::{accepted_peer, network_plan};
use tokio::time::sleep;

/// First pause after an error.
const MIN_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause after errors.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Seconds that one watch request lasts. A connection that died silently is noticed soon after.
const WATCH_SECONDS: u32 = 120;

/// Runs all watches; never returns.
pub async fn run(client: Client, shared: Arc<Shared>, namespace: &str, mesh: &str, own: &Own) {
    let plans = Api::<tieline_crds::NetworkPlan>::namespaced(client.clone(), namespace);
    let local = Api::<Peer>::namespaced(client.clone(), namespace);
    let foreign = Api::<Peer>::namespaced(client, mesh);
    let mut found = None;
    let track_own = |step: Step<'_, Peer>| track(&shared, own, &mut found, &step);
    tokio::join!(
        Watch {
            what: "NetworkPlans",
            shared: &shared,
            collection: |index| &mut index.plans,
            parse: parse_plan,
            // Only a complete list ends a plan.
            delete: |_, _| Folded::ListAgain,
        }
        .run(plans, |_| ()),
        Watch {
            what: "Peers of this cluster",
            shared: &shared,
            collection: |index| &mut index.local,
            parse: parse_peer,
            delete: delete_peer,
        }
        .run(local, track_own),
        Watch {
            what: "Peers of other clusters",
            shared: &shared,
            collection: |index| &mut index.foreign,
            parse: parse_peer,
            delete: delete_peer,
        }
        .run(foreign, |_| ()),
    );
}

/// One watch: where its objects go, and how.
struct Watch<'a, O, K: Ord, V> {
    what: &'static str,
    shared: &'a Shared,
    collection: fn(&mut Index) -> &mut Collection<K, V>,
    parse: fn(&O) -> Parsed<K, V>,
    delete: fn(&mut Collection<K, V>, &O) -> Folded,
}

/// What a watch does, for those who look over its shoulder.
enum Step<'a, O> {
    /// A list begins.
    ListBegins,
    /// An object is listed, or was added or changed.
    Object(&'a O),
    /// The list is complete.
    ListEnds,
    /// An object is gone.
    Gone(&'a O),
}

impl<O, K, V> Watch<'_, O, K, V>
where
    O: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    K: Ord + Clone + ToString,
    V: Clone + PartialEq,
{
    async fn run(self, api: Api<O>, mut see: impl FnMut(Step<'_, O>)) {
        let mut pause = MIN_PAUSE;
        loop {
            match self.follow(&api, &mut see, &mut pause).await {
                Ok(()) => {}
                Err(error) => {
                    self.note_outage(&error);
                    sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
    }

    /// Follows one stream from its list on; returns when it has to begin again.
    async fn follow(
        &self,
        api: &Api<O>,
        see: &mut impl FnMut(Step<'_, O>),
        pause: &mut Duration,
    ) -> Result<(), Error> {
        let mut stream = pin!(watcher(
            api.clone(),
            Config::default().timeout(WATCH_SECONDS)
        ));
        let mut list = Vec::new();
        while let Some(event) = stream.next().await {
            match event? {
                Event::Init => {
                    list.clear();
                    see(Step::ListBegins);
                }
                Event::InitApply(object) => {
                    see(Step::Object(&object));
                    list.push((self.parse)(&object));
                }
                Event::InitDone => {
                    see(Step::ListEnds);
                    let list = std::mem::take(&mut list);
                    self.shared.fold(|index| {
                        let cleared = index.outages.remove(self.what).is_some();
                        match (self.collection)(index).reset(list) {
                            Folded::Same if cleared => Folded::Changed,
                            folded => folded,
                        }
                    });
                    *pause = MIN_PAUSE;
                }
                Event::Apply(object) => {
                    see(Step::Object(&object));
                    let parsed = (self.parse)(&object);
                    self.shared
                        .fold(|index| (self.collection)(index).apply(parsed));
                }
                Event::Delete(object) => {
                    see(Step::Gone(&object));
                    let folded = self
                        .shared
                        .fold(|index| (self.delete)((self.collection)(index), &object));
                    if folded == Folded::ListAgain {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// A refusal is worth a condition; an API server that is away is not, because nobody would read it.
    fn note_outage(&self, error: &Error) {
        let text = chain(error);
        tracing::info!(watch = self.what, error = %text, "watch begins again");
        if is_refusal(error) {
            self.shared.fold(|index| {
                let before = index.outages.insert(self.what.to_owned(), text.clone());
                if before.as_ref() == Some(&text) {
                    Folded::Same
                } else {
                    Folded::Changed
                }
            });
        }
    }
}

fn is_refusal(error: &Error) -> bool {
    let status = match error {
        Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status))
        | Error::WatchFailed(kube::Error::Api(status))
        | Error::WatchError(status) => status,
        _ => return false,
    };
    (400..500).contains(&status.code) && ![408, 410, 429].contains(&status.code)
}

fn parse_plan(object: &tieline_crds::NetworkPlan) -> Parsed<String, Arc<NetworkPlan>> {
    match network_plan(object) {
        Ok(plan) => Ok((object.name_any(), Arc::new(plan))),
        Err(error) => Err(Complaint {
            name: object.name_any(),
            message: error.to_string(),
        }),
    }
}

fn parse_peer(object: &Peer) -> Parsed<PeerName, Arc<AcceptedPeer>> {
    accepted_peer(object).map_err(|error| Complaint {
        name: object.name_any(),
        message: error.to_string(),
    })
}

fn delete_peer(peers: &mut Collection<PeerName, Arc<AcceptedPeer>>, object: &Peer) -> Folded {
    let text = object.name_any();
    match PeerName::new(text.clone()) {
        Ok(name) => peers.delete(&name),
        // It could not be read while it existed either.
        Err(_) => peers.forget(&text),
    }
}

fn track(shared: &Shared, own: &Own, found: &mut Option<OwnPeer>, step: &Step<'_, Peer>) {
    let is_own = |peer: &Peer| {
        peer.spec.node == own.node.as_str()
            && own
                .cluster
                .as_ref()
                .is_none_or(|cluster| peer.spec.cluster == cluster.as_str())
    };
    match step {
        Step::ListBegins => *found = None,
        Step::Object(peer) if is_own(peer) => {
            if let Ok(name) = PeerName::new(peer.name_any()) {
                *found = Some(OwnPeer {
                    name,
                    generation: peer.metadata.generation,
                    status: peer.status.clone().unwrap_or_default(),
                });
                shared.set_own(found.clone());
            }
        }
        Step::ListEnds => shared.set_own(found.clone()),
        Step::Gone(peer) if is_own(peer) => {
            *found = None;
            shared.set_own(None);
        }
        Step::Object(_) | Step::Gone(_) => {}
    }
}
