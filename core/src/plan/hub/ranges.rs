//! Which range is whose, over all kinds of ranges, and which of them may not meet.
//!
//! Overlap means that two *different owners* hold addresses in common. Prefixes overlap only by nesting, so the overlaps
//! of a prefix are its ancestors (one look-up for each length that occurs) and its descendants (one range of the map).

use crate::cidr::{Family, Prefix};
use crate::ids::{ClusterName, LinkName, SiteName, VpnName};
use crate::ledger::Use;
use std::collections::btree_map::Entry;
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
    map: BTreeMap<Prefix, Holders<'a>>,
    lengths: BTreeSet<(Family, u8)>,
}

/// Who holds one range: one, as a rule.
#[derive(Debug)]
enum Holders<'a> {
    One(Holder<'a>),
    Several(Vec<Holder<'a>>),
}

impl<'a> Holders<'a> {
    fn all(&self) -> &[Holder<'a>] {
        match self {
            Self::One(holder) => std::slice::from_ref(holder),
            Self::Several(holders) => holders,
        }
    }

    fn add(&mut self, holder: Holder<'a>) {
        if self.all().contains(&holder) {
            return;
        }
        match self {
            Self::One(first) => *self = Self::Several(vec![*first, holder]),
            Self::Several(holders) => holders.push(holder),
        }
    }
}

impl<'a> Ranges<'a> {
    /// Records a holder.
    pub(super) fn insert(&mut self, prefix: Prefix, holder: Holder<'a>) {
        self.lengths.insert((prefix.family(), prefix.len()));
        match self.map.entry(prefix) {
            Entry::Vacant(free) => drop(free.insert(Holders::One(holder))),
            Entry::Occupied(mut held) => held.get_mut().add(holder),
        }
    }

    /// All entries in order.
    pub(super) fn everything(&self) -> impl Iterator<Item = (Prefix, Holder<'a>)> + '_ {
        let all = self.map.iter();
        all.flat_map(|(prefix, holders)| holders.all().iter().map(|holder| (*prefix, *holder)))
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
            .flat_map(|(other, holders)| holders.all().iter().map(|holder| (*other, *holder)))
    }

    /// Entries of exactly this prefix.
    pub(super) fn exactly(
        &self,
        prefix: Prefix,
    ) -> impl Iterator<Item = (Prefix, Holder<'a>)> + '_ {
        self.map
            .get(&prefix)
            .into_iter()
            .flat_map(move |holders| holders.all().iter().map(move |holder| (prefix, *holder)))
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
        // Blocks that the planner cuts itself avoid everything; see `HubBook::grab`.
        (Mesh(_) | Reserved(_) | Pool(_) | MeshPool(_) | Address(_) | Idle | DefaultMesh, _) => {
            true
        }
    }
}

/// Whether a held range keeps a pool from giving out its addresses.
pub(super) fn occupies(held: Holder<'_>, used_for: Use, link: &LinkName) -> bool {
    match held {
        Holder::Pool(_) => false,
        Holder::DefaultMesh => used_for == Use::Pod,
        // A link without a pool of its own shares the default one, but not what others name of it.
        Holder::MeshPool(owner) => used_for == Use::Pod || owner != link,
        _ => true,
    }
}
