//! Status of a ClusterLink and of its NetworkPlan.

use super::entries::Entries;
use super::judged::Judged;
use super::judgement::{Judgement, accepted, conditions, count};
use super::readiness::{Readiness, not_ready};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use std::collections::BTreeSet;
use tieline_core::ids::LinkName;
use tieline_core::notice::{Kind, Reason};
use tieline_crds::cluster_link::{MemberCount, NotReady};
use tieline_crds::condition::{ObjectCondition, Standing};
use tieline_crds::network_plan::AppliedBy;
use tieline_crds::{ClusterLink, ClusterLinkStatus, NetworkPlan, NetworkPlanStatus};

pub(super) fn status(object: &ClusterLink, from: &Judged<'_>, now: Timestamp) -> ClusterLinkStatus {
    let Judged {
        index,
        decided,
        members,
        ..
    } = *from;
    let name = object.name_any();
    let held = object.status.clone().unwrap_or_default();
    let link = LinkName::new(name.as_str()).ok();
    let link = link.as_ref();
    let written = index.plans.get(&name).map(|plan| plan.spec.revision);
    let spec = &object.spec.members;
    let total = count(spec.clusters.len() + spec.sites.len() + spec.vpn_attachments.len());
    let wanted = link.and_then(|link| decided.world.fleet.links.get_key_value(link));
    let entries = wanted.map(|(link, spec)| members.entries(link, spec, decided));
    let ready = match (wanted, &entries) {
        (Some((_, spec)), Some(entries)) => {
            total.saturating_sub(count(members.missing(spec, entries, decided)))
        }
        _ => 0,
    };
    let lacking = entries.unwrap_or_default();

    let accepted = accepted(Kind::ClusterLink, &name, decided);
    let planned = planned(&name, link, written, from);
    let converged = converged(link, &lacking, members, planned.holds());
    let all = Judgement::new(
        ObjectCondition::Ready,
        true,
        Standing::Ready,
        format!("all {total} members are ready"),
    );
    let some = format!("{ready} of {total} members are ready{}", lacking.reasons());
    let ready_now = [&accepted, &planned, &converged]
        .into_iter()
        .find(|it| !it.holds())
        .map(|it| Judgement::new(ObjectCondition::Ready, false, it.reason, it.message.clone()))
        .unwrap_or(if ready == total {
            all
        } else {
            Judgement::new(
                ObjectCondition::Ready,
                false,
                Standing::MembersNotReady,
                some,
            )
        });
    ClusterLinkStatus {
        observed_generation: object.metadata.generation,
        plan_revision: written,
        members: Some(MemberCount { total, ready }),
        not_ready: lacking.first.iter().map(not_ready).collect(),
        paths: link.and_then(|link| members.paths(link)),
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
    from: &Judged<'_>,
) -> Judgement {
    let decided = from.decided;
    let no = |reason: Standing, message: String| {
        Judgement::new(ObjectCondition::Planned, false, reason, message)
    };
    if let Some((reason, message)) = &decided.trouble {
        return no(*reason, message.clone());
    }
    let mut refused = from.refused.of(link);
    if let Some(first) = refused.next() {
        let more = match refused.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        return no(Standing::WriteRefused, format!("{first}{more}"));
    }
    if let Some(why) = link.and_then(|link| decided.world.aside.get(link)) {
        return no(Standing::SetAside, why.clone());
    }
    if let Some(why) = link.and_then(|link| decided.world.behind.get(link)) {
        return no(Standing::RevisionBehind, why.clone());
    }
    if let Some(why) = link.and_then(|link| decided.too_large.get(link)) {
        return no(Standing::PlanTooLarge, why.clone());
    }
    if let Some(withheld) = link.and_then(|link| decided.proposal().report.withheld.get(link)) {
        let message = if withheld.is_empty() {
            "mode is Plan: nothing would change".to_owned()
        } else {
            format!("mode is Plan: set it to Apply for: {}", withheld.join("; "))
        };
        return no(Standing::Withheld, message);
    }
    let objections = &decided.objections;
    let refusals: Vec<_> = match link {
        Some(link) => objections
            .of_link(link)
            .filter(|(_, user)| *user)
            .map(|(it, _)| it)
            .collect(),
        None => objections.of_no_link().collect(),
    };
    if !refusals.is_empty() {
        let mut texts: Vec<String> = refusals.iter().map(|it| it.brief()).collect();
        texts.sort();
        return no(Standing::Refused, texts.join("; "));
    }
    let Some(plan) = link.and_then(|link| decided.proposal().plans.get(link)) else {
        return no(
            Standing::NoPlan,
            format!("there is no plan for ClusterLink {name} yet"),
        );
    };
    match written {
        Some(_) => Judgement::new(
            ObjectCondition::Planned,
            true,
            Standing::Planned,
            format!(
                "{} segments in {} sites, {} VPNs",
                plan.segments.len(),
                plan.sites.len(),
                plan.vpns.len()
            ),
        ),
        None => no(
            Standing::NotWritten,
            "the plan has not been written yet".to_owned(),
        ),
    }
}

fn converged(
    link: Option<&LinkName>,
    entries: &Entries,
    members: &Readiness,
    planned: bool,
) -> Judgement {
    let (applied, total) = link.map_or((0, 0), |link| members.applied(link));
    if total == 0 {
        let message = if planned {
            "the plan has no node yet"
        } else {
            "nothing is applied yet"
        };
        return Judgement::new(ObjectCondition::Converged, false, Reason::NoNodes, message);
    }
    if applied < total {
        let message = format!(
            "{applied} of {total} nodes carry the plan{}",
            entries.reasons()
        );
        return Judgement::new(
            ObjectCondition::Converged,
            false,
            Standing::AgentsBehind,
            message,
        );
    }
    Judgement::new(
        ObjectCondition::Converged,
        true,
        Standing::Converged,
        format!("all {total} nodes carry the plan"),
    )
}

pub(super) fn plan_status(object: &NetworkPlan, members: &Readiness) -> NetworkPlanStatus {
    let link = LinkName::new(object.spec.link.as_str()).ok();
    let (nodes, total) = link.map_or((0, 0), |link| members.applied(&link));
    NetworkPlanStatus {
        observed_generation: object.metadata.generation,
        applied_by: Some(AppliedBy { nodes, total }),
        conditions: Vec::new(),
    }
}

/// The entries that an old status lacks: what became wrong.
pub(super) fn new_entries<'a>(
    held: &'a [NotReady],
    wanted: &'a [NotReady],
) -> impl Iterator<Item = &'a NotReady> {
    let known: BTreeSet<(&str, &str, &str)> = held.iter().map(key).collect();
    wanted.iter().filter(move |it| !known.contains(&key(it)))
}

fn key(entry: &NotReady) -> (&str, &str, &str) {
    (&entry.kind, &entry.name, &entry.reason)
}
