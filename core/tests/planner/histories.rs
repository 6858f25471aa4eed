//! Invariants of the design over random histories: whatever users and clusters do, in whatever order.

use crate::support::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tieline_core::check;
use tieline_core::cidr::{Family, Prefix};
use tieline_core::fleet::{Fleet, Granularity, Mode, PerFamily, SiteRule, SiteSource};
use tieline_core::ids::NodeId;
use tieline_core::ledger::{Ledger, LedgerName, Owner, State, Use};
use tieline_core::notice::About;
use tieline_core::peer::Scope;
use tieline_core::plan::{NodePlan, Planner, Proposal, Touched, plan};

const LINKS: [&str; 2] = ["acme", "beta"];
const CLUSTERS: [&str; 4] = ["a", "b", "c", "d"];
const SITES: [&str; 4] = ["berlin", "oslo", "rome", "wien"];
const LABELS: [&str; 6] = ["berlin", "oslo", "rome", "wien", "No_Site", ""];
const NODES: [&str; 6] = ["n0", "n1", "n2", "n3", "n4", "n5"];
const VPNS: [&str; 3] = ["hq", "lab", "people"];
const POOLS: [&[&str]; 7] = [
    &[],
    &["10.64.0.0/12"],
    &["10.64.0.0/12", "fd64::/40"],
    &["10.80.0.0/15", "10.96.0.0/15"],
    &["fd80::/48"],
    &["10.0.0.0/8"],
    &["10.70.0.0/15", "100.64.0.0/10"],
];
const MESH_POOLS: [&[&str]; 4] = [
    &[],
    &["10.65.0.0/20"],
    &["198.18.0.0/26", "fd99::/100"],
    &["100.127.0.0/17"],
];
const RANGES: [&[&str]; 10] = [
    &[],
    &["10.64.0.0/16"],
    &["10.65.0.0/16", "fd64:0:0:100::/56"],
    &["10.1.0.0/16"],
    &["10.1.128.0/17"],
    &["10.20.0.0/14"],
    &["192.168.40.0/22"],
    &["172.16.0.0/12", "10.80.0.0/16"],
    &["10.96.0.0/12"],
    &["10.0.0.0/8"],
];
const POD_CIDRS: [&[&str]; 9] = [
    &[],
    &[],
    &["10.1.0.0/24"],
    &["10.1.1.0/24", "fd01::/64"],
    &["10.64.3.0/24"],
    &["10.65.16.0/24"],
    &["10.20.7.0/24"],
    &["10.1.0.0/20"],
    &["192.168.41.0/24"],
];

/// One thing that happens. Numbers choose among the constants above.
#[derive(Debug, Clone)]
pub enum Event {
    Join {
        cluster: usize,
        node: usize,
        label: usize,
        pod_cidrs: usize,
    },
    Leave {
        cluster: usize,
        node: usize,
    },
    Label {
        cluster: usize,
        node: usize,
        label: usize,
    },
    Address {
        cluster: usize,
        node: usize,
        last: u8,
        public: bool,
        ready: bool,
    },
    /// The operator writes the podCIDRs that were assigned.
    Written,
    Member {
        link: usize,
        cluster: usize,
        is: bool,
    },
    Cluster {
        cluster: usize,
        ranges: usize,
        services: usize,
        assign: bool,
    },
    Sites {
        cluster: usize,
        how: usize,
    },
    Selector {
        cluster: usize,
        site: Option<usize>,
    },
    NoCluster {
        cluster: usize,
    },
    Site {
        site: usize,
        ranges: usize,
        is: bool,
    },
    Lan {
        link: usize,
        site: usize,
        is: bool,
    },
    Vpn {
        link: usize,
        vpn: usize,
        site: usize,
        ranges: usize,
    },
    NoVpn {
        vpn: usize,
    },
    Pools {
        link: usize,
        pods: usize,
        mesh: usize,
        reserved: usize,
    },
    Lengths {
        link: usize,
        small: bool,
    },
    Topology {
        link: usize,
        gateways: u8,
        nodes: bool,
        transit: Option<usize>,
    },
    Mode {
        link: usize,
        shown: bool,
    },
    NoLink {
        link: usize,
    },
}

