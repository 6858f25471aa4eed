//! What happens in a history, and how often.

use crate::support::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tieline_core::fleet::{Granularity, Mode, PerFamily, SiteRule, SiteSource};
use tieline_core::peer::Scope;
use tieline_core::plan::Proposal;

const LINKS: [&str; 2] = ["acme", "beta"];
const CLUSTERS: [&str; 4] = ["a", "b", "c", "d"];
pub const SITES: [&str; 4] = ["berlin", "oslo", "rome", "wien"];
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
pub fn node_event() -> impl Strategy<Value = Event> {
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
pub fn calm_event() -> impl Strategy<Value = Event> {
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
