//! Reads and writes objects as administrator, thousands of them where needed.

use super::agents::{LINK, claim, node_name, peer_name};
use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind, NamespaceResourceScope, TypeMeta};
use kube::{Client, Config, Resource};
use serde_json::Value;
use std::ops::Range;
use std::path::Path;
use tieline_crds::{ClusterLink, NetworkPlan, Peer};
use tokio::runtime::Runtime;

const NAMESPACE: &str = "tieline-system";
/// Requests that are under way at once.
const AT_ONCE: usize = 32;

/// A connection to an API server. Calls block.
pub(crate) struct Objects {
    runtime: Runtime,
    client: Client,
}

impl Objects {
    /// Connects with a kubeconfig.
    ///
    /// # Errors
    /// The kubeconfig cannot be used.
    pub(crate) fn connect(kubeconfig: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let client = runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        Ok(Self { runtime, client })
    }

    /// Creates objects without a namespace.
    ///
    /// # Errors
    /// The first one that the API server refuses.
    pub(crate) fn create(&self, objects: &[Value]) -> Result<()> {
        let created =
            stream::iter(objects)
                .map(Ok)
                .try_for_each_concurrent(AT_ONCE, |object| async {
                    let object: DynamicObject = serde_json::from_value(object.clone())?;
                    let types = object.types.clone().unwrap_or_default();
                    let api: Api<DynamicObject> =
                        Api::all_with(self.client.clone(), &resource(&types)?);
                    let name = object.metadata.name.clone().unwrap_or_default();
                    let created = api.create(&PostParams::default(), &object).await;
                    created.with_context(|| format!("create {} {name}", types.kind))?;
                    anyhow::Ok(())
                });
        self.runtime.block_on(created)
    }

    /// Writes what agents say whose kernels carry the plan as it stands. Their Peers exist.
    ///
    /// # Errors
    /// There is no plan, or the first status that the API server refuses.
    pub(crate) fn claim(&self, numbers: Range<u32>) -> Result<()> {
        let revision = self.plan_revision()?;
        let peers = self.namespaced::<Peer>();
        let said = stream::iter(numbers)
            .map(Ok)
            .try_for_each_concurrent(AT_ONCE, |number| {
                let peers = peers.clone();
                async move {
                    let (name, how) = (peer_name(number), PatchParams::default());
                    let claim = Patch::Merge(claim(number, revision));
                    let said = peers.patch_status(&name, &how, &claim).await;
                    said.with_context(|| format!("write the status of {name}"))?;
                    anyhow::Ok(())
                }
            });
        self.runtime.block_on(said)
    }

    /// The plan's revision.
    ///
    /// # Errors
    /// There is no plan.
    pub(crate) fn plan_revision(&self) -> Result<u64> {
        let plans = self.namespaced::<NetworkPlan>();
        let plan = self.runtime.block_on(plans.get(LINK));
        Ok(plan.context("read the plan")?.spec.revision)
    }

    /// How many Peers there are.
    ///
    /// # Errors
    /// They cannot be listed.
    pub(crate) fn peers(&self) -> Result<u64> {
        let peers = self.namespaced::<Peer>();
        let first = ListParams::default().limit(1);
        let list = self.runtime.block_on(peers.list_metadata(&first));
        let list = list.context("count Peers")?;
        let rest = list.metadata.remaining_item_count.unwrap_or(0);
        Ok(list.items.len() as u64 + u64::try_from(rest).unwrap_or(0))
    }

    /// Whether a node has its Peer.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn has_peer(&self, number: u32) -> Result<bool> {
        let name = peer_name(number);
        let peers = self.namespaced::<Peer>();
        let found = self.runtime.block_on(peers.get_metadata_opt(&name));
        Ok(found
            .with_context(|| format!("read Peer {name}"))?
            .is_some())
    }

    /// Whether a node's claim is accepted and it has its podCIDR.
    ///
    /// # Errors
    /// Its Peer or Node cannot be read.
    pub(crate) fn has_joined(&self, number: u32) -> Result<bool> {
        let name = peer_name(number);
        let peer = self.runtime.block_on(self.namespaced::<Peer>().get(&name));
        let peer = peer.with_context(|| format!("read Peer {name}"))?;
        let name = node_name(number);
        let nodes = Api::<Node>::all(self.client.clone());
        let node = self.runtime.block_on(nodes.get(&name));
        let node = node.with_context(|| format!("read Node {name}"))?;
        let pod_cidr = node.spec.and_then(|spec| spec.pod_cidr);
        Ok(!peer.spec.accepted_keys.is_empty() && pod_cidr.is_some())
    }

    /// Whether the operator says that every node carries the plan.
    ///
    /// # Errors
    /// The link cannot be read.
    pub(crate) fn is_converged(&self) -> Result<bool> {
        let links = Api::<ClusterLink>::all(self.client.clone());
        let link = self.runtime.block_on(links.get(LINK));
        let status = link.context("read the link")?.status.unwrap_or_default();
        let mut conditions = status.conditions.iter();
        Ok(conditions.any(|it| it.type_ == "Converged" && it.status == "True"))
    }

    fn namespaced<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }
}

/// Requests are made of the plural: the kind in lower case with an s, for every kind here.
fn resource(types: &TypeMeta) -> Result<ApiResource> {
    let gvk = GroupVersionKind::try_from(types)?;
    let plural = types.kind.to_lowercase() + "s";
    Ok(ApiResource::from_gvk_with_plural(&gvk, &plural))
}