pub fn event() -> impl Strategy<Value = Event> {
    let (l, c, n, s, v, r) = (
        0..LINKS.len(),
        0..CLUSTERS.len(),
        0..NODES.len(),
        0..SITES.len(),
        0..VPNS.len(),
        0..RANGES.len(),
    );
    let label = 0..LABELS.len();
    prop_oneof![
        8 => (c.clone(), n.clone(), label.clone(), 0..POD_CIDRS.len())
            .prop_map(|(cluster, node, label, pod_cidrs)| Event::Join { cluster, node, label, pod_cidrs }),
        3 => (c.clone(), n.clone()).prop_map(|(cluster, node)| Event::Leave { cluster, node }),
        2 => (c.clone(), n.clone(), label).prop_map(|(cluster, node, label)| Event::Label { cluster, node, label }),
        2 => (c.clone(), n, any::<u8>(), any::<bool>(), any::<bool>())
            .prop_map(|(cluster, node, last, public, ready)| Event::Address { cluster, node, last, public, ready }),
        4 => Just(Event::Written),
        3 => (l.clone(), c.clone(), prop::bool::weighted(0.8)).prop_map(|(link, cluster, is)| Event::Member { link, cluster, is }),
        3 => (c.clone(), r.clone(), r.clone(), prop::bool::weighted(0.7))
            .prop_map(|(cluster, ranges, services, assign)| Event::Cluster { cluster, ranges, services, assign }),
        1 => (c.clone(), 0..4usize).prop_map(|(cluster, how)| Event::Sites { cluster, how }),
        1 => (c.clone(), prop::option::of(s.clone())).prop_map(|(cluster, site)| Event::Selector { cluster, site }),
        1 => c.prop_map(|cluster| Event::NoCluster { cluster }),
        2 => (s.clone(), r.clone(), prop::bool::weighted(0.8)).prop_map(|(site, ranges, is)| Event::Site { site, ranges, is }),
        2 => (l.clone(), s.clone(), prop::bool::weighted(0.8)).prop_map(|(link, site, is)| Event::Lan { link, site, is }),
        2 => (l.clone(), v.clone(), s.clone(), r.clone()).prop_map(|(link, vpn, site, ranges)| Event::Vpn { link, vpn, site, ranges }),
        1 => v.prop_map(|vpn| Event::NoVpn { vpn }),
        2 => (l.clone(), 0..POOLS.len(), 0..MESH_POOLS.len(), r)
            .prop_map(|(link, pods, mesh, reserved)| Event::Pools { link, pods, mesh, reserved }),
        1 => (l.clone(), any::<bool>()).prop_map(|(link, small)| Event::Lengths { link, small }),
        1 => (l.clone(), 1..4u8, prop::bool::weighted(0.2), prop::option::of(s))
            .prop_map(|(link, gateways, nodes, transit)| Event::Topology { link, gateways, nodes, transit }),
        1 => (l.clone(), prop::bool::weighted(0.4)).prop_map(|(link, shown)| Event::Mode { link, shown }),
        1 => l.prop_map(|link| Event::NoLink { link }),
    ]
}

/// Something that happens to a node.
fn node_event() -> impl Strategy<Value = Event> {
    let (c, n) = (0..CLUSTERS.len(), 0..NODES.len());
    prop_oneof![
        4 => (c.clone(), n.clone(), 0..LABELS.len(), 0..POD_CIDRS.len())
            .prop_map(|(cluster, node, label, pod_cidrs)| Event::Join { cluster, node, label, pod_cidrs }),
        3 => (c.clone(), n.clone()).prop_map(|(cluster, node)| Event::Leave { cluster, node }),
        2 => (c.clone(), n.clone(), 0..LABELS.len())
            .prop_map(|(cluster, node, label)| Event::Label { cluster, node, label }),
        2 => (c, n, any::<u8>(), any::<bool>(), any::<bool>())
            .prop_map(|(cluster, node, last, public, ready)| Event::Address { cluster, node, last, public, ready }),
        4 => Just(Event::Written),
    ]
}

