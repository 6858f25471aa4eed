//! Everything the operator has read, as a plain index: one table for each kind, changed synchronously by `apply`, `delete`
//! and `reset`.
//!
//! It decides nothing. It answers one question beside holding objects: did this event change anything that a decision
//! could depend on? Own writes are put in at once ([`Index::apply`] with the API server's answer), so that the next
//! decision sees them before the watch brings them back; the echo is then no change and wakes nobody.
//!
//! Each table also keeps a journal of what changed in it, so that a decider can follow with a copy of its own ([`Index::follow`])
//! at the cost of what changed. Objects are shared between the two.
//!
//! Objects of the same identity are ordered by resourceVersion, which the API server makes a growing number. After an
//! outage the version may have gone back with a restored store, so [`Index::reset`] takes what was listed as it is.

use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Secret};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use tieline_crds::{
    AddressLedger, Cluster, ClusterLink, NetworkPlan, Ours, Peer, Site, VpnAttachment,
};

/// Taint that keeps pods from a node until its agent carries a plan. Whoever registers nodes sets it, if at all; the operator
/// takes it away.
pub const AGENT_NOT_READY: &str = "tieline.dev/agent-not-ready";
/// How many deletions a table remembers, to know a late answer to an own write for what it is.
const TOMBSTONES: usize = 1024;

/// All tables.
#[derive(Debug, Clone, Default)]
pub struct Index {
    /// ClusterLinks by name.
    pub links: Table<ClusterLink>,
    /// Clusters by name.
    pub clusters: Table<Cluster>,
    /// Sites by name.
    pub sites: Table<Site>,
    /// VpnAttachments by name.
    pub vpns: Table<VpnAttachment>,
    /// AddressLedgers by name.
    pub ledgers: Table<AddressLedger>,
    /// NetworkPlans of the own namespace by name.
    pub plans: Table<NetworkPlan>,
    /// Peers of the own namespace by name.
    pub peers: Table<Peer>,
    /// Nodes of the own cluster by name, reduced to what is read.
    pub nodes: Table<Node>,
    /// ServiceCIDRs of the own cluster by name.
    pub services: Table<ServiceCIDR>,
    /// Secrets of the own namespace by name.
    pub secrets: Table<Secret>,
}

impl Index {
    /// Whether every kind has been listed once.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing().is_empty()
    }

    /// The kinds that have not been listed yet.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        fn unlisted<K: Indexed>(table: &Table<K>) -> Option<&'static str> {
            (!table.listed).then_some(K::PLURAL)
        }
        let unlisted = [
            unlisted(&self.links),
            unlisted(&self.clusters),
            unlisted(&self.sites),
            unlisted(&self.vpns),
            unlisted(&self.ledgers),
            unlisted(&self.plans),
            unlisted(&self.peers),
            unlisted(&self.nodes),
            unlisted(&self.services),
            unlisted(&self.secrets),
        ];
        unlisted.into_iter().flatten().collect()
    }

    /// Puts an object in, unless a newer version is there or it was deleted since. Returns whether a decision could change.
    pub fn apply<K: Indexed>(&mut self, object: K) -> bool {
        K::table(self).apply(object.reduced(), Origin::Others)
    }

    /// Puts in what the API server answered to an own write.
    pub fn apply_own<K: Indexed>(&mut self, object: K) {
        K::table(self).apply(object.reduced(), Origin::Own);
    }

    /// Takes an object out. Returns whether it was there.
    pub fn delete<K: Indexed>(&mut self, object: &K) -> bool {
        K::table(self).delete(object, Origin::Others)
    }

    /// Takes out what an own request deleted.
    pub fn delete_own<K: Indexed>(&mut self, object: &K) {
        K::table(self).delete(object, Origin::Own);
    }

    /// Brings `view` up to this index in the tables of `scope`, and says what changed there since it was asked last. `view` began
    /// empty and has changed by this alone.
    pub fn follow(&mut self, view: &mut Self, scope: Scope) -> News {
        let mut news = News {
            peers: self.peers.follow(&mut view.peers),
            nodes: self.nodes.follow(&mut view.nodes),
            ledgers: self.ledgers.follow(&mut view.ledgers),
            plans: self.plans.follow(&mut view.plans),
            ..News::default()
        };
        if scope == Scope::All {
            news.links = self.links.follow(&mut view.links);
            news.clusters = self.clusters.follow(&mut view.clusters);
            news.sites = self.sites.follow(&mut view.sites);
            news.vpns = self.vpns.follow(&mut view.vpns);
            news.services = self.services.follow(&mut view.services);
            news.secrets = self.secrets.follow(&mut view.secrets);
        }
        news
    }

    /// Whether somebody else's change of a Node or a Peer waits.
    #[must_use]
    pub fn has_news_of_nodes(&self) -> bool {
        let others = |origins: &BTreeMap<String, Origin>| {
            origins.values().any(|origin| *origin == Origin::Others)
        };
        others(&self.nodes.journal) || others(&self.peers.journal)
    }

    /// Whether something waits in a table that [`Scope::Nodes`] leaves out.
    #[must_use]
    pub fn has_news_of_users(&self) -> bool {
        !(self.links.journal.is_empty()
            && self.clusters.journal.is_empty()
            && self.sites.journal.is_empty()
            && self.vpns.journal.is_empty()
            && self.services.journal.is_empty()
            && self.secrets.journal.is_empty())
    }

    /// Replaces all objects of a kind by a complete list. Returns whether a decision could change.
    pub fn reset<K: Indexed>(&mut self, objects: Vec<K>) -> bool {
        K::table(self).reset(objects.into_iter().map(Indexed::reduced).collect())
    }
}

