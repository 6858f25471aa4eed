//! What a cluster's status says of ranges: its blocks, and what each of its sites has of them. Kept, and followed node by node:
//! a large cluster's chunks are few, and its nodes lie in them.

use crate::decided::Decided;
use std::collections::BTreeMap;
use tieline_core::cidr::{Prefix, PrefixSet};
use tieline_core::ids::{ClusterName, SiteName};
use tieline_core::ledger::{LedgerName, Owner, State, Use};
use tieline_crds::cluster::{Granted, SiteGrant};

/// Ranges of one cluster's sites.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct SiteRanges {
    /// What its ledger gives to sites.
    chunks: BTreeMap<SiteName, PrefixSet>,
    /// Sites with planned nodes.
    sites: BTreeMap<SiteName, OfSite>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct OfSite {
    nodes: usize,
    /// Nodes' ranges outside of the site's chunks, which were imported, and how many nodes have each.
    strays: BTreeMap<Prefix, usize>,
}

impl SiteRanges {
    /// Without nodes.
    pub(super) fn new(chunks: BTreeMap<SiteName, PrefixSet>) -> Self {
        Self {
            chunks,
            sites: BTreeMap::new(),
        }
    }

    /// What its ledger gives to sites.
    pub(super) fn chunks(&self) -> &BTreeMap<SiteName, PrefixSet> {
        &self.chunks
    }

    pub(super) fn add(&mut self, site: &SiteName, pods: &[Prefix]) {
        let of_site = self.sites.entry(site.clone()).or_default();
        of_site.nodes += 1;
        let chunks = self.chunks.get(site);
        let strays = pods
            .iter()
            .filter(|prefix| !chunks.is_some_and(|chunks| chunks.contains(**prefix)));
        for prefix in strays {
            *of_site.strays.entry(*prefix).or_default() += 1;
        }
    }

    pub(super) fn take(&mut self, site: &SiteName, pods: &[Prefix]) {
        let Some(of_site) = self.sites.get_mut(site) else {
            return;
        };
        of_site.nodes -= 1;
        for prefix in pods {
            if let Some(count) = of_site.strays.get_mut(prefix) {
                *count -= 1;
                if *count == 0 {
                    of_site.strays.remove(prefix);
                }
            }
        }
        if of_site.nodes == 0 {
            self.sites.remove(site);
        }
    }

    /// As a status tells it, with the cluster's blocks.
    pub(super) fn told(&self, blocks: &PrefixSet) -> Granted {
        let mut by_site: BTreeMap<&SiteName, PrefixSet> = BTreeMap::new();
        for (site, chunks) in &self.chunks {
            by_site.insert(site, chunks.clone());
        }
        for (site, of_site) in &self.sites {
            let set = by_site.entry(site).or_default();
            for prefix in of_site.strays.keys() {
                if !set.contains(*prefix) {
                    set.insert(*prefix);
                }
            }
        }
        let texts = |set: &PrefixSet, most: usize| {
            let first = set.iter().take(most);
            first.map(|prefix| prefix.to_string()).collect()
        };
        Granted {
            pod_cidrs: texts(blocks, 64),
            by_site: by_site
                .iter()
                .take(1024)
                .map(|(site, set)| SiteGrant {
                    site: site.to_string(),
                    pod_cidrs: texts(set, 256),
                })
                .collect(),
        }
    }
}

/// What a cluster's ledger gives to sites for pods.
pub(super) fn chunks(cluster: &ClusterName, decided: &Decided) -> BTreeMap<SiteName, PrefixSet> {
    let mut by_site: BTreeMap<&SiteName, Vec<Prefix>> = BTreeMap::new();
    let name = LedgerName::Cluster(cluster.clone());
    let ledger = decided.proposal().ledgers.get(&name);
    let grants = ledger.iter().flat_map(|ledger| &ledger.grants);
    for grant in grants.filter(|it| it.used_for == Use::Pod && it.state != State::Released) {
        if let Owner::Site(site) = &grant.owner {
            by_site.entry(site).or_default().push(grant.prefix);
        }
    }
    let sets = by_site.into_iter();
    sets.map(|(site, chunks)| (site.clone(), chunks.into()))
        .collect()
}

/// Every cluster's blocks for pods; without a hub's ledger there are none.
pub(super) fn blocks(decided: &Decided) -> Option<BTreeMap<ClusterName, PrefixSet>> {
    let hub = decided.proposal().ledgers.get(&LedgerName::Hub)?;
    let live = |state| state != State::Released;
    let mut blocks: BTreeMap<ClusterName, Vec<Prefix>> = BTreeMap::new();
    for grant in &hub.grants {
        if let Owner::Cluster(cluster) = &grant.owner
            && grant.used_for == Use::Pod
            && live(grant.state)
        {
            let of_cluster = blocks.entry(cluster.clone()).or_default();
            of_cluster.push(grant.prefix);
        }
    }
    let sets = blocks.into_iter();
    Some(
        sets.map(|(cluster, blocks)| (cluster, blocks.into_iter().collect()))
            .collect(),
    )
}
