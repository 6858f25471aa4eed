//! What the planner reads, from what the index holds. Pure.
//!
//! An object that cannot be read never stops others. One that *became* unreadable keeps its last readable form while this
//! process knows it. One that was never readable here is left out, and a link that would lose an applied
//! member by that is set aside: nothing of it is planned anew, and nothing of it is withdrawn.
//!
//! The operator's own records are different: with a ledger or plan that cannot be read, nothing is decided at all.

use crate::index::Index;
use crate::write::MANAGER;
use k8s_openapi::api::core::v1::Node;
use std::collections::{BTreeMap, BTreeSet};
use tieline_core::cidr::Prefix;
use tieline_core::fleet::{self, Fleet};
use tieline_core::ids::{ClusterName, Lineage, LinkName, NodeId, PeerName, SiteName, VpnName};
use tieline_core::ledger::LedgerName;
use tieline_core::network_plan::NetworkPlan;
use tieline_core::notice::{About, Kind, Notice, Reason};
use tieline_core::peer::{AcceptedPeers, Claim};
use tieline_core::plan::{Before, listed};
use tieline_core::slices::Stored;
use tieline_crds::convert::{self, Invalid, LedgerReader, LostSlices, StoredLedgers};

/// How far above the plans' revisions a claimed one may be, and still be believed to come from before a restore.
const MOST_AHEAD: u64 = 1 << 20;

/// What is to be decided on.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// The local cluster, the only one whose Nodes are known.
    pub local: ClusterName,
    /// What users want and what nodes exist.
    pub fleet: Fleet,
    /// What was decided before.
    pub before: Before,
    /// The Peers as they stand.
    pub peers: AcceptedPeers,
    /// What agents claim.
    pub claims: BTreeMap<PeerName, Claim>,
    /// Claims that cannot be read.
    pub bad_claims: BTreeMap<PeerName, Invalid>,
    /// Users' objects and Nodes that cannot be read.
    pub invalid: Vec<Invalid>,
    /// Links that are left as they are applied, and why.
    pub aside: BTreeMap<LinkName, String>,
    /// Plans that are older than what agents carry, and why: they stay as they are until a restore is accepted.
    pub behind: BTreeMap<LinkName, String>,
    /// How the ledgers are stored.
    pub stored: BTreeMap<LedgerName, Stored>,
    /// Ledgers of which a part is gone: nothing may be decided.
    pub lost: Vec<LostSlices>,
    /// Own records that cannot be read: nothing may be decided.
    pub broken: Vec<Invalid>,
    /// What the shell itself refuses, in the planner's form.
    pub notices: Vec<Notice>,
    /// The highest revision of the hub's ledger and of all plans.
    pub highest: u64,
}

/// The last readable form of users' objects.
#[derive(Debug, Clone, Default)]
pub struct LastReadable {
    links: BTreeMap<LinkName, fleet::Link>,
    clusters: BTreeMap<ClusterName, fleet::Cluster>,
    sites: BTreeMap<SiteName, fleet::Site>,
    vpns: BTreeMap<VpnName, fleet::Vpn>,
    nodes: BTreeMap<NodeId, fleet::Node>,
    services: BTreeMap<String, Vec<Prefix>>,
    ledgers: LedgerReader,
}

impl LastReadable {
    /// Remembers a Node as it is, or that it is gone.
    pub(crate) fn note_node(&mut self, id: &NodeId, node: Option<&fleet::Node>) {
        match node {
            Some(node) => drop(self.nodes.insert(id.clone(), node.clone())),
            None => drop(self.nodes.remove(id)),
        }
    }
}

