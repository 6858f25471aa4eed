//! `tieline gather`: a support bundle, without secrets.
//!
//! ```text
//!  API server ──read──► objects, logs ──redact (pure)──► bundle (bounded) ──► FILE.tar.gz
//! ```
//!
//! Secrets are never asked for, so a helm release, which is one, is not in it either; nor is a ConfigMap. Everything that is put into the
//! bundle goes through [`redact`]. Reads only; what may not be read is left out, and the bundle says so.

mod bundle;
mod redact;

use crate::connect::{Connection, client};
use crate::doctor;
use anyhow::{Context, Result};
use bundle::Bundle;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, LogParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use std::path::PathBuf;
use tieline_crds::{GROUP, KINDS, VERSION};

/// Lines of one log.
const LOG_LINES: i64 = 5000;
/// Bytes of one log, before which the kubelet stops.
const LOG_BYTES: i64 = 2 << 20;
/// How long one log may take: a node that is away must not hold up the others.
const LOG_TIME: std::time::Duration = std::time::Duration::from_secs(15);
/// Annotations of nodes that are kept: those that tell of the network.
const NODE_ANNOTATIONS: &[&str] = &[
    "flannel",
    "calico",
    "cilium",
    "k3s.io",
    "tieline.dev",
    "kubeadm",
];

/// Flags of `tieline gather`.
#[derive(Debug, clap::Args)]
pub(crate) struct GatherArgs {
    #[command(flatten)]
    pub connection: Connection,
    /// File to write; without it tieline-bundle-TIME.tar.gz. One that exists is not replaced.
    #[arg(long, short, value_name = "FILE.tar.gz")]
    pub output: Option<PathBuf>,
    /// Pods whose logs are taken at most: operators first, then agents that are not ready, then others.
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub pods: u32,
    /// MiB that the bundle may have before compression.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_size: u32,
}

/// Our kinds, and whether their objects are in a namespace.
fn ours() -> impl Iterator<Item = (ApiResource, bool)> {
    KINDS.iter().map(|kind| {
        let gvk = GroupVersionKind::gvk(GROUP, VERSION, kind.kind.as_str());
        let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural);
        (resource, kind.namespaced)
    })
}

/// What we run.
fn workloads() -> [ApiResource; 4] {
    [
        ApiResource::erase::<Deployment>(&()),
        ApiResource::erase::<DaemonSet>(&()),
        ApiResource::erase::<Pod>(&()),
        ApiResource::erase::<Lease>(&()),
    ]
}

/// Gathers, writes the file, and says what is in it and what is not.
///
/// # Errors
/// There is no credential, the API server does not answer, or the file cannot be written.
pub(crate) async fn gather(args: &GatherArgs, version: &str) -> Result<()> {
    let client = client(&args.connection).await?;
    let namespace = args.connection.namespace.as_str();
    let now = Timestamp::now();
    let stamp = now.strftime("%Y%m%d-%H%M%S").to_string();
    let root = format!("tieline-bundle-{stamp}");
    let path = args
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{root}.tar.gz")));
    let mut bundle = Bundle::new(root, (args.max_size as usize) << 20);
    bundle.leave_out("Secrets and ConfigMaps, by design; so neither pre-shared keys nor chart values (a helm release is a Secret)");
    bundle.leave_out(format!(
        "fields, annotations and log parts that look like secrets: they read {}",
        redact::MARK
    ));

    // First, because it says whether there is an API server.
    let diagnosis = doctor::diagnose(&client, namespace, version).await?;
    let mut value = serde_json::to_value(&diagnosis).context("cannot write the diagnosis")?;
    redact::object(&mut value);
    bundle.add(
        "doctor.json",
        format!("{}\n", serde_json::to_string_pretty(&value)?),
    );
    bundle.add("doctor.txt", redact::text(&doctor::text(&diagnosis)));
    let server = doctor::bounded(client.apiserver_version())
        .await
        .context("cannot ask for the API server's version")?;
    let versions = json!({"tieline": version, "kubernetes": server.git_version, "platform": server.platform, "gathered": now.to_string()});
    bundle.add(
        "version.json",
        format!("{}\n", serde_json::to_string_pretty(&versions)?),
    );

    let mesh = mesh_namespace(&client, namespace).await;
    let mesh = mesh.as_str();
    for (kind, namespaced) in ours() {
        for namespace in if namespaced {
            vec![Some(namespace), Some(mesh)]
        } else {
            vec![None]
        } {
            take(&client, &mut bundle, "objects", &kind, namespace, |_| true).await?;
        }
    }
    for kind in workloads() {
        take(
            &client,
            &mut bundle,
            "workloads",
            &kind,
            Some(namespace),
            |_| true,
        )
        .await?;
    }
    let events = ApiResource::erase::<Event>(&());
    for namespace in [namespace, mesh] {
        take(
            &client,
            &mut bundle,
            "events",
            &events,
            Some(namespace),
            |_| true,
        )
        .await?;
    }
    // Events about objects without namespace.
    take(
        &client,
        &mut bundle,
        "events",
        &events,
        Some("default"),
        concerns_us,
    )
    .await?;
    let nodes = ApiResource::erase::<Node>(&());
    take(&client, &mut bundle, "nodes", &nodes, None, |_| true).await?;
    logs(&client, &mut bundle, namespace, args.pods as usize).await;

    bundle.add("README.txt", readme(&bundle, namespace));
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    bundle.write(&path, seconds)?;
    print(&bundle, &path);
    Ok(())
}