/// Which tables to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Nodes, Peers and the operator's own records: what a node that joins changes.
    Nodes,
}

/// Who changed an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This process, by a request that was answered.
    Own,
    /// Somebody else, or it cannot be told.
    Others,
}

/// What changed in a table since it was asked last.
#[derive(Debug, Clone)]
pub struct Change<K> {
    /// The object's name.
    pub name: String,
    /// As it was, if it was there.
    pub before: Option<Arc<K>>,
    /// As it is, if it is there.
    pub now: Option<Arc<K>>,
    /// Who changed it; several changes are somebody else's if one of them is.
    pub origin: Origin,
}

/// What changed in all tables, each in order of name.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// ClusterLinks.
    pub links: Vec<Change<ClusterLink>>,
    /// Clusters.
    pub clusters: Vec<Change<Cluster>>,
    /// Sites.
    pub sites: Vec<Change<Site>>,
    /// VpnAttachments.
    pub vpns: Vec<Change<VpnAttachment>>,
    /// AddressLedgers.
    pub ledgers: Vec<Change<AddressLedger>>,
    /// NetworkPlans.
    pub plans: Vec<Change<NetworkPlan>>,
    /// Peers.
    pub peers: Vec<Change<Peer>>,
    /// Nodes.
    pub nodes: Vec<Change<Node>>,
    /// ServiceCIDRs.
    pub services: Vec<Change<ServiceCIDR>>,
    /// Secrets.
    pub secrets: Vec<Change<Secret>>,
}

/// The objects of one kind by name.
#[derive(Debug, Clone)]
pub struct Table<K> {
    objects: BTreeMap<String, Arc<K>>,
    deleted: BTreeMap<String, u64>,
    listed: bool,
    journal: BTreeMap<String, Origin>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            deleted: BTreeMap::new(),
            listed: false,
            journal: BTreeMap::new(),
        }
    }
}

impl<K> Table<K> {
    /// The object of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<K>> {
        self.objects.get(name)
    }

    /// All objects in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<K>)> {
        self.objects
            .iter()
            .map(|(name, object)| (name.as_str(), object))
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

impl<K: Indexed> Table<K> {
    fn apply(&mut self, mut object: K, origin: Origin) -> bool {
        let name = object.name_any();
        let version = version(&object);
        if let (Some(deleted), Some(version)) = (self.deleted.get(&name), version) {
            if version <= *deleted {
                return false;
            }
            self.deleted.remove(&name);
        }
        let changed = match self.objects.get(&name) {
            Some(held) if is_older(&object, held) => return false,
            Some(held) => origin == Origin::Own || differs(held.as_ref(), &mut object),
            None => true,
        };
        self.note(&name, origin);
        self.objects.insert(name, Arc::new(object));
        changed
    }

    fn delete(&mut self, object: &K, origin: Origin) -> bool {
        let name = object.name_any();
        if let Some(held) = self.objects.get(&name)
            && is_older(object, held)
            && object.uid() == held.uid()
            && version(object) != version(held.as_ref())
        {
            return false;
        }
        if self.deleted.len() >= TOMBSTONES {
            self.deleted.clear();
        }
        if let Some(version) = version(object) {
            self.deleted.insert(name.clone(), version);
        }
        let was_there = self.objects.remove(&name).is_some();
        if was_there {
            self.note(&name, origin);
        }
        was_there
    }

    fn reset(&mut self, objects: Vec<K>) -> bool {
        let first = !std::mem::replace(&mut self.listed, true);
        self.deleted.clear();
        let held = std::mem::take(&mut self.objects);
        let mut same = true;
        for mut object in objects {
            let name = object.name_any();
            let before = held.get(&name);
            let differs = before.is_none_or(|it| differs(it.as_ref(), &mut object));
            if differs || before.is_none_or(|it| version(it.as_ref()) != version(&object)) {
                self.journal.insert(name.clone(), Origin::Others);
            }
            same &= !differs;
            self.objects.insert(name, Arc::new(object));
        }
        for name in held.into_keys() {
            if !self.objects.contains_key(&name) {
                self.journal.insert(name, Origin::Others);
                same = false;
            }
        }
        first || !same
    }

    fn note(&mut self, name: &str, origin: Origin) {
        match self.journal.get_mut(name) {
            Some(Origin::Others) => {}
            Some(held) => *held = origin,
            None => drop(self.journal.insert(name.to_owned(), origin)),
        }
    }

