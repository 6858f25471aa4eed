//! What the API server has told us: a plain index that watch events fold into.
//!
//! One [`Collection`] per watch. `apply` and `reset` take parsed values; what cannot be parsed is kept as a
//! complaint beside them, and the last good version of that object stays in use. Nothing here waits, reads or writes.
//!
//! **A plan disappears by a complete list only.** A delete event is answered by listing again ([`Folded::ListAgain`]):
//! withdrawing a mesh is the one step that cannot be undone quickly, so it must not rest on a single event.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tieline_core::ids::{ClusterName, NodeId, NodeName, PeerName};
use tieline_core::network_plan::NetworkPlan;
use tieline_core::peer::{AcceptedPeer, AcceptedPeers};
use tieline_crds::PeerStatus;
use tokio::sync::{Notify, watch};

/// Objects of one watch.
#[derive(Debug, Clone)]
pub struct Collection<K: Ord, V> {
    objects: Arc<BTreeMap<K, V>>,
    complete: bool,
    complaints: BTreeMap<String, String>,
}

/// What an event was to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    /// Nothing that we read has changed.
    Same,
    /// Something has.
    Changed,
    /// List again before anything is concluded.
    ListAgain,
}

impl Folded {
    fn from_change(changed: bool) -> Self {
        if changed { Self::Changed } else { Self::Same }
    }
}

/// One object as it was parsed.
pub type Parsed<K, V> = Result<(K, V), Complaint>;

/// An object that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Its name.
    pub name: String,
    /// What is wrong, where.
    pub message: String,
}

impl<K: Ord, V> Default for Collection<K, V> {
    fn default() -> Self {
        Self {
            objects: Arc::default(),
            complete: false,
            complaints: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone + ToString, V: Clone + PartialEq> Collection<K, V> {
    /// The objects, once a complete list has been read.
    #[must_use]
    pub fn objects(&self) -> Option<&Arc<BTreeMap<K, V>>> {
        self.complete.then_some(&self.objects)
    }

    /// What cannot be used, and why.
    #[must_use]
    pub fn complaints(&self) -> &BTreeMap<String, String> {
        &self.complaints
    }

    /// One object was added or changed.
    pub fn apply(&mut self, parsed: Parsed<K, V>) -> Folded {
        match parsed {
            Ok((name, value)) => {
                let complained = self.complaints.remove(&name.to_string()).is_some();
                let same = self.objects.get(&name) == Some(&value);
                if !same {
                    Arc::make_mut(&mut self.objects).insert(name, value);
                }
                Folded::from_change(complained || !same)
            }
            Err(complaint) => self.complain(complaint),
        }
    }

    /// One object was deleted.
    pub fn delete(&mut self, name: &K) -> Folded {
        let complained = self.complaints.remove(&name.to_string()).is_some();
        let known = self.objects.contains_key(name);
        if known {
            Arc::make_mut(&mut self.objects).remove(name);
        }
        Folded::from_change(complained || known)
    }

    /// An object that could never be read is gone.
    pub fn forget(&mut self, name: &str) -> Folded {
        Folded::from_change(self.complaints.remove(name).is_some())
    }

    /// A complete list was read: what is not in it is gone.
    pub fn reset(&mut self, list: Vec<Parsed<K, V>>) -> Folded {
        let mut objects = BTreeMap::new();
        let mut complaints = BTreeMap::new();
        for parsed in list {
            match parsed {
                Ok((name, value)) => {
                    objects.insert(name, value);
                }
                Err(Complaint { name, message }) => {
                    // It exists, so its last good version goes on.
                    if let Some((key, value)) =
                        self.objects.iter().find(|(key, _)| key.to_string() == name)
                    {
                        objects.insert(key.clone(), value.clone());
                    }
                    complaints.insert(name, message);
                }
            }
        }
        let changed = !self.complete || *self.objects != objects || self.complaints != complaints;
        if *self.objects != objects {
            self.objects = Arc::new(objects);
        }
        self.complaints = complaints;
        self.complete = true;
        Folded::from_change(changed)
    }

    fn complain(&mut self, complaint: Complaint) -> Folded {
        let Complaint { name, message } = complaint;
        let before = self.complaints.insert(name, message.clone());
        Folded::from_change(before != Some(message))
    }
}

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Its name in its cluster.
    pub node: NodeName,
    /// Its cluster, where that is configured.
    pub cluster: Option<ClusterName>,
}

impl Own {
    /// The name that the Peer of this node has or will have, where the cluster is configured.
    #[must_use]
    pub fn peer_name(&self) -> Option<PeerName> {
        let id = NodeId {
            cluster: self.cluster.clone()?,
            node: self.node.clone(),
        };
        id.peer().ok()
    }

    /// The Peer of this node among this cluster's Peers.
    #[must_use]
    pub fn find<'a>(&self, local: &'a AcceptedPeers) -> Option<(&'a PeerName, &'a AcceptedPeer)> {
        let is_own = |peer: &AcceptedPeer| {
            let cluster = self.cluster.as_ref();
            peer.node == self.node && cluster.is_none_or(|cluster| *cluster == peer.cluster)
        };
        let mut peers = local.iter().map(|(name, peer)| (name, &**peer));
        peers.find(|(_, peer)| is_own(peer))
    }
}

/// What the API says about the Peer of this node beside its accepted part.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnPeer {
    /// The object's name.
    pub name: PeerName,
    /// Its `metadata.generation`.
    pub generation: Option<i64>,
    /// Its status as it stands.
    pub status: PeerStatus,
}

