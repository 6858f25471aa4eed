#![allow(clippy::unwrap_used)]
use super::*;
use crate::world::{LastReadable, read};
use serde_json::json;
use tieline_core::plan::plan;
use tieline_crds::AddressLedger;

fn ledger(revision: u64, annotation: Option<&str>) -> AddressLedger {
    let annotations = annotation.map(|value| json!({ACCEPT: value}));
    serde_json::from_value(json!({
        "metadata": {"name": "cluster-shop", "annotations": annotations},
        "spec": {"lineage": "lineage1", "revision": revision, "grants": [
            {"prefix": "10.64.0.0/24", "use": "Pod", "owner": {"kind": "Node", "name": "old"}, "state": "Active"},
            {"prefix": "100.127.0.1/32", "use": "Mesh", "owner": {"kind": "Node", "name": "old"}, "state": "Active"},
        ]},
    }))
    .unwrap()
}

fn world(ledger: AddressLedger) -> (Index, World) {
    let mut index = Index::default();
    index.apply(ledger);
    for name in ["old", "new"] {
        index.apply::<k8s_openapi::api::core::v1::Node>(
            serde_json::from_value(json!({"metadata": {"name": name}})).unwrap(),
        );
    }
    let world = read(
        &index,
        &mut LastReadable::default(),
        &"shop".parse().unwrap(),
        &Lineage::new("freshfresh").unwrap(),
    );
    (index, world)
}

fn frozen(seen: &mut Seen, ledger: AddressLedger) -> (World, BTreeMap<LedgerName, Frozen>) {
    let (index, mut world) = world(ledger);
    let frozen = freeze(&index, &mut world, seen);
    (world, frozen)
}

#[test]
fn a_ledger_that_went_back_is_frozen_until_it_catches_up() {
    let mut seen = Seen::default();
    assert!(frozen(&mut seen, ledger(9, None)).1.is_empty());
    let (_, found) = frozen(&mut seen, ledger(4, None));
    let message = found.values().next().unwrap().to_string();
    assert!(
        message.contains("revision 4")
            && message.contains("revision 9")
            && message.contains("accept-restore=9"),
        "{message}"
    );
    assert!(frozen(&mut seen, ledger(9, None)).1.is_empty());
}

#[test]
fn only_the_revision_that_was_seen_accepts_a_restore_and_the_next_goes_above_it() {
    let mut seen = Seen::default();
    frozen(&mut seen, ledger(9, None));
    for wrong in ["4", "8", "yes", ""] {
        assert_eq!(
            frozen(&mut seen.clone(), ledger(4, Some(wrong))).1.len(),
            1,
            "{wrong:?}"
        );
    }
    let (world, found) = frozen(&mut seen, ledger(4, Some("9")));
    assert!(found.is_empty());
    assert_eq!(world.before.ledgers.values().next().unwrap().revision, 9);
}

#[test]
fn a_new_operator_knows_from_the_clusters_status_that_its_ledger_went_back() {
    let with_status = |lineage: &str| {
        let (mut index, mut world) = world(ledger(4, None));
        let cluster: tieline_crds::Cluster = serde_json::from_value(json!({
            "metadata": {"name": "shop"},
            "spec": {"sites": {"name": "here"}},
            "status": {"lineage": lineage, "observedRevision": 9},
        }))
        .unwrap();
        index.apply(cluster);
        freeze(&index, &mut world, &mut Seen::default())
    };
    let found = with_status("lineage1");
    let only = found.values().next().unwrap();
    assert_eq!((only.has, only.ledger_seen()), (4, Some(9)));
    assert!(with_status("lineage2").is_empty());
}

#[test]
fn another_lineage_is_another_history() {
    let mut seen = Seen::default();
    frozen(&mut seen, ledger(9, None));
    let mut other = ledger(1, None);
    other.spec.lineage = "lineage2".into();
    assert!(frozen(&mut seen, other).1.is_empty());
}

#[test]
fn what_a_frozen_ledger_holds_goes_on_and_what_it_lacks_waits() {
    let mut seen = Seen::default();
    frozen(&mut seen, ledger(9, None));
    let (mut world, found) = frozen(&mut seen, ledger(4, None));
    let (notices, _) = restrict(&mut world.fleet, &world.before.ledgers, &found);
    let left: Vec<&str> = world
        .fleet
        .nodes
        .keys()
        .map(|id| id.node.as_str())
        .collect();
    assert_eq!(left, ["old"]);
    assert_eq!(notices.len(), 1);
    assert_eq!(
        (notices[0].about.to_string(), notices[0].reason),
        ("Node new".to_owned(), Reason::LedgerFrozen)
    );
    // Planning on what is left is possible.
    let _ = plan(&world.fleet, &world.before);
}
