//! Tells that something changed: links, addresses, routes, rules and nft tables.
//!
//! It does not tell what. Whoever asks observes everything, so a message that was lost (the socket overflowed) is the
//! same news as one that came.

use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use std::io;

/// rtnetlink groups: links, then addresses, routes and rules of both families (`linux/rtnetlink.h`).
const ROUTE_GROUPS: [u32; 7] = [1, 5, 7, 8, 9, 11, 19];
/// nfnetlink group of nf_tables (`NFNLGRP_NFTABLES`).
const NFTABLES_GROUP: u32 = 7;
/// Messages read at once before the news is told.
const DRAIN: usize = 4096;
/// `MSG_DONTWAIT` (`linux/socket.h`).
const DONT_WAIT: i32 = 0x40;

/// Sockets that hear of changes.
pub(super) struct Watch {
    route: TokioSocket,
    nftables: Option<TokioSocket>,
}

impl Watch {
    /// Joins the groups. A kernel without nf_tables has nothing to tell of them.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            route: join(NETLINK_ROUTE, &ROUTE_GROUPS)?,
            nftables: join(NETLINK_NETFILTER, &[NFTABLES_GROUP]).ok(),
        })
    }

    /// Returns when something changed since the last time.
    pub(super) async fn changed(&self) {
        match &self.nftables {
            Some(nftables) => tokio::select! {
                () = heard(&self.route) => {}
                () = heard(nftables) => {}
            },
            None => heard(&self.route).await,
        }
    }
}

fn join(protocol: isize, groups: &[u32]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    let mask = groups.iter().fold(0, |mask, group| mask | 1 << (group - 1));
    socket.socket_mut().bind(&SocketAddr::new(0, mask))?;
    Ok(socket)
}

async fn heard(socket: &TokioSocket) {
    // Errors are news too: ENOBUFS says that messages were lost.
    let _ = socket.recv_from_full().await;
    let mut buffer = Vec::with_capacity(8192);
    for _ in 0..DRAIN {
        buffer.clear();
        if socket.socket_ref().recv(&mut buffer, DONT_WAIT).is_err() {
            break;
        }
    }
}
