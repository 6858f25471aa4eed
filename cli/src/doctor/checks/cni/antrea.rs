//! Antrea, known by its name.

use super::known::{Cni, Known};

pub(super) const ANTREA: Known = Known {
    name: "Antrea",
    config_maps: &[],
    devices: &["antrea-gw0"],
    chains: &[],
    look: |traces| {
        traces.set(&["antrea-agent"])?;
        Some(Cni::by_name(ANTREA.name))
    },
};
