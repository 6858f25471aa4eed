//! A cluster's level: its own ledger, what the hub has granted it and its nodes, to shares of nodes and offered segments.
//!
//! ```text
//!  open: where nodes are ─► ranges in use ─► first blocks ─► pod ranges ─► mesh addresses ─► close: ledger, nodes, offer
//! ```
//! It knows nothing of other clusters and reads nothing of the hub but [`Holdings`](super::exchange::Holdings). Where it needs
//! a block that it does not hold, it stops and asks; who has the answer lets it go on. Where all is settled, `room` tells what follows from
//! single nodes.

mod book;
mod draft;
mod gateways;
mod node;
mod offer;
mod room;

pub(super) use draft::Draft;
pub(super) use room::{Room, Standing};
