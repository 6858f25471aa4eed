//! What is known of a CNI, and what is told of one that is there.

use super::traces::Traces;

pub(super) const MASQUERADES: &str =
    "it masquerades what leaves for outside; planned sources are kept all the same";
pub(super) const DOES_NOT: &str = "it does not masquerade";
pub(super) const UNSAID: &str = "whether it masquerades is not written where this program reads";

/// How a CNI is recognised.
pub(super) struct Known {
    /// What it is called.
    pub name: &'static str,
    /// ConfigMaps that tell of it, as namespace and name. They are read by name: no other is looked at.
    pub config_maps: &'static [(&'static str, &'static str)],
    /// Its devices on a node: names, or where a `*` ends one, what a name begins with.
    pub devices: &'static [&'static str],
    /// Its chains or nftables tables on a node, as above.
    pub chains: &'static [&'static str],
    /// What the API server's objects tell of it; `None`: it is not there.
    pub look: fn(&Traces<'_>) -> Option<Cni>,
}

/// A CNI, what it does with pods' sources, and what that means.
pub(super) struct Cni {
    /// What it is called, and what kind of it.
    pub name: String,
    /// Whether and how it masquerades.
    pub masquerade: String,
    /// Pods' addresses do not come from Node.spec.podCIDRs: why that is known.
    pub own_addresses: Option<String>,
    /// Whether it was tried in this project's labs.
    pub proven: bool,
}

impl Cni {
    /// One of which no more than the name is known.
    pub(super) fn by_name(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            masquerade: UNSAID.to_owned(),
            own_addresses: None,
            proven: false,
        }
    }
}
