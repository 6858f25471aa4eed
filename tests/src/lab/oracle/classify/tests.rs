//! The oracle's judgement, frame by frame.
#![allow(clippy::unwrap_used)]

use super::super::forge::samples::{datagram, frame, nested};
use super::*;

fn prefixes() -> Prefixes {
    let plan = |net: &str, segment: &str| Planned::new(net.parse().unwrap(), segment);
    Prefixes::new(vec![
        plan("10.64.0.0/10", "nobody yet"),
        plan("10.64.0.0/16", "shop/berlin"),
        plan("10.80.0.0/16", "shop/paris"),
        plan("172.16.0.0/16", "vpn/hq"),
        plan("fd64:a::/32", "shop/berlin"),
        plan("fd64:b::/32", "shop/paris"),
        Planned::lan("10.1.0.0/24".parse().unwrap(), "lan/berlin", "berlin"),
    ])
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn judged(packet: &[u8], switch: &str) -> Verdict {
    verdict(&frame(packet), &prefixes(), switch)
}

fn is_clear(packet: &[u8]) -> Option<(String, String)> {
    match judged(packet, "wan") {
        Verdict::Clear { from, to, .. } => Some((from, to)),
        _ => None,
    }
}

fn plain(from: &str, to: &str) -> Vec<u8> {
    datagram(ip(from), ip(to), (1000, 2000), b"data")
}

fn pair(from: &str, to: &str) -> Option<(String, String)> {
    Some((from.to_owned(), to.to_owned()))
}

#[test]
fn planned_ends_of_different_segments_are_clear_text() {
    assert_eq!(
        is_clear(&plain("10.64.1.5", "10.80.1.5")),
        pair("shop/berlin", "shop/paris")
    );
    assert_eq!(
        is_clear(&plain("fd64:a::5", "fd64:b::5")),
        pair("shop/berlin", "shop/paris")
    );
    assert_eq!(
        is_clear(&plain("10.64.1.5", "172.16.9.10")),
        pair("shop/berlin", "vpn/hq")
    );
}

#[test]
fn one_segment_alone_is_the_cnis_own_affair() {
    assert_eq!(
        judged(&plain("10.64.1.5", "10.64.2.5"), "berlin"),
        Verdict::Other
    );
}

#[test]
fn the_longest_prefix_says_whose_an_address_is() {
    assert_eq!(
        is_clear(&plain("10.64.1.5", "10.100.0.1")),
        pair("shop/berlin", "nobody yet")
    );
}

#[test]
fn an_unplanned_source_is_a_masqueraded_leak_and_not_clear_text() {
    assert!(matches!(
        judged(&plain("198.51.100.11", "10.64.1.5"), "wan"),
        Verdict::ToPlanned { .. }
    ));
}

#[test]
fn what_a_cni_masquerades_inside_the_site_is_none() {
    let planned = vec![
        Planned::new("10.64.1.0/24".parse().unwrap(), "shop/berlin").at("berlin"),
        Planned::new("10.80.1.0/24".parse().unwrap(), "shop/paris").at("paris"),
    ];
    let prefixes = Prefixes::new(planned);
    let judged = |target| verdict(&frame(&plain("10.1.0.11", target)), &prefixes, "berlin");
    assert_eq!(judged("10.64.1.5"), Verdict::Other);
    assert!(matches!(judged("10.80.1.5"), Verdict::ToPlanned { .. }));
}

#[test]
fn planned_to_elsewhere_is_ordinary_egress() {
    assert_eq!(
        judged(&plain("10.64.1.5", "192.0.2.10"), "wan"),
        Verdict::Other
    );
}

#[test]
fn overlays_are_looked_into() {
    let inner = plain("10.64.1.5", "10.80.1.5");
    for port in [4789, 8472] {
        let mut payload = vec![0x08, 0, 0, 0, 0, 0, 1, 0];
        payload.extend(frame(&inner));
        let outer = datagram(
            ip("198.51.100.11"),
            ip("172.22.5.11"),
            (999, port),
            &payload,
        );
        assert_eq!(
            is_clear(&outer),
            pair("shop/berlin", "shop/paris"),
            "VXLAN on {port}"
        );
    }
    let outer = nested(ip("198.51.100.11"), ip("172.22.5.11"), 4, &inner);
    assert_eq!(
        is_clear(&outer),
        pair("shop/berlin", "shop/paris"),
        "IPv4 in IPv4"
    );
    let outer = nested(
        ip("198.51.100.11"),
        ip("172.22.5.11"),
        41,
        &plain("fd64:a::5", "fd64:b::5"),
    );
    assert_eq!(
        is_clear(&outer),
        pair("shop/berlin", "shop/paris"),
        "IPv6 in IPv4"
    );
    let outer = nested(ip("2001:db8::1"), ip("2001:db8::2"), 4, &inner);
    assert_eq!(
        is_clear(&outer),
        pair("shop/berlin", "shop/paris"),
        "IPv4 in IPv6"
    );
}

#[test]
fn a_vxlan_packet_between_members_of_one_segment_is_fine() {
    let mut payload = vec![0x08, 0, 0, 0, 0, 0, 1, 0];
    payload.extend(frame(&plain("10.64.1.5", "10.64.2.5")));
    let outer = datagram(
        ip("198.51.100.11"),
        ip("198.51.100.12"),
        (999, 8472),
        &payload,
    );
    assert_eq!(judged(&outer, "paris"), Verdict::Other);
}

#[test]
fn a_sites_own_network_is_the_underlay_on_its_own_switch_only() {
    let out = plain("10.1.0.50", "10.80.1.5");
    assert_eq!(judged(&out, "berlin"), Verdict::Other);
    assert_eq!(is_clear(&out), pair("lan/berlin", "shop/paris"));
    let back = plain("10.80.1.5", "10.1.0.50");
    assert_eq!(judged(&back, "berlin"), Verdict::Other);
    assert_eq!(is_clear(&back), pair("shop/paris", "lan/berlin"));
}

#[test]
fn wireguard_between_planned_underlay_addresses_is_not_clear() {
    let ends = (ip("10.80.0.1"), ip("10.1.0.11"));
    let message = datagram(ends.0, ends.1, (21_820, 21_821), &[4, 0, 0, 0, 9, 9, 9, 9]);
    assert_eq!(judged(&message, "wan"), Verdict::Other);
    let other = datagram(ends.0, ends.1, (21_820, 21_821), b"not WireGuard");
    assert!(
        matches!(judged(&other, "wan"), Verdict::Clear { .. }),
        "the port alone excuses nothing"
    );
}

#[test]
fn icmp_counts_and_neighbour_discovery_does_not() {
    let echo = nested(ip("198.51.100.11"), ip("192.0.2.10"), 1, &[8, 0, 0, 0]);
    assert_eq!(judged(&echo, "wan"), Verdict::Icmp);
    let solicitation = nested(ip("2001:db8::1"), ip("ff02::1"), 58, &[135, 0, 0, 0]);
    assert_eq!(judged(&solicitation, "wan"), Verdict::Other);
    let clear = nested(ip("10.64.1.5"), ip("10.80.1.5"), 1, &[8, 0, 0, 0]);
    assert!(matches!(
        judged(&clear, "wan"),
        Verdict::Clear { icmp: true, .. }
    ));
}

#[test]
fn a_later_fragment_is_judged_by_its_addresses() {
    let mut packet = plain("10.64.1.5", "10.80.1.5");
    packet[7] = 3;
    assert_eq!(is_clear(&packet), pair("shop/berlin", "shop/paris"));
}

#[test]
fn short_frames_do_no_harm() {
    let whole = frame(&plain("10.64.1.5", "10.80.1.5"));
    for length in 0..whole.len() {
        drop(verdict(&whole[..length], &prefixes(), "wan"));
    }
}
