//! The reconcile: one pass, level-triggered. What it decides depends on the index alone, so a pass that was interrupted is
//! simply made again.
//!
//! ```text
//!  news ─► fold ─► plan ─► check ─► accept ─┐
//!    └► Whole: world, settle, the same ─────┴─► steps: ledgers ─► plans, keys ─► Peers, podCIDRs, the rest ─► status lane
//!  └────────────────── pure ────────────────────┘      compare    server-side apply, without force             people read it;
//!                                                      and swap                                                nobody waits
//! ```
//!
//! A pass costs what changed: where only Nodes and Peers did, the world and the decision of the pass before are carried forward.
//! Everything else, and whatever was not stored, is decided anew as a whole.

use crate::decided::{Decided, Refused};
use crate::fold::fold;
use crate::index::{Index, News, Scope};
use crate::restore::Seen;
use crate::shared::Shared;
use crate::status::{Announcement, Due, Hold, Judged, Readiness, announcements};
use crate::steps::{Steps, link_of, steps};
use crate::touched::{Extent, Target, Touched, Whole};
use crate::world::LastReadable;
use crate::write::{Write, WriteError, Writer};
use crypto_box::aead::OsRng;
use crypto_box::aead::rand_core::CryptoRngCore;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tieline_core::ids::{ClusterName, Lineage};
use tieline_crds::condition::Standing;

/// How many writes that nobody waits for are sent before looking whether somebody waits by now.
const LATE_AT_ONCE: usize = 32;
/// How many statuses are judged before a pass may come in between.
const STATUSES_AT_ONCE: usize = 256;

/// What outlives a pass.
#[derive(Debug)]
pub struct Keeper {
    cluster: ClusterName,
    fresh: Lineage,
    agent_port: u16,
    memory: LastReadable,
    seen: Seen,
    /// The index as it was decided on.
    index: Index,
    decided: Option<Decided>,
    members: Readiness,
    due: Due,
    hold: Hold,
    refused: Refused,
    late: Vec<Write>,
}

/// What was stored.
pub type Stored = BTreeSet<Target>;

/// What a pass did.
#[derive(Debug)]
pub struct Pass {
    /// What it decided about.
    pub extent: Extent,
    /// What was stored.
    pub stored: Stored,
    /// How long a decision about everything took, if it was one.
    pub whole: Option<Duration>,
}

impl Keeper {
    /// A keeper that knows nothing yet. `cluster` is the local one, whose Nodes are in the index; `fresh` is the lineage of a
    /// history that begins now; `agent_port` is the agents' first UDP port.
    #[must_use]
    pub fn new(cluster: ClusterName, fresh: Lineage, agent_port: u16) -> Self {
        Self {
            cluster,
            fresh,
            agent_port,
            memory: LastReadable::default(),
            seen: Seen::default(),
            index: Index::default(),
            decided: None,
            members: Readiness::default(),
            due: Due::default(),
            hold: Hold::default(),
            refused: Refused::default(),
            late: Vec::new(),
        }
    }

    /// Calls a link Ready only when it has been for `pause`.
    #[must_use]
    pub fn holding_ready(mut self, pause: Duration) -> Self {
        self.hold = Hold::new(pause);
        self
    }

    /// Lets the next pass decide everything anew.
    pub fn start_anew(&mut self) {
        self.decided = None;
    }

    /// Lets every status be judged again.
    pub fn judge_anew(&mut self) {
        self.due = Due::all(&self.index);
    }

    /// What has been decided, while that stands.
    #[must_use]
    pub fn decided(&self) -> Option<&Decided> {
        self.decided.as_ref()
    }

    /// The index as it was decided on.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// What the API server refused in the last pass.
    #[must_use]
    pub fn refused(&self) -> &Refused {
        &self.refused
    }

    /// The statuses, labels and Events of what is due, a bounded part of it at a time.
    pub fn statuses(&mut self, now: Timestamp, clock: Instant) -> Vec<Announcement> {
        self.due.links.extend(self.hold.over(clock).cloned());
        let Some(decided) = &self.decided else {
            return Vec::new();
        };
        let due = self.due.take(STATUSES_AT_ONCE);
        let judged = Judged {
            index: &self.index,
            decided,
            members: &self.members,
            refused: &self.refused,
        };
        let mut wanted = announcements(&judged, &due, now);
        self.hold.hold_back(&mut wanted, due.links.iter(), clock);
        wanted
    }

    /// Whether a status may have to be written by now.
    #[must_use]
    pub fn has_due(&self, clock: Instant) -> bool {
        let is_over = self.hold.until().is_some_and(|until| clock >= until);
        self.decided.is_some() && (is_over || !self.due.is_empty())
    }

    /// When a status that is held back has to be looked at again.
    #[must_use]
    pub fn holds_until(&self) -> Option<Instant> {
        self.hold.until()
    }

    /// Whether writes are left that nobody waits for.
    #[must_use]
    pub fn has_late(&self) -> bool {
        !self.late.is_empty()
    }

    /// Decides on what changed. Pure, but for the randomness of keys.
    fn decide(&mut self, news: &News, rng: &mut impl CryptoRngCore) -> (Extent, Steps) {
        self.due.note(news);
        if let Ok(touched) = self.go_on(news, rng) {
            return self.followed(touched);
        }
        self.decide_whole(rng)
    }

