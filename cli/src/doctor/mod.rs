//! `tieline doctor`: a read-only look before an installation, and a diagnosis after it.
//!
//! ```text
//!  API server ──collect (IO)──► Facts ──check (pure)──► Findings ──► table or JSON, exit code
//! ```
//!
//! Nothing is changed anywhere. What only a node knows is what its agent publishes; nothing here reaches for a node.

mod checks;
mod collect;
mod facts;
mod reading;
mod rights;

use crate::connect::{Connection, client};
use crate::table::table;
use anyhow::Result;
use serde::Serialize;

pub(crate) use checks::Finding;
use checks::Severity;
pub(crate) use collect::{bounded, mesh_namespace, pages, plain};

/// Flags of `tieline doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub connection: Connection,
    /// How to print.
    #[arg(long, short, default_value = "table")]
    pub output: crate::status::StatusOutput,
}

/// What `-o json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Diagnosis {
    /// How many findings there are of each severity.
    pub problems: usize,
    /// As above.
    pub warnings: usize,
    /// What could not be looked at.
    pub unknown: usize,
    /// The worst first.
    pub findings: Vec<Finding>,
}

/// Looks.
///
/// # Errors
/// There is no credential, or the API server does not answer: nothing could be looked at.
pub(crate) async fn examine(args: &DoctorArgs, version: &str) -> Result<Diagnosis> {
    let client = client(&args.connection).await?;
    diagnose(&client, &args.connection.namespace, version).await
}

/// Looks, with a client.
///
/// # Errors
/// The API server does not answer.
pub(crate) async fn diagnose(
    client: &kube::Client,
    namespace: &str,
    version: &str,
) -> Result<Diagnosis> {
    let facts = collect::collect(client, namespace, version).await?;
    Ok(Diagnosis::new(checks::check(&facts)))
}

impl Diagnosis {
    fn new(findings: Vec<Finding>) -> Self {
        let count = |severity| findings.iter().filter(|it| it.severity == severity).count();
        Self {
            problems: count(Severity::Problem),
            warnings: count(Severity::Warning),
            unknown: count(Severity::Unknown),
            findings,
        }
    }

    /// 0: no problem; 1: problems; 2: no problem was found, and something could not be looked at.
    #[must_use]
    pub(crate) fn exit_code(&self) -> u8 {
        if self.problems > 0 {
            1
        } else if self.findings.iter().any(|it| it.unread) {
            2
        } else {
            0
        }
    }
}

/// The findings as a table, for people: what to do stands under each line.
#[must_use]
pub(crate) fn text(diagnosis: &Diagnosis) -> String {
    let rows: Vec<Vec<String>> = diagnosis
        .findings
        .iter()
        .map(|it| {
            let severity = match it.severity {
                Severity::Problem => "PROBLEM",
                Severity::Warning => "warning",
                Severity::Unknown => "unknown",
                Severity::Ok => "ok",
            };
            let place = if it.place.is_empty() { "-" } else { &it.place };
            vec![
                severity.to_owned(),
                it.id.to_owned(),
                place.to_owned(),
                it.message.clone(),
            ]
        })
        .collect();
    let lines = table(&["RESULT", "CHECK", "WHERE", "FOUND"], &rows);
    let mut text = String::new();
    let actions = std::iter::once("").chain(diagnosis.findings.iter().map(|it| it.action.as_str()));
    for (line, action) in lines.lines().zip(actions) {
        text.push_str(line);
        text.push('\n');
        if !action.is_empty() {
            text.push_str(&format!("         do: {action}\n"));
        }
    }
    let Diagnosis {
        problems,
        warnings,
        unknown,
        ..
    } = diagnosis;
    text.push_str(&format!(
        "\n{problems} problems, {warnings} warnings, {unknown} unknown\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_looked_at_has_a_code_of_its_own() {
        let ok = || Finding::ok("a", "fine");
        let code = |more: Vec<Finding>| {
            let findings = std::iter::once(ok()).chain(more).collect();
            Diagnosis::new(findings).exit_code()
        };
        assert_eq!(code(vec![Finding::unknown("cni", "not recognised")]), 0);
        assert_eq!(code(vec![Finding::unread("permissions", "forbidden")]), 2);
        assert_eq!(
            code(vec![
                Finding::unread("permissions", "forbidden"),
                Finding::problem("b", "wrong")
            ]),
            1
        );
    }
}
