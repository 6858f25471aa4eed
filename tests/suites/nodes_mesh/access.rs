//! Who may do what: Tieline's own credentials are those of the chart, and a pod without them gets nothing.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::world::World;

const OPERATOR: &str = "system:serviceaccount:tieline-system:tieline-operator";
const AGENT: &str = "system:serviceaccount:tieline-system:tieline-agent";

/// Plural of every kind, with the namespace of its objects.
const KINDS: [(&str, &str); 7] = [
    ("addressledgers", ""),
    ("clusterlinks", ""),
    ("clusters", ""),
    ("sites", ""),
    ("vpnattachments", ""),
    ("networkplans", "tieline-system"),
    ("peers", "tieline-system"),
];

/// What the API server wrote down about requests for Tieline's kinds says who asked.
pub(crate) fn own_accounts(world: &mut World) -> Result<()> {
    world.up()?;
    let log = std::fs::read_to_string(world.lab.control_plane().audit_log())?;
    let mut asked: BTreeMap<String, u64> = BTreeMap::new();
    let mut nodes = BTreeSet::new();
    for line in log.lines() {
        // The last line may be half written.
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let user = event["user"]["username"].as_str().unwrap_or_default();
        if user == OPERATOR || user == AGENT {
            let code = event["responseStatus"]["code"].as_u64().unwrap_or_default();
            ensure!(
                code != 401 && code != 403,
                "{user} asked for what the chart does not grant: {line}"
            );
        }
        if user == AGENT {
            let node = &event["user"]["extra"]["authentication.kubernetes.io/node-name"][0];
            nodes.extend(node.as_str().map(str::to_owned));
        }
        if event["objectRef"]["apiGroup"] == "tieline.dev" {
            *asked.entry(user.to_owned()).or_default() += 1;
        }
    }
    let others: Vec<&String> = asked
        .keys()
        .filter(|user| {
            let kubernetes = user.starts_with("system:kube-")
                || user.starts_with("system:serviceaccount:kube-system:")
                || *user == "system:apiserver";
            !kubernetes && ![OPERATOR, AGENT, "tieline-admin"].contains(&user.as_str())
        })
        .collect();
    ensure!(others.is_empty(), "somebody else asked: {asked:?}");
    ensure!(
        asked.contains_key(OPERATOR) && asked.contains_key(AGENT),
        "the log does not know them: {asked:?}"
    );
    let running: BTreeSet<String> = world.lab.running().into_iter().map(Into::into).collect();
    ensure!(nodes == running, "agents asked from {nodes:?} only");

    // And what those accounts may do comes from the chart alone.
    for kind in ["rolebindings", "clusterrolebindings"] {
        let text = world
            .lab
            .control_plane()
            .kubectl(&["get", kind, "-A", "-o", "json"])?;
        let list: Value = serde_json::from_str(&text)?;
        let ours = list["items"].as_array().into_iter().flatten().filter(|it| {
            let subjects = it["subjects"].as_array();
            subjects.into_iter().flatten().any(|subject| {
                subject["kind"] == "ServiceAccount" && subject["namespace"] == "tieline-system"
            })
        });
        let mut count = 0;
        for binding in ours {
            let label = &binding["metadata"]["labels"]["app.kubernetes.io/managed-by"];
            ensure!(label == "Helm", "not of the chart: {binding}");
            count += 1;
        }
        ensure!(count > 0, "no {kind} of the chart were found");
    }
    Ok(())
}

/// With the token that a kubelet asks for when it mounts one into a pod of namespace `default`.
pub(crate) fn strangers(world: &mut World) -> Result<()> {
    world.up()?;
    let pod = world.pod_on("paris-1")?;
    let control_plane = world.lab.control_plane();
    let token = control_plane.kubectl(&[
        "create",
        "token",
        "default",
        "--bound-object-kind=Pod",
        "--bound-object-name",
        &pod.name,
        "--bound-object-uid",
        &pod.uid,
    ])?;
    let kubeconfig = control_plane.token_kubeconfig("stranger", token.trim())?;
    let me = control_plane.kubectl_as(&kubeconfig, &["auth", "whoami", "-o", "json"])?;
    ensure!(
        me.contains("system:serviceaccount:default:default") && me.contains(&pod.name),
        "the token is not the pod's: {me}"
    );

    let body = control_plane.dir().join("stranger.json");
    std::fs::write(&body, "{}")?;
    let body = body.to_str().context("no UTF-8 path")?;
    let mut refused = 0;
    for (kind, namespace) in KINDS {
        let group = "/apis/tieline.dev/v1alpha1";
        let list = if namespace.is_empty() {
            format!("{group}/{kind}")
        } else {
            format!("{group}/namespaces/{namespace}/{kind}")
        };
        let all: Value = serde_json::from_str(&control_plane.kubectl(&["get", "--raw", &list])?)?;
        let name = all["items"][0]["metadata"]["name"]
            .as_str()
            .unwrap_or("none");
        ensure!(
            kind == "vpnattachments" || name != "none",
            "there is nothing of {kind} to be kept from anybody"
        );
        let one = format!("{list}/{name}");
        let status = format!("{one}/status");
        let requests: [&[&str]; 8] = [
            &["get", "--raw", &list],
            &["get", "--raw", &one],
            &["create", "--raw", &list, "-f", body],
            &["replace", "--raw", &one, "-f", body],
            &["replace", "--raw", &status, "-f", body],
            &["delete", "--raw", &one],
            &["delete", "--raw", &list],
            &[
                "get",
                "--raw",
                &format!("{list}?watch=true&timeoutSeconds=1"),
            ],
        ];
        for request in requests {
            let answer = control_plane.kubectl_as(&kubeconfig, request);
            let said =
                answer.map_or_else(|error| format!("{error:#}"), |text| format!("200 {text}"));
            ensure!(
                said.contains("(Forbidden)"),
                "{}: {said}",
                request.join(" ")
            );
            refused += 1;
        }
        let resource = format!("{kind}.tieline.dev");
        let rest: [&[&str]; 2] = [&[], &["--subresource=status"]];
        for more in rest {
            let question = ["auth", "can-i", "patch", &resource, "-n", "tieline-system"];
            let answer = control_plane.kubectl_as(&kubeconfig, &[&question[..], more].concat());
            // "no" comes with exit code 1.
            ensure!(answer.is_err(), "may patch {resource} {more:?}: {answer:?}");
            refused += 1;
        }
        // Nothing of it happened.
        let after: Value = serde_json::from_str(&control_plane.kubectl(&["get", "--raw", &list])?)?;
        let names = |list: &Value| -> Vec<Value> {
            let items = list["items"].as_array().into_iter().flatten();
            items.map(|it| it["metadata"]["uid"].clone()).collect()
        };
        ensure!(names(&all) == names(&after), "{kind} changed");
    }
    for path in [
        "/api/v1/namespaces/tieline-system/secrets",
        "/api/v1/namespaces/tieline-system/configmaps",
        "/api/v1/namespaces/tieline-system/pods",
        "/apis/coordination.k8s.io/v1/namespaces/tieline-system/leases/tieline-operator",
    ] {
        let answer = control_plane.kubectl_as(&kubeconfig, &["get", "--raw", path]);
        let said = answer.map_or_else(|error| format!("{error:#}"), |text| format!("200 {text}"));
        ensure!(said.contains("(Forbidden)"), "{path}: {said}");
        refused += 1;
    }
    println!("{}: {refused} requests of a stranger refused", world.name);
    Ok(())
}
