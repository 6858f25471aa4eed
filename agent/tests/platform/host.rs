//! Hand-made host states, the steps that build them, and the tools of the trade.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use tieline_agent::platform::linux::{BackendChoice, Linux, Options};
use tieline_agent::platform::{Platform, Secrets};
use tieline_core::cidr::{Family, Prefix};
use tieline_core::host::{
    Change, Device, DeviceName, HostState, KeySource, METRIC_GUARD, METRIC_REMOTE, Route, RouteKey,
    Rule, Selector, TABLE_GUARD, TABLE_INNER, TABLE_MAIN, TABLE_REMOTE, Target, WgPeer, diff,
};
use tieline_core::ids::VpnName;
use tieline_core::keys::PublicKey;

/// A private key for tests.
pub(crate) fn private(seed: u8) -> [u8; 32] {
    let mut key = [seed; 32];
    key[0] &= 248;
    key[31] = key[31] & 127 | 64;
    key
}

/// Its public half.
pub(crate) fn public(seed: u8) -> PublicKey {
    let secret = x25519_dalek::StaticSecret::from(private(seed));
    PublicKey::from_bytes(x25519_dalek::PublicKey::from(&secret).to_bytes()).unwrap()
}

/// A device name.
pub(crate) fn name(text: &str) -> DeviceName {
    text.parse().unwrap()
}

/// A prefix.
pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// Private keys of devices, by seed.
pub(crate) fn secrets(keys: &[(&str, u8)]) -> Secrets {
    Secrets {
        private_keys: keys
            .iter()
            .map(|(device, seed)| (name(device), private(*seed)))
            .collect(),
        preshared_keys: BTreeMap::new(),
    }
}

/// The company VPN.
pub(crate) fn hq() -> VpnName {
    "hq".parse().unwrap()
}

/// A device without peers.
pub(crate) fn device(seed: u8, port: u16, addresses: &[&str]) -> Device {
    Device {
        public_key: public(seed),
        key: KeySource::Own,
        port,
        fwmark: 0x1000,
        mtu: 1420,
        addresses: addresses.iter().map(|text| prefix(text)).collect(),
        peers: BTreeMap::new(),
    }
}

/// A peer.
pub(crate) fn peer(allowed: &[&str], endpoint: Option<&str>, keepalive: Option<u16>) -> WgPeer {
    WgPeer {
        allowed_ips: allowed.iter().map(|text| prefix(text)).collect(),
        endpoint: endpoint.map(|text| text.parse().unwrap()),
        keepalive,
        preshared_key: None,
    }
}

/// A route.
pub(crate) fn route(
    table: u32,
    to: &str,
    metric: u32,
    target: Target,
    source: Option<&str>,
) -> (RouteKey, Route) {
    let mtu = matches!(target, Target::Devices(_)).then_some(1380);
    (
        RouteKey {
            table,
            prefix: prefix(to),
            metric,
        },
        Route {
            target,
            source: source.map(|text| text.parse().unwrap()),
            mtu,
        },
    )
}

/// Out by devices.
pub(crate) fn by(devices: &[&str]) -> Target {
    Target::Devices(devices.iter().map(|device| name(device)).collect())
}

