//! Status of a Cluster.

use super::judged::Judged;
use super::judgement::{Judgement, accepted, conditions, count};
use super::readiness::summary;
use crate::decided::Decided;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use tieline_core::ids::ClusterName;
use tieline_core::ledger::LedgerName;
use tieline_core::notice::{Kind, Notice, Reason};
use tieline_core::plan::listed;
use tieline_crds::cluster::NodeCount;
use tieline_crds::condition::{ObjectCondition, Standing};
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
    let planned = cluster.and_then(|it| members.planned(it));
    let part = planned.map_or(0, BTreeSet::len);
    let ready_nodes = part.saturating_sub(entries.len());
    let accepted = accepted(Kind::Cluster, &name, decided);
    let used = decided.uses.uses_cluster(&name);
    let ready = if !accepted.holds() {
        Judgement::new(
            ObjectCondition::Ready,
            false,
            accepted.reason,
            accepted.message.clone(),
        )
    } else if !used {
        Judgement::new(
            ObjectCondition::Ready,
            false,
            Standing::NotAMember,
            "no ClusterLink names this cluster in spec.members.clusters",
        )
    } else if !entries.is_empty() {
        Judgement::new(
            ObjectCondition::Ready,
            false,
            Standing::NodesNotReady,
            summary(entries, nodes),
        )
    } else if part < nodes {
        Judgement::new(
            ObjectCondition::Ready,
            false,
            Standing::NodesWaiting,
            waiting(decided, cluster, nodes - part, nodes),
        )
    } else if nodes == 0 {
        Judgement::new(
            ObjectCondition::Ready,
            false,
            Reason::NoNodes,
            "no node of this cluster is known",
        )
    } else {
        Judgement::new(
            ObjectCondition::Ready,
            true,
            Standing::Ready,
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
        granted: cluster.and_then(|cluster| members.granted(cluster)),
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

fn waiting(decided: &Decided, cluster: Option<&ClusterName>, out: usize, total: usize) -> String {
    let texts: BTreeSet<String> = decided
        .proposal()
        .report
        .waiting
        .iter()
        .chain(&decided.world.notices)
        .filter(|it| cluster.is_some_and(|cluster| it.about.is_of(cluster)))
        .map(Notice::brief)
        .collect();
    let why = listed(texts);
    format!(
        "{out} of {total} nodes do not take part yet{}{why}",
        if why.is_empty() { "" } else { ": " }
    )
}
