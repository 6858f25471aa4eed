//! What carries the node's pods beside us: devices of network plug-ins, and chains that give packets the node's address.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Chains that are read in one look.
const MOST_CHAINS: usize = 32;
/// Devices by which a network plug-in is known.
const DEVICES: &[&str] = &[
    "antrea-gw0",
    "azure0",
    "cilium_geneve",
    "cilium_host",
    "cilium_net",
    "cilium_vxlan",
    "cni0",
    "kube-bridge",
    "ovn-k8s-mp0",
    "ovn0",
    "vxlan.calico",
    "vxlan-v6.calico",
    "weave",
    "wg-v6.cali",
    "wireguard.cali",
];
/// Those that flannel names after its back end.
const FLANNEL: [&str; 2] = ["flannel.", "flannel-"];
/// What each pod's device begins with, with Calico.
const CALICO: &str = "cali";
/// What each pod's chain begins with, with the plug-ins of the CNI project.
const PER_POD: &str = "CNI-";

/// Those devices that are of network plug-ins.
pub(super) fn devices<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let of_a_pod = format!("{CALICO}*");
    names
        .filter_map(|name| {
            if DEVICES.contains(&name) || FLANNEL.iter().any(|start| name.starts_with(start)) {
                Some(name.to_owned())
            } else {
                is_calicos(name).then(|| of_a_pod.clone())
            }
        })
        .collect()
}

/// Whether a device has the name that Calico gives a pod's: 11 digits follow.
fn is_calicos(name: &str) -> bool {
    name.strip_prefix(CALICO).is_some_and(|digits| {
        digits.len() == 11 && digits.chars().all(|digit| digit.is_ascii_hexdigit())
    })
}

/// Chains of other tables that packets on their way out come through and that give them an address of the node as their source,
/// and whether only packets with a mark. `read` gives a chain with its rules. Verdict maps are not followed.
pub(super) async fn masquerade(
    chains: &Value,
    read: impl AsyncFn(&str) -> Option<Value>,
) -> BTreeMap<String, bool> {
    let mut waiting: VecDeque<(String, bool)> =
        base_chains(chains).map(|chain| (chain, false)).collect();
    let mut known: BTreeSet<(String, bool)> = waiting.iter().cloned().collect();
    let mut found = BTreeMap::new();
    let mut left = MOST_CHAINS;
    while let Some((chain, marked)) = waiting.pop_front()
        && left > 0
    {
        left -= 1;
        let Some(listing) = read(&chain).await else {
            continue;
        };
        let Look { changes, jumps } = look(&listing, marked);
        if let Some(only_marked) = changes {
            let only = found.entry(shown(&chain)).or_insert(only_marked);
            *only &= only_marked;
        }
        let table = chain.rsplit_once(' ').map_or("", |(table, _)| table);
        for (target, marked) in jumps {
            let target = format!("{table} {target}");
            if known.insert((shown(&target), marked)) {
                waiting.push_back((target, marked));
            }
        }
    }
    found
}

/// Other tables' base chains that change sources.
fn base_chains(chains: &Value) -> impl Iterator<Item = String> {
    let entries = chains["nftables"].as_array().into_iter().flatten();
    entries
        .map(|entry| &entry["chain"])
        .filter(|chain| {
            chain["hook"] == "postrouting" && chain["type"] == "nat" && chain["table"] != "tieline"
        })
        .map(|chain| {
            let text = |field: &str| chain[field].as_str().unwrap_or("?").to_owned();
            format!("{} {} {}", text("family"), text("table"), text("name"))
        })
}

/// A chain's name as it is told: it stays the same when pods come and go.
fn shown(chain: &str) -> String {
    match chain.rsplit_once(' ') {
        Some((table, name)) if name.starts_with(PER_POD) => format!("{table} {PER_POD}*"),
        _ => chain.to_owned(),
    }
}

/// What a chain's own rules do.
struct Look {
    /// Whether they give packets another source, and whether only those with a mark.
    changes: Option<bool>,
    /// Chains that packets go on to, and whether only those with a mark do.
    jumps: Vec<(String, bool)>,
}

/// Looks at the rules of a chain, to which only packets with a mark come, or all.
fn look(listing: &Value, mut marked: bool) -> Look {
    let mut seen = Look {
        changes: None,
        jumps: Vec::new(),
    };
    let entries = listing["nftables"].as_array().into_iter().flatten();
    for rule in entries.filter_map(|entry| entry["rule"]["expr"].as_array()) {
        let only_marked = marked || rule.iter().any(|part| tests_mark(part, true));
        if rule.iter().any(gives_source) {
            seen.changes = Some(seen.changes.unwrap_or(true) && only_marked);
        }
        for part in rule {
            let target = part["jump"]["target"].as_str();
            if let Some(target) = target.or(part["goto"]["target"].as_str()) {
                seen.jumps.push((target.to_owned(), only_marked));
            }
        }
        marked |= lets_marked_on(rule);
    }
    seen
}

