//! Status of a ClusterLink and of its NetworkPlan.

use super::{Judgement, Members, accepted, conditions, count};
use crate::index::Index;
use crate::reconcile::Decided;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tieline_core::ids::LinkName;
use tieline_core::plan::listed;
use tieline_crds::cluster_link::{MemberCount, NotReady};
use tieline_crds::network_plan::AppliedBy;
use tieline_crds::{ClusterLink, ClusterLinkStatus, NetworkPlan, NetworkPlanStatus};

/// Bound of `status.notReady` in the schema.
const LISTED: usize = 100;

pub(super) fn status(
    object: &ClusterLink,
    index: &Index,
    decided: &Decided,
    members: &Members,
    now: Timestamp,
) -> ClusterLinkStatus {
    let name = object.name_any();
    let held = object.status.clone().unwrap_or_default();
    let link = LinkName::new(name.as_str()).ok();
    let link = link.as_ref();
    let written = index.plans.get(&name).map(|plan| plan.spec.revision);
    let spec = &object.spec.members;
    let total = count(spec.clusters.len() + spec.sites.len() + spec.vpn_attachments.len());
    let missing = link.and_then(|link| members.missing.get(link));
    let unknown = link.is_none_or(|link| !decided.world.fleet.links.contains_key(link));
    let ready = if unknown {
        0
    } else {
        total.saturating_sub(count(missing.copied().unwrap_or(0)))
    };
    let mut not_ready = link
        .and_then(|link| members.not_ready.get(link))
        .cloned()
        .unwrap_or_default();

    let accepted = accepted("ClusterLink", &name, decided);
    let planned = planned(&name, link, written, decided);
    let converged = converged(link, &not_ready, members, planned.holds());
    let all = Judgement::new(
        "Ready",
        true,
        "Ready",
        format!("all {total} members are ready"),
    );
    let some = format!(
        "{ready} of {total} members are ready{}",
        reasons(&not_ready)
    );
    let ready_now = [&accepted, &planned, &converged]
        .into_iter()
        .find(|it| !it.holds())
        .map(|it| Judgement::new("Ready", false, it.reason.clone(), it.message.clone()))
        .unwrap_or(if ready == total {
            all
        } else {
            Judgement::new("Ready", false, "MembersNotReady", some)
        });
    not_ready.truncate(LISTED);
    ClusterLinkStatus {
        observed_generation: object.metadata.generation,
        plan_revision: written,
        members: Some(MemberCount { total, ready }),
        not_ready,
        paths: link.and_then(|link| members.paths.get(link)).copied(),
        conditions: conditions(
            &held.conditions,
            vec![ready_now, accepted, planned, converged],
            object.metadata.generation,
            now,
        ),
    }
}

fn planned(
    name: &str,
    link: Option<&LinkName>,
    written: Option<u64>,
    decided: &Decided,
) -> Judgement {
    let no = |reason: &str, message: String| Judgement::new("Planned", false, reason, message);
    if let Some((reason, message)) = &decided.trouble {
        return no(reason, message.clone());
    }
    let mut refused = decided
        .refused
        .iter()
        .filter(|it| it.link.is_none() || it.link.as_ref() == link)
        .map(|it| &it.error);
    if let Some(first) = refused.next() {
        let more = match refused.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        return no("WriteRefused", format!("{first}{more}"));
    }
    if let Some(why) = link.and_then(|link| decided.world.aside.get(link)) {
        return no("SetAside", why.clone());
    }
    if let Some(why) = link.and_then(|link| decided.world.behind.get(link)) {
        return no("RevisionBehind", why.clone());
    }
    if let Some(why) = link.and_then(|link| decided.too_large.get(link)) {
        return no("PlanTooLarge", why.clone());
    }
    if let Some(withheld) = link.and_then(|link| decided.proposal.report.withheld.get(link)) {
        let message = if withheld.is_empty() {
            "mode is Plan: nothing would change".to_owned()
        } else {
            format!("mode is Plan: set it to Apply for: {}", withheld.join("; "))
        };
        return no("Withheld", message);
    }
    let refused = decided
        .refusals()
        .filter(|it| it.link.as_ref() == link && it.kind != "ClusterLink")
        .count();
    if refused > 0 {
        let notices = decided
            .refusals()
            .filter(|it| it.link.as_ref() == link && it.kind != "ClusterLink");
        let mut texts: Vec<String> = notices
            .map(|it| format!("{} {}: {}", it.kind, it.name, it.message))
            .collect();
        texts.sort();
        return no("Refused", texts.join("; "));
    }
    let Some(plan) = link.and_then(|link| decided.proposal.plans.get(link)) else {
        return no(
            "NoPlan",
            format!("there is no plan for ClusterLink {name} yet"),
        );
    };
    match written {
        Some(_) => Judgement::new(
            "Planned",
            true,
            "Planned",
            format!(
                "{} segments in {} sites, {} VPNs",
                plan.segments.len(),
                plan.sites.len(),
                plan.vpns.len()
            ),
        ),
        None => no("NotWritten", "the plan has not been written yet".to_owned()),
    }
}

fn converged(
    link: Option<&LinkName>,
    entries: &[NotReady],
    members: &Members,
    planned: bool,
) -> Judgement {
    let (applied, total) = link
        .and_then(|link| members.applied.get(link))
        .copied()
        .unwrap_or_default();
    if total == 0 {
        let message = if planned {
            "the plan has no node yet"
        } else {
            "nothing is applied yet"
        };
        return Judgement::new("Converged", false, "NoNodes", message);
    }
    if applied < total {
        let message = format!(
            "{applied} of {total} nodes carry the plan{}",
            reasons(entries)
        );
        return Judgement::new("Converged", false, "AgentsBehind", message);
    }
    Judgement::new(
        "Converged",
        true,
        "Converged",
        format!("all {total} nodes carry the plan"),
    )
}

/// The first reasons, in words.
fn reasons(entries: &[NotReady]) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let texts = entries
        .iter()
        .map(|it| format!("{} {}: {}", it.kind, it.name, it.reason));
    format!(" ({})", listed(texts))
}

pub(super) fn plan_status(object: &NetworkPlan, members: &Members) -> NetworkPlanStatus {
    let link = LinkName::new(object.spec.link.as_str()).ok();
    let (nodes, total) = link
        .and_then(|link| members.applied.get(&link))
        .copied()
        .unwrap_or_default();
    NetworkPlanStatus {
        observed_generation: object.metadata.generation,
        applied_by: Some(AppliedBy { nodes, total }),
        conditions: Vec::new(),
    }
}

/// The entries that an old status lacks: what became wrong.
pub(super) fn new_entries<'a>(
    held: &[NotReady],
    wanted: &'a [NotReady],
) -> impl Iterator<Item = &'a NotReady> {
    let known: Vec<(String, String, String)> = held
        .iter()
        .map(|it| (it.kind.clone(), it.name.clone(), it.reason.clone()))
        .collect();
    wanted
        .iter()
        .filter(move |it| !known.contains(&(it.kind.clone(), it.name.clone(), it.reason.clone())))
}