/// Reads the index. `cluster` is the local one, whose Nodes and ServiceCIDRs are in the index; `fresh` is the lineage of a history that
/// begins now.
#[must_use]
pub fn read(
    index: &Index,
    last_readable: &mut LastReadable,
    cluster: &ClusterName,
    fresh: &Lineage,
) -> World {
    let mut invalid = Vec::new();
    let links = readable(
        index.links.iter().map(|(_, it)| convert::link(it)),
        &mut last_readable.links,
        &mut invalid,
    );
    let clusters = readable(
        index.clusters.iter().map(|(_, it)| convert::cluster(it)),
        &mut last_readable.clusters,
        &mut invalid,
    );
    let sites = readable(
        index.sites.iter().map(|(_, it)| convert::site(it)),
        &mut last_readable.sites,
        &mut invalid,
    );
    let vpns = readable(
        index.vpns.iter().map(|(_, it)| convert::vpn(it)),
        &mut last_readable.vpns,
        &mut invalid,
    );
    let nodes = readable(
        index.nodes.iter().map(|(_, it)| convert::node(cluster, it)),
        &mut last_readable.nodes,
        &mut invalid,
    );
    let services = readable(
        index
            .services
            .iter()
            .map(|(_, it)| convert::service_cidr(it)),
        &mut last_readable.services,
        &mut invalid,
    );
    let in_use = services.into_values().flatten().collect();
    let mut fleet = Fleet {
        links,
        clusters,
        sites,
        vpns,
        nodes,
        services_in_use: BTreeMap::from([(cluster.clone(), in_use)]),
    };

    let mut broken = Vec::new();
    let objects = index.ledgers.iter().map(|(name, it)| (name, it.as_ref()));
    let StoredLedgers {
        ledgers,
        stored,
        lost,
        broken: unreadable,
    } = last_readable.ledgers.read(&objects.collect());
    broken.extend(unreadable);
    let plans: BTreeMap<LinkName, NetworkPlan> = collect(
        index
            .plans
            .iter()
            .map(|(_, it)| convert::network_plan(it).map(|plan| (plan.link.clone(), plan))),
        &mut broken,
    );
    let mut bad_peers = Vec::new();
    let peers = collect(
        index.peers.iter().map(|(_, it)| convert::accepted_peer(it)),
        &mut bad_peers,
    );
    let mut claims = BTreeMap::new();
    let mut bad_claims = BTreeMap::new();
    for (name, peer) in index.peers.iter() {
        match (convert::claim(peer), PeerName::new(name)) {
            (Ok((name, claim)), _) => drop(claims.insert(name, claim)),
            (Err(error), Ok(name)) => drop(bad_claims.insert(name, error)),
            (Err(_), Err(_)) => {}
        }
    }
    let hub = ledgers.get(&LedgerName::Hub).map(|hub| hub.revision);
    let highest = plans.values().map(|plan| plan.revision).chain(hub).max();
    let highest = highest.unwrap_or(0);
    for (name, claim) in claims.extract_if(.., |_, claim| !is_believed(claim, highest)) {
        let error = disbelief(&name, &claim, highest);
        bad_claims.insert(name, error);
    }
    let lineage = ledgers
        .get(&LedgerName::Hub)
        .or_else(|| ledgers.values().next())
        .map(|ledger| &ledger.lineage)
        .or_else(|| plans.values().next().map(|plan| &plan.lineage))
        .unwrap_or(fresh)
        .clone();

    let aside = set_aside(&mut fleet, &plans, &invalid);
    let notices = refuse_assignment(&mut fleet, cluster, index);
    invalid.append(&mut bad_peers);
    World {
        local: cluster.clone(),
        fleet,
        before: Before {
            lineage,
            ledgers,
            plans,
        },
        peers,
        claims,
        bad_claims,
        invalid,
        aside,
        behind: BTreeMap::new(),
        stored,
        lost,
        broken,
        notices,
        highest,
    }
}

/// Whether somebody can have given out the revision that is claimed.
pub(crate) fn is_believed(claim: &Claim, highest: u64) -> bool {
    claim.applied_revision <= highest.saturating_add(MOST_AHEAD)
}

/// What is wrong with a claim of a revision that nobody can have given out.
pub(crate) fn disbelief(name: &PeerName, claim: &Claim, highest: u64) -> Invalid {
    Invalid {
        kind: Kind::Peer,
        name: name.to_string(),
        field: "status.appliedRevision".to_owned(),
        message: format!(
            "{} is claimed, but the highest revision here is {highest}, and none more than {MOST_AHEAD} above it is believed",
            claim.applied_revision
        ),
    }
}

/// Readable forms of all objects that exist, from now or from before.
fn readable<N: Remembered + Ord + Clone, V: Clone>(
    objects: impl Iterator<Item = Result<(N, V), Invalid>>,
    last_readable: &mut BTreeMap<N, V>,
    invalid: &mut Vec<Invalid>,
) -> BTreeMap<N, V> {
    let mut found = BTreeMap::new();
    for object in objects {
        match object {
            Ok((name, value)) => drop(found.insert(name, value)),
            Err(error) => {
                let before = last_readable
                    .iter()
                    .find(|(name, _)| name.is_called(&error.name));
                if let Some((name, value)) = before {
                    found.insert(name.clone(), value.clone());
                }
                invalid.push(error);
            }
        }
    }
    last_readable.clone_from(&found);
    found
}

