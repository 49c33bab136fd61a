//! How long to wait after a failure. It owns no clock: it only says how long.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Exponential back-off with full jitter: a random time up to a bound that doubles with each failure.
///
/// Full jitter, because after an aggregator's restart every agent of the cluster fails at the same instant.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// The first wait is at most `first`, no wait is longer than `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// How long to wait after one more failure.
    pub(super) fn after_failure(&mut self) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        // The standard library seeds each state anew: random enough to spread agents, at the price of no dependency.
        let random = RandomState::new().hash_one(self.failures);
        bound.mul_f64(random as f64 / u64::MAX as f64)
    }

    /// Start anew.
    pub(super) fn after_success(&mut self) {
        self.failures = 0;
    }

    fn bound(&self) -> Duration {
        let factor = 2_u32.checked_pow(self.failures).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_most_and_starts_anew_after_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for expected in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(backoff.bound(), Duration::from_secs(expected));
            assert!(backoff.after_failure() <= Duration::from_secs(expected));
        }
        backoff.failures = u32::MAX;
        assert!(backoff.after_failure() <= Duration::from_secs(30));
        backoff.after_success();
        assert_eq!(backoff.bound(), Duration::from_secs(1));
    }

    #[test]
    fn two_agents_that_fail_together_do_not_come_back_together() {
        let wait = || Backoff::new(Duration::from_secs(1), Duration::from_secs(30)).after_failure();
        assert_ne!(wait(), wait());
    }
}
