//! The pure heart of Tieline.
//!
//! Everything that *decides* lives here, and nothing that *acts*: no clock, no randomness, no file, no network, no
//! Kubernetes client. Whatever a decision depends on comes in as an argument, so the operator, the agent, the CLI and
//! the tests compute the same answer from the same input.
//!
//! ```text
//!  fleet ──plan──► ledgers + NetworkPlan + PlanReport ──check──► (operator writes)
//!                        │
//!                        └─ NetworkPlan + AcceptedPeers ──node_config──► NodeConfig ──resolve(facts)──► HostState
//!                                                                                        observed ──diff──► Changes
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`ids`], [`cidr`], [`keys`] | validated values |
//! | [`fleet`] | what users want and what nodes exist |
//! | [`ledger`], [`slices`] | who holds which prefix; how a large ledger is stored |
//! | [`plan`] | fleet and ledgers to plan: addresses, segments, gateways; the report |
//! | [`notice`] | why something could not be done: about what, which reason |
//! | [`network_plan`], [`peer`] | what the operator publishes to agents |
//! | [`claims`] | which agents' claims become accepted truth |
//! | [`check`] | independent re-proof of a plan before it is written |
//! | [`node`] | plan and peers to one node's configuration, and its resolution on a host |
//! | [`health`] | whether a path carries traffic: the one judge of it |
//! | [`host`] | the kernel state of a host as data: model, printers, diff |

pub mod check;
pub mod cidr;
pub mod claims;
mod differences;
pub mod fleet;
pub mod health;
pub mod host;
pub mod ids;
pub mod keys;
pub mod ledger;
pub mod network_plan;
pub mod node;
pub mod notice;
pub mod peer;
pub mod plan;
pub mod slices;