/// Whether a rule gives packets another source; iptables' own targets are extensions, which nft knows by name alone.
fn gives_source(part: &Value) -> bool {
    let extension = part["xt"]["type"] == "target"
        && ["MASQUERADE", "SNAT"]
            .iter()
            .any(|name| part["xt"]["name"] == *name);
    extension || part.get("masquerade").is_some() || part.get("snat").is_some()
}

/// Whether an expression holds for packets with a mark alone, or for those without it alone.
fn tests_mark(part: &Value, with: bool) -> bool {
    let test = &part["match"];
    let left = &test["left"];
    let of_mark = left["meta"]["key"] == "mark" || left["&"][0]["meta"]["key"] == "mark";
    let same = match test["op"].as_str() {
        Some("==") => true,
        Some("!=") => false,
        _ => return false,
    };
    of_mark && (same == (test["right"] != 0)) == with
}

/// Whether a rule ends the way of all packets without a mark, so that those after it see packets with one alone.
fn lets_marked_on(rule: &[Value]) -> bool {
    let mut parts = rule
        .iter()
        .filter(|part| part.get("counter").is_none() && part["xt"]["name"] != "comment");
    parts.next().is_some_and(|part| tests_mark(part, false))
        && parts.next().is_some_and(|part| {
            ["return", "accept", "drop"]
                .iter()
                .any(|end| part.get(end).is_some())
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    /// `nft -j` of nft 1.0.6 about chains that iptables-nft 1.8.9 and nft made, without handles and versions.
    fn recorded() -> BTreeMap<&'static str, Vec<Value>> {
        let counter = json!({"counter": {"packets": 0, "bytes": 0}});
        let comment = json!({"xt": {"type": "match", "name": "comment"}});
        let target = |name: &str| json!({"xt": {"type": "target", "name": name}});
        let jump = |name: &str| json!({"jump": {"target": name}});
        let test = |op: &str, left: Value, right: Value| json!({"match": {"op": op, "left": left, "right": right}});
        let source = || json!({"payload": {"protocol": "ip", "field": "saddr"}});
        let destination = || json!({"payload": {"protocol": "ip", "field": "daddr"}});
        let prefix = |address: &str, len: u8| json!({"prefix": {"addr": address, "len": len}});
        let mark = || json!({"&": [{"meta": {"key": "mark"}}, 16384]});
        let multicast = test("!=", destination(), prefix("224.0.0.0", 4));
        let end = json!({"return": null});
        let pod = |address: &str, chain: &str| {
            json!([
                test("==", source(), json!(address)),
                comment,
                counter,
                jump(chain)
            ])
        };
        let own_pods =
            json!([test("==", destination(), prefix("10.1.0.0", 24)), counter, {"accept": null}]);
        let docker = json!([
            test("!=", json!({"meta": {"key": "oifname"}}), json!("docker0")),
            test("==", source(), prefix("172.17.0.0", 16)),
            counter,
            target("MASQUERADE"),
        ]);
        let cluster = test("==", source(), prefix("10.244.0.0", 16));
        let hairpin = test(
            "==",
            json!({"concat": [source(), destination()]}),
            json!("@hairpin"),
        );
        BTreeMap::from([
            (
                "ip nat POSTROUTING",
                vec![
                    json!([comment, counter, jump("KUBE-POSTROUTING")]),
                    json!([comment, counter, jump("FLANNEL-POSTRTG")]),
                    pod("10.1.0.5", "CNI-0123456789abcdef01234567"),
                    pod("10.1.0.6", "CNI-76543210fedcba9876543210"),
                ],
            ),
            (
                "ip nat KUBE-POSTROUTING",
                vec![
                    json!([test("!=", mark(), json!(16384)), counter, end]),
                    json!([counter, target("MARK")]),
                    json!([comment, counter, target("MASQUERADE")]),
                ],
            ),
            (
                "ip nat FLANNEL-POSTRTG",
                vec![
                    json!([test("==", mark(), json!(16384)), comment, counter, end]),
                    json!([cluster, multicast, comment, counter, target("MASQUERADE")]),
                ],
            ),
            (
                "ip nat CNI-0123456789abcdef01234567",
                vec![own_pods, json!([multicast, counter, target("MASQUERADE")])],
            ),
            ("ip docker POSTROUTING", vec![docker]),
            (
                "ip6 nat POSTROUTING",
                vec![json!([
                    test("==", source(), prefix("fd00::", 64)),
                    counter,
                    target("SNAT")
                ])],
            ),
            (
                "inet cni_plugins_masquerade postrouting",
                vec![json!([jump("masq_checks")])],
            ),
            (
                "inet cni_plugins_masquerade masq_checks",
                vec![
                    json!([test("==", source(), json!("10.1.0.7")), multicast, {"masquerade": null}]),
                ],
            ),
            (
                "ip kube-proxy nat-postrouting",
                vec![json!([jump("masquerading")])],
            ),
            (
                "ip kube-proxy masquerading",
                vec![
                    json!([test("==", mark(), json!(0)), end]),
                    json!([{"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"^": [{"meta": {"key": "mark"}}, 16384]}}}]),
                    json!([{"masquerade": {"flags": "fully-random"}}]),
                ],
            ),
            (
                "ip newer-proxy nat-postrouting",
                vec![
                    json!([test("!=", mark(), json!(0)), {"masquerade": {"flags": "fully-random"}}]),
                    json!([hairpin, {"masquerade": {"flags": "fully-random"}}]),
                ],
            ),
            (
                "ip quiet postrouting",
                vec![json!([counter, {"accept": null}])],
            ),
        ])
    }

    /// As `nft -j list chains` names them.
    fn list(names: &[&str]) -> Value {
        let chains = names.iter().map(|chain| {
            let words: Vec<&str> = chain.split(' ').collect();
            json!({"chain": {"family": words[0], "table": words[1], "name": words[2],
                "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}})
        });
        let all: Vec<Value> = std::iter::once(json!({"metainfo": {}}))
            .chain(chains)
            .collect();
        json!({"nftables": all})
    }

    /// What is found from these base chains on, and which chains were read.
    async fn walk(names: &[&str]) -> (Vec<(String, bool)>, usize) {
        let recorded = recorded();
        let reads = std::cell::Cell::new(0);
        let found = masquerade(&list(names), async |chain: &str| {
            reads.set(reads.get() + 1);
            let rules = recorded.get(chain)?;
            let rules = rules.iter().map(|expr| json!({"rule": {"expr": expr}}));
            let all: Vec<Value> = std::iter::once(json!({"chain": {}})).chain(rules).collect();
            Some(json!({"nftables": all}))
        })
        .await;
        (found.into_iter().collect(), reads.get())
    }

    #[tokio::test]
    async fn chains_that_masquerade_are_found_behind_jumps() {
        for (base, expected) in [
            (
                "ip nat POSTROUTING",
                &[
                    ("ip nat CNI-*", false),
                    ("ip nat FLANNEL-POSTRTG", false),
                    ("ip nat KUBE-POSTROUTING", true),
                ][..],
            ),
            ("ip docker POSTROUTING", &[("ip docker POSTROUTING", false)]),
            ("ip6 nat POSTROUTING", &[("ip6 nat POSTROUTING", false)]),
            (
                "inet cni_plugins_masquerade postrouting",
                &[("inet cni_plugins_masquerade masq_checks", false)],
            ),
            (
                "ip kube-proxy nat-postrouting",
                &[("ip kube-proxy masquerading", true)],
            ),
            // Connections of a pod to itself by a Service: kube-proxy 1.36 knows them without a mark.
            (
                "ip newer-proxy nat-postrouting",
                &[("ip newer-proxy nat-postrouting", false)],
            ),
            ("ip quiet postrouting", &[]),
            ("ip tieline nat_post", &[]),
        ] {
            let (found, _) = walk(&[base]).await;
            let found: Vec<_> = found
                .iter()
                .map(|(chain, marked)| (chain.as_str(), *marked))
                .collect();
            assert_eq!(found, expected, "{base}");
        }
    }

    #[tokio::test]
    async fn a_look_reads_few_chains_however_many_pods_and_tables_there_are() {
        // Of the chains of pods one is read.
        assert_eq!(walk(&["ip nat POSTROUTING"]).await.1, 4);
        let names: Vec<String> = (0..100).map(|number| format!("ip t{number} c")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(walk(&names).await.1, MOST_CHAINS);
    }

    #[test]
    fn a_mark_is_asked_for_in_two_ways() {
        let test = |op: &str, right: u32| json!({"match": {"op": op, "left": {"meta": {"key": "mark"}}, "right": right}});
        for (part, with) in [
            (test("==", 0x4000), true),
            (test("!=", 0), true),
            (test("!=", 0x4000), false),
            (test("==", 0), false),
        ] {
            assert!(tests_mark(&part, with), "{part}");
            assert!(!tests_mark(&part, !with), "{part}");
        }
        let other = json!({"match": {"op": "==", "left": {"meta": {"key": "oif"}}, "right": 1}});
        assert!(!tests_mark(&other, true) && !tests_mark(&other, false));
    }

    #[test]
    fn devices_of_plug_ins_are_told_and_those_of_pods_are_one() {
        let names = [
            "lo",
            "eth0",
            "cni0",
            "flannel.1",
            "flannel-v6.1",
            "calibration0",
            "cali0123456789a",
            "cilium_host",
            "veth0123",
            "docker0",
            "tie0",
            "wireguard.cali",
        ];
        assert!(!is_calicos("calibration0") && devices(["cali-bridge0"].into_iter()).is_empty());
        let found: Vec<String> = devices(names.into_iter()).into_iter().collect();
        assert_eq!(
            found,
            [
                "cali*",
                "cilium_host",
                "cni0",
                "flannel-v6.1",
                "flannel.1",
                "wireguard.cali"
            ]
        );
    }
}
