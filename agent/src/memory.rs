//! What the agent remembers between reconciles and restarts: the disk's contents, and which of them need writing.
//!
//! The last good plan is written at most once a second, because it grows with the mesh and a burst of joins changes it
//! many times. Revisions are small and are written at once: they are what refuses an older plan after a crash.

use crate::boot;
use crate::facts::seen_endpoints;
use crate::names::Answers;
use crate::platform::Observation;
use crate::store::{FileKind, LastGood, Revisions, Seen, Store};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tieline_client::chain;
use tieline_core::host::HostState;

/// Least time between two writes of the same file, except revisions.
const WRITE_PAUSE: Duration = Duration::from_secs(1);

/// What is remembered.
#[derive(Debug)]
pub struct Memory {
    store: Store,
    last_good: Option<LastGood>,
    revisions: Revisions,
    seen: Seen,
    /// The revision that the kernel carries.
    applied: Option<u64>,
    dirty: BTreeSet<FileKind>,
    written: BTreeMap<FileKind, Instant>,
    problems: BTreeMap<FileKind, String>,
    boot: boot::Files,
    boot_problem: Option<String>,
}

impl Memory {
    /// Reads the state directory. Damaged files are as good as absent, except that they are a problem.
    #[must_use]
    pub fn load(store: Store) -> Self {
        let mut problems = BTreeMap::new();
        let last_good: Option<LastGood> = read(&store, FileKind::Plan, &mut problems);
        let mut revisions: Revisions =
            read(&store, FileKind::Revisions, &mut problems).unwrap_or_default();
        let seen = read(&store, FileKind::Seen, &mut problems).unwrap_or_default();
        // Whichever file survived, nothing older than the plan on disk is applied.
        if let Some(last) = &last_good {
            note_revision(&mut revisions, last);
        }
        Self {
            boot: boot::Files::new(store.dir()),
            boot_problem: None,
            store,
            last_good,
            revisions,
            seen,
            applied: None,
            dirty: BTreeSet::new(),
            written: BTreeMap::new(),
            problems,
        }
    }

    /// The last good plan and peers.
    #[must_use]
    pub fn last_good(&self) -> Option<&LastGood> {
        self.last_good.as_ref()
    }

    /// The highest revision seen of each lineage.
    #[must_use]
    pub fn revisions(&self) -> &Revisions {
        &self.revisions
    }

    /// What was observed and saves time after a restart.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The revision that the kernel carries.
    #[must_use]
    pub fn applied(&self) -> Option<u64> {
        self.applied
    }

    /// Trouble with files, by name.
    #[must_use]
    pub fn problems(&self) -> BTreeMap<String, String> {
        self.problems
            .iter()
            .map(|(kind, problem)| (kind.to_string(), problem.clone()))
            .chain(
                self.boot_problem
                    .iter()
                    .map(|problem| ("guard".to_owned(), problem.clone())),
            )
            .collect()
    }

    /// A plan was taken from the API: from now on it is the last good one, and nothing older is applied, whatever
    /// happens next.
    pub fn admit(&mut self, inputs: &LastGood) {
        if note_revision(&mut self.revisions, inputs) {
            self.write(FileKind::Revisions);
        }
        if self.last_good.as_ref() != Some(inputs) || self.problems.contains_key(&FileKind::Plan) {
            self.last_good = Some(inputs.clone());
            self.dirty.insert(FileKind::Plan);
        }
    }

    /// The kernel carries the plan of this revision.
    pub fn note_applied(&mut self, revision: u64) {
        self.applied = Some(revision);
    }

    /// What the kernel is to carry: the part that stands without tunnels is kept for the next boot.
    pub fn note_guard(&mut self, state: &HostState) {
        self.boot_problem = self.boot.keep(state).err().map(|error| chain(&error));
    }

    /// There is no plan any more. Revisions stay: the lineage may come back.
    pub fn note_withdrawn(&mut self) {
        self.applied = None;
        self.boot_problem = self.boot.erase().err().map(|error| chain(&error));
        self.dirty.remove(&FileKind::Plan);
        if self.last_good.take().is_some() || self.problems.contains_key(&FileKind::Plan) {
            let erased = self.store.erase(FileKind::Plan);
            self.note_problem(FileKind::Plan, erased.map_err(|error| chain(&error)));
        }
    }

    /// What the tunnels look like.
    pub fn note_observed(&mut self, observation: &Observation) {
        let endpoints = seen_endpoints(observation, &self.seen.endpoints);
        if endpoints != self.seen.endpoints {
            self.seen.endpoints = endpoints;
            self.dirty.insert(FileKind::Seen);
        }
    }

    /// What DNS says.
    pub fn note_names(&mut self, names: &Answers) {
        if *names != self.seen.names {
            self.seen.names = names.clone();
            self.dirty.insert(FileKind::Seen);
        }
    }

    /// Writes what has changed and is due; with `all`, what is not due too.
    pub fn flush(&mut self, now: Instant, all: bool) {
        let due: Vec<FileKind> = self
            .dirty
            .iter()
            .copied()
            .filter(|kind| {
                all || self
                    .written
                    .get(kind)
                    .is_none_or(|&at| now.duration_since(at) >= WRITE_PAUSE)
            })
            .collect();
        for kind in due {
            self.written.insert(kind, now);
            self.write(kind);
        }
    }

    fn write(&mut self, kind: FileKind) {
        let result = match kind {
            FileKind::Plan => match &self.last_good {
                Some(last) => self.store.save(kind, last),
                None => self.store.erase(kind),
            },
            FileKind::Revisions => self.store.save(kind, &self.revisions),
            FileKind::Seen => self.store.save(kind, &self.seen),
        };
        // A failed write is tried again at the next flush.
        if result.is_ok() {
            self.dirty.remove(&kind);
        } else {
            self.dirty.insert(kind);
        }
        self.note_problem(kind, result.map_err(|error| chain(&error)));
    }

    fn note_problem(&mut self, kind: FileKind, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.problems.remove(&kind);
            }
            Err(problem) => {
                tracing::warn!(file = %kind, %problem, "state not kept");
                self.problems.insert(kind, problem);
            }
        }
    }
}

fn read<T: DeserializeOwned>(
    store: &Store,
    kind: FileKind,
    problems: &mut BTreeMap<FileKind, String>,
) -> Option<T> {
    match store.load(kind) {
        Ok(value) => value,
        Err(error) => {
            let problem = chain(&error);
            tracing::warn!(file = %kind, %problem, "state not read");
            problems.insert(kind, problem);
            None
        }
    }
}

fn note_revision(revisions: &mut Revisions, inputs: &LastGood) -> bool {
    let plan = &inputs.plan;
    let highest = revisions.entry(plan.lineage.clone()).or_insert(0);
    let higher = plan.revision > *highest;
    if higher {
        *highest = plan.revision;
    }
    higher
}
