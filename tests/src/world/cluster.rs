//! The API server as the world sees it: typed reads for waiting and asserting, and what a kubelet would write.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tieline_crds::network_plan::PrefixClass;
use tieline_crds::vpn_attachment::PRESHARED_KEY;
use tieline_crds::{ClusterLink, Condition, NetworkPlan, Peer, PeerStatus, VpnAttachment};
use tokio::runtime::Runtime;

use super::NAMESPACE;
use crate::lab::{self, Planned};

const AGENT_ACCOUNT: &str = "tieline-agent";

/// An administrator's client.
pub(crate) struct Cluster {
    runtime: Runtime,
    client: Client,
}

impl Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cluster")
    }
}

impl Cluster {
    pub(crate) fn connect(kubeconfig: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("kube-client")
            .enable_all()
            .build()?;
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let client = runtime.block_on(async {
            let config =
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        Ok(Self { runtime, client })
    }

    fn all<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::ClusterResourceScope>,
        K::DynamicType: Default,
    {
        Api::all(self.client.clone())
    }

    fn ours<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Registers a node as its kubelet does: region, address, Ready.
    pub(super) fn create_node(&self, node: &lab::Node) -> Result<()> {
        let addresses = [
            Some(IpAddr::from(node.address4())),
            node.address6().map(IpAddr::from),
        ];
        let addresses: Vec<_> = addresses
            .iter()
            .flatten()
            .map(|address| json!({"type": "InternalIP", "address": address}))
            .collect();
        let object: Node = serde_json::from_value(json!({
            "metadata": {"name": node.name(), "labels": {"topology.kubernetes.io/region": node.spec().site}},
            "status": {"addresses": addresses, "conditions": [{"type": "Ready", "status": "True"}]},
        }))?;
        self.runtime.block_on(created(&self.all(), &object))?;
        Ok(())
    }

    /// The token that the kubelet would mount into the agent's pod on `node`. The Node need not exist yet.
    pub(super) fn agent_token(&self, node: &str) -> Result<String> {
        let name = agent_pod(node);
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "nodeName": node, "serviceAccountName": AGENT_ACCOUNT, "hostNetwork": true,
                // No kubelet looks at it: it is what the token is bound to.
                "containers": [{"name": "agent", "image": "none.invalid/none"}],
                "tolerations": [{"operator": "Exists"}],
            },
        }))?;
        self.runtime.block_on(async {
            let pod = created(&self.ours(), &pod).await?;
            let request = TokenRequest {
                spec: Some(TokenRequestSpec {
                    audiences: None,
                    expiration_seconds: Some(24 * 3600),
                    bound_object_ref: Some(BoundObjectReference {
                        api_version: Some("v1".into()),
                        kind: Some("Pod".into()),
                        name: Some(name),
                        uid: pod.metadata.uid,
                    }),
                }),
                ..TokenRequest::default()
            };
            let accounts = self.ours::<ServiceAccount>();
            let answer = accounts
                .create_token_request(AGENT_ACCOUNT, &PostParams::default(), &request)
                .await
                .with_context(|| format!("a token for the agent on {node}"))?;
            answer
                .status
                .and_then(|status| status.token)
                .context("the answer holds no token")
        })
    }

    /// What is left of a node that is gone for good: its object and its agent's pod are deleted.
    pub(super) fn delete_node(&self, node: &str) -> Result<()> {
        self.runtime.block_on(async {
            let now = DeleteParams::default().grace_period(0);
            deleted(&self.ours::<Pod>(), &agent_pod(node), &now).await?;
            deleted(&self.all::<Node>(), node, &DeleteParams::default()).await
        })
    }

    pub(crate) fn create_preshared_key(&self, name: &str, key: &str) -> Result<()> {
        let secret = Secret {
            metadata: kube::api::ObjectMeta {
                name: Some(name.into()),
                ..Default::default()
            },
            data: Some(BTreeMap::from([(
                PRESHARED_KEY.to_owned(),
                ByteString(key.as_bytes().to_vec()),
            )])),
            ..Secret::default()
        };
        // Applied a second time: the key stays.
        self.runtime.block_on(created(&self.ours(), &secret))?;
        Ok(())
    }

    /// What the operator wrote for the other side of an attachment.
    pub(crate) fn vpn_configuration(&self, vpn: &str) -> Result<String> {
        self.runtime.block_on(async {
            let object = self.all::<VpnAttachment>().get_status(vpn).await?;
            let status = object.status.context("no status yet")?;
            let name = status
                .config_secret
                .with_context(|| {
                    format!("no configuration yet: {}", conditions(&status.conditions))
                })?
                .name;
            let secret = self.ours::<Secret>().get(&name).await?;
            let data = secret.data.unwrap_or_default();
            let text = data
                .get("wg0.conf")
                .with_context(|| format!("Secret {name} holds no wg0.conf"))?;
            Ok(String::from_utf8(text.0.clone())?)
        })
    }

    /// Fails with the reasons unless there are ClusterLinks and all of them are Ready.
    pub(crate) fn ready(&self) -> Result<()> {
        let links = self
            .runtime
            .block_on(self.all::<ClusterLink>().list(&ListParams::default()))?;
        ensure!(!links.items.is_empty(), "there is no ClusterLink");
        for link in links {
            let Some(status) = link.status else {
                bail!("no status yet")
            };
            let current = status.observed_generation == link.metadata.generation;
            let ready = status
                .conditions
                .iter()
                .any(|it| it.type_ == "Ready" && it.status == "True");
            if current && ready {
                continue;
            }
            let members = status.members.unwrap_or_default();
            let paths = status.paths.unwrap_or_default();
            let waits: Vec<String> = status
                .not_ready
                .iter()
                .map(|it| format!("{} {} {}: {}", it.kind, it.name, it.reason, it.message))
                .collect();
            bail!(
                "members {}/{}, paths {}/{}, {}; {}",
                members.ready,
                members.total,
                paths.up,
                paths.total,
                conditions(&status.conditions),
                waits.join("; ")
            );
        }
        Ok(())
    }

    pub(crate) fn pod_cidrs(&self, node: &str) -> Result<Vec<IpNet>> {
        let object = self.runtime.block_on(self.all::<Node>().get(node))?;
        let ranges = object
            .spec
            .and_then(|spec| spec.pod_cidrs)
            .unwrap_or_default();
        nets(&ranges)
    }

    pub(crate) fn planned(&self) -> Result<Vec<Planned>> {
        let (plans, peers) = self.runtime.block_on(async {
            let all = ListParams::default();
            anyhow::Ok((
                self.ours::<NetworkPlan>().list(&all).await?,
                self.ours::<Peer>().list(&all).await?,
            ))
        })?;
        let mut planned = Vec::new();
        for peer in peers {
            let addresses = peer
                .spec
                .mesh_addresses
                .iter()
                .map(|address| Ok(IpNet::from(address.parse::<IpAddr>()?)));
            let addresses = addresses.collect::<Result<Vec<_>>>()?;
            let all = nets(&peer.spec.pod_cidrs)?.into_iter().chain(addresses);
            let spec = &peer.spec;
            planned.extend(
                all.map(|net| Planned::new(net, spec.segment.clone()).at(spec.site.clone())),
            );
        }
        for plan in plans {
            // Whole blocks of a site too: a node that joins takes its range from there.
            for segment in &plan.spec.segments {
                let pods = segment
                    .prefixes
                    .iter()
                    .filter(|it| it.class == PrefixClass::Pod);
                let pods: Vec<String> = pods.map(|it| it.prefix.clone()).collect();
                planned.extend(
                    nets(&pods)?.into_iter().map(|net| {
                        Planned::new(net, segment.name.clone()).at(segment.site.clone())
                    }),
                );
            }
            for vpn in &plan.spec.vpns {
                planned.extend(
                    nets(&vpn.prefixes)?
                        .into_iter()
                        .map(|net| Planned::new(net, format!("vpn/{}", vpn.name))),
                );
            }
            // Last, so that an equal prefix with an owner wins.
            planned.extend(
                nets(&plan.spec.super_nets)?
                    .into_iter()
                    .map(|net| Planned::new(net, "nobody")),
            );
        }
        ensure!(!planned.is_empty(), "nothing is planned");
        Ok(planned)
    }

    /// The pod ranges that a cluster holds.
    pub(crate) fn granted(&self, cluster: &str) -> Result<Vec<IpNet>> {
        let object = self
            .runtime
            .block_on(self.all::<tieline_crds::Cluster>().get(cluster))?;
        let granted = object
            .status
            .and_then(|status| status.granted)
            .context("nothing is granted yet")?;
        nets(&granted.pod_cidrs)
    }

    pub(crate) fn mesh_addresses(&self, cluster: &str, node: &str) -> Result<Vec<IpAddr>> {
        let peer = self
            .peer(cluster, node)?
            .with_context(|| format!("{node} has no Peer"))?;
        Ok(peer
            .spec
            .mesh_addresses
            .iter()
            .map(|address| address.parse())
            .collect::<Result<_, _>>()?)
    }

    pub(crate) fn peer(&self, cluster: &str, node: &str) -> Result<Option<Peer>> {
        Ok(self
            .runtime
            .block_on(self.ours::<Peer>().get_opt(&format!("{cluster}.{node}")))?)
    }

    pub(crate) fn gateways(&self, site: &str) -> Result<Vec<String>> {
        let peers = self
            .runtime
            .block_on(self.ours::<Peer>().list(&ListParams::default()))?;
        let mut ranked: Vec<(u8, String)> = peers
            .into_iter()
            .filter(|peer| peer.spec.site == site)
            .filter_map(|peer| Some((peer.spec.gateway_rank?, peer.spec.node)))
            .collect();
        ranked.sort();
        Ok(ranked.into_iter().map(|(_, node)| node).collect())
    }

    pub(super) fn backend(&self) -> Result<String> {
        self.reported(|status| status.backend.map(|backend| format!("{backend:?}")))
    }

    pub(super) fn agent_versions(&self) -> Result<String> {
        self.reported(|status| status.version)
    }

    /// What agents report of themselves, each word once.
    fn reported(&self, what: impl Fn(PeerStatus) -> Option<String>) -> Result<String> {
        let peers = self
            .runtime
            .block_on(self.ours::<Peer>().list(&ListParams::default()))?;
        let said: BTreeSet<String> = peers
            .into_iter()
            .filter_map(|peer| what(peer.status?))
            .collect();
        Ok(said.into_iter().collect::<Vec<_>>().join(" and "))
    }
}

