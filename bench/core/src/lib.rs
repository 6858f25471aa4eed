//! What the programs of this package share: the inputs that they measure on, and how a sample is printed.
//!
//! `../../baseline` measures the same against another commit. Both print the same lines under the same names, and a `work` that says
//! what came out: only equal work is compared.

pub mod fleet;
pub mod network;

use serde_json::json;
use std::time::{Duration, Instant};

/// Measured calls of each kind in one process. The bench starts the process several times, in turn with its rival.
pub const SAMPLES: usize = 3;

/// Runs `measured` once and prints how long it took. Its result is dropped after the clock has stopped.
pub fn sample<T>(what: &str, work: &str, measured: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = std::hint::black_box(measured());
    print_time(what, work, start.elapsed());
    result
}

/// Prints a time in seconds.
pub fn print_time(what: &str, work: &str, time: Duration) {
    print(what, work, time.as_secs_f64(), "s");
}

/// Prints one sample.
#[allow(clippy::print_stdout)]
pub fn print(what: &str, work: &str, value: f64, unit: &str) {
    println!(
        "{}",
        json!({"what": what, "value": value, "unit": unit, "work": work})
    );
}
