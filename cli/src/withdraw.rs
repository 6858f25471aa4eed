//! `tieline withdraw`: takes the mesh down in order, and cleans the nodes. What `helm uninstall` runs first.
//!
//! ```text
//!  delete ClusterLinks ─► the operator removes plans and Peers ─► agents take the mesh out of their kernels
//!                                                                     │ only with --cleanup-pod:
//!  every cleanup pod succeeded ◄─ one such pod a ready node ◄─────────┴─ delete the agents, wait until they are gone
//!    │                            an Event on every other node: the log of this program may be gone before anybody reads it
//!    │ only with --operator: delete it, wait until it is gone
//!    │ only with --delete-mesh-namespace:
//!    └─► wait until it is gone: an install that comes next would find it ending, and fail
//! ```
//!
//! The namespace is deleted before the nodes are cleaned, because Kubernetes rests for five seconds before it empties one. The operator ends
//! here, while it has its credential: helm takes both away in one moment, and an operator without credential cannot give its Lease back, for
//! which the next installation would wait.
//!
//! Grants stay: a ClusterLink that is created again gets the same addresses. Every step may be repeated, and every wait ends.

use crate::connect::{Connection, client};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Namespace, Node, ObjectReference, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, MicroTime};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tieline_crds::{ClusterLink, NetworkPlan, Peer};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Label that the cleanup pods of one run share.
const RUN_LABEL: &str = "tieline.dev/withdraw";
/// Where Events about objects without namespace live.
const EVENTS: &str = "default";
/// What an Event says of a node that keeps its part of the mesh.
const LEFT: &str = "Tieline was withdrawn while this node was not ready: the node keeps the devices tie*, the guard that makes planned \
    ranges unreachable, the unit tieline-guard.service, and the folder with its private keys. On the node, as root, with the program \
    of Tieline's image: tieline-agent cleanup";

/// Flags of `tieline withdraw`.
#[derive(Debug, clap::Args)]
pub(crate) struct WithdrawArgs {
    #[command(flatten)]
    pub connection: Connection,
    /// Really do it: traffic between sites stops.
    #[arg(long)]
    pub yes: bool,
    /// Seconds that all of it may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 240, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// DaemonSet of the agents, which is deleted before the nodes are cleaned.
    #[arg(long, value_name = "NAME", default_value = "tieline-agent")]
    pub agents: String,
    /// Pod (YAML) that runs `tieline-agent cleanup` with what the agents have of the host. With it, the agents are deleted, and
    /// this pod runs on every ready node; name and node are filled in.
    #[arg(long, value_name = "FILE")]
    pub cleanup_pod: Option<PathBuf>,
    /// Deployment of the operator, to be deleted when the nodes are clean.
    #[arg(long, value_name = "NAME")]
    pub operator: Option<String>,
    /// Namespace with the copies of other clusters' Peers, to be deleted when the agents have stopped.
    #[arg(long, value_name = "NAMESPACE")]
    pub delete_mesh_namespace: Option<String>,
}

/// Does it, and says what it did in one line a step.
///
/// # Errors
/// A request was refused, a step did not end in time, or a node could not be cleaned; what has been done stays done.
pub(crate) async fn withdraw(args: &WithdrawArgs) -> Result<()> {
    ensure!(
        args.yes,
        "this stops all traffic between sites; say --yes if that is meant"
    );
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    // Read before anything is changed: a file that cannot be used must not leave half a mesh.
    let template = args.cleanup_pod.as_deref().map(read_pod).transpose()?;
    let client = client(&args.connection).await?;
    let namespace = args.connection.namespace.as_str();

    let links = delete_links(&client).await?;
    match links.as_slice() {
        [] => println!("no ClusterLink to delete"),
        names => println!("deleted ClusterLinks: {}", names.join(", ")),
    }
    let plans: Api<NetworkPlan> = Api::namespaced(client.clone(), namespace);
    let peers: Api<Peer> = Api::namespaced(client.clone(), namespace);
    wait(deadline, || async {
        let (plans, peers) = (
            names(&plans, "NetworkPlan").await?,
            names(&peers, "Peer").await?,
        );
        let plans = plans.into_iter().map(|name| format!("NetworkPlan {name}"));
        let peers = peers.into_iter().map(|name| format!("Peer {name}"));
        Ok(plans.chain(peers).collect())
    })
    .await
    .context("the operator has not removed what it planned: is it running, and does it lead? (tieline status)")?;
    println!("no NetworkPlan and no Peer is left");

    if template.is_some() {
        let selector = |set: DaemonSet| set.spec.map(|spec| spec.selector);
        stop(&client, namespace, &args.agents, selector, deadline).await?;
        println!("the agents have stopped");
    }
    let mesh = args.delete_mesh_namespace.as_deref();
    if let Some(name) = mesh {
        let api: Api<Namespace> = Api::all(client.clone());
        gone(api.delete(name, &DeleteParams::default()).await)
            .with_context(|| format!("cannot delete namespace {name}"))?;
    }
    if let Some(template) = template {
        clean_nodes(&client, namespace, &template, deadline).await?;
    }
    if let Some(name) = args.operator.as_deref() {
        let selector = |one: Deployment| one.spec.map(|spec| spec.selector);
        stop(&client, namespace, name, selector, deadline).await?;
        println!("the operator has stopped");
    }
    if let Some(name) = mesh {
        namespace_gone(&client, name, deadline).await?;
        println!("namespace {name} is gone");
    }
    Ok(())
}

