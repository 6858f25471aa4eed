//! Weave Net, known by its name.

use super::known::{Cni, Known};

pub(super) const WEAVE: Known = Known {
    name: "Weave Net",
    config_maps: &[],
    devices: &["weave"],
    chains: &["WEAVE*"],
    look: |traces| {
        traces.set(&["weave-net"])?;
        Some(Cni::by_name(WEAVE.name))
    },
};
