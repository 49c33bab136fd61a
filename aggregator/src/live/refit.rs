//! When fit on nodes is recomputed: as soon after a change as its cost allows. Pure: reads no clock.
use std::time::Duration;

/// After a computation, this many times its duration passes before the next: it uses at most a 17th of a core. If it took
/// 50 ms, it is repeated after 800 ms, so that the fit of a new AppWrapper is shown within a second.
const REST: u32 = 16;

/// The longest rest: on a cluster where the computation takes longer, it uses more of a core.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// Reports of agents expire without an event: fit is recomputed after this time even without a change.
const ANYWAY: Duration = Duration::from_secs(30);

/// How often to check whether it is due.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// The last computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    /// The number of changes before it.
    pub(super) changes: u64,
    /// Whether the cluster was known.
    pub(super) is_known: bool,
    /// How long it took.
    pub(super) cost: Duration,
}

impl Last {
    /// Whether to recompute, given the number of changes, whether the cluster is known now, and the time since the end of this
    /// computation. As long as the cluster is not known there is no fit, so the first one is computed without a rest.
    pub(super) fn is_over(self, changes: u64, is_known: bool, since: Duration) -> bool {
        let becomes_known = is_known && !self.is_known;
        becomes_known || since >= if changes == self.changes { ANYWAY } else { rest_after(self.cost) }
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
        let last = Last { changes: 7, is_known: true, cost: Duration::from_millis(10) };
        let check = |changes, since_ms, expected| {
            assert_eq!(
                last.is_over(changes, true, Duration::from_millis(since_ms)),
                expected,
                "{changes}, {since_ms} ms"
            );
        };
        check(8, 159, false);
        check(8, 160, true);
        check(7, 160, false);
        check(7, 29_999, false);
        check(7, 30_000, true);
    }

    #[test]
    fn an_unknown_cluster_is_computed_no_more_often_and_anew_as_soon_as_it_is_known() {
        let last = Last { changes: 7, is_known: false, cost: Duration::from_millis(100) };
        for (changes, is_known, since_ms, expected) in
            [(7, false, 29_999, false), (8, false, 1_599, false), (8, false, 1_600, true), (7, true, 0, true)]
        {
            let is_over = last.is_over(changes, is_known, Duration::from_millis(since_ms));
            assert_eq!(is_over, expected, "{changes}, {is_known}, {since_ms} ms");
        }
    }
}
