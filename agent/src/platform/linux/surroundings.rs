//! What the host looks like around us: underlay devices, and other tables' filters.

use super::addresses::{self, HostAddress};
use super::links::Links;
use super::netlink::Netlink;
use super::nft;
use super::routes;
use super::sysctl::{self, Sysctls};
use crate::platform::Surroundings;
use netlink_packet_route::route::{RouteMessage, RouteType};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use tieline_core::cidr::{Family, Prefix, PrefixSet};
use tieline_core::claims::is_link_local;
use tieline_core::host::{Rule, Selector, TABLE_MAIN};
use tieline_core::node::UnderlayDevice;

/// A table that is never loaded: does the kernel have egress hooks (Linux 5.16)?
const EGRESS_PROBE: &str = "table netdev tieline_probe {\n\
    chain out { type filter hook egress device lo priority 0; policy accept; }\n}\n";

/// Whether nft has `netdev` egress hooks.
pub(super) async fn has_netdev_egress() -> bool {
    nft::would_load(EGRESS_PROBE).await
}

/// Reads what routes and links tell of what is around us; nft is asked by others. `endpoints` are addresses that the underlay
/// has to reach, `extra` devices named by flag.
pub(super) async fn read(
    netlink: &Netlink,
    links: &Links,
    extra: &BTreeSet<String>,
    endpoints: &BTreeSet<IpAddr>,
    sysctls: &Sysctls,
) -> io::Result<Surroundings> {
    let all = addresses::read(netlink).await?;
    let mut main = Vec::new();
    for family in Family::BOTH {
        for message in routes::dump(netlink, family, TABLE_MAIN).await? {
            main.extend(MainRoute::parse(&message));
        }
    }
    let mut indexes = underlay(&main, endpoints);
    indexes.extend(
        extra
            .iter()
            .filter_map(|name| Some(links.by_name(name)?.index)),
    );

    let mut around = Surroundings::default();
    for link in indexes.iter().filter_map(|index| links.by_index(*index)) {
        if link.ours().is_some() || link.name == "lo" {
            continue;
        }
        let device = UnderlayDevice {
            mtu: link.mtu,
            prefixes: prefixes(link.index, &all, &main),
        };
        around.underlay.insert(link.name.clone(), device);
        around.addresses.extend(
            all.iter()
                .filter(|address| address.link == link.index && usable(address))
                .map(|address| address.address),
        );
        let accept_ra = sysctl::get(&format!("net/ipv6/conf/{}/accept_ra", link.name));
        if let Some(value) = accept_ra.ok().and_then(|text| text.parse().ok()) {
            around.accept_ra.insert(link.name.clone(), value);
        }
        if sysctls.forwards_ipv6(&link.name) {
            around.forwards_ipv6.insert(link.name.clone());
        }
        let filter = |of: &str| number(&format!("net/ipv4/conf/{of}/rp_filter"));
        // The greater one acts (ip-sysctl, rp_filter).
        if let Some(value) = filter("all").max(filter(&link.name)) {
            around.reverse_path_filter.insert(link.name.clone(), value);
        }
    }
    around.kernel = sysctl::get("kernel/osrelease").ok();
    around.without_ipv6 = !sysctl::has_ipv6();
    Ok(around)
}

/// Endpoints without those among the own cluster's pods, which our rules leave to the CNI: the device that leads there is the
/// CNI's, not one of the underlay.
pub(super) fn outside_cni(
    endpoints: &BTreeSet<IpAddr>,
    rules: &BTreeSet<Rule>,
) -> BTreeSet<IpAddr> {
    let pods: PrefixSet = rules
        .iter()
        .filter_map(|rule| match rule.selector {
            Selector::To(prefix) => Some(prefix),
            Selector::All | Selector::Mark { .. } | Selector::From(_) => None,
        })
        .collect();
    let outside = endpoints.iter().copied();
    outside
        .filter(|endpoint| !pods.contains_address(*endpoint))
        .collect()
}

/// A sysctl that holds a small number.
fn number(path: &str) -> Option<u8> {
    sysctl::get(path).ok()?.parse().ok()
}

/// A unicast route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MainRoute {
    prefix: Prefix,
    links: Vec<u32>,
    gateway: bool,
}

impl MainRoute {
    fn parse(message: &RouteMessage) -> Option<Self> {
        if message.header.kind != RouteType::Unicast {
            return None;
        }
        let (links, gateway) = routes::links_of(message);
        Some(Self {
            prefix: routes::prefix_of(message)?,
            links,
            gateway,
        })
    }
}

