//! The kernel's part of the eavesdropper: a classic BPF program that passes on a frame when it
//! enters a port and is ICMP, a tunnel that must be looked into, or goes to a planned prefix.
//!
//! It errs towards passing; the verdict is [`super::classify`]'s.

use ipnet::IpNet;
use socket2::SockFilter;

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_INDEXED: u16 = 0x48;
const LOAD_X_IP_LENGTH: u16 = 0xb1;
const AND: u16 = 0x54;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// `SKF_AD_OFF + SKF_AD_PKTTYPE`: how the kernel classed the frame.
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
const PACKET_OUTGOING: u32 = 4;
const ALL: u32 = 0x4_0000;
const NONE: u32 = 0;

/// The program for a set of planned prefixes.
pub(super) fn program(planned: &[IpNet]) -> Vec<SockFilter> {
    let mut code = vec![
        op(LOAD_WORD, PACKET_TYPE),
        jump(PACKET_OUTGOING, 0, 1),
        op(RETURN, NONE),
        op(LOAD_HALF, 12),
    ];
    let (v4, v6) = (ipv4(planned), ipv6(planned));
    // Jumps over a whole family would not fit into eight bits, so each family tests and leaves.
    code.extend([
        jump(0x0800, 1, 0),
        SockFilter::new(0x05, 0, 0, as_u32(v4.len())),
    ]);
    code.extend(v4);
    code.extend([op(LOAD_HALF, 12), jump(0x86dd, 1, 0), op(RETURN, NONE)]);
    code.extend(v6);
    code
}

/// Always ends in a return.
fn ipv4(planned: &[IpNet]) -> Vec<SockFilter> {
    let mut code = vec![op(LOAD_BYTE, 23)];
    for protocol in [1, 4, 41, 47] {
        code.extend([jump(protocol, 0, 1), op(RETURN, ALL)]);
    }
    // Not UDP: over the four instructions that look at the port.
    code.extend([
        jump(17, 0, 6),
        op(LOAD_X_IP_LENGTH, 14),
        op(LOAD_HALF_INDEXED, 16),
    ]);
    for port in [4789, 8472] {
        code.extend([jump(port, 0, 1), op(RETURN, ALL)]);
    }
    for net in planned {
        if let IpNet::V4(net) = net {
            code.extend([
                op(LOAD_WORD, 30),
                op(AND, u32::from(net.netmask())),
                jump(u32::from(net.network()), 0, 1),
                op(RETURN, ALL),
            ]);
        }
    }
    code.push(op(RETURN, NONE));
    code
}

/// Always ends in a return.
fn ipv6(planned: &[IpNet]) -> Vec<SockFilter> {
    let mut code = vec![op(LOAD_BYTE, 20)];
    // Extension headers and fragments are sorted out outside the kernel.
    for protocol in [58, 4, 41, 47, 0, 43, 44, 60] {
        code.extend([jump(protocol, 0, 1), op(RETURN, ALL)]);
    }
    code.extend([jump(17, 0, 5), op(LOAD_HALF, 56)]);
    for port in [4789, 8472] {
        code.extend([jump(port, 0, 1), op(RETURN, ALL)]);
    }
    for net in planned {
        let IpNet::V6(net) = net else { continue };
        let (mask, network) = (u128::from(net.netmask()), u128::from(net.network()));
        let words: Vec<u32> = (0..4).filter(|word| part(mask, *word) != 0).collect();
        for (done, word) in words.iter().enumerate() {
            let left = u8::try_from(words.len() - done - 1).unwrap_or(0);
            code.extend([
                op(LOAD_WORD, 38 + 4 * word),
                op(AND, part(mask, *word)),
                // Over the other words of this prefix and its return.
                jump(part(network, *word), 0, left * 3 + 1),
            ]);
        }
        code.push(op(RETURN, ALL));
    }
    code.push(op(RETURN, NONE));
    code
}

fn part(address: u128, word: u32) -> u32 {
    // Truncation is the point: 32 of the 128 bits.
    (address >> (96 - 32 * word)) as u32
}

fn op(code: u16, value: u32) -> SockFilter {
    SockFilter::new(code, 0, 0, value)
}

fn jump(value: u32, equal: u8, other: u8) -> SockFilter {
    SockFilter::new(JUMP_EQUAL, equal, other, value)
}

fn as_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
