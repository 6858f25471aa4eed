//! What doctor says of a cluster before an installation, after it, and with faults in it.

use crate::support::{Findings, Stage, Tests};
use anyhow::{Context as _, Result, ensure};

pub(crate) fn tests() -> Tests {
    vec![
        (
            "doctor: a cluster without Tieline has no problem, and says which checks need agents",
            before,
        ),
        (
            "doctor: an API server that does not answer ends with code 2",
            unreachable,
        ),
        (
            "doctor: after the chart, definitions, policies and permissions are in order",
            installed,
        ),
        (
            "doctor: a missing definition is a problem that is named",
            missing_definition,
        ),
        (
            "doctor: assign beside another giver of podCIDRs is a problem that names both",
            pod_cidr_conflict,
        ),
        (
            "doctor: a FORWARD chain that drops is named with the rule to add",
            forward_drop,
        ),
        ("doctor: agents of another version are told", skew),
        (
            "doctor: a caller without rights gets code 2 and hears what was not read",
            without_rights,
        ),
        (
            "doctor: a caller who may read and may not ask about others gets code 2 too",
            without_questions,
        ),
        ("doctor: nothing is written", writes_nothing),
    ]
}

fn before(stage: &Stage) -> Result<()> {
    // As kube-controller-manager writes it.
    give_pod_cidr(stage, "a", "10.244.1.0/24", "kube-controller-manager")?;
    let found = stage.doctor(0)?;
    found.are_complete()?;
    ensure!(found.of("problem").is_empty(), "{:#?}", found.of("problem"));
    found.has("kubernetes-version", "ok", "", &["Kubernetes v1."])?;
    found.has("clock-here", "ok", "", &[])?;
    found.has(
        "definitions",
        "warning",
        "",
        &["not installed", "helm install"],
    )?;
    found.has("pod-cidrs", "ok", "", &["kube-controller-manager: 1 nodes"])?;
    found.has(
        "host",
        "unknown",
        "",
        &["only the agents can tell", "changes nothing on a node"],
    )?;
    let table = stage.tieline(&["doctor"])?;
    table.ended_with(0)?;
    ensure!(table.output.starts_with("RESULT"), "{}", table.output);
    ensure!(table.output.contains("0 problems"), "{}", table.output);
    Ok(())
}

fn unreachable(stage: &Stage) -> Result<()> {
    let text = std::fs::read_to_string(stage.kubeconfig())?;
    // Nothing listens on port 9 of loopback.
    let path = stage.folder().join("nowhere.kubeconfig");
    std::fs::write(&path, text.replace(&stage.server(), "https://127.0.0.1:9"))?;
    let run = stage.tieline_as(&path, &["doctor"])?;
    run.ended_with(2)?;
    ensure!(
        run.errors.contains("cannot ask the API server"),
        "{}",
        run.errors
    );
    Ok(())
}

fn installed(stage: &Stage) -> Result<()> {
    stage.install()?;
    let found = stage.doctor(1)?;
    found.are_complete()?;
    found.has("definitions", "ok", "", &["all 7 definitions"])?;
    found.has(
        "admission-policies",
        "ok",
        "",
        &["all 5 policies are in force"],
    )?;
    found.has("permissions", "ok", "ServiceAccount tieline-operator", &[])?;
    found.has("permissions", "ok", "ServiceAccount tieline-agent", &[])?;
    found.has("your-permissions", "ok", "", &[])?;
    // No kubelet runs here, so the one problem is that the operator's pods do not.
    found.has(
        "operator",
        "problem",
        "Deployment tieline-operator",
        &["replicas is ready"],
    )?;
    ensure!(found.of("problem").len() == 1, "{:#?}", found.of("problem"));
    // From here on as where the operator runs outside.
    stage.kubectl(&[
        "delete",
        "-n",
        "tieline-system",
        "deployment/tieline-operator",
        "daemonset/tieline-agent",
        "--wait=true",
    ])?;
    let found = stage.doctor(0)?;
    ensure!(found.of("problem").is_empty(), "{:#?}", found.of("problem"));
    Ok(())
}

fn missing_definition(stage: &Stage) -> Result<()> {
    stage.kubectl(&["delete", "crd", "sites.tieline.dev", "--wait=true"])?;
    let found = stage.doctor(1)?;
    found.has(
        "definitions",
        "problem",
        "",
        &["definitions are missing: sites.tieline.dev", "helm upgrade"],
    )?;
    ensure!(found.of("problem").len() == 1, "{:#?}", found.of("problem"));

    // The same for one whose schema is too old.
    stage.apply_crds(&e2e::world::repository().join("crds/yaml"))?;
    let schema = |number: &str| format!("tieline.dev/schema={number}");
    let number = stage.kubectl(&[
        "get",
        "crd",
        "sites.tieline.dev",
        "-o",
        r"jsonpath={.metadata.annotations.tieline\.dev/schema}",
    ])?;
    stage.kubectl(&[
        "annotate",
        "crd",
        "sites.tieline.dev",
        "--overwrite",
        &schema("0"),
    ])?;
    stage.doctor(1)?.has(
        "definitions",
        "problem",
        "CustomResourceDefinition sites.tieline.dev",
        &["schema 0"],
    )?;
    stage.kubectl(&[
        "annotate",
        "crd",
        "sites.tieline.dev",
        "--overwrite",
        &schema(&number),
    ])?;
    stage.doctor(0)?;
    Ok(())
}

