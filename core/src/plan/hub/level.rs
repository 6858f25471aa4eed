//! The hub's sequence. Each step takes what clusters say and answers it; everything in use is recorded before anything new is cut.
//!
//! ```text
//!  members ─► what stands ─► sites, pods.cidrs ─► nodes' ranges ─► services, VPNs ─► blocks ─► mesh families ─► network plans
//! ```

use super::book::HubBook;
use super::exports::StandingExports;
use super::intake::{
    all_pools, avoid_node_addresses, claim_lans, claim_services_and_vpns, import_cluster,
};
use super::membership::Membership;
use super::network::{Offering, plans};
use crate::cidr::{Family, Prefix, PrefixSet};
use crate::fleet::Fleet;
use crate::ids::{LinkName, NodeName, SiteName};
use crate::ledger::{Ledger, Use};
use crate::network_plan::NetworkPlan;
use crate::plan::exchange::{BlockAsk, Families, Holdings, Offer, Wish};
use crate::plan::proposal::Before;
use crate::plan::report::Reporter;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The hub's level while it is planned.
pub(in crate::plan) struct Hub<'a> {
    fleet: &'a Fleet,
    before: &'a Before,
    members: Membership<'a>,
    wishes: Vec<Wish<'a>>,
    book: HubBook<'a>,
    report: Reporter,
}

/// The hub's plan, made.
pub(in crate::plan) struct HubPlan {
    /// Its ledger; none when there was none and nothing happened.
    pub(in crate::plan) ledger: Option<Arc<Ledger>>,
    /// Plans of all links.
    pub(in crate::plan) plans: BTreeMap<LinkName, NetworkPlan>,
    /// What could not be done.
    pub(in crate::plan) report: Reporter,
    /// All that planned links may grant from.
    pub(in crate::plan) pools: PrefixSet,
}

impl<'a> Hub<'a> {
    /// Settles who belongs where and what stands. `active` are the links that are planned now; all others keep what they have.
    pub(in crate::plan) fn open(
        fleet: &'a Fleet,
        before: &'a Before,
        active: &BTreeSet<&'a LinkName>,
        standing: &StandingExports<'a>,
    ) -> Self {
        let mut report = Reporter::default();
        let members = Membership::settle(fleet, before, active, standing, &mut report);
        let wishes = wishes(fleet, &members);
        let book = HubBook::open(fleet, before, &members, &wishes, standing, &mut report);
        Self {
            fleet,
            before,
            members,
            wishes,
            book,
            report,
        }
    }

    /// The clusters that are planned, by name, and what is wanted of each.
    pub(in crate::plan) fn wishes(&self) -> &[Wish<'a>] {
        &self.wishes
    }

