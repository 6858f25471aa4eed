//! One reconcile: from what is known to what the kernel carries, and a report of it.
//!
//! Every step is marked IO or pure. No step can end the agent: what goes wrong becomes a part of the [`Outcome`], and
//! the next event or resync tries again. Reading first and writing last means that a host that cannot be read is not
//! written to.

mod wanted;

use self::wanted::Wanted;
use crate::contact::Contacts;
use crate::desired::{Decision, Desired, Mesh, decide};
use crate::facts::{
    ApiServer, Paths, count_paths, dns_names, host_facts, server_names, vpn_sessions,
};
use crate::identity::Identity;
use crate::index::{Own, Snapshot};
use crate::memory::Memory;
use crate::names::Answers;
use crate::platform::{Observation, Platform, Secrets, Surroundings};
use crate::report::{Outcome, Role};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use tieline_client::chain;
use tieline_core::health::{PathStates, path_states};
use tieline_core::host::HostState;
use tieline_core::host::diff::{Change, diff};
use tieline_core::ids::NodeName;
use tieline_core::node::Configurator;
use tieline_core::peer::AcceptedPeers;

/// Numbers that the whole mesh shares, and what the agent knows about its way to the API server.
#[derive(Debug, Clone)]
pub struct Constants {
    /// First UDP port.
    pub first_port: u16,
    /// Mark of encrypted packets.
    pub fwmark: u32,
    /// The API server's hosts.
    pub api_servers: Vec<ApiServer>,
}

/// The agent: a platform, and what it needs to decide.
#[derive(Debug)]
pub struct Agent<P> {
    /// The kernel.
    pub platform: P,
    /// The node's keys.
    pub identity: Identity,
    /// What is kept on disk.
    pub memory: Memory,
    own: Own,
    constants: Constants,
    /// What the kernel is to be.
    node: Configurator,
    last: Option<LastReading>,
    contacts: Contacts,
}

/// What the last reconcile left behind, to notice cheaply that something has changed.
#[derive(Debug)]
struct LastReading {
    state: HostState,
    paths: PathStates,
    /// Whether it was all that was wanted, so that only what is wanted anew can differ while it stays.
    settled: bool,
    /// Paths whose first handshake is awaited.
    connecting: usize,
    /// Paths and sessions that are not up.
    missing: usize,
    surroundings: Surroundings,
    carried: Option<Carried>,
}

/// The mesh that this node was to carry.
#[derive(Debug)]
struct Carried {
    mesh: Mesh,
    peers: Arc<AcceptedPeers>,
}

impl<P: Platform> Agent<P> {
    /// An agent that has not looked at anything yet.
    #[must_use]
    pub fn new(
        platform: P,
        identity: Identity,
        memory: Memory,
        own: Own,
        constants: Constants,
    ) -> Self {
        Self {
            platform,
            identity,
            memory,
            own,
            constants,
            node: Configurator::default(),
            last: None,
            contacts: Contacts::default(),
        }
    }

    /// Who this node is.
    #[must_use]
    pub fn own(&self) -> &Own {
        &self.own
    }

    /// Says where the API server is, once that is known.
    pub fn set_api_servers(&mut self, api_servers: Vec<ApiServer>) {
        self.constants.api_servers = api_servers;
    }

    /// What was around the host at the last look.
    #[must_use]
    pub fn surroundings(&self) -> Option<&Surroundings> {
        self.last.as_ref().map(|last| &last.surroundings)
    }

    /// What is told of the host, as of the last look.
    #[must_use]
    pub fn host(&self) -> Option<tieline_crds::peer::HostFacts> {
        self.last
            .as_ref()
            .map(|last| host_facts(&last.surroundings, &last.state))
    }