/// A node with outer, inner and VPN devices, guard, rules and routes in both families: a bit of everything.
pub(crate) fn gateway() -> HostState {
    let (mesh4, mesh6) = (Some("100.127.0.1"), Some("fd64::1"));
    let addresses = ["100.127.0.1/32", "fd64::1/128"];
    let mut tie0 = device(1, 21820, &addresses);
    tie0.peers.insert(
        public(11),
        peer(
            &["10.80.0.0/16", "fd80::/48"],
            Some("192.0.2.7:21820"),
            None,
        ),
    );
    tie0.peers
        .insert(public(12), peer(&["10.96.0.0/16"], None, Some(25)));
    let mut tiev0 = Device {
        key: KeySource::Attachment(hq()),
        ..device(4, 21884, &addresses)
    };
    let foreign = WgPeer {
        preshared_key: Some(hq()),
        ..peer(&["172.16.0.0/16"], None, Some(25))
    };
    tiev0.peers.insert(public(13), foreign);
    let rules = Family::BOTH.into_iter().flat_map(|family| {
        let rule = move |preference, selector, table, suppress_prefix_len| Rule {
            preference,
            family,
            selector,
            table,
            suppress_prefix_len,
        };
        let own = if family == Family::V4 {
            "10.64.0.0/16"
        } else {
            "fd64:1::/56"
        };
        [
            rule(
                101,
                Selector::Mark {
                    mark: 0x1000,
                    mask: 0x1000,
                },
                TABLE_MAIN,
                None,
            ),
            rule(102, Selector::From(name("tie0")), TABLE_INNER, None),
            rule(102, Selector::From(name("tie1")), TABLE_INNER, None),
            rule(103, Selector::All, TABLE_REMOTE, None),
            rule(
                104,
                Selector::To(prefix(own)),
                TABLE_MAIN,
                Some(prefix(own).len()),
            ),
            rule(105, Selector::All, TABLE_GUARD, None),
        ]
    });
    let mut routes = BTreeMap::new();
    for table in [TABLE_REMOTE, TABLE_GUARD] {
        for super_net in ["10.64.0.0/10", "fd00::/8"] {
            routes.extend([route(
                table,
                super_net,
                METRIC_GUARD,
                Target::Unreachable,
                None,
            )]);
        }
        routes.extend([route(table, "192.168.40.0/22", 0, Target::Throw, None)]);
        routes.extend([route(table, "fd40::/48", 0, Target::Throw, None)]);
    }
    routes.extend([
        route(
            TABLE_REMOTE,
            "10.80.0.0/16",
            METRIC_REMOTE,
            by(&["tie0", "tie1"]),
            mesh4,
        ),
        route(
            TABLE_REMOTE,
            "fd80::/48",
            METRIC_REMOTE,
            by(&["tie0", "tie1"]),
            mesh6,
        ),
        route(
            TABLE_REMOTE,
            "10.96.0.0/16",
            METRIC_REMOTE,
            by(&["tie0"]),
            mesh4,
        ),
        route(
            TABLE_REMOTE,
            "fd96::/48",
            METRIC_REMOTE,
            by(&["tie1"]),
            mesh6,
        ),
        route(
            TABLE_INNER,
            "10.64.2.0/24",
            METRIC_REMOTE,
            by(&["tiei0"]),
            mesh4,
        ),
        route(
            TABLE_INNER,
            "fd64:1::/64",
            METRIC_REMOTE,
            by(&["tiei0"]),
            mesh6,
        ),
    ]);
    let sysctls = [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/fib_multipath_hash_policy", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv4/conf/tie0/rp_filter", "2"),
    ];
    HostState {
        devices: BTreeMap::from([
            (name("tie0"), tie0),
            (name("tie1"), device(2, 21821, &addresses)),
            (name("tiei0"), device(3, 21852, &addresses)),
            (name("tiev0"), tiev0),
        ]),
        rules: rules.collect(),
        routes,
        firewall: None,
        sysctls: sysctls
            .map(|(path, value)| (path.into(), value.into()))
            .into(),
    }
}

/// The private keys of [`gateway`]'s devices.
pub(crate) fn gateway_secrets() -> Secrets {
    Secrets {
        preshared_keys: BTreeMap::from([(hq(), [99; 32])]),
        ..secrets(&[("tie0", 1), ("tie1", 2), ("tiei0", 3), ("tiev0", 4)])
    }
}

/// The platform with a state directory.
pub(crate) async fn open(state_dir: &Path, extra_underlay: &[&str]) -> Linux {
    Linux::new(Options {
        state_dir: state_dir.into(),
        extra_underlay: extra_underlay
            .iter()
            .map(|text| (*text).to_owned())
            .collect(),
        backend: BackendChoice::Auto,
    })
    .await
    .unwrap()
}

/// One turn of the agent: observe, compare, apply. Gives the changes that it took.
pub(crate) async fn reach(linux: &mut Linux, wanted: &HostState, secrets: &Secrets) -> Vec<Change> {
    let seen = linux.observe().await.unwrap();
    let changes = diff(&seen.state, &seen.liveness, wanted);
    let failures = linux.apply(&changes, secrets).await;
    for failure in &failures {
        eprintln!(
            "{failure}: {:?}",
            std::error::Error::source(failure).map(ToString::to_string)
        );
    }
    assert!(
        failures.is_empty(),
        "{} of {} changes failed",
        failures.len(),
        changes.len()
    );
    changes
}

/// Runs a command; its standard output. A failure ends the test.
pub(crate) fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-ec", line]).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What the tools show of everything that we touch, and of much that we do not.
pub(crate) fn dump() -> String {
    sh(
        "ip -br link; ip -br addr; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; nft list ruleset",
    )
}

/// Runs a test's future.
pub(crate) fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

/// A directory that goes away with the value.
pub(crate) fn state_dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Keys of an observed device's peers.
pub(crate) fn peers_of(state: &HostState, device: &str) -> BTreeSet<PublicKey> {
    state.devices[&name(device)].peers.keys().copied().collect()
}
