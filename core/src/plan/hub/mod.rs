//! The hub's level: what users want, the hub's ledger, and what clusters ask for and offer, to what each cluster holds and
//! each link's network plan.
//!
//! | module | what it decides |
//! |---|---|
//! | `membership` | who belongs to which link |
//! | `exports` | which service, LAN and VPN ranges keep their place |
//! | `pools` | which pools count |
//! | `ranges` | which range is whose, and which may not meet |
//! | `book` | the ledger while it is planned: imports, blocks |
//! | `intake` | what is claimed and in use |
//! | `clash` | why there is no address, in words |
//! | `network`, `carriers`, `vpn_indexes` | the network plans |
//! | `level` | the sequence |

mod book;
mod carriers;
mod clash;
mod exports;
mod intake;
mod level;
mod membership;
mod network;
mod pools;
mod ranges;
mod vpn_indexes;

pub(super) use exports::StandingExports;
pub(super) use level::{Hub, HubPlan};
