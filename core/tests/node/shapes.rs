//! Each role on its own: devices, peers, endpoints, routes and rules as the data plane's table of roles has them.

mod guard;
mod roles;
mod routes;
mod text;
mod vpn;

use crate::fleet::{Shape, SiteShape, World, facts, key, prefix, site_name, world};
use std::net::SocketAddr;
use tieline_core::cidr::{Family, Prefix};
use tieline_core::fleet::Granularity;
use tieline_core::host::firewall::SetName;
use tieline_core::host::{DeviceName, HostState, METRIC_GUARD, METRIC_REMOTE, RouteKey, Target};
use tieline_core::ids::PeerName;
use tieline_core::network_plan::PlanSite;
use tieline_core::node::{LocalFacts, NodeConfig, node_config, resolve};

/// Berlin and Paris, three nodes and two gateways each; services, a LAN and a VPN in Paris.
fn two_by_two() -> World {
    let site = |vpn| SiteShape {
        nodes: vec![3],
        ranks: vec![0, 1],
        behind_nat: false,
        lan: vpn,
        vpn,
    };
    world(&Shape {
        sites: vec![site(false), site(true)],
        transit: None,
        granularity: Granularity::Site,
        ipv6: false,
        services: true,
        imported: false,
    })
}

fn name(node: &str) -> PeerName {
    PeerName::new(format!("shop.{node}")).unwrap()
}

fn config(world: &World, node: &str) -> NodeConfig {
    node_config(&world.plan, &world.peers, Some(&name(node)))
}

fn facts_of(world: &World, node: &str) -> LocalFacts {
    facts(&world.peers[&name(node)])
}

fn host(world: &World, node: &str) -> HostState {
    resolve(&config(world, node), &facts_of(world, node))
}

fn target(host: &HostState, table: u32, text: &str) -> Option<Target> {
    let key = |metric| RouteKey {
        table,
        prefix: prefix(text),
        metric,
    };
    let remote = host.routes.get(&key(METRIC_REMOTE));
    remote
        .or(host.routes.get(&key(METRIC_GUARD)))
        .map(|route| route.target.clone())
}

fn by(devices: &[DeviceName]) -> Option<Target> {
    Some(Target::Devices(devices.to_vec()))
}

fn device_names(host: &HostState) -> Vec<String> {
    host.devices.keys().map(ToString::to_string).collect()
}

fn endpoint(
    host: &HostState,
    device: DeviceName,
    node: &str,
    far: DeviceName,
) -> Option<SocketAddr> {
    host.devices[&device].peers[&key(node, far)].endpoint
}

fn elements(host: &HostState, name: SetName, family: Family) -> Vec<Prefix> {
    let table = &host.firewall.as_ref().unwrap().tables[0];
    let found = table
        .sets
        .iter()
        .find(|set| set.name == name && set.family == family)
        .unwrap();
    found.elements.iter().collect()
}

/// Whether a set of the firewall has all of a range.
fn covers(host: &HostState, name: SetName, text: &str) -> bool {
    let ranges = elements(host, name, Family::V4);
    ranges.iter().any(|range| range.contains(prefix(text)))
}

fn berlin(world: &mut World) -> &mut PlanSite {
    let mut sites = world.plan.sites.iter_mut();
    sites.find(|site| site.name == site_name(0)).unwrap()
}
