//! Fleets to plan: many clusters of a few nodes, and one cluster of many.

use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use tieline_core::cidr::PrefixSet;
use tieline_core::fleet::{
    Addressing, Cluster, Fleet, Link, Mode, Node, PerFamily, SiteSource, Topology,
};
use tieline_core::ids::{ClusterName, Lineage, LinkName, NodeId, NodeName, SiteName};
use tieline_core::plan::{Before, Proposal};

/// Clusters of the large fleet.
pub const CLUSTERS: u32 = 10_000;
/// Nodes in each of them.
pub const NODES: u32 = 10;

/// Clusters of `nodes` nodes each, in one site each, with a /27 for a node: 100,000 /24 do not fit into private IPv4. A cluster's block
/// is a /`block`.
///
/// # Errors
/// A name or prefix is not valid.
pub fn fleet(clusters: u32, nodes: u32, block: u8) -> Result<Fleet> {
    let mut fleet = Fleet::default();
    let mut members = BTreeSet::new();
    for number in 0..clusters {
        let name = cluster(number)?;
        members.insert(name.clone());
        for node in 0..nodes {
            join(&mut fleet, &name, node)?;
        }
        let cluster = Cluster {
            sites: SiteSource::Name(SiteName::new(format!("s{:03}", number % 200))?),
            pod_cidrs: PrefixSet::new(),
            assign: true,
            service_cidrs: PrefixSet::new(),
            gateway_selector: BTreeMap::new(),
        };
        fleet.clusters.insert(name, cluster);
    }
    let link = Link {
        clusters: members,
        sites: BTreeSet::new(),
        vpns: BTreeSet::new(),
        addressing: Addressing {
            pod_pools: vec!["10.0.0.0/8".parse()?],
            cluster_prefix_len: PerFamily { v4: block, v6: 56 },
            node_prefix_len: PerFamily { v4: 27, v6: 64 },
            mesh_pools: vec!["100.64.0.0/10".parse()?],
            ..Addressing::default()
        },
        topology: Topology::default(),
        mode: Mode::Apply,
    };
    fleet.links.insert(LinkName::new("all")?, link);
    Ok(fleet)
}

/// Name of a cluster.
///
/// # Errors
/// Never for a `u32`.
pub fn cluster(number: u32) -> Result<ClusterName> {
    Ok(ClusterName::new(format!("c{number:05}"))?)
}

/// One more node that is Ready.
///
/// # Errors
/// Never for a `u32`.
pub fn join(fleet: &mut Fleet, cluster: &ClusterName, number: u32) -> Result<NodeId> {
    let id = NodeId {
        cluster: cluster.clone(),
        node: NodeName::new(format!("n{number:06}"))?,
    };
    let node = Node {
        ready: true,
        ..Node::default()
    };
    fleet.nodes.insert(id.clone(), node);
    Ok(id)
}

/// The beginning of a history.
///
/// # Errors
/// Never.
pub fn nothing() -> Result<Before> {
    Ok(Before {
        lineage: Lineage::new("bench000")?,
        ledgers: BTreeMap::new(),
        plans: BTreeMap::new(),
    })
}

/// Who got what, in one line that is the same for the same addresses.
#[must_use]
pub fn outcome(proposal: &Proposal) -> String {
    let mut hasher = DefaultHasher::new();
    for (id, node) in &proposal.nodes {
        let ranges: Vec<String> = node.pod_cidrs.iter().map(ToString::to_string).collect();
        (id.to_string(), ranges, &node.mesh_addresses).hash(&mut hasher);
    }
    format!(
        "{} nodes, {} refusals, {:016x}",
        proposal.nodes.len(),
        proposal.report.refusals.len(),
        hasher.finish()
    )
}