/// One of a cluster in which hardly anybody is in trouble.
fn calm_event() -> impl Strategy<Value = Event> {
    let (c, n) = (0..2_usize, 0..NODES.len());
    let strange = prop_oneof![15 => Just(0), 1 => 0..POD_CIDRS.len()];
    prop_oneof![
        10 => (c.clone(), n.clone(), 0..2_usize, strange)
            .prop_map(|(cluster, node, label, pod_cidrs)| Event::Join { cluster, node, label, pod_cidrs }),
        2 => (c.clone(), n.clone()).prop_map(|(cluster, node)| Event::Leave { cluster, node }),
        1 => (c.clone(), n.clone(), 0..2_usize)
            .prop_map(|(cluster, node, label)| Event::Label { cluster, node, label }),
        4 => (c, n, any::<u8>(), any::<bool>(), any::<bool>())
            .prop_map(|(cluster, node, last, public, ready)| Event::Address { cluster, node, last, public, ready }),
        4 => Just(Event::Written),
    ]
}

/// Where most histories begin, so that they do not spend their events on making clusters.
pub fn beginning() -> World {
    let mut world = World::new();
    world.link("acme", POOLS[1]);
    world.cluster("acme", "a", true);
    world.cluster("acme", "b", true);
    world
}

pub fn apply(world: &mut World, event: &Event, last: &Proposal) {
    match event {
        Event::Join {
            cluster,
            node,
            label,
            pod_cidrs,
        } => {
            let (cluster, node) = (CLUSTERS[*cluster], NODES[*node]);
            world.node(cluster, node, LABELS[*label], POD_CIDRS[*pod_cidrs]);
        }
        Event::Leave { cluster, node } => {
            world
                .fleet
                .nodes
                .remove(&node_id(CLUSTERS[*cluster], NODES[*node]));
        }
        Event::Label {
            cluster,
            node,
            label,
        } => {
            if let Some(node) = world
                .fleet
                .nodes
                .get_mut(&node_id(CLUSTERS[*cluster], NODES[*node]))
            {
                node.labels
                    .insert(SITE_LABEL.to_owned(), LABELS[*label].to_owned());
            }
        }
        Event::Address {
            cluster,
            node,
            last,
            public,
            ready,
        } => {
            if let Some(node) = world
                .fleet
                .nodes
                .get_mut(&node_id(CLUSTERS[*cluster], NODES[*node]))
            {
                let scope = if *public { Scope::Public } else { Scope::Site };
                node.addresses = vec![(
                    std::net::IpAddr::from([10, 64 + (last >> 4), *last, 7]),
                    scope,
                )];
                node.ready = *ready;
            }
        }
        Event::Written => {
            for (id, planned) in &last.nodes {
                if let Some(node) = world.fleet.nodes.get_mut(id)
                    && planned.assign
                    && node.pod_cidrs.is_empty()
                {
                    node.pod_cidrs.clone_from(&planned.pod_cidrs);
                }
            }
        }
        Event::Member { link, cluster, is } => {
            let members = &mut world.link(LINKS[*link], POOLS[1]).clusters;
            if *is {
                members.insert(cluster_name(CLUSTERS[*cluster]));
            } else {
                members.remove(&cluster_name(CLUSTERS[*cluster]));
            }
        }
        Event::Cluster {
            cluster,
            ranges,
            services,
            assign,
        } => {
            let name = CLUSTERS[*cluster];
            let known = world
                .fleet
                .links
                .values()
                .any(|link| link.clusters.contains(&cluster_name(name)));
            let link = if known { "" } else { LINKS[0] };
            if !link.is_empty() {
                world.cluster(link, name, *assign);
            }
            let own = world
                .fleet
                .clusters
                .entry(cluster_name(name))
                .or_insert_with(|| new_cluster(*assign));
            own.pod_cidrs = if *ranges < 6 {
                prefixes(RANGES[*ranges]).into()
            } else {
                Default::default()
            };
            own.service_cidrs = if *services > 4 {
                prefixes(RANGES[*services]).into()
            } else {
                Default::default()
            };
            own.assign = *assign;
        }
        Event::Sites { cluster, how } => {
            if let Some(own) = world
                .fleet
                .clusters
                .get_mut(&cluster_name(CLUSTERS[*cluster]))
            {
                own.sites = match how {
                    0 => SiteSource::Name(site_name("berlin")),
                    1 => SiteSource::BySelector(vec![SiteRule {
                        site: site_name("oslo"),
                        selector: BTreeMap::from([(SITE_LABEL.to_owned(), "rome".to_owned())]),
                    }]),
                    _ => SiteSource::FromNodeLabel(SITE_LABEL.to_owned()),
                };
            }
        }
        Event::Selector { cluster, site } => {
            if let Some(own) = world
                .fleet
                .clusters
                .get_mut(&cluster_name(CLUSTERS[*cluster]))
            {
                own.gateway_selector = site
                    .iter()
                    .map(|site| (SITE_LABEL.to_owned(), SITES[*site].to_owned()))
                    .collect();
            }
        }
        Event::NoCluster { cluster } => {
            world
                .fleet
                .clusters
                .remove(&cluster_name(CLUSTERS[*cluster]));
        }
        Event::Site { site, ranges, is } => {
            if *is {
                world.site(SITES[*site], RANGES[*ranges]);
            } else {
                world.fleet.sites.remove(&site_name(SITES[*site]));
            }
        }
        Event::Lan { link, site, is } => {
            let sites = &mut world.link(LINKS[*link], POOLS[1]).sites;
            if *is {
                sites.insert(site_name(SITES[*site]));
            } else {
                sites.remove(&site_name(SITES[*site]));
            }
        }
        Event::Vpn {
            link,
            vpn,
            site,
            ranges,
        } => {
            world.fleet.vpns.remove(&vpn_name(VPNS[*vpn]));
            world.vpn(LINKS[*link], VPNS[*vpn], SITES[*site], RANGES[*ranges]);
        }
        Event::NoVpn { vpn } => {
            world.fleet.vpns.remove(&vpn_name(VPNS[*vpn]));
        }
        Event::Pools {
            link,
            pods,
            mesh,
            reserved,
        } => {
            let addressing = &mut world.link(LINKS[*link], POOLS[1]).addressing;
            addressing.pod_pools = prefixes(POOLS[*pods]);
            addressing.mesh_pools = prefixes(MESH_POOLS[*mesh]);
            addressing.reserved = prefixes(RANGES[*reserved]).into();
        }
        Event::Lengths { link, small } => {
            let addressing = &mut world.link(LINKS[*link], POOLS[1]).addressing;
            (addressing.cluster_prefix_len, addressing.node_prefix_len) = if *small {
                (PerFamily { v4: 23, v6: 63 }, PerFamily { v4: 24, v6: 64 })
            } else {
                (PerFamily { v4: 16, v6: 56 }, PerFamily { v4: 24, v6: 64 })
            };
        }
        Event::Topology {
            link,
            gateways,
            nodes,
            transit,
        } => {
            let topology = &mut world.link(LINKS[*link], POOLS[1]).topology;
            topology.gateways_per_site = *gateways;
            topology.granularity = if *nodes {
                Granularity::Node
            } else {
                Granularity::Site
            };
            topology.transit_site = transit.map(|site| site_name(SITES[site]));
        }
        Event::Mode { link, shown } => {
            world.link(LINKS[*link], POOLS[1]).mode = if *shown { Mode::Plan } else { Mode::Apply };
        }
        Event::NoLink { link } => {
            world.fleet.links.remove(&link_name(LINKS[*link]));
        }
    }
}

