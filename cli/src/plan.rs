//! `tieline plan`: the operator's own decision, shown before anything is applied.
//!
//! The JSON form is an interface that scripts rely on: fields are added, never renamed.

use crate::offline::Offline;
use crate::table::table;
use serde::Serialize;
use std::collections::BTreeMap;
use tieline_core::check::Finding;
use tieline_core::ledger::{Owner, State, Use};
use tieline_core::network_plan::{Class, Segment};
use tieline_core::notice::{About, Notice, Reason};
use tieline_core::plan::Proposal;

/// What `-o json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Whether all of it would be applied as written.
    pub accepted: bool,
    /// Who would hold which prefix.
    pub grants: Vec<GrantRow>,
    /// Nodes that share gateways.
    pub segments: Vec<SegmentRow>,
    /// Foreign networks.
    pub vpns: Vec<VpnRow>,
    /// What the user must change.
    pub refusals: Vec<NoticeRow>,
    /// What is expected to come.
    pub waiting: Vec<NoticeRow>,
    /// For links with mode Plan: what would change, in words.
    pub withheld: BTreeMap<String, Vec<String>>,
}

/// One grant.
#[derive(Debug, Serialize)]
pub(crate) struct GrantRow {
    /// `hub` or `cluster-<name>`.
    pub ledger: String,
    /// Who holds it.
    pub owner: Owner,
    /// The prefix.
    pub prefix: String,
    /// What it is for.
    #[serde(rename = "use")]
    pub used_for: Use,
    /// Active, Imported or Released.
    pub state: State,
}

/// One segment.
#[derive(Debug, Serialize)]
pub(crate) struct SegmentRow {
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// Its cluster; absent for a site's own routers.
    pub cluster: Option<String>,
    /// What lies in it.
    pub prefixes: Vec<PrefixRow>,
    /// Its gateways.
    pub gateways: Vec<GatewayRow>,
}

/// One prefix of a segment.
#[derive(Debug, Serialize)]
pub(crate) struct PrefixRow {
    /// The prefix.
    pub prefix: String,
    /// What it holds.
    pub class: Class,
}

/// One gateway.
#[derive(Debug, Serialize)]
pub(crate) struct GatewayRow {
    /// The node's name.
    pub node: String,
    /// Its rank.
    pub rank: u8,
}

/// One VPN.
#[derive(Debug, Serialize)]
pub(crate) struct VpnRow {
    /// Its name.
    pub name: String,
    /// The site that terminates it.
    pub site: String,
    /// The segment whose gateways do.
    pub segment: String,
    /// UDP port of our end.
    pub port: u16,
    /// What lies behind it.
    pub prefixes: Vec<String>,
}

/// One refusal or wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NoticeRow {
    /// Kind of the object concerned.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// One word for machines.
    pub reason: Reason,
    /// A sentence for people.
    pub message: String,
}

impl From<&Notice> for NoticeRow {
    fn from(notice: &Notice) -> Self {
        Self {
            kind: notice.about.kind().to_string(),
            name: notice.about.name().into_owned(),
            reason: notice.reason,
            message: notice.message.clone(),
        }
    }
}

/// What a plan says, as rows.
#[must_use]
pub(crate) fn report(offline: &Offline) -> Report {
    let proposal = &offline.proposal;
    let mut refusals = offline.invalid.clone();
    refusals.extend(proposal.report.refusals.iter().map(NoticeRow::from));
    let broken = offline.findings.iter().map(invariant_broken);
    refusals.extend(broken.map(|notice| NoticeRow::from(&notice)));
    Report {
        accepted: refusals.is_empty(),
        grants: grants(proposal),
        segments: proposal
            .plans
            .values()
            .flat_map(|plan| &plan.segments)
            .map(|s| segment(proposal, s))
            .collect(),
        vpns: proposal
            .plans
            .values()
            .flat_map(|plan| &plan.vpns)
            .map(|it| vpn(it, offline.agent_port))
            .collect(),
        refusals,
        waiting: proposal
            .report
            .waiting
            .iter()
            .map(NoticeRow::from)
            .collect(),
        withheld: proposal
            .report
            .withheld
            .iter()
            .map(|(link, lines)| (link.to_string(), lines.clone()))
            .collect(),
    }
}

fn invariant_broken(finding: &Finding) -> Notice {
    Notice {
        about: About::Proposal,
        link: None,
        reason: Reason::InvariantBroken,
        message: format!(
            "{finding}; this is a bug in the planner or a ledger edited by hand, and nothing would be written"
        ),
    }
}

fn grants(proposal: &Proposal) -> Vec<GrantRow> {
    let mut rows = Vec::new();
    for (name, ledger) in &proposal.ledgers {
        for grant in &ledger.grants {
            rows.push(GrantRow {
                ledger: name.to_string(),
                owner: grant.owner.clone(),
                prefix: grant.prefix.to_string(),
                used_for: grant.used_for,
                state: grant.state,
            });
        }
    }
    rows
}

