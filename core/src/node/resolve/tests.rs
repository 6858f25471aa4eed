#![allow(clippy::unwrap_used)]
use super::*;
use crate::host::KeySource;
use crate::ids::NodeName;
use crate::node::config::ConfigDevice;
use crate::node::{PREF_CNI, UnderlayDevice};
use crate::peer::Scope;

fn rail() -> DeviceName {
    DeviceName::outer(0)
}

fn set(prefixes: &[&str]) -> PrefixSet {
    prefixes
        .iter()
        .map(|text| text.parse::<Prefix>().unwrap())
        .collect()
}

fn key(byte: u8) -> PublicKey {
    PublicKey::from_bytes([byte; 32]).unwrap()
}

/// A node in 10.0.5.0/24 with pods in 10.64.0.0/16, and one peer that is known by name alone.
fn dual_stack() -> (NodeConfig, LocalFacts) {
    let mut config = NodeConfig {
        families: Family::BOTH.into(),
        mesh: BTreeMap::from([
            (Family::V4, "100.127.0.1".parse().unwrap()),
            (Family::V6, "fd99::1".parse().unwrap()),
        ]),
        ..NodeConfig::default()
    };
    let planned = set(&["10.0.0.0/8", "fd64::/16"]);
    let native = set(&["10.0.5.0/24", "10.64.0.0/16", "fd64:5::/64"]);
    config.firewall.add(SetName::Planned, &planned);
    config.firewall.add(SetName::Native, &native);
    for (family, pods) in [(Family::V4, "10.64.0.0/16"), (Family::V6, "fd64:1::/32")] {
        config.rules.insert(Rule {
            preference: PREF_CNI,
            family,
            selector: Selector::To(pods.parse().unwrap()),
            table: TABLE_MAIN,
            suppress_prefix_len: Some(15),
        });
    }
    for prefix in planned.iter() {
        let key = RouteKey {
            table: TABLE_REMOTE,
            prefix,
            metric: METRIC_GUARD,
        };
        config.routes.insert(key, ConfigTarget::Unreachable);
    }
    let far = Far::Foreign("hq".parse().unwrap());
    let peer = ConfigPeer {
        far,
        allowed_ips: set(&["10.80.0.0/16"]),
        endpoints: vec![Endpoint::parse("gw.example", Scope::Public).unwrap()],
        keepalive: None,
        preshared_key: None,
    };
    let device = ConfigDevice {
        key: KeySource::Own,
        peers: BTreeMap::from([(key(9), peer)]),
    };
    config.devices.insert(rail(), device);
    let mut facts = LocalFacts {
        keys: BTreeMap::from([(rail(), key(7))]),
        fwmark: 0x1000,
        ..LocalFacts::default()
    };
    let eth0 = UnderlayDevice {
        mtu: 1500,
        prefixes: set(&["10.0.5.0/24", "2001:db8::/64"]),
    };
    facts.underlay.insert("eth0".to_owned(), eth0);
    (config, facts)
}

fn endpoint_of(answers: &[&str]) -> Option<String> {
    let (config, mut facts) = dual_stack();
    facts.resolved.insert(
        NodeName::new("gw.example").unwrap(),
        answers.iter().map(|text| text.parse().unwrap()).collect(),
    );
    let endpoint = resolve(&config, &facts).devices[&rail()].peers[&key(9)].endpoint;
    endpoint.map(|endpoint| endpoint.ip().to_string())
}

#[test]
fn a_name_that_leads_into_the_mesh_or_nowhere_is_no_endpoint() {
    for bad in [
        "10.64.3.4",
        "fd64:1::4",
        "10.80.0.1",
        "::ffff:10.80.0.1",
        "127.0.0.1",
        "169.254.1.1",
        "fe80::1",
        "224.0.0.1",
        "0.0.0.0",
    ] {
        assert_eq!(endpoint_of(&[bad]), None, "{bad}");
        assert_eq!(
            endpoint_of(&[bad, "192.0.2.1"]).unwrap(),
            "192.0.2.1",
            "{bad}"
        );
    }
    for good in ["10.0.5.9", "fd64:5::9", "203.0.113.1", "2001:db8::9"] {
        assert_eq!(endpoint_of(&[good]).unwrap(), good);
    }
}

#[test]
fn advertisements_are_heard_where_they_were_and_nowhere_else() {
    let (config, mut facts) = dual_stack();
    let wanted = |facts: &LocalFacts| {
        let sysctls = resolve(&config, facts).sysctls;
        sysctls.get("net/ipv6/conf/eth0/accept_ra").cloned()
    };
    for (value, forwards, expected) in [
        (0, false, None),
        (0, true, None),
        (1, false, Some("2")),
        (1, true, None),
        (2, false, Some("2")),
        (2, true, Some("2")),
    ] {
        facts.accept_ra.insert("eth0".to_owned(), value);
        facts.forwards_ipv6 = forwards.then(|| "eth0".to_owned()).into_iter().collect();
        assert_eq!(
            wanted(&facts).as_deref(),
            expected,
            "accept_ra {value}, forwards: {forwards}"
        );
    }
}

#[test]
fn a_kernel_without_ipv6_is_asked_for_none() {
    let (config, mut facts) = dual_stack();
    facts.accept_ra.insert("eth0".to_owned(), 1);
    facts.api_servers.insert("fd64:7::1".parse().unwrap());
    let of_ipv6 = |host: &HostState| {
        let rules = host.rules.iter().filter(|rule| rule.family == Family::V6);
        let routes = host.routes.keys().map(|key| key.prefix);
        let addresses = host.devices.values().flat_map(|device| &device.addresses);
        let prefixes = routes.chain(addresses.copied());
        let sysctls = host
            .sysctls
            .keys()
            .filter(|path| path.starts_with("net/ipv6"));
        [
            rules.count(),
            prefixes
                .filter(|prefix| prefix.family() == Family::V6)
                .count(),
            sysctls.count(),
        ]
    };
    let with = resolve(&config, &facts);
    assert_eq!(of_ipv6(&with), [2, 4, 3]);
    facts.without_ipv6 = true;
    let without = resolve(&config, &facts);
    assert_eq!(of_ipv6(&without), [0, 0, 0]);
    assert_eq!(without.rules.len(), 2);
    assert_eq!(
        without.devices[&rail()].addresses,
        [Prefix::host("100.127.0.1".parse().unwrap())].into()
    );
}
