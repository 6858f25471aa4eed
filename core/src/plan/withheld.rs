//! What would change, in words: for links whose decisions are only shown.

use super::proposal::Proposal;
use crate::ids::LinkName;
use crate::ledger::{Grant, LedgerName, Ledgers, Owner, State, Use};
use crate::network_plan::{Class, NetworkPlan, Segment};
use crate::notice::Notice;
use std::collections::{BTreeMap, BTreeSet};

/// Moves what a trial run found about some links into the report of a proposal.
pub(super) fn withhold(proposal: &mut Proposal, trial: &Proposal, links: &BTreeSet<&LinkName>) {
    let concerns = |notice: &&Notice| {
        notice
            .link
            .as_ref()
            .is_some_and(|link| links.contains(link))
    };
    let report = &mut proposal.report;
    for (own, found) in [
        (&mut report.refusals, &trial.report.refusals),
        (&mut report.waiting, &trial.report.waiting),
    ] {
        own.extend(found.iter().filter(concerns).cloned());
        own.sort_unstable();
        own.dedup();
    }
    for link in links {
        let plans = (proposal.plans.get(*link), trial.plans.get(*link));
        let mut words = Vec::new();
        if let (old, Some(new)) = plans {
            words.extend(ledger_words(&proposal.ledgers, &trial.ledgers, new));
            words.extend(plan_words(old, new));
        }
        report.withheld.insert((*link).clone(), words);
    }
}

fn ledger_words(old: &Ledgers, new: &Ledgers, plan: &NetworkPlan) -> Vec<String> {
    let mut words = Vec::new();
    let members: BTreeSet<LedgerName> = plan
        .clusters
        .iter()
        .map(|cluster| LedgerName::Cluster(cluster.name.clone()))
        .collect();
    for (name, ledger) in new {
        let concerns = |grant: &Grant| match (&grant.owner, name) {
            (Owner::Cluster(cluster), LedgerName::Hub) => plan.cluster(cluster).is_some(),
            _ => members.contains(name),
        };
        let had: BTreeSet<&Grant> = old
            .get(name)
            .iter()
            .flat_map(|ledger| &ledger.grants)
            .collect();
        for grant in ledger
            .grants
            .iter()
            .filter(|grant| concerns(grant) && !had.contains(grant))
        {
            let verb = match grant.state {
                State::Active => "grant",
                State::Imported => "import",
                State::Released => "release",
            };
            let what = match grant.used_for {
                Use::Pod => "pods",
                Use::Mesh => "the mesh",
            };
            let preposition = if grant.state == State::Released {
                "of"
            } else {
                "for"
            };
            words.push(format!(
                "ledger {name}: {verb} {} {preposition} {} ({what})",
                grant.prefix, grant.owner
            ));
        }
    }
    words
}

fn plan_words(old: Option<&NetworkPlan>, new: &NetworkPlan) -> Vec<String> {
    let mut words = Vec::new();
    if old.is_none() {
        words.push("plan: make it".to_owned());
    }
    let had: BTreeMap<_, &Segment> = old
        .iter()
        .flat_map(|plan| &plan.segments)
        .map(|segment| (&segment.name, segment))
        .collect();
    for segment in &new.segments {
        let name = &segment.name;
        match had.get(name) {
            None => words.push(format!(
                "plan: add segment {name} with {}, gateways {}",
                prefixes(segment),
                gateways(segment)
            )),
            Some(was) if *was == segment => {}
            Some(was) => {
                if was.prefixes != segment.prefixes {
                    words.push(format!(
                        "plan: segment {name} from {} to {}",
                        prefixes(was),
                        prefixes(segment)
                    ));
                }
                if was.gateways != segment.gateways {
                    words.push(format!(
                        "plan: gateways of segment {name} from {} to {}",
                        gateways(was),
                        gateways(segment)
                    ));
                }
            }
        }
    }
    let kept: BTreeSet<_> = new.segments.iter().map(|segment| &segment.name).collect();
    words.extend(
        had.keys()
            .filter(|name| !kept.contains(*name))
            .map(|name| format!("plan: remove segment {name}")),
    );
    let Some(old) = old else { return words };
    let mut differs = |what: &str, changed: bool| {
        if changed {
            words.push(format!("plan: change {what}"));
        }
    };
    differs(
        &format!("super-nets from {} to {}", old.super_nets, new.super_nets),
        old.super_nets != new.super_nets,
    );
    differs(
        &format!("bypass from {} to {}", old.bypass, new.bypass),
        old.bypass != new.bypass,
    );
    differs("the clusters' ranges", old.clusters != new.clusters);
    differs("the sites' facts", old.sites != new.sites);
    differs("the VPNs", old.vpns != new.vpns);
    differs("the transit site", old.transit != new.transit);
    differs("the granularity", old.granularity != new.granularity);
    words
}

fn prefixes(segment: &Segment) -> String {
    let all: Vec<String> = segment
        .prefixes
        .iter()
        .map(|entry| {
            let class = match entry.class {
                Class::Pod => "pods",
                Class::Service => "services",
                Class::Lan => "LAN",
                Class::Vpn => "VPN",
                Class::Mesh => "mesh",
            };
            format!("{} ({class})", entry.prefix)
        })
        .collect();
    if all.is_empty() {
        "nothing".to_owned()
    } else {
        all.join(", ")
    }
}

fn gateways(segment: &Segment) -> String {
    let all: Vec<String> = segment
        .gateways
        .iter()
        .map(|gateway| format!("{} (rank {})", gateway.peer, gateway.rank))
        .collect();
    if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(", ")
    }
}
