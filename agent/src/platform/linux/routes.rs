//! Routes in our three tables.
//!
//! Whatever stands in those tables is ours to keep right, whoever wrote it; a route of a shape that we never write is
//! reported as leading nowhere ([`Target::Devices`] of nothing), so that it is replaced or removed.
//!
//! Two things differ between the families. IPv6 refuses multipath next hops without a gateway ("device only routes"), so
//! ours get a link-local one, which nobody resolves: TUN and WireGuard links have no neighbours. And IPv6 turns metric 0
//! into 1024.

use super::links::Links;
use super::netlink::{Netlink, tolerate};
use super::rules::{address_family, none_without_the_family};
use super::sockets::Sockets;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteNextHop, RouteProtocol,
    RouteScope, RouteType,
};
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tieline_core::cidr::{Family, Prefix};
use tieline_core::host::{
    DeviceName, ROUTE_PROTOCOL, Route, RouteKey, TABLE_GUARD, TABLE_INNER, TABLE_REMOTE, Target,
};

/// Gateway of IPv6 multipath next hops.
const ANY_NEIGHBOUR: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// What IPv6 makes of metric 0.
const DEFAULT_METRIC_V6: u32 = 1024;
/// Our tables.
pub(super) const TABLES: [u32; 3] = [TABLE_REMOTE, TABLE_GUARD, TABLE_INNER];

/// Reads all routes of our tables.
pub(super) async fn read(
    netlink: &Netlink,
    links: &Links,
) -> io::Result<BTreeMap<RouteKey, Route>> {
    let mut routes = BTreeMap::new();
    for family in Family::BOTH {
        for table in TABLES {
            for message in dump(netlink, family, table).await? {
                if let Some((key, route)) = parse(&message, links) {
                    routes.insert(key, route);
                }
            }
        }
    }
    Ok(routes)
}

/// All routes of one table, as messages.
pub(super) async fn dump(
    netlink: &Netlink,
    family: Family,
    table: u32,
) -> io::Result<Vec<RouteMessage>> {
    let mut request = RouteMessage::default();
    request.header.address_family = address_family(family);
    request.attributes = vec![RouteAttribute::Table(table)];
    let found = match netlink.dump(RouteNetlinkMessage::GetRoute(request)).await {
        // The table was never written to.
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Vec::new(),
        other => other.or_else(none_without_the_family)?,
    };
    Ok(found
        .into_iter()
        .filter_map(|message| match message {
            // A kernel that ignores the filter sends every table.
            RouteNetlinkMessage::NewRoute(route) if table_of(&route) == table => Some(route),
            _ => None,
        })
        .collect())
}

/// Adds or replaces a route; `None` removes it.
pub(super) async fn write(
    sockets: &mut Sockets,
    key: &RouteKey,
    route: Option<&Route>,
) -> io::Result<()> {
    let Some(route) = route else {
        return remove(&sockets.netlink, key).await;
    };
    let links = sockets.links().await?;
    sockets
        .netlink
        .request(
            RouteNetlinkMessage::NewRoute(message(key, route, &links)?),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
        .await
}

/// Removes a route; one that is gone already is no error.
async fn remove(netlink: &Netlink, key: &RouteKey) -> io::Result<()> {
    let mut message = head(key);
    message.header.scope = RouteScope::NoWhere; // of any scope
    tolerate(
        netlink
            .request(RouteNetlinkMessage::DelRoute(message), 0)
            .await,
        &[Errno::ESRCH, Errno::ENOENT],
    )
}

fn head(key: &RouteKey) -> RouteMessage {
    let family = key.prefix.family();
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(family);
    message.header.destination_prefix_length = key.prefix.len();
    message.attributes = vec![
        RouteAttribute::Table(key.table),
        RouteAttribute::Destination(key.prefix.address().into()),
    ];
    match (family, key.metric) {
        (Family::V4, 0) => {}
        (Family::V6, 0) => message
            .attributes
            .push(RouteAttribute::Priority(DEFAULT_METRIC_V6)),
        (_, metric) => message.attributes.push(RouteAttribute::Priority(metric)),
    }
    message
}

fn message(key: &RouteKey, route: &Route, links: &Links) -> io::Result<RouteMessage> {
    let mut message = head(key);
    message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    match &route.target {
        Target::Unreachable => message.header.kind = RouteType::Unreachable,
        Target::Throw => message.header.kind = RouteType::Throw,
        Target::Devices(devices) => {
            message.header.kind = RouteType::Unicast;
            let family = key.prefix.family();
            let hops = match &devices[..] {
                [] => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "a route needs a device to lead to",
                    ));
                }
                [device] => {
                    if family == Family::V4 {
                        message.header.scope = RouteScope::Link;
                    }
                    RouteAttribute::Oif(links.index_of(*device)?)
                }
                several => RouteAttribute::MultiPath(
                    several
                        .iter()
                        .map(|device| Ok(next_hop(family, links.index_of(*device)?)))
                        .collect::<io::Result<_>>()?,
                ),
            };
            message.attributes.push(hops);
        }
    }
    if let Some(source) = route.source {
        message
            .attributes
            .push(RouteAttribute::PrefSource(source.into()));
    }
    if let Some(mtu) = route.mtu {
        message
            .attributes
            .push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    Ok(message)
}

