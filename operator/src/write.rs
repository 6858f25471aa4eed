//! The writes: each sends one request, and puts the answer into the index so that the next decision sees it.
//!
//! Ledgers change by `replace` with resourceVersion; their slices are created and deleted. Nodes' podCIDRs and taints, and the label of what is in use, are merge
//! patches that carry the object's UID. Everything else is server-side apply with one field manager and without force: a field that
//! somebody else set is reported, never taken. Nothing is sent while this process does not lead.

use crate::index::Indexed;
use crate::metrics::{Metrics, WriteLabels};
use crate::shared::Shared;
use crate::touched::Target;
use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::{Node, Secret, Taint};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tieline_client::chain;
use tieline_client::lease::Leadership;
use tieline_core::cidr::Prefix;
use tieline_crds::{AddressLedger, NetworkPlan, NetworkPlanSpec, Ours, Peer, PeerSpec};

/// The one field manager.
pub const MANAGER: &str = "tieline-operator";
/// How many independent writes run at once.
const PARALLEL: usize = 8;
/// Label on objects that a link uses; a policy refuses to delete them.
pub const IN_USE: &str = "tieline.dev/in-use";

/// Why something was not written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// This process does not lead. Another one does the work.
    #[error("not leading")]
    NotLeading,
    /// The object changed since it was read: decide again.
    #[error("{object} has changed since it was read")]
    Conflict {
        /// Kind and name.
        object: String,
    },
    /// The API server refused. A retry helps only when something changes.
    #[error("the API server refused to change {object}: {reason}")]
    Refused {
        /// Kind and name.
        object: String,
        /// The API server's words.
        reason: String,
    },
    /// The API server did not answer, or could not. A retry can help.
    #[error("cannot change {object}: {reason}")]
    Unavailable {
        /// Kind and name.
        object: String,
        /// Why.
        reason: String,
    },
}

/// One thing to write, as data.
#[derive(Debug, Clone)]
pub enum Write {
    /// A ledger, created, or replaced if it still has the resourceVersion that it carries.
    Ledger(Box<AddressLedger>),
    /// Name and spec of a NetworkPlan.
    Plan(String, Box<NetworkPlanSpec>),
    /// Name and spec of a Peer.
    Peer(String, Box<PeerSpec>),
    /// A Node and its podCIDRs.
    PodCidrs(Arc<Node>, Vec<Prefix>),
    /// A Node and all taints that it keeps.
    Taints(Arc<Node>, Vec<Taint>),
    /// A Secret that must not exist yet.
    NewSecret(Secret),
    /// A Secret that is derived and may change.
    Secret(Secret),
    /// A Secret that is to go.
    DeleteSecret(Arc<Secret>),
    /// A ledger's slice that no head names.
    DeleteSlice(Arc<AddressLedger>),
    /// A plan that is to go.
    DeletePlan(Arc<NetworkPlan>),
    /// A Peer that is to go.
    DeletePeer(Arc<Peer>),
}

impl Write {
    /// What it changes.
    #[must_use]
    pub fn target(&self) -> Target {
        match self {
            Self::Ledger(ledger) => Target::AddressLedger(ledger.name_any()),
            Self::DeleteSlice(slice) => Target::AddressLedger(slice.name_any()),
            Self::Plan(name, _) => Target::NetworkPlan(name.clone()),
            Self::DeletePlan(plan) => Target::NetworkPlan(plan.name_any()),
            Self::Peer(name, _) => Target::Peer(name.clone()),
            Self::DeletePeer(peer) => Target::Peer(peer.name_any()),
            Self::PodCidrs(node, _) => Target::PodCidrs(node.name_any()),
            Self::Taints(node, _) => Target::Taints(node.name_any()),
            Self::NewSecret(secret) | Self::Secret(secret) => Target::Secret(secret.name_any()),
            Self::DeleteSecret(secret) => Target::Secret(secret.name_any()),
        }
    }
}

/// Sends writes while this process leads.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    namespace: String,
    leadership: Leadership,
    shared: Arc<Shared>,
    metrics: Metrics,
}

