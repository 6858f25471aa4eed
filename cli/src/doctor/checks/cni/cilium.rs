//! Cilium, whose masquerade in eBPF Tieline cannot go before.

use super::known::{Cni, DOES_NOT, Known, UNSAID};
use super::traces::Traces;

pub(super) const CILIUM: Known = Known {
    name: "Cilium",
    config_maps: &[("kube-system", "cilium-config")],
    devices: &["cilium_*"],
    chains: &["CILIUM_*", "cilium*"],
    look,
};

fn look(traces: &Traces<'_>) -> Option<Cni> {
    traces.set(&["cilium"])?;
    let value = |key: &str| traces.entry("kube-system/cilium-config", key);
    let masquerade = match (
        value("enable-ipv4-masquerade"),
        value("enable-bpf-masquerade"),
    ) {
        (Some("false"), _) => DOES_NOT,
        (Some("true"), Some("true")) => {
            "it masquerades in eBPF, which may hide pods' sources before Tieline sees them: set ipv4NativeRoutingCIDR to the planned super-nets"
        }
        (Some("true"), _) => "it masquerades in iptables; planned sources are kept all the same",
        _ => UNSAID,
    };
    Some(Cni {
        name: "Cilium".to_owned(),
        masquerade: masquerade.to_owned(),
        own_addresses: value("ipam")
            .filter(|mode| *mode != "kubernetes")
            .map(|mode| format!("ConfigMap cilium-config says ipam: {mode}, not kubernetes")),
        proven: false,
    })
}
