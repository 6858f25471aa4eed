//! Which conditions of our objects are good news. One answer for every command.

use tieline_crds::Condition;

/// Conditions that are good news when they are False or absent.
const BAD_WHEN_TRUE: &[&str] = &["RevisionRefused", "PlanMissing", "ForwardDropped", "Frozen"];
/// Conditions that are neither good nor bad.
const NEUTRAL: &[&str] = &["InUse"];

/// Whether a condition says that something is not as it should be.
pub(crate) fn is_bad(condition: &Condition) -> bool {
    let kind = condition.type_.as_str();
    let good = if BAD_WHEN_TRUE.contains(&kind) {
        "False"
    } else {
        "True"
    };
    !NEUTRAL.contains(&kind) && condition.status != good
}

/// A condition in words.
pub(crate) fn words(condition: &Condition) -> String {
    let Condition {
        type_,
        status,
        reason,
        message,
        ..
    } = condition;
    format!("{type_} is {status}: {reason}: {message}")
}
