//! When fit on nodes is worked out anew: as soon after a change as what it costs allows. Pure: knows no clock.
use std::time::Duration;

/// After each time, so many times as long as it took nothing is worked out: it takes one part in 17 of a core at most. What took
/// 50 ms is worked out again after 800 ms, so that the fit of a new AppWrapper is shown within a second.
const REST: u32 = 16;

/// The longest rest: on a cluster where it takes longer, this much of a core is given to it.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// Reports of agents cease to count with no event: also where nothing was told it is worked out anew after so long.
const ANYWAY: Duration = Duration::from_secs(30);

/// How often to look whether it is due.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// The last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    /// How much had been told before it.
    pub(super) changes: u64,
    /// How long it took.
    pub(super) cost: Duration,
}

impl Last {
    /// Whether to work it out anew, so long after the end of this one, when so much was told.
    pub(super) fn is_over(self, changes: u64, since: Duration) -> bool {
        since >= if changes == self.changes { ANYWAY } else { rest_after(self.cost) }
    }
}

fn rest_after(cost: Duration) -> Duration {
    cost.saturating_mul(REST).min(LONGEST_REST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_50_ms_is_worked_out_and_shown_again_within_a_second_of_a_change() {
        for cost_ms in 0..=50 {
            let cost = Duration::from_millis(cost_ms);
            assert!(rest_after(cost) + LOOK + cost <= Duration::from_secs(1), "{cost_ms} ms");
        }
    }

    #[test]
    fn it_takes_no_more_than_a_seventeenth_of_a_core_until_ten_seconds_are_not_enough() {
        for cost_ms in [1, 50, 100, 600] {
            let cost = Duration::from_millis(cost_ms);
            assert_eq!(rest_after(cost), cost * 16);
        }
        assert_eq!(rest_after(Duration::from_secs(2)), Duration::from_secs(10));
        assert_eq!(rest_after(Duration::MAX), Duration::from_secs(10));
    }

    #[test]
    fn nothing_is_worked_out_anew_where_nothing_was_told_but_for_the_ages_of_reports() {
        let last = Last { changes: 7, cost: Duration::from_millis(10) };
        let check = |changes, since_ms, expected| {
            assert_eq!(last.is_over(changes, Duration::from_millis(since_ms)), expected, "{changes}, {since_ms} ms");
        };
        check(8, 159, false);
        check(8, 160, true);
        check(7, 160, false);
        check(7, 29_999, false);
        check(7, 30_000, true);
    }
}
