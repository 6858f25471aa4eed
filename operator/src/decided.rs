//! What has been decided, as a value: everything that writes and statuses follow from. It is made whole by a full pass and
//! carried forward by what changed; a write that fails changes nothing in it, but ends its life. Pure.

use crate::index::Index;
use crate::ledgers;
use crate::objections::Objections;
use crate::planning::Planning;
use crate::restore::{self, Disagreement, Frozen, Seen, Settled};
use crate::touched::{Extent, Folded, Touched, Whole};
use crate::uses::Uses;
use crate::vpn::{self, Attachment};
use crate::world::{self, LastReadable, World};
use crate::write::WriteError;
use crypto_box::aead::rand_core::CryptoRngCore;
use k8s_openapi::api::core::v1::Secret;
use std::collections::{BTreeMap, BTreeSet};
use tieline_core::check::Finding;
use tieline_core::claims::{Accepted, Judge, accept_all};
use tieline_core::ids::{ClusterName, Lineage, LinkName, NodeId, PeerName, VpnName};
use tieline_core::ledger::LedgerName;
use tieline_core::notice::About;
use tieline_core::plan::{Proposal, listed};
use tieline_core::slices::Stored;
use tieline_crds::NetworkPlanSpec;
use tieline_crds::condition::Standing;
use tieline_crds::convert::{self, Invalid, LostSlices};

/// Writes that the API server refused, by the link that they were for; without one they concern all.
#[derive(Debug, Default)]
pub struct Refused(BTreeMap<Option<LinkName>, Vec<WriteError>>);

impl Refused {
    /// Notes one.
    pub fn push(&mut self, link: Option<LinkName>, error: WriteError) {
        self.0.entry(link).or_default().push(error);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One that concerns all, else any.
    #[must_use]
    pub fn first(&self) -> Option<&WriteError> {
        self.iter().next()
    }

    /// All.
    pub fn iter(&self) -> impl Iterator<Item = &WriteError> {
        self.0.values().flatten()
    }

    /// Those that concern a link.
    pub fn of(&self, link: Option<&LinkName>) -> impl Iterator<Item = &WriteError> {
        let own = link.and_then(|link| self.0.get(&Some(link.clone())));
        self.0.get(&None).into_iter().chain(own).flatten()
    }
}

/// What has been decided.
#[derive(Debug, Clone)]
pub struct Decided {
    /// What was decided on.
    pub world: World,
    /// Ledgers, plans and nodes.
    pub planning: Planning,
    /// Accepted peers and refused claims.
    pub accepted: Accepted,
    /// What further claims are judged by.
    pub judge: Judge,
    /// VPN attachments.
    pub attachments: BTreeMap<VpnName, Attachment>,
    /// Ledgers that give no new grants.
    pub frozen: BTreeMap<LedgerName, Frozen>,
    /// Clusters that lose no Peer, because they wait for a frozen ledger.
    pub protected: BTreeSet<ClusterName>,
    /// Ledgers whose word of an accepted restore has done its work.
    pub spent: BTreeSet<LedgerName>,
    /// Where a cluster's ledger splits what the hub's does not hold.
    pub disagreements: Vec<Disagreement>,
    /// Plans as objects, as far as they fit into one.
    pub plan_specs: BTreeMap<LinkName, NetworkPlanSpec>,
    /// Plans that are too large to be written.
    pub too_large: BTreeMap<LinkName, String>,
    /// Who names what.
    pub uses: Uses,
    /// What could not be done.
    pub objections: Objections,
    /// Why nothing is written: reason and message.
    pub trouble: Option<(Standing, String)>,
}

impl Decided {
    /// Decides everything that follows from what was read, but for VPN attachments, which need randomness.
    #[must_use]
    pub fn full(
        index: &Index,
        memory: &mut LastReadable,
        seen: &mut Seen,
        cluster: &ClusterName,
        fresh: &Lineage,
    ) -> Self {
        let mut world = world::read(index, memory, cluster, fresh);
        let Settled {
            frozen,
            disagreements,
            spent,
            mut protected,
        } = restore::settle(index, &mut world, seen);
        let full = ledgers::restrict(&mut world.fleet, &world.before.ledgers);
        protected.extend(full.iter().filter_map(|it| match &it.about {
            About::Cluster(name) => Some(name.clone()),
            _ => None,
        }));
        world.notices.extend(full);
        let (planning, findings) = Planning::full(&world.fleet, &world.before);
        let trouble = trouble(&world.broken, &world.lost, &disagreements, &findings);
        let (accepted, judge) = accept_all(planning.proposal(), &world.peers, &world.claims);
        let mut decided = Self {
            uses: Uses::of(&world, planning.proposal()),
            world,
            planning,
            accepted,
            judge,
            attachments: BTreeMap::new(),
            frozen,
            protected,
            spent,
            disagreements,
            plan_specs: BTreeMap::new(),
            too_large: BTreeMap::new(),
            objections: Objections::default(),
            trouble,
        };
        decided.object();
        decided.print();
        decided
    }

