//! Waiting: what is not there yet is looked for again and again, and who waited in vain says for what, and why not.

use anyhow::Result;
use std::time::{Duration, Instant};

/// Looks every 20 ms until `look` succeeds.
///
/// # Errors
/// Not within `patience`: what was waited for, and the last reason why not.
pub fn eventually<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<T>,
) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > end => {
                return Err(error.context(format!("waited {patience:?} for {what}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
