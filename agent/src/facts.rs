//! What only this host knows, gathered from readings that were taken already. Pure.

use crate::platform::{Observation, Surroundings};
use crate::store::SeenEndpoint;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use tieline_core::claims::{MAX_ENDPOINTS, is_link_local};
use tieline_core::health::{Liveness, PathId, PathState, PathStates, path_states};
use tieline_core::host::{DeviceName, HostState, KeySource, Target};
use tieline_core::ids::{NodeName, VpnName};
use tieline_core::keys::PublicKey;
use tieline_core::network_plan::NetworkPlan;
use tieline_core::node::LocalFacts;
use tieline_core::peer::{AcceptedPeers, Endpoint, EndpointHost, Scope};
use tieline_crds::peer::{HostFacts, MasqueradeFacts, PodNetworkFacts, UnderlayFacts};

/// Where the API server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiServer {
    /// At this address.
    Address(IpAddr),
    /// Under this name.
    Name(NodeName),
}

/// What facts are made from.
#[derive(Debug)]
pub struct Readings<'a> {
    /// The kernel's state of ours.
    pub observation: &'a Observation,
    /// What is around us.
    pub surroundings: &'a Surroundings,
    /// Public key of each device that this node can run.
    pub keys: BTreeMap<DeviceName, PublicKey>,
    /// Last good DNS answers.
    pub names: BTreeMap<NodeName, Vec<IpAddr>>,
    /// Where peers were last seen.
    pub seen: &'a [SeenEndpoint],
    /// The API server's hosts.
    pub api_servers: &'a [ApiServer],
    /// First UDP port.
    pub first_port: u16,
    /// Mark of encrypted packets.
    pub fwmark: u32,
}

/// The host's facts.
#[must_use]
pub fn local_facts(readings: Readings<'_>) -> LocalFacts {
    let Readings {
        observation,
        surroundings,
        keys,
        names,
        seen,
        api_servers,
        first_port,
        fwmark,
    } = readings;
    LocalFacts {
        underlay: surroundings.underlay.clone(),
        api_servers: api_servers
            .iter()
            .flat_map(|server| match server {
                ApiServer::Address(address) => vec![*address],
                ApiServer::Name(name) => names.get(name).cloned().unwrap_or_default(),
            })
            .collect(),
        keys,
        resolved: names,
        last_seen: seen
            .iter()
            .map(|seen| (PathId::new(seen.device, seen.key), seen.endpoint))
            .collect(),
        paths: path_states(&observation.liveness),
        netdev_egress: surroundings.netdev_egress,
        accept_ra: surroundings.accept_ra.clone(),
        forwards_ipv6: surroundings.forwards_ipv6.clone(),
        without_ipv6: surroundings.without_ipv6,
        first_port,
        fwmark,
    }
}

/// Where peers are seen now, with what is known of those that are not: peers that no device has any more are forgotten.
#[must_use]
pub fn seen_endpoints(observation: &Observation, before: &[SeenEndpoint]) -> Vec<SeenEndpoint> {
    let remembered: BTreeMap<PathId, SocketAddr> = before
        .iter()
        .map(|seen| (PathId::new(seen.device, seen.key), seen.endpoint))
        .collect();
    let mut all = Vec::new();
    for (device, state) in &observation.state.devices {
        for (key, peer) in &state.peers {
            let path = PathId::new(*device, *key);
            let seen = observation.liveness.get(&path);
            let alive = seen.and_then(Liveness::judge) == Some(PathState::Up);
            let now = if alive { peer.endpoint } else { None };
            if let Some(endpoint) = now.or_else(|| remembered.get(&path).copied()) {
                all.push(SeenEndpoint {
                    device: *device,
                    key: *key,
                    endpoint,
                });
            }
        }
    }
    // Devices that do not exist at this moment (a restart of an embedded backend) keep what is known.
    let gone = before
        .iter()
        .filter(|seen| !observation.state.devices.contains_key(&seen.device));
    all.extend(gone.cloned());
    all
}

/// Every DNS name that the plan and the peers mention.
#[must_use]
pub fn dns_names(
    plan: &NetworkPlan,
    peers: &AcceptedPeers,
    api_servers: &[ApiServer],
) -> BTreeSet<NodeName> {
    let endpoints = peers
        .values()
        .flat_map(|peer| &peer.endpoints)
        .chain(plan.sites.iter().flat_map(|site| &site.public_addresses))
        .chain(plan.vpns.iter().filter_map(|vpn| vpn.endpoint.as_ref()));
    endpoints
        .filter_map(|endpoint| match &endpoint.host {
            EndpointHost::Name(name) => Some(name.clone()),
            EndpointHost::Address(_) => None,
        })
        .chain(server_names(api_servers))
        .collect()
}

/// DNS names of API servers.
pub fn server_names(api_servers: &[ApiServer]) -> impl Iterator<Item = NodeName> {
    api_servers.iter().filter_map(|server| match server {
        ApiServer::Name(name) => Some(name.clone()),
        ApiServer::Address(_) => None,
    })
}

