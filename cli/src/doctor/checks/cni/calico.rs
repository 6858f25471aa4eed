//! Calico, and Canal: its policies on flannel's network, which together are one CNI.

use super::flannel;
use super::known::{Cni, Known, MASQUERADES};
use super::traces::Traces;

pub(super) const CALICO: Known = Known {
    name: "Calico",
    config_maps: &[("kube-system", "calico-config")],
    devices: &[
        "cali*",
        "vxlan.calico",
        "vxlan-v6.calico",
        "wireguard.cali",
        "wg-v6.cali",
    ],
    chains: &["cali*"],
    look,
};

const POOLS: &str = "its IP pools say whether it masquerades (natOutgoing); planned sources are kept where that is done in iptables or nftables";

fn look(traces: &Traces<'_>) -> Option<Cni> {
    let set = traces.set(&["calico-node", "canal"])?;
    let canal = flannel::is_canal(traces);
    let config = traces.entry("kube-system/calico-config", "cni_network_config");
    let says = |ipam: &str| config.is_some_and(|text| text.contains(ipam));
    let masquerade = if canal && flannel::masquerades(set) {
        MASQUERADES
    } else {
        POOLS
    };
    let own_addresses = says("calico-ipam") && !says("host-local") && !canal;
    Some(Cni {
        name: if canal { "Canal" } else { "Calico" }.to_owned(),
        masquerade: masquerade.to_owned(),
        own_addresses: own_addresses
            .then(|| "ConfigMap calico-config names calico-ipam".to_owned()),
        proven: false,
    })
}
