//! Who leads: a state machine over a Lease, without a clock and without IO.
//!
//! ```text
//!            lease free, or silent for its own duration
//!  waiting ─────────────────────────────────────────────► leading until (request sent + renew deadline)
//!     ▲                                                        │
//!     └──── deadline passed, or somebody else holds it ────────┤
//!  ended ◄──── shutdown: no more writes, then given back ──────┘
//! ```
//!
//! Guarantees: the Lease changes by compare-and-swap only, so two cannot take it at once. Clocks of different machines are
//! never compared: a foreign Lease counts as silent when *this* process has seen it unchanged for the duration
//! that its holder wrote into it. A leader stops writing at the renew deadline, which ends before the others may take over.
//! A writer that was stopped between its check and its request is fenced by the rule that revisions never fall.

use std::time::{Duration, Instant};

/// Longest time between two looks of a candidate that waits: a Lease that was given back is taken soon.
const LOOK: Duration = Duration::from_secs(1);

/// What a Lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty: nobody.
    pub holder: String,
    /// How long its holder may be silent.
    pub duration: Duration,
    /// How often it has changed hands.
    pub transitions: i32,
    /// resourceVersion, for the compare-and-swap; absent before it exists.
    pub version: Option<String>,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing: somebody else leads.
    Wait,
    /// Write this record (with its `version` as the condition). `taken` says that the holder changes.
    Write {
        /// What to write.
        record: Record,
        /// Whether the holder changes.
        taken: bool,
    },
}

/// One candidate.
#[derive(Debug, Clone)]
pub struct Elector {
    identity: String,
    duration: Duration,
    /// The version of the Lease seen last, and when it was seen first.
    seen: Option<(Option<String>, Instant)>,
    /// The version that this candidate wrote itself.
    own: Option<String>,
    leads_until: Option<Instant>,
}

impl Elector {
    /// A candidate that waits. `duration` is how long it may be silent once it leads.
    #[must_use]
    pub fn new(identity: impl Into<String>, duration: Duration) -> Self {
        Self {
            identity: identity.into(),
            duration,
            seen: None,
            own: None,
            leads_until: None,
        }
    }

    /// Time until the next look at the Lease.
    #[must_use]
    pub fn period(&self) -> Duration {
        let period = self.duration / 7;
        match self.leads_until {
            Some(_) => period,
            None => period.min(LOOK),
        }
    }

    /// For how long a successful write is good: less than `duration`, so that a leader stops before others start.
    #[must_use]
    pub fn renew_deadline(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// Until when this candidate leads.
    #[must_use]
    pub fn leads_until(&self) -> Option<Instant> {
        self.leads_until
    }

    /// What to do after reading the Lease (`None`: it does not exist) at `now`.
    pub fn read(&mut self, lease: Option<&Record>, now: Instant) -> Action {
        let Some(lease) = lease else {
            self.leads_until = None;
            return self.write(None, 0, true);
        };
        let changed = self
            .seen
            .as_ref()
            .is_none_or(|(version, _)| *version != lease.version);
        if changed {
            self.seen = Some((lease.version.clone(), now));
        }
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        if self.own.is_some() && self.own == lease.version {
            return self.write(lease.version.clone(), lease.transitions, false);
        }
        // Somebody changed it after this candidate did, whatever name it bears now.
        self.own = None;
        self.leads_until = None;
        if lease.holder.is_empty() || now.duration_since(since) >= lease.duration {
            self.write(lease.version.clone(), lease.transitions + 1, true)
        } else {
            Action::Wait
        }
    }

    /// The write was stored as `version`; the request had been sent at `sent`.
    pub fn stored(&mut self, version: Option<String>, sent: Instant) {
        self.seen = Some((version.clone(), sent));
        self.own = version;
        self.leads_until = Some(sent + self.renew_deadline());
    }

    /// The write was refused because the Lease had changed: somebody else was faster.
    pub fn lost(&mut self) {
        self.own = None;
        self.leads_until = None;
    }

    /// The record that gives the Lease back at shutdown, if this candidate holds it. Only for when nothing that it wrote as the
    /// leader is under way any more.
    pub fn release(&mut self, lease: &Record) -> Option<Record> {
        self.leads_until = None;
        let mine = self.own.take();
        (mine.is_some() && mine == lease.version).then(|| Record {
            holder: String::new(),
            // Whoever does not know an empty holder waits for this long only.
            duration: Duration::from_secs(1),
            ..lease.clone()
        })
    }

    fn write(&self, version: Option<String>, transitions: i32, taken: bool) -> Action {
        Action::Write {
            record: Record {
                holder: self.identity.clone(),
                duration: self.duration,
                transitions,
                version,
            },
            taken,
        }
    }
}

#[cfg(test)]
mod tests;
