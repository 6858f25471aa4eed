//! Three watches that fold into the index: plans and Peers of this cluster, and Peers of other clusters.
//!
//! Whatever goes wrong, a watch begins again, with a complete list ([`tieline_client::follow`]). An outage that somebody can do something
//! about becomes a condition of this node.

use crate::index::{Collection, Complaint, Folded, Index, Own, OwnPeer, Parsed, Shared};
use kube::{Api, Client, ResourceExt};
use std::sync::Arc;
use std::time::Duration;
use tieline_client::chain;
use tieline_client::follow::{Config, Deletion, Error, Follower, Pauses, follow};
use tieline_core::ids::PeerName;
use tieline_core::network_plan::NetworkPlan;
use tieline_core::peer::AcceptedPeer;
use tieline_crds::convert::{accepted_peer, network_plan};
use tieline_crds::{NetworkPlan as Plan, Peer};

/// Long: there are as many agents as nodes, and the mesh stands without the API server.
const PAUSES: Pauses = Pauses {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(10),
};
/// Seconds that one watch request lasts. A connection that died silently is noticed soon after.
const WATCH_SECONDS: u32 = 120;

/// Runs all watches; never returns.
pub async fn run(client: Client, shared: Arc<Shared>, namespace: &str, mesh: &str, own: &Own) {
    let plans_api = Api::<Plan>::namespaced(client.clone(), namespace);
    let local_api = Api::<Peer>::namespaced(client.clone(), namespace);
    let foreign_api = Api::<Peer>::namespaced(client, mesh);
    let config = Config::default().timeout(WATCH_SECONDS);
    let mut found = None;
    let track_own = |step: Step<'_, Peer>| track(&shared, own, &mut found, &step);
    let plans = follow(plans_api, config.clone(), PAUSES, plans_of(&shared));
    let local = peers_of(
        "Peers of this cluster",
        &shared,
        |index| &mut index.local,
        track_own,
    );
    let foreign = peers_of(
        "Peers of other clusters",
        &shared,
        |index| &mut index.foreign,
        |_| (),
    );
    let local = follow(local_api, config.clone(), PAUSES, local);
    let foreign = follow(foreign_api, config, PAUSES, foreign);
    tokio::join!(plans, local, foreign);
}

fn plans_of(shared: &Shared) -> impl Follower<Plan, Item = Parsed<String, Arc<NetworkPlan>>> {
    Fold {
        what: "NetworkPlans",
        shared,
        collection: |index| &mut index.plans,
        parse: parse_plan,
        // Only a complete list ends a plan.
        delete: |_, _| Folded::ListAgain,
        see: |_: Step<'_, Plan>| (),
    }
}

fn peers_of<'a, S: FnMut(Step<'_, Peer>)>(
    what: &'static str,
    shared: &'a Shared,
    collection: fn(&mut Index) -> &mut Collection<PeerName, Arc<AcceptedPeer>>,
    see: S,
) -> Fold<'a, Peer, PeerName, Arc<AcceptedPeer>, S> {
    Fold {
        what,
        shared,
        collection,
        parse: parse_peer,
        delete: delete_peer,
        see,
    }
}

/// How the objects of one watch get into the index.
struct Fold<'a, O, K: Ord, V, S> {
    what: &'static str,
    shared: &'a Shared,
    collection: fn(&mut Index) -> &mut Collection<K, V>,
    parse: fn(&O) -> Parsed<K, V>,
    delete: fn(&mut Collection<K, V>, &O) -> Folded,
    /// Looks over its shoulder.
    see: S,
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

impl<O, K, V, S> Follower<O> for Fold<'_, O, K, V, S>
where
    K: Ord + Clone + ToString,
    V: Clone + PartialEq,
    S: FnMut(Step<'_, O>),
{
    type Item = Parsed<K, V>;

    fn begin(&mut self) {
        (self.see)(Step::ListBegins);
    }

    fn read(&mut self, object: O) -> Parsed<K, V> {
        (self.see)(Step::Object(&object));
        (self.parse)(&object)
    }

    fn reset(&mut self, list: Vec<Parsed<K, V>>) {
        (self.see)(Step::ListEnds);
        self.shared.fold(|index| {
            let cleared = index.outages.remove(self.what).is_some();
            match (self.collection)(index).reset(list) {
                Folded::Same if cleared => Folded::Changed,
                folded => folded,
            }
        });
    }

    fn apply(&mut self, parsed: Parsed<K, V>) {
        self.shared
            .fold(|index| (self.collection)(index).apply(parsed));
    }

    fn delete(&mut self, object: &O) -> Deletion {
        (self.see)(Step::Gone(object));
        let folded = self
            .shared
            .fold(|index| (self.delete)((self.collection)(index), object));
        match folded {
            Folded::ListAgain => Deletion::ListAgain,
            Folded::Same | Folded::Changed => Deletion::Believed,
        }
    }

    /// A refusal is worth a condition; an API server that is away is not, because nobody would read it.
    fn broken(&mut self, error: &Error) -> Duration {
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
        Duration::ZERO
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

fn parse_plan(object: &Plan) -> Parsed<String, Arc<NetworkPlan>> {
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

#[cfg(test)]
mod tests;
