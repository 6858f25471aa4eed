//! The operator: hub and member of a single cluster in one process.
//!
//! ```text
//!  API server ──watches──► index ──bell──► reconcile ──► ledgers, plans, Peers, Secrets
//!       ▲                    ▲                │
//!       │                    └── own writes ──┤
//!       └──── statuses, labels, Events ◄── announce
//! ```
//!
//! A pass costs what changed: Nodes and Peers are carried forward from the pass before ([`fold`]); everything else is decided as a
//! whole, which is also what the tests compare with.
//!
//! | module | what it does | |
//! |---|---|---|
//! | [`index`], [`shared`] | everything that was read | pure; shared |
//! | [`watch`] | the API server's events into the index | IO |
//! | [`world`], [`fold`], [`touched`] | the index as the planner reads it, anew or carried forward; what a change concerns | pure |
//! | [`planning`] | the plan and its proof, of everything or of what changed | pure |
//! | [`decided`], [`uses`], [`objections`] | a decision as a value; who uses what in it, and what stands against it | pure |
//! | [`mod@steps`] | what a decision writes, in order | pure |
//! | [`ledgers`] | how ledgers are stored, in which order; what waits when one is full | pure |
//! | [`mod@reconcile`], [`mod@run`] | one pass; one after the other | the sequence |
//! | [`restore`] | what waits after a restored backup | pure |
//! | [`vpn`] | keys of VPN attachments, sealed boxes, the other side's configuration | pure |
//! | [`status`], [`announce`] | what people read, and writing it | pure; IO |
//! | [`mod@write`] | one request each, only while leading | IO |
//! | [`admin`], [`metrics`], [`options`] | endpoints, numbers, flags | |
//!
//! Who leads, and whether the definitions are new enough, is asked with `tieline-client`.

pub mod admin;
pub mod announce;
pub mod decided;
pub mod fold;
pub mod index;
pub mod ledgers;
pub mod metrics;
pub mod objections;
pub mod options;
pub mod planning;
pub mod reconcile;
pub mod restore;
pub mod run;
pub mod shared;
pub mod status;
pub mod steps;
pub mod touched;
pub mod uses;
pub mod vpn;
pub mod watch;
pub mod world;
pub mod write;

pub use run::run;

use kube::Client;
use std::path::Path;
use thiserror::Error;
use tieline_client::config::{self, CredentialError, Source};
use tieline_client::connect;
use tieline_core::ids::NameError;

/// Why the operator ends by itself.
#[derive(Debug, Error)]
pub enum RunError {
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
/// [`CredentialError`] when there is none or it cannot be used.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, CredentialError> {
    let source = kubeconfig.map_or(Source::Found, |path| Source::File(path, None));
    connect(config::read(source).await?)
}
