//! Status of an AddressLedger.

use super::judgement::{Judgement, conditions};
use crate::decided::Decided;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tieline_core::ledger::LedgerName;
use tieline_crds::condition::{ObjectCondition, Standing};
use tieline_crds::{AddressLedger, AddressLedgerStatus};

pub(super) fn status(
    object: &AddressLedger,
    decided: &Decided,
    now: Timestamp,
) -> AddressLedgerStatus {
    let held = object.status.clone().unwrap_or_default();
    let name = LedgerName::parse(&object.name_any());
    let frozen = name.as_ref().and_then(|name| decided.frozen.get(name));
    let disagreements: Vec<String> = decided
        .disagreements
        .iter()
        .filter(|it| name.as_ref() == Some(&it.on))
        .map(ToString::to_string)
        .collect();
    let mut lost = decided.world.lost.iter();
    let lost = lost.find(|it| name.as_ref() == Some(&it.ledger));
    let judgement = match (lost, frozen) {
        (Some(lost), _) => Judgement::new(
            ObjectCondition::Frozen,
            true,
            Standing::SliceMissing,
            lost.to_string(),
        ),
        _ if !disagreements.is_empty() => Judgement::new(
            ObjectCondition::Frozen,
            true,
            Standing::LedgersDisagree,
            disagreements.join("; "),
        ),
        (_, Some(frozen)) => Judgement::new(
            ObjectCondition::Frozen,
            true,
            Standing::RevisionBehind,
            frozen.to_string(),
        ),
        (_, None) => Judgement::new(
            ObjectCondition::Frozen,
            false,
            Standing::UpToDate,
            "nobody has seen a newer revision",
        ),
    };
    AddressLedgerStatus {
        observed_generation: object.metadata.generation,
        acknowledged_revision: Some(
            frozen
                .and_then(|frozen| frozen.ledger_seen())
                .unwrap_or(object.spec.revision),
        ),
        conditions: conditions(
            &held.conditions,
            vec![judgement],
            object.metadata.generation,
            now,
        ),
    }
}
