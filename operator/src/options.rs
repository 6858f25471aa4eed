//! The command line. Each flag is also an environment variable, and this is the only place that reads either.

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use tieline_core::host::DEFAULT_PORT;
use tieline_core::ids::ClusterName;

/// Plans addresses and meshes for ClusterLinks and writes them to the Kubernetes API.
///
/// Reads ClusterLinks, Clusters, Sites, VpnAttachments and Nodes; writes AddressLedgers, NetworkPlans, Peers and the
/// status of what it reads. Several may run: one leads, the others wait.
#[derive(Debug, Clone, Parser)]
#[command(name = "tieline-operator", version)]
pub struct Options {
    /// This build's version, as metrics show it.
    #[arg(skip = env!("CARGO_PKG_VERSION"))]
    pub version: &'static str,

    /// Name of the Cluster object that describes the cluster this operator runs in.
    #[arg(long, env = "TIELINE_CLUSTER_NAME", value_name = "NAME")]
    pub cluster_name: ClusterName,

    /// Namespace of plans, Peers, Secrets and the Lease.
    #[arg(
        long,
        env = "TIELINE_NAMESPACE",
        value_name = "NAME",
        default_value = "tieline-system"
    )]
    pub namespace: String,

    /// Kubeconfig file. Without it: the pod's own credential, or what kubectl would use.
    #[arg(long, env = "TIELINE_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Address of /metrics, /healthz and /readyz. Port 0 takes a free one.
    #[arg(
        long,
        env = "TIELINE_METRICS_ADDRESS",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:21981"
    )]
    pub metrics_address: SocketAddr,

    /// Whether to write only while holding the Lease tieline-operator. Without it, no other operator may run.
    #[arg(long, env = "TIELINE_LEADER_ELECT", value_name = "BOOL", action = ArgAction::Set, default_value_t = true)]
    pub leader_elect: bool,

    /// Name in the Lease; must differ between replicas. Without it: the host's name and a random suffix.
    #[arg(long, env = "TIELINE_IDENTITY", value_name = "NAME")]
    pub identity: Option<String>,

    /// How long a silent leader keeps the Lease, in seconds: the longest time without a leader after a crash.
    #[arg(long, env = "TIELINE_LEASE_SECONDS", value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..=300))]
    pub lease_seconds: u32,

    /// Seconds between full passes when nothing happens (with up to a tenth more, so that operators do not march in step).
    #[arg(long, env = "TIELINE_RESYNC", value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub resync: u64,

    /// The agents' first UDP port (their flag --port): it is what VPN endpoints are made of.
    #[arg(long, env = "TIELINE_PORT", value_name = "PORT", default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..=65_455))]
    pub agent_port: u16,

    /// How log lines look.
    #[arg(
        long,
        env = "TIELINE_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,

    /// What is logged, as `tracing` filters are written: info, or info,tieline_operator=debug.
    #[arg(
        long,
        env = "TIELINE_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,
}

impl Options {
    /// Reads the command line and the environment of this process, as the build of that version. Ends the process after
    /// `--help`, `--version` or a flag that it does not know.
    #[must_use]
    pub fn read(version: &'static str) -> Self {
        let matches = Self::command().version(version).get_matches();
        let options = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        Self { version, ..options }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
