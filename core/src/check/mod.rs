//! Independent re-proof of a proposal, run before anything is written.
//!
//! Shares no code with the planner beside the values: it looks at the result only and proves the invariants of the
//! design again. A finding means a bug in the planner (or a ledger edited by hand), and nothing is written.
//!
//! | module | what it proves |
//! |---|---|
//! | `invariant` | the names of what is proved |
//! | `sweep` | which prefixes overlap, by one sorted pass |
//! | `record` | of any ledger: order, revisions, what is granted stays granted |
//! | `cluster` | a cluster's ledger lies in what the hub granted; its nodes and segments say what ledgers, plans and Node objects say |
//! | `hub` | blocks do not overlap and new ones avoid what is somebody else's; gateways, carriers and VPN indexes are sound; super-nets cover everything |

mod case;
mod cluster;
mod hub;
mod invariant;
mod record;
mod sweep;

pub use case::Finding;
pub use invariant::Invariant;

use crate::fleet::Fleet;
use crate::ids::NodeId;
use crate::plan::{Before, Proposal, Touched};
use case::Case;
use std::collections::BTreeSet;

/// All broken invariants of a proposal, sorted; empty: it may be written.
#[must_use]
pub fn check(fleet: &Fleet, before: &Before, proposal: &Proposal) -> Vec<Finding> {
    let mut case = Case::whole(fleet, before, proposal);
    let mut clusters = case.beside();
    rayon::join(
        || hub::check(&mut case),
        || cluster::check_all(&mut clusters),
    );
    case.join(clusters);
    case.findings()
}

/// Broken invariants where a planner that was carried on has touched something; the rest was proved before and is the same.
/// `changed`: the nodes of `fleet` that are others than at the last proof.
#[must_use]
pub fn touched(
    fleet: &Fleet,
    before: &Before,
    proposal: &Proposal,
    touched: &Touched,
    changed: &BTreeSet<NodeId>,
) -> Vec<Finding> {
    if touched.everything {
        return check(fleet, before, proposal);
    }
    let mut case = if touched.hub {
        Case::whole(fleet, before, proposal)
    } else {
        Case::of(fleet, before, proposal, &touched.clusters)
    };
    if touched.hub {
        hub::check(&mut case);
    }
    for cluster in &touched.clusters {
        let nodes = touched.nodes.iter().chain(changed);
        let nodes = nodes.filter(|id| id.cluster == *cluster).collect();
        let proved = touched.singly && cluster::check_singly(&mut case, cluster, &nodes);
        if !proved {
            cluster::check(&mut case, cluster);
        }
    }
    case.findings()
}
