//! Errors as people read them: one line from the effect to its cause.

use std::error::Error;

/// An error and everything that caused it, on one line. Some libraries repeat their cause in their own words: nothing is said twice.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use thiserror::Error;

    #[derive(Debug, Error)]
    #[error("the disk is full")]
    struct Full;

    #[derive(Debug, Error)]
    #[error("cannot write: the disk is full")]
    struct Repeats(#[source] Full);

    #[derive(Debug, Error)]
    #[error("no backup")]
    struct Effect(#[source] Repeats);

    #[test]
    fn a_cause_that_was_named_already_is_not_said_again() {
        let text = chain(&Effect(Repeats(Full)));
        assert_eq!(text, "no backup: cannot write: the disk is full");
    }
}
