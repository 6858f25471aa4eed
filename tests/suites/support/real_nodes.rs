//! What the suites on real nodes share: the pods that stand for users' programs, and the facts that hold without Tieline.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::lab::{Endpoint, Flows};
use e2e::nodes::{Answer, Cni, DNS_SERVICE, NodeLab, Pod, probes};
use libtest_mimic::Trial;

/// A sentence and what proves it.
pub(crate) fn trial(
    name: impl Into<String>,
    test: impl FnOnce() -> Result<()> + Send + 'static,
) -> Trial {
    Trial::test(name, move || {
        test().map_err(|error| format!("{error:#}").into())
    })
}

/// A pod on every node, a second one on the nodes of paris, and services without selector: the test names their endpoints.
pub(crate) fn pods() -> String {
    let (web, other) = (probes("web", None), probes("other", Some("paris")));
    format!("{web}{other}---{SERVICES}")
}

const SERVICES: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: paris}
spec: {type: NodePort, ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: oslo}
spec: {type: NodePort, ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30081}]}
"#;

/// Pods that the facts are about.
pub(crate) struct Cast {
    /// On `paris-1`.
    pub(crate) first: Pod,
    /// On `paris-1` too.
    pub(crate) beside: Pod,
    /// On `paris-2`.
    pub(crate) second: Pod,
    /// On `berlin-1`.
    pub(crate) abroad: Pod,
}

pub(crate) fn cast(lab: &NodeLab) -> Result<Cast> {
    Ok(Cast {
        first: pod_on(lab, "web", "paris-1")?,
        beside: pod_on(lab, "other", "paris-1")?,
        second: pod_on(lab, "web", "paris-2")?,
        abroad: pod_on(lab, "web", "berlin-1")?,
    })
}

pub(crate) fn pod_on(lab: &NodeLab, app: &str, node: &str) -> Result<Pod> {
    lab.pods("default", &format!("app={app}"))?
        .into_iter()
        .find(|pod| pod.node == node)
        .with_context(|| format!("no pod of {app} on {node}"))
}

/// Pods of one node and of one site talk, those of two sites do not.
pub(crate) fn pods_talk(lab: &NodeLab, cni: Cni) -> Result<()> {
    let cast = cast(lab)?;
    let own = cast.first.address()?;
    let one_node = only(lab.ask(&cast.first, &cast.beside.url(8080)?, 1)?)?;
    ensure!(one_node.client == own, "on one node: {one_node:?}");
    let across = only(lab.ask(&cast.first, &cast.second.url(8080)?, 1)?)?;
    ensure!(across.pod == cast.second.name, "{across:?}");
    // Bridge with ipMasq translates whatever leaves the node; the others keep the address inside a site.
    let node: IpAddr = lab.lab().node("paris-1")?.address4().into();
    let wanted = if cni == Cni::Bridge { node } else { own };
    ensure!(
        across.client == wanted,
        "across nodes: {across:?}, wanted client {wanted}"
    );
    for (from, to) in [(&cast.first, &cast.abroad), (&cast.abroad, &cast.second)] {
        let answers = lab.ask(from, &to.url(8080)?, 1);
        ensure!(
            answers.is_err(),
            "{} on {} reached {} on {}: {answers:?}",
            from.name,
            from.node,
            to.name,
            to.node
        );
    }
    Ok(())
}

/// Makes `pods` the endpoints of a service of [`pods`]; returns the service's address.
pub(crate) fn endpoints(lab: &NodeLab, service: &str, pods: &[&Pod]) -> Result<IpAddr> {
    let endpoints: Vec<_> = pods
        .iter()
        .map(|pod| {
            Ok(serde_json::json!({"addresses": [pod.address()?], "conditions": {"ready": true}}))
        })
        .collect::<Result<_>>()?;
    let slice = serde_json::json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    });
    lab.control_plane().apply(&slice.to_string())?;
    let get = [
        "get",
        "service",
        service,
        "-o",
        "jsonpath={.spec.clusterIP}",
    ];
    Ok(lab.control_plane().kubectl(&get)?.parse()?)
}

/// ClusterIP, NodePort, names and the API server work inside paris, where CoreDNS runs.
pub(crate) fn services(lab: &NodeLab) -> Result<()> {
    let cast = cast(lab)?;
    let address = endpoints(lab, "paris", &[&cast.first, &cast.second])?;
    let both = BTreeSet::from([cast.first.name.clone(), cast.second.name.clone()]);
    let url = format!("http://{address}/");
    let seen = until(|| lab.ask(&cast.beside, &url, 20))?;
    ensure!(servers(&seen) == both, "ClusterIP from a pod: {seen:?}");
    let seen = until(|| lab.ask_from_node("paris-2", &url, 20))?;
    ensure!(servers(&seen) == both, "ClusterIP from a node: {seen:?}");
    let node = lab.lab().node("paris-2")?.address4();
    let url = format!("http://{node}:30080/");
    let seen = until(|| lab.ask_from_node("paris-1", &url, 20))?;
    ensure!(servers(&seen) == both, "NodePort: {seen:?}");

    for from in [&cast.first, &cast.second] {
        let found = lab.lookup(from, "paris.default.svc.cluster.local")?;
        ensure!(found == [address], "{found:?}");
        let short = lab.lookup(from, "kube-dns.kube-system")?;
        ensure!(short == [DNS_SERVICE.parse::<IpAddr>()?], "{short:?}");
    }
    let seen = lab.ask(&cast.beside, "http://paris/", 1)?;
    ensure!(both.is_superset(&servers(&seen)), "by name: {seen:?}");
    // The API server, from a pod.
    let output = lab.probe(&cast.first, &["connect", "kubernetes.default:443"])?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

/// The lab's matrix between ends that have servers: everything inside a site, nothing across.
pub(crate) fn nothing_crosses(lab: &NodeLab, ends: &[Endpoint]) -> Result<()> {
    let flows = Flows {
        each: 1,
        patience: Duration::from_millis(1500),
        ..Flows::default()
    };
    let report = lab.lab().matrix_of(ends, &flows)?;
    let (crossing, inside): (Vec<_>, Vec<_>) = report.pairs.iter().partition(|pair| pair.crosses);
    ensure!(
        !crossing.is_empty() && !inside.is_empty(),
        "nothing to see: {report:?}"
    );
    for pair in inside {
        ensure!(pair.ok == pair.total, "{pair:?}");
    }
    for pair in crossing {
        ensure!(pair.ok == 0, "{pair:?}");
    }
    Ok(())
}

pub(crate) fn only(answers: Vec<Answer>) -> Result<Answer> {
    let count = answers.len();
    answers
        .into_iter()
        .next()
        .filter(|_| count == 1)
        .with_context(|| format!("{count} answers"))
}

pub(crate) fn servers(answers: &[Answer]) -> BTreeSet<String> {
    answers.iter().map(|answer| answer.pod.clone()).collect()
}

/// kube-proxy needs a moment after a change.
pub(crate) fn until<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match attempt() {
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(200)),
            result => return result,
        }
    }
}