/// The same fleet, put together in another order.
fn shuffled(fleet: &Fleet) -> Fleet {
    let mut other = Fleet::default();
    for (id, node) in fleet.nodes.iter().rev() {
        let mut node = node.clone();
        node.pod_cidrs.reverse();
        node.addresses.reverse();
        other.nodes.insert(id.clone(), node);
    }
    other.vpns.extend(fleet.vpns.clone().into_iter().rev());
    other.sites.extend(fleet.sites.clone().into_iter().rev());
    other
        .clusters
        .extend(fleet.clusters.clone().into_iter().rev());
    other.links.extend(fleet.links.clone().into_iter().rev());
    other
}

/// Invariant 1, the slow and obvious way: nothing live of different owners overlaps.
fn nothing_overlaps(proposal: &Proposal) {
    for (name, ledger) in &proposal.ledgers {
        let live: Vec<_> = ledger
            .grants
            .iter()
            .filter(|grant| grant.state != State::Released)
            .collect();
        for (at, a) in live.iter().enumerate() {
            for b in &live[at + 1..] {
                let levels_differ = a.owner.kind() != b.owner.kind();
                let same = a.owner == b.owner && a.used_for == b.used_for;
                assert!(
                    levels_differ || same || !a.prefix.overlaps(b.prefix),
                    "{name}: {a:?} and {b:?}"
                );
            }
        }
    }
    let live = |name: &LedgerName| {
        proposal
            .ledgers
            .get(name)
            .map(|l| l.grants.clone())
            .unwrap_or_default()
    };
    let mut shares: Vec<(Prefix, NodeId)> = Vec::new();
    for name in proposal.ledgers.keys() {
        if let LedgerName::Cluster(cluster) = name {
            for grant in live(name)
                .iter()
                .filter(|grant| grant.state != State::Released)
            {
                if let Owner::Node(node) = &grant.owner {
                    shares.push((
                        grant.prefix,
                        NodeId {
                            cluster: cluster.clone(),
                            node: node.clone(),
                        },
                    ));
                }
            }
        }
    }
    for (at, (a, of)) in shares.iter().enumerate() {
        for (b, owner) in &shares[at + 1..] {
            assert!(
                of == owner || !a.overlaps(*b),
                "{a} of {of} and {b} of {owner}"
            );
        }
    }
}

