//! Azure CNI, known by its name.

use super::known::{Cni, Known};

pub(super) const AZURE: Known = Known {
    name: "Azure CNI",
    config_maps: &[],
    devices: &["azure0"],
    chains: &[],
    look: |traces| {
        traces.set(&["azure-cns"])?;
        Some(Cni::by_name(AZURE.name))
    },
};
