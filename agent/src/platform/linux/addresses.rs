//! Mesh addresses on our devices: IPv4 /32 with scope link, IPv6 /128 with preferred lifetime 0.
//!
//! So they are valid sources for routes that name them, and never chosen for anything else. Addresses of other shapes on
//! our devices are somebody else's: not seen, not removed.

use super::links::Links;
use super::netlink::{Netlink, tolerate};
use super::sockets::Sockets;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use tieline_core::cidr::{Family, Prefix};
use tieline_core::host::DeviceName;

const FOREVER: u32 = u32::MAX;

/// One address of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostAddress {
    /// Link that it is on.
    pub(super) link: u32,
    /// The address itself.
    pub(super) address: IpAddr,
    /// Length of its on-link prefix in bits.
    pub(super) len: u8,
    /// Global scope.
    pub(super) global: bool,
    /// Link scope.
    pub(super) link_scope: bool,
    /// Not to be used for new connections.
    pub(super) deprecated: bool,
    /// Made up by privacy extensions, or not valid yet.
    pub(super) temporary: bool,
}

/// Reads all addresses of the host.
pub(super) async fn read(netlink: &Netlink) -> io::Result<Vec<HostAddress>> {
    let found = netlink
        .dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))
        .await?;
    Ok(found
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(address) => parse(&address),
            _ => None,
        })
        .collect())
}

/// The addresses of ours among them, by device.
pub(super) fn ours(
    addresses: &[HostAddress],
    links: &Links,
) -> BTreeMap<DeviceName, BTreeSet<Prefix>> {
    let mut ours: BTreeMap<DeviceName, BTreeSet<Prefix>> = BTreeMap::new();
    for address in addresses {
        let family = Family::of(address.address);
        let shape = match family {
            Family::V4 => address.link_scope,
            Family::V6 => address.global && address.deprecated,
        };
        if shape
            && address.len == family.host_len()
            && let Some(name) = links.by_index(address.link).and_then(|link| link.ours())
        {
            ours.entry(name)
                .or_default()
                .insert(Prefix::host(address.address));
        }
    }
    ours
}

fn parse(message: &AddressMessage) -> Option<HostAddress> {
    let (mut address, mut local) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    Some(HostAddress {
        link: message.header.index,
        // On point-to-point links, `Address` is the other end and `Local` is ours.
        address: local.or(address)?,
        len: message.header.prefix_len,
        global: message.header.scope == AddressScope::Universe,
        link_scope: message.header.scope == AddressScope::Link,
        deprecated: flags.contains(AddressFlags::Deprecated),
        // IFA_F_SECONDARY is IFA_F_TEMPORARY for IPv6 and means "alias" for IPv4.
        temporary: flags.contains(AddressFlags::Tentative)
            || (flags.contains(AddressFlags::Secondary)
                && message.header.family == AddressFamily::Inet6),
    })
}

/// Puts an address on a device.
pub(super) async fn add(
    sockets: &mut Sockets,
    name: DeviceName,
    address: Prefix,
) -> io::Result<()> {
    let link = sockets.links().await?.index_of(name)?;
    put(&sockets.netlink, link, address).await
}

/// Takes an address off a device; one that is gone already, also with its device, is no error.
pub(super) async fn remove(
    sockets: &mut Sockets,
    name: DeviceName,
    address: Prefix,
) -> io::Result<()> {
    match sockets.links().await?.by_name(&name.to_string()) {
        Some(link) => take(&sockets.netlink, link.index, address).await,
        None => Ok(()),
    }
}

async fn put(netlink: &Netlink, link: u32, address: Prefix) -> io::Result<()> {
    let message = || RouteNetlinkMessage::NewAddress(message(link, address));
    match address.family() {
        // An address of another scope in its place cannot be changed: away with it first.
        Family::V4 => match netlink.request(message(), NLM_F_CREATE | NLM_F_EXCL).await {
            Err(error) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {
                take(netlink, link, address).await?;
                netlink.request(message(), NLM_F_CREATE | NLM_F_EXCL).await
            }
            other => other,
        },
        Family::V6 => {
            netlink
                .request(message(), NLM_F_CREATE | NLM_F_REPLACE)
                .await
        }
    }
}

async fn take(netlink: &Netlink, link: u32, address: Prefix) -> io::Result<()> {
    tolerate(
        netlink
            .request(RouteNetlinkMessage::DelAddress(message(link, address)), 0)
            .await,
        &[Errno::EADDRNOTAVAIL, Errno::ENODEV],
    )
}

fn message(link: u32, address: Prefix) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = link;
    message.header.prefix_len = address.len();
    message.attributes = vec![
        AddressAttribute::Local(address.address()),
        AddressAttribute::Address(address.address()),
    ];
    match address.family() {
        Family::V4 => {
            message.header.family = AddressFamily::Inet;
            message.header.scope = AddressScope::Link;
        }
        Family::V6 => {
            message.header.family = AddressFamily::Inet6;
            // No route in main for it: the local table knows it, and nothing of ours belongs into main.
            message.attributes.push(AddressAttribute::Flags(
                AddressFlags::Nodad | AddressFlags::Noprefixroute,
            ));
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_preferred = 0;
            lifetime.ifa_valid = FOREVER;
            message
                .attributes
                .push(AddressAttribute::CacheInfo(lifetime));
        }
    }
    message
}
