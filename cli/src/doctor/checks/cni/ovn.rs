//! Kube-OVN and OVN-Kubernetes, known by their names.

use super::known::{Cni, Known};

pub(super) const OVN: Known = Known {
    name: "OVN",
    config_maps: &[],
    devices: &["ovn*"],
    chains: &[],
    look: |traces| {
        traces.set(&["kube-ovn-cni", "ovnkube-node"])?;
        Some(Cni::by_name(OVN.name))
    },
};