/// Invariant 2: what is granted stays granted, unless its node is gone or shows another range.
fn nothing_moves(world: &World, proposal: &Proposal) {
    for (name, old) in &world.before.ledgers {
        for grant in old
            .grants
            .iter()
            .filter(|grant| grant.state != State::Released)
        {
            let still = proposal.ledgers[name].grants.iter().any(|now| {
                now.prefix == grant.prefix
                    && now.owner == grant.owner
                    && now.used_for == grant.used_for
                    && now.state != State::Released
            });
            let gone = match (name, &grant.owner) {
                (LedgerName::Cluster(cluster), Owner::Node(node)) => {
                    let id = NodeId {
                        cluster: cluster.clone(),
                        node: node.clone(),
                    };
                    world.fleet.nodes.get(&id).is_none_or(|node| {
                        grant.used_for == Use::Pod
                            && !node.pod_cidrs.is_empty()
                            && !node.pod_cidrs.contains(&grant.prefix)
                    })
                }
                _ => false,
            };
            assert!(still || gone, "{name}: {grant:?} is taken away");
        }
    }
}

/// A plan that is new or changes is above every plan of before, and above what the hub's ledger remembers of plans that
/// are gone.
fn revisions_only_rise(highest: &mut u64, world: &World, proposal: &Proposal) {
    let before = *highest;
    for (link, plan) in &proposal.plans {
        assert!(
            world.before.plans.get(link) == Some(plan) || plan.revision > before,
            "plan {link} has revision {}, and {before} has been there",
            plan.revision
        );
        *highest = plan.revision.max(*highest);
    }
}

