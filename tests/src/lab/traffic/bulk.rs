//! One large TCP transfer, with a hash on both ends.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use super::{Endpoint, Family, PORT, tcp_from};

/// A transfer that arrived intact.
#[derive(Debug, Clone)]
pub struct Bulk {
    /// Bytes that arrived.
    pub bytes: u64,
    /// From the first byte sent to the server's receipt.
    pub took: Duration,
    /// SHA-256 that both ends computed, in hexadecimal.
    pub sha256: String,
}

impl Bulk {
    /// Throughput in Mbit/s, the server's hashing included.
    #[must_use]
    pub fn mbit_per_s(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.took.as_secs_f64() / 1e6
    }
}

pub(super) async fn run(
    from: &Endpoint,
    to: &Endpoint,
    family: Family,
    bytes: u64,
    patience: Duration,
) -> Result<Bulk> {
    let (own, target) = (from.needs(family)?, to.needs(family)?);
    let what = format!("{bytes} bytes {} -> {} over {family}", from.name, to.name);
    let data = pseudo_random(usize::try_from(bytes)?);
    let wanted = format!("{:x}", Sha256::digest(&data));
    let socket = from.ns.run(|| tcp_from(own))?;
    let transfer = async {
        let stream = socket.connect(SocketAddr::new(target, PORT)).await?;
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        lines
            .next_line()
            .await?
            .context("the server closed at once")?;
        let start = Instant::now();
        writer.write_all(&data).await?;
        writer.shutdown().await?;
        let receipt = lines
            .next_line()
            .await?
            .context("no receipt from the server")?;
        anyhow::Ok((receipt, start.elapsed()))
    };
    let (receipt, took) = timeout(patience, transfer)
        .await
        .with_context(|| format!("{what}: not done within {patience:?}"))?
        .with_context(|| what.clone())?;
    ensure!(
        receipt == format!("{bytes} {wanted}"),
        "{what}: sent {wanted}, arrived {receipt}"
    );
    Ok(Bulk {
        bytes,
        took,
        sha256: wanted,
    })
}

/// Bytes that neither compress nor repeat within a packet: xorshift with a fixed seed.
fn pseudo_random(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(length);
    data
}
