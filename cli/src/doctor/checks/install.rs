//! Kubernetes, our definitions and policies, the operator and the agents, their versions, and clocks.

use super::{Facts, Finding, read};
use crate::doctor::facts::Kubernetes;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use tieline_core::plan::listed;
use tieline_crds::SCHEMA_NUMBER;

/// The oldest Kubernetes that works: from 1.32 on, a pod's token always says which node the pod runs on.
const LEAST: (u32, u32) = (1, 32);
/// Policies of the chart.
const POLICIES: &[&str] = &[
    "agent-writes-own-peer.tieline.dev",
    "in-use-is-kept.tieline.dev",
    "ledger-is-kept.tieline.dev",
    "operator-assigns-pod-cidrs.tieline.dev",
    "operator-keeps-intents.tieline.dev",
];
/// Clocks that differ by more than this, in seconds, are told of. The server tells whole seconds, and the way takes time.
const CLOCK_WARNING: u64 = 5;
/// From here on tokens and certificates can be refused as not valid yet.
const CLOCK_PROBLEM: u64 = 60;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut all = vec![kubernetes(facts), clock(facts)];
    all.extend(definitions(facts));
    all.extend(policies(facts));
    all.extend(workloads(facts));
    all.extend(versions(facts));
    all
}

/// Whether any of our definitions is there.
pub(super) fn is_installed(facts: &Facts) -> bool {
    facts
        .definitions
        .as_ref()
        .is_ok_and(|found| !found.is_empty())
}

fn kubernetes(facts: &Facts) -> Finding {
    const ID: &str = "kubernetes-version";
    match &facts.kubernetes {
        Err(why) => Finding::unknown(ID, why.clone())
            .todo(format!("make sure that it is {}.{} or newer", LEAST.0, LEAST.1)),
        Ok(Kubernetes { number, name }) if *number < LEAST => Finding::problem(
            ID,
            format!("Kubernetes {name} is older than {}.{}: tokens there need not say which node they were made for, and agents are refused without that", LEAST.0, LEAST.1),
        )
        .todo(format!("upgrade the control plane to {}.{} or newer", LEAST.0, LEAST.1)),
        Ok(Kubernetes { name, .. }) => Finding::ok(ID, format!("Kubernetes {name}")),
    }
}

fn clock(facts: &Facts) -> Finding {
    const ID: &str = "clock-here";
    match &facts.clock_ahead {
        Err(why) => Finding::unknown(ID, why.clone()),
        Ok(ahead) if ahead.unsigned_abs() > CLOCK_WARNING => Finding::warning(
            ID,
            format!(
                "this machine's clock is {} the API server's",
                offset(*ahead)
            ),
        )
        .todo("synchronise the clocks (NTP) of this machine and of the control plane"),
        Ok(_) => Finding::ok(ID, "this machine's clock and the API server's agree"),
    }
}

/// A difference of clocks in words.
fn offset(ahead: i64) -> String {
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    format!("{} s {direction}", ahead.unsigned_abs())
}

/// How bad a node's clock is.
pub(super) fn node_clock(node: &str, ahead: i64) -> Option<Finding> {
    const ID: &str = "clock-node";
    if ahead.unsigned_abs() < CLOCK_WARNING {
        return None;
    }
    let message = format!(
        "the node's clock is about {} the API server's; WireGuard refuses handshakes of a clock that was set back, and tokens and certificates are judged by it",
        offset(ahead)
    );
    let finding = if ahead.unsigned_abs() >= CLOCK_PROBLEM {
        Finding::problem(ID, message)
    } else {
        Finding::warning(ID, message)
    };
    Some(
        finding
            .at(format!("Node {node}"))
            .todo("synchronise the node's clock (NTP, chrony or systemd-timesyncd)"),
    )
}