    /// Adds what needs randomness: the keys of VPN attachments, sealed to their gateways. Returns the Secrets of new keys. `port`
    /// is the agents' first one.
    pub fn attach(
        &mut self,
        index: &Index,
        port: u16,
        rng: &mut impl CryptoRngCore,
    ) -> Vec<Secret> {
        let plans = &self.planning.proposal().plans;
        let (attachments, keys) = vpn::attachments(index, plans, &self.accepted.peers, port, rng);
        self.attachments = attachments;
        for (name, peer) in &mut self.accepted.peers {
            vpn::seal(&self.attachments, name, peer, &self.world.claims, rng);
        }
        keys
    }

    /// Decides what follows from a world that was carried forward.
    ///
    /// # Errors
    /// [`Whole`] when it concerns more than nodes; then this decision is of no use any more.
    pub fn advance(
        &mut self,
        folded: Folded,
        index: &Index,
        port: u16,
        rng: &mut impl CryptoRngCore,
    ) -> Result<Touched, Whole> {
        let Folded {
            mut touched,
            replan,
        } = folded;
        if !replan.is_empty() {
            let fleet = &self.world.fleet;
            let (replanned, findings) = self.planning.nodes_changed(fleet, &replan);
            if replanned.reshaped || !findings.is_empty() {
                return Err(Whole("a plan has other members"));
            }
            if !replanned.plans.is_empty() {
                let everybody = self.follow_plans(&replanned.plans, index, port, rng)?;
                // Every node of the link has to carry the new revision.
                let nodes = self.proposal().nodes.iter();
                let concerned =
                    nodes.filter(|(_, node)| everybody || replanned.plans.contains(&node.link));
                touched.nodes.extend(concerned.map(|(id, _)| id.clone()));
            }
            touched.plans = replanned.plans;
            touched.nodes.extend(replanned.nodes);
            touched.ledgers = replanned.ledgers;
            if !replanned.noticed.is_empty() {
                self.object();
            }
            touched
                .links
                .extend(replanned.noticed.into_iter().flatten());
        }
        let nodes: BTreeMap<PeerName, NodeId> = touched
            .peers()
            .map(|(name, id)| (name, id.clone()))
            .collect();
        let judged = self.judge.accept_again(
            &mut self.accepted,
            &nodes,
            self.planning.proposal(),
            &self.world.peers,
            &self.world.claims,
        );
        for name in judged {
            let Some(peer) = self.accepted.peers.get_mut(&name) else {
                continue;
            };
            let (cluster, node) = (peer.cluster.clone(), peer.node.clone());
            touched.nodes.insert(NodeId { cluster, node });
            vpn::seal(&self.attachments, &name, peer, &self.world.claims, rng);
        }
        let mut attachments = self.attachments.values();
        if attachments.any(|it| nodes.keys().any(|name| it.gateways.contains(name))) {
            let plans = &self.planning.proposal().plans;
            let (attachments, keys) =
                vpn::attachments(index, plans, &self.accepted.peers, port, rng);
            if !keys.is_empty() {
                return Err(Whole("an attachment has no key"));
            }
            touched.attachments = attachments != self.attachments;
            self.attachments = attachments;
        }
        Ok(touched)
    }

