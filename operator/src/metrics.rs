//! What /metrics shows. Labels are kinds and outcomes, never names or error texts.

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::sync::Arc;

/// Kind and outcome of a write.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WriteLabels {
    /// Plural of the kind, with the subresource behind a slash.
    pub resource: &'static str,
    /// `stored`, `conflict`, `refused` or `unavailable`.
    pub outcome: &'static str,
}

/// All metrics; cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Writes by kind and outcome.
    pub writes: Family<WriteLabels, Counter>,
    /// Passes over everything.
    pub passes: Counter,
    /// Passes that ended early because of an error.
    pub failed_passes: Counter,
    /// Lists that were begun again.
    pub relists: Counter,
    /// Whether this process leads.
    pub leading: Gauge,
    /// Findings of the checker in the last pass; anything above 0 is a bug, and nothing is written.
    pub findings: Gauge,
    /// Refusals in the last pass.
    pub refusals: Gauge,
    /// What waits for something in the last pass.
    pub waiting: Gauge,
    /// Peers of planned nodes.
    pub peers: Gauge,
    /// Seconds that deciding took.
    pub decide_seconds: Histogram,
    /// Seconds from the first event of a pass to the last Peer written.
    pub pass_seconds: Histogram,
    registry: Arc<Registry>,
}

impl Metrics {
    /// Numbers at zero, of a build of that version.
    #[must_use]
    pub fn new(version: &str) -> Self {
        let steps = || {
            Histogram::new([
                0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0,
            ])
        };
        let mut registry = Registry::with_prefix("tieline_operator");
        let metrics = Self {
            writes: Family::default(),
            passes: Counter::default(),
            failed_passes: Counter::default(),
            relists: Counter::default(),
            leading: Gauge::default(),
            findings: Gauge::default(),
            refusals: Gauge::default(),
            waiting: Gauge::default(),
            peers: Gauge::default(),
            decide_seconds: steps(),
            pass_seconds: steps(),
            registry: Arc::default(),
        };
        registry.register(
            "build",
            "Version of this operator",
            Info::new(vec![("version", version.to_owned())]),
        );
        registry.register(
            "writes",
            "Requests that change an object",
            metrics.writes.clone(),
        );
        registry.register("passes", "Reconcile passes", metrics.passes.clone());
        registry.register(
            "failed_passes",
            "Reconcile passes that an error ended",
            metrics.failed_passes.clone(),
        );
        registry.register(
            "relists",
            "Lists begun again after a broken watch",
            metrics.relists.clone(),
        );
        registry.register(
            "leading",
            "1 while this process leads",
            metrics.leading.clone(),
        );
        registry.register(
            "findings",
            "Broken invariants in the last plan; nothing is written above 0",
            metrics.findings.clone(),
        );
        registry.register(
            "refusals",
            "What the last plan refused",
            metrics.refusals.clone(),
        );
        registry.register(
            "waiting",
            "What waits for something in the last plan",
            metrics.waiting.clone(),
        );
        registry.register("peers", "Peers of planned nodes", metrics.peers.clone());
        registry.register(
            "decide_seconds",
            "Time to plan and check",
            metrics.decide_seconds.clone(),
        );
        registry.register(
            "pass_seconds",
            "Time of a pass up to the last Peer written",
            metrics.pass_seconds.clone(),
        );
        Self {
            registry: Arc::new(registry),
            ..metrics
        }
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `docs/metrics.md` is made from the file.
    #[test]
    fn what_a_fresh_operator_serves_is_what_metrics_txt_shows() {
        let metrics = Metrics::new("VERSION");
        let _ = metrics.writes.get_or_create(&WriteLabels {
            resource: "peers",
            outcome: "stored",
        });
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/metrics.txt");
        let page = metrics.render();
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let expected = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(page, expected, "`make docs` writes {path} again");
    }
}
