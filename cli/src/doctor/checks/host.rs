//! What agents tell of their nodes: filters that drop forwarded packets, forwarding, reverse-path filter, MTU, clock.

use super::{Facts, Finding, read};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let peers = read(&facts.peers);
    if peers.is_empty() {
        return vec![
            Finding::unknown("host", "forwarding, other firewalls, reverse-path filter, MTU and clocks of the nodes: only the agents can tell")
                .todo("install the chart (it changes nothing on a node), apply a Cluster and a ClusterLink, then run doctor again"),
        ];
    }
    let mut all = Vec::new();
    for peer in peers {
        let node = &peer.spec.node;
        let Some(status) = &peer.status else { continue };
        let dropped = status
            .conditions
            .iter()
            .find(|it| it.type_ == "ForwardDropped" && it.status == "True");
        if let Some(condition) = dropped {
            let chains = chains(&condition.message);
            all.push(
                Finding::problem("forward-drop", condition.message.clone())
                    .at(format!("Node {node}"))
                    .todo(
                        chains
                            .iter()
                            .map(|chain| accept(chain))
                            .collect::<Vec<_>>()
                            .join("; "),
                    ),
            );
        }
    }
    all
}

/// The chains that a condition's message names, as `family table chain`.
fn chains(message: &str) -> Vec<String> {
    let Some((_, list)) = message.split_once("override: ") else {
        return Vec::new();
    };
    let list = list.split(". Accept").next().unwrap_or(list);
    list.split("; ").map(str::to_owned).collect()
}

/// The command that lets our traffic through a chain that drops by default.
fn accept(chain: &str) -> String {
    let words: Vec<&str> = chain.split(' ').collect();
    match words.as_slice() {
        ["ip", "filter", "FORWARD"] => {
            "iptables -I FORWARD -i tie+ -j ACCEPT; iptables -I FORWARD -o tie+ -j ACCEPT"
                .to_owned()
        }
        ["ip6", "filter", "FORWARD"] => {
            "ip6tables -I FORWARD -i tie+ -j ACCEPT; ip6tables -I FORWARD -o tie+ -j ACCEPT"
                .to_owned()
        }
        _ => format!(
            "nft insert rule {chain} iifname \"tie*\" accept; nft insert rule {chain} oifname \"tie*\" accept"
        ),
    }
}
