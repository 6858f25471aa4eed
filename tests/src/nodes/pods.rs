//! Pods of the cluster as a test uses them: found, waited for, driven, and turned into ends of the lab's traffic.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::{NodeLab, PROBE_IMAGE};
use crate::lab::{Endpoint, Family, NetNs};

/// The manifest of a DaemonSet of probes that answer on port 8080 and say their pod and node: on every node, or on those of one
/// site. A pod is Ready when it answers.
#[must_use]
pub fn probes(name: &str, site: Option<&str>) -> String {
    let selector = site.map_or_else(String::new, |site| {
        format!("\n      nodeSelector: {{topology.kubernetes.io/region: {site}}}")
    });
    let container = r#"["serve", ":8080"]
        env:
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}"#;
    everywhere(name, &selector, container)
}

/// The manifest of a DaemonSet whose pods send UDP datagrams to one address from their first moment on, whatever becomes of
/// them: where nothing may get out, an eavesdropper must never hear them.
#[must_use]
pub fn knockers(name: &str, address: IpAddr) -> String {
    everywhere(
        name,
        "",
        &format!(r#"["knock", "{}"]"#, SocketAddr::new(address, 9)),
    )
}

/// A DaemonSet of the probe: `args` and what follows them in the container.
fn everywhere(name: &str, selector: &str, args: &str) -> String {
    format!(
        r#"---
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      # A volume for a token is tried again after up to 4 s more on a node that had to wait for its network.
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1{selector}
      tolerations:
      - {{key: node.kubernetes.io/not-ready, operator: Exists}}
      - {{key: node.kubernetes.io/network-unavailable, operator: Exists}}
      containers:
      - name: probe
        image: {PROBE_IMAGE}
        imagePullPolicy: Never
        args: {args}
"#
    )
}

/// A running pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID, by which its processes are found.
    pub uid: String,
    /// The node it runs on.
    pub node: String,
    /// Its addresses, one a family.
    pub addresses: Vec<IpAddr>,
    /// Whether it is Ready.
    pub ready: bool,
}

impl Pod {
    /// Its first address.
    ///
    /// # Errors
    ///
    /// When it has none yet.
    pub fn address(&self) -> Result<IpAddr> {
        self.addresses
            .first()
            .copied()
            .with_context(|| format!("{} has no address", self.name))
    }

    /// Its address of a family.
    ///
    /// # Errors
    ///
    /// When it has none.
    pub fn address_of(&self, family: Family) -> Result<IpAddr> {
        let found = self
            .addresses
            .iter()
            .find(|address| Family::of(**address) == family);
        found
            .copied()
            .with_context(|| format!("{} has no {family} address", self.name))
    }

    /// `http://ADDRESS:PORT/` with its first address.
    ///
    /// # Errors
    ///
    /// When it has no address yet.
    pub fn url(&self, port: u16) -> Result<String> {
        Ok(url(self.address()?, port))
    }

    /// As [`Pod::url`], with its address of a family.
    ///
    /// # Errors
    ///
    /// When it has no address of that family.
    pub fn url_of(&self, family: Family, port: u16) -> Result<String> {
        Ok(url(self.address_of(family)?, port))
    }
}

/// `http://ADDRESS:PORT/`.
#[must_use]
pub fn url(address: IpAddr, port: u16) -> String {
    format!("http://{}/", SocketAddr::new(address, port))
}

/// What `probe serve` tells its client.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// Node of the pod that answered.
    pub node: String,
    /// The pod that answered.
    pub pod: String,
    /// The client's address, as that pod saw it.
    pub client: IpAddr,
}

