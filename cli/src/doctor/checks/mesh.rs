//! What our objects say of themselves: conditions, plans that are not applied, paths and sessions that are down.

use super::{Facts, Finding, read};
use crate::conditions::{is_bad, words};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use tieline_core::plan::listed;
use tieline_crds::condition::{PeerCondition, Standing};
use tieline_crds::{Condition, Peer};

/// Conditions that another check says better.
const TOLD_ELSEWHERE: &[&str] = &["ForwardDropped", "PathsUp"];

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    let mut judged = 0;
    for (place, conditions, help) in objects(facts) {
        judged += conditions.len();
        all.extend(conditions_of(&place, conditions, &help));
    }
    if all.is_empty() && judged > 0 {
        all.push(Finding::ok(
            "conditions",
            format!("all {judged} conditions of our objects are as they should be"),
        ));
    }
    all.extend(paths(facts));
    all.extend(behind(facts));
    all
}

/// All our objects: what they are called, their conditions, and where to look further.
fn objects(facts: &Facts) -> Vec<(String, &[Condition], String)> {
    fn row<'a, K: ResourceExt>(
        kind: &str,
        object: &K,
        conditions: Option<&'a Vec<Condition>>,
        help: String,
    ) -> (String, &'a [Condition], String) {
        (
            format!("{kind} {}", object.name_any()),
            conditions.map_or(&[], Vec::as_slice),
            help,
        )
    }
    let operator = || {
        format!(
            "kubectl -n {} logs deploy/tieline-operator",
            facts.namespace
        )
    };
    let mut all = Vec::new();
    for it in read(&facts.links) {
        all.push(row(
            "ClusterLink",
            it,
            it.status.as_ref().map(|status| &status.conditions),
            "tieline status".into(),
        ));
    }
    for it in read(&facts.clusters) {
        all.push(row(
            "Cluster",
            it,
            it.status.as_ref().map(|status| &status.conditions),
            operator(),
        ));
    }
    for it in read(&facts.sites) {
        all.push(row(
            "Site",
            it,
            it.status.as_ref().map(|status| &status.conditions),
            operator(),
        ));
    }
    for it in read(&facts.vpns) {
        all.push(row(
            "VpnAttachment",
            it,
            it.status.as_ref().map(|status| &status.conditions),
            operator(),
        ));
    }
    for it in read(&facts.ledgers) {
        all.push(row(
            "AddressLedger",
            it,
            it.status.as_ref().map(|status| &status.conditions),
            operator(),
        ));
    }
    for it in read(&facts.plans) {
        all.push(row(
            "NetworkPlan",
            it,
            it.status.as_ref().map(|status| &status.conditions),
            operator(),
        ));
    }
    for it in read(&facts.peers) {
        let help = format!(
            "read the log of the agent there: kubectl -n {} get pods -l app.kubernetes.io/component=agent --field-selector=spec.nodeName={}",
            facts.namespace, it.spec.node
        );
        all.push(row(
            "Peer",
            it,
            it.status.as_ref().map(|status| &status.conditions),
            help,
        ));
    }
    all
}

/// Those that are not as they should be. What two conditions say in the same words is said once.
fn conditions_of(place: &str, conditions: &[Condition], help: &str) -> Vec<Finding> {
    let mut told = BTreeSet::new();
    conditions
        .iter()
        .filter(|it| is_bad(it) && !TOLD_ELSEWHERE.contains(&it.type_.as_str()))
        .filter(|it| told.insert(&it.message))
        .map(|it| {
            let message = words(it);
            let finding = if it.status == "Unknown" {
                Finding::warning("conditions", message)
            } else {
                Finding::problem("conditions", message)
            };
            finding.at(place).todo(help)
        })
        .collect()
}

/// Whether gateways hear each other, by the handshakes that their agents report.
fn paths(facts: &Facts) -> Vec<Finding> {
    const ID: &str = "paths";
    let peers = read(&facts.peers);
    let mut all = Vec::new();
    let mut silent = Vec::new();
    for peer in peers {
        let status = peer.status.as_ref();
        let Some(condition) =
            status.and_then(|status| PeerCondition::PathsUp.of(&status.conditions))
        else {
            silent.push(peer.spec.node.as_str());
            continue;
        };
        let none = condition.status != "True";
        let some = condition.reason == Standing::SomeUp.as_str();
        if !none && !some {
            continue;
        }
        let role = if peer.spec.gateway_rank.is_some() {
            "gateway"
        } else {
            "node"
        };
        let text = format!(
            "{} (this {role} is at {})",
            condition.message,
            endpoints(peer)
        );
        let finding = if none {
            Finding::problem(ID, text)
        } else {
            Finding::warning(ID, text)
        };
        all.push(finding.at(format!("Node {}", peer.spec.node)).todo(
            "let UDP 21820 to 21900 (or the chart's agent.port to +80) pass between these nodes in both directions: security groups, host firewalls, NAT; and make sure that the others reach these endpoints: where a NAT with forwarded ports or a load balancer stands before a site's gateways, name its addresses in the Site's underlay.publicAddresses",
        ));
    }
    if !silent.is_empty() {
        all.push(
            Finding::warning(ID, format!("agents have not reported: {}", listed(silent)))
                .todo("is the agent running there, and does it reach the API server?"),
        );
    }
    if all.is_empty() && !peers.is_empty() {
        all.push(Finding::ok(
            ID,
            "every node hears the gateways that it needs",
        ));
    }
    if peers.is_empty() {
        all.push(
            Finding::unknown(
                ID,
                "UDP between gateways: only agents that carry a plan can tell",
            )
            .todo("apply a Cluster and a ClusterLink, then run doctor again"),
        );
    }
    all
}

fn endpoints(peer: &Peer) -> String {
    let all = peer
        .spec
        .accepted_endpoints
        .iter()
        .map(|it| it.address.as_str());
    let text = listed(all);
    if text.is_empty() {
        "no accepted endpoint".to_owned()
    } else {
        text
    }
}

/// Nodes whose kernel carries an older plan than there is.
fn behind(facts: &Facts) -> Vec<Finding> {
    const ID: &str = "plan-applied";
    // A node is in one plan, and its Peer says from which revision on.
    let wanted: BTreeMap<&str, u64> = read(&facts.plans)
        .iter()
        .flat_map(|plan| {
            plan.spec
                .clusters
                .iter()
                .map(|cluster| (cluster.name.as_str(), plan.spec.revision))
        })
        .collect();
    let late: Vec<String> = read(&facts.peers)
        .iter()
        .filter_map(|peer| {
            let wanted = *wanted.get(peer.spec.cluster.as_str())?;
            let applied = peer
                .status
                .as_ref()
                .and_then(|status| status.applied_revision)
                .unwrap_or(0);
            (applied < wanted).then(|| format!("{} ({applied} of {wanted})", peer.spec.node))
        })
        .collect();
    if late.is_empty() {
        return Vec::new();
    }
    vec![
        Finding::warning(
            ID,
            format!("nodes do not carry the newest plan yet: {}", listed(late)),
        )
        .todo("wait a moment and look again; when it lasts, read those agents' logs"),
    ]
}