fn segment(proposal: &Proposal, segment: &Segment) -> SegmentRow {
    let node_of = |peer| {
        proposal
            .nodes
            .iter()
            .find(|(_, node)| node.peer == peer)
            .map(|(id, _)| id.node.to_string())
    };
    SegmentRow {
        name: segment.name.to_string(),
        site: segment.site.to_string(),
        cluster: segment.cluster.as_ref().map(ToString::to_string),
        prefixes: segment
            .prefixes
            .iter()
            .map(|entry| PrefixRow {
                prefix: entry.prefix.to_string(),
                class: entry.class,
            })
            .collect(),
        gateways: segment
            .gateways
            .iter()
            .map(|gateway| GatewayRow {
                node: node_of(gateway.peer.clone()).unwrap_or_else(|| gateway.peer.to_string()),
                rank: gateway.rank,
            })
            .collect(),
    }
}

fn vpn(vpn: &tieline_core::network_plan::PlanVpn, agent_port: u16) -> VpnRow {
    VpnRow {
        name: vpn.name.to_string(),
        site: vpn.site.to_string(),
        segment: vpn.segment.to_string(),
        port: tieline_core::host::DeviceName::vpn(vpn.index).port(agent_port),
        prefixes: vpn
            .prefixes
            .iter()
            .map(|prefix| prefix.to_string())
            .collect(),
    }
}

/// The report as tables, for people.
#[must_use]
pub(crate) fn text(offline: &Offline, report: &Report) -> String {
    let mut out = String::new();
    out.push_str(if report.accepted {
        "Accepted.\n"
    } else {
        "Refused: see below what to change.\n"
    });
    section(
        &mut out,
        "Segments",
        &["SEGMENT", "PODS", "OTHER", "MESH", "GATEWAYS (RANK)"],
        segment_rows(report),
    );
    section(
        &mut out,
        "VPNs",
        &["VPN", "SEGMENT", "UDP PORT", "PREFIXES"],
        vpn_rows(report),
    );
    section(
        &mut out,
        "Nodes",
        &["NODE", "SEGMENT", "PODS", "MESH", "GATEWAY"],
        node_rows(&offline.proposal),
    );
    section(
        &mut out,
        "Grants",
        &["LEDGER", "OWNER", "USE", "PREFIX", "STATE"],
        grant_rows(report),
    );
    notices(&mut out, "Refused", &report.refusals);
    notices(&mut out, "Waiting", &report.waiting);
    for (link, lines) in &report.withheld {
        out.push_str(&format!("\nWithheld by mode Plan of {link}\n"));
        for line in lines {
            out.push_str(&format!("  {line}\n"));
        }
    }
    out
}

fn section(out: &mut String, title: &str, header: &[&str], rows: Vec<Vec<String>>) {
    if !rows.is_empty() {
        out.push_str(&format!("\n{title}\n{}", table(header, &rows)));
    }
}

fn notices(out: &mut String, title: &str, notices: &[NoticeRow]) {
    if notices.is_empty() {
        return;
    }
    out.push_str(&format!("\n{title}\n"));
    for notice in notices {
        out.push_str(&format!(
            "  {} {}: {}\n    {}\n",
            notice.kind, notice.name, notice.reason, notice.message
        ));
    }
}

fn segment_rows(report: &Report) -> Vec<Vec<String>> {
    let of = |segment: &SegmentRow, wanted: &dyn Fn(Class) -> bool| {
        let texts: Vec<&str> = segment
            .prefixes
            .iter()
            .filter(|entry| wanted(entry.class))
            .map(|entry| entry.prefix.as_str())
            .collect();
        or_dash(texts.join(","))
    };
    report
        .segments
        .iter()
        .map(|segment| {
            let gateways: Vec<String> = segment
                .gateways
                .iter()
                .map(|gateway| format!("{} ({})", gateway.node, gateway.rank))
                .collect();
            vec![
                segment.name.clone(),
                of(segment, &|class| class == Class::Pod),
                of(segment, &|class| !class.is_multipath()),
                of(segment, &|class| class == Class::Mesh),
                or_dash(gateways.join(", ")),
            ]
        })
        .collect()
}

fn vpn_rows(report: &Report) -> Vec<Vec<String>> {
    report
        .vpns
        .iter()
        .map(|vpn| {
            vec![
                vpn.name.clone(),
                vpn.segment.clone(),
                vpn.port.to_string(),
                vpn.prefixes.join(","),
            ]
        })
        .collect()
}

fn node_rows(proposal: &Proposal) -> Vec<Vec<String>> {
    let join = |texts: Vec<String>| or_dash(texts.join(","));
    proposal
        .nodes
        .iter()
        .map(|(id, node)| {
            vec![
                id.to_string(),
                node.segment.to_string(),
                join(node.pod_cidrs.iter().map(ToString::to_string).collect()),
                join(
                    node.mesh_addresses
                        .iter()
                        .map(ToString::to_string)
                        .collect(),
                ),
                node.gateway_rank
                    .map_or_else(|| "-".into(), |rank| format!("rank {rank}")),
            ]
        })
        .collect()
}

fn grant_rows(report: &Report) -> Vec<Vec<String>> {
    report
        .grants
        .iter()
        .map(|grant| {
            vec![
                grant.ledger.clone(),
                grant.owner.to_string(),
                format!("{:?}", grant.used_for),
                grant.prefix.clone(),
                format!("{:?}", grant.state),
            ]
        })
        .collect()
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}