/// Invariants 4 and 5: whoever is not planned can read why.
fn everyone_left_out_is_told(world: &World, proposal: &Proposal) {
    let report = &proposal.report;
    for (id, node) in &world.fleet.nodes {
        let member = world
            .fleet
            .links
            .values()
            .any(|link| link.mode == Mode::Apply && link.clusters.contains(&id.cluster));
        if !member
            || proposal.nodes.contains_key(id)
            || !world.fleet.clusters.contains_key(&id.cluster)
        {
            continue;
        }
        let told =
            report
                .refusals
                .iter()
                .chain(&report.waiting)
                .any(|notice| match &notice.about {
                    About::Node(node) => {
                        node == id && notice.message.contains(&format!("Cluster {}", id.cluster))
                    }
                    About::Cluster(cluster) => *cluster == id.cluster,
                    _ => false,
                });
        assert!(
            told,
            "{id} ({node:?}) is left out without a word: {report:#?}"
        );
    }
}

fn run(events: &[Event]) {
    let mut world = beginning();
    let mut last = world.go();
    let mut highest = 0;
    for event in events {
        apply(&mut world, event, &last);
        let proposal = world.look();
        let other = plan(&shuffled(&world.fleet), &world.before);
        assert_same(&proposal, &other, "the order of the input decides");
        nothing_overlaps(&proposal);
        nothing_moves(&world, &proposal);
        revisions_only_rise(&mut highest, &world, &proposal);
        everyone_left_out_is_told(&world, &proposal);
        world.before = written(&world.before, &proposal);
        last = proposal;
    }
    let families = last
        .nodes
        .values()
        .flat_map(|node| &node.mesh_addresses)
        .map(|address| Family::of(*address));
    assert!(families.count() <= 2 * last.nodes.len());
}

/// Nodes that differ between two fleets.
fn changed_nodes(one: &Fleet, other: &Fleet) -> BTreeSet<NodeId> {
    let differ = |a: &Fleet, b: &Fleet| -> BTreeSet<NodeId> {
        let nodes = a.nodes.iter();
        let differ = nodes.filter(|(id, node)| b.nodes.get(*id) != Some(*node));
        differ.map(|(id, _)| id.clone()).collect()
    };
    let mut changed = differ(one, other);
    changed.extend(differ(other, one));
    changed
}

/// What a planner with a fault could propose instead, about the nodes that it touched and about others.
fn breakages(proposal: &Proposal, touched: &Touched) -> Vec<Proposal> {
    let mut broken = Vec::new();
    if !touched.singly {
        return broken;
    }
    for name in touched.clusters.iter().cloned().map(LedgerName::Cluster) {
        let grants = proposal.ledgers.get(&name).map_or(0, |it| it.grants.len());
        let mut with = |change: &dyn Fn(&mut Ledger)| {
            let mut other = proposal.clone();
            if let Some(ledger) = other.ledgers.get_mut(&name) {
                let ledger = Arc::make_mut(ledger);
                change(ledger);
                ledger.grants.sort();
                broken.push(other);
            }
        };
        with(&|ledger| ledger.revision -= 1);
        with(&|ledger| ledger.parents = Default::default());
        for at in (0..grants).step_by(grants / 3 + 1) {
            with(&|ledger| drop(ledger.grants.remove(at)));
            with(&|ledger| ledger.grants[at].state = State::Released);
            with(&|ledger| ledger.grants[at].prefix = ledger.grants[grants - 1 - at].prefix);
            with(&|ledger| ledger.grants[at].owner = ledger.grants[grants - 1 - at].owner.clone());
        }
    }
    for id in &touched.nodes {
        let mut with = |change: &dyn Fn(&mut NodePlan)| {
            let mut other = proposal.clone();
            if let Some(node) = other.nodes.get_mut(id) {
                change(node);
                broken.push(other);
            }
        };
        with(&|node| node.pod_cidrs.clear());
        with(&|node| node.mesh_addresses.clear());
        with(&|node| node.gateway_rank = Some(3));
        with(&|node| node.site = SITES[2].parse().unwrap());
    }
    broken
}

