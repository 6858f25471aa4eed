//! The gateways of a VPN: one speaks, the others wait.

use super::*;
use crate::fleet::{foreign_key, set, vpn_name};
use tieline_core::health::{PathId, PathState};
use tieline_core::host::{KeySource, TABLE_REMOTE};
use tieline_core::peer::{Endpoint, Scope};

#[test]
fn the_active_gateway_speaks_to_the_foreign_box_and_the_standby_waits() {
    let mut world = two_by_two();
    world.plan.vpns[0].endpoint = Some(Endpoint::parse("198.51.100.9", Scope::Public).unwrap());
    let device = DeviceName::vpn(0);
    let behind = "172.16.10.0/24";
    let active = host(&world, "paris0-0");
    let tunnel = &active.devices[&device];
    assert_eq!(tunnel.key, KeySource::Attachment(vpn_name(1)));
    assert_eq!(tunnel.port, 21884);
    let foreign = &tunnel.peers[&foreign_key(1)];
    assert_eq!(foreign.allowed_ips, set(&[behind]));
    assert_eq!(
        foreign.endpoint,
        Some("198.51.100.9:51820".parse().unwrap())
    );
    assert_eq!(
        (foreign.keepalive, &foreign.preshared_key),
        (Some(25), &Some(vpn_name(1)))
    );
    assert_eq!(target(&active, TABLE_REMOTE, behind), by(&[device]));
    assert!(covers(&active, SetName::Stateful, behind));

    let standby = host(&world, "paris0-1");
    let foreign = &standby.devices[&device].peers[&foreign_key(1)];
    assert_eq!((foreign.endpoint, foreign.keepalive), (None, None));
    assert_eq!(
        target(&standby, TABLE_REMOTE, behind),
        by(&[DeviceName::inner(1)])
    );
    let towards =
        &standby.devices[&DeviceName::inner(1)].peers[&key("paris0-0", DeviceName::inner(1))];
    assert!(towards.allowed_ips.contains(prefix(behind)));
    // It sees one direction only, so it must not track it.
    assert!(!covers(&standby, SetName::Stateful, behind));
}

#[test]
fn a_standby_takes_a_vpn_over_when_the_active_gateway_is_dead() {
    let world = two_by_two();
    let mut facts = facts_of(&world, "paris0-1");
    let hub = DeviceName::inner(1);
    facts
        .paths
        .insert(PathId::new(hub, key("paris0-0", hub)), PathState::Down);
    let host = resolve(&config(&world, "paris0-1"), &facts);
    assert_eq!(
        target(&host, TABLE_REMOTE, "172.16.10.0/24"),
        by(&[DeviceName::vpn(0)])
    );
    assert_eq!(
        host.devices[&DeviceName::vpn(0)].peers[&foreign_key(1)].keepalive,
        Some(25)
    );
    let dead = &host.devices[&hub].peers[&key("paris0-0", hub)];
    assert!(!dead.allowed_ips.contains(prefix("172.16.10.0/24")));
}

#[test]
fn a_gateway_without_the_attachments_key_leaves_the_vpn_out() {
    let world = two_by_two();
    let mut facts = facts_of(&world, "paris0-0");
    facts.keys.remove(&DeviceName::vpn(0));
    let host = resolve(&config(&world, "paris0-0"), &facts);
    assert!(!host.devices.contains_key(&DeviceName::vpn(0)));
    assert_eq!(
        target(&host, TABLE_REMOTE, "172.16.10.0/24"),
        Some(Target::Unreachable)
    );
}
