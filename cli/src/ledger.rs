//! `tieline ledger accept-restore`: the administrator's word that a ledger which came back from a backup is to be gone on from.
//!
//! It writes one annotation on each AddressLedger, with the highest revision that anybody has seen of it. The operator does the
//! rest: it raises the ledger above that revision, records what the other ledgers hold, and gives new grants again.

use crate::connect::{Connection, client};
use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use std::collections::BTreeSet;
use tieline_crds::address_ledger::ACCEPT_RESTORE;
use tieline_crds::condition::ObjectCondition;
use tieline_crds::{AddressLedger, Cluster, Peer};

/// What `tieline ledger` does.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum LedgerCommand {
    /// Go on from ledgers that were restored from a backup or edited by hand.
    #[command(
        after_help = "What was granted after the backup is unknown to a restored ledger, so the operator gives no new grants until you say this\n(condition Frozen). Say it when the nodes that joined after the backup are back as Peers, or gone for good.\n\nWithout --yes nothing is written.\n\nExit code: 0 nothing is frozen, or it was accepted; 1 not.\n\nExamples:\n  tieline ledger accept-restore             which ledgers wait, and why\n  tieline ledger accept-restore --yes       go on from all of them\n  tieline ledger accept-restore hub --yes"
    )]
    AcceptRestore(AcceptRestoreArgs),
}

/// Flags of `tieline ledger accept-restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct AcceptRestoreArgs {
    #[command(flatten)]
    pub connection: Connection,
    /// Names of AddressLedgers: hub, or cluster-NAME. Without any, all that are frozen.
    pub ledgers: Vec<String>,
    /// Really do it.
    #[arg(long)]
    pub yes: bool,
}

/// Accepts, and says what in one line a ledger.
///
/// # Errors
/// A ledger of that name does not exist or is not frozen, `--yes` is missing, or a request was refused.
pub(crate) async fn accept_restore(args: &AcceptRestoreArgs) -> Result<()> {
    let client = client(&args.connection).await?;
    let namespace = args.connection.namespace.as_str();
    let all = ListParams::default();
    let api: Api<AddressLedger> = Api::all(client.clone());
    let ledgers = api
        .list(&all)
        .await
        .context("cannot list addressledgers.tieline.dev")?
        .items;
    let clusters = Api::<Cluster>::all(client.clone()).list(&all).await;
    let clusters = clusters.context("cannot list clusters.tieline.dev")?.items;
    let peers = Api::<Peer>::namespaced(client, namespace).list(&all).await;
    let peers = peers
        .with_context(|| format!("cannot list peers.tieline.dev in {namespace}"))?
        .items;

    let chosen = choose(&ledgers, &args.ledgers)?;
    if chosen.is_empty() {
        println!("no ledger is frozen: there is nothing to accept");
        return Ok(());
    }
    for ledger in &chosen {
        let why = frozen(ledger).unwrap_or_default();
        println!("AddressLedger {}: {why}", ledger.name_any());
    }
    ensure!(
        args.yes,
        "nothing was written: say --yes to go on from what these ledgers hold"
    );
    for ledger in chosen {
        let (name, revision) = (ledger.name_any(), highest(ledger, &clusters, &peers));
        let patch = json!({"metadata": {"annotations": {ACCEPT_RESTORE: revision.to_string()}}});
        api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .with_context(|| format!("cannot annotate AddressLedger {name}"))?;
        println!("AddressLedger {name}: accepted up to revision {revision}");
    }
    Ok(())
}

