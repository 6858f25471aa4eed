//! One rtnetlink socket: dumps and acknowledged requests.
//!
//! Knows nothing of Tieline; the modules beside it translate between messages and the model.

use futures::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use std::io;

/// A dump is taken again when the kernel says that it changed meanwhile; after so many tries the last one is used.
const DUMP_TRIES: usize = 5;
/// The kernel changed while it was dumped (`NLM_F_DUMP_INTR`).
const DUMP_INTERRUPTED: u16 = 0x10;

/// A connection to the kernel's routing tables, in the network namespace in which it was opened.
#[derive(Debug, Clone)]
pub(super) struct Netlink(Handle);

impl Netlink {
    /// Opens a socket and serves it on the current tokio runtime.
    pub(super) fn open() -> io::Result<Self> {
        // With strict checking, dumps are filtered by table in the kernel; kernels before 4.20 send everything.
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()
            .or_else(|_| rtnetlink::new_connection())?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Everything that matches the request.
    pub(super) async fn dump(
        &self,
        request: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut found = Vec::new();
        for _ in 0..DUMP_TRIES {
            let interrupted;
            (found, interrupted) = self.dump_once(request.clone()).await?;
            if !interrupted {
                break;
            }
        }
        Ok(found)
    }

    async fn dump_once(
        &self,
        request: RouteNetlinkMessage,
    ) -> io::Result<(Vec<RouteNetlinkMessage>, bool)> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self.0.clone().request(message).map_err(io::Error::other)?;
        let (mut found, mut interrupted) = (Vec::new(), false);
        while let Some(answer) = answers.next().await {
            interrupted |= answer.header.flags & DUMP_INTERRUPTED != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => found.push(inner),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                _ => {}
            }
        }
        Ok((found, interrupted))
    }

    /// Sends one request with these flags and waits for the kernel's word.
    pub(super) async fn request(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self.0.clone().request(message).map_err(io::Error::other)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(error.to_io());
            }
        }
        Ok(())
    }
}

/// Takes one kind of error for success: "exists" when adding, "not there" when removing.
pub(super) fn tolerate(result: io::Result<()>, codes: &[nix::errno::Errno]) -> io::Result<()> {
    match result {
        Err(error)
            if codes
                .iter()
                .any(|code| error.raw_os_error() == Some(*code as i32)) =>
        {
            Ok(())
        }
        other => other,
    }
}