impl Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// A writer for a namespace.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: String,
        leadership: Leadership,
        shared: Arc<Shared>,
        metrics: Metrics,
    ) -> Self {
        Self {
            client,
            namespace,
            leadership,
            shared,
            metrics,
        }
    }

    /// Sends independent writes, a few at once. All are tried; the results are in the order of the writes.
    pub async fn send_all(&self, writes: Vec<Write>) -> Vec<Result<(), WriteError>> {
        stream::iter(writes)
            .map(|write| self.send_one(write))
            .buffered(PARALLEL)
            .collect()
            .await
    }

    async fn send_one(&self, write: Write) -> Result<(), WriteError> {
        match write {
            Write::Ledger(ledger) => self.ledger(*ledger).await,
            Write::Plan(name, spec) => self.spec::<NetworkPlan>(&name, &*spec).await,
            Write::Peer(name, spec) => self.spec::<Peer>(&name, &*spec).await,
            Write::PodCidrs(node, cidrs) => self.pod_cidrs(&node, &cidrs).await,
            Write::Taints(node, taints) => self.taints(&node, &taints).await,
            Write::NewSecret(secret) => self.new_secret(&secret).await,
            Write::Secret(secret) => self.secret(&secret).await,
            Write::DeleteSecret(secret) => self.delete(self.own(), &*secret).await,
            Write::DeleteSlice(slice) => self.delete(Api::all(self.client.clone()), &*slice).await,
            Write::DeletePlan(plan) => self.delete(self.own(), &*plan).await,
            Write::DeletePeer(peer) => self.delete(self.own(), &*peer).await,
        }
    }

    /// Notes how long deciding took.
    pub fn note_decision(&self, time: Duration) {
        self.metrics.decide_seconds.observe(time.as_secs_f64());
    }

    /// Whether writes are allowed now.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leadership.holds()
    }

    /// Stores a ledger: a new one is created, one with a resourceVersion is replaced only if it still has it.
    ///
    /// # Errors
    /// [`WriteError`]; [`WriteError::Conflict`] means: decide again.
    async fn ledger(&self, ledger: AddressLedger) -> Result<(), WriteError> {
        let api: Api<AddressLedger> = Api::all(self.client.clone());
        let name = ledger.name_any();
        let new = ledger.metadata.resource_version.is_none();
        let params = posted();
        self.send(AddressLedger::PLURAL, &name, async {
            if new {
                api.create(&params, &ledger).await
            } else {
                api.replace(&name, &params, &ledger).await
            }
        })
        .await
    }

    /// Applies the spec of a namespaced object of ours.
    ///
    /// # Errors
    /// [`WriteError`].
    async fn spec<K>(&self, name: &str, spec: &impl Serialize) -> Result<(), WriteError>
    where
        K: Written + Resource<Scope = NamespaceResourceScope>,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let body = json!({
            "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": {"name": name}, "spec": spec,
        });
        self.send(
            K::PLURAL,
            name,
            api.patch(name, &PatchParams::apply(MANAGER), &Patch::Apply(&body)),
        )
        .await
    }

    /// Applies the status of a cluster-scoped object of ours.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn status<K>(&self, object: &K, status: &impl Serialize) -> Result<(), WriteError>
    where
        K: Written + Ours + Resource<Scope = ClusterResourceScope>,
    {
        self.apply_status(Api::<K>::all(self.client.clone()), object, status)
            .await
    }

    /// Applies the status of a namespaced object of ours.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn namespaced_status<K>(
        &self,
        object: &K,
        status: &impl Serialize,
    ) -> Result<(), WriteError>
    where
        K: Written + Ours + Resource<Scope = NamespaceResourceScope>,
    {
        let api = Api::<K>::namespaced(self.client.clone(), &self.namespace);
        self.apply_status(api, object, status).await
    }

    async fn apply_status<K: Written + Ours>(
        &self,
        api: Api<K>,
        object: &K,
        status: &impl Serialize,
    ) -> Result<(), WriteError> {
        let name = object.name_any();
        // The UID keeps a status from landing on another object of the same name.
        let body = json!({
            "apiVersion": K::api_version(&()), "kind": K::kind(&()),
            "metadata": {"name": name, "uid": object.uid()}, "status": status,
        });
        self.send(
            K::KIND.status,
            &name,
            api.patch_status(&name, &PatchParams::apply(MANAGER), &Patch::Apply(&body)),
        )
        .await
    }

    /// Sets or removes the label that says that a link uses the object. It is removed whoever set it: after a restore it is
    /// the tool's that brought the object back.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn in_use<K>(&self, object: &K, used: bool) -> Result<(), WriteError>
    where
        K: Written + Resource<Scope = ClusterResourceScope>,
    {
        let name = object.name_any();
        let label = used.then_some("true");
        let body = json!({"metadata": {"uid": object.uid(), "labels": {IN_USE: label}}});
        let api: Api<K> = Api::all(self.client.clone());
        self.send(
            K::PLURAL,
            &name,
            api.patch(&name, &merge(), &Patch::Merge(&body)),
        )
        .await
    }

    /// Gives a node its podCIDRs, if it is still the node that was seen. They cannot be changed later: the API server refuses
    /// the request when somebody else was faster.
    ///
    /// # Errors
    /// [`WriteError`].
    async fn pod_cidrs(&self, node: &Node, cidrs: &[Prefix]) -> Result<(), WriteError> {
        let body = json!({
            "metadata": {"uid": node.uid()},
            "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
        });
        self.node(node, &body).await
    }

    /// Leaves a node these taints, if nothing of it has changed: a list is replaced whole, and others write it too.
    ///
    /// # Errors
    /// [`WriteError`].
    async fn taints(&self, node: &Node, taints: &[Taint]) -> Result<(), WriteError> {
        let body = json!({
            "metadata": {"uid": node.uid(), "resourceVersion": node.resource_version()},
            "spec": {"taints": taints},
        });
        self.node(node, &body).await
    }

    async fn node(&self, node: &Node, body: &Value) -> Result<(), WriteError> {
        let name = node.name_any();
        let api: Api<Node> = Api::all(self.client.clone());
        self.send(
            Node::PLURAL,
            &name,
            api.patch(&name, &merge(), &Patch::Merge(body)),
        )
        .await
    }

    /// Creates a Secret, and never changes one that exists.
    ///
    /// # Errors
    /// [`WriteError`]; [`WriteError::Conflict`] when it exists already.
    async fn new_secret(&self, secret: &Secret) -> Result<(), WriteError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = posted();
        self.send(
            Secret::PLURAL,
            &secret.name_any(),
            api.create(&params, secret),
        )
        .await
    }

    /// Applies a Secret that is derived and may change.
    ///
    /// # Errors
    /// [`WriteError`].
    async fn secret(&self, secret: &Secret) -> Result<(), WriteError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = secret.name_any();
        self.send(
            Secret::PLURAL,
            &name,
            api.patch(&name, &PatchParams::apply(MANAGER), &Patch::Apply(secret)),
        )
        .await
    }

    /// Objects of the own namespace.
    fn own<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Deletes an object, if it is still the one that was seen.
    ///
    /// # Errors
    /// [`WriteError`]; one that is gone already is no error.
    async fn delete<K: Written>(&self, api: Api<K>, object: &K) -> Result<(), WriteError> {
        self.allowed()?;
        let name = object.name_any();
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: object.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match api.delete(&name, &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(self.failed(K::PLURAL, &name, &error)),
        }
        self.count(K::PLURAL, "stored");
        self.shared.removed(object);
        Ok(())
    }

    async fn send<K: Indexed>(
        &self,
        resource: &'static str,
        name: &str,
        request: impl Future<Output = Result<K, kube::Error>>,
    ) -> Result<(), WriteError> {
        self.allowed()?;
        match request.await {
            Ok(stored) => {
                self.count(resource, "stored");
                self.shared.wrote(stored);
                Ok(())
            }
            Err(error) => Err(self.failed(resource, name, &error)),
        }
    }

    fn allowed(&self) -> Result<(), WriteError> {
        if self.leads() {
            Ok(())
        } else {
            Err(WriteError::NotLeading)
        }
    }

    fn failed(&self, resource: &'static str, name: &str, error: &kube::Error) -> WriteError {
        let object = format!("{resource} {name}");
        match error {
            // Deleted since it was read. A namespace or a kind that does not exist has another name in the details.
            kube::Error::Api(status)
                if status.code == 404
                    && status.details.as_ref().is_some_and(|it| it.name == name) =>
            {
                self.count(resource, "conflict");
                WriteError::Conflict { object }
            }
            // A conflict of field managers has the same code as a conflict of versions; only the first has causes.
            kube::Error::Api(status)
                if status.code == 409 && !status.message.contains("conflict with") =>
            {
                self.count(resource, "conflict");
                WriteError::Conflict { object }
            }
            kube::Error::Api(status) if is_too_large(&status.message) => {
                self.count(resource, "refused");
                WriteError::Refused {
                    object,
                    reason: format!(
                        "{}: one object may have about 1.5 MiB, which is etcd's limit",
                        status.message
                    ),
                }
            }
            kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => {
                self.count(resource, "refused");
                WriteError::Refused {
                    object,
                    reason: status.message.clone(),
                }
            }
            other => {
                self.count(resource, "unavailable");
                WriteError::Unavailable {
                    object,
                    reason: chain(other),
                }
            }
        }
    }

    fn count(&self, resource: &'static str, outcome: &'static str) {
        self.metrics
            .writes
            .get_or_create(&WriteLabels { resource, outcome })
            .inc();
    }
}

