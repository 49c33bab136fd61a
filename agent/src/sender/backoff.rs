//! Computes how long to wait after a failure. It does not wait itself.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Above this interval the wait does not grow with the interval: reports are few then.
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);

/// Exponential back-off with full jitter: a random time up to a bound that doubles with each failure.
///
/// Full jitter, because after a restart of the aggregator every agent of the cluster fails at the same instant.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// The first wait is at most `first`, and every wait is at most `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// The back-off for a report interval. If all agents fail, at most twice as many retry within one second as report
    /// within one second in normal operation; and no wait is so long that a node counts as silent (three intervals) for
    /// long after its aggregator is back.
    pub fn of_interval(interval: Duration) -> Self {
        let interval = interval.min(LONGEST_INTERVAL);
        Self::new(interval / 2, interval + interval / 2)
    }

    /// How long to wait after one more failure: at least this long, plus jitter, so that agents with the same minimum
    /// do not retry together.
    pub(super) fn after_failure(&mut self, at_least: Duration) -> Duration {
        // The standard library seeds each state differently, which is random enough to spread agents and needs no
        // dependency.
        let random = RandomState::new().hash_one(self.failures);
        self.wait(at_least, random as f64 / u64::MAX as f64)
    }

    /// The same with the given random number between 0 and 1.
    fn wait(&mut self, at_least: Duration, random: f64) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        at_least + bound.mul_f64(random)
    }

    /// Resets the back-off.
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
            assert_eq!(backoff.clone().wait(Duration::ZERO, 1.0), Duration::from_secs(expected));
            assert_eq!(backoff.wait(Duration::ZERO, 0.0), Duration::ZERO);
        }
        backoff.failures = u32::MAX;
        assert_eq!(backoff.wait(Duration::ZERO, 1.0), Duration::from_secs(30));
        backoff.after_success();
        assert_eq!(backoff.wait(Duration::ZERO, 1.0), Duration::from_secs(1));
    }

    #[test]
    fn what_the_aggregator_asks_for_is_waited_and_the_jitter_comes_on_top() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        assert_eq!(backoff.wait(Duration::from_secs(7), 0.0), Duration::from_secs(7));
        assert_eq!(backoff.wait(Duration::from_secs(7), 0.5), Duration::from_secs(8));
    }

    #[test]
    fn two_agents_that_fail_together_do_not_come_back_together() {
        let wait = || Backoff::new(Duration::from_secs(1), Duration::from_secs(30)).after_failure(Duration::ZERO);
        assert_ne!(wait(), wait());
    }

    /// Simulates when each of ten thousand agents tries to connect, by the rules of the ticker and the back-off,
    /// without a network.
    mod herd {
        use super::*;
        use crate::ticker::turn;

        const AGENTS: u64 = 10_000;
        const INTERVAL_MS: u64 = 10_000;
        /// How many reports an aggregator that is always available receives per second.
        const STEADY: u64 = AGENTS * 1000 / INTERVAL_MS;

        /// Numbers from 0 to 1 without a pattern (xorshift).
        struct Random(u64);

        impl Random {
            fn next(&mut self) -> f64 {
                self.0 ^= self.0 << 13;
                self.0 ^= self.0 >> 7;
                self.0 ^= self.0 << 17;
                self.0 as f64 / u64::MAX as f64
            }
        }

        /// When each agent first reaches an aggregator that comes back after an outage of this length, in ms from then
        /// on. All agents have run for a while; their connections broke when the outage began.
        fn returns(outage_ms: u64) -> Vec<u64> {
            let mut random = Random(0x9E37_79B9_7F4A_7C15);
            let first = |node| {
                let mut backoff = Backoff::of_interval(Duration::from_millis(INTERVAL_MS));
                // An agent notices that the aggregator is gone when its next report is due.
                let mut at_ms = (turn(&format!("gpu-{node}")) * INTERVAL_MS as f64) as u64;
                while at_ms < outage_ms {
                    at_ms += backoff.wait(Duration::ZERO, random.next()).as_millis() as u64;
                }
                at_ms - outage_ms
            };
            (0..AGENTS).map(first).collect()
        }

        /// The largest number of agents within any second that begins at a multiple of a tenth of a second.
        fn busiest_second(at_ms: &[u64]) -> u64 {
            let mut tenths = vec![0; (at_ms.iter().max().unwrap() / 100 + 11) as usize];
            for at in at_ms {
                tenths[(at / 100) as usize] += 1;
            }
            tenths.windows(10).map(|second| second.iter().sum()).max().unwrap()
        }

        #[test]
        fn an_aggregator_that_comes_back_is_not_met_by_all_at_once() {
            for outage_s in [0, 1, 3, 10, 30, 60, 600] {
                let returns = returns(outage_s * 1000);
                let busiest = busiest_second(&returns);
                let last_s = returns.iter().max().unwrap() / 1000;
                eprintln!("after {outage_s} s: at most {busiest} a second, the last after {last_s} s");
                assert!(busiest <= 2 * STEADY, "after {outage_s} s: {busiest} in a second");
                assert!(last_s < 15, "after {outage_s} s: the last came after {last_s} s");
                if outage_s * 1000 >= INTERVAL_MS {
                    // All of them had failed, and take at least one interval.
                    let late = returns.iter().filter(|at| **at >= INTERVAL_MS * 9 / 10).count();
                    assert!(late > 0, "after {outage_s} s all were there within an interval");
                }
            }
        }

        #[test]
        fn agents_that_all_start_at_once_report_one_after_the_other() {
            let first: Vec<_> = (0..AGENTS)
                .map(|node| (turn(&format!("ip-10-0-{}-{}", node / 250, node % 250)) * INTERVAL_MS as f64) as u64)
                .collect();
            let busiest = busiest_second(&first);
            assert!(busiest <= STEADY * 6 / 5, "{busiest} in a second");
        }

        #[test]
        fn agents_that_are_told_to_come_back_later_do_not_come_back_together() {
            let mut random = Random(7);
            let later = Duration::from_secs(5);
            let mut backoff = Backoff { failures: 5, ..Backoff::of_interval(Duration::from_millis(INTERVAL_MS)) };
            let back: Vec<_> = (0..AGENTS).map(|_| backoff.wait(later, random.next()).as_millis() as u64).collect();
            assert!(back.iter().all(|at| (5000..=20_000).contains(at)));
            assert!(busiest_second(&back) <= STEADY, "{}", busiest_second(&back));
        }
    }
}
