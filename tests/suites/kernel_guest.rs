//! The same agent on a stock kernel with WireGuard: Debian's, in a QEMU guest. API server and operator run outside.
//!
//! One program, three parts: the suite, which boots the guest and tells tests by what it reports; the guest's test, which
//! holds two sites (`kernel_guest/scenarios.rs`); and the pipe that QEMU starts for each of the guest's connections.
#![allow(clippy::unwrap_used)]

#[path = "support/hearing.rs"]
mod hearing;
#[path = "kernel_guest/losses.rs"]
mod losses;
#[path = "support/matrix.rs"]
mod matrix;
#[path = "kernel_guest/outside.rs"]
mod outside;
#[path = "kernel_guest/scenarios.rs"]
mod scenarios;

use e2e::guest::{self, DEMANDS};
use e2e::lab::{Demands, Lifetime, enter_for};
use libtest_mimic::{Arguments, Trial};
use matrix::matrix;
use outside::PIPE;
use scenarios::When;

fn main() {
    if let Ok(target) = std::env::var(PIPE) {
        return guest::pipe(target.parse().unwrap()).unwrap();
    }
    if guest::inside::is_guest() {
        return scenarios::run();
    }
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        enter_for(
            Lifetime::WithParent,
            &Demands {
                root: false,
                commands: DEMANDS,
            },
        );
    }
    // One guest, whose scenarios follow each other.
    arguments.test_threads = Some(1);
    let cases = || scenarios::all().map(|it| (it.name, it.when));
    let wanted: Vec<&'static str> = cases()
        .filter(|(name, when)| is_wanted(&arguments, name, *when))
        .map(|(name, _)| name)
        .collect();
    let trials = cases().map(|(name, when)| {
        let wanted = wanted.clone();
        let outcome =
            move || outside::outcome(name, &wanted).map_err(|error| format!("{error:#}").into());
        marked(Trial::test(name, outcome), when)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    outside::end();
    conclusion.exit();
}

fn marked(case: Trial, when: When) -> Trial {
    match when {
        When::EveryDay => case,
        When::Matrix => matrix(case),
    }
}

/// Whether the guest has to play this: it is told before it boots.
fn is_wanted(arguments: &Arguments, name: &str, when: When) -> bool {
    let case = marked(Trial::test(name, || Ok(())), when);
    !arguments.is_filtered_out(&case) && !arguments.is_ignored(&case)
}
