//! A gateway with 10,000 peers: its configuration computed and compared with its kernel, when nothing has changed and when one peer
//! has moved.

use anyhow::{Context, Result, ensure};
use bench_core::network::{PEERS, endpoint, facts, network};
use bench_core::{SAMPLES, sample};
use std::sync::Arc;
use tieline_core::host::diff::Livenesses;
use tieline_core::host::{DeviceName, diff};
use tieline_core::node::{node_config, resolve};

pub(crate) fn measure() -> Result<()> {
    let (plan, mut peers) = network(PEERS)?;
    let facts = facts(&peers)?;
    let own = peers.keys().next().cloned().context("no peer")?;
    let moved = peers.keys().next_back().cloned().context("no peer")?;
    let unknown = Livenesses::new();

    let mut observed = resolve(&node_config(&plan, &peers, Some(&own)), &facts);
    let found = observed.devices[&DeviceName::outer(0)].peers.len();
    ensure!(found == PEERS as usize - 1, "{found} peers");
    let work = format!("{found} peers");
    for _ in 0..SAMPLES {
        let changes = sample(
            "node_config, resolve and diff: nothing to do",
            &work,
            || {
                let wanted = resolve(&node_config(&plan, &peers, Some(&own)), &facts);
                diff(&observed, &unknown, &wanted)
            },
        );
        ensure!(changes.is_empty(), "changes without a reason");
    }
    for number in 0..SAMPLES as u32 {
        let peer = Arc::make_mut(peers.get_mut(&moved).context("no peer")?);
        peer.endpoints = vec![endpoint(PEERS + number)];
        let (wanted, changes) = sample("one peer's change", &work, || {
            let wanted = resolve(&node_config(&plan, &peers, Some(&own)), &facts);
            let changes = diff(&observed, &unknown, &wanted);
            (wanted, changes)
        });
        ensure!(!changes.is_empty(), "a moved peer changes nothing");
        observed = wanted;
    }
    Ok(())
}
