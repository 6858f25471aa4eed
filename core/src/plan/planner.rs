//! The planner that remembers: a change of nodes costs their cluster's work, and the hub's only when what the cluster offers has
//! changed.
//!
//! It holds its last proposal, and of every cluster what it holds and offers. The whole pass, [`plan`], is the resync and the
//! measure: after every change the proposal is the one that a whole pass over the same fleet would have made.

use super::cluster::{Room, Standing};
use super::kept::kept_nodes;
use super::proposal::{Before, NodePlan, Proposal};
use super::report::Reporter;
use super::single::{Pass, Planned, Settled, alone, node_addresses, run, wish};
use super::withheld;
use crate::cidr::PrefixSet;
use crate::fleet::{Fleet, Mode, Node};
use crate::ids::{ClusterName, LinkName, NodeId};
use crate::ledger::{LedgerName, Ledgers};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Plans everything.
///
/// Links with mode `Plan` are computed on top of the others and only shown: their ledgers, plans and nodes stay as they
/// were, and the report says what would change.
#[must_use]
pub fn plan(fleet: &Fleet, before: &Before) -> Proposal {
    State::of(fleet, before).proposal
}

/// What a change touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Whether everything was planned anew.
    pub everything: bool,
    /// Whether the hub's level was: its ledger and the network plans.
    pub hub: bool,
    /// Clusters whose ledger or nodes may be others than before.
    pub clusters: BTreeSet<ClusterName>,
    /// Whether each node was settled by itself, without a look at the others of its cluster.
    pub singly: bool,
    /// Nodes whose plan came, went or changed; not told where everything was planned anew.
    pub nodes: BTreeSet<NodeId>,
}

/// The last proposal, and what it takes to carry it on.
#[derive(Debug, Clone)]
pub struct Planner {
    before: Before,
    state: State,
    touched: Touched,
}

impl Planner {
    /// Plans everything; `before` is what is stored.
    #[must_use]
    pub fn new(fleet: &Fleet, before: Before) -> Self {
        Self {
            state: State::of(fleet, &before),
            touched: Touched {
                everything: true,
                hub: true,
                ..Touched::default()
            },
            before,
        }
    }

    /// What is proposed now.
    #[must_use]
    pub fn proposal(&self) -> &Proposal {
        &self.state.proposal
    }

    /// What it was decided from.
    #[must_use]
    pub fn before(&self) -> &Before {
        &self.before
    }

    /// What the last change touched.
    #[must_use]
    pub fn touched(&self) -> &Touched {
        &self.touched
    }

    /// Carries the proposal on. All of it has been stored, and since then `fleet` has changed in these nodes alone.
    pub fn nodes_changed(&mut self, fleet: &Fleet, nodes: &BTreeSet<NodeId>) {
        self.store();
        // What is only shown is computed on top of everything else.
        let shown = fleet.links.values().any(|link| link.mode == Mode::Plan);
        let carried = if shown {
            None
        } else {
            self.state.carry_on(fleet, &self.before, nodes)
        };
        match carried {
            Some(touched) => self.touched = touched,
            None => *self = Self::new(fleet, self.before.clone()),
        }
    }

    /// What was proposed last is what stands now.
    fn store(&mut self) {
        let proposal = &self.state.proposal;
        if self.touched.everything {
            self.before = proposal.written(&self.before);
            return;
        }
        let clusters = self.touched.clusters.iter().cloned();
        for name in clusters.map(LedgerName::Cluster).chain([LedgerName::Hub]) {
            if let Some(ledger) = proposal.ledgers.get(&name) {
                self.before.ledgers.insert(name, ledger.clone());
            }
        }
        if self.touched.hub {
            self.before.plans.clone_from(&proposal.plans);
        }
    }
}

#[derive(Debug, Clone)]
struct State {
    proposal: Proposal,
    /// Planned clusters.
    settled: BTreeMap<ClusterName, Settled>,
    /// What the hub's level has to say.
    hub: Reporter,
    /// All that planned links may grant from.
    pools: PrefixSet,
    /// Addresses of nodes inside pools, which blocks avoid.
    addresses: BTreeMap<ClusterName, BTreeSet<IpAddr>>,
    /// What is free in clusters, where that was asked for since they were planned.
    rooms: BTreeMap<ClusterName, Room>,
}

impl State {
    /// A whole pass.
    fn of(fleet: &Fleet, before: &Before) -> Self {
        let (applied, shown): (BTreeSet<&LinkName>, BTreeSet<&LinkName>) = fleet
            .links
            .keys()
            .partition(|link| fleet.links[*link].mode == Mode::Apply);
        let mut state = Self::of_links(fleet, before, &applied);
        if !shown.is_empty() {
            let next = state.proposal.written(before);
            let all = applied.union(&shown).copied().collect();
            let trial = Self::of_links(fleet, &next, &all);
            withheld::withhold(&mut state.proposal, &trial.proposal, &shown);
        }
        state
    }

