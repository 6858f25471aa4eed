//! The echo servers of one end.
//!
//! TCP: the server says the client's address and a newline. If the client then sends data and closes
//! its half, the server answers with `<bytes> <sha256>` and a newline.
//! UDP: the answer is the client's address, `|`, and what the client sent.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{Endpoint, PORT};

/// Running servers; dropping it ends them and frees their sockets.
#[derive(Debug)]
pub struct Server {
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    pub(in super::super) fn start(handle: &Handle, end: &Endpoint) -> Result<Self> {
        let _guard = handle.enter();
        let mut tasks = Vec::new();
        for address in &end.addresses {
            let (listener, socket) = end
                .ns
                .run(|| sockets(*address))
                .with_context(|| format!("servers of {} on {address}", end.name))?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            tasks.push(handle.spawn(async move {
                // An accept error concerns that one connection.
                loop {
                    if let Ok((stream, peer)) = listener.accept().await {
                        tokio::spawn(async move { drop(connection(stream, peer.ip()).await) });
                    }
                }
            }));
            tasks.push(handle.spawn(datagrams(socket)));
        }
        Ok(Self { tasks })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn sockets(address: IpAddr) -> Result<(TcpListener, UdpSocket)> {
    let here = SocketAddr::new(address, PORT);
    let listener = TcpListener::bind(here)?;
    listener.set_nonblocking(true)?;
    let socket = UdpSocket::bind(here)?;
    socket.set_nonblocking(true)?;
    Ok((listener, socket))
}

async fn connection(mut stream: tokio::net::TcpStream, peer: IpAddr) -> Result<()> {
    stream.write_all(format!("{peer}\n").as_bytes()).await?;
    let mut buffer = vec![0_u8; 64 * 1024];
    let (mut hash, mut total) = (Sha256::new(), 0_u64);
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
        total += length as u64;
    }
    if total > 0 {
        stream
            .write_all(format!("{total} {:x}\n", hash.finalize()).as_bytes())
            .await?;
    }
    Ok(())
}

async fn datagrams(socket: tokio::net::UdpSocket) {
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        // Errors are late ICMP answers to earlier replies: nothing of this server.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let mut answer = format!("{}|", peer.ip()).into_bytes();
        answer.extend_from_slice(&buffer[..length]);
        let _ = socket.send_to(&answer, peer).await;
    }
}
