//! What the demo measured, as JSON for scripts, and what makes it a failure.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::lab::{CaptureReport, MatrixReport};
use e2e::world::{Joins, World};
use serde::Serialize;

/// The report. Fields are only ever added.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) nodes: usize,
    pub(crate) sites: usize,
    /// Ordered pairs of pods and the VPN's host.
    pub(crate) pairs_total: usize,
    /// Those of which every flow was answered.
    pub(crate) pairs_ok: usize,
    /// Whether every receiver in another segment saw the sender's own address.
    pub(crate) source_ip_preserved: bool,
    /// Planned packets between segments that an eavesdropper could read.
    pub(crate) clear_text_packets: u64,
    /// Packets the eavesdropper was shown in all.
    pub(crate) packets_seen: u64,
    /// Packets it missed; anything but 0 makes its count worthless.
    pub(crate) packets_not_captured: u64,
    /// From `kubectl apply` until the ClusterLink was Ready.
    pub(crate) seconds_to_ready: f64,
    /// From a node's registration to its first answered packet, median and slowest.
    pub(crate) seconds_join_p50: f64,
    pub(crate) seconds_join_max: f64,
    pub(crate) joins: usize,
    /// `embedded` or `kernel`.
    pub(crate) wireguard_backend: String,
    pub(crate) links: Vec<Link>,
}

/// What was measured between two segments.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Link {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) rtt_ms_p50: f64,
    pub(crate) rtt_ms_max: f64,
    pub(crate) tcp_mbit_per_s: f64,
}

impl Report {
    pub(crate) fn new(
        world: &World,
        matrix: &MatrixReport,
        capture: &CaptureReport,
        links: &[Link],
        joins: &Joins,
        seconds_to_ready: f64,
    ) -> Result<Self> {
        let sites: BTreeSet<&str> = world
            .lab
            .nodes()
            .map(|node| node.spec().site.as_str())
            .collect();
        Ok(Self {
            nodes: world.lab.nodes().count(),
            sites: sites.len(),
            pairs_total: matrix.pairs_total(),
            pairs_ok: matrix.pairs_ok(),
            source_ip_preserved: matrix.flows().1 > 0 && matrix.sources_lost().is_empty(),
            clear_text_packets: capture.clear_packets(),
            packets_seen: capture.frames,
            packets_not_captured: capture.dropped,
            seconds_to_ready: rounded(seconds_to_ready),
            seconds_join_p50: rounded(joins.p50().as_secs_f64()),
            seconds_join_max: rounded(joins.max().as_secs_f64()),
            joins: joins.count(),
            wireguard_backend: world.backend()?.to_lowercase(),
            links: links.to_vec(),
        })
    }

    /// What is wrong; empty when nothing is.
    pub(crate) fn verdict(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.pairs_total == 0 || self.pairs_ok < self.pairs_total {
            wrong.push(format!(
                "{} of {} pairs work",
                self.pairs_ok, self.pairs_total
            ));
        }
        if !self.source_ip_preserved {
            wrong.push("a receiver did not see the sender's own address".into());
        }
        if self.clear_text_packets > 0 {
            wrong.push(format!(
                "{} packets crossed in clear",
                self.clear_text_packets
            ));
        }
        if self.packets_not_captured > 0 || self.packets_seen == 0 {
            wrong.push("the eavesdropper missed packets, so its count is worth nothing".into());
        }
        wrong
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("making {}", folder.display()))?;
        }
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1000.0)
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
