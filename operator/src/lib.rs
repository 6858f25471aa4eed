//! The operator: hub and member of a single cluster in one process.
//!
//! ```text
//!  API server ──watches──► index ──bell──► reconcile ──► ledgers, plans, Peers, Secrets
//!       ▲                    ▲                │
//!       │                    └── own writes ──┤
//!       └──── statuses, labels, Events ◄── status lane
//! ```
//!
//! A pass costs what changed: Nodes and Peers are carried forward from the pass before ([`fold`]); everything else is decided as a
//! whole, which is also what the tests compare with.
//!
//! | module | what it does | |
//! |---|---|---|
//! | [`index`], [`store`] | everything that was read | pure; shared |
//! | [`watch`] | the API server's events into the store | IO |
//! | [`world`], [`fold`], [`touched`] | the index as the planner reads it, anew or carried forward; what a change concerns | pure |
//! | [`planning`] | the plan and its proof, of everything or of what changed | pure |
//! | [`decided`], [`uses`], [`objections`] | a decision as a value; who uses what in it, and what stands against it | pure |
//! | [`mod@steps`] | what a decision writes, in order | pure |
//! | [`ledgers`] | how ledgers are stored, in which order; what waits when one is full | pure |
//! | [`mod@reconcile`], [`mod@run`] | one pass; one after the other | the sequence |
//! | [`restore`] | what waits after a restored backup | pure |
//! | [`vpn`] | keys of VPN attachments, sealed boxes, the other side's configuration | pure |
//! | [`status`], [`lane`] | what people read, and writing it | pure; IO |
//! | [`mod@write`] | one request each, only while leading | IO |
//! | [`leader`], [`lease`] | who leads | pure; IO |
//! | [`schema`], [`admin`], [`metrics`], [`options`] | start check, endpoints, numbers, flags | |

pub mod admin;
pub mod decided;
pub mod fold;
pub mod index;
pub mod lane;
pub mod leader;
pub mod lease;
pub mod ledgers;
pub mod metrics;
pub mod objections;
pub mod options;
pub mod planning;
pub mod reconcile;
pub mod restore;
pub mod run;
pub mod schema;
pub mod status;
pub mod steps;
pub mod store;
pub mod touched;
pub mod uses;
pub mod vpn;
pub mod watch;
pub mod world;
pub mod write;

pub use run::run;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::Path;
use thiserror::Error;
use tieline_core::ids::NameError;

/// Why the operator ends by itself.
#[derive(Debug, Error)]
pub enum RunError {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig")]
    Kubeconfig(#[source] kube::config::KubeconfigError),
    /// No way to the API server.
    #[error("cannot make a client for the API server")]
    Client(#[source] Box<kube::Error>),
    /// The credential of the environment cannot be used.
    #[error("found no credential: give --kubeconfig, or run in a pod with a ServiceAccount")]
    NoCredential(#[source] kube::config::InferConfigError),
    /// The admin address cannot be bound.
    #[error("cannot listen on --metrics-address")]
    Listen(#[source] std::io::Error),
    /// A generated name is not valid, which is a bug.
    #[error("cannot make a lineage")]
    Lineage(#[from] NameError),
}

/// A client with the credential that the options name.
///
/// # Errors
/// [`RunError`] when there is none or it cannot be used.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, RunError> {
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(RunError::Kubeconfig)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(RunError::Kubeconfig)?
        }
        None => Config::infer().await.map_err(RunError::NoCredential)?,
    };
    tieline_client::connect(config).map_err(|error| RunError::Client(Box::new(error)))
}