/// Links that hold a default route, and links by which the longest match for an endpoint leaves.
fn underlay(main: &[MainRoute], endpoints: &BTreeSet<IpAddr>) -> BTreeSet<u32> {
    let mut by_prefix: BTreeMap<Prefix, Vec<u32>> = BTreeMap::new();
    for route in main {
        by_prefix
            .entry(route.prefix)
            .or_default()
            .extend(&route.links);
    }
    let defaults = Family::BOTH.map(Prefix::everything);
    let reaching = endpoints.iter().filter_map(|endpoint| {
        let longest = Family::of(*endpoint).host_len();
        (0..=longest)
            .rev()
            .map(|len| Prefix::containing(*endpoint, len))
            .find(|prefix| by_prefix.contains_key(prefix))
    });
    defaults
        .into_iter()
        .chain(reaching)
        .filter_map(|prefix| by_prefix.get(&prefix))
        .flatten()
        .copied()
        .collect()
}

/// The prefixes of a link's addresses and what the main table has on it without a gateway.
fn prefixes(link: u32, addresses: &[HostAddress], main: &[MainRoute]) -> PrefixSet {
    let own = addresses
        .iter()
        .filter(|address| address.link == link)
        .map(|address| Prefix::containing(address.address, address.len));
    let routed = main
        .iter()
        .filter(|route| !route.gateway && route.links.contains(&link))
        .map(|route| route.prefix);
    own.chain(routed)
        .filter(|prefix| prefix.len() != 0 && !is_link_local(prefix.address()))
        .collect()
}

fn usable(address: &HostAddress) -> bool {
    address.global
        && !address.deprecated
        && !address.temporary
        && !address.address.is_loopback()
        && !is_link_local(address.address)
}

