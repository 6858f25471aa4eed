//! Who may do what, as the API server's authorizer says.

use super::install::is_installed;
use super::{Facts, Finding};
use crate::doctor::rights::{AGENT_MUST_NOT, Access, Who, actions};
use tieline_core::plan::listed;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut all = vec![caller(facts)];
    // Before the installation nobody has been given anything.
    if is_installed(facts) {
        all.extend(account(facts, Who::Operator, "tieline-operator"));
        all.extend(account(facts, Who::Agent, "tieline-agent"));
    }
    all
}

fn of(facts: &Facts, who: Who) -> Vec<&Access> {
    facts.access.iter().filter(|one| one.who == who).collect()
}

fn caller(facts: &Facts) -> Finding {
    const ID: &str = "your-permissions";
    let answers = of(facts, Who::Caller);
    if let Some(why) = answers.iter().find_map(|one| one.allowed.as_ref().err()) {
        return Finding::unread(ID, format!("cannot ask what you may do: {why}"))
            .todo("run this with a credential that may create selfsubjectaccessreviews, as everybody may by default");
    }
    let denied: Vec<String> = answers
        .iter()
        .filter(|one| one.allowed == Ok(false))
        .map(|one| one.action.to_string())
        .collect();
    if denied.is_empty() {
        return Finding::ok(
            ID,
            "you may read what this program looks at, and create ClusterLinks",
        );
    }
    Finding::warning(ID, format!("you may not: {}", listed(denied)))
        .todo("ask an administrator for these, or to run the commands that need them")
}

fn account(facts: &Facts, who: Who, name: &str) -> Vec<Finding> {
    const ID: &str = "permissions";
    let place = format!("ServiceAccount {name}");
    let answers = of(facts, who);
    if answers.is_empty() {
        return Vec::new();
    }
    if let Some(why) = answers.iter().find_map(|one| one.allowed.as_ref().err()) {
        return vec![
            Finding::unread(ID, format!("cannot ask what it may do: {why}"))
                .at(place)
                .todo("run this with a credential that may create subjectaccessreviews, such as an administrator's"),
        ];
    }
    let must_not = actions(AGENT_MUST_NOT);
    let (forbidden, needed): (Vec<&Access>, Vec<&Access>) = answers
        .into_iter()
        .partition(|one| who == Who::Agent && must_not.contains(&one.action));
    let words = |accesses: Vec<&Access>, allowed: bool| -> Vec<String> {
        accesses
            .into_iter()
            .filter(|one| one.allowed == Ok(allowed))
            .map(|one| one.action.to_string())
            .collect()
    };
    let (lacking, excess) = (words(needed, false), words(forbidden, true));
    let mut all = Vec::new();
    if !lacking.is_empty() {
        all.push(
            Finding::problem(ID, format!("it may not, and must: {}", listed(lacking)))
                .at(place.clone())
                .todo("apply the chart's roles and bindings again: helm upgrade …"),
        );
    }
    if !excess.is_empty() {
        all.push(
            Finding::problem(
                ID,
                format!(
                    "it may, and must not: {}. Every node's agent has this credential",
                    listed(excess)
                ),
            )
            .at(place.clone())
            .todo("find the binding that grants it and remove the agent from it: kubectl get rolebindings,clusterrolebindings -A -o wide"),
        );
    }
    if all.is_empty() {
        all.push(Finding::ok(ID, "it may what it needs").at(place));
    }
    all
}
