//! The nft tables `inet tieline` and `netdev tieline`, as typed data and as the text that `nft -f` loads.

use serde::{Deserialize, Serialize};

/// All nft tables of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {}

impl Ruleset {
    /// The script that replaces our tables by this ruleset in one transaction.
    #[must_use]
    pub fn script(&self) -> String {
        String::new()
    }
}
