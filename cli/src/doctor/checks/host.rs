//! What agents tell of their nodes: filters that drop forwarded packets, forwarding, reverse-path filter, MTU, clock.

use super::install::node_clock;
use super::{Facts, Finding, read};
use tieline_core::host::firewall::let_through;
use tieline_core::plan::listed;
use tieline_crds::Peer;
use tieline_crds::condition::PeerCondition;
use tieline_crds::peer::HostFacts;

/// The least MTU of a device that leads to other nodes: IPv6 needs 1280 inside a tunnel, which takes 80.
const LEAST_MTU: u32 = 1360;
/// What the internet carries.
const USUAL_MTU: u32 = 1500;
/// `rp_filter` that drops what comes in by another way than an answer would take.
const STRICT: u8 = 1;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    const ID: &str = "host";
    let peers = read(&facts.peers);
    if peers.is_empty() {
        return vec![
            Finding::unknown(ID, "forwarding, other firewalls, reverse-path filter, MTU and clocks of the nodes: only the agents can tell")
                .todo("install the chart (it changes nothing on a node), apply a Cluster and a ClusterLink, then run doctor again"),
        ];
    }
    let mut all = Vec::new();
    let mut silent = Vec::new();
    for peer in peers {
        all.extend(forward_drops(peer));
        match peer.status.as_ref().and_then(|status| status.host.as_ref()) {
            Some(host) => {
                all.extend(forwarding(peer, host));
                all.extend(underlay(peer, host));
                all.extend(
                    host.clock_ahead_seconds
                        .and_then(|ahead| node_clock(&peer.spec.node, ahead.into())),
                );
            }
            None => silent.push(peer.spec.node.as_str()),
        }
    }
    if !silent.is_empty() {
        all.push(
            Finding::unknown(
                ID,
                format!("agents do not tell of their hosts: {}", listed(silent)),
            )
            .todo("are these agents running, and of the same version as this program?"),
        );
    }
    if all.is_empty() {
        all.push(Finding::ok(ID, in_order(peers)));
    }
    all
}

/// What was looked at and is in order; no more than that.
fn in_order(peers: &[Peer]) -> String {
    let hosts = || {
        peers.iter().filter_map(|peer| {
            let host = peer.status.as_ref()?.host.as_ref()?;
            Some((peer, host))
        })
    };
    let mut parts = vec![
        "on every node: no forward chain of nftables drops what none of its rules accepts (what it jumps to, and iptables-legacy, were not looked at)",
    ];
    if hosts().all(|(peer, host)| tells_forwarding(peer, host)) {
        parts.push("packets are forwarded");
    }
    if hosts().all(|(_, host)| !host.underlay.is_empty()) {
        parts.push("MTU and reverse-path filter are in order");
    }
    parts.push("no agent tells of a clock that is off");
    parts.join("; ")
}

/// Whether the agent says so for every family that the node's pods have.
fn tells_forwarding(peer: &Peer, host: &HostFacts) -> bool {
    let cidrs = &peer.spec.pod_cidrs;
    let needs = |ipv6: bool| cidrs.iter().any(|cidr| cidr.contains(':') == ipv6);
    !cidrs.is_empty()
        && (!needs(false) || host.forwards_ipv4 == Some(true))
        && (!needs(true) || host.forwards_ipv6 == Some(true))
}

fn at(peer: &Peer) -> String {
    format!("Node {}", peer.spec.node)
}

/// Other tables' chains that drop, by what the agent tells or else by its condition, which holds the rules to add.
fn forward_drops(peer: &Peer) -> Option<Finding> {
    const ID: &str = "forward-drop";
    let status = peer.status.as_ref()?;
    let told = status.host.iter().flat_map(|host| &host.forward_drops);
    let rules: Vec<String> = told.clone().flat_map(|chain| let_through(chain)).collect();
    let finding = if rules.is_empty() {
        let condition = PeerCondition::ForwardDropped.of(&status.conditions);
        let condition = condition.filter(|it| it.status == "True")?;
        Finding::problem(ID, condition.message.clone()).todo(
            "add the rules that are named here, and keep them where that firewall is configured",
        )
    } else {
        let message = format!(
            "other forward chains drop what none of their rules accepts, which Tieline cannot override: {}",
            listed(told)
        );
        Finding::problem(ID, message).todo(format!(
            "{}; and keep the rules where that firewall is configured",
            rules.join("; ")
        ))
    };
    Some(finding.at(at(peer)))
}

fn forwarding(peer: &Peer, host: &HostFacts) -> Option<Finding> {
    // Switched on with the mesh: before that it says nothing.
    peer.status.as_ref()?.applied_revision?;
    let mut off = Vec::new();
    if host.forwards_ipv4 == Some(false) {
        off.push("net.ipv4.ip_forward");
    }
    let has_ipv6 = peer.spec.pod_cidrs.iter().any(|cidr| cidr.contains(':'));
    if has_ipv6 && host.forwards_ipv6 == Some(false) {
        off.push("net.ipv6.conf.all.forwarding");
    }
    if off.is_empty() {
        return None;
    }
    Some(
        Finding::problem("forwarding", format!("the node does not forward packets: {} is 0 though the mesh switched it on", off.join(" and ")))
            .at(at(peer))
            .todo("find what sets it back (a file of /etc/sysctl.d, a configuration management) and set it to 1 there"),
    )
}

fn underlay(peer: &Peer, host: &HostFacts) -> Vec<Finding> {
    let mut all = Vec::new();
    for device in &host.underlay {
        let name = &device.device;
        if device.mtu < LEAST_MTU {
            all.push(
                Finding::problem("mtu", format!("the MTU of {name} is {}: a tunnel needs 80 of it, and IPv6 needs 1280 inside, so {LEAST_MTU} at least", device.mtu))
                    .at(at(peer))
                    .todo(format!("ip link set {name} mtu 1500, where the network carries it, and in the network configuration")),
            );
        } else if device.mtu > USUAL_MTU && peer.spec.gateway_rank.is_some() {
            all.push(
                Finding::warning("mtu", format!("the MTU of {name} is {}, and between sites a path often carries no more than {USUAL_MTU}: larger packets would vanish", device.mtu))
                    .at(at(peer))
                    .todo(format!("ping -M do -s {} from here to the gateways of other sites; where that fails, lower the MTU of the route to them: ip route change … mtu {USUAL_MTU}", device.mtu.saturating_sub(28))),
            );
        }
    }
    let strict: Vec<&str> = host
        .underlay
        .iter()
        .filter(|it| it.reverse_path_filter == Some(STRICT))
        .map(|it| it.device.as_str())
        .collect();
    if host.underlay.len() > 1 && !strict.is_empty() {
        all.push(
            Finding::warning("reverse-path-filter", format!("the node has several ways out, and the reverse-path filter of {} is strict: what comes in by another way than the answer takes is dropped", listed(strict)))
                .at(at(peer))
                .todo("set net.ipv4.conf.all.rp_filter=2 (loose), unless packets always come and go by the same device"),
        );
    }
    all
}
