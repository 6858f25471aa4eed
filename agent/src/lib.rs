//! One per node: turns the plan into WireGuard devices, routes, rules and firewall.
//!
//! A thin shell around the pure decisions of `tieline-core`: it reads, writes and reports.
//!
//! | module | what it does |
//! |---|---|
//! | [`options`] | flags and environment |
//! | [`run`] | the loop: restore from disk, follow the API server and the kernel |
//! | [`reconcile`] | one round: decide, read, resolve, write, read back, report |
//! | [`desired`], [`facts`], [`contact`], [`sealed`], [`report`] | the round's pure parts |
//! | [`index`], [`watch`] | what the API server says |
//! | [`publish`] | this node's Peer status |
//! | [`identity`], [`store`], [`memory`] | keys, and what a restart must not forget |
//! | [`files`] | how all of them are written |
//! | [`names`] | DNS names of endpoints |
//! | [`metrics`] | numbers and health pages |
//! | [`boot`] | what keeps planned ranges closed from the host's boot until the agent runs |
//! | [`cleanup`] | removes everything |
//! | [`platform`] | the seam to the kernel: observe, apply, wait for news |

pub mod boot;
pub mod cleanup;
pub mod contact;
pub mod desired;
pub mod facts;
pub mod files;
#[cfg(test)]
mod fixture;
pub mod identity;
pub mod index;
pub mod memory;
pub mod metrics;
pub mod names;
pub mod options;
pub mod platform;
pub mod publish;
pub mod reconcile;
pub mod report;
pub mod run;
pub mod sealed;
pub mod store;
pub mod watch;