/// Where mirrors of foreign Peers are: the chart may have been told another namespace.
async fn mesh_namespace(client: &Client, namespace: &str) -> String {
    let api: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let agents = doctor::bounded(api.get("tieline-agent")).await.ok();
    doctor::mesh_namespace(agents.as_ref())
}

/// Takes all objects of a kind. What may not be read is left out.
async fn take(
    client: &Client,
    bundle: &mut Bundle,
    folder: &str,
    kind: &ApiResource,
    namespace: Option<&str>,
    wanted: impl Fn(&Value) -> bool,
) -> Result<()> {
    let plural = kind.plural.as_str();
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, kind),
        None => Api::all_with(client.clone(), kind),
    };
    let path = match namespace {
        Some(namespace) => format!("{folder}/{plural}-{namespace}.yaml"),
        None => format!("{folder}/{plural}.yaml"),
    };
    let found = match doctor::pages(&api, &ListParams::default()).await {
        Ok(found) => found,
        Err(error) => {
            bundle.leave_out(format!("{path}: {}", redact::text(&error.to_string())));
            return Ok(());
        }
    };
    let mut objects = Vec::new();
    for object in found {
        let mut value = serde_json::to_value(&object).context("cannot write an object")?;
        if !wanted(&value) {
            continue;
        }
        if plural == "nodes" {
            value = trimmed(&value);
            redact::node(&mut value);
        } else {
            redact::object(&mut value);
        }
        objects.push(value);
    }
    bundle.add_objects(&path, &objects)
}

/// Whether an event is about a kind of ours or a node.
fn concerns_us(event: &Value) -> bool {
    let object = &event["involvedObject"];
    let group = object["apiVersion"].as_str().unwrap_or_default();
    group.starts_with("tieline.dev/") || object["kind"] == "Node"
}

/// Of a node: what a network depends on.
fn trimmed(node: &Value) -> Value {
    let pick = |from: &Value, names: &[&str]| -> Value {
        names
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), from.get(*name)?.clone())))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let mut metadata = pick(
        &node["metadata"],
        &[
            "name",
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "labels",
            "resourceVersion",
        ],
    );
    let annotations: serde_json::Map<String, Value> = node["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| NODE_ANNOTATIONS.iter().any(|part| name.contains(part)))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    metadata["annotations"] = annotations.into();
    json!({
        "metadata": metadata,
        "spec": pick(&node["spec"], &["podCIDR", "podCIDRs", "taints", "unschedulable", "providerID"]),
        "status": pick(&node["status"], &["addresses", "conditions", "nodeInfo"]),
    })
}

/// Logs of our pods, of each container now and before its last restart.
async fn logs(client: &Client, bundle: &mut Bundle, namespace: &str, most: usize) {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let ours = ListParams::default().labels("app.kubernetes.io/part-of=tieline");
    let mut pods = match doctor::pages(&api, &ours).await {
        Ok(pods) => pods,
        Err(error) => {
            bundle.leave_out(format!("logs: {}", redact::text(&error.to_string())));
            return;
        }
    };
    pods.sort_by_key(|pod| (!is_operator(pod), is_ready(pod), pod.name_any()));
    if pods.len() > most {
        bundle.leave_out(format!(
            "logs of {} of {} pods (--pods)",
            pods.len() - most,
            pods.len()
        ));
    }
    for pod in pods.iter().take(most) {
        let name = pod.name_any();
        for (container, previous) in containers(pod) {
            let params = LogParams {
                container: Some(container.to_owned()),
                tail_lines: Some(LOG_LINES),
                limit_bytes: Some(LOG_BYTES),
                previous,
                timestamps: true,
                ..LogParams::default()
            };
            let suffix = if previous { ".previous" } else { "" };
            let path = format!("logs/{name}/{container}{suffix}.log");
            match tokio::time::timeout(LOG_TIME, api.logs(&name, &params)).await {
                Ok(Ok(text)) => bundle.add_log(&path, redact::text(&text)),
                Ok(Err(error)) => {
                    bundle.leave_out(format!("{path}: {}", redact::text(&doctor::plain(&error))));
                }
                Err(_) => bundle.leave_out(format!("{path}: the kubelet did not answer in time")),
            }
        }
    }
}

