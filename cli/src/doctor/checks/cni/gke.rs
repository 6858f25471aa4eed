//! The network agents of Google's managed clusters, known by their names.

use super::known::{Cni, Known};

pub(super) const GKE: Known = Known {
    name: "GKE's network agent",
    config_maps: &[],
    devices: &[],
    chains: &[],
    look: |traces| {
        traces.set(&["anetd", "netd"])?;
        Some(Cni::by_name(GKE.name))
    },
};
