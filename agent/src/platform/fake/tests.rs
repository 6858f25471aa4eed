#![allow(clippy::unwrap_used)]

use super::*;
use futures::FutureExt;
use std::collections::{BTreeMap, BTreeSet};
use tieline_core::cidr::Prefix;
use tieline_core::host::{KeySource, METRIC_REMOTE, TABLE_REMOTE, WgPeer};

fn name(text: &str) -> DeviceName {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn public(seed: u8) -> PublicKey {
    let secret = x25519_dalek::StaticSecret::from([seed; 32]);
    PublicKey::from_bytes(x25519_dalek::PublicKey::from(&secret).to_bytes()).unwrap()
}

fn device(seed: u8, port: u16, mtu: u32) -> Box<Device> {
    Box::new(Device {
        public_key: public(seed),
        key: KeySource::Own,
        port,
        fwmark: 0x1000,
        mtu,
        addresses: BTreeSet::new(),
        peers: BTreeMap::new(),
    })
}

fn secrets() -> Secrets {
    Secrets {
        private_keys: BTreeMap::from([(name("tie0"), [1; 32]), (name("tie1"), [2; 32])]),
        preshared_keys: BTreeMap::new(),
    }
}

fn route(to: &str, devices: &[&str], source: &str) -> Change {
    Change::PutRoute(
        RouteKey {
            table: TABLE_REMOTE,
            prefix: prefix(to),
            metric: METRIC_REMOTE,
        },
        Route {
            target: Target::Devices(devices.iter().map(|text| name(text)).collect()),
            source: Some(source.parse().unwrap()),
            mtu: None,
        },
    )
}

/// Two devices with both addresses, and a multipath route of each family.
fn changes() -> Vec<Change> {
    let mut changes = vec![
        Change::CreateDevice(name("tie0"), device(1, 21820, 1420)),
        Change::CreateDevice(name("tie1"), device(2, 21821, 1420)),
    ];
    for device in ["tie0", "tie1"] {
        changes.push(Change::AddAddress(name(device), prefix("100.127.0.1/32")));
        changes.push(Change::AddAddress(name(device), prefix("fd64::1/128")));
    }
    changes.push(route("10.80.0.0/16", &["tie0", "tie1"], "100.127.0.1"));
    changes.push(route("fd80::/48", &["tie0", "tie1"], "fd64::1"));
    changes
}

fn apply(fake: &mut Fake, changes: &[Change]) -> Vec<String> {
    fake.apply(changes, &secrets())
        .now_or_never()
        .unwrap()
        .iter()
        .map(|failure| format!("{failure}: {}", std::error::Error::source(failure).unwrap()))
        .collect()
}

fn built() -> Fake {
    let mut fake = Fake::default();
    assert_eq!(apply(&mut fake, &changes()), [] as [&str; 0]);
    fake
}

#[test]
fn what_is_there_already_is_no_write() {
    let mut fake = built();
    assert_eq!(fake.writes(), 8);
    let again: Vec<Change> = changes()
        .into_iter()
        .filter(|change| !matches!(change, Change::CreateDevice(..)))
        .collect();
    assert_eq!(apply(&mut fake, &again), [] as [&str; 0]);
    assert_eq!(fake.writes(), 8);
    assert!(fake.print().contains("interface: tie0"), "{}", fake.print());
}

#[test]
fn a_device_that_goes_takes_its_next_hops_and_addresses_along() {
    let fake = built();
    fake.damage(|state| {
        state.devices.remove(&name("tie1"));
    });
    let left: Vec<Target> = fake
        .state()
        .routes
        .into_values()
        .map(|route| route.target)
        .collect();
    assert_eq!(
        left,
        [
            Target::Devices(vec![name("tie0")]),
            Target::Devices(vec![name("tie0")])
        ]
    );
    fake.damage(|state| state.devices.clear());
    assert_eq!(fake.state(), HostState::default());
}

#[test]
fn a_small_mtu_takes_ipv6_away_and_a_larger_one_does_not_bring_it_back() {
    let mut fake = built();
    apply(
        &mut fake,
        &[Change::ConfigureDevice(
            name("tie0"),
            device(1, 21820, 1200),
        )],
    );
    apply(
        &mut fake,
        &[Change::ConfigureDevice(
            name("tie0"),
            device(1, 21820, 1420),
        )],
    );
    let state = fake.state();
    assert_eq!(
        state.devices[&name("tie0")].addresses,
        [prefix("100.127.0.1/32")].into()
    );
    let targets: Vec<usize> = state
        .routes
        .values()
        .map(|route| match &route.target {
            Target::Devices(devices) => devices.len(),
            _ => 0,
        })
        .collect();
    assert_eq!(targets, [2, 1]);
}

#[test]
fn a_source_that_goes_takes_ipv4_routes_along_and_leaves_ipv6_ones_without() {
    let fake = built();
    fake.damage(|state| {
        for device in state.devices.values_mut() {
            device.addresses.clear();
        }
    });
    let routes = fake.state().routes;
    assert_eq!(routes.len(), 1);
    assert!(
        routes
            .iter()
            .all(|(key, route)| { key.prefix == prefix("fd80::/48") && route.source.is_none() })
    );
}

#[test]
fn what_the_kernel_refuses_is_refused_and_the_rest_goes_on() {
    let mut fake = built();
    let failures = apply(
        &mut fake,
        &[
            route("10.81.0.0/16", &["tie7"], "100.127.0.1"),
            route("10.82.0.0/16", &["tie0"], "192.0.2.1"),
            Change::CreateDevice(name("tie2"), device(3, 21822, 1420)),
            Change::ConfigureDevice(name("tie0"), device(1, 21821, 1420)),
            Change::ConfigureDevice(name("tie0"), device(9, 21820, 1420)),
            Change::SetSysctl {
                path: "net/ipv4/conf/tie9/rp_filter".into(),
                value: "2".into(),
            },
            route("10.83.0.0/16", &["tie0"], "100.127.0.1"),
        ],
    );
    for (failure, reason) in failures.iter().zip([
        "device tie7 is not there",
        "192.0.2.1 is no address of this host",
        "no private key",
        "port 21821 is tie1's",
        "belongs to another public key",
        "device tie9 is not there",
    ]) {
        assert!(failure.contains(reason), "{failure}");
    }
    assert_eq!(failures.len(), 6);
    assert_eq!(fake.state().routes.len(), 3);
}

#[test]
fn a_peer_keeps_its_endpoint_and_loses_liveness_when_removed() {
    let mut fake = built();
    let peer = WgPeer {
        allowed_ips: [prefix("10.80.0.0/16")].into_iter().collect(),
        endpoint: Some("192.0.2.7:21820".parse().unwrap()),
        keepalive: None,
        preshared_key: None,
    };
    let put = |peer: WgPeer| Change::PutPeer {
        device: name("tie0"),
        key: public(11),
        peer: Box::new(peer),
    };
    apply(
        &mut fake,
        &[
            put(peer.clone()),
            put(WgPeer {
                endpoint: None,
                ..peer.clone()
            }),
        ],
    );
    assert_eq!(fake.state().devices[&name("tie0")].peers[&public(11)], peer);
    fake.enliven(name("tie0"), public(11), Liveness::default());
    apply(
        &mut fake,
        &[Change::RemovePeer {
            device: name("tie0"),
            key: public(11),
        }],
    );
    let seen = fake.observe().now_or_never().unwrap().unwrap();
    assert_eq!(seen.liveness, BTreeMap::new());
}

#[test]
fn failures_come_as_ordered_and_then_stop() {
    let mut fake = Fake::default();
    fake.fail_reads(1);
    assert!(fake.observe().now_or_never().unwrap().is_err());
    assert!(fake.observe().now_or_never().unwrap().is_ok());
    fake.fail_writes("tie0", 1);
    let create = [Change::CreateDevice(name("tie0"), device(1, 21820, 1420))];
    assert_eq!(apply(&mut fake, &create).len(), 1);
    assert_eq!(apply(&mut fake, &create).len(), 0);
}

#[test]
fn damage_is_news() {
    let mut fake = Fake::default();
    assert!(fake.changed().now_or_never().is_none());
    fake.damage(|state| state.sysctls.clear());
    assert!(fake.changed().now_or_never().is_some());
}