    fn of_links(fleet: &Fleet, before: &Before, links: &BTreeSet<&LinkName>) -> Self {
        let pass = run(fleet, before, links, &BTreeMap::new());
        let mut state = Self {
            proposal: Proposal {
                ledgers: before.ledgers.clone(),
                plans: BTreeMap::new(),
                nodes: kept_nodes(fleet, before, links),
                report: Reporter::default().finish(),
            },
            settled: BTreeMap::new(),
            hub: Reporter::default(),
            pools: pass.hub.pools.clone(),
            addresses: node_addresses(&pass.hub.pools, fleet.nodes.iter()),
            rooms: BTreeMap::new(),
        };
        state.take_in(pass, &mut Touched::default());
        state
    }

    /// Plans what follows from changed nodes: from them alone, from their clusters, or with the hub. None: everything has to be planned.
    fn carry_on(
        &mut self,
        fleet: &Fleet,
        before: &Before,
        changed: &BTreeSet<NodeId>,
    ) -> Option<Touched> {
        if let Some(touched) = self.settle(fleet, before, changed) {
            return Some(touched);
        }
        let clusters: BTreeSet<ClusterName> = changed.iter().map(|id| id.cluster.clone()).collect();
        self.replan(fleet, before, &clusters)
    }

    /// Settles nodes one by one, in clusters that have room for them. None: their clusters have to be planned; nothing has changed yet.
    fn settle(
        &mut self,
        fleet: &Fleet,
        before: &Before,
        changed: &BTreeSet<NodeId>,
    ) -> Option<Touched> {
        let mut found = Vec::new();
        let mut rest = changed.iter().peekable();
        while let Some(first) = rest.peek() {
            let (name, settled) = self.settled.get_key_value(&first.cluster)?;
            let own = std::iter::from_fn(|| rest.next_if(|id| id.cluster == *name));
            let own: Vec<_> = own.map(|id| (id, fleet.nodes.get(id))).collect();
            if own.iter().any(|(id, node)| self.is_in_pools(id, *node)) {
                return None;
            }
            let standing = Standing {
                wish: wish(fleet, name, settled)?,
                holdings: &settled.holdings,
                offer: &settled.offer,
                ledger: before.ledgers.get(&LedgerName::Cluster(name.clone()))?,
                nodes: &self.proposal.nodes,
            };
            let room = match self.rooms.remove(name) {
                Some(room) => Some(room),
                None => Room::of(&standing).filter(|_| !settled.wanting),
            };
            let mut room = room?;
            let changes = room.settle(&standing, &own)?;
            found.push((name.clone(), room, changes));
        }
        let mut touched = Touched {
            singly: true,
            ..Touched::default()
        };
        for (name, room, changes) in found {
            for (id, plan) in changes.nodes {
                if self.proposal.nodes.get(&id) == plan.as_ref() {
                    continue;
                }
                touched.nodes.insert(id.clone());
                match plan {
                    Some(plan) => drop(self.proposal.nodes.insert(id, plan)),
                    None => drop(self.proposal.nodes.remove(&id)),
                }
            }
            if let Some(ledger) = changes.ledger {
                let key = LedgerName::Cluster(name.clone());
                self.proposal.ledgers.insert(key, ledger);
            }
            touched.clusters.insert(name.clone());
            self.rooms.insert(name, room);
        }
        Some(touched)
    }

    /// Whether an address of a node lies in a pool, now or before: blocks avoid these.
    fn is_in_pools(&self, id: &NodeId, node: Option<&Node>) -> bool {
        let now = node.into_iter().flat_map(|node| &node.addresses);
        let before = self
            .proposal
            .nodes
            .get(id)
            .into_iter()
            .flat_map(|it| &it.addresses);
        let mut all = now.chain(before);
        all.any(|(address, _)| self.pools.contains_address(*address))
    }

    fn replan(
        &mut self,
        fleet: &Fleet,
        before: &Before,
        clusters: &BTreeSet<ClusterName>,
    ) -> Option<Touched> {
        let mut touched = Touched::default();
        let (mut planned, mut nodes) = (Vec::new(), Vec::new());
        // Every cluster's addresses are looked at, whatever the others do.
        let mut quiet = true;
        for cluster in clusters {
            quiet &= self.see_addresses(fleet, cluster);
        }
        for (name, settled) in clusters
            .iter()
            .filter_map(|it| self.settled.get_key_value(it))
        {
            match alone(fleet, before, name, settled, &mut nodes).filter(|_| quiet) {
                Some(new) if new.settled.is_same_to_the_hub(settled) => planned.push(new),
                _ => quiet = false,
            }
            if !quiet {
                break;
            }
        }
        if quiet {
            self.take_in_clusters(planned, nodes, &mut touched);
            return Some(touched);
        }
        let others: BTreeMap<&ClusterName, &Settled> = self
            .settled
            .iter()
            .filter(|(name, settled)| !clusters.contains(*name) && settled.is_quiet())
            .collect();
        let applied = fleet.links.keys().collect();
        let pass = run(fleet, before, &applied, &others);
        if !pass.others_as_were || pass.hub.pools != self.pools {
            return None;
        }
        touched.hub = true;
        self.take_in(pass, &mut touched);
        Some(touched)
    }

