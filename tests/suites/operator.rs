//! The operator against a real API server: what it writes, what it refuses and says, and what it leaves alone. The
//! operator runs as the built program with the credential that `deploy/manifests` gives it. No agent: tests write what
//! agents would claim.
//!
//! Every test has a control plane of its own, because the operator looks at all objects of a cluster.

#[path = "operator/availability.rs"]
mod availability;
#[path = "operator/claims.rs"]
mod claims;
#[path = "operator/ledgers.rs"]
mod ledgers;
#[path = "operator/planning.rs"]
mod planning;
#[path = "operator/stage.rs"]
mod stage;
#[path = "operator/vpn.rs"]
mod vpn;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;

/// Sentences, and what proves them.
type Tests = Vec<(&'static str, fn() -> Result<()>)>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Tests wait twice as long as they compute: for Leases, for silence, for API servers that start.
    arguments.test_threads.get_or_insert(4);
    let suites: [Tests; 5] = [
        planning::tests(),
        claims::tests(),
        vpn::tests(),
        availability::tests(),
        ledgers::tests(),
    ];
    let trials = suites.into_iter().flatten().map(|(sentence, test)| {
        Trial::test(sentence, move || {
            test().map_err(|failure| Failed::from(format!("{failure:#}")))
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
