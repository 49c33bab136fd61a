//! Waits for a condition on the node: how often it is checked, how long, and what ends the wait.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use xtask::interrupts;

/// The time between two checks.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// Checks repeatedly until there is a result, the time is up, or there is an interrupt. The last error of `look` is
/// returned at the end.
pub(super) fn until<T>(what: &str, limit_s: u64, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(limit_s);
    loop {
        let error = match look() {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        if interrupts::seen() {
            bail!("interrupted");
        }
        if Instant::now() >= deadline {
            return Err(error.context(format!("not reached within {limit_s} s: {what}")));
        }
        std::thread::sleep(PAUSE);
    }
}