/// What this node claims: what was configured, and its own addresses. An address of a private range is of use inside
/// the site; another is of use to everybody.
#[must_use]
pub fn claimed_endpoints(addresses: &BTreeSet<IpAddr>, configured: &[Endpoint]) -> Vec<Endpoint> {
    let found = addresses
        .iter()
        .filter(|address| {
            !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
        })
        .map(|address| Endpoint {
            host: EndpointHost::Address(*address),
            port: None,
            scope: if is_private(*address) {
                Scope::Site
            } else {
                Scope::Public
            },
        });
    let mut all: Vec<Endpoint> = Vec::new();
    for endpoint in configured.iter().cloned().chain(found) {
        let known = all
            .iter()
            .any(|other| other.host == endpoint.host && other.port == endpoint.port);
        if !known && all.len() < MAX_ENDPOINTS {
            all.push(endpoint);
        }
    }
    all
}

/// What is told of the host, within the schema's bounds and in an order that stays.
#[must_use]
pub fn host_facts(around: &Surroundings, state: &HostState) -> HostFacts {
    let switch = |path: &str| state.sysctls.get(path).map(|value| value != "0");
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    HostFacts {
        kernel: around.kernel.as_deref().map(|text| cut(text, 128)),
        forwards_ipv4: switch("net/ipv4/ip_forward"),
        forwards_ipv6: switch("net/ipv6/conf/all/forwarding"),
        underlay: around
            .underlay
            .iter()
            .take(8)
            .map(|(name, device)| UnderlayFacts {
                device: cut(name, 16),
                mtu: device.mtu,
                reverse_path_filter: around
                    .reverse_path_filter
                    .get(name)
                    .map(|value| (*value).min(2)),
            })
            .collect(),
        forward_drops: around
            .foreign_forward_drops
            .iter()
            .take(16)
            .map(|chain| cut(chain, 192))
            .collect(),
        pod_network: Some(PodNetworkFacts {
            devices: around
                .plug_in_devices
                .iter()
                .take(8)
                .map(|name| cut(name, 16))
                .collect(),
            masquerade: around
                .foreign_masquerade
                .iter()
                .filter(|(chain, _)| chain.chars().count() <= 192)
                .take(16)
                .map(|(chain, only_marked)| MasqueradeFacts {
                    chain: chain.clone(),
                    only_marked: *only_marked,
                })
                .collect(),
        }),
        // The publisher knows it.
        clock_ahead_seconds: None,
    }
}

/// RFC 1918, RFC 6598 (shared between a provider's customers), RFC 3927 and RFC 4193.
fn is_private(address: IpAddr) -> bool {
    let private = match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_unique_local(),
    };
    private || is_link_local(address)
}

/// How many paths to gateways are up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// Up.
    pub up: usize,
    /// All.
    pub total: usize,
    /// Those whose first handshake is still awaited.
    pub connecting: usize,
    /// Those that are not up, as `peer by device`, sorted.
    pub down: Vec<String>,
}

/// Counts the tunnels to gateways: those of the devices as wanted, judged by their states.
#[must_use]
pub fn count_paths(
    plan: &NetworkPlan,
    peers: &AcceptedPeers,
    wanted: &HostState,
    states: &PathStates,
    is_connecting: impl Fn(PathId) -> bool,
) -> Paths {
    let mut owners: BTreeMap<PublicKey, &str> = BTreeMap::new();
    for gateway in plan.segments.iter().flat_map(|segment| &segment.gateways) {
        for key in peers
            .get(&gateway.peer)
            .into_iter()
            .flat_map(|peer| peer.keys.values())
        {
            owners.insert(*key, gateway.peer.as_str());
        }
    }
    let mut paths = Paths::default();
    for (device, state) in &wanted.devices {
        for key in state.peers.keys() {
            let Some(owner) = owners.get(key) else {
                continue;
            };
            paths.total += 1;
            let path = PathId::new(*device, *key);
            if states.get(&path) == Some(&PathState::Up) {
                paths.up += 1;
            } else {
                paths.connecting += usize::from(is_connecting(path));
                paths.down.push(format!("{owner} by {device}"));
            }
        }
    }
    paths.down.sort();
    paths
}

