//! What the agent is told at start: one struct, read in one place, each flag also an environment variable.

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use tieline_core::host::DEFAULT_PORT;
use tieline_core::ids::{ClusterName, NodeName};
use tieline_core::peer::{Endpoint, Scope};

/// The agent of one node: turns the NetworkPlan and the accepted Peers into WireGuard devices, routes, rules and
/// firewall, and keeps them so. Stopping it changes nothing in the kernel; `cleanup` removes everything.
#[derive(Debug, Clone, Parser)]
#[command(name = "tieline-agent", version)]
pub struct Options {
    /// What to do; without it: run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings of the agent.
    #[command(flatten)]
    pub settings: Settings,
}

impl Options {
    /// Reads the command line and the environment of this process, as the build of that version. Ends the process after
    /// `--help`, `--version` or a flag that it does not know.
    #[must_use]
    pub fn read(version: &'static str) -> Self {
        let matches = Self::command().version(version).get_matches();
        let mut options = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        options.settings.version = version;
        options
    }
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Keep this node in the mesh (the default).
    Run,
    /// Put a systemd unit into place that keeps planned ranges closed from the host's boot until the agent runs, and end.
    /// Where the host has no systemd or its /etc is read-only, nothing is changed.
    BootUnit {
        /// The host's folder of systemd units.
        #[arg(
            long,
            env = "TIELINE_SYSTEMD_UNITS",
            default_value = "/etc/systemd/system"
        )]
        units: PathBuf,
    },
    /// Remove from this host everything that the agent made: devices, routes, rules, nft tables, and its state
    /// directory with the node's private keys. Stop the agent first.
    Cleanup {
        /// Keep the private keys, so that a later install has the same identity.
        #[arg(long, env = "TIELINE_KEEP_IDENTITY")]
        keep_identity: bool,
        /// The host's folder of systemd units.
        #[arg(
            long,
            env = "TIELINE_SYSTEMD_UNITS",
            default_value = "/etc/systemd/system"
        )]
        units: PathBuf,
    },
}

/// Settings of the agent.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// This build's version, as Peers and metrics show it.
    #[arg(skip = env!("CARGO_PKG_VERSION"))]
    pub version: &'static str,
    /// Name of this node in its cluster; needed to run.
    #[arg(long, env = "NODE_NAME", global = true)]
    pub node_name: Option<NodeName>,
    /// Name of this node's cluster. When it is given, a Peer of another cluster is never taken for this node's.
    #[arg(long, env = "TIELINE_CLUSTER_NAME", global = true)]
    pub cluster_name: Option<ClusterName>,
    /// Credential for the API server; absent: the pod's service account.
    #[arg(long, env = "KUBECONFIG", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Where private keys and the last good plan are kept.
    #[arg(
        long,
        env = "TIELINE_STATE_DIR",
        default_value = "/var/lib/tieline",
        global = true
    )]
    pub state_dir: PathBuf,
    /// Namespace of the plan and of this cluster's Peers.
    #[arg(
        long,
        env = "TIELINE_NAMESPACE",
        default_value = "tieline-system",
        global = true
    )]
    pub namespace: String,
    /// Namespace of other clusters' Peers.
    #[arg(
        long,
        env = "TIELINE_MESH_NAMESPACE",
        default_value = "tieline-mesh",
        global = true
    )]
    pub mesh_namespace: String,
    /// Mark (and mask) of encrypted packets, decimal or with 0x; must be the same on all nodes of a host's firewall.
    #[arg(long, env = "TIELINE_FWMARK", default_value = "0x1000", value_parser = parse_mark, global = true)]
    pub fwmark: u32,
    /// First UDP port; the devices use this one and the 80 that follow. Must be the same on all nodes.
    #[arg(long, env = "TIELINE_PORT", default_value_t = DEFAULT_PORT,
          value_parser = clap::value_parser!(u16).range(1..=65_455), global = true)]
    pub port: u16,
    /// Which WireGuard carries the traffic.
    #[arg(long, env = "TIELINE_BACKEND", value_enum, default_value_t = BackendChoice::Auto, global = true)]
    pub backend: BackendChoice,
    /// Underlay devices beside those that hold a default route or reach an endpoint.
    #[arg(
        long,
        env = "TIELINE_UNDERLAY",
        value_delimiter = ',',
        value_name = "DEVICE",
        global = true
    )]
    pub underlay: Vec<String>,
    /// Addresses or DNS names, with `:port` where it differs, under which this node is reached from everywhere;
    /// claimed beside the addresses that the agent finds.
    #[arg(long = "endpoint", env = "TIELINE_ENDPOINTS", value_delimiter = ',', value_name = "HOST[:PORT]",
          value_parser = parse_endpoint, global = true)]
    pub endpoints: Vec<Endpoint>,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(
        long,
        env = "TIELINE_METRICS_ADDRESS",
        default_value = "127.0.0.1:21980",
        global = true
    )]
    pub metrics_address: SocketAddr,
    /// Form of the log lines on standard error.
    #[arg(long, env = "TIELINE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
    /// What is logged, as `tracing` filters are written: info, or info,tieline_agent=debug. gotatun counts every packet to a
    /// standby gateway, which has no endpoint, as an error.
    #[arg(
        long,
        env = "TIELINE_LOG",
        value_name = "FILTER",
        default_value = "info,gotatun=off",
        global = true
    )]
    pub log: String,
    /// Seconds between full resyncs, give or take a fifth.
    #[arg(long, env = "TIELINE_RESYNC", default_value_t = 30, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3600), global = true)]
    pub resync: u64,
}

/// Which WireGuard carries the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// The kernel's where it has one, else the embedded one.
    Auto,
    /// The kernel's, or fail.
    Kernel,
    /// The embedded one, inside the agent's process.
    Embedded,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

fn parse_mark(text: &str) -> Result<u32, String> {
    let value = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    match value {
        Ok(0) | Err(_) => Err("write a mark between 1 and 0xffffffff, like 0x1000".to_owned()),
        Ok(mark) => Ok(mark),
    }
}

fn parse_endpoint(text: &str) -> Result<Endpoint, String> {
    Endpoint::parse(text, Scope::Public).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }

    #[test]
    fn the_default_mark_is_the_meshs() {
        let options = Options::try_parse_from(["tieline-agent"]).unwrap();
        assert_eq!(options.settings.fwmark, tieline_core::host::DEFAULT_FWMARK);
    }

    #[test]
    fn flags_may_stand_on_either_side_of_the_subcommand() {
        for line in [
            &["tieline-agent", "--fwmark", "0x2000", "cleanup"][..],
            &["tieline-agent", "cleanup", "--fwmark", "0x2000"][..],
        ] {
            let options = Options::try_parse_from(line).unwrap();
            assert_eq!(options.settings.fwmark, 0x2000);
            assert!(matches!(
                options.command,
                Some(Command::Cleanup {
                    keep_identity: false,
                    ..
                })
            ));
        }
    }

    #[test]
    fn a_mark_of_zero_and_a_mistyped_endpoint_are_refused() {
        for line in [
            ["tieline-agent", "--fwmark", "0"],
            ["tieline-agent", "--endpoint", "203.0.113"],
        ] {
            assert!(Options::try_parse_from(line).is_err(), "{line:?}");
        }
    }
}
