//! How long a plan takes, against the bar of the design: 10,000 clusters and 100,000 nodes with the checker in 50 ms.
//!
//! Prints medians of several runs and the ratio to the bar, of the same run on the same machine. `cargo bench -p tieline-core`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tieline_core::check::check;
use tieline_core::cidr::PrefixSet;
use tieline_core::fleet::{
    Addressing, Cluster, Fleet, Link, Mode, Node, PerFamily, SiteSource, Topology,
};
use tieline_core::ids::{ClusterName, Lineage, LinkName, NodeId, NodeName, SiteName};
use tieline_core::plan::{Before, plan};

const RUNS: usize = 7;
const BAR: Duration = Duration::from_millis(50);

/// Clusters of `nodes` nodes each, in one site each, with /27 for a node: 100,000 /24 do not fit into private IPv4.
fn fleet(clusters: u32, nodes: u32) -> Fleet {
    let mut fleet = Fleet::default();
    let mut members = BTreeSet::new();
    for c in 0..clusters {
        let name = ClusterName::new(format!("c{c:05}")).unwrap();
        members.insert(name.clone());
        for n in 0..nodes {
            let id = NodeId {
                cluster: name.clone(),
                node: NodeName::new(format!("n{n:03}")).unwrap(),
            };
            fleet.nodes.insert(
                id,
                Node {
                    ready: true,
                    ..Node::default()
                },
            );
        }
        fleet.clusters.insert(
            name,
            Cluster {
                sites: SiteSource::Name(SiteName::new(format!("s{:03}", c % 200)).unwrap()),
                pod_cidrs: PrefixSet::new(),
                assign: true,
                service_cidrs: PrefixSet::new(),
                gateway_selector: BTreeMap::new(),
            },
        );
    }
    let link = Link {
        clusters: members,
        sites: BTreeSet::new(),
        vpns: BTreeSet::new(),
        addressing: Addressing {
            pod_pools: vec!["10.0.0.0/8".parse().unwrap()],
            cluster_prefix_len: PerFamily { v4: 22, v6: 56 },
            node_prefix_len: PerFamily { v4: 27, v6: 64 },
            mesh_pools: vec!["100.64.0.0/10".parse().unwrap()],
            ..Addressing::default()
        },
        topology: Topology::default(),
        mode: Mode::Apply,
    };
    fleet.links.insert(LinkName::new("all").unwrap(), link);
    fleet
}

fn median(mut measure: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS).map(|_| measure()).collect();
    times.sort_unstable();
    times[RUNS / 2]
}

fn row(what: &str, time: Duration) {
    let ratio = time.as_secs_f64() / BAR.as_secs_f64();
    println!(
        "{what:<58} {:>9.2} ms   {ratio:>6.2} x the bar of {} ms",
        time.as_secs_f64() * 1e3,
        BAR.as_millis()
    );
}

fn main() {
    let nothing = Before {
        lineage: Lineage::new("bench000").unwrap(),
        ledgers: BTreeMap::new(),
        plans: BTreeMap::new(),
    };
    for (clusters, nodes) in [(100, 10), (1_000, 10), (10_000, 10)] {
        let fleet = fleet(clusters, nodes);
        let first = plan(&fleet, &nothing);
        assert!(
            first.report.refusals.is_empty(),
            "{}",
            first.report.refusals[0]
        );
        let label = |what| format!("{what}, {clusters} clusters, {} nodes", clusters * nodes);
        row(
            &label("plan from nothing"),
            median(|| {
                let start = Instant::now();
                std::hint::black_box(plan(&fleet, &nothing));
                start.elapsed()
            }),
        );
        let before = Before {
            lineage: nothing.lineage.clone(),
            ledgers: first.ledgers.clone(),
            plans: first.plans.clone(),
        };
        row(
            &label("plan again"),
            median(|| {
                let start = Instant::now();
                std::hint::black_box(plan(&fleet, &before));
                start.elapsed()
            }),
        );
        row(
            &label("check"),
            median(|| {
                let start = Instant::now();
                assert!(std::hint::black_box(check(&fleet, &nothing, &first)).is_empty());
                start.elapsed()
            }),
        );
    }
}