/// A pod's containers, those that run before the others first: the log of now, and of one that was restarted the log before that.
fn containers(pod: &Pod) -> Vec<(&str, bool)> {
    let spec = pod.spec.iter();
    let names = spec.flat_map(|spec| {
        let initial = spec.init_containers.iter().flatten();
        initial.chain(&spec.containers).map(|it| it.name.as_str())
    });
    let restarted = |name: &str| {
        let mut statuses = pod.status.iter().flat_map(|status| {
            let initial = status.init_container_statuses.iter().flatten();
            initial.chain(status.container_statuses.iter().flatten())
        });
        statuses.any(|status| status.name == name && status.restart_count > 0)
    };
    names
        .flat_map(|name| {
            let before = restarted(name).then_some((name, true));
            std::iter::once((name, false)).chain(before)
        })
        .collect()
}

fn is_operator(pod: &Pod) -> bool {
    pod.labels()
        .get("app.kubernetes.io/component")
        .is_some_and(|it| it == "operator")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|one| one.type_ == "Ready" && one.status == "True")
}

fn readme(bundle: &Bundle, namespace: &str) -> String {
    let mut text = format!(
        "Support bundle of Tieline: objects of tieline.dev, workloads, events and logs of namespace {namespace}, nodes (trimmed),\n\
         and what `tieline doctor` says (doctor.txt). Addresses, names of nodes and public keys are in it: look through it\n\
         before you give it away.\n\nContents\n"
    );
    for (path, size) in bundle.contents() {
        text.push_str(&format!("  {path} ({size} bytes)\n"));
    }
    text.push_str("\nLeft out\n");
    for line in bundle.left_out() {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

fn print(bundle: &Bundle, path: &std::path::Path) {
    println!("wrote {}", path.display());
    println!("contains:");
    for (path, size) in bundle.contents() {
        println!("  {path} ({size} bytes)");
    }
    println!("left out:");
    for line in bundle.left_out() {
        println!("  {line}");
    }
    println!(
        "Addresses, names of nodes and public keys are in it: look through it before you give it away."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_kind_that_holds_secrets_is_asked_for() {
        let all = ours().map(|(kind, _)| kind).chain(workloads());
        let held: Vec<String> = all
            .map(|kind| kind.plural)
            .filter(|plural| ["secrets", "configmaps"].contains(&plural.as_str()))
            .collect();
        assert!(held.is_empty(), "{held:?}");
    }

    #[test]
    fn a_node_keeps_what_a_network_depends_on() {
        let node = json!({
            "metadata": {"name": "a", "annotations": {"flannel.alpha.coreos.com/backend-type": "vxlan", "example.com/note": "x"}},
            "spec": {"podCIDR": "10.0.0.0/24", "configSource": {}},
            "status": {"addresses": [], "images": [{"names": ["x"]}]},
        });
        assert_eq!(
            trimmed(&node),
            json!({
                "metadata": {"name": "a", "annotations": {"flannel.alpha.coreos.com/backend-type": "vxlan"}},
                "spec": {"podCIDR": "10.0.0.0/24"},
                "status": {"addresses": []},
            })
        );
    }

    #[test]
    fn logs_of_init_containers_are_taken_too() {
        let status = |name: &str, restarts: i32| json!({"name": name, "restartCount": restarts, "ready": true, "image": "x", "imageID": ""});
        let pod: Pod = serde_json::from_value(json!({
            "spec": {"initContainers": [{"name": "boot-guard"}], "containers": [{"name": "agent"}, {"name": "other"}]},
            "status": {
                "initContainerStatuses": [status("boot-guard", 1)],
                "containerStatuses": [status("agent", 2), status("other", 0)],
            },
        }))
        .expect("a pod");
        assert_eq!(
            containers(&pod),
            [
                ("boot-guard", false),
                ("boot-guard", true),
                ("agent", false),
                ("agent", true),
                ("other", false),
            ]
        );
        assert!(containers(&Pod::default()).is_empty());
    }

    #[test]
    fn events_of_others_are_not_taken() {
        let about = |version: &str, kind: &str| json!({"involvedObject": {"apiVersion": version, "kind": kind}});
        assert!(concerns_us(&about("tieline.dev/v1alpha1", "ClusterLink")));
        assert!(concerns_us(&about("v1", "Node")));
        assert!(!concerns_us(&about("v1", "Pod")));
    }
}