/// The index as watches and the reconcile loop share it.
#[derive(Debug, Default)]
pub struct Shared {
    index: Mutex<Index>,
    changed: Notify,
    own: watch::Sender<Option<OwnPeer>>,
}

impl Shared {
    /// Changes the index under its lock, and wakes the reconcile loop when that changed anything.
    pub fn fold(&self, change: impl FnOnce(&mut Index) -> Folded) -> Folded {
        // A poisoned lock means that a fold has panicked; the index is still a valid value.
        let folded = change(&mut self.index.lock().unwrap_or_else(PoisonError::into_inner));
        if folded == Folded::Changed {
            self.changed.notify_one();
        }
        folded
    }

    /// A consistent copy of everything.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.index
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .snapshot()
    }

    /// Returns when the index has changed since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Says how the API holds this node's Peer.
    pub fn set_own(&self, own: Option<OwnPeer>) {
        self.own.send_if_modified(|before| {
            let differs = *before != own;
            *before = own;
            differs
        });
    }

    /// Follows this node's Peer.
    #[must_use]
    pub fn own(&self) -> watch::Receiver<Option<OwnPeer>> {
        self.own.subscribe()
    }
}

/// All three collections.
#[derive(Debug, Default)]
pub struct Index {
    /// Plans by object name.
    pub plans: Collection<String, Arc<NetworkPlan>>,
    /// This cluster's Peers.
    pub local: Collection<PeerName, Arc<AcceptedPeer>>,
    /// Other clusters' Peers.
    pub foreign: Collection<PeerName, Arc<AcceptedPeer>>,
    /// Why a watch does not work at the moment, by what it watches.
    pub outages: BTreeMap<String, String>,
}

/// Plans by object name.
pub type Plans = BTreeMap<String, Arc<NetworkPlan>>;

/// What to go by at one moment; cheap to take.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Plans; `None`: no complete list yet.
    pub plans: Option<Arc<Plans>>,
    /// Plans that exist and cannot be read.
    pub unreadable_plans: usize,
    /// This cluster's Peers; `None`: no complete list yet.
    pub local: Option<Arc<AcceptedPeers>>,
    /// Other clusters' Peers; `None`: no complete list yet.
    pub foreign: Option<Arc<AcceptedPeers>>,
    /// Objects that cannot be used, by kind and name.
    pub complaints: BTreeMap<String, String>,
    /// Why a watch does not work at the moment, by what it watches.
    pub outages: BTreeMap<String, String>,
}

impl Index {
    /// A consistent copy.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let label = |kind: &'static str| {
            move |(name, message): (&String, &String)| (format!("{kind} {name}"), message.clone())
        };
        Snapshot {
            plans: self.plans.objects().cloned(),
            unreadable_plans: self.plans.complaints().len(),
            outages: self.outages.clone(),
            local: self.local.objects().cloned(),
            foreign: self.foreign.objects().cloned(),
            complaints: self
                .plans
                .complaints()
                .iter()
                .map(label("NetworkPlan"))
                .chain(self.local.complaints().iter().map(label("Peer")))
                .chain(self.foreign.complaints().iter().map(label("Peer")))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
