//! Which range is whose, over all kinds of ranges, and which of them may not meet.
//!
//! Overlap means that two *different owners* hold addresses in common. Prefixes overlap only by nesting, so the overlaps
//! of a prefix are its ancestors (one look-up for each length that occurs) and its descendants (one range of the map).

use crate::cidr::{Family, Prefix};
use crate::ids::{ClusterName, LinkName, SiteName, VpnName};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Who holds a range, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder<'a> {
    /// A cluster's pods.
    Pods(&'a ClusterName),
    /// A cluster's mesh addresses.
    Mesh(&'a ClusterName),
    /// A cluster's services.
    Services(&'a ClusterName),
    /// A member site's own network.
    Lan(&'a SiteName),
    /// The network under a site that is no member: not reachable, but not to be granted either.
    Ground(&'a SiteName),
    /// What lies behind a VPN.
    Vpn(&'a VpnName),
    /// What a link reserves.
    Reserved(&'a LinkName),
    /// A link's pod pool.
    Pool(&'a LinkName),
    /// Where a link's mesh addresses come from.
    MeshPool(&'a LinkName),
    /// Where mesh addresses come from for links that name no pool.
    DefaultMesh,
    /// A node's own address.
    Address(&'a ClusterName),
    /// Services or VPNs that nobody reaches: not to be granted, and in nobody's way.
    Idle,
}

impl fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(name) => write!(f, "the pods of Cluster {name}"),
            Self::Mesh(name) => write!(f, "the mesh addresses of Cluster {name}"),
            Self::Services(name) => write!(f, "serviceCidrs of Cluster {name}"),
            Self::Lan(name) | Self::Ground(name) => write!(f, "cidrs of Site {name}"),
            Self::Vpn(name) => write!(f, "prefixes of VpnAttachment {name}"),
            Self::Reserved(name) => write!(f, "addressing.reserved of ClusterLink {name}"),
            Self::Pool(name) => write!(f, "addressing.podPools of ClusterLink {name}"),
            Self::MeshPool(name) => write!(f, "the mesh pool of ClusterLink {name}"),
            Self::DefaultMesh => write!(f, "the default mesh pool"),
            Self::Idle => write!(
                f,
                "serviceCidrs of a Cluster or prefixes of a VpnAttachment"
            ),
            Self::Address(name) => write!(f, "a node address of Cluster {name}"),
        }
    }
}

/// All ranges and their holders.
#[derive(Debug, Default)]
pub(super) struct Ranges<'a> {
    map: BTreeMap<Prefix, Vec<Holder<'a>>>,
    lengths: BTreeSet<(Family, u8)>,
}

impl<'a> Ranges<'a> {
    /// Records a holder.
    pub(super) fn insert(&mut self, prefix: Prefix, holder: Holder<'a>) {
        self.lengths.insert((prefix.family(), prefix.len()));
        let holders = self.map.entry(prefix).or_default();
        if !holders.contains(&holder) {
            holders.push(holder);
        }
    }

    /// Everything that shares an address with the prefix.
    pub(super) fn overlapping(
        &self,
        prefix: Prefix,
    ) -> impl Iterator<Item = (Prefix, Holder<'a>)> + '_ {
        self.above(prefix).chain(self.within(prefix))
    }

    /// Whether one entry of this holder contains the prefix.
    pub(super) fn holds(&self, holder: Holder<'a>, prefix: Prefix) -> bool {
        self.above(prefix)
            .chain(self.exactly(prefix))
            .any(|(_, other)| other == holder)
    }

    /// Entries that lie in the prefix, itself included, in order.
    pub(super) fn within(&self, prefix: Prefix) -> impl Iterator<Item = (Prefix, Holder<'a>)> + '_ {
        self.map
            .range(prefix..)
            .take_while(move |(other, _)| prefix.contains(**other))
            .flat_map(|(other, holders)| holders.iter().map(|holder| (*other, *holder)))
    }

    /// Entries of exactly this prefix.
    pub(super) fn exactly(
        &self,
        prefix: Prefix,
    ) -> impl Iterator<Item = (Prefix, Holder<'a>)> + '_ {
        self.map
            .get(&prefix)
            .into_iter()
            .flat_map(move |holders| holders.iter().map(move |holder| (prefix, *holder)))
    }

    /// Entries that contain the prefix and are larger.
    fn above(&self, prefix: Prefix) -> impl Iterator<Item = (Prefix, Holder<'a>)> + '_ {
        self.lengths
            .range((prefix.family(), 0)..(prefix.family(), prefix.len()))
            .flat_map(move |(_, len)| self.exactly(Prefix::containing(prefix.address(), *len)))
    }
}

/// What is needed to know about members to say whether two ranges may meet.
pub(super) trait Relations {
    /// Whether a cluster has (or may have) nodes in a site.
    fn is_own_site(&self, cluster: &ClusterName, site: &SiteName) -> bool;
    /// Whether a cluster is a member of a link.
    fn is_member(&self, cluster: &ClusterName, link: &LinkName) -> bool;
}

/// Whether a new range clashes with one that is held.
pub(super) fn clashes(new: Holder<'_>, held: Holder<'_>, relations: &impl Relations) -> bool {
    use Holder::{
        Address, DefaultMesh, Ground, Idle, Lan, Mesh, MeshPool, Pods, Pool, Reserved, Services,
        Vpn,
    };
    match (new, held) {
        (Pods(a), Pods(b)) | (Services(a), Services(b)) => a != b,
        (Lan(a), Lan(b)) => a != b,
        (Vpn(a), Vpn(b)) => a != b,
        (Pods(cluster), Lan(site) | Ground(site)) | (Lan(site) | Ground(site), Pods(cluster)) => {
            !relations.is_own_site(cluster, site)
        }
        (Pods(cluster), Pool(link)) => !relations.is_member(cluster, link),
        (Pods(_), Mesh(_) | Services(_) | Vpn(_) | Reserved(_) | MeshPool(_) | DefaultMesh) => true,
        (Services(_) | Lan(_) | Vpn(_), Pods(_) | Mesh(_) | Services(_) | Lan(_) | Vpn(_)) => true,
        (Ground(_), Mesh(_)) => true,
        (Ground(_), _)
        | (
            Services(_) | Lan(_) | Vpn(_),
            Ground(_) | Reserved(_) | Pool(_) | MeshPool(_) | DefaultMesh,
        )
        | (_, Address(_) | Idle) => false,
        // Blocks that the planner cuts itself avoid everything; see `Hub::grab`.
        (Mesh(_) | Reserved(_) | Pool(_) | MeshPool(_) | Address(_) | Idle | DefaultMesh, _) => {
            true
        }
    }
}

/// Prefixes that do not overlap each other, each with a value.
#[derive(Debug, Default)]
pub(super) struct Disjoint<T>(BTreeMap<Prefix, T>);

impl<T> Disjoint<T> {
    /// An empty map.
    pub(super) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds an entry; the caller has made sure that nothing overlaps it.
    pub(super) fn insert(&mut self, prefix: Prefix, value: T) {
        self.0.insert(prefix, value);
    }

    /// Takes the entry of exactly this prefix out.
    pub(super) fn remove(&mut self, prefix: Prefix) -> Option<T> {
        self.0.remove(&prefix)
    }

    /// The value of exactly this prefix.
    pub(super) fn get(&self, prefix: Prefix) -> Option<&T> {
        self.0.get(&prefix)
    }

    /// The entry that contains the prefix.
    pub(super) fn containing(&self, prefix: Prefix) -> Option<(Prefix, &T)> {
        let (entry, value) = self.0.range(..=prefix).next_back()?;
        entry.contains(prefix).then_some((*entry, value))
    }

    /// An entry that shares an address with the prefix.
    pub(super) fn overlapping(&self, prefix: Prefix) -> Option<(Prefix, &T)> {
        self.containing(prefix).or_else(|| {
            let (entry, value) = self.0.range(prefix..).next()?;
            prefix.contains(*entry).then_some((*entry, value))
        })
    }

    /// All entries in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Prefix, &T)> + '_ {
        self.0.iter().map(|(prefix, value)| (*prefix, value))
    }

    /// The entries inside a prefix, in order.
    pub(super) fn within(&self, prefix: Prefix) -> impl Iterator<Item = (Prefix, &T)> + '_ {
        self.0
            .range(prefix..)
            .take_while(move |(entry, _)| prefix.contains(**entry))
            .map(|(entry, value)| (*entry, value))
    }
}