/// The ledgers that were named, or those that are frozen.
fn choose<'a>(ledgers: &'a [AddressLedger], names: &[String]) -> Result<Vec<&'a AddressLedger>> {
    let known: BTreeSet<String> = ledgers.iter().map(ResourceExt::name_any).collect();
    for name in names {
        ensure!(
            known.contains(name),
            "there is no AddressLedger {name}; there are: {}",
            known.iter().cloned().collect::<Vec<_>>().join(", ")
        );
    }
    let mut chosen = Vec::new();
    for ledger in ledgers {
        let named = names.contains(&ledger.name_any());
        match frozen(ledger) {
            Some(_) if named || names.is_empty() => chosen.push(ledger),
            None if named => anyhow::bail!(
                "AddressLedger {} is not frozen: there is nothing to accept",
                ledger.name_any()
            ),
            _ => {}
        }
    }
    Ok(chosen)
}

/// Why a ledger is frozen, when it is.
fn frozen(ledger: &AddressLedger) -> Option<&str> {
    let condition = ObjectCondition::Frozen.of(&ledger.status.as_ref()?.conditions);
    let condition = condition.filter(|it| it.status == "True")?;
    Some(&condition.message)
}

/// The highest revision that anybody has seen: the ledger itself, its status, its Cluster, and agents by their plan.
fn highest(ledger: &AddressLedger, clusters: &[Cluster], peers: &[Peer]) -> u64 {
    let told = ledger
        .status
        .as_ref()
        .and_then(|it| it.acknowledged_revision);
    let name = ledger.name_any();
    let noted = clusters
        .iter()
        .filter(|it| name == format!("cluster-{}", it.name_any()))
        .filter_map(|it| it.status.as_ref())
        .filter(|it| it.lineage.as_ref() == Some(&ledger.spec.lineage))
        .filter_map(|it| it.observed_revision);
    let applied = peers
        .iter()
        .filter_map(|it| it.status.as_ref()?.applied_revision);
    noted
        .chain(applied)
        .chain(told)
        .fold(ledger.spec.revision, u64::max)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ledger(name: &str, revision: u64, frozen: bool) -> AddressLedger {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"lineage": "lineage1", "revision": revision},
            "status": {"acknowledgedRevision": 5, "conditions": [{
                "type": "Frozen", "status": if frozen { "True" } else { "False" }, "reason": "R", "message": "because",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn without_names_the_frozen_ones_are_chosen_and_a_wrong_name_is_an_error() {
        let all = [ledger("cluster-shop", 3, true), ledger("hub", 4, false)];
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            choose(&all, &names).map(|it| {
                it.into_iter()
                    .map(ResourceExt::name_any)
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(names(&[]).unwrap(), ["cluster-shop"]);
        assert_eq!(names(&["cluster-shop"]).unwrap(), ["cluster-shop"]);
        assert!(
            names(&["hub"])
                .unwrap_err()
                .to_string()
                .contains("not frozen")
        );
        assert!(
            names(&["hob"])
                .unwrap_err()
                .to_string()
                .contains("cluster-shop, hub")
        );
    }

    #[test]
    fn the_word_names_the_highest_revision_that_anybody_has_seen() {
        let cluster = |lineage: &str| -> Cluster {
            serde_json::from_value(json!({
                "metadata": {"name": "shop"}, "spec": {"sites": {"name": "here"}},
                "status": {"lineage": lineage, "observedRevision": 9},
            }))
            .unwrap()
        };
        let peer: Peer = serde_json::from_value(json!({
            "metadata": {"name": "shop.a"},
            "spec": {"node": "a", "cluster": "shop", "site": "s", "segment": "shop.s", "planRevision": 1},
            "status": {"appliedRevision": 12},
        }))
        .unwrap();
        let shop = ledger("cluster-shop", 3, true);
        assert_eq!(highest(&shop, &[], &[]), 5);
        assert_eq!(highest(&shop, &[cluster("lineage1")], &[]), 9);
        assert_eq!(highest(&shop, &[cluster("lineage2")], &[]), 5);
        assert_eq!(
            highest(&ledger("hub", 7, true), &[cluster("lineage1")], &[]),
            7
        );
        assert_eq!(highest(&shop, &[cluster("lineage1")], &[peer]), 12);
    }
}
