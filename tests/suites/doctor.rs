//! `tieline doctor`, `tieline gather` and `tieline withdraw`, the programs as they are built, against a real API server.
//!
//! One control plane on loopback, which is changed from test to test: they run in the order that they stand in.

#[path = "doctor/bundle.rs"]
mod bundle;
#[path = "doctor/diagnosis.rs"]
mod diagnosis;
#[path = "doctor/support.rs"]
mod support;
#[path = "doctor/withdraw.rs"]
mod withdraw;

use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use std::sync::Arc;
use support::Stage;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    // Without the control plane's programs every test fails with the command that builds them: a skipped test looks like a
    // passed one.
    let started = if arguments.list {
        Err("not started for a list".to_owned())
    } else {
        Stage::start()
            .map_err(|failure| format!("the API server could not be prepared: {failure:#}"))
    };
    let stage = Arc::new(started);
    let trials = diagnosis::tests()
        .into_iter()
        .chain(bundle::tests())
        .chain(withdraw::tests())
        .map(|(sentence, test)| {
            let stage = Arc::clone(&stage);
            Trial::test(sentence, move || match stage.as_ref() {
                Ok(stage) => test(stage).map_err(|failure| Failed::from(format!("{failure:#}"))),
                Err(failure) => Err(Failed::from(failure.clone())),
            })
        });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(stage);
    conclusion.exit_code()
}