fn pod_cidr_conflict(stage: &Stage) -> Result<()> {
    let cluster = |assign: bool| {
        stage.apply(&format!(
            "{{apiVersion: tieline.dev/v1alpha1, kind: Cluster, metadata: {{name: shop}}, spec: {{sites: {{name: berlin}}, pods: {{assign: {assign}}}}}}}"
        ))
    };
    cluster(true)?;
    stage.doctor(1)?.has(
        "pod-cidrs",
        "problem",
        "Cluster shop",
        &[
            "spec.pods.assign is true",
            "kube-controller-manager gave a",
            "set spec.pods.assign to false",
        ],
    )?;
    cluster(false)?;
    stage
        .doctor(0)?
        .has("pod-cidrs", "ok", "", &["all 1 nodes"])?;
    stage.apply("{apiVersion: v1, kind: Node, metadata: {name: bare}}")?;
    stage.doctor(1)?.has(
        "pod-cidrs",
        "problem",
        "",
        &["without podCIDR: bare", "spec.pods.assign: true"],
    )?;
    give_pod_cidr(stage, "bare", "10.244.2.0/24", "kube-controller-manager")?;
    stage.doctor(0)?;
    Ok(())
}

fn forward_drop(stage: &Stage) -> Result<()> {
    peer(stage, "a")?;
    report(stage, "a", "\"version\": \"0.1.0\"", &[UP])?;
    let version = own_version(stage)?;
    report(stage, "a", &format!("\"version\": {version:?}"), &[UP])?;
    stage.doctor(0)?.has("paths", "ok", "", &[])?;
    let drop = (
        "ForwardDropped",
        "True",
        "ForeignChain",
        "other forward chains drop what they do not know, which Tieline cannot override; let the mesh pass: ip filter FORWARD: run `iptables -I FORWARD -i tie+ -j ACCEPT` and `iptables -I FORWARD -o tie+ -j ACCEPT`",
    );
    report(
        stage,
        "a",
        &format!("\"version\": {version:?}"),
        &[UP, drop],
    )?;
    stage.doctor(1)?.has(
        "forward-drop",
        "problem",
        "Node a",
        &[
            "ip filter FORWARD",
            "iptables -I FORWARD -i tie+ -j ACCEPT",
            "iptables -I FORWARD -o tie+ -j ACCEPT",
        ],
    )?;

    // The same as an agent tells it of its host, with more.
    let host = "\"host\": {\"kernel\": \"6.1.0\", \"forwardsIpv4\": true, \"clockAheadSeconds\": -300,
        \"underlay\": [{\"device\": \"eth0\", \"mtu\": 1280, \"reversePathFilter\": 1}], \"forwardDrops\": [\"inet firewalld filter_FORWARD\"],
        \"podNetwork\": {\"devices\": [\"cni0\"], \"masquerade\": [{\"chain\": \"ip nat CNI-*\"}, {\"chain\": \"ip nat KUBE-POSTROUTING\", \"onlyMarked\": true}]}}";
    report(
        stage,
        "a",
        &format!("\"version\": {version:?}, {host}"),
        &[UP],
    )?;
    let found = stage.doctor(1)?;
    found.has(
        "forward-drop",
        "problem",
        "Node a",
        &["nft insert rule inet firewalld filter_FORWARD iifname"],
    )?;
    found.has("mtu", "problem", "Node a", &["eth0 is 1280"])?;
    found.has("clock-node", "problem", "Node a", &["300 s behind"])?;
    found.has(
        "pod-network",
        "ok",
        "",
        &[
            "on a: plug-ins of the CNI project (cni0), masquerade in ip nat CNI-*, of marked packets or Services alone in ip nat KUBE-POSTROUTING",
        ],
    )?;
    report(
        stage,
        "a",
        &format!("\"version\": {version:?}, \"host\": null"),
        &[UP],
    )?;
    Ok(())
}

fn skew(stage: &Stage) -> Result<()> {
    let version = own_version(stage)?;
    report(stage, "a", &format!("\"version\": {version:?}"), &[UP])?;
    peer(stage, "bare")?;
    report(stage, "bare", "\"version\": \"0.0.7\"", &[UP])?;
    stage.doctor(0)?.has(
        "versions",
        "warning",
        "",
        &[
            "of different versions",
            "0.0.7 on bare",
            &format!("{version} on a"),
        ],
    )?;
    report(stage, "bare", &format!("\"version\": {version:?}"), &[UP])?;
    stage.doctor(0)?.has("versions", "ok", "", &[&version])?;
    Ok(())
}

