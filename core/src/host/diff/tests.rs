#![allow(clippy::unwrap_used)]
use super::*;
use crate::cidr::Family;
use crate::host::{KeySource, METRIC_GUARD, METRIC_REMOTE, Selector, TABLE_GUARD, TABLE_REMOTE};
use std::time::Duration;

fn key(byte: u8) -> PublicKey {
    PublicKey::from_bytes([byte; 32]).unwrap()
}

fn set(texts: &[&str]) -> PrefixSet {
    texts
        .iter()
        .map(|text| text.parse::<Prefix>().unwrap())
        .collect()
}

fn peer(allowed: &[&str], endpoint: Option<&str>) -> WgPeer {
    WgPeer {
        allowed_ips: set(allowed),
        endpoint: endpoint.map(|text| text.parse().unwrap()),
        keepalive: Some(25),
        preshared_key: None,
    }
}

fn route(table: u32, prefix: &str, metric: u32) -> RouteKey {
    RouteKey {
        table,
        prefix: prefix.parse().unwrap(),
        metric,
    }
}

const TIE0: DeviceName = DeviceName {
    kind: crate::host::DeviceKind::Outer,
    index: 0,
};

/// A small gateway: one device with one peer, a guarded super-net, own pods thrown, a remote route.
fn gateway() -> HostState {
    let device = Device {
        public_key: key(1),
        key: KeySource::Own,
        port: 21820,
        fwmark: 0x1000,
        mtu: 1420,
        addresses: BTreeSet::from(["100.127.0.1/32".parse().unwrap()]),
        peers: BTreeMap::from([(key(2), peer(&["10.64.1.0/24"], Some("203.0.113.2:21820")))]),
    };
    let mut host = HostState {
        devices: BTreeMap::from([(TIE0, device)]),
        firewall: Some(Ruleset::default()),
        ..HostState::default()
    };
    for table in [TABLE_REMOTE, TABLE_GUARD] {
        let unreachable = Route::bare(Target::Unreachable);
        host.routes
            .insert(route(table, "10.64.0.0/10", METRIC_GUARD), unreachable);
    }
    host.routes.insert(
        route(TABLE_REMOTE, "10.64.0.0/24", METRIC_REMOTE),
        Route::bare(Target::Throw),
    );
    let remote = Route {
        target: Target::Devices(vec![TIE0]),
        source: Some("100.127.0.1".parse().unwrap()),
        mtu: Some(1420),
    };
    host.routes
        .insert(route(TABLE_REMOTE, "10.64.1.0/24", METRIC_REMOTE), remote);
    for (preference, table) in [(103, TABLE_REMOTE), (105, TABLE_GUARD)] {
        host.rules.insert(Rule {
            preference,
            family: Family::V4,
            selector: Selector::All,
            table,
            suppress_prefix_len: None,
        });
    }
    for (path, value) in [
        ("net/ipv4/conf/tie0/rp_filter", "2"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv6/conf/eth0/accept_ra", "2"),
    ] {
        host.sysctls.insert(path.to_owned(), value.to_owned());
    }
    host
}

fn words(changes: &[Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

fn alive(seconds: u64) -> Livenesses {
    let liveness = Liveness {
        handshake_age: Some(Duration::from_secs(seconds)),
        ..Liveness::default()
    };
    BTreeMap::from([(PathId::new(TIE0, key(2)), liveness)])
}

#[test]
fn a_new_host_gets_its_guard_first_and_its_routes_last() {
    let changes = diff(&HostState::default(), &Livenesses::new(), &gateway());
    assert_eq!(
        words(&changes),
        [
            "route 10.64.0.0/24 in table 7468 (remote) metric 100: leave to the next rule",
            "route 10.64.0.0/10 in table 7468 (remote) metric 4000: unreachable",
            "route 10.64.0.0/10 in table 7469 (guard) metric 4000: unreachable",
            "add IPv4 rule 103: from all lookup 7468",
            "add IPv4 rule 105: from all lookup 7469",
            "replace nft tables ",
            "set sysctl net.ipv6.conf.eth0.accept_ra to 2",
            "set sysctl net.ipv6.conf.all.forwarding to 1",
            "create WireGuard device tie0 (key AQEBAQEB…, port 21820, fwmark 0x1000, MTU 1420)",
            "set sysctl net.ipv4.conf.tie0.rp_filter to 2",
            "add address 100.127.0.1/32 to tie0",
            "set peer AgICAgIC… of tie0: allowed IPs 10.64.1.0/24, endpoint 203.0.113.2:21820, keepalive 25 s",
            "route 10.64.1.0/24 in table 7468 (remote) metric 100: out by tie0, own packets from 100.127.0.1, MTU 1420",
        ]
    );
}

#[test]
fn everything_goes_in_reverse_and_the_firewall_last() {
    let changes = diff(&gateway(), &Livenesses::new(), &HostState::default());
    assert_eq!(
        words(&changes),
        [
            "remove route 10.64.1.0/24 from table 7468 (remote) metric 100",
            "remove WireGuard device tie0",
            "remove IPv4 rule 105: from all lookup 7469",
            "remove IPv4 rule 103: from all lookup 7468",
            "remove route 10.64.0.0/10 from table 7468 (remote) metric 4000",
            "remove route 10.64.0.0/10 from table 7469 (guard) metric 4000",
            "remove route 10.64.0.0/24 from table 7468 (remote) metric 100",
            "remove nft tables inet tieline and netdev tieline",
        ]
    );
}

/// The gateway's peer at the far end of tie0.
fn far(state: &mut HostState) -> &mut WgPeer {
    let device = state.devices.get_mut(&TIE0).unwrap();
    device.peers.get_mut(&key(2)).unwrap()
}

#[test]
fn what_is_there_already_needs_no_write() {
    assert_eq!(diff(&gateway(), &alive(5), &gateway()), vec![]);
}

#[test]
fn a_peer_that_roams_is_left_alone_while_its_session_lives() {
    let wanted = gateway();
    let mut observed = gateway();
    let roamed = far(&mut observed);
    roamed.endpoint = Some("198.51.100.7:9999".parse().unwrap());
    assert_eq!(diff(&observed, &alive(20), &wanted), vec![]);
    for liveness in [alive(181), Livenesses::new()] {
        let changes = diff(&observed, &liveness, &wanted);
        assert_eq!(
            words(&changes),
            [
                "set peer AgICAgIC… of tie0: allowed IPs 10.64.1.0/24, endpoint 203.0.113.2:21820, keepalive 25 s"
            ]
        );
    }
    // Another change of the peer does not move it either.
    far(&mut observed).keepalive = None;
    assert_eq!(
        words(&diff(&observed, &alive(20), &wanted)),
        [
            "set peer AgICAgIC… of tie0: allowed IPs 10.64.1.0/24, endpoint left as it is, keepalive 25 s"
        ]
    );
}

#[test]
fn an_endpoint_that_is_missing_is_set_also_on_a_living_session() {
    let mut observed = gateway();
    far(&mut observed).endpoint = None;
    assert_eq!(diff(&observed, &alive(5), &gateway()).len(), 1);
}

#[test]
fn a_prefix_leaves_its_old_peer_before_the_new_one_takes_it() {
    let mut wanted = gateway();
    let peers = &mut wanted.devices.get_mut(&TIE0).unwrap().peers;
    peers.insert(key(2), peer(&["10.64.3.0/24"], None));
    peers.insert(key(3), peer(&["10.64.1.0/24"], None));
    let mut observed = gateway();
    let peers = &mut observed.devices.get_mut(&TIE0).unwrap().peers;
    peers.insert(key(2), peer(&["10.64.1.0/24"], None));
    peers.insert(key(3), peer(&["10.64.3.0/24"], None));
    assert_eq!(
        words(&diff(&observed, &Livenesses::new(), &wanted)),
        [
            "set peer AgICAgIC… of tie0: allowed IPs -, endpoint left as it is, keepalive 25 s",
            "set peer AwMDAwMD… of tie0: allowed IPs -, endpoint left as it is, keepalive 25 s",
            "set peer AgICAgIC… of tie0: allowed IPs 10.64.3.0/24, endpoint left as it is, keepalive 25 s",
            "set peer AwMDAwMD… of tie0: allowed IPs 10.64.1.0/24, endpoint left as it is, keepalive 25 s",
        ]
    );
}

#[test]
fn a_vanished_peer_goes_early_only_when_its_prefixes_move() {
    let mut wanted = gateway();
    let peers = &mut wanted.devices.get_mut(&TIE0).unwrap().peers;
    let old = peers.remove(&key(2)).unwrap();
    peers.insert(key(3), old);
    let changes = words(&diff(&gateway(), &Livenesses::new(), &wanted));
    assert_eq!(changes[0], "remove peer AgICAgIC… from tie0");
    assert!(
        changes[1].starts_with("set peer AwMDAwMD… of tie0"),
        "{changes:?}"
    );
    assert_eq!(changes.len(), 2);

    wanted.devices.get_mut(&TIE0).unwrap().peers.clear();
    wanted
        .routes
        .remove(&route(TABLE_REMOTE, "10.64.1.0/24", METRIC_REMOTE));
    assert_eq!(
        words(&diff(&gateway(), &Livenesses::new(), &wanted)),
        [
            "remove route 10.64.1.0/24 from table 7468 (remote) metric 100",
            "remove peer AgICAgIC… from tie0",
        ]
    );
}

#[test]
fn a_device_with_another_key_port_mark_or_mtu_is_configured_in_place() {
    for change in [
        (|device: &mut Device| device.public_key = key(9)) as fn(&mut Device),
        |device| device.port = 1,
        |device| device.fwmark = 2,
        |device| device.mtu = 1280,
    ] {
        let mut observed = gateway();
        change(observed.devices.get_mut(&TIE0).unwrap());
        let changes = diff(&observed, &alive(5), &gateway());
        assert!(
            matches!(changes[..], [Change::ConfigureDevice(TIE0, _)]),
            "{changes:?}"
        );
    }
}
