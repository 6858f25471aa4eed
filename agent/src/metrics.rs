//! Numbers for monitoring, and the three pages that show them. Labels are few and fixed: no object names, no errors.

use crate::platform::Backend;
use crate::report::{Outcome, Role};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

/// All numbers of one agent.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    ready: AtomicBool,
    devices: Gauge,
    peers: Gauge,
    paths_up: Gauge,
    paths: Gauge,
    applied_revision: Gauge,
    reconciles: Counter,
    failed: Counter,
    kernel_writes: Counter,
    api_writes: Counter,
    seconds: Histogram,
}

impl Metrics {
    /// Numbers at zero, of a build of that version.
    #[must_use]
    pub fn new(backend: Backend, version: &str) -> Self {
        let mut registry = Registry::with_prefix("tieline_agent");
        let gauge = |registry: &mut Registry, name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let counter = |registry: &mut Registry, name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let seconds = Histogram::new([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]);
        registry.register(
            "reconcile_seconds",
            "Duration of a reconcile",
            seconds.clone(),
        );
        registry.register(
            "build",
            "Version and WireGuard of this agent",
            Info::new(vec![
                ("version", version.to_owned()),
                ("backend", backend.to_string()),
            ]),
        );
        Self(Arc::new(Inner {
            devices: gauge(
                &mut registry,
                "devices",
                "WireGuard devices of Tieline in the kernel",
            ),
            peers: gauge(&mut registry, "peers", "Peers of all these devices"),
            paths_up: gauge(
                &mut registry,
                "paths_up",
                "Paths to gateways with a handshake younger than 180 s",
            ),
            paths: gauge(&mut registry, "paths", "Paths to gateways"),
            applied_revision: gauge(
                &mut registry,
                "applied_revision",
                "Plan revision that the kernel carries",
            ),
            reconciles: counter(&mut registry, "reconciles", "Reconciles"),
            failed: counter(
                &mut registry,
                "reconciles_failed",
                "Reconciles after which the kernel was not as wanted",
            ),
            kernel_writes: counter(
                &mut registry,
                "kernel_writes",
                "Changes written to the kernel",
            ),
            api_writes: counter(
                &mut registry,
                "api_writes",
                "Writes of this node's Peer status",
            ),
            seconds,
            ready: AtomicBool::new(false),
            registry,
        }))
    }

    /// One reconcile has ended.
    pub fn reconciled(&self, outcome: &Outcome, took: Duration) {
        let inner = &self.0;
        inner.reconciles.inc();
        if !outcome.is_applied() {
            inner.failed.inc();
        }
        inner.kernel_writes.inc_by(outcome.writes as u64);
        inner.seconds.observe(took.as_secs_f64());
        inner.paths_up.set(count(outcome.paths.up));
        inner.paths.set(count(outcome.paths.total));
        if outcome.is_applied() {
            let revision = outcome.revision.unwrap_or_default();
            inner
                .applied_revision
                .set(i64::try_from(revision).unwrap_or(i64::MAX));
        }
        // A node that no mesh wants has nothing to carry: an installation without a ClusterLink is ready.
        let settled = matches!(outcome.role, Role::Member | Role::Withdrawn);
        let ready = outcome.is_applied() && settled;
        inner.ready.store(ready, Ordering::Relaxed);
    }

    /// What the kernel holds.
    pub fn observed(&self, devices: usize, peers: usize) {
        self.0.devices.set(count(devices));
        self.0.peers.set(count(peers));
    }

    /// The status was written.
    pub fn api_written(&self) {
        self.0.api_writes.inc();
    }

    /// All numbers in the OpenMetrics text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.0.registry);
        text
    }

    /// Serves `/metrics`, `/healthz` and `/readyz` until the process ends.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn serve(self, address: SocketAddr) -> io::Result<()> {
        let app = Router::new()
            .route("/metrics", get(show))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .with_state(self);
        axum::serve(TcpListener::bind(address).await?, app).await
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

async fn show(State(metrics): State<Metrics>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics.render())
}

async fn ready(State(metrics): State<Metrics>) -> impl IntoResponse {
    if metrics.0.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the kernel does not carry the mesh; the Peer's conditions say why\n",
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `docs/metrics.md` is made from the file.
    #[test]
    fn what_a_fresh_agent_serves_is_what_metrics_txt_shows() {
        let page = Metrics::new(Backend::Kernel, "VERSION").render();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/metrics.txt");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let expected = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(page, expected, "`make docs` writes {path} again");
    }
}
