//! kindnet, which kind brings.

use super::known::{Cni, Known};
use super::traces::Traces;

pub(super) const KINDNET: Known = Known {
    name: "kindnet",
    config_maps: &[],
    devices: &[],
    chains: &["KIND-MASQ-AGENT", "kindnet*"],
    look,
};

fn look(traces: &Traces<'_>) -> Option<Cni> {
    traces.set(&["kindnet"])?;
    Some(Cni {
        masquerade: "it masquerades what leaves for outside the pod range; planned sources are kept all the same".to_owned(),
        ..Cni::by_name(KINDNET.name)
    })
}