/// A name under which an object is remembered.
trait Remembered {
    fn is_called(&self, object: &str) -> bool;
}

macro_rules! remembered {
    ($($name:ty),*) => {$(
        impl Remembered for $name {
            fn is_called(&self, object: &str) -> bool {
                self.as_str() == object
            }
        }
    )*};
}

remembered!(LinkName, ClusterName, SiteName, VpnName, String);

impl Remembered for NodeId {
    fn is_called(&self, object: &str) -> bool {
        self.node.as_str() == object
    }
}

fn collect<N: Ord, V>(
    objects: impl Iterator<Item = Result<(N, V), Invalid>>,
    invalid: &mut Vec<Invalid>,
) -> BTreeMap<N, V> {
    let mut found = BTreeMap::new();
    for object in objects {
        match object {
            Ok((name, value)) => drop(found.insert(name, value)),
            Err(error) => invalid.push(error),
        }
    }
    found
}

/// Takes links out of the fleet that would lose something applied because an object cannot be read.
fn set_aside(
    fleet: &mut Fleet,
    plans: &BTreeMap<LinkName, NetworkPlan>,
    invalid: &[Invalid],
) -> BTreeMap<LinkName, String> {
    let mut aside = BTreeMap::new();
    for (link, plan) in plans {
        let lost =
            invalid.iter().find(|error| match error.kind {
                Kind::ClusterLink => error.name == link.as_str() && !fleet.links.contains_key(link),
                Kind::Cluster => plan.clusters.iter().any(|it| {
                    it.name.as_str() == error.name && !fleet.clusters.contains_key(&it.name)
                }),
                Kind::Site => plan.sites.iter().any(|it| {
                    it.name.as_str() == error.name && !fleet.sites.contains_key(&it.name)
                }),
                Kind::VpnAttachment => plan
                    .vpns
                    .iter()
                    .any(|it| it.name.as_str() == error.name && !fleet.vpns.contains_key(&it.name)),
                _ => false,
            });
        if let Some(error) = lost {
            fleet.links.remove(link);
            aside.insert(
                link.clone(),
                format!("left as it is applied, because {error}"),
            );
        }
    }
    aside
}

/// `pods.assign` is refused while somebody else owns any podCIDR: two givers end in two nodes with one range, and
/// kube-controller-manager ends at start when a node's podCIDR lies outside its own range.
fn refuse_assignment(fleet: &mut Fleet, cluster: &ClusterName, index: &Index) -> Vec<Notice> {
    let Some(local) = fleet.clusters.get_mut(cluster).filter(|local| local.assign) else {
        return Vec::new();
    };
    let mut owners: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, node) in index.nodes.iter() {
        for manager in pod_cidr_managers(node).filter(|manager| *manager != MANAGER) {
            owners.entry(manager).or_default().insert(name);
        }
    }
    if owners.is_empty() {
        return Vec::new();
    }
    local.assign = false;
    let who = owners
        .iter()
        .map(|(manager, nodes)| format!("{manager} owns the podCIDR of {}", listed(nodes)))
        .collect::<Vec<_>>()
        .join("; ");
    vec![Notice {
        about: About::Cluster(cluster.clone()),
        link: fleet
            .links
            .iter()
            .find(|(_, link)| link.clusters.contains(cluster))
            .map(|(name, _)| name.clone()),
        reason: Reason::OtherPodCidrManager,
        message: format!(
            "spec.pods.assign is true, but {who}. Set spec.pods.assign to false, so that those ranges are imported, or start \
             kube-controller-manager with --allocate-node-cidrs=false and create the nodes anew"
        ),
    }]
}

/// Who owns podCIDRs of a Node, by the names of field managers.
pub(crate) fn pod_cidr_managers(node: &Node) -> impl Iterator<Item = &str> {
    // The index keeps only the entries that own podCIDRs.
    node.metadata
        .managed_fields
        .iter()
        .flatten()
        .filter_map(|entry| entry.manager.as_deref())
}
