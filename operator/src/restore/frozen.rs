//! A ledger that gives no new grants because somebody has seen a newer one, and the word that ends it. It decides nothing.

use std::fmt;
use tieline_core::ids::{LinkName, PeerName};

/// Annotation on an AddressLedger: the revision that an administrator gives up.
pub const ACCEPT: &str = tieline_crds::address_ledger::ACCEPT_RESTORE;

/// A ledger that gives no new grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// Name of the AddressLedger.
    pub ledger: String,
    /// What somebody has seen.
    pub seen: u64,
    /// What there is.
    pub has: u64,
    /// The plan that is older than what an agent carries; without it, it is the ledger itself that is older.
    pub plan: Option<Carried>,
}

/// A plan of which an agent carries a newer revision than there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The plan's link.
    pub link: LinkName,
    /// The Peer whose agent says so.
    pub by: PeerName,
}

impl Frozen {
    /// The revision of the ledger that has been seen, when it is the ledger that is older.
    #[must_use]
    pub fn ledger_seen(&self) -> Option<u64> {
        self.plan.is_none().then_some(self.seen)
    }
}

impl fmt::Display for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ledger, seen, has, ..
        } = self;
        match &self.plan {
            Some(Carried { link, by }) => write!(
                f,
                "NetworkPlan {link} is at revision {has}, but revision {seen} has been seen: the agent of Peer {by} carries it"
            )?,
            None => write!(
                f,
                "AddressLedger {ledger} is at revision {has}, but revision {seen} has been seen"
            )?,
        }
        write!(
            f,
            ". It was restored from an older backup. What was granted since is unknown, so new grants wait. To go on from what \
             the ledger holds: tieline ledger accept-restore {ledger} --yes (or kubectl annotate addressledgers.tieline.dev \
             {ledger} --overwrite {ACCEPT}={seen})"
        )
    }
}