    /// Takes over plans of the same members as before. Returns whether an endpoint may have become good or bad.
    fn follow_plans(
        &mut self,
        links: &BTreeSet<LinkName>,
        index: &Index,
        port: u16,
        rng: &mut impl CryptoRngCore,
    ) -> Result<bool, Whole> {
        let plans = &self.planning.proposal().plans;
        let (attachments, keys) = vpn::attachments(index, plans, &self.accepted.peers, port, rng);
        if attachments != self.attachments || !keys.is_empty() {
            return Err(Whole("an attachment changes"));
        }
        for plan in links.iter().filter_map(|link| plans.get(link)) {
            let spec = convert::plan_spec(plan).map_err(|_| Whole("a plan is too large"))?;
            self.plan_specs.insert(plan.link.clone(), spec);
        }
        Ok(self.judge.replan(plans.values()))
    }

    /// Goes on as if everything had been stored, ledgers in the form of `stored`. Where it was not, this decision is dropped.
    pub fn assume_stored(&mut self, extent: &Extent, stored: &BTreeMap<LedgerName, Stored>) {
        let forms = stored.iter();
        self.world
            .stored
            .extend(forms.map(|(name, form)| (name.clone(), form.clone())));
        let proposal = self.planning.proposal();
        let before = &mut self.world.before;
        match extent {
            Extent::All => {
                before.ledgers.clone_from(&proposal.ledgers);
                before.plans.clone_from(&proposal.plans);
            }
            Extent::Only(touched) => {
                for (name, ledger) in touched.of_ledgers(proposal) {
                    before.ledgers.insert(name.clone(), ledger.clone());
                }
                for (link, plan) in touched.of_plans(proposal) {
                    before.plans.insert(link.clone(), plan.clone());
                }
            }
        }
    }

    /// What the planner proposes.
    #[must_use]
    pub fn proposal(&self) -> &Proposal {
        self.planning.proposal()
    }

    /// Sorts what could not be done anew.
    pub(crate) fn object(&mut self) {
        let report = &self.proposal().report;
        self.objections = Objections::of(
            &self.world.invalid,
            &self.world.notices,
            &report.refusals,
            &report.waiting,
        );
    }

    /// Makes objects of plans.
    fn print(&mut self) {
        for (link, plan) in &self.planning.proposal().plans {
            if self.world.aside.contains_key(link) || self.world.behind.contains_key(link) {
                continue;
            }
            match convert::plan_spec(plan) {
                Ok(spec) => drop(self.plan_specs.insert(link.clone(), spec)),
                Err(error) => drop(self.too_large.insert(link.clone(), error.to_string())),
            }
        }
    }

    /// Whether a node's agent has said that its kernel carries a plan: from then on planned ranges are closed there.
    #[must_use]
    pub fn carries_a_plan(&self, peer: &PeerName) -> bool {
        let claim = self.world.claims.get(peer);
        claim.is_some_and(|claim| claim.applied_revision > 0)
    }

    /// Whether a link names the cluster, or it is left as it is: then its nodes keep their Peers.
    #[must_use]
    pub fn is_member(&self, cluster: &str) -> bool {
        self.uses.uses_cluster(cluster) || self.protected.contains(cluster)
    }
}

/// Why nothing may be written: reason and message.
pub(crate) fn trouble(
    broken: &[Invalid],
    lost: &[LostSlices],
    disagreements: &[Disagreement],
    findings: &[Finding],
) -> Option<(Standing, String)> {
    if !broken.is_empty() {
        let what = listed(broken);
        let message = format!("nothing is decided while this cannot be read: {what}");
        return Some((Standing::RecordUnreadable, message));
    }
    if !lost.is_empty() {
        let what = listed(lost);
        return Some((
            Standing::SliceMissing,
            format!("nothing is written: {what}"),
        ));
    }
    if !disagreements.is_empty() {
        let what = listed(disagreements);
        return Some((
            Standing::LedgersDisagree,
            format!("nothing is written: {what}"),
        ));
    }
    if !findings.is_empty() {
        let what = listed(findings);
        let message = format!("the plan breaks invariants, so nothing is written: {what}");
        return Some((Standing::CheckFailed, message));
    }
    None
}