    fn follow(&mut self, view: &mut Self) -> Vec<Change<K>> {
        view.listed = self.listed;
        let journal = std::mem::take(&mut self.journal);
        let changes = journal.into_iter().map(|(name, origin)| {
            let now = self.objects.get(&name).cloned();
            let before = match &now {
                Some(object) => view.objects.insert(name.clone(), object.clone()),
                None => view.objects.remove(&name),
            };
            Change {
                name,
                before,
                now,
                origin,
            }
        });
        changes.collect()
    }
}

/// A kind that the index holds.
pub trait Indexed: Resource<DynamicType = ()> + Clone + PartialEq {
    /// As paths, metrics and messages name it.
    const PLURAL: &'static str;
    /// Whether an API server without this kind is taken for one without objects of it.
    const OPTIONAL: bool = false;

    /// Its table.
    fn table(index: &mut Index) -> &mut Table<Self>;

    /// The object without what nobody reads.
    #[must_use]
    fn reduced(mut self) -> Self {
        self.meta_mut().managed_fields = None;
        self
    }
}

macro_rules! indexed {
    ($($kind:ty => $table:ident),* $(,)?) => {$(
        impl Indexed for $kind {
            const PLURAL: &'static str = <$kind as Ours>::KIND.plural;

            fn table(index: &mut Index) -> &mut Table<Self> {
                &mut index.$table
            }
        }
    )*};
}

indexed! {
    ClusterLink => links,
    Cluster => clusters,
    Site => sites,
    VpnAttachment => vpns,
    AddressLedger => ledgers,
    NetworkPlan => plans,
    Peer => peers,
}

impl Indexed for Secret {
    const PLURAL: &'static str = "secrets";

    fn table(index: &mut Index) -> &mut Table<Self> {
        &mut index.secrets
    }
}

/// Kubernetes 1.32 does not serve it by default.
impl Indexed for ServiceCIDR {
    const PLURAL: &'static str = "servicecidrs";
    const OPTIONAL: bool = true;

    fn table(index: &mut Index) -> &mut Table<Self> {
        &mut index.services
    }
}

impl Indexed for Node {
    const PLURAL: &'static str = "nodes";

    fn table(index: &mut Index) -> &mut Table<Self> {
        &mut index.nodes
    }

    /// A kubelet writes its Node every few minutes with new times, and lists images: none of that is read here.
    fn reduced(self) -> Self {
        let spec = self.spec.unwrap_or_default();
        let status = self.status.unwrap_or_default();
        let ready = |mut condition: k8s_openapi::api::core::v1::NodeCondition| {
            condition.last_heartbeat_time = None;
            condition
        };
        Self {
            metadata: ObjectMeta {
                name: self.metadata.name,
                uid: self.metadata.uid,
                resource_version: self.metadata.resource_version,
                labels: self.metadata.labels,
                deletion_timestamp: self.metadata.deletion_timestamp,
                managed_fields: Some(
                    self.metadata
                        .managed_fields
                        .unwrap_or_default()
                        .into_iter()
                        .filter(owns_pod_cidr)
                        .map(|entry| ManagedFieldsEntry {
                            time: None,
                            fields_v1: None,
                            ..entry
                        })
                        .collect(),
                ),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                pod_cidr: spec.pod_cidr,
                pod_cidrs: spec.pod_cidrs,
                // Others come and go with the node's state.
                taints: spec
                    .taints
                    .filter(|taints| taints.iter().any(|it| it.key == AGENT_NOT_READY)),
                ..NodeSpec::default()
            }),
            status: Some(NodeStatus {
                addresses: status.addresses,
                conditions: status.conditions.map(|conditions| {
                    conditions
                        .into_iter()
                        .filter(|condition| condition.type_ == "Ready")
                        .map(ready)
                        .collect()
                }),
                ..NodeStatus::default()
            }),
        }
    }
}

/// Whether this manager's fields include the node's podCIDRs.
fn owns_pod_cidr(entry: &ManagedFieldsEntry) -> bool {
    entry.fields_v1.as_ref().is_some_and(|fields| {
        fields
            .0
            .get("f:spec")
            .is_some_and(|spec| spec.get("f:podCIDR").is_some() || spec.get("f:podCIDRs").is_some())
    })
}

fn version<K: Resource>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_ref()?.parse().ok()
}

/// Whether `object` is the held one, or an older version of it.
fn is_older<K: Resource>(object: &K, held: &K) -> bool {
    match (version(object), version(held)) {
        (Some(new), Some(old)) => new <= old,
        _ => false,
    }
}

/// Whether two versions differ in more than the version.
fn differs<K: Indexed>(held: &K, object: &mut K) -> bool {
    // Swapped for the comparison, because copying a large object costs more than comparing it.
    let version = std::mem::replace(
        &mut object.meta_mut().resource_version,
        held.meta().resource_version.clone(),
    );
    let differs = held != object;
    object.meta_mut().resource_version = version;
    differs
}

#[cfg(test)]
mod tests;
