//! The generation of the kernel's nf_tables rulesets: a number that every committed transaction in this network namespace
//! raises, whoever makes it. Asking costs microseconds; listing tables costs a process.

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use std::io;
use std::time::Duration;

/// Subsystem of nf_tables (`NFNL_SUBSYS_NFTABLES`) and its messages (`linux/netfilter/nf_tables.h`).
const SUBSYSTEM: u16 = 10;
const GET_GENERATION: u16 = 16;
const NEW_GENERATION: u16 = 15;
/// Attribute that holds the generation, big-endian (`NFTA_GEN_ID`).
const GENERATION_ID: u16 = 1;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// Length of a netlink header and of an nfnetlink header behind it.
const HEADER: usize = 16;
const HEADERS: usize = HEADER + 4;
/// The kernel answers at once, or never.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a listing depends on: the kernel's rulesets, and links, since a chain that hangs on a device goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Basis {
    /// Generation of the kernel's rulesets.
    pub(super) generation: u32,
    /// Links by index and name.
    pub(super) links: Vec<(u32, String)>,
}

/// A socket to ask on.
pub(super) struct Generation(TokioSocket);

impl Generation {
    /// Opens a socket in the process's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        Ok(Self(socket))
    }

    /// The present generation; `None` when the kernel does not tell.
    pub(super) async fn read(&self) -> Option<u32> {
        self.0
            .send_to(&request(), &SocketAddr::new(0, 0))
            .await
            .ok()?;
        let answer = tokio::time::timeout(PATIENCE, self.0.recv_from_full()).await;
        parse(&answer.ok()?.ok()?.0)
    }
}

/// The generation that one committed transaction makes of `generation`; 0 is left out.
pub(super) fn next(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}

fn request() -> [u8; HEADERS] {
    let mut message = [0; HEADERS];
    message[..4].copy_from_slice(&(HEADERS as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&(SUBSYSTEM << 8 | GET_GENERATION).to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
    message
}

fn parse(message: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    if kind != SUBSYSTEM << 8 | NEW_GENERATION {
        return None;
    }
    let mut rest = message.get(HEADERS..)?;
    while let [a, b, c, d, ..] = *rest {
        let len = usize::from(u16::from_ne_bytes([a, b]));
        if u16::from_ne_bytes([c, d]) == GENERATION_ID {
            return Some(u32::from_be_bytes(rest.get(4..8)?.try_into().ok()?));
        }
        // Attributes are aligned to four bytes; one of no length would never end.
        rest = rest.get(len.max(4).next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generation_is_found_behind_other_attributes() {
        let mut message = request().to_vec();
        message[4..6].copy_from_slice(&(SUBSYSTEM << 8 | NEW_GENERATION).to_ne_bytes());
        for (kind, value) in [(2u16, 77u32), (GENERATION_ID, 0x0102_0304)] {
            message.extend(8u16.to_ne_bytes());
            message.extend(kind.to_ne_bytes());
            message.extend(value.to_be_bytes());
        }
        assert_eq!(parse(&message), Some(0x0102_0304));
        assert_eq!(parse(&request()), None);
        assert_eq!(parse(&message[..21]), None);
    }
}
