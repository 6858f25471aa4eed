//! A gateway with 10,000 peers: its configuration computed and compared with its kernel, when nothing has changed and when one peer
//! has moved.

use anyhow::{Context, Result, ensure};
use bench_core::network::{PEERS, endpoint, facts, network};
use bench_core::{SAMPLES, sample};
use std::sync::Arc;
use tieline_core::host::diff::{Livenesses, diff_parts};
use tieline_core::host::{Change, DeviceName, HostState, diff};
use tieline_core::node::{Configurator, Inputs, Touched, node_config, resolve};

pub(crate) fn measure() -> Result<()> {
    let (plan, peers) = network(PEERS)?;
    let facts = facts(&peers)?;
    let own = peers.keys().next().cloned().context("no peer")?;
    let moved = peers.keys().next_back().cloned().context("no peer")?;
    let mut inputs = Inputs {
        plan: Arc::new(plan),
        peers: Arc::new(peers),
        own: Some(own),
        facts,
    };
    let mut node = Configurator::default();
    node.follow(inputs.clone());
    let mut observed = node.state().clone();
    let found = observed.devices[&DeviceName::outer(0)].peers.len();
    ensure!(found == PEERS as usize - 1, "{found} peers");
    let work = format!("{found} peers");
    let config = node_config(&inputs.plan, &inputs.peers, inputs.own.as_ref());
    ensure!(resolve(&config, &inputs.facts) == observed, "another state");
    for _ in 0..SAMPLES {
        // All that was observed is compared.
        let same = inputs.clone();
        let changes = sample(
            "node_config, resolve and diff: nothing to do",
            &work,
            || {
                node.follow(same);
                diff(&observed, &Livenesses::new(), node.state())
            },
        );
        ensure!(changes.is_empty(), "changes without a reason");
    }
    for number in 0..SAMPLES as u32 {
        let mut now = inputs.clone();
        let peer = Arc::make_mut(&mut now.peers).get_mut(&moved);
        Arc::make_mut(peer.context("no peer")?).endpoints = vec![endpoint(PEERS + number)];
        inputs = now.clone();
        let changes = sample("one peer's change", &work, || {
            step(&mut node, now, &observed)
        });
        ensure!(
            changes.len() == 1,
            "a moved peer is one change: {}",
            changes.len()
        );
        for change in &changes {
            observed.apply(change);
        }
        ensure!(*node.state() == observed, "the change is not enough");
    }
    Ok(())
}

/// A kernel that was as wanted, and is as it was: only what is wanted anew can differ.
fn step(node: &mut Configurator, now: Inputs, observed: &HostState) -> Vec<Change> {
    let turn = node.follow(now);
    let unknown = Livenesses::new();
    match turn.touched {
        Touched::Everything => diff(observed, &unknown, node.state()),
        Touched::Parts { paths, routes } => {
            diff_parts(observed, &unknown, node.state(), &paths, &routes)
        }
    }
}
