//! What statuses are judged from. It decides nothing.

use super::readiness::Readiness;
use crate::decided::{Decided, Refused};
use crate::index::Index;

/// What statuses are judged from.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// The objects.
    pub index: &'a Index,
    /// What was decided on them.
    pub decided: &'a Decided,
    /// Which members are ready.
    pub members: &'a Readiness,
    /// What the API server refused.
    pub refused: &'a Refused,
}