    /// Notes which of a cluster's node addresses lie in pools. Whether these are the same as before.
    fn see_addresses(&mut self, fleet: &Fleet, cluster: &ClusterName) -> bool {
        let seen = node_addresses(&self.pools, fleet.nodes_of(cluster)).remove(cluster);
        let same = seen.as_ref() == self.addresses.get(cluster);
        match seen {
            Some(seen) => drop(self.addresses.insert(cluster.clone(), seen)),
            None => drop(self.addresses.remove(cluster)),
        }
        same
    }

    fn take_in(&mut self, pass: Pass, touched: &mut Touched) {
        self.hub = pass.hub.report;
        self.proposal.plans = pass.hub.plans;
        let ledger = pass.hub.ledger.map(|ledger| (LedgerName::Hub, ledger));
        self.proposal.ledgers.extend(ledger);
        self.take_in_clusters(pass.planned, pass.nodes, touched);
        self.tell();
    }

    fn take_in_clusters(
        &mut self,
        planned: Vec<Planned>,
        nodes: Vec<(NodeId, NodePlan)>,
        touched: &mut Touched,
    ) {
        let known = planned
            .iter()
            .filter(|it| self.settled.contains_key(&it.name));
        let known: BTreeSet<&ClusterName> = known.map(|it| &it.name).collect();
        self.replace_nodes(&known, nodes, touched);
        if self.settled.is_empty() {
            self.begin_with(planned);
            return;
        }
        let mut spoken = false;
        for Planned {
            name,
            settled,
            ledger,
        } in planned
        {
            let key = LedgerName::Cluster(name.clone());
            match ledger {
                Some(ledger) => self.proposal.ledgers.insert(key, ledger),
                None => self.proposal.ledgers.remove(&key),
            };
            let said = self.settled.get(&name).map(|it| &it.offer.report);
            spoken |= said.is_some_and(|said| *said != settled.offer.report);
            touched.clusters.insert(name.clone());
            self.rooms.remove(&name);
            self.settled.insert(name, settled);
        }
        if spoken {
            self.tell();
        }
    }

    /// Takes in the first clusters: maps are made whole.
    fn begin_with(&mut self, planned: Vec<Planned>) {
        let mut settled = Vec::with_capacity(planned.len());
        let mut ledgers = Vec::with_capacity(planned.len());
        for new in planned {
            let key = LedgerName::Cluster(new.name.clone());
            match new.ledger {
                Some(ledger) => ledgers.push((key, ledger)),
                None => drop(self.proposal.ledgers.remove(&key)),
            }
            settled.push((new.name, new.settled));
        }
        let mut ledgers: Ledgers = ledgers.into_iter().collect();
        // The ledgers of before, but for those that are new now.
        for (name, ledger) in std::mem::take(&mut self.proposal.ledgers) {
            ledgers.entry(name).or_insert(ledger);
        }
        self.proposal.ledgers = ledgers;
        self.settled = settled.into_iter().collect();
    }

    fn tell(&mut self) {
        let mut report = self.hub.clone();
        for settled in self.settled.values() {
            report.add(&settled.offer.report);
        }
        self.proposal.report = report.finish();
    }

    /// Puts clusters' nodes in place of those before; most are as they were. `known` are the clusters that had any.
    fn replace_nodes(
        &mut self,
        known: &BTreeSet<&ClusterName>,
        nodes: Vec<(NodeId, NodePlan)>,
        touched: &mut Touched,
    ) {
        if self.settled.is_empty() && self.proposal.nodes.is_empty() {
            self.proposal.nodes = nodes.into_iter().collect();
            return;
        }
        for cluster in known {
            let from = nodes.partition_point(|(id, _)| id.cluster < **cluster);
            let mut new = nodes[from..].iter().map(|(id, _)| id).peekable();
            let own = self.proposal.nodes.range(NodeId::first_of(cluster)..);
            let own = own
                .map(|(id, _)| id)
                .take_while(|id| id.cluster == **cluster);
            let gone = own.filter(|id| {
                while new.next_if(|new| new < id).is_some() {}
                new.peek() != Some(id)
            });
            let gone: Vec<NodeId> = gone.cloned().collect();
            for id in gone {
                self.proposal.nodes.remove(&id);
                touched.nodes.insert(id);
            }
        }
        for (id, node) in nodes {
            if self.proposal.nodes.get(&id) != Some(&node) {
                touched.nodes.insert(id.clone());
                self.proposal.nodes.insert(id, node);
            }
        }
    }
}

impl Settled {
    /// Whether the hub would decide the same from both.
    fn is_same_to_the_hub(&self, other: &Self) -> bool {
        let (own, others) = (&self.offer, &other.offer);
        self.sites == other.sites
            // What a cluster goes without is told by the hub.
            && self.wanting == other.wanting
            && own.segments == others.segments
            && own.clashes == others.clashes
            && own.missing == others.missing
    }

    /// Whether nothing of the cluster depends on what others do from here on.
    fn is_quiet(&self) -> bool {
        !self.wanting && self.offer.clashes.is_empty() && self.offer.missing.is_empty()
    }
}
