//! The planner, the checker and the acceptance of claims, through the crate's public face.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod acceptance;
mod decisions;
mod histories;
mod mutations;
mod notices;
mod recorded;
mod support;
