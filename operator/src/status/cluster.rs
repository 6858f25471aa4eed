//! Status of a Cluster.

use super::members::summary;
use super::{Judged, Judgement, accepted, conditions, count};
use crate::decided::Decided;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use tieline_core::cidr::PrefixSet;
use tieline_core::ids::{ClusterName, NodeId, SiteName};
use tieline_core::ledger::{LedgerName, Owner, State, Use};
use tieline_core::plan::listed;
use tieline_crds::cluster::{Granted, NodeCount, SiteGrant};
use tieline_crds::{Cluster, ClusterStatus};

pub(super) fn status(object: &Cluster, from: &Judged<'_>, now: Timestamp) -> ClusterStatus {
    let Judged {
        index,
        decided,
        members,
        ..
    } = *from;
    let name = object.name_any();
    let held = object.status.clone().unwrap_or_default();
    let cluster = ClusterName::new(name.as_str()).ok();
    let cluster = cluster.as_ref();
    let nodes = cluster.map_or(0, |it| members.known(it));
    let none = BTreeMap::new();
    let entries = cluster
        .and_then(|it| members.not_ready(it))
        .unwrap_or(&none);
    let nobody = BTreeSet::new();
    let planned = cluster
        .and_then(|it| members.planned(it))
        .unwrap_or(&nobody);
    let part = planned.len();
    let ready_nodes = part.saturating_sub(entries.len());
    let accepted = accepted("Cluster", &name, decided);
    let used = decided.uses.uses_cluster(&name);
    let ready = if !accepted.holds() {
        Judgement::new(
            "Ready",
            false,
            accepted.reason.clone(),
            accepted.message.clone(),
        )
    } else if !used {
        Judgement::new(
            "Ready",
            false,
            "NotAMember",
            "no ClusterLink names this cluster in spec.members.clusters",
        )
    } else if !entries.is_empty() {
        Judgement::new("Ready", false, "NodesNotReady", summary(entries, nodes))
    } else if part < nodes {
        Judgement::new(
            "Ready",
            false,
            "NodesWaiting",
            waiting(decided, &name, nodes - part, nodes),
        )
    } else if nodes == 0 {
        Judgement::new(
            "Ready",
            false,
            "NoNodes",
            "no node of this cluster is known",
        )
    } else {
        Judgement::new(
            "Ready",
            true,
            "Ready",
            format!("all {nodes} nodes take part"),
        )
    };
    let ledger = cluster.cloned().map(LedgerName::Cluster);
    let recorded = ledger
        .as_ref()
        .and_then(|it| index.ledgers.get(&it.to_string()));
    ClusterStatus {
        lineage: recorded.map(|it| it.spec.lineage.clone()),
        observed_revision: recorded.map(|it| {
            let frozen = ledger.as_ref().and_then(|name| decided.frozen.get(name));
            let seen = frozen.and_then(|frozen| frozen.ledger_seen());
            seen.unwrap_or_default().max(it.spec.revision)
        }),
        observed_generation: object.metadata.generation,
        granted: cluster.and_then(|cluster| granted(cluster, planned, decided)),
        nodes: Some(NodeCount {
            total: count(nodes),
            ready: count(ready_nodes),
        }),
        conditions: conditions(
            &held.conditions,
            vec![ready, accepted],
            object.metadata.generation,
            now,
        ),
    }
}

fn waiting(decided: &Decided, cluster: &str, out: usize, total: usize) -> String {
    let texts: BTreeSet<String> = decided
        .proposal()
        .report
        .waiting
        .iter()
        .filter(|it| it.kind == "Node" || (it.kind == "Cluster" && it.name == cluster))
        .map(|it| format!("{} {}: {}", it.kind, it.name, it.message))
        .collect();
    let why = listed(texts);
    format!(
        "{out} of {total} nodes do not take part yet{}{why}",
        if why.is_empty() { "" } else { ": " }
    )
}

fn granted(
    cluster: &ClusterName,
    planned: &BTreeSet<NodeId>,
    decided: &Decided,
) -> Option<Granted> {
    let hub = decided.proposal().ledgers.get(&LedgerName::Hub)?;
    let pod_cidrs: PrefixSet = hub
        .held(&Owner::Cluster(cluster.clone()), Use::Pod)
        .collect();
    let mut by_site: BTreeMap<SiteName, PrefixSet> = BTreeMap::new();
    if let Some(ledger) = decided
        .proposal()
        .ledgers
        .get(&LedgerName::Cluster(cluster.clone()))
    {
        for grant in ledger
            .grants
            .iter()
            .filter(|it| it.used_for == Use::Pod && it.state != State::Released)
        {
            if let Owner::Site(site) = &grant.owner {
                by_site
                    .entry(site.clone())
                    .or_default()
                    .insert(grant.prefix);
            }
        }
    }
    // Imported ranges lie in no site's chunk.
    for node in planned
        .iter()
        .filter_map(|id| decided.proposal().nodes.get(id))
    {
        let site = by_site.entry(node.site.clone()).or_default();
        for prefix in &node.pod_cidrs {
            if !site.contains(*prefix) {
                site.insert(*prefix);
            }
        }
    }
    let texts = |set: &PrefixSet, most: usize| {
        set.iter()
            .take(most)
            .map(|prefix| prefix.to_string())
            .collect()
    };
    Some(Granted {
        pod_cidrs: texts(&pod_cidrs, 64),
        by_site: by_site
            .iter()
            .take(1024)
            .map(|(site, set)| SiteGrant {
                site: site.to_string(),
                pod_cidrs: texts(set, 256),
            })
            .collect(),
    })
}
