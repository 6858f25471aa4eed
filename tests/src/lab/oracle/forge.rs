//! Packets with addresses of our choosing, for the oracle's positive control: a stranger is
//! plugged into a site's switch, so that no node's firewall can spare the oracle the sight.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use super::super::build::Lab;
use super::super::netns::NetNs;
use super::super::topology::{nth4, nth6};

/// `IPPROTO_RAW`: the sender writes the IP header itself.
const RAW: i32 = 255;

/// The stranger's number in a site's network, far above its nodes.
const STRANGER: u32 = 120;

/// Sends a whole IP packet from a stranger on the switch of `site`, to the site's router.
pub(super) fn send(lab: &Lab, site: &str, count: u32, packet: &[u8]) -> Result<()> {
    let switch = lab
        .underlay_switches()
        .get(site)
        .with_context(|| format!("no switch {site}"))?;
    let (_, spec) = lab
        .topology()
        .find_site(site)
        .with_context(|| format!("no site {site}"))?;
    let stranger = NetNs::create("stranger")?;
    lab.cable(&stranger, "eth0", switch, "stranger", spec.mtu)?;
    // Written by hand, because the first frame must not wait for address resolution, and IPv6 has to
    // leave the stranger even where the router speaks none.
    let router = lab
        .host(&format!("rt-{site}"))?
        .ip("-j link show dev lan0")?;
    let router: serde_json::Value = serde_json::from_str(&router)?;
    let mac = router
        .pointer("/0/address")
        .and_then(serde_json::Value::as_str)
        .context("no MAC address")?;
    stranger.ip_batch(&[
        format!(
            "addr add {}/{} dev eth0",
            nth4(spec.lan4, STRANGER),
            spec.lan4.prefix_len()
        ),
        format!("addr add {}/64 dev eth0 nodad", nth6(spec.lan6, STRANGER)),
        format!("neigh replace {} lladdr {mac} dev eth0", nth4(spec.lan4, 1)),
        format!("neigh replace {} lladdr {mac} dev eth0", nth6(spec.lan6, 1)),
        format!("route add default via {}", nth4(spec.lan4, 1)),
        format!("route add default via {}", nth6(spec.lan6, 1)),
    ])?;
    let target = match packet.first().map(|byte| byte >> 4) {
        Some(4) => IpAddr::from(<[u8; 4]>::try_from(&packet[16..20])?),
        Some(6) => IpAddr::from(<[u8; 16]>::try_from(&packet[24..40])?),
        _ => bail!("not an IP packet"),
    };
    stranger.run(|| {
        let domain = if target.is_ipv4() {
            Domain::IPV4
        } else {
            Domain::IPV6
        };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)))?;
        for _ in 0..count {
            socket
                .send_to(packet, &SocketAddr::new(target, 0).into())
                .context("sending a forged packet")?;
        }
        Ok(())
    })?;
    // The last frames are still on their way; unplugging at once would lose them.
    std::thread::sleep(std::time::Duration::from_millis(100));
    switch.ip("link del stranger").map(drop)
}

/// A small UDP datagram between ports that mean nothing.
pub(super) fn udp_packet(from: IpAddr, to: IpAddr) -> Vec<u8> {
    ip_packet(from, to, &udp(40_000, 40_001, b"clear text"))
}

/// The same inside VXLAN, between two underlay addresses of the site's first neighbour sites.
pub(super) fn vxlan_packet(lab: &Lab, site: &str, from: IpAddr, to: IpAddr) -> Result<Vec<u8>> {
    let (index, own) = lab
        .topology()
        .find_site(site)
        .with_context(|| format!("no site {site}"))?;
    let sites = &lab.topology().sites;
    let other = &sites[(index + 1) % sites.len()];
    let mut payload = vec![0x08, 0, 0, 0, 0, 0, 1, 0];
    payload.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    payload.extend(if from.is_ipv4() {
        [0x08, 0x00]
    } else {
        [0x86, 0xdd]
    });
    payload.extend(udp_packet(from, to));
    let (outer_from, outer_to) = (nth4(own.lan4, STRANGER), nth4(other.lan4, 11));
    Ok(ip_packet(
        outer_from.into(),
        outer_to.into(),
        &udp(40_002, 8472, &payload),
    ))
}

fn udp(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(from.to_be_bytes());
    bytes.extend(to.to_be_bytes());
    bytes.extend(
        u16::try_from(data.len() + 8)
            .unwrap_or(u16::MAX)
            .to_be_bytes(),
    );
    // No checksum; nobody is to receive this.
    bytes.extend([0, 0]);
    bytes.extend(data);
    bytes
}

fn ip_packet(from: IpAddr, to: IpAddr, udp: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // The kernel fills in length and checksum (raw(7)).
            bytes.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
            let length = u16::try_from(udp.len() + 20)
                .unwrap_or(u16::MAX)
                .to_be_bytes();
            bytes[2..4].copy_from_slice(&length);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
        }
        (from, to) => {
            let v6 = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            };
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend(u16::try_from(udp.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend([17, 64]);
            bytes.extend(v6(from).octets());
            bytes.extend(v6(to).octets());
        }
    }
    bytes.extend(udp);
    bytes
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;

    /// An Ethernet frame around a packet.
    pub(in super::super) fn frame(packet: &[u8]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        bytes.extend(if packet[0] >> 4 == 4 {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        });
        bytes.extend(packet);
        bytes
    }

    /// A UDP packet with ports and payload of choice.
    pub(in super::super) fn datagram(
        from: IpAddr,
        to: IpAddr,
        ports: (u16, u16),
        data: &[u8],
    ) -> Vec<u8> {
        ip_packet(from, to, &udp(ports.0, ports.1, data))
    }

    /// A packet inside a packet, by IP protocol number.
    pub(in super::super) fn nested(
        from: IpAddr,
        to: IpAddr,
        protocol: u8,
        inner: &[u8],
    ) -> Vec<u8> {
        let mut bytes = ip_packet(from, to, inner);
        let at = if from.is_ipv4() { 9 } else { 6 };
        bytes[at] = protocol;
        bytes
    }
}
