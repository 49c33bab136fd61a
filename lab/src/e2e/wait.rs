//! Waiting for something on the node: how often, how long, and what ends it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use xtask::interrupts;

/// Between two looks at what is waited for.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// Looks again and again, until there is something, the time is up, or somebody interrupts. What `look` says of why there is
/// nothing yet is the error in the end.
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
            return Err(error.context(format!("within {limit_s} s: {what}")));
        }
        std::thread::sleep(PAUSE);
    }
}
