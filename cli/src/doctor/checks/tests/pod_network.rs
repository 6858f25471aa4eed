//! What agents tell of CNI and masquerade.

use super::*;

/// A cluster whose nodes tell this.
fn with(nodes: &[(&str, Value)]) -> Facts {
    let peers = nodes.iter().map(|(name, told)| {
        let mut peer = peer(name, "1.0.0", json!([]));
        peer["status"]["host"] = json!({"podNetwork": told});
        peer
    });
    Facts {
        nodes: objects(
            nodes
                .iter()
                .map(|(name, _)| node(name, Some("10.1.0.0/24"), "x")),
        ),
        peers: objects(peers),
        ..Facts::empty()
    }
}

fn network(devices: &[&str], masquerade: &[(&str, bool)]) -> Value {
    let chains: Vec<Value> = masquerade
        .iter()
        .map(|(chain, marked)| json!({"chain": chain, "onlyMarked": marked}))
        .collect();
    json!({"devices": devices, "masquerade": chains})
}

const KUBE_PROXY: (&str, bool) = ("ip nat KUBE-POSTROUTING", true);

#[test]
fn cni_and_masquerade_of_nodes_are_told_and_nodes_that_differ_are_a_warning() {
    let flannel = network(
        &["cni0", "flannel.1"],
        &[("ip nat FLANNEL-POSTRTG", false), KUBE_PROXY],
    );
    let flannel_before_pods = network(&["flannel.1"], &[("ip nat FLANNEL-POSTRTG", false)]);
    let flannel_without = network(&["cni0", "flannel.1"], &[KUBE_PROXY]);
    let bridge = network(
        &["cni0"],
        &[("inet cni_plugins_masquerade masq_checks", false)],
    );
    let bridge_quiet = network(&["cni0"], &[]);
    let ptp = network(&[], &[("ip nat CNI-*", false)]);
    let calico = network(
        &["cali*", "vxlan.calico"],
        &[("ip nat cali-nat-outgoing", false)],
    );
    let docker = network(&[], &[("ip nat POSTROUTING", false)]);
    let bare = network(&[], &[]);
    // Older iptables tells no mark.
    let old = network(&["cilium_host"], &[("ip nat KUBE-POSTROUTING", false)]);
    for (what, nodes, severity, says) in [
        (
            "flannel",
            vec![&flannel],
            Severity::Ok,
            "on n0: flannel (cni0, flannel.1), masquerade in ip nat FLANNEL-POSTRTG, of marked packets or Services alone in ip nat KUBE-POSTROUTING. Between sites planned sources are kept",
        ),
        (
            "the first pod makes cni0",
            vec![&flannel, &flannel_before_pods],
            Severity::Ok,
            "on n1: flannel (flannel.1)",
        ),
        (
            "bridge with ipMasq and pods on one node alone",
            vec![&bridge, &bridge_quiet, &bare],
            Severity::Ok,
            "on n2: no traces yet",
        ),
        (
            "ptp",
            vec![&ptp],
            Severity::Ok,
            "plug-ins of the CNI project, masquerade in ip nat CNI-*",
        ),
        (
            "docker beside it",
            vec![&docker],
            Severity::Ok,
            "a CNI without traces, masquerade in ip nat POSTROUTING",
        ),
        (
            "eBPF",
            vec![&old],
            Severity::Ok,
            "Cilium (cilium_host), no masquerade of pods in nftables",
        ),
        (
            "two CNIs",
            vec![&flannel, &calico],
            Severity::Warning,
            "nodes differ: on n1: Calico",
        ),
        (
            "masquerade on one of two",
            vec![&flannel, &flannel_without],
            Severity::Warning,
            "nodes differ",
        ),
    ] {
        let nodes: Vec<(String, Value)> = nodes
            .into_iter()
            .enumerate()
            .map(|(number, told)| (format!("n{number}"), told.clone()))
            .collect();
        let nodes: Vec<(&str, Value)> = nodes
            .iter()
            .map(|(name, told)| (name.as_str(), told.clone()))
            .collect();
        says_once(&with(&nodes), "pod-network", severity, says, what);
    }
}

#[test]
fn a_cni_without_daemon_set_is_known_by_what_agents_tell() {
    let bridge = with(&[("a", network(&["cni0"], &[]))]);
    let finding = only(&bridge, "cni");
    assert_eq!(finding.severity, Severity::Ok);
    for word in ["plug-ins of the CNI project", "Node.spec.podCIDRs"] {
        assert!(finding.message.contains(word), "{}", finding.message);
    }
    // Agents that do not tell, and nodes without traces: as before.
    for told in [Value::Null, network(&[], &[])] {
        let facts = with(&[("a", told)]);
        assert_eq!(only(&facts, "cni").severity, Severity::Unknown);
        assert!(find(&check(&facts), "pod-network").is_empty());
    }
}
