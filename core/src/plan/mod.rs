//! Fleet and ledgers to plan: addresses, segments, gateways, and a report of what could not be done.
//!
//! Pure, deterministic, sticky. What is granted stays granted; planning twice changes nothing; adding never moves.
//!
//! ```text
//!  cluster level (own ledger, holdings, nodes, wish) ─► ledger, nodes ─┐
//!      ▲ holdings                        │ ranges in use, asks, offers  ├─► Proposal
//!      └──── hub level (fleet, hub's ledger, offers, asks) ◄┘ ─► ledger, network plans
//! ```
//! The levels share values only ([`exchange`]). `single` runs both in one process, [`Planner`] carries the outcome on.

mod cluster;
mod disjoint;
mod exchange;
mod hub;
mod kept;
mod lengths;
mod planner;
mod proposal;
mod report;
mod single;
mod space;
mod withheld;

pub use planner::{Planner, Touched, plan};
pub use proposal::{Before, NodePlan, Proposal};
pub use report::{PlanReport, listed};
