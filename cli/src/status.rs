//! `tieline status`: members, paths, and who is not ready and why, read from the API server.
//!
//! Reads only. Everything shown stands in the objects' status; nothing is computed here that `kubectl` would not show too.

use crate::conditions::{is_bad, words};
use crate::connect::{Connection, client};
use crate::table::table;
use anyhow::{Context, Result};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde::Serialize;
use tieline_crds::condition::ObjectCondition;
use tieline_crds::{ClusterLink, Condition, Peer, VpnAttachment};

/// Flags of `tieline status`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub connection: Connection,
    /// How to print.
    #[arg(long, short, default_value = "table")]
    pub output: StatusOutput,
}

/// How `tieline status` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StatusOutput {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

/// What `-o json` prints.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// Whether there is a link, and every one is ready.
    pub ready: bool,
    /// Links.
    pub links: Vec<LinkRow>,
    /// VPNs.
    pub vpns: Vec<VpnRow>,
    /// Nodes.
    pub nodes: Vec<NodeRow>,
}

/// One ClusterLink.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LinkRow {
    /// Its name.
    pub name: String,
    /// Whether its Ready condition is True.
    pub ready: bool,
    /// Ready and all members, as `ready/total`.
    pub members: String,
    /// Paths up and all paths, as `up/total`.
    pub paths: String,
    /// Plan revision.
    pub revision: Option<u64>,
    /// What keeps it from being ready: conditions that are not as they should be, then members.
    pub problems: Vec<String>,
}

/// One VpnAttachment.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VpnRow {
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// Sessions up and all sessions, as `up/total`.
    pub sessions: String,
    /// Where the other side finds its configuration.
    pub config_secret: Option<String>,
}

/// One node.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeRow {
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// Its rank when it is a gateway.
    pub gateway_rank: Option<u8>,
    /// Its pods' ranges.
    pub pod_cidrs: Vec<String>,
    /// Plan revision that its kernel carries.
    pub applied_revision: Option<u64>,
    /// Which WireGuard carries the traffic.
    pub backend: Option<String>,
    /// Its agent's version.
    pub version: Option<String>,
    /// Its agent's conditions that are not as they should be, in words.
    pub problems: Vec<String>,
}

/// Reads the status.
///
/// # Errors
/// When the API server cannot be reached or refuses.
pub(crate) async fn read(args: &StatusArgs) -> Result<Status> {
    let client = client(&args.connection).await?;
    let all = ListParams::default();
    let links = Api::<ClusterLink>::all(client.clone())
        .list(&all)
        .await
        .context("cannot list clusterlinks.tieline.dev")?;
    let vpns = Api::<VpnAttachment>::all(client.clone())
        .list(&all)
        .await
        .context("cannot list vpnattachments.tieline.dev")?;
    let peers = Api::<Peer>::namespaced(client, &args.connection.namespace)
        .list(&all)
        .await
        .with_context(|| {
            format!(
                "cannot list peers.tieline.dev in namespace {}",
                args.connection.namespace
            )
        })?;
    Ok(Status::new(&links.items, &vpns.items, &peers.items))
}

impl Status {
    fn new(links: &[ClusterLink], vpns: &[VpnAttachment], peers: &[Peer]) -> Self {
        let links: Vec<LinkRow> = links.iter().map(link_row).collect();
        Self {
            ready: !links.is_empty() && links.iter().all(|link| link.ready),
            links,
            vpns: vpns.iter().map(vpn_row).collect(),
            nodes: peers.iter().map(node_row).collect(),
        }
    }
}

fn link_row(link: &ClusterLink) -> LinkRow {
    let status = link.status.clone().unwrap_or_default();
    let mut problems = bad(&status.conditions);
    problems.extend(
        status
            .not_ready
            .iter()
            .map(|one| format!("{} {}: {}: {}", one.kind, one.name, one.reason, one.message)),
    );
    if status.conditions.is_empty() {
        problems.push(
            "no status yet: is the operator running? (kubectl -n tieline-system get lease)".into(),
        );
    }
    LinkRow {
        name: link.name_any(),
        ready: ObjectCondition::Ready.holds(&status.conditions),
        members: status.members.map_or_else(dash, |members| {
            format!("{}/{}", members.ready, members.total)
        }),
        paths: status
            .paths
            .map_or_else(dash, |paths| format!("{}/{}", paths.up, paths.total)),
        revision: status.plan_revision,
        problems,
    }
}

fn vpn_row(vpn: &VpnAttachment) -> VpnRow {
    let status = vpn.status.clone().unwrap_or_default();
    VpnRow {
        name: vpn.name_any(),
        site: vpn.spec.site.clone(),
        sessions: status.sessions.map_or_else(dash, |sessions| {
            format!("{}/{}", sessions.up, sessions.total)
        }),
        config_secret: status.config_secret.map(|secret| secret.name),
    }
}

