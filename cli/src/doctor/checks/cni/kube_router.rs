//! kube-router, known by its name.

use super::known::{Cni, Known};

pub(super) const KUBE_ROUTER: Known = Known {
    name: "kube-router",
    config_maps: &[],
    devices: &["kube-bridge"],
    chains: &["KUBE-ROUTER-*"],
    look: |traces| {
        traces.set(&["kube-router"])?;
        Some(Cni::by_name(KUBE_ROUTER.name))
    },
};
