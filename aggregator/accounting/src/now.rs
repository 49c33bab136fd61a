//! One instant, as a value. Code that computes metrics receives it as a parameter; only the aggregator's `clock` reads the system time.
use std::time::Duration;

/// One instant, by two clocks. Ages are differences of `since_start`, which never jumps; `unix_ms` is for comparison with time stamps that
/// others wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Time since a fixed point before this process began to serve.
    pub since_start: Duration,
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

impl Now {
    /// How long ago `earlier` was; zero if it lies in the future.
    pub fn since(self, earlier: Now) -> Duration {
        self.since_start.saturating_sub(earlier.since_start)
    }
}