async fn namespace_gone(client: &Client, name: &str, deadline: Instant) -> Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    wait(deadline, || async {
        let left = api
            .get_metadata_opt(name)
            .await
            .with_context(|| format!("cannot read namespace {name}"))?;
        Ok(left.map(|_| format!("namespace {name}")).into_iter().collect())
    })
    .await
    .with_context(|| {
        format!("the namespace does not end: `kubectl get namespace {name} -o yaml` says what it waits for")
    })
}

fn read_pod(path: &std::path::Path) -> Result<Pod> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read --cleanup-pod {}", path.display()))?;
    let pod: Pod =
        serde_norway::from_str(&text).with_context(|| format!("{} is no Pod", path.display()))?;
    ensure!(
        pod.spec
            .as_ref()
            .is_some_and(|spec| !spec.containers.is_empty()),
        "{} has no containers",
        path.display()
    );
    Ok(pod)
}

async fn delete_links(client: &Client) -> Result<Vec<String>> {
    let api: Api<ClusterLink> = Api::all(client.clone());
    let names = names(&api, "ClusterLink").await?;
    for name in &names {
        gone(api.delete(name, &DeleteParams::default()).await)
            .with_context(|| format!("cannot delete ClusterLink {name}"))?;
    }
    Ok(names)
}

/// Deletes a workload and waits until its pods are gone, those on nodes that do not answer apart: their node's kubelet cannot say
/// that they have ended. One that is not there has no pods.
async fn stop<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    selector_of: impl FnOnce(K) -> Option<LabelSelector>,
    deadline: Instant,
) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let kind = K::kind(&());
    let workloads: Api<K> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let found = workloads
        .get_opt(name)
        .await
        .with_context(|| format!("cannot read {kind} {name}"))?;
    let Some(found) = found else {
        return Ok(());
    };
    let labels = selector_of(found).unwrap_or_default().match_labels;
    let selector = ListParams::default().labels(&selector(&labels.unwrap_or_default()));
    ensure!(
        selector.label_selector.as_deref() != Some(""),
        "{kind} {name} selects its pods by no label, so they cannot be told from others"
    );
    gone(workloads.delete(name, &DeleteParams::background()).await)
        .with_context(|| format!("cannot delete {kind} {name}"))?;
    wait(deadline, || async {
        let ready = nodes(client).await?;
        let left: Vec<String> = pods
            .list(&selector)
            .await
            .with_context(|| format!("cannot list the pods of {kind} {name}"))?
            .into_iter()
            .filter(|pod| ready.get(&node_of(pod)).is_some_and(|node| node.ready))
            .map(|pod| format!("pod {}", pod.name_any()))
            .collect();
        Ok(left)
    })
    .await
    .with_context(|| format!("the pods of {kind} {name} have not ended"))
}

