//! What one frame is, judged by its addresses alone. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A planned prefix and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The prefix.
    pub net: IpNet,
    /// Segment, VPN or other owner; packets inside one owner are never clear text.
    pub segment: String,
    /// The site whose own network this is: on that site's switch it is the underlay, and clear.
    pub lan_of: Option<String>,
    /// The site where its hosts are: on that site's switch, nodes may send there under their own addresses, as a CNI does that
    /// masquerades.
    pub site: Option<String>,
}

impl Planned {
    /// Pods, services, mesh addresses or a VPN's prefixes.
    #[must_use]
    pub fn new(net: IpNet, segment: impl Into<String>) -> Self {
        Self {
            net,
            segment: segment.into(),
            lan_of: None,
            site: None,
        }
    }

    /// The same, with the site where its hosts are.
    #[must_use]
    pub fn at(self, site: impl Into<String>) -> Self {
        Self {
            site: Some(site.into()),
            ..self
        }
    }

    /// A site's own network that is a member of the link.
    #[must_use]
    pub fn lan(net: IpNet, segment: impl Into<String>, site: impl Into<String>) -> Self {
        Self {
            net,
            segment: segment.into(),
            lan_of: Some(site.into()),
            site: None,
        }
    }
}

/// What a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing that matters here.
    Other,
    /// ICMP or ICMPv6 between unplanned addresses.
    Icmp,
    /// To a planned address of another site, or of nobody, from one that is not planned.
    ToPlanned {
        /// In words.
        what: String,
    },
    /// Planned on both sides, of different segments.
    Clear {
        /// Segment of the source.
        from: String,
        /// Segment of the destination.
        to: String,
        /// In words.
        what: String,
        /// Whether it is ICMP.
        icmp: bool,
    },
}

/// Planned prefixes, looked up by the longest match.
#[derive(Debug, Default)]
pub(super) struct Prefixes(Vec<Planned>);

impl Prefixes {
    pub(super) fn new(mut planned: Vec<Planned>) -> Self {
        planned.sort_by_key(|planned| std::cmp::Reverse(planned.net.prefix_len()));
        Self(planned)
    }

    pub(super) fn nets(&self) -> Vec<IpNet> {
        self.0.iter().map(|planned| planned.net).collect()
    }

    fn find(&self, address: IpAddr) -> Option<&Planned> {
        self.0.iter().find(|planned| planned.net.contains(&address))
    }
}

const VXLAN: [u16; 2] = [4789, 8472];
const WIREGUARD: [std::ops::Range<u16>; 2] = [21_820..21_920, 51_820..51_822];
/// Tunnels in tunnels are looked into this deep.
const DEPTH: u8 = 4;

/// Judges an Ethernet frame that entered the switch `switch`. The frame may be cut off after its
/// first headers.
pub(super) fn verdict(frame: &[u8], prefixes: &Prefixes, switch: &str) -> Verdict {
    ethernet(frame, prefixes, switch, DEPTH)
}

fn ethernet(frame: &[u8], prefixes: &Prefixes, switch: &str, depth: u8) -> Verdict {
    match frame.get(12..14) {
        Some([0x08, 0x00] | [0x86, 0xdd]) => packet(&frame[14..], prefixes, switch, depth),
        _ => Verdict::Other,
    }
}

struct Header<'a> {
    source: IpAddr,
    target: IpAddr,
    protocol: u8,
    payload: &'a [u8],
}

fn packet(bytes: &[u8], prefixes: &Prefixes, switch: &str, depth: u8) -> Verdict {
    let Some(header) = header(bytes) else {
        return Verdict::Other;
    };
    let outer = judge(&header, prefixes, switch);
    if matches!(outer, Verdict::Clear { .. }) || depth == 0 {
        return outer;
    }
    let inner = match header.protocol {
        // IPv4 or IPv6 in IP.
        4 | 41 => packet(header.payload, prefixes, switch, depth - 1),
        // UDP header 8, VXLAN header 8.
        17 if VXLAN.contains(&port(header.payload, 2)) => match header.payload.get(16..) {
            Some(frame) => ethernet(frame, prefixes, switch, depth - 1),
            None => Verdict::Other,
        },
        // GRE without options, carrying Ethernet or IP.
        47 => match (header.payload.get(0..4), header.payload.get(4..)) {
            (Some([0, 0, 0x65, 0x58]), Some(rest)) => ethernet(rest, prefixes, switch, depth - 1),
            (Some([0, 0, 0x08, 0x00] | [0, 0, 0x86, 0xdd]), Some(rest)) => {
                packet(rest, prefixes, switch, depth - 1)
            }
            _ => Verdict::Other,
        },
        _ => Verdict::Other,
    };
    if matches!(inner, Verdict::Clear { .. }) {
        inner
    } else {
        outer
    }
}

