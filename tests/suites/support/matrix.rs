//! Which cases are the everyday test and which only the whole matrix.
//!
//! `make test` runs what a change can break; `make test-all` runs every case. A case is the matrix's alone where it is a longer
//! soak of what a shorter case shows every day, or one more combination of what another case shows. `CONTRIBUTING.md` lists them,
//! and `make lint` compares.

use libtest_mimic::Trial;

/// The word that suites print before the name of such a case. `tests/run` looks for it.
const WORD: &str = "matrix";

/// A case that only `make test-all` runs. Every day it is printed as ignored, and counted as such.
pub(crate) fn matrix(case: Trial) -> Trial {
    case.with_kind(WORD).with_ignored_flag(true)
}