/// Runs one pod on every ready node that it may run on.
async fn clean_nodes(
    client: &Client,
    namespace: &str,
    template: &Pod,
    deadline: Instant,
) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let wanted = template
        .spec
        .as_ref()
        .and_then(|spec| spec.node_selector.clone())
        .unwrap_or_default();
    let (ready, silent): (Vec<_>, Vec<_>) = nodes(client)
        .await?
        .into_iter()
        .filter(|(_, node)| fits(&wanted, &node.labels))
        .partition(|(_, node)| node.ready);
    for (node, facts) in &silent {
        tell(client, node, facts).await;
    }
    let run = ListParams::default().labels(RUN_LABEL);
    // Those of a run that was cut off.
    remove(&pods, &run, deadline).await?;
    for (node, _) in &ready {
        pods.create(&PostParams::default(), &cleanup_pod(template, node))
            .await
            .with_context(|| format!("cannot start the cleanup on node {node}"))?;
    }
    let outcome = wait(deadline, || async {
        let left: Vec<String> = pods
            .list(&run)
            .await
            .context("cannot list the cleanup pods")?
            .iter()
            .filter(|pod| phase(pod) != "Succeeded")
            .map(|pod| format!("node {} ({})", node_of(pod), why(pod)))
            .collect();
        Ok(left)
    })
    .await
    .with_context(|| {
        format!(
            "not every node is clean: read `kubectl -n {namespace} logs -l {RUN_LABEL}`, or run `tieline-agent cleanup` on the node"
        )
    });
    // A failed one stays, with its log.
    outcome?;
    remove(&pods, &run, deadline).await?;
    println!(
        "clean: {}",
        join(ready.iter().map(|(name, _)| name.as_str()))
    );
    if !silent.is_empty() {
        println!(
            "not ready, so not cleaned: {}; run `tieline-agent cleanup` there when they are back",
            join(silent.iter().map(|(name, _)| name.as_str()))
        );
    }
    Ok(())
}

/// Leaves word of a node that is not cleaned. One that is refused is no reason to stop: what else there is gets clean.
async fn tell(client: &Client, node: &str, facts: &NodeFacts) {
    let api: Api<Event> = Api::namespaced(client.clone(), EVENTS);
    let event = not_cleaned(node, facts, Timestamp::now());
    if let Err(error) = api.create(&PostParams::default(), &event).await {
        println!("cannot leave an Event on node {node}: {error}");
    }
}

fn not_cleaned(node: &str, facts: &NodeFacts, now: Timestamp) -> Event {
    let mut event = Event {
        action: Some("Withdraw".into()),
        event_time: Some(MicroTime(now)),
        note: Some(LEFT.into()),
        reason: Some("TielineNotCleaned".into()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(node.to_owned()),
            uid: facts.uid.clone(),
            ..ObjectReference::default()
        }),
        reporting_controller: Some("tieline.dev/withdraw".into()),
        reporting_instance: Some("tieline".into()),
        type_: Some("Warning".into()),
        ..Event::default()
    };
    event.metadata.generate_name = Some("tieline-not-cleaned-".into());
    event.metadata.namespace = Some(EVENTS.into());
    event
}

async fn remove(pods: &Api<Pod>, run: &ListParams, deadline: Instant) -> Result<()> {
    for pod in pods
        .list(run)
        .await
        .context("cannot list the cleanup pods")?
    {
        let name = pod.name_any();
        gone(pods.delete(&name, &DeleteParams::default()).await)
            .with_context(|| format!("cannot delete pod {name}"))?;
    }
    wait(deadline, || async {
        let left = pods.list(run).await?;
        Ok(left.iter().map(ResourceExt::name_any).collect())
    })
    .await
    .context("the cleanup pods have not ended")
}

fn cleanup_pod(template: &Pod, node: &str) -> Pod {
    let mut pod = template.clone();
    pod.metadata.name = None;
    // The server makes a name of it that fits: a node's name may be longer than a pod's may.
    pod.metadata.generate_name = Some("tieline-cleanup-".to_owned());
    pod.labels_mut()
        .insert(RUN_LABEL.to_owned(), "cleanup".to_owned());
    if let Some(spec) = pod.spec.as_mut() {
        spec.node_name = Some(node.to_owned());
    }
    pod
}

struct NodeFacts {
    uid: Option<String>,
    ready: bool,
    labels: BTreeMap<String, String>,
}