fn definitions(facts: &Facts) -> Vec<Finding> {
    const ID: &str = "definitions";
    const HELP: &str =
        "install or upgrade the chart, which brings them: helm upgrade --install tieline …";
    let Ok(found) = &facts.definitions else {
        return Vec::new();
    };
    let wanted: Vec<String> = tieline_crds::all()
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    let missing: Vec<&String> = wanted
        .iter()
        .filter(|name| !found.contains_key(*name))
        .collect();
    if missing.len() == wanted.len() {
        return vec![
            Finding::warning(ID, "Tieline is not installed: none of its definitions is there")
                .todo("helm install tieline …; it changes nothing on a node until a ClusterLink is applied; from then on agents tell of their nodes, so run doctor again"),
        ];
    }
    // Before an upgrade the newer program finds what the older chart brought: that is as it should be.
    let lacking = |message: String| {
        if upgrade_is_ahead(facts) {
            Finding::warning(ID, format!("{message}; what runs is older than this program, and suits it"))
                .todo("nothing, when an upgrade comes next: it brings the newer ones; else use the tieline program of the version that is installed")
        } else {
            Finding::problem(ID, message).todo(HELP)
        }
    };
    let mut all = Vec::new();
    if !missing.is_empty() {
        all.push(lacking(format!(
            "definitions are missing: {}",
            listed(missing)
        )));
    }
    for name in wanted.iter().filter(|name| found.contains_key(*name)) {
        let number = found.get(name).copied().flatten();
        let place = format!("CustomResourceDefinition {name}");
        match number {
            Some(SCHEMA_NUMBER) => {}
            Some(newer) if newer > SCHEMA_NUMBER => all.push(
                Finding::warning(ID, format!("it has schema {newer}, and this program knows {SCHEMA_NUMBER}"))
                    .at(place)
                    .todo("use the tieline program of the version that is installed"),
            ),
            older => all.push(
                lacking(format!(
                    "it has {}, and {SCHEMA_NUMBER} is needed by version {}: an older schema drops new fields without a word, so operators and agents of that version do not write",
                    older.map_or_else(|| "no schema number".to_owned(), |number| format!("schema {number}")),
                    facts.version
                ))
                .at(place),
            ),
        }
    }
    if all.is_empty() {
        all.push(Finding::ok(
            ID,
            format!("all {} definitions, schema {SCHEMA_NUMBER}", wanted.len()),
        ));
    }
    all
}

fn policies(facts: &Facts) -> Vec<Finding> {
    const ID: &str = "admission-policies";
    let (Ok(policies), Ok(bindings)) = (&facts.policies, &facts.bindings) else {
        return Vec::new();
    };
    let (Some(policies), Some(bindings)) = (policies, bindings) else {
        return vec![
            Finding::problem(ID, "this API server does not serve ValidatingAdmissionPolicies: without them a compromised node can speak for others")
                .todo("upgrade the control plane, or take what switches them off out of kube-apiserver's --runtime-config"),
        ];
    };
    if !is_installed(facts) {
        return Vec::new();
    }
    let present: BTreeSet<String> = policies.iter().map(ResourceExt::name_any).collect();
    let bound: BTreeSet<&str> = bindings
        .iter()
        .map(|binding| &binding.spec)
        .filter(|spec| {
            spec.validation_actions
                .iter()
                .any(|action| action == "Deny")
        })
        .map(|spec| spec.policy_name.as_str())
        .collect();
    let missing: Vec<&str> = POLICIES
        .iter()
        .copied()
        .filter(|name| !present.contains(*name))
        .collect();
    let loose: Vec<&str> = POLICIES
        .iter()
        .copied()
        .filter(|name| present.contains(*name) && !bound.contains(name))
        .collect();
    let mut all = Vec::new();
    for (names, what) in [
        (&missing, "missing"),
        (
            &loose,
            "there, and no binding with the action Deny puts them in force",
        ),
    ] {
        if !names.is_empty() {
            all.push(
                Finding::problem(
                    ID,
                    format!("admission policies are {what}: {}. Without them a compromised node can speak for others", listed(names.iter())),
                )
                .todo("apply the chart again: helm upgrade …"),
            );
        }
    }
    if all.is_empty() {
        all.push(Finding::ok(
            ID,
            format!("all {} policies are in force", POLICIES.len()),
        ));
    }
    all
}