impl NodeLab {
    /// Pods of a namespace that a label selector finds, sorted by name; those being deleted are left out.
    ///
    /// # Errors
    ///
    /// When the API server does not answer.
    pub fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
        let arguments = ["get", "pods", "-n", namespace, "-l", selector, "-o", "json"];
        let list: Value = serde_json::from_str(&self.control_plane.kubectl(&arguments)?)?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let mut pods: Vec<Pod> = items
            .iter()
            .filter(|item| item["metadata"]["deletionTimestamp"].is_null())
            .map(parse)
            .collect();
        pods.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(pods)
    }

    /// Waits until exactly `count` pods are found and all are Ready.
    ///
    /// # Errors
    ///
    /// When `patience` is over; the message names the pods and the cluster's last warnings.
    pub fn wait_pods(
        &self,
        namespace: &str,
        selector: &str,
        count: usize,
        patience: Duration,
    ) -> Result<Vec<Pod>> {
        let end = Instant::now() + patience;
        loop {
            let pods = self.pods(namespace, selector)?;
            if pods.len() == count && pods.iter().all(|pod| pod.ready) {
                return Ok(pods);
            }
            if Instant::now() >= end {
                let names: Vec<String> = pods
                    .iter()
                    .map(|pod| format!("{} on '{}' (ready: {})", pod.name, pod.node, pod.ready))
                    .collect();
                let warnings = ["get", "events", "-A", "--field-selector=type=Warning"];
                let warnings = self.control_plane.kubectl(&warnings)?;
                let warnings: Vec<&str> = warnings.lines().rev().take(8).collect();
                bail!(
                    "wanted {count} Ready pods of {selector} within {patience:?}, found {}: {}\nlast warnings:\n{}",
                    pods.len(),
                    names.join(", "),
                    warnings.join("\n")
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// `kubectl exec`: the API server asks the kubelet, which a site behind a NAT does not let it.
    ///
    /// # Errors
    ///
    /// When the command fails or the kubelet cannot be reached.
    pub fn exec(&self, pod: &Pod, command: &[&str]) -> Result<String> {
        let mut arguments = vec!["exec", "-n", &pod.namespace, &pod.name, "--"];
        arguments.extend(command);
        self.control_plane.kubectl(&arguments)
    }

    /// `kubectl logs`.
    ///
    /// # Errors
    ///
    /// As [`NodeLab::exec`].
    pub fn logs(&self, pod: &Pod) -> Result<String> {
        self.control_plane
            .kubectl(&["logs", "-n", &pod.namespace, &pod.name])
    }

    /// Runs the probe inside the pod's network and mount namespaces, without the API server: also where `kubectl exec` does not
    /// reach. The pod must run [`super::PROBE_IMAGE`].
    ///
    /// # Errors
    ///
    /// When the pod's processes are not found or the program cannot be started; that it failed is in the output.
    pub fn probe(&self, pod: &Pod, arguments: &[&str]) -> Result<Output> {
        let pid = self.process_of(pod)?;
        let output = std::process::Command::new("nsenter")
            .args(["--target", &pid.to_string(), "--net", "--mount", "--"])
            .arg("/probe")
            .args(arguments)
            .output();
        output.context("starting nsenter")
    }

    /// Asks `url` from inside a pod `count` times and returns every answer.
    ///
    /// # Errors
    ///
    /// When a request fails; the message is the probe's.
    pub fn ask(&self, pod: &Pod, url: &str, count: usize) -> Result<Vec<Answer>> {
        let output = self.probe(pod, &["get", url, &count.to_string()])?;
        ensure!(
            output.status.success(),
            "{} on {}: {}",
            pod.name,
            pod.node,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        answers(&String::from_utf8_lossy(&output.stdout))
    }

    /// As [`NodeLab::ask`], from a node's own network namespace.
    ///
    /// # Errors
    ///
    /// As [`NodeLab::ask`].
    pub fn ask_from_node(&self, node: &str, url: &str, count: usize) -> Result<Vec<Answer>> {
        let probe = self.common.programs.path("probe");
        let probe = probe.to_str().context("the cache's path is no UTF-8")?;
        let printed = self.on_node(node, probe, &["get", url, &count.to_string()])?;
        answers(&printed)
    }

    /// The addresses that a name has for a pod, by the pod's own resolver settings.
    ///
    /// # Errors
    ///
    /// When the name is not resolved.
    pub fn lookup(&self, pod: &Pod, name: &str) -> Result<Vec<IpAddr>> {
        let output = self.probe(pod, &["lookup", name])?;
        ensure!(
            output.status.success(),
            "{} on {}: {}",
            pod.name,
            pod.node,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .map(|line| {
                line.parse()
                    .with_context(|| format!("'{line}' is no address"))
            })
            .collect()
    }

    /// The pod as an end of the lab's traffic: matrix, ping streams, transfers. Its segment is its cluster and site, as for the
    /// lab's own pods. Servers there hold the namespace open: drop them before the pod goes.
    ///
    /// # Errors
    ///
    /// When the pod's processes are not found.
    pub fn endpoint(&self, pod: &Pod) -> Result<Endpoint> {
        let pid = self.process_of(pod)?;
        let ns = NetNs::open(&pod.name, Path::new(&format!("/proc/{pid}/ns/net")))?;
        Ok(Endpoint {
            name: pod.name.clone(),
            segment: self.lab.node(&pod.node)?.spec().segment(),
            addresses: pod.addresses.clone(),
            ns,
        })
    }

    fn process_of(&self, pod: &Pod) -> Result<u32> {
        // Container processes come and go; the pod's own stays.
        self.host(&pod.node)?
            .process_of_pod(&pod.uid)
            .with_context(|| format!("no process of pod {} on {}", pod.name, pod.node))
    }
}

fn parse(item: &Value) -> Pod {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (metadata, status) = (&item["metadata"], &item["status"]);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    Pod {
        namespace: text(&metadata["namespace"]),
        name: text(&metadata["name"]),
        uid: text(&metadata["uid"]),
        node: text(&item["spec"]["nodeName"]),
        addresses: list(&status["podIPs"])
            .iter()
            .filter_map(|entry| entry["ip"].as_str()?.parse().ok())
            .collect(),
        ready: list(&status["conditions"])
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True"),
    }
}

fn answers(text: &str) -> Result<Vec<Answer>> {
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("'{line}' is no answer")))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn manifests_say_what_their_containers_run() {
        let container = |manifest: &str| -> serde_norway::Value {
            let object: serde_norway::Value =
                serde_norway::from_str(manifest.trim_start_matches("---")).unwrap();
            object["spec"]["template"]["spec"]["containers"][0].clone()
        };
        let probe = container(&probes("web", Some("oslo")));
        assert_eq!(probe["args"][0], "serve");
        assert_eq!(probe["env"][1]["name"], "POD");
        assert_eq!(probe["readinessProbe"]["tcpSocket"]["port"], 8080);
        let knocker = container(&knockers("knock", [10, 127, 255, 1].into()));
        assert_eq!(knocker["args"][1], "10.127.255.1:9");
        let address = [0xfd64, 0xacee, 0xff, 0xffff, 0, 0, 0, 1];
        let knocker = container(&knockers("knock", address.into()));
        assert_eq!(knocker["args"][1], "[fd64:acee:ff:ffff::1]:9");
    }
}
