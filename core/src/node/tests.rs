#![allow(clippy::unwrap_used)]
use super::*;
use crate::fleet::Granularity;
use crate::host::firewall::SetName;
use crate::host::{METRIC_REMOTE, RouteKey, TABLE_GUARD, TABLE_REMOTE};
use crate::ids::SiteName;
use crate::network_plan::{Class, ClassPrefix, PlanCluster, PlanSite, Segment};

fn set(prefixes: &[&str]) -> PrefixSet {
    let prefixes = prefixes.iter().map(|text| text.parse::<Prefix>().unwrap());
    prefixes.collect()
}

/// Cluster shop in Berlin, whose range is wide, and in Paris, which has a VPN.
fn wide_site() -> NetworkPlan {
    let segment = |site: &str, prefixes: &[(&str, Class)]| Segment {
        name: format!("shop.{site}").parse().unwrap(),
        site: site.parse().unwrap(),
        cluster: Some("shop".parse().unwrap()),
        prefixes: prefixes
            .iter()
            .map(|(prefix, class)| ClassPrefix {
                prefix: prefix.parse().unwrap(),
                class: *class,
            })
            .collect(),
        gateways: Vec::new(),
    };
    let site = |name: &str, cidrs: &[&str]| PlanSite {
        name: SiteName::new(name).unwrap(),
        cidrs: set(cidrs),
        behind_nat: false,
        public_addresses: Vec::new(),
    };
    NetworkPlan {
        link: "acme".parse().unwrap(),
        lineage: crate::ids::Lineage::new("aaaabbbbcccc").unwrap(),
        revision: 1,
        super_nets: set(&["10.0.0.0/8"]),
        clusters: vec![PlanCluster {
            name: "shop".parse().unwrap(),
            pod_cidrs: set(&["10.64.0.0/16"]),
            service_cidrs: PrefixSet::new(),
        }],
        sites: vec![
            site("berlin", &["10.0.0.0/9"]),
            site("paris", &["192.168.7.0/24"]),
        ],
        segments: vec![
            segment("berlin", &[("10.64.0.0/20", Class::Pod)]),
            segment(
                "paris",
                &[("10.64.16.0/20", Class::Pod), ("10.99.0.0/16", Class::Vpn)],
            ),
        ],
        vpns: Vec::new(),
        bypass: PrefixSet::new(),
        transit: None,
        granularity: Granularity::Site,
    }
}

#[test]
fn before_a_node_is_accepted_its_sites_wide_range_opens_nothing_that_lies_elsewhere() {
    let own = PeerName::new("shop.new").unwrap();
    let config = node_config(&wide_site(), &AcceptedPeers::new(), Some(&own));
    let mut facts = LocalFacts::default();
    let eth0 = UnderlayDevice {
        mtu: 1500,
        prefixes: set(&["10.1.2.0/24"]),
    };
    facts.underlay.insert("eth0".to_owned(), eth0);
    let host = resolve(&config, &facts);
    let sets = &host.firewall.as_ref().unwrap().tables[0].sets;
    let native = sets.iter().find(|set| set.name == SetName::Native).unwrap();
    let thrown = |table, address: IpAddr| {
        let mut throws = host
            .routes
            .keys()
            .filter(|key: &&RouteKey| key.table == table && key.metric == METRIC_REMOTE);
        throws.any(|key| key.prefix.contains_address(address))
    };
    for (address, here) in [
        ("10.1.9.9", true),
        ("10.64.3.4", true),
        ("10.64.17.1", false),
        ("10.99.0.1", false),
    ] {
        let address = address.parse().unwrap();
        assert_eq!(native.elements.contains_address(address), here, "{address}");
        assert_eq!(thrown(TABLE_GUARD, address), here, "{address}");
    }
    assert!(!thrown(TABLE_REMOTE, "10.99.0.1".parse().unwrap()));
}
