//! What this node's kernel is to be, and what has to be written for that. Pure: readings come in, changes go out.

use super::Agent;
use crate::desired::Desired;
use crate::facts::{Readings, local_facts};
use crate::names::Answers;
use crate::platform::{Observation, Platform, Secrets, Surroundings};
use crate::report::Role;
use crate::sealed::{Opened, open};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tieline_core::health::{PathId, PathStates};
use tieline_core::host::HostState;
use tieline_core::host::diff::{Change, diff, diff_parts};
use tieline_core::ids::VpnName;
use tieline_core::node::{Inputs, Touched, Turn};
use tieline_core::peer::AcceptedPeers;

/// What a node needs and what came of asking for it.
pub(super) struct Wanted {
    pub(super) turn: Turn,
    /// The paths' states that it was made from.
    pub(super) paths: PathStates,
    pub(super) secrets: Secrets,
    pub(super) role: Role,
    pub(super) peers: Arc<AcceptedPeers>,
    pub(super) problems: BTreeMap<VpnName, String>,
}

impl<P: Platform> Agent<P> {
    /// What this node needs; `None`: nobody can say yet. The state itself is the configurator's.
    pub(super) fn wanted(
        &mut self,
        desired: &Desired,
        observation: &Observation,
        surroundings: &Surroundings,
        names: &Answers,
    ) -> Option<Wanted> {
        let mesh = match desired {
            Desired::Unknown => {
                self.node.clear();
                return None;
            }
            Desired::Withdrawn => {
                self.node.clear();
                return Some(Wanted {
                    turn: Turn {
                        touched: Touched::Everything,
                        ..Turn::default()
                    },
                    paths: PathStates::new(),
                    secrets: Secrets::default(),
                    role: Role::Withdrawn,
                    peers: Arc::default(),
                    problems: BTreeMap::new(),
                });
            }
            Desired::Mesh(mesh) => mesh,
        };
        let peers = mesh.peers();
        let own = self.own.find(&mesh.inputs.local);
        let Opened {
            secrets,
            public_keys,
            problems,
        } = open(&mesh.inputs.plan, own.map(|(_, peer)| peer), &self.identity);
        let mut keys = self.identity.public_keys();
        keys.extend(public_keys);
        // Before the first Peer, a name that was configured says at least to which cluster this node belongs.
        let name = own
            .map(|(name, _)| name.clone())
            .or_else(|| self.own.peer_name());
        let facts = local_facts(Readings {
            observation,
            surroundings,
            keys,
            names: names.clone(),
            seen: &self.memory.seen().endpoints,
            api_servers: &self.constants.api_servers,
            first_port: self.constants.first_port,
            fwmark: self.constants.fwmark,
        });
        // A Peer without accepted keys is known, and nobody can talk to it yet.
        let accepted = own.is_some_and(|(_, peer)| !peer.keys.is_empty());
        let paths = facts.paths.clone();
        let turn = self.node.follow(Inputs {
            plan: Arc::clone(&mesh.inputs.plan),
            peers: Arc::clone(&peers),
            own: name,
            facts,
        });
        Some(Wanted {
            turn,
            paths,
            secrets,
            role: if accepted { Role::Member } else { Role::Guard },
            peers,
            problems,
        })
    }

    /// What is to be written.
    pub(super) fn differences(&self, turn: &Turn, observation: &mut Observation) -> Vec<Change> {
        let last = self.last.as_ref();
        let as_left = last.is_some_and(|last| last.settled && last.state == observation.state);
        forget_endpoints(&mut observation.state, &turn.left);
        let (observed, wanted) = (&observation.state, self.node.state());
        match &turn.touched {
            Touched::Parts { paths, routes } if as_left => {
                diff_parts(observed, &observation.liveness, wanted, paths, routes)
            }
            _ => diff(observed, &observation.liveness, wanted),
        }
    }
}

/// A living session is left where its peer was heard last, unless that is the address that the peer has just left: then
/// nothing would be heard any more, and waiting for the session to die would take minutes.
fn forget_endpoints(observed: &mut HostState, left: &BTreeMap<PathId, SocketAddr>) {
    for (path, address) in left {
        let device = observed.devices.get_mut(&path.device);
        if let Some(peer) = device.and_then(|device| device.peers.get_mut(&path.far))
            && peer.endpoint == Some(*address)
        {
            peer.endpoint = None;
        }
    }
}