fn without_rights(stage: &Stage) -> Result<()> {
    stage.kubectl(&["create", "serviceaccount", "nobody", "-n", "default"])?;
    let token = stage.unbound_token("nobody", "default")?;
    let credential = stage.token_kubeconfig("nobody", &token)?;
    let run = stage.tieline_as(&credential, &["doctor", "-o", "json"])?;
    run.ended_with(2)?;
    let found = Findings::parse(&run.output)?;
    found.has("reading", "unknown", "", &["nodes", "forbidden"])?;
    found.has("kubernetes-version", "ok", "", &[])?;
    found.has("your-permissions", "warning", "", &["list nodes"])?;
    Ok(())
}

fn without_questions(stage: &Stage) -> Result<()> {
    stage.kubectl(&["create", "serviceaccount", "reader", "-n", "default"])?;
    stage.apply(
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: reader},
            rules: [{apiGroups: ['*'], resources: ['*'], verbs: [get, list]}]}",
    )?;
    stage.kubectl(&[
        "create",
        "clusterrolebinding",
        "reader",
        "--clusterrole=reader",
        "--serviceaccount=default:reader",
    ])?;
    let token = stage.unbound_token("reader", "default")?;
    let credential = stage.token_kubeconfig("reader", &token)?;
    let run = stage.tieline_as(&credential, &["doctor", "-o", "json"])?;
    run.ended_with(2)?;
    Findings::parse(&run.output)?.has(
        "permissions",
        "unknown",
        "ServiceAccount tieline-operator",
        &["cannot ask what it may do", "subjectaccessreviews"],
    )
}

fn writes_nothing(stage: &Stage) -> Result<()> {
    let mark = stage.audit_mark();
    stage.doctor(0)?;
    let writes = stage.audit_writes_since(mark)?;
    // A question to the authorizer is a POST that stores nothing.
    let stored: Vec<_> = writes
        .iter()
        .filter(|write| {
            !write.by_control_plane() && !write.resource.ends_with("subjectaccessreviews")
        })
        .collect();
    ensure!(stored.is_empty(), "{stored:?}");
    Ok(())
}

type Condition<'a> = (&'a str, &'a str, &'a str, &'a str);

const UP: Condition<'static> = (
    "PathsUp",
    "True",
    "AllUp",
    "2 of 2 paths to gateways are up",
);

pub(crate) fn peer(stage: &Stage, node: &str) -> Result<()> {
    stage.apply(&format!(
        "{{apiVersion: tieline.dev/v1alpha1, kind: Peer, metadata: {{name: shop.{node}, namespace: tieline-system}},
           spec: {{node: {node}, cluster: shop, site: berlin, segment: shop.berlin, planRevision: 1, gatewayRank: 0}}}}"
    ))?;
    Ok(())
}

/// What the node's agent would say.
pub(crate) fn report(
    stage: &Stage,
    node: &str,
    more: &str,
    conditions: &[Condition<'_>],
) -> Result<()> {
    let conditions: Vec<String> = conditions
        .iter()
        .map(|(kind, status, reason, message)| {
            format!(
                "{{\"type\": {kind:?}, \"status\": {status:?}, \"reason\": {reason:?}, \"message\": {message:?}, \"lastTransitionTime\": \"2026-01-01T00:00:00Z\"}}"
            )
        })
        .collect();
    let patch = format!(
        "--patch={{\"status\": {{{more}, \"conditions\": [{}]}}}}",
        conditions.join(", ")
    );
    let name = format!("shop.{node}");
    stage.kubectl(&[
        "patch",
        "peers",
        &name,
        "-n",
        "tieline-system",
        "--subresource=status",
        "--type=merge",
        &patch,
    ])?;
    Ok(())
}

pub(crate) fn own_version(stage: &Stage) -> Result<String> {
    let run = stage.tieline(&["--version"]);
    // `--version` ends before the other flags are read.
    let text = run?.output;
    Ok(text
        .split_whitespace()
        .nth(1)
        .context("a version")?
        .to_owned())
}

fn give_pod_cidr(stage: &Stage, node: &str, cidr: &str, manager: &str) -> Result<()> {
    let manifest = stage.folder().join(format!("node-{node}.yaml"));
    std::fs::write(
        &manifest,
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {node}}}, spec: {{podCIDR: {cidr}, podCIDRs: [{cidr}]}}}}"
        ),
    )?;
    stage.kubectl(&[
        "apply",
        "--server-side",
        "--field-manager",
        manager,
        "-f",
        &manifest.display().to_string(),
    ])?;
    Ok(())
}
