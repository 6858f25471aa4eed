//! The lab as data: which sites, nodes and clusters there are and how the sites meet the WAN.
//!
//! Every range is used once: no test may pass because two places happen to look alike.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::traffic::Family;

/// How a site meets the WAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SiteKind {
    /// Behind a port-restricted NAT: can go out, cannot be reached unasked. IPv6 is not translated
    /// but just as closed.
    Nat,
    /// Public addresses, reachable from everywhere.
    Public,
    /// Private addresses that the WAN's routers know: a data center on leased lines.
    Routed,
}

/// A place with one underlay network.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its name, also the prefix of its nodes' names; at most ten characters, because interfaces carry it.
    pub name: String,
    /// How it meets the WAN.
    pub kind: SiteKind,
    /// The IPv4 network of its switch: router at 1, nodes from 11.
    pub lan4: Ipv4Net,
    /// The IPv6 network of its switch, used when the topology is dual-stack.
    pub lan6: Ipv6Net,
    /// MTU of its switch.
    pub mtu: u32,
}

/// A host that will run an agent.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// Host name; also its namespace and its port on the switch.
    pub name: String,
    /// Name of its site.
    pub site: String,
    /// Name of its cluster.
    pub cluster: String,
}

impl NodeSpec {
    /// Nodes of one cluster in one site share a segment; this is its label.
    #[must_use]
    pub fn segment(&self) -> String {
        format!("{}/{}", self.cluster, self.site)
    }
}

/// The company VPN: a WireGuard box on the WAN that is not ours and one host behind it.
#[derive(Debug, Clone)]
pub struct Vpn {
    /// Name of the attachment; the box is this namespace, its LAN host `<name>-host`.
    pub name: String,
    /// The box's address on the WAN.
    pub address4: Ipv4Addr,
    /// The IPv4 LAN behind it: box at 1, host at 10.
    pub lan4: Ipv4Net,
    /// The IPv6 LAN behind it, used when the topology is dual-stack.
    pub lan6: Ipv6Net,
}

/// A laboratory, as data.
#[derive(Debug, Clone)]
pub struct Topology {
    /// The sites, in the order of their routers' WAN addresses.
    pub sites: Vec<Site>,
    /// The hosts.
    pub nodes: Vec<NodeSpec>,
    /// The company VPN, if there is one.
    pub vpn: Option<Vpn>,
    /// Whether the underlay carries IPv6 too.
    pub dual_stack: bool,
    /// How many pods a node gets.
    pub pods_per_node: u32,
}

impl Topology {
    /// Nothing yet but a WAN and the API server's host.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            sites: Vec::new(),
            nodes: Vec::new(),
            vpn: None,
            dual_stack: false,
            pods_per_node: 1,
        }
    }

    /// `berlin` behind a NAT, `paris` public, `oslo` routed, two nodes of cluster `shop` each, and the
    /// company VPN `hq`.
    #[must_use]
    pub fn three_sites() -> Self {
        Self::three_sites_of(2)
    }

    /// As [`Topology::three_sites`], with another number of nodes a site.
    #[must_use]
    pub fn three_sites_of(nodes: usize) -> Self {
        Self::empty()
            .site("berlin", SiteKind::Nat, [10, 1, 0, 0], 24)
            .nodes("berlin", "shop", nodes)
            .site("paris", SiteKind::Public, [198, 51, 100, 0], 25)
            .nodes("paris", "shop", nodes)
            .site("oslo", SiteKind::Routed, [172, 22, 5, 0], 24)
            .nodes("oslo", "shop", nodes)
            .vpn("hq")
    }

    /// Adds a site with its IPv4 network; its IPv6 network is `2001:db8:<n>::/64`.
    #[must_use]
    pub fn site(mut self, name: &str, kind: SiteKind, lan4: [u8; 4], length: u8) -> Self {
        let number = u16::try_from(self.sites.len() + 1).unwrap_or(u16::MAX);
        self.sites.push(Site {
            name: name.to_owned(),
            kind,
            lan4: Ipv4Net::new_assert(Ipv4Addr::from(lan4), length),
            lan6: Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 0, 0), 64),
            mtu: 1500,
        });
        self
    }

    /// Adds `count` nodes of `cluster` to `site`, numbered on from those it has.
    #[must_use]
    pub fn nodes(mut self, site: &str, cluster: &str, count: usize) -> Self {
        for _ in 0..count {
            let spec = self.next_node(site, cluster);
            self.nodes.push(spec);
        }
        self
    }

    /// The node that would be added next to a site.
    #[must_use]
    pub fn next_node(&self, site: &str, cluster: &str) -> NodeSpec {
        let number = self.nodes.iter().filter(|node| node.site == site).count() + 1;
        NodeSpec {
            name: format!("{site}-{number}"),
            site: site.to_owned(),
            cluster: cluster.to_owned(),
        }
    }

    /// Adds the company VPN.
    #[must_use]
    pub fn vpn(mut self, name: &str) -> Self {
        self.vpn = Some(Vpn {
            name: name.to_owned(),
            address4: Ipv4Addr::new(203, 0, 113, 40),
            lan4: Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 9, 0), 24),
            lan6: Ipv6Net::new_assert(Ipv6Addr::new(0xfdaa, 0x16, 9, 0, 0, 0, 0, 0), 64),
        });
        self
    }

    /// Leaves the company VPN out.
    #[must_use]
    pub fn without_vpn(mut self) -> Self {
        self.vpn = None;
        self
    }

    /// Gives the underlay IPv6 beside IPv4.
    #[must_use]
    pub fn dual_stack(mut self) -> Self {
        self.dual_stack = true;
        self
    }

    /// Sets the number of pods a node gets.
    #[must_use]
    pub fn pods_per_node(mut self, count: u32) -> Self {
        self.pods_per_node = count;
        self
    }

    /// The families that the underlay carries.
    #[must_use]
    pub fn families(&self) -> &'static [Family] {
        if self.dual_stack {
            &[Family::V4, Family::V6]
        } else {
            &[Family::V4]
        }
    }

    /// The site of that name.
    #[must_use]
    pub fn find_site(&self, name: &str) -> Option<(usize, &Site)> {
        self.sites
            .iter()
            .enumerate()
            .find(|(_, site)| site.name == name)
    }
}

/// The `index`-th address of a network, counted from its base.
#[must_use]
pub(super) fn nth4(net: Ipv4Net, index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()) + index)
}

/// The `index`-th address of a network, counted from its base.
#[must_use]
pub(super) fn nth6(net: Ipv6Net, index: u32) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(net.network()) + u128::from(index))
}

/// The `index`-th address of a network of either family.
#[must_use]
pub(super) fn nth(net: ipnet::IpNet, index: u32) -> IpAddr {
    match net {
        ipnet::IpNet::V4(net) => nth4(net, index).into(),
        ipnet::IpNet::V6(net) => nth6(net, index).into(),
    }
}