    /// Takes in where clusters have nodes, in their order, and claims sites' networks and `pods.cidrs`.
    pub(in crate::plan) fn take_sites<'d>(&mut self, sites: impl Iterator<Item = &'d [SiteName]>) {
        let mut inhabited: BTreeMap<SiteName, &'a LinkName> = BTreeMap::new();
        for (wish, sites) in self.wishes.iter().zip(sites) {
            self.members.adopt_sites(wish.name, sites);
            inhabited.extend(sites.iter().map(|site| (site.clone(), wish.link)));
        }
        claim_lans(self.fleet, &self.members, &inhabited, &mut self.book);
        for wish in &self.wishes {
            import_cluster(wish, &mut self.book, &self.members);
            let pools = self.book.pools.families(wish.link, Use::Pod);
            self.book.holdings_mut(wish).pools = pools;
        }
    }

    /// What a cluster holds so far.
    pub(in crate::plan) fn holdings(&self, wish: &Wish<'a>) -> &Holdings {
        self.book.holdings(wish)
    }

    /// Which of the ranges that a cluster's nodes have are somebody else's.
    pub(in crate::plan) fn taken(&self, wish: &Wish<'a>, used: &[Prefix]) -> BTreeSet<Prefix> {
        let others = |prefix: &&Prefix| self.book.is_others(wish, **prefix, &self.members);
        used.iter().filter(others).copied().collect()
    }

    /// Records ranges that a cluster's nodes have.
    pub(in crate::plan) fn import(&mut self, wish: &Wish<'a>, used: &[Prefix]) {
        for prefix in used {
            self.book.import(wish, *prefix);
        }
    }

    /// Claims services and VPNs, and learns what blocks have to avoid. From here on blocks are cut.
    pub(in crate::plan) fn close_intake(&mut self) {
        let (fleet, members, wishes) = (self.fleet, &self.members, &self.wishes);
        claim_services_and_vpns(fleet, members, wishes, &mut self.book);
        avoid_node_addresses(fleet, members, &mut self.book);
        for wish in wishes {
            self.book.tell_foreign(wish, members);
        }
    }

    /// Grants a block, if there is one.
    pub(in crate::plan) fn grant(&mut self, wish: &Wish<'a>, ask: BlockAsk) -> Option<Prefix> {
        self.book.grab(wish, ask)
    }

    /// Grants a cluster's first block, or says why there is none. Whether there was one.
    pub(in crate::plan) fn grant_first(&mut self, wish: &Wish<'a>, ask: BlockAsk) -> bool {
        let granted = self.book.grab(wish, ask).is_some();
        if !granted {
            self.book.report_no_block(wish, ask, &mut self.report);
        }
        granted
    }

    /// Settles in which families nodes have mesh addresses: those of pools and of pods.
    pub(in crate::plan) fn settle_mesh_families(&mut self) {
        let mut families: BTreeMap<&LinkName, Families> = BTreeMap::new();
        for link in self.members.links.iter().copied() {
            let addressing = &self.fleet.links[link].addressing;
            let pools = addressing.pod_pools.iter().chain(&addressing.mesh_pools);
            families.insert(link, pools.map(|prefix| prefix.family()).collect());
        }
        for wish in &self.wishes {
            let held = self.book.holdings(wish).pods.iter();
            let own = families.entry(wish.link).or_default();
            own.extend(held.map(|prefix| prefix.family()));
        }
        for wish in &self.wishes {
            let own = families.get(wish.link).copied();
            self.book.holdings_mut(wish).mesh_families = own.unwrap_or_default();
        }
    }

    /// Says which nodes of a cluster have no share, and why.
    pub(in crate::plan) fn report_missing(
        &mut self,
        wish: &Wish<'a>,
        missing: &BTreeMap<(Use, Family), Vec<NodeName>>,
    ) {
        self.book.report_missing(wish, missing, &mut self.report);
    }

    /// The plan, from what all clusters offer.
    pub(in crate::plan) fn close<'d>(
        mut self,
        standing: &StandingExports<'a>,
        offers: &[(Wish<'a>, &'d Offer)],
    ) -> HubPlan {
        for (wish, offer) in offers {
            let (clashes, members) = (&offer.clashes, &self.members);
            self.book
                .note_clashing_nodes(wish, clashes, members, &mut self.report);
        }
        self.book.report_clashes(&self.members, &mut self.report);
        let offerings = offers
            .iter()
            .map(|(wish, offer)| -> Offering<'_, 'a> { (wish, *offer) });
        let plans = plans(
            self.fleet,
            self.before,
            &self.members,
            standing,
            &self.book,
            offerings,
            &mut self.report,
        );
        // A plan that comes back must not count from below what agents remember: the hub's revision keeps the height.
        let mut withdrawn = self.before.plans.iter();
        let withdrawn = withdrawn
            .by_ref()
            .filter(|(link, _)| !plans.contains_key(*link));
        let height = withdrawn.map(|(_, plan)| plan.revision).max().unwrap_or(0);
        let pools = all_pools(&self.members, &self.book);
        HubPlan {
            ledger: self.book.close(&self.before.lineage, height),
            plans,
            report: self.report,
            pools,
        }
    }
}

fn wishes<'a>(fleet: &'a Fleet, members: &Membership<'a>) -> Vec<Wish<'a>> {
    let mut wishes: Vec<Wish<'a>> = Vec::new();
    for link in members.links.iter().copied() {
        let spec = &fleet.links[link];
        wishes.extend(members.clusters_of(link).map(|name| Wish {
            at: 0,
            name,
            cluster: &fleet.clusters[name],
            link,
            addressing: &spec.addressing,
            topology: &spec.topology,
        }));
    }
    wishes.sort_unstable_by_key(|wish| wish.name);
    for (at, wish) in wishes.iter_mut().enumerate() {
        wish.at = at;
    }
    wishes
}