fn node_row(peer: &Peer) -> NodeRow {
    let status = peer.status.clone().unwrap_or_default();
    let mut problems = bad(&status.conditions);
    if status.keys.is_empty() {
        problems.push("its agent has not reported yet".into());
    }
    NodeRow {
        name: peer.spec.node.clone(),
        site: peer.spec.site.clone(),
        gateway_rank: peer.spec.gateway_rank,
        pod_cidrs: peer.spec.pod_cidrs.clone(),
        applied_revision: status.applied_revision,
        backend: status
            .backend
            .map(|backend| format!("{backend:?}").to_lowercase()),
        version: status.version,
        problems,
    }
}

fn bad(conditions: &[Condition]) -> Vec<String> {
    conditions
        .iter()
        .filter(|it| is_bad(it))
        .map(words)
        .collect()
}

fn dash() -> String {
    "-".into()
}

/// The status as tables, for people.
#[must_use]
pub(crate) fn text(status: &Status) -> String {
    if status.links.is_empty() {
        return "No ClusterLink yet. `tieline plan -f DIR` shows what one would do; `kubectl apply` creates it.\n".into();
    }
    let yes = |ready: bool| String::from(if ready { "yes" } else { "no" });
    let number = |number: Option<u64>| number.map_or_else(dash, |number| number.to_string());
    let mut out = table(
        &["LINK", "READY", "MEMBERS", "PATHS", "PLAN"],
        &status
            .links
            .iter()
            .map(|l| {
                vec![
                    l.name.clone(),
                    yes(l.ready),
                    l.members.clone(),
                    l.paths.clone(),
                    number(l.revision),
                ]
            })
            .collect::<Vec<_>>(),
    );
    if !status.vpns.is_empty() {
        let rows: Vec<_> = status
            .vpns
            .iter()
            .map(|v| {
                let secret = v.config_secret.clone().unwrap_or_else(dash);
                vec![v.name.clone(), v.site.clone(), v.sessions.clone(), secret]
            })
            .collect();
        out.push_str(&format!(
            "\n{}",
            table(&["VPN", "SITE", "SESSIONS", "CONFIG SECRET"], &rows)
        ));
    }
    let rows: Vec<_> = status
        .nodes
        .iter()
        .map(|n| {
            vec![
                n.name.clone(),
                n.site.clone(),
                n.gateway_rank
                    .map_or_else(dash, |rank| format!("rank {rank}")),
                n.pod_cidrs.join(","),
                number(n.applied_revision),
                n.backend.clone().unwrap_or_else(dash),
                n.version.clone().unwrap_or_else(dash),
            ]
        })
        .collect();
    let header = [
        "NODE",
        "SITE",
        "GATEWAY",
        "PODS",
        "APPLIED",
        "WIREGUARD",
        "AGENT",
    ];
    out.push_str(&format!("\n{}", table(&header, &rows)));
    let links = status.links.iter().flat_map(|l| {
        l.problems
            .iter()
            .map(move |p| format!("ClusterLink {}: {p}", l.name))
    });
    let nodes = status.nodes.iter().flat_map(|n| {
        n.problems
            .iter()
            .map(move |p| format!("Node {}: {p}", n.name))
    });
    let problems: Vec<String> = links.chain(nodes).collect();
    if !problems.is_empty() {
        out.push_str(&format!("\nNot ready\n  {}\n", problems.join("\n  ")));
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn without_a_link_the_next_step_is_named() {
        let status = Status::new(&[], &[], &[]);
        assert!(text(&status).contains("tieline plan -f"));
        assert!(!status.ready, "nothing is not ready");
    }

    #[test]
    fn conditions_that_are_bad_when_true_are_told() {
        let condition = |kind: &str, status: &str| -> Condition {
            serde_json::from_value(serde_json::json!({
                "type": kind, "status": status, "reason": "Why", "message": "because",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }))
            .unwrap()
        };
        let mut peer = Peer::new("shop.a", tieline_crds::PeerSpec::default());
        peer.status = Some(tieline_crds::PeerStatus {
            conditions: vec![
                condition("Ready", "True"),
                condition("Applied", "False"),
                condition("ForwardDropped", "True"),
                condition("PlanMissing", "True"),
                condition("RevisionRefused", "False"),
            ],
            ..Default::default()
        });
        let problems = node_row(&peer).problems.join("\n");
        for (kind, told) in [
            ("Ready", false),
            ("Applied", true),
            ("ForwardDropped", true),
            ("PlanMissing", true),
            ("RevisionRefused", false),
        ] {
            assert_eq!(problems.contains(kind), told, "{kind}: {problems}");
        }
    }

    #[test]
    fn a_link_without_status_asks_for_the_operator() {
        let row = link_row(&ClusterLink::new(
            "acme",
            tieline_crds::ClusterLinkSpec::default(),
        ));
        assert!(!row.ready);
        let status = Status {
            links: vec![row],
            ..Status::default()
        };
        assert!(
            text(&status).contains("is the operator running?"),
            "{}",
            text(&status)
        );
    }
}
