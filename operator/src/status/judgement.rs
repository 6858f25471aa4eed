//! Conditions, which all statuses are made of: their texts are bounded, and the time of one that keeps its status is kept.

use crate::decided::Decided;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tieline_core::notice::Kind;
use tieline_crds::Condition;
use tieline_crds::condition::{ConditionReason, ObjectCondition, Standing};

/// One condition before it has a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) kind: ObjectCondition,
    pub(super) holds: Option<bool>,
    pub(super) reason: ConditionReason,
    pub(super) message: String,
}

impl Judgement {
    pub(super) fn new(
        kind: ObjectCondition,
        holds: bool,
        reason: impl Into<ConditionReason>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            holds: Some(holds),
            reason: reason.into(),
            message: message.into(),
        }
    }

    pub(super) fn unknown(
        kind: ObjectCondition,
        reason: impl Into<ConditionReason>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            holds: None,
            reason: reason.into(),
            message: message.into(),
        }
    }

    pub(super) fn holds(&self) -> bool {
        self.holds == Some(true)
    }
}

/// Conditions of an object: the time of one that keeps its status is kept.
pub(super) fn conditions(
    held: &[Condition],
    judgements: Vec<Judgement>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    judgements
        .into_iter()
        .map(|judgement| {
            let status = match judgement.holds {
                Some(true) => "True",
                Some(false) => "False",
                None => "Unknown",
            };
            let before = judgement.kind.of(held).filter(|it| it.status == status);
            Condition {
                type_: judgement.kind.as_str().to_owned(),
                status: status.to_owned(),
                reason: judgement.reason.as_str().to_owned(),
                message: clipped(judgement.message, 32_000),
                observed_generation: generation,
                // The API keeps whole seconds: more would look like a change at every pass.
                last_transition_time: before.map_or_else(
                    || Time(whole_seconds(now)),
                    |it| it.last_transition_time.clone(),
                ),
            }
        })
        .collect()
}

fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// A number as statuses hold it.
pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A text of at most `limit` bytes.
pub(super) fn clipped(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let mut end = limit - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Accepted, for an object that is or is not readable.
pub(super) fn accepted(kind: Kind, name: &str, decided: &Decided) -> Judgement {
    let no = |reason, message| Judgement::new(ObjectCondition::Accepted, false, reason, message);
    if let Some(unread) = decided.objections.unread(kind, name) {
        return no(unread.reason, unread.message.clone());
    }
    let refusals = decided.objections.refusals(kind, name);
    match refusals.first() {
        None => Judgement::new(
            ObjectCondition::Accepted,
            true,
            Standing::Accepted,
            "nothing to object to",
        ),
        Some(first) => {
            let mut messages: Vec<&str> = refusals.iter().map(|it| it.message.as_str()).collect();
            messages.sort_unstable();
            no(first.reason, messages.join("; "))
        }
    }
}