/// Whether the API server says that an object does not fit into etcd. It says so with code 500, as if a retry could help: etcd's
/// own words, or those of the connection to it where the object is still larger.
fn is_too_large(message: &str) -> bool {
    [
        "request is too large",
        "trying to send message larger than max",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// Parameters of a merge patch.
fn merge() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.into()),
        ..PatchParams::default()
    }
}

/// What an indexed kind needs to be written: a name for the bounds.
pub trait Written: Indexed + Debug + DeserializeOwned + Serialize + Send + Sync {}

impl<K: Indexed + Debug + DeserializeOwned + Serialize + Send + Sync> Written for K {}

/// How an object that is not applied is sent.
fn posted() -> PostParams {
    PostParams {
        field_manager: Some(MANAGER.into()),
        ..PostParams::default()
    }
}

/// Whether a value differs from what an object holds, field by field as JSON: what serde leaves out is equal to absent.
#[must_use]
pub fn differs(wanted: &impl Serialize, held: Option<&impl Serialize>) -> bool {
    let text = |value: Result<Value, serde_json::Error>| value.unwrap_or(Value::Null);
    match held {
        Some(held) => text(serde_json::to_value(wanted)) != text(serde_json::to_value(held)),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::is_too_large;

    #[test]
    fn etcds_refusals_for_size_are_known_and_an_outage_is_none() {
        for words in [
            "etcdserver: request is too large",
            "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2199862 vs. 2097152)",
        ] {
            assert!(is_too_large(words), "{words}");
        }
        assert!(!is_too_large("etcdserver: request timed out"));
    }
}
