//! What passes without tunnels, with the guard and without it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::World;
use crate::lab::{Endpoint, Flows, Oracle};

impl World {
    /// Fails when, while no node has a tunnel, a pod reaches one of another segment, or does not reach one of its own.
    ///
    /// # Errors
    /// Such a pair, or the matrix did not run.
    pub fn nothing_crosses(&self, each: u32, patience: Duration) -> Result<()> {
        let flows = Flows {
            each,
            patience,
            ..Flows::default()
        };
        for pair in self.lab.matrix(&flows)?.pairs {
            let wanted = if pair.crosses { 0 } else { pair.total };
            ensure!(pair.ok == wanted, "without tunnels: {pair}");
        }
        Ok(())
    }

    /// Takes the guard from a node on which nothing puts it back, and fails unless packets of `pair` then leave in clear: it was
    /// the guard that held them.
    ///
    /// # Errors
    /// The guard is not there, or the oracle hears no leak.
    pub fn leaks_without_the_guard(
        &self,
        oracle: &Oracle,
        node: &str,
        pair: &[Endpoint],
    ) -> Result<()> {
        let node = self.lab.node(node)?;
        node.nft("delete table inet tieline")?;
        // Absent where the kernel has no egress hook, and the IPv6 rules without an IPv6 plan.
        let _ = node.nft("delete table netdev tieline");
        for preference in [103, 105] {
            node.ip(&format!("-4 rule del pref {preference}"))?;
            let _ = node.ip(&format!("-6 rule del pref {preference}"));
        }
        let flows = Flows {
            each: 1,
            patience: Duration::from_secs(2),
            ..Flows::default()
        };
        self.lab.matrix_of(pair, &flows)?;
        let leaked = oracle.report()?;
        ensure!(
            leaked.clear_packets() + leaked.to_planned > 0,
            "the oracle heard no leak without the guard: {leaked}"
        );
        Ok(())
    }
}
