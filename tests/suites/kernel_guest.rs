//! The same agent on a stock kernel with WireGuard: Debian's, in a QEMU guest. API server and operator run outside.
//!
//! One program, three parts: the suite, which boots the guest and tells tests by what it reports; the guest's test, which
//! holds two sites (`kernel_guest/scenarios.rs`); and the pipe that QEMU starts for each of the guest's connections.
#![allow(clippy::unwrap_used)]

#[path = "support/hearing.rs"]
mod hearing;
#[path = "kernel_guest/losses.rs"]
mod losses;
#[path = "kernel_guest/outside.rs"]
mod outside;
#[path = "kernel_guest/scenarios.rs"]
mod scenarios;

use e2e::guest::{self, DEMANDS};
use e2e::lab::{Demands, Lifetime, enter_for};
use libtest_mimic::{Arguments, Trial};
use outside::PIPE;

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
    let wanted: Vec<&'static str> = scenarios::names()
        .filter(|name| is_wanted(&arguments, name))
        .collect();
    let trials = scenarios::names().map(|name| {
        let wanted = wanted.clone();
        Trial::test(name, move || {
            outside::outcome(name, &wanted).map_err(|error| format!("{error:#}").into())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    outside::end();
    conclusion.exit();
}

/// As libtest-mimic filters.
fn is_wanted(arguments: &Arguments, name: &str) -> bool {
    let fits = |filter: &str| {
        if arguments.exact {
            name == filter
        } else {
            name.contains(filter)
        }
    };
    arguments.filter.as_deref().is_none_or(fits) && !arguments.skip.iter().any(|skip| fits(skip))
}