async fn nodes(client: &Client) -> Result<BTreeMap<String, NodeFacts>> {
    let list = Api::<Node>::all(client.clone())
        .list(&ListParams::default())
        .await
        .context("cannot list nodes")?;
    let facts = |node: Node| NodeFacts {
        uid: node.uid(),
        ready: node
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|one| one.type_ == "Ready" && one.status == "True"),
        labels: node.labels().clone(),
    };
    Ok(list
        .into_iter()
        .map(|node| (node.name_any(), facts(node)))
        .collect())
}

fn fits(wanted: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

fn selector(labels: &BTreeMap<String, String>) -> String {
    join_with(
        labels.iter().map(|(key, value)| format!("{key}={value}")),
        ",",
    )
}

fn node_of(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.node_name.clone())
        .unwrap_or_default()
}

fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending")
}

/// Why a pod has not succeeded: what its container waits for, or how it ended.
fn why(pod: &Pod) -> String {
    let states = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .flat_map(|container| container.state.iter().chain(container.last_state.iter()));
    let mut words = vec![phase(pod).to_owned()];
    for state in states {
        if let Some(waiting) = &state.waiting {
            words.extend(waiting.reason.clone());
        }
        if let Some(ended) = &state.terminated {
            words.push(format!("exit {}", ended.exit_code));
        }
    }
    words.join(", ")
}

async fn names<K>(api: &Api<K>, kind: &str) -> Result<Vec<String>>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    // Metadata alone: an object that this version cannot read is withdrawn all the same.
    let list = api
        .list_metadata(&ListParams::default())
        .await
        .with_context(|| format!("cannot list {kind}s"))?;
    Ok(list.iter().map(ResourceExt::name_any).collect())
}

/// Deleted, or not there: both are what was wanted.
fn gone<T>(answer: kube::Result<T>) -> kube::Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

/// Looks until nothing is left.
async fn wait<F>(deadline: Instant, mut left: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<Vec<String>>>,
{
    loop {
        let left = left().await?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "time is up (--timeout); left: {}",
            left.join(", ")
        );
        tokio::time::sleep(PAUSE).await;
    }
}

fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let text = join_with(names.map(str::to_owned), ", ");
    if text.is_empty() {
        "no node".to_owned()
    } else {
        text
    }
}

fn join_with(parts: impl Iterator<Item = String>, separator: &str) -> String {
    parts.collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: x, labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}";

    #[test]
    fn a_cleanup_pod_is_bound_to_its_node_and_named_by_the_server() {
        let template: Pod = serde_norway::from_str(POD).unwrap();
        let pod = cleanup_pod(&template, "paris-1");
        assert_eq!(node_of(&pod), "paris-1");
        assert_eq!(pod.metadata.name, None);
        assert_eq!(pod.labels()["a"], "b");
        assert!(pod.labels().contains_key(RUN_LABEL));
    }

    #[test]
    fn a_node_selector_leaves_out_other_nodes() {
        let labels = |value: &str| BTreeMap::from([("os".to_owned(), value.to_owned())]);
        assert!(fits(&labels("linux"), &labels("linux")));
        assert!(!fits(&labels("linux"), &labels("windows")));
        assert!(!fits(&labels("linux"), &BTreeMap::new()));
        assert!(fits(&BTreeMap::new(), &labels("linux")));
    }

    #[test]
    fn a_node_that_is_not_cleaned_gets_an_event_that_the_server_takes() {
        let facts = NodeFacts {
            uid: Some("1-2-3".into()),
            ready: false,
            labels: BTreeMap::new(),
        };
        let event = not_cleaned("paris-1", &facts, Timestamp::UNIX_EPOCH);
        let about = event.regarding.unwrap();
        assert_eq!(
            (about.name.as_deref(), about.uid.as_deref()),
            (Some("paris-1"), Some("1-2-3"))
        );
        let note = event.note.unwrap();
        assert!(note.ends_with("tieline-agent cleanup"), "{note}");
        assert!(
            note.len() <= 1024,
            "{} bytes are too many for a note",
            note.len()
        );
    }

    #[tokio::test]
    async fn a_wait_that_runs_out_says_what_is_left() {
        let error = wait(Instant::now(), || async {
            Ok(vec!["Peer shop.paris-1".to_owned()])
        })
        .await
        .unwrap_err();
        assert!(error.to_string().contains("Peer shop.paris-1"), "{error}");
    }
}