/// What a planner that is carried on proposes is what a whole pass proposes, and it says what it touched.
fn carry_on(events: &[Event], gateways: u8) -> [usize; 6] {
    let mut world = beginning();
    world.link("acme", &[]).topology.gateways_per_site = gateways;
    let mut planner = Planner::new(&world.fleet, world.before.clone());
    let mut ways = [0; 6];
    for (steps, event) in events.iter().enumerate() {
        let last = planner.proposal().clone();
        let fleet = world.fleet.clone();
        apply(&mut world, event, &last);
        let nodes = std::mem::replace(&mut world.fleet.nodes, fleet.nodes.clone());
        let only_nodes = world.fleet == fleet;
        world.fleet.nodes = nodes;
        world.before = written(&world.before, &last);
        let changed = changed_nodes(&fleet, &world.fleet);
        if only_nodes {
            planner.nodes_changed(&world.fleet, &changed);
        } else {
            planner = Planner::new(&world.fleet, world.before.clone());
        }
        let whole = plan(&world.fleet, &world.before);
        assert_same(&whole, planner.proposal(), "carried on, it is another plan");
        assert_eq!(planner.before(), &world.before);
        let touched = planner.touched();
        let findings = check::touched(&world.fleet, &world.before, &whole, touched, &changed);
        assert_eq!(findings, []);
        // These cost much more than what they are about.
        let broken =
            (whole.ledgers != last.ledgers && steps % 3 == 0).then(|| breakages(&whole, touched));
        for broken in broken.into_iter().flatten() {
            let all = check::check(&world.fleet, &world.before, &broken);
            let some = check::touched(&world.fleet, &world.before, &broken, touched, &changed);
            assert_eq!(some.is_empty(), all.is_empty(), "{all:?}");
            ways[5] += usize::from(!all.is_empty());
        }
        if touched.everything {
            ways[0] += 1;
            continue;
        }
        ways[match (touched.hub, touched.singly) {
            (true, _) => 1,
            (false, false) => 2,
            (false, true) if whole.ledgers == last.ledgers => 3,
            (false, true) => 4,
        }] += 1;
        assert!(
            touched.hub
                || (whole.plans == last.plans
                    && whole.ledgers.get(&LedgerName::Hub) == last.ledgers.get(&LedgerName::Hub))
        );
        for (name, ledger) in &whole.ledgers {
            if let LedgerName::Cluster(cluster) = name {
                assert!(
                    touched.clusters.contains(cluster) || last.ledgers.get(name) == Some(ledger)
                );
            }
        }
        for id in whole.nodes.keys().chain(last.nodes.keys()) {
            let same = whole.nodes.get(id) == last.nodes.get(id);
            assert_eq!(touched.nodes.contains(id), !same, "{id}");
        }
    }
    ways
}

#[test]
fn a_planner_that_is_carried_on_proposes_what_a_whole_pass_proposes_over_300_histories() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    // Twice as many events of nodes as the other histories have.
    let step = prop_oneof![event(), node_event()];
    let wild = prop::collection::vec(step, 20..60);
    let calm = prop::collection::vec(calm_event(), 20..60);
    let mut ways = [0; 6];
    for number in 0..300_u16 {
        let tree = if number % 3 == 0 {
            wild.new_tree(&mut runner).map(|tree| tree.current())
        } else {
            calm.new_tree(&mut runner).map(|tree| tree.current())
        };
        for (sum, more) in ways
            .iter_mut()
            .zip(carry_on(&tree.unwrap(), (number / 3 % 3) as u8 + 1))
        {
            *sum += more;
        }
    }
    assert!(
        ways.iter().all(|way| *way > 200),
        "whole, hub, cluster alone, nodes alone, these with another ledger, faults that are found: {ways:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 2, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_over_any_history(events in prop::collection::vec(event(), 1..40)) {
        run(&events);
    }
}
