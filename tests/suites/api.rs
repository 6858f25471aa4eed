//! Tests against a real API server: what it accepts, refuses and says. No agent, no packet.
//!
//! One control plane on loopback serves all tests of this file, with the definitions of `crds/yaml` and the manifests of
//! `deploy/manifests` applied; tests use names of their own. A module of `api/` returns its tests as a list of sentences and functions.

#[path = "api/admission.rs"]
mod admission;
#[path = "api/availability.rs"]
mod availability;
#[path = "api/credentials.rs"]
mod credentials;
#[path = "api/definitions.rs"]
mod definitions;
#[path = "api/support.rs"]
mod support;

use std::{process::ExitCode, sync::Arc};

use libtest_mimic::{Arguments, Failed, Trial};
use support::Tests;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let suites: [Tests; 4] = [
        definitions::tests(),
        credentials::tests(),
        admission::tests(),
        availability::tests(),
    ];

    // Listing needs no API server. Without the control plane's programs every test fails with the command that builds them:
    // a skipped test looks like a passed one.
    let started = if arguments.list {
        Err("not started for a list".to_owned())
    } else {
        support::start()
    };
    let control_plane = Arc::new(started);
    let trials = suites.into_iter().flatten().map(|(sentence, test)| {
        let control_plane = Arc::clone(&control_plane);
        Trial::test(sentence, move || match control_plane.as_ref() {
            Ok(control_plane) => {
                test(control_plane).map_err(|failure| Failed::from(format!("{failure:#}")))
            }
            Err(failure) => Err(Failed::from(failure.clone())),
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // `exit_code` and not `exit`: the control plane ends with its last owner, here.
    drop(control_plane);
    conclusion.exit_code()
}