/// Operator and agents: are they there, and do they run?
fn workloads(facts: &Facts) -> Vec<Finding> {
    if !is_installed(facts) {
        return Vec::new();
    }
    let mut all = Vec::new();
    let namespace = &facts.namespace;
    if let Ok(deployments) = &facts.deployments {
        const ID: &str = "operator";
        match deployments.iter().find(|it| it.name_any() == "tieline-operator") {
            None => all.push(
                Finding::warning(ID, format!("there is no Deployment tieline-operator in namespace {namespace}: nobody plans, unless the operator runs outside"))
                    .todo("install the chart, or name its namespace with --namespace"),
            ),
            Some(found) => {
                let ready = found.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
                let wanted = found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                all.push(match ready {
                    0 => Finding::problem(ID, format!("none of {wanted} replicas is ready"))
                        .at("Deployment tieline-operator")
                        .todo(format!("kubectl -n {namespace} describe deployment tieline-operator; kubectl -n {namespace} logs deploy/tieline-operator")),
                    ready if ready < wanted => Finding::warning(ID, format!("{ready} of {wanted} replicas are ready")).at("Deployment tieline-operator")
                        .todo(format!("kubectl -n {namespace} get pods -l app.kubernetes.io/component=operator -o wide")),
                    ready => Finding::ok(ID, format!("{ready} of {wanted} replicas are ready")),
                });
            }
        }
    }
    if let Ok(sets) = &facts.daemon_sets {
        const ID: &str = "agents";
        let found = sets.iter().find(|set| {
            set.name_any() == "tieline-agent" && set.namespace().as_deref() == Some(namespace)
        });
        match found.and_then(|set| set.status.as_ref()) {
            None => all.push(
                Finding::warning(ID, format!("there is no DaemonSet tieline-agent in namespace {namespace}, so what only a node knows was not looked at, unless agents run outside"))
                    .todo("install the chart, then run doctor again"),
            ),
            Some(status) if status.number_ready < status.desired_number_scheduled => all.push(
                Finding::warning(ID, format!("{} of {} agents are ready", status.number_ready, status.desired_number_scheduled))
                    .at("DaemonSet tieline-agent")
                    .todo("look at the Peers and nodes named here, or: kubectl -n tieline-system get pods -o wide".replace("tieline-system", namespace)),
            ),
            Some(status) => all.push(Finding::ok(ID, format!("{} of {} agents are ready", status.number_ready, status.desired_number_scheduled))),
        }
    }
    for pod in read(&facts.pods) {
        if let Some((container, why)) = stuck(pod) {
            all.push(
                Finding::problem("pod", why)
                    .at(format!("Pod {}", pod.name_any()))
                    .todo(format!("kubectl -n {namespace} describe pod {0}; kubectl -n {namespace} logs {0} -c {container} --previous", pod.name_any())),
            );
        }
    }
    all
}

/// A container of ours that does not run and why, where its kubelet says so. An init container comes first: the others wait for it.
fn stuck(pod: &Pod) -> Option<(&str, String)> {
    let status = pod.status.as_ref()?;
    let initial = status.init_container_statuses.iter().flatten();
    let mut statuses = initial.chain(status.container_statuses.iter().flatten());
    statuses.find_map(|status| {
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref()?;
        [
            "CrashLoopBackOff",
            "ImagePullBackOff",
            "ErrImagePull",
            "CreateContainerError",
            "CreateContainerConfigError",
        ]
        .contains(&reason)
        .then(|| {
            let message = waiting.message.as_deref().unwrap_or("no message");
            let why = format!("container {}: {reason}: {message}", status.name);
            (status.name.as_str(), why)
        })
    })
}