/// Base chains on the forward hook, except our own, and whether their policy drops.
pub(super) fn forward_chains(chains: &serde_json::Value) -> BTreeMap<String, bool> {
    let entries = chains["nftables"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    entries
        .iter()
        .map(|entry| &entry["chain"])
        .filter(|chain| chain["hook"] == "forward" && chain["table"] != "tieline")
        .map(|chain| {
            let text = |field: &str| chain[field].as_str().unwrap_or("?").to_owned();
            let name = format!("{} {} {}", text("family"), text("table"), text("name"));
            (name, chain["policy"] == "drop")
        })
        .collect()
}

/// Whether a chain on the forward hook drops our traffic: by its policy or by a rule without condition, and no rule of it lets the
/// mesh pass. What the chains do that it jumps to is not looked at. Without its rules its policy decides.
pub(super) fn forward_drops(by_policy: bool, chain: Option<&serde_json::Value>) -> bool {
    match chain {
        None => by_policy,
        Some(chain) => (by_policy || drops_the_rest(chain)) && !lets_mesh_pass(chain),
    }
}

/// Whether a rule drops or rejects whatever comes to it, as the last one of firewalld's and of many iptables files does.
fn drops_the_rest(chain: &serde_json::Value) -> bool {
    let entries = chain["nftables"].as_array().into_iter().flatten();
    entries
        .filter_map(|entry| entry["rule"]["expr"].as_array())
        .any(|rule| {
            let mut parts = rule
                .iter()
                .filter(|part| part.get("counter").is_none() && part.get("log").is_none());
            parts.next().is_some_and(refuses) && parts.next().is_none()
        })
}

fn refuses(part: &serde_json::Value) -> bool {
    // iptables' own reject is an extension, which nft knows by name alone.
    let extension = part["xt"]["type"] == "target" && part["xt"]["name"] == "REJECT";
    extension || part.get("drop").is_some() || part.get("reject").is_some()
}

/// Whether a chain accepts all that comes in by our devices and all that goes out by them, as [`crate::report`] asks for. What
/// its other rules say is not looked at.
fn lets_mesh_pass(chain: &serde_json::Value) -> bool {
    let entries = chain["nftables"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    ["iifname", "oifname"].iter().all(|way| {
        entries
            .iter()
            .filter_map(|entry| entry["rule"]["expr"].as_array())
            .any(|rule| accepts_all_of_ours(rule, way))
    })
}

fn accepts_all_of_ours(rule: &[serde_json::Value], way: &str) -> bool {
    let of_ours = |part: &serde_json::Value| {
        let test = &part["match"];
        test["op"] == "==" && test["left"]["meta"]["key"] == way && test["right"] == "tie*"
    };
    let mut parts = rule.iter().filter(|part| part.get("counter").is_none());
    parts.next().is_some_and(of_ours)
        && parts
            .next()
            .is_some_and(|part| part.get("accept").is_some())
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn route(prefix: &str, links: &[u32], gateway: bool) -> MainRoute {
        MainRoute {
            prefix: prefix.parse().unwrap(),
            links: links.to_vec(),
            gateway,
        }
    }

    #[test]
    fn the_underlay_is_where_default_routes_and_endpoints_are() {
        let main = [
            route("0.0.0.0/0", &[2], true),
            route("10.9.0.0/16", &[3], true),
            route("10.64.1.0/24", &[4], false),
            route("2001:db8::/32", &[5, 6], true),
        ];
        let endpoints = ["10.9.3.4", "192.0.2.1", "2001:db8::9"].map(|text| text.parse().unwrap());
        assert_eq!(
            underlay(&main, &endpoints.into()),
            BTreeSet::from([2, 3, 5, 6])
        );
        assert_eq!(underlay(&main, &BTreeSet::new()), BTreeSet::from([2]));
    }

    #[test]
    fn an_endpoint_among_the_own_pods_makes_no_underlay() {
        let pods = Rule {
            preference: 104,
            family: Family::V4,
            selector: Selector::To("10.64.0.0/16".parse().unwrap()),
            table: TABLE_MAIN,
            suppress_prefix_len: Some(15),
        };
        let seen = ["10.64.3.4", "192.0.2.7"].map(|text| text.parse().unwrap());
        let [_, good] = seen;
        assert_eq!(
            outside_cni(&seen.into(), &[pods].into()),
            BTreeSet::from([good])
        );
        assert_eq!(outside_cni(&seen.into(), &BTreeSet::new()), seen.into());
    }

    #[test]
    fn on_link_prefixes_are_those_without_a_gateway() {
        let main = [
            route("0.0.0.0/0", &[2], true),
            route("192.0.2.0/25", &[2], false),
            route("198.51.100.0/24", &[2], true),
            route("fe80::/64", &[2], false),
        ];
        assert_eq!(prefixes(2, &[], &main).to_string(), "192.0.2.0/25");
    }

    #[test]
    fn only_others_forward_chains_are_looked_at() {
        let chains = serde_json::json!({"nftables": [
            {"metainfo": {}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "ip6", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "accept"}},
            {"chain": {"family": "inet", "table": "tieline", "name": "forw", "hook": "forward", "policy": "drop"}},
        ]});
        assert_eq!(
            forward_chains(&chains),
            BTreeMap::from([
                ("ip filter FORWARD".to_owned(), true),
                ("ip6 filter FORWARD".to_owned(), false),
            ])
        );
    }

    #[test]
    fn a_chain_drops_by_its_policy_or_by_a_rule_without_condition() {
        let chain = |rules: &[serde_json::Value]| {
            let rules = rules
                .iter()
                .map(|expr| serde_json::json!({"rule": {"expr": expr}}));
            let entries: Vec<_> = std::iter::once(serde_json::json!({"chain": {"name": "c"}}))
                .chain(rules)
                .collect();
            serde_json::json!({"nftables": entries})
        };
        // As `nft -j list chain` of nft 1.0.6 prints those of firewalld and of iptables.
        let jump = serde_json::json!([{"jump": {"target": "filter_FORWARD_ZONES"}}]);
        let reject = serde_json::json!([{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]);
        let counter = serde_json::json!({"counter": {"packets": 0, "bytes": 0}});
        let target = serde_json::json!([counter, {"xt": {"type": "target", "name": "REJECT"}}]);
        let logged = serde_json::json!([{"log": {"prefix": "forward "}}, {"drop": null}]);
        let invalid = serde_json::json!([{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "invalid"}}, {"drop": null}]);
        let pass = ["iifname", "oifname"].map(|way| {
            serde_json::json!([{"match": {"op": "==", "left": {"meta": {"key": way}}, "right": "tie*"}}, {"accept": null}])
        });
        for last in [&reject, &target, &logged] {
            assert!(
                forward_drops(false, Some(&chain(&[jump.clone(), last.clone()]))),
                "{last}"
            );
            let cured = [&pass[..], &[jump.clone(), last.clone()]].concat();
            assert!(!forward_drops(false, Some(&chain(&cured))), "{last}");
        }
        for rules in [vec![], vec![jump], vec![invalid]] {
            assert!(!forward_drops(false, Some(&chain(&rules))), "{rules:?}");
            assert!(forward_drops(true, Some(&chain(&rules))), "{rules:?}");
        }
        assert!(forward_drops(true, None) && !forward_drops(false, None));
    }

    #[test]
    fn a_chain_lets_the_mesh_pass_when_it_accepts_our_devices_both_ways() {
        let rule = |way: &str, device: &str, more: &[serde_json::Value]| {
            let test = serde_json::json!({"match": {
                "op": "==", "left": {"meta": {"key": way}}, "right": device,
            }});
            let parts = [&[test], more].concat();
            serde_json::json!({"rule": {"family": "inet", "expr": parts}})
        };
        let counter = serde_json::json!({"counter": {"packets": 3, "bytes": 200}});
        let accept = serde_json::json!({"accept": null});
        let port = serde_json::json!({"match": {
            "op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 443,
        }});
        let both = |second: serde_json::Value| {
            let first = rule("iifname", "tie*", &[counter.clone(), accept.clone()]);
            serde_json::json!({"nftables": [{"chain": {"name": "fwd"}}, first, second]})
        };
        let accepts = std::slice::from_ref(&accept);
        assert!(lets_mesh_pass(&both(rule("oifname", "tie*", accepts))));
        for second in [
            rule("oifname", "tie0", accepts),
            rule("oifname", "tie*", &[port, accept.clone()]),
            rule("oifname", "tie*", &[serde_json::json!({"drop": null})]),
            rule("iifname", "tie*", accepts),
        ] {
            assert!(!lets_mesh_pass(&both(second.clone())), "{second}");
        }
    }
}
