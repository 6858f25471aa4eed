#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::json;
use tieline_core::fleet::Fleet;
use tieline_core::ids::Lineage;
use tieline_core::ledger::{Grant, Ledger, Owner, State, Use};
use tieline_core::notice::Reason;
use tieline_core::slices::MOST_GRANTS;

#[test]
fn a_full_ledger_takes_no_newcomer_and_names_limit_and_number() {
    let name = LedgerName::parse("cluster-shop").unwrap();
    let grant = |number: usize| Grant {
        prefix: format!(
            "100.{}.{}.{}/32",
            64 + (number >> 16),
            (number >> 8) & 255,
            number & 255
        )
        .parse()
        .unwrap(),
        used_for: Use::Mesh,
        owner: Owner::Node("old".parse().unwrap()),
        state: State::Active,
    };
    let fleet = || {
        let mut fleet = Fleet::default();
        for node in ["new-1", "new-2", "old"] {
            let node: k8s_openapi::api::core::v1::Node =
                serde_json::from_value(json!({"metadata": {"name": node}})).unwrap();
            let (id, node) = convert::node(&"shop".parse().unwrap(), &node).unwrap();
            fleet.nodes.insert(id, node);
        }
        fleet
    };
    for (free, admitted) in [(7, 0), (8, 1), (15, 1), (24, 2)] {
        let ledger = Ledger {
            grants: (0..MOST_GRANTS - free).map(grant).collect(),
            ..Ledger::empty(Lineage::new("lineage1").unwrap())
        };
        let mut fleet = fleet();
        let notices = restrict(&mut fleet, &[(name.clone(), ledger.into())].into());
        assert_eq!(
            (fleet.nodes.len(), notices.len()),
            (1 + admitted, 2 - admitted)
        );
        for notice in notices {
            assert_eq!(notice.reason, Reason::LedgerFull);
            assert!(notice.about.name().starts_with("new-"));
            let expected = format!("cluster-shop holds {} grants", MOST_GRANTS - free);
            assert!(notice.message.contains(&expected), "{}", notice.message);
        }
    }
}