/// The agents' nodes by the version that the agent tells.
fn agents(facts: &Facts) -> BTreeMap<&str, Vec<String>> {
    let mut by_version: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for peer in read(&facts.peers) {
        if let Some(version) = peer
            .status
            .as_ref()
            .and_then(|status| status.version.as_deref())
        {
            by_version
                .entry(version)
                .or_default()
                .push(peer.spec.node.clone());
        }
    }
    by_version
}

/// Versions of the operators, as their images' tags say. A digest instead of a tag says nothing about the version.
fn operators(facts: &Facts) -> BTreeSet<String> {
    read(&facts.deployments)
        .iter()
        .filter(|it| it.name_any() == "tieline-operator")
        .filter_map(|it| {
            image_version(
                it.spec
                    .as_ref()?
                    .template
                    .spec
                    .as_ref()?
                    .containers
                    .first()?
                    .image
                    .as_deref()?,
            )
        })
        .collect()
}

/// Whether all that runs is older than this program.
fn upgrade_is_ahead(facts: &Facts) -> bool {
    let (agents, operators) = (agents(facts), operators(facts));
    let mut running = agents
        .keys()
        .copied()
        .chain(operators.iter().map(String::as_str))
        .peekable();
    let own = numbers(&facts.version);
    running.peek().is_some() && running.all(|version| numbers(version) < own)
}

/// The numbers of a version, without what follows them.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(['-', '+'])
        .next()
        .into_iter()
        .flat_map(|version| version.split('.'))
        .map_while(|number| number.parse().ok())
        .collect()
}

fn versions(facts: &Facts) -> Vec<Finding> {
    const ID: &str = "versions";
    let (by_version, operators) = (agents(facts), operators(facts));
    let mut all = Vec::new();
    if by_version.len() > 1 {
        let text: Vec<String> = by_version
            .iter()
            .map(|(version, nodes)| format!("{version} on {}", listed(nodes)))
            .collect();
        all.push(
            Finding::warning(ID, format!("the agents are of different versions: {}", text.join("; ")))
                .todo("let the roll-out end, or look why it does not: kubectl rollout status daemonset/tieline-agent -n ".to_owned() + &facts.namespace),
        );
    }
    for operator in &operators {
        let others: Vec<&str> = by_version
            .keys()
            .copied()
            .filter(|version| version != operator)
            .collect();
        if !others.is_empty() {
            all.push(
                Finding::warning(
                    ID,
                    format!(
                        "the operator is {operator}, and agents are {}",
                        listed(others)
                    ),
                )
                .at("Deployment tieline-operator")
                .todo(
                    "install one version of the chart; operator and agents are made for each other",
                ),
            );
        }
    }
    let installed: BTreeSet<&str> = by_version
        .keys()
        .copied()
        .chain(operators.iter().map(String::as_str))
        .collect();
    if !installed.is_empty() && !installed.contains(facts.version.as_str()) {
        all.push(
            Finding::warning(
                ID,
                format!(
                    "this program is {}, and what is installed is {}",
                    facts.version,
                    listed(installed.iter())
                ),
            )
            .todo(if upgrade_is_ahead(facts) {
                "nothing, when an upgrade comes next; else use the tieline program of the version that is installed"
            } else {
                "use the tieline program of the version that is installed"
            }),
        );
    }
    if all.is_empty() && !installed.is_empty() {
        all.push(Finding::ok(ID, format!("everything is {}", facts.version)));
    }
    all
}

/// The tag of an image, when it is a version.
fn image_version(image: &str) -> Option<String> {
    let image = image.split('@').next().unwrap_or(image);
    let (_, tag) = image.rsplit_once(':')?;
    let version = tag.trim_start_matches('v');
    let is_version = version.starts_with(|first: char| first.is_ascii_digit())
        && version.contains('.')
        && !tag.contains('/');
    is_version.then(|| version.to_owned())
}
