//! Whose status has to be judged: what a change can have touched, and nothing else.

use super::Readiness;
use crate::decided::Decided;
use crate::index::{Change, Index, News, Table};
use crate::touched::Touched;
use std::collections::BTreeSet;
use tieline_core::ids::LinkName;
use tieline_core::ledger::LedgerName;

/// Names of objects, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// ClusterLinks.
    pub links: BTreeSet<String>,
    /// Clusters.
    pub clusters: BTreeSet<String>,
    /// Sites.
    pub sites: BTreeSet<String>,
    /// VpnAttachments.
    pub vpns: BTreeSet<String>,
    /// AddressLedgers.
    pub ledgers: BTreeSet<String>,
    /// NetworkPlans.
    pub plans: BTreeSet<String>,
}

impl Due {
    /// Everything.
    #[must_use]
    pub fn all(index: &Index) -> Self {
        Self {
            links: names(&index.links),
            clusters: names(&index.clusters),
            sites: names(&index.sites),
            vpns: names(&index.vpns),
            ledgers: names(&index.ledgers),
            plans: names(&index.plans),
        }
    }

    /// Whether nothing is due.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds().iter().all(|names| names.is_empty())
    }

    /// Objects that changed themselves, and those that tell of them.
    pub fn note(&mut self, news: &News) {
        self.links.extend(changed(&news.links));
        self.clusters.extend(changed(&news.clusters));
        self.sites.extend(changed(&news.sites));
        self.vpns.extend(changed(&news.vpns));
        self.ledgers.extend(changed(&news.ledgers));
        self.plans.extend(changed(&news.plans));
        self.links.extend(changed(&news.plans));
        for change in &news.ledgers {
            if let Some(LedgerName::Cluster(cluster)) = LedgerName::parse(&change.name) {
                self.clusters.insert(cluster.to_string());
            }
        }
    }

    /// Judges the nodes that were touched, and notes everything that tells of them.
    pub fn touch(
        &mut self,
        members: &mut Readiness,
        index: &Index,
        decided: &Decided,
        touched: &Touched,
    ) {
        members.follow_ledgers(&touched.ledgers, decided);
        let mut links: BTreeSet<&LinkName> = touched.links.iter().collect();
        let mut concerned = Vec::new();
        for id in &touched.nodes {
            concerned.push(members.update(id, index, decided));
            self.clusters.insert(id.cluster.to_string());
            links.extend(decided.uses.links_of_cluster(id.cluster.as_str()));
        }
        for it in &concerned {
            links.extend(&it.links);
            for site in &it.sites {
                self.sites.insert(site.to_string());
                links.extend(decided.uses.links_of_site(site));
            }
            self.vpns.extend(it.vpns.iter().map(ToString::to_string));
        }
        let peers: BTreeSet<_> = touched.peers().map(|(name, _)| name).collect();
        for (vpn, attachment) in &decided.attachments {
            if attachment.gateways.iter().any(|it| peers.contains(it)) {
                self.vpns.insert(vpn.to_string());
                links.insert(&attachment.link);
            }
        }
        self.plans.extend(links.iter().map(ToString::to_string));
        self.links.extend(links.iter().map(ToString::to_string));
    }

    /// Takes out at most `most` names.
    #[must_use]
    pub fn take(&mut self, most: usize) -> Self {
        let mut room = most;
        let mut taken = Self::default();
        for (from, to) in self.kinds_mut().into_iter().zip(taken.kinds_mut()) {
            while room > 0
                && let Some(name) = from.pop_first()
            {
                to.insert(name);
                room -= 1;
            }
        }
        taken
    }

    fn kinds(&self) -> [&BTreeSet<String>; 6] {
        let Self {
            links,
            clusters,
            sites,
            vpns,
            ledgers,
            plans,
        } = self;
        [clusters, sites, vpns, ledgers, links, plans]
    }

    fn kinds_mut(&mut self) -> [&mut BTreeSet<String>; 6] {
        let Self {
            links,
            clusters,
            sites,
            vpns,
            ledgers,
            plans,
        } = self;
        [clusters, sites, vpns, ledgers, links, plans]
    }
}

fn names<K>(table: &Table<K>) -> BTreeSet<String> {
    table.iter().map(|(name, _)| name.to_owned()).collect()
}

fn changed<K>(changes: &[Change<K>]) -> impl Iterator<Item = String> + '_ {
    changes.iter().map(|change| change.name.clone())
}
