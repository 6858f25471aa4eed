//! Configuration files of a node's programs. Pure: names and addresses in, text out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Value, json};

use super::{Cni, ProxyMode};

/// First of the reference of every image of the lab.
pub const PROBE_IMAGE: &str = "lab.local/probe:1";
pub(super) const DNS_IMAGE: &str = "lab.local/coredns:1";

/// Address of the cluster's DNS service, the tenth of the service range by custom.
pub const DNS_SERVICE: &str = "10.96.0.10";

/// Pod ranges of the cluster, where kube-controller-manager divides them among nodes.
pub(super) fn pod_ranges(dual_stack: bool) -> Vec<IpNet> {
    ranges(
        Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16),
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd10, 0x244, 0, 0, 0, 0, 0, 0), 56),
        dual_stack,
    )
}

/// Service ranges of the cluster. Both lie in the pools of the examples, which is harder than beside them.
pub(super) fn service_ranges(dual_stack: bool) -> Vec<IpNet> {
    ranges(
        Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16),
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd64, 0xacee, 0x96, 0, 0, 0, 0, 0), 112),
        dual_stack,
    )
}

fn ranges(first: Ipv4Net, second: Ipv6Net, dual_stack: bool) -> Vec<IpNet> {
    let second = dual_stack.then_some(IpNet::V6(second));
    std::iter::once(first.into()).chain(second).collect()
}

/// What containerd (1.6 or newer) is told. It writes the CNI's configuration itself, from a template, as soon as the kubelet
/// tells it the node's pod range, whoever gave it.
pub(super) fn containerd(cni: Cni) -> String {
    let template = match cni {
        Cni::Flannel => "",
        Cni::Bridge | Cni::Plain => "    conf_template = \"/etc/cni/template.conflist\"\n",
    };
    format!(
        r#"version = 2
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PROBE_IMAGE}"
  # A lab has no CAP_SYS_RESOURCE everywhere, and without it no score may be lowered.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
{template}  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"#
    )
}

/// What the kubelet is told; it registers its node with a taint of this key.
pub(super) fn kubelet(taint: Option<&str>) -> Value {
    let taint = taint.map(|key| json!({"key": key, "effect": "NoSchedule"}));
    let taints: Vec<Value> = taint.into_iter().collect();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/etc/kubernetes/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        // A lab shares the machine's disk with everything else.
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "1%",
            "imagefs.available": "1%", "nodefs.inodesFree": "1%",
        },
        "failCgroupV1": false,
        "failSwapOn": false,
        "imageGCHighThresholdPercent": 100,
        "maxOpenFiles": 20000,
        "nodeStatusUpdateFrequency": "5s",
        "oomScoreAdj": 0,
        "registerWithTaints": taints,
        "resolvConf": "/etc/kubernetes/resolv.conf",
        "tlsCertFile": "/etc/kubernetes/kubelet.crt",
        "tlsPrivateKeyFile": "/etc/kubernetes/kubelet.key",
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
    })
}

pub(super) fn proxy(mode: ProxyMode, cluster_cidrs: &[IpNet]) -> Value {
    let cidrs: Vec<String> = cluster_cidrs.iter().map(ToString::to_string).collect();
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode.as_str(),
        "clusterCIDR": cidrs.join(","),
        "clientConnection": {"kubeconfig": "/etc/kubernetes/proxy.kubeconfig"},
        // The table's size is the machine's.
        "conntrack": {"maxPerCore": 0, "min": 0},
        "oomScoreAdj": 0,
    })
}

/// The CNI configuration: for containerd's template, and for flannel as it is used.
pub(super) fn cni(cni: Cni, mode: ProxyMode) -> String {
    let backend = mode.as_str();
    // containerd's template language is Go's; the ranges are those of Node.spec.podCIDRs, the routes one of length 0 a family.
    let ranges = r#"[{{range $i, $range := .PodCIDRRanges}}{{if $i}}, {{end}}[{"subnet": "{{$range}}"}]{{end}}]"#;
    let routes =
        r#"[{{range $i, $route := .Routes}}{{if $i}}, {{end}}{"dst": "{{$route}}"}{{end}}]"#;
    let (version, first) = match cni {
        Cni::Bridge => (
            "1.0.0",
            format!(
                r#"{{"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "{backend}",
     "hairpinMode": true, "ipam": {{"type": "host-local", "ranges": {ranges}}}}}"#
            ),
        ),
        Cni::Plain => (
            "1.0.0",
            format!(
                r#"{{"type": "ptp", "ipMasq": false,
     "ipam": {{"type": "host-local", "ranges": {ranges}, "routes": {routes}}}}}"#
            ),
        ),
        Cni::Flannel => (
            "0.3.1",
            r#"{"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}}"#
                .to_owned(),
        ),
    };
    format!(
        r#"{{"cniVersion": "{version}", "name": "lab", "plugins": [
    {first},
    {{"type": "portmap", "backend": "{backend}", "capabilities": {{"portMappings": true}}}}
]}}
"#
    )
}

pub(super) fn flannel(mode: ProxyMode, cluster_cidr: IpNet) -> Value {
    json!({
        "Network": cluster_cidr.to_string(),
        "EnableNFTables": mode == ProxyMode::Nftables,
        "Backend": {"Type": "vxlan"},
    })
}

/// Flags of the kubelet that its file has no field for.
pub(super) fn kubelet_flags(node: &str, site: &str, addresses: &[IpAddr]) -> Vec<String> {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    vec![
        "--config=/etc/kubernetes/kubelet.json".into(),
        "--kubeconfig=/etc/kubernetes/kubelet.kubeconfig".into(),
        format!("--hostname-override={node}"),
        format!("--node-ip={}", addresses.join(",")),
        format!("--node-labels=topology.kubernetes.io/region={site}"),
        "--v=1".into(),
    ]
}
