//! Links: which there are, and how one of ours is brought up.

use super::netlink::{Netlink, tolerate};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use std::collections::BTreeMap;
use std::io;
use tieline_core::host::DeviceName;

/// One link of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Kernel's index; never used again while the host is up.
    pub(super) index: u32,
    /// Name.
    pub(super) name: String,
    /// MTU in bytes.
    pub(super) mtu: u32,
    /// Administratively up.
    pub(super) up: bool,
    /// What kind of virtual link, if one.
    pub(super) kind: Option<InfoKind>,
}

impl Link {
    /// Our name for it, if its name is one of ours.
    pub(super) fn ours(&self) -> Option<DeviceName> {
        self.name.parse().ok()
    }
}

/// All links at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Links(BTreeMap<u32, Link>);

impl Links {
    /// Reads all links.
    pub(super) async fn read(netlink: &Netlink) -> io::Result<Self> {
        let found = netlink
            .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))
            .await?;
        Ok(Self(
            found
                .into_iter()
                .filter_map(|message| match message {
                    RouteNetlinkMessage::NewLink(link) => parse(&link),
                    _ => None,
                })
                .map(|link| (link.index, link))
                .collect(),
        ))
    }

    /// The link with an index.
    pub(super) fn by_index(&self, index: u32) -> Option<&Link> {
        self.0.get(&index)
    }

    /// The link with a name.
    pub(super) fn by_name(&self, name: &str) -> Option<&Link> {
        self.0.values().find(|link| link.name == name)
    }

    /// All links, by index.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.0.values()
    }

    /// Index and name of every link.
    pub(super) fn names(&self) -> Vec<(u32, String)> {
        self.iter()
            .map(|link| (link.index, link.name.clone()))
            .collect()
    }

    /// Our devices by name.
    pub(super) fn ours(&self) -> BTreeMap<DeviceName, &Link> {
        self.iter()
            .filter_map(|link| Some((link.ours()?, link)))
            .collect()
    }

    /// Index of one of our devices.
    pub(super) fn index_of(&self, name: DeviceName) -> io::Result<u32> {
        self.by_name(&name.to_string())
            .map(|link| link.index)
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("device {name} is not there"),
                )
            })
    }
}

fn parse(message: &LinkMessage) -> Option<Link> {
    let (mut name, mut mtu, mut kind) = (None, 0, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.clone()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(Link {
        index: message.header.index,
        name: name?,
        mtu,
        up: message.header.flags.contains(LinkFlags::Up),
        kind,
    })
}

/// Creates a kernel WireGuard link. "Operation not supported" means that the kernel has none.
pub(super) async fn create_wireguard(netlink: &Netlink, name: &str) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]),
    ];
    netlink
        .request(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .await
}

/// Removes a link; one that is gone already is no error.
pub(super) async fn remove(netlink: &Netlink, index: u32) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    tolerate(
        netlink
            .request(RouteNetlinkMessage::DelLink(message), 0)
            .await,
        &[Errno::ENODEV],
    )
}

/// Sets the MTU, keeps the kernel from inventing link-local addresses, and brings the link up, in this order: an
/// address generated at `up` stays, and an MTU below 1280 takes IPv6 (and that setting) away.
pub(super) async fn bring_up(netlink: &Netlink, link: &Link, mtu: u32) -> io::Result<()> {
    if link.mtu != mtu {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.attributes = vec![LinkAttribute::Mtu(mtu)];
        netlink
            .request(RouteNetlinkMessage::SetLink(message), 0)
            .await?;
    }
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
        vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)],
    )])];
    // A kernel without IPv6 has nothing to generate.
    tolerate(
        netlink
            .request(RouteNetlinkMessage::SetLink(message), 0)
            .await,
        &[Errno::EAFNOSUPPORT, Errno::EINVAL],
    )?;
    if !link.up {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        netlink
            .request(RouteNetlinkMessage::SetLink(message), 0)
            .await?;
    }
    Ok(())
}