fn judge(header: &Header<'_>, prefixes: &Prefixes, switch: &str) -> Verdict {
    let Header {
        source,
        target,
        protocol,
        payload,
    } = *header;
    let icmp = matches!(protocol, 1 | 58);
    // Neighbour and router discovery, multicast listener reports.
    if protocol == 58 && matches!(payload.first(), Some(130..=137 | 143)) {
        return Verdict::Other;
    }
    let nothing = if icmp { Verdict::Icmp } else { Verdict::Other };
    let Some(to) = prefixes.find(target) else {
        return nothing;
    };
    // On its own switch a site's network is the underlay: its hosts speak to each other and to
    // their gateways as they always did.
    let here = |planned: &Planned| planned.lan_of.as_deref() == Some(switch);
    if here(to) || encrypted(protocol, payload) {
        return nothing;
    }
    let what = || {
        let (from, to) = (port(payload, 0), port(payload, 2));
        match protocol {
            6 => format!("TCP {source}:{from} > {target}:{to}"),
            17 => format!("UDP {source}:{from} > {target}:{to}"),
            other => format!("protocol {other} {source} > {target}"),
        }
    };
    match prefixes.find(source) {
        Some(from) if here(from) || from.segment == to.segment => nothing,
        Some(from) => Verdict::Clear {
            from: from.segment.clone(),
            to: to.segment.clone(),
            what: what(),
            icmp,
        },
        None if to.site.as_deref() == Some(switch) => nothing,
        None => Verdict::ToPlanned { what: what() },
    }
}

/// A WireGuard message on a WireGuard port: type 1 to 4, then three zero bytes.
fn encrypted(protocol: u8, payload: &[u8]) -> bool {
    let ours = |at| {
        WIREGUARD
            .iter()
            .any(|range| range.contains(&port(payload, at)))
    };
    protocol == 17 && (ours(0) || ours(2)) && matches!(payload.get(8..12), Some([1..=4, 0, 0, 0]))
}

fn port(payload: &[u8], at: usize) -> u16 {
    payload
        .get(at..at + 2)
        .map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn header(bytes: &[u8]) -> Option<Header<'_>> {
    match bytes.first()? >> 4 {
        4 => {
            let length = usize::from(bytes[0] & 0xf) * 4;
            let address = |at: usize| {
                Some(Ipv4Addr::from(
                    <[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?,
                ))
            };
            Some(Header {
                source: address(12)?.into(),
                target: address(16)?.into(),
                protocol: bytes[9],
                // A later fragment has no ports; its addresses still count.
                payload: if fragment(bytes) {
                    &[]
                } else {
                    bytes.get(length..).unwrap_or(&[])
                },
            })
        }
        6 => {
            let address = |at: usize| {
                Some(Ipv6Addr::from(
                    <[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?,
                ))
            };
            let (source, target) = (address(8)?.into(), address(24)?.into());
            let (mut protocol, mut rest) = (bytes[6], bytes.get(40..).unwrap_or(&[]));
            // Hop-by-hop, routing and destination options; the length counts 8 bytes after the first 8.
            while matches!(protocol, 0 | 43 | 60) && rest.len() >= 2 {
                protocol = rest[0];
                rest = rest.get((usize::from(rest[1]) + 1) * 8..).unwrap_or(&[]);
            }
            if protocol == 44 && rest.len() >= 8 {
                let later = u16::from_be_bytes([rest[2], rest[3]]) >> 3 != 0;
                protocol = rest[0];
                rest = if later { &[] } else { &rest[8..] };
            }
            Some(Header {
                source,
                target,
                protocol,
                payload: rest,
            })
        }
        _ => None,
    }
}

fn fragment(bytes: &[u8]) -> bool {
    bytes
        .get(6..8)
        .is_some_and(|word| u16::from_be_bytes([word[0], word[1]]) & 0x1fff != 0)
}

#[cfg(test)]
mod tests;