fn agent_pod(node: &str) -> String {
    format!("{AGENT_ACCOUNT}-{node}")
}

fn nets(texts: &[String]) -> Result<Vec<IpNet>> {
    texts
        .iter()
        .map(|text| text.parse().with_context(|| format!("prefix {text}")))
        .collect()
}

/// The conditions that are not True, in words.
fn conditions(all: &[Condition]) -> String {
    let bad = all.iter().filter(|it| it.status != "True");
    let bad: Vec<String> = bad
        .map(|it| format!("{}={} {}: {}", it.type_, it.status, it.reason, it.message))
        .collect();
    if bad.is_empty() {
        "no condition says why".into()
    } else {
        bad.join("; ")
    }
}

/// Creates `object`, or finds it: the client asks again after a timeout of the API server (504), which may have stored it.
async fn created<K>(api: &Api<K>, object: &K) -> Result<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let name = object.name_any();
    let stored = match api.create(&PostParams::default(), object).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => api.get(&name).await,
        created => created,
    };
    stored.with_context(|| format!("creating {} {name}", K::kind(&())))
}

/// Deletes `name`, or finds it gone, for the same reason.
async fn deleted<K>(api: &Api<K>, name: &str, how: &DeleteParams) -> Result<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match api.delete(name, how).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error).with_context(|| format!("deleting {} {name}", K::kind(&()))),
    }
}
