//! What the suites on real nodes share: the pods that stand for users' programs, and the facts that hold without Tieline.

use e2e::wait::eventually;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::lab::{Endpoint, Family, Flows};
use e2e::nodes::{Answer, Cni, DNS_SERVICE, NodeLab, Pod, probes, url};
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

/// A pod on every node, a second one on the nodes of paris, and services without selector, of every family that the cluster has:
/// the test names their endpoints.
pub(crate) fn pods() -> String {
    let (web, other) = (probes("web", None), probes("other", Some("paris")));
    format!("{web}{other}---{SERVICES}")
}

const SERVICES: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: paris}
spec: {type: NodePort, ipFamilyPolicy: PreferDualStack, ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: oslo}
spec: {type: NodePort, ipFamilyPolicy: PreferDualStack, ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30081}]}
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

/// The families that a lab has.
pub(crate) fn families(lab: &NodeLab) -> &'static [Family] {
    lab.lab().topology().families()
}

/// Pods of one node and of one site talk, those of two sites do not.
pub(crate) fn pods_talk(lab: &NodeLab, cni: Cni) -> Result<()> {
    let cast = cast(lab)?;
    families(lab)
        .iter()
        .try_for_each(|family| pods_talk_over(lab, cni, &cast, *family))
}

fn pods_talk_over(lab: &NodeLab, cni: Cni, cast: &Cast, family: Family) -> Result<()> {
    let own = cast.first.address_of(family)?;
    let url = |pod: &Pod| pod.url_of(family, 8080);
    let one_node = only(lab.ask(&cast.first, &url(&cast.beside)?, 1)?)?;
    ensure!(one_node.client == own, "on one node: {one_node:?}");
    let across = only(lab.ask(&cast.first, &url(&cast.second)?, 1)?)?;
    ensure!(across.pod == cast.second.name, "{across:?}");
    // Bridge with ipMasq translates whatever leaves the node; the others keep the address inside a site.
    let node = lab.lab().node("paris-1")?.address_of(family)?;
    let wanted = if cni == Cni::Bridge { node } else { own };
    ensure!(
        across.client == wanted,
        "across nodes: {across:?}, wanted client {wanted}"
    );
    for (from, to) in [(&cast.first, &cast.abroad), (&cast.abroad, &cast.second)] {
        let answers = lab.ask(from, &url(to)?, 1);
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

/// Makes `pods` the endpoints of a service of [`pods`]; returns the service's addresses, one a family.
pub(crate) fn endpoints(
    lab: &NodeLab,
    service: &str,
    pods: &[&Pod],
) -> Result<Vec<(Family, IpAddr)>> {
    for family in families(lab) {
        let endpoints: Vec<_> = pods
            .iter()
            .map(|pod| {
                let address = pod.address_of(*family)?;
                Ok(serde_json::json!({"addresses": [address], "conditions": {"ready": true}}))
            })
            .collect::<Result<_>>()?;
        let kind = family.to_string();
        let name = format!("{service}-{}", kind.to_lowercase());
        let slice = serde_json::json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": kind,
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints,
        });
        lab.control_plane().apply(&slice.to_string())?;
    }
    let path = "jsonpath={.spec.clusterIPs[*]}";
    let addresses = lab
        .control_plane()
        .kubectl(&["get", "service", service, "-o", path])?;
    let addresses: Vec<(Family, IpAddr)> = addresses
        .split_whitespace()
        .map(|address| {
            let address = address.parse()?;
            Ok((Family::of(address), address))
        })
        .collect::<Result<_>>()?;
    let of: Vec<Family> = addresses.iter().map(|(family, _)| *family).collect();
    ensure!(
        of == families(lab),
        "service {service} has the addresses {addresses:?}"
    );
    Ok(addresses)
}

/// The addresses alone, as a name has them.
pub(crate) fn named(addresses: &[(Family, IpAddr)]) -> BTreeSet<IpAddr> {
    addresses.iter().map(|(_, address)| *address).collect()
}

/// ClusterIP, NodePort, names and the API server work inside paris, where CoreDNS runs.
pub(crate) fn services(lab: &NodeLab) -> Result<()> {
    let cast = cast(lab)?;
    let addresses = endpoints(lab, "paris", &[&cast.first, &cast.second])?;
    let both = BTreeSet::from([cast.first.name.clone(), cast.second.name.clone()]);
    for (family, address) in &addresses {
        let service = url(*address, 80);
        let seen = eventually("kube-proxy to follow", PROXY_PATIENCE, || {
            lab.ask(&cast.beside, &service, 20)
        })?;
        ensure!(servers(&seen) == both, "{service} from a pod: {seen:?}");
        let seen = eventually("kube-proxy to follow", PROXY_PATIENCE, || {
            lab.ask_from_node("paris-2", &service, 20)
        })?;
        ensure!(servers(&seen) == both, "{service} from a node: {seen:?}");
        let node = url(lab.lab().node("paris-2")?.address_of(*family)?, 30080);
        let seen = eventually("kube-proxy to follow", PROXY_PATIENCE, || {
            lab.ask_from_node("paris-1", &node, 20)
        })?;
        ensure!(servers(&seen) == both, "NodePort {node}: {seen:?}");
    }

    for from in [&cast.first, &cast.second] {
        let found = lab.lookup(from, "paris.default.svc.cluster.local")?;
        ensure!(
            BTreeSet::from_iter(found.clone()) == named(&addresses),
            "{found:?}, wanted {addresses:?}"
        );
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
    let seen: BTreeSet<Family> = report.pairs.iter().map(|pair| pair.family).collect();
    ensure!(
        seen == families(lab).iter().copied().collect(),
        "asked over {seen:?} only"
    );
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
pub(crate) const PROXY_PATIENCE: Duration = Duration::from_secs(10);
