//! `tieline`: plan offline, show status, print node configurations; also a kubectl plugin.
//!
//! Offline commands run the operator's and the agent's own code on files: nothing here decides anything.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a command-line program prints

mod conditions;
mod connect;
mod doctor;
mod files;
mod gather;
mod ledger;
mod node_config;
mod offline;
mod plan;
mod status;
mod table;
mod withdraw;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::process::ExitCode;

/// One encrypted network over clusters, data centers and the company VPN.
#[derive(Debug, Parser)]
#[command(
    name = "tieline",
    version,
    about,
    after_help = "Examples:\n  tieline plan -f examples/three-sites             what would be granted, and what is refused\n  tieline plan -f examples/three-sites -o json     the same for scripts\n  tieline node-config -f examples/three-sites --node paris-1\n  tieline status                                   members, paths, who is not ready and why\n\nOn the PATH under the name kubectl-tieline it is `kubectl tieline`."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the operator would decide for the objects of files, without an API server.
    #[command(
        after_help = "Reads ClusterLink, Cluster, Site, VpnAttachment and Node objects. An AddressLedger, NetworkPlan or Peer among the\nfiles is the state before. With several Clusters, the label tieline.dev/cluster says which one a Node is in.\nOther kinds are left alone.\n\nExit code: 0 accepted, 1 refused or unreadable.\n\nExamples:\n  tieline plan -f examples/brownfield\n  tieline plan -f network.yaml -f nodes.yaml -o json | jq .refusals\n  kubectl get nodes,addressledgers,clusterlinks,clusters.tieline.dev,sites,vpnattachments -o yaml > all.yaml; tieline plan -f all.yaml"
    )]
    Plan {
        #[command(flatten)]
        inputs: offline::Inputs,
        /// How to print: tables, the objects that would be written, or one JSON object.
        #[arg(short, long, default_value = "table")]
        output: PlanOutput,
    },
    /// Print what one node's kernel would carry, like `wg`, `ip rule`, `ip route` and `nft` print it.
    #[command(
        after_help = "Keys are made up, since real ones exist on the nodes only; underlay facts are the flags' defaults.\n\nExamples:\n  tieline node-config -f examples/two-gateways --node dublin-2\n  tieline node-config -f examples/brownfield --node erp/erp-1 --underlay ens5 --mtu 9001"
    )]
    NodeConfig(node_config::NodeConfigArgs),
    /// Show members, paths, and who is not ready and why.
    #[command(
        after_help = "Exit code: 0 there is a link and all are ready, 1 not.\n\nExamples:\n  tieline status\n  tieline status -o json --kubeconfig lab.kubeconfig | jq .links"
    )]
    Status(status::StatusArgs),
    /// Look for what keeps a mesh from working, before an installation and after it. Changes nothing.
    #[command(
        after_help = "Looks at Kubernetes' version, our definitions and policies, who gives nodes their podCIDRs, CNI and kube-proxy, permissions,\nversions, clocks, conditions, and what the agents tell of their nodes: forwarding, other firewalls, MTU, paths.\nEach line says what was found and what to do. Recommended order: doctor, helm install (which changes nothing on a\nnode), doctor, then apply a ClusterLink, doctor.\n\nExit code: 0 no problem (there may be warnings), 1 problems, 2 it could not look at everything.\n\nExamples:\n  tieline doctor\n  tieline doctor -o json | jq '.findings[] | select(.severity == \"problem\")'\n  tieline doctor --context prod --namespace tieline-system"
    )]
    Doctor(doctor::DoctorArgs),
    /// Write a support bundle: objects, events, logs and doctor's findings, without secrets.
    #[command(
        after_help = "Holds the objects of tieline.dev, workloads, events, leases and logs of our namespaces, nodes (trimmed), versions, and\nwhat doctor says. Secrets are never read, so neither keys nor chart values are in it; what looks like a secret in an\nobject or a log is taken out. It prints what it holds and what was left out; README.txt in it says the same.\nAddresses, names of nodes and public keys are in it: look through it before you give it away.\n\nExit code: 0 written, 1 not.\n\nExamples:\n  tieline gather\n  tieline gather -o case-17.tar.gz --pods 50\n  tar -tzf case-17.tar.gz"
    )]
    Gather(gather::GatherArgs),
    /// The records of who holds which addresses.
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// Take the mesh down in order: delete the ClusterLinks and wait until nothing planned is left. Grants stay.
    #[command(
        after_help = "This is what `helm uninstall` runs first, with --cleanup-pod, which also removes from every node what its agent made.\nA node that is not ready keeps its part: an Event on it, TielineNotCleaned, says what and how to clean it.\n\nExit code: 0 all of it is gone, 1 not.\n\nExample:\n  tieline withdraw --yes"
    )]
    Withdraw(withdraw::WithdrawArgs),
    /// Print the version.
    Version,
}

/// How `tieline plan` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PlanOutput {
    /// For people.
    Table,
    /// The objects that would be written.
    Yaml,
    /// For scripts.
    Json,
}

/// Runs the command line, as the build of that version, and says how it ended. Errors are printed with their causes.
#[must_use]
pub fn run(version: &'static str) -> ExitCode {
    let matches = Cli::command().version(version).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let outcome = execute(cli.command, version);
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn execute(command: Command, version: &str) -> Result<ExitCode> {
    match command {
        Command::Plan { inputs, output } => {
            let offline = offline::plan(&inputs)?;
            let report = plan::report(&offline);
            match output {
                PlanOutput::Table => print!("{}", plan::text(&offline, &report)),
                PlanOutput::Yaml => print!("{}", offline.yaml()?),
                PlanOutput::Json => println!("{}", serde_json::to_string_pretty(&report)?),
            }
            if output == PlanOutput::Yaml {
                for refusal in &report.refusals {
                    eprintln!(
                        "refused: {} {}: {}",
                        refusal.kind, refusal.name, refusal.message
                    );
                }
            }
            Ok(if report.accepted {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Command::NodeConfig(args) => {
            print!("{}", node_config::text(&args)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor(args) => {
            let diagnosis = match runtime()?.block_on(doctor::examine(&args, version)) {
                Ok(diagnosis) => diagnosis,
                Err(error) => {
                    eprintln!("error: {error:#}");
                    return Ok(ExitCode::from(2));
                }
            };
            match args.output {
                status::StatusOutput::Table => print!("{}", doctor::text(&diagnosis)),
                status::StatusOutput::Json => {
                    println!("{}", serde_json::to_string_pretty(&diagnosis)?)
                }
            }
            Ok(ExitCode::from(diagnosis.exit_code()))
        }
        Command::Gather(args) => {
            runtime()?.block_on(gather::gather(&args, version))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Ledger(ledger::LedgerCommand::AcceptRestore(args)) => {
            runtime()?.block_on(ledger::accept_restore(&args))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Withdraw(args) => {
            runtime()?.block_on(withdraw::withdraw(&args))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Status(args) => {
            let status = runtime()?.block_on(status::read(&args))?;
            match args.output {
                status::StatusOutput::Table => print!("{}", status::text(&status)),
                status::StatusOutput::Json => {
                    println!("{}", serde_json::to_string_pretty(&status)?)
                }
            }
            Ok(if status.ready {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Command::Version => {
            println!("tieline {version}");
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