/// Whether the session with each foreign box is up, for those attachments that this gateway is active for: it is the one
/// that sends their prefixes out by their own device. A standby gateway has none, and that is as it should be.
#[must_use]
pub fn vpn_sessions(wanted: &HostState, states: &PathStates) -> BTreeMap<VpnName, bool> {
    let active: BTreeSet<DeviceName> = wanted
        .routes
        .values()
        .filter_map(|route| match &route.target {
            Target::Devices(devices) => Some(devices),
            Target::Unreachable | Target::Throw => None,
        })
        .flatten()
        .copied()
        .collect();
    wanted
        .devices
        .iter()
        .filter(|(name, _)| active.contains(name))
        .filter_map(|(name, device)| match &device.key {
            KeySource::Attachment(vpn) => {
                let up =
                    |key: &PublicKey| states.get(&PathId::new(*name, *key)) == Some(&PathState::Up);
                Some((vpn.clone(), device.peers.keys().any(up)))
            }
            KeySource::Own => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tieline_core::host::{Device, METRIC_REMOTE, Route, RouteKey, TABLE_REMOTE, WgPeer};

    #[test]
    fn what_is_told_of_the_host_is_bounded_and_stable() {
        let mut around = Surroundings {
            kernel: Some("6.1.0-x".repeat(40)),
            foreign_forward_drops: (0..40)
                .map(|number| format!("ip filter chain{number:02}"))
                .collect(),
            plug_in_devices: (0..20).map(|number| format!("flannel.{number}")).collect(),
            foreign_masquerade: (0..40)
                .map(|number| (format!("ip nat chain{number:02}"), number == 0))
                .chain([(format!("inet {} chain", "x".repeat(200)), false)])
                .collect(),
            ..Surroundings::default()
        };
        for number in 0..20 {
            let device = tieline_core::node::UnderlayDevice {
                mtu: 1500,
                prefixes: tieline_core::cidr::PrefixSet::default(),
            };
            around.underlay.insert(format!("eth{number:02}"), device);
        }
        around.reverse_path_filter.insert("eth00".into(), 1);
        let mut state = HostState::default();
        state
            .sysctls
            .insert("net/ipv4/ip_forward".into(), "1".into());
        let facts = host_facts(&around, &state);
        assert_eq!(facts, host_facts(&around.clone(), &state));
        assert_eq!((facts.underlay.len(), facts.forward_drops.len()), (8, 16));
        assert_eq!(facts.kernel.unwrap().len(), 128);
        let pods = facts.pod_network.unwrap();
        assert_eq!((pods.devices.len(), pods.masquerade.len()), (8, 16));
        let first = &pods.masquerade[0];
        assert_eq!(
            (first.chain.as_str(), first.only_marked),
            ("ip nat chain00", true)
        );
        assert!(!pods.masquerade[1].only_marked);
        assert_eq!(
            (facts.forwards_ipv4, facts.forwards_ipv6),
            (Some(true), None)
        );
        assert_eq!(facts.underlay[0].reverse_path_filter, Some(1));
        assert_eq!(facts.underlay[1].reverse_path_filter, None);
    }

    #[test]
    fn private_addresses_are_for_the_site_and_configured_endpoints_come_first() {
        let addresses = [
            "10.1.2.3",
            "203.0.113.7",
            "fd00::7",
            "2001:db8::7",
            "100.65.0.1",
        ]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
        let configured = [
            Endpoint::parse("gw.example.com:7000", Scope::Public).unwrap(),
            Endpoint::parse("10.1.2.3", Scope::Public).unwrap(),
        ];
        let claimed: Vec<String> = claimed_endpoints(&addresses, &configured)
            .iter()
            .map(|endpoint| format!("{endpoint} {:?}", endpoint.scope))
            .collect();
        assert_eq!(
            claimed,
            [
                "gw.example.com:7000 Public",
                "10.1.2.3 Public",
                "100.65.0.1 Site",
                "203.0.113.7 Public",
                "2001:db8::7 Public",
                "fd00::7 Site",
            ]
        );
    }

    #[test]
    fn only_the_active_gateway_reports_a_vpns_session() {
        let key = PublicKey::from_bytes([9; 32]).unwrap();
        let name = DeviceName::vpn(0);
        let vpn = VpnName::new("hq").unwrap();
        let peer = WgPeer {
            allowed_ips: Vec::new().into(),
            endpoint: None,
            keepalive: None,
            preshared_key: None,
        };
        let device = Device {
            public_key: key,
            key: KeySource::Attachment(vpn.clone()),
            port: 21884,
            fwmark: 0x1000,
            mtu: 1420,
            addresses: BTreeSet::new(),
            peers: BTreeMap::from([(key, peer)]),
        };
        let mut wanted = HostState::default();
        wanted.devices.insert(name, device);
        let alive = PathStates::from([(PathId::new(name, key), PathState::Up)]);
        assert_eq!(vpn_sessions(&wanted, &alive), BTreeMap::new());
        let route = RouteKey {
            table: TABLE_REMOTE,
            prefix: "172.16.0.0/16".parse().unwrap(),
            metric: METRIC_REMOTE,
        };
        let out = Route {
            target: Target::Devices(vec![name]),
            source: None,
            mtu: None,
        };
        wanted.routes.insert(route, out);
        let sessions = vpn_sessions(&wanted, &alive);
        assert_eq!(sessions, BTreeMap::from([(vpn.clone(), true)]));
        let silent = vpn_sessions(&wanted, &PathStates::new());
        assert_eq!(silent, BTreeMap::from([(vpn, false)]));
    }
}
