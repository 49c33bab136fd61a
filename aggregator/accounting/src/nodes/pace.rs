//! How often a node may report. Owns the token bucket of one node; reads no clock.
use std::time::Duration;

use crate::now::Now;

/// Average time between two reports. An agent sends at most ten reports a second (`--interval 100ms`), and as many retries.
const EVERY: Duration = Duration::from_millis(50);
/// How many reports a node may send at once after a silence: two seconds' worth, for an agent that retries while another replaces it.
pub const AT_ONCE: u32 = 40;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the bucket will be full again, on the clock of [`Now::since_start`].
    full: Duration,
}

impl Pace {
    /// Whether the node may report now; if so, this counts as one report.
    pub(super) fn admits(&mut self, now: Now) -> bool {
        let now = now.since_start;
        let full = self.full.max(now) + EVERY;
        let admitted = full <= now + EVERY * AT_ONCE;
        if admitted {
            self.full = full;
        }
        admitted
    }

    /// Whether the node may send [`AT_ONCE`] reports again, so that it need not be remembered. True two seconds after the last report at
    /// the latest.
    pub(super) fn is_full(&self, now: Now) -> bool {
        self.full <= now.since_start
    }
}