fn next_hop(family: Family, index: u32) -> RouteNextHop {
    let mut hop = RouteNextHop::default();
    hop.interface_index = index;
    if family == Family::V6 {
        hop.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet6(ANY_NEIGHBOUR))];
    }
    hop
}

fn table_of(message: &RouteMessage) -> u32 {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        })
        .unwrap_or_else(|| message.header.table.into())
}

/// The destination of a route.
pub(super) fn prefix_of(message: &RouteMessage) -> Option<Prefix> {
    let unspecified: IpAddr = match message.header.address_family {
        netlink_packet_route::AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        netlink_packet_route::AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => ip(address),
            _ => None,
        })
        .unwrap_or(unspecified);
    Some(Prefix::containing(
        address,
        message.header.destination_prefix_length,
    ))
}

/// Indexes of the links that a route leads out by, and whether one of its next hops has a gateway.
pub(super) fn links_of(message: &RouteMessage) -> (Vec<u32>, bool) {
    let has_gateway = |attributes: &[RouteAttribute]| {
        attributes
            .iter()
            .any(|a| matches!(a, RouteAttribute::Gateway(_) | RouteAttribute::Via(_)))
    };
    let (mut indexes, mut gateway) = (Vec::new(), has_gateway(&message.attributes));
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => indexes.push(*index),
            RouteAttribute::MultiPath(hops) => {
                indexes.extend(hops.iter().map(|hop| hop.interface_index));
                gateway |= hops.iter().any(|hop| has_gateway(&hop.attributes));
            }
            _ => {}
        }
    }
    (indexes, gateway)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn parse(message: &RouteMessage, links: &Links) -> Option<(RouteKey, Route)> {
    let prefix = prefix_of(message)?;
    let (mut metric, mut source, mut mtu) = (0, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(bytes) => Some(*bytes),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    if prefix.family() == Family::V6 && metric == DEFAULT_METRIC_V6 {
        metric = 0;
    }
    let target = match message.header.kind {
        RouteType::Unreachable => Target::Unreachable,
        RouteType::Throw => Target::Throw,
        RouteType::Unicast => Target::Devices(devices(message, links)),
        _ => Target::Devices(Vec::new()),
    };
    let key = RouteKey {
        table: table_of(message),
        prefix,
        metric,
    };
    Some((
        key,
        Route {
            target,
            source,
            mtu,
        },
    ))
}

/// Our devices behind the route's next hops; next hops by links that are gone or not ours do not count.
fn devices(message: &RouteMessage, links: &Links) -> Vec<DeviceName> {
    let mut devices: Vec<DeviceName> = links_of(message)
        .0
        .into_iter()
        .filter_map(|index| links.by_index(index)?.ours())
        .collect();
    devices.sort_unstable();
    devices
}