    /// Devices and peers that the kernel held at the last look.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.last.as_ref().map_or((0, 0), |last| {
            let devices = &last.state.devices;
            let peers = devices.values().map(|device| device.peers.len()).sum();
            (devices.len(), peers)
        })
    }

    /// The DNS names that matter at the moment.
    #[must_use]
    pub fn names(&self) -> BTreeSet<NodeName> {
        match self.carried() {
            Some(Carried { mesh, peers, .. }) => {
                dns_names(&mesh.inputs.plan, peers, &self.constants.api_servers)
            }
            // Nothing that is remembered is forgotten before there is a mesh that could do without it.
            None => {
                let remembered = self.memory.seen().names.keys().cloned();
                let servers = server_names(&self.constants.api_servers);
                remembered.chain(servers).collect()
            }
        }
    }

    /// Makes the kernel what it is to be.
    ///
    /// `now` is asked once, when all is written: a first handshake is awaited from the moment on at which the kernel can
    /// ask for it.
    pub async fn reconcile(
        &mut self,
        snapshot: &Snapshot,
        names: &Answers,
        now: impl Fn() -> Instant,
    ) -> Outcome {
        // pure: what is this node to be?
        let decision = decide(
            snapshot,
            self.memory.last_good(),
            self.memory.revisions(),
            &self.own,
        );
        let mut outcome = self.opening(&decision, snapshot);
        // IO: what is?
        let (mut observation, surroundings) = match self.read().await {
            Ok(readings) => readings,
            Err(error) => {
                outcome.read_error = Some(error);
                return outcome;
            }
        };
        // IO (disk): what is seen now is known after a restart.
        self.memory.note_observed(&observation);
        self.memory.note_names(names);
        if let Desired::Mesh(mesh) = &decision.desired
            && mesh.fresh
        {
            self.memory.admit(&mesh.inputs);
        }
        // pure: what does that take here?
        let wanted = self.wanted(&decision.desired, &observation, &surroundings, names);
        let changes = wanted.as_ref().map_or_else(Vec::new, |wanted| {
            self.platform
                .unname_outdated(&mut observation.state, &wanted.secrets);
            self.differences(&wanted.turn, &mut observation)
        });
        // IO: write, and read back what was written.
        let after = match &wanted {
            Some(wanted) => {
                self.write(&changes, &wanted.secrets, observation, &mut outcome)
                    .await
            }
            None => observation,
        };
        // pure: does it stand?
        if let Some(wanted) = &wanted {
            conclude(wanted, self.node.state(), &after, &mut outcome);
        }
        // IO (disk): what a restart and the next boot have to know.
        self.remember(&decision.desired, wanted.as_ref(), &outcome);
        outcome.store = self.memory.problems();
        // pure: report.
        self.report(
            decision.desired,
            wanted,
            after,
            surroundings,
            now(),
            &mut outcome,
        );
        outcome
    }

    /// A cheap look: whether something has changed that a reconcile would answer. Keeps last-seen endpoints in step.
    ///
    /// An error is something that the next reconcile will meet again and report.
    pub async fn has_news(&mut self, now: Instant) -> bool {
        let Ok(observation) = self.platform.observe().await else {
            return true;
        };
        self.memory.note_observed(&observation);
        let Some(last) = &self.last else {
            return true;
        };
        let paths = path_states(&observation.liveness);
        let connecting = match &last.carried {
            Some(carried) => {
                self.contacts.update(self.node.state(), &paths, now);
                let count = carried.count(self.node.state(), &paths, &self.contacts, now);
                count.connecting
            }
            None => 0,
        };
        last.state != observation.state || last.paths != paths || last.connecting != connecting
    }

    /// Asks again for first handshakes that are due. A peer that never had one loses nothing when it is added anew.
    ///
    /// What fails here is missing at the next look, and a reconcile puts it back.
    pub async fn retry_contacts(&mut self, now: Instant) {
        let changes = self.contacts.retry(self.node.state(), now);
        if changes.is_empty() {
            return;
        }
        tracing::debug!(
            peers = changes.len() / 2,
            "asking again for a first handshake"
        );
        // These devices' peers have no pre-shared keys.
        for error in self.platform.apply(&changes, &Secrets::default()).await {
            tracing::warn!(error = %chain(&error), "not asked again");
        }
    }

    /// When a first handshake is due again, or is given up.
    #[must_use]
    pub fn next_contact(&self, now: Instant) -> Option<Instant> {
        self.contacts.next(now)
    }

    /// Whether some path or session is not up, so that there is something to look out for.
    #[must_use]
    pub fn misses_paths(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.missing > 0)
    }

    fn carried(&self) -> Option<&Carried> {
        self.last.as_ref()?.carried.as_ref()
    }

    fn opening(&self, decision: &Decision, snapshot: &Snapshot) -> Outcome {
        let mesh = match &decision.desired {
            Desired::Mesh(mesh) => Some(mesh),
            Desired::Unknown | Desired::Withdrawn => None,
        };
        Outcome {
            role: match &decision.desired {
                Desired::Unknown => Role::Unknown,
                Desired::Withdrawn => Role::Withdrawn,
                Desired::Mesh(_) => Role::Guard,
            },
            revision: mesh.map(|mesh| mesh.inputs.plan.revision),
            from_disk: mesh.is_some_and(|mesh| !mesh.fresh),
            awaiting: decision.awaiting.clone(),
            refused: decision.refused.clone(),
            unreadable: snapshot
                .complaints
                .iter()
                .chain(&snapshot.outages)
                .map(|(what, why)| (what.clone(), why.clone()))
                .collect(),
            ..Outcome::default()
        }
    }

    async fn read(&mut self) -> Result<(Observation, Surroundings), String> {
        let observation = self.platform.observe().await.map_err(|e| chain(&e))?;
        let surroundings = self.platform.surroundings().await.map_err(|e| chain(&e))?;
        Ok((observation, surroundings))
    }

    async fn write(
        &mut self,
        changes: &[Change],
        secrets: &Secrets,
        before: Observation,
        outcome: &mut Outcome,
    ) -> Observation {
        if changes.is_empty() {
            return before;
        }
        for change in changes {
            tracing::debug!(%change, "writing");
        }
        let errors = self.platform.apply(changes, secrets).await;
        outcome.writes = changes.len();
        outcome.write_errors = errors.iter().map(|error| chain(error)).collect();
        for error in &outcome.write_errors {
            tracing::warn!(%error, "change failed");
        }
        match self.platform.observe().await {
            Ok(after) => after,
            Err(error) => {
                outcome.read_error = Some(chain(&error));
                before
            }
        }
    }

    /// Completes what is told, and keeps what the next look compares with.
    fn report(
        &mut self,
        desired: Desired,
        wanted: Option<Wanted>,
        after: Observation,
        surroundings: Surroundings,
        now: Instant,
        outcome: &mut Outcome,
    ) {
        let paths = path_states(&after.liveness);
        let settled = wanted.as_ref().is_some_and(|it| it.paths == paths) && outcome.is_applied();
        let carried = match (desired, wanted) {
            (Desired::Mesh(mesh), Some(Wanted { peers, .. })) => Some(Carried { mesh, peers }),
            _ => None,
        };
        match &carried {
            Some(carried) => {
                let (state, contacts) = (self.node.state(), &mut self.contacts);
                contacts.update(state, &paths, now);
                outcome.paths = carried.count(state, &paths, contacts, now);
                outcome.sessions = vpn_sessions(state, &paths);
            }
            None => self.contacts = Contacts::default(),
        }
        outcome
            .forward_drops
            .clone_from(&surroundings.foreign_forward_drops);
        let silent = outcome.sessions.values().filter(|up| !**up).count();
        self.last = Some(LastReading {
            state: after.state,
            settled,
            paths,
            connecting: outcome.paths.connecting,
            missing: outcome.paths.total - outcome.paths.up + silent,
            surroundings,
            carried,
        });
    }

    /// Writes down what came of a reconcile. Trouble with it is a part of the memory.
    fn remember(&mut self, desired: &Desired, wanted: Option<&Wanted>, outcome: &Outcome) {
        match (desired, wanted) {
            (Desired::Mesh(mesh), Some(_)) => {
                let failed = self.memory.problems().contains_key("guard");
                if outcome.writes > 0 || self.carried().is_none() || failed {
                    // The next boot is closed before the agent runs.
                    self.memory.note_guard(self.node.state());
                }
                if outcome.is_applied() {
                    self.memory.note_applied(mesh.inputs.plan.revision);
                }
            }
            (Desired::Withdrawn, Some(_)) if outcome.is_applied() => self.memory.note_withdrawn(),
            _ => {}
        }
    }
}

impl Carried {
    fn count(
        &self,
        wanted: &HostState,
        paths: &PathStates,
        contacts: &Contacts,
        now: Instant,
    ) -> Paths {
        let is_connecting = |path| contacts.is_connecting(path, now);
        let plan = &self.mesh.inputs.plan;
        count_paths(plan, &self.peers, wanted, paths, is_connecting)
    }
}

/// What this node is now, and what differs still after everything was written.
fn conclude(wanted: &Wanted, state: &HostState, after: &Observation, outcome: &mut Outcome) {
    outcome.role = wanted.role;
    outcome.secrets.clone_from(&wanted.problems);
    if outcome.writes > 0 {
        let differs = diff(&after.state, &after.liveness, state);
        outcome.remaining = differs.iter().map(ToString::to_string).collect();
    }
}

#[cfg(test)]
mod tests;
