//! One instant, as a value. Whoever makes figures is handed one; asking the system what time it is is the aggregator's `clock`.
use std::time::Duration;

/// One instant, by both clocks: ages are differences of `since_start`, which never jumps; `unix_ms` is for comparing
/// with time stamps that others wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Time since some fixed point before this process began to serve.
    pub since_start: Duration,
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

impl Now {
    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Now) -> Duration {
        self.since_start.saturating_sub(earlier.since_start)
    }
}