    fn go_on(&mut self, news: &News, rng: &mut impl CryptoRngCore) -> Result<Touched, Whole> {
        let decided = self.decided.as_mut().ok_or(Whole("nothing is decided"))?;
        if !self.refused.is_empty() {
            return Err(Whole("a write was refused"));
        }
        let folded = fold(news, decided, &mut self.memory, &mut self.seen)?;
        decided.advance(folded, &self.index, self.agent_port, rng)
    }

    fn followed(&mut self, touched: Touched) -> (Extent, Steps) {
        let extent = Extent::Only(touched);
        let (Some(decided), Extent::Only(touched)) = (&mut self.decided, &extent) else {
            return (extent, Steps::default());
        };
        let steps = steps(&self.index, decided, &extent, Vec::new());
        for (link, plan) in touched.of_plans(decided.proposal()) {
            self.seen.note_plan(link, plan);
        }
        decided.assume_stored(&extent, &steps.stored);
        self.due
            .touch(&mut self.members, &self.index, decided, touched);
        if !self.late.is_empty() {
            // What is decided now is newer than what was left for later.
            let mut newer = touched.targets();
            newer.extend(steps.urgent.iter().flatten().map(Write::target));
            self.late.retain(|write| !newer.contains(&write.target()));
        }
        (extent, steps)
    }

    fn decide_whole(&mut self, rng: &mut impl CryptoRngCore) -> (Extent, Steps) {
        let mut decided = Decided::full(
            &self.index,
            &mut self.memory,
            &mut self.seen,
            &self.cluster,
            &self.fresh,
        );
        let keys = decided.attach(&self.index, self.agent_port, rng);
        let mut steps = steps(&self.index, &decided, &Extent::All, keys);
        if decided.trouble.is_none() {
            self.seen.note_plans(&decided.proposal().plans);
            decided.assume_stored(&Extent::All, &steps.stored);
        }
        self.members = Readiness::judge(&self.index, &decided);
        self.due = Due::all(&self.index);
        self.refused.clear();
        self.late = std::mem::take(&mut steps.late);
        self.decided = Some(decided);
        (Extent::All, steps)
    }
}

/// One pass over the news of a scope. Ends early when this process does not lead, when a ledger has changed since it was read, or
/// when the API server does not answer; then it has to be made again. What the API server refuses is kept in
/// [`Keeper::refused`] and stops nothing else.
///
/// # Errors
/// The first [`WriteError`] that ends the pass.
pub async fn reconcile(
    shared: &Shared,
    writer: &Writer,
    keeper: &mut Keeper,
    scope: Scope,
) -> Result<Pass, WriteError> {
    let mut news = shared.follow(&mut keeper.index, scope);
    let started = Instant::now();
    if scope == Scope::Nodes && keeper.decided.is_none() {
        news = shared.follow(&mut keeper.index, Scope::All);
    }
    let (extent, steps) = keeper.decide(&news, &mut OsRng);
    let took = started.elapsed();
    writer.note_decision(took);
    let mut stored = Stored::new();
    let sent = send_all(shared, writer, keeper, steps, &mut stored).await;
    if let Err(error) = sent {
        keeper.start_anew();
        return Err(error);
    }
    let whole = (extent == Extent::All).then_some(took);
    Ok(Pass {
        extent,
        stored,
        whole,
    })
}

async fn send_all(
    shared: &Shared,
    writer: &Writer,
    keeper: &mut Keeper,
    steps: Steps,
    stored: &mut Stored,
) -> Result<(), WriteError> {
    let Some(decided) = &mut keeper.decided else {
        return Ok(());
    };
    for step in steps.urgent {
        let are_ledgers = step.iter().any(|it| matches!(it, Write::Ledger(_)));
        send(writer, decided, step, stored, &mut keeper.refused).await?;
        // Nothing may follow a ledger that was not stored.
        if let Some(error) = keeper.refused.first().filter(|_| are_ledgers) {
            let message = format!("nothing else is written: {error}");
            decided.trouble = Some((Standing::LedgerRefused, message));
            keeper.late.clear();
            return Ok(());
        }
    }
    if let Some(ledger) = steps.begun {
        let object = format!("AddressLedger {ledger}, which exists now,");
        return Err(WriteError::Conflict { object });
    }
    while !keeper.late.is_empty() {
        let rest = keeper.late.split_off(keeper.late.len().min(LATE_AT_ONCE));
        let step = std::mem::replace(&mut keeper.late, rest);
        send(writer, decided, step, stored, &mut keeper.refused).await?;
        if shared.has_news_of_nodes() {
            break;
        }
    }
    Ok(())
}

/// Sends independent writes. What was stored and what was refused is kept; the first error that ends a pass is passed on.
async fn send(
    writer: &Writer,
    decided: &Decided,
    writes: Vec<Write>,
    stored: &mut Stored,
    refused: &mut Refused,
) -> Result<(), WriteError> {
    let about: Vec<_> = writes
        .iter()
        .map(|write| (write.target(), link_of(decided, write)))
        .collect();
    for ((target, link), result) in about.into_iter().zip(writer.send_all(writes).await) {
        match result {
            Ok(()) => drop(stored.insert(target)),
            Err(error @ WriteError::Refused { .. }) => refused.push(link, error),
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
