//! What the eBPF programs did and cost, as families of one sample's values. Pure.

use mcad_wire::abi::RUN_QUEUE_FIRST_BUCKET_NS;
use prometheus::proto::{Bucket, Histogram, MetricFamily};

use super::families;
use crate::sample::{ProbeCost, Removals, RunQueueCost};

/// All families. Those of the program at task switches only if it is loaded.
pub(super) fn families(cost: &ProbeCost) -> Vec<MetricFamily> {
    let mut all = vec![
        families::WALK_SECONDS.series([], seconds(cost.walk_ns)),
        families::FLUSH_SECONDS.series([], seconds(cost.flush_ns)),
    ];
    if let Some(run_queue) = &cost.run_queue {
        all.extend(of_run_queue(run_queue));
    }
    all
}

/// Counts of the program that runs when cgroups are removed. Its ring is bounded, and records that do not fit are
/// counted.
pub(super) fn of_removals(removals: &Removals) -> Vec<MetricFamily> {
    vec![
        families::CGROUPS_REMOVED.series([], removals.seen as f64),
        families::REMOVALS_TOLD.series([], removals.told as f64),
        families::REMOVALS_DROPPED.series([], removals.dropped as f64),
    ]
}

fn of_run_queue(cost: &RunQueueCost) -> Vec<MetricFamily> {
    let values = [
        (&families::RUN_QUEUE_PAUSED, f64::from(u8::from(cost.paused))),
        (&families::SWITCHES, cost.switches as f64),
        (&families::SWITCHES_TIMED, cost.timed as f64),
        (&families::SWITCH_SECONDS, seconds(cost.timed_ns)),
        (&families::SWITCH_MISMATCHES, cost.mismatches as f64),
        (&families::SWITCHES_UNKNOWN, cost.unknown as f64),
        (&families::WAITS_DROPPED, cost.dropped.waits as f64),
        (&families::WAITS_UNPLACED, cost.unplaced.waits as f64),
    ];
    let all = values.into_iter().map(|(family, value)| family.series([], value));
    all.chain([histogram(cost)]).collect()
}

/// Waits of the whole machine. The program counts each bucket separately; Prometheus' buckets are cumulative.
fn histogram(cost: &RunQueueCost) -> MetricFamily {
    let mut below = 0;
    let mut limit_ns = RUN_QUEUE_FIRST_BUCKET_NS;
    let mut buckets = Vec::with_capacity(cost.histogram.len());
    // The last bucket has no upper bound: it is the total count.
    for count in cost.histogram.iter().take(cost.histogram.len().saturating_sub(1)) {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(seconds(limit_ns));
        bucket.set_cumulative_count(below);
        buckets.push(bucket);
        limit_ns *= 2;
    }
    let mut histogram = Histogram::default();
    histogram.set_sample_count(cost.all.waits);
    histogram.set_sample_sum(seconds(cost.all.wait_ns));
    histogram.set_bucket(buckets);
    families::RUN_QUEUE_WAIT_SECONDS.histogram(histogram)
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder as _, TextEncoder};

    use super::*;
    use crate::sample::RunQueue;

    fn text(cost: &ProbeCost) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&families(cost), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn buckets_hold_all_below_them_and_the_last_has_no_limit() {
        let run_queue = RunQueueCost {
            all: RunQueue { wait_ns: 3_000_000_000, waits: 6 },
            histogram: vec![1, 2, 0, 3],
            ..RunQueueCost::default()
        };
        let text = text(&ProbeCost { run_queue: Some(run_queue), ..ProbeCost::default() });
        let lines: Vec<&str> =
            text.lines().filter(|line| line.starts_with("mcad_agent_run_queue_wait_seconds")).collect();
        assert_eq!(
            lines,
            [
                "mcad_agent_run_queue_wait_seconds_bucket{le=\"0.000008192\"} 1",
                "mcad_agent_run_queue_wait_seconds_bucket{le=\"0.000016384\"} 3",
                "mcad_agent_run_queue_wait_seconds_bucket{le=\"0.000032768\"} 3",
                "mcad_agent_run_queue_wait_seconds_bucket{le=\"+Inf\"} 6",
                "mcad_agent_run_queue_wait_seconds_sum 3",
                "mcad_agent_run_queue_wait_seconds_count 6",
            ]
        );
    }

    #[test]
    fn removals_that_were_dropped_are_told() {
        let removals = Removals { seen: 9, told: 5, dropped: 2, ..Removals::default() };
        let mut text = Vec::new();
        TextEncoder::new().encode(&of_removals(&removals), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            "mcad_agent_cgroups_removed_total 9",
            "mcad_agent_cgroup_removals_told_total 5",
            "mcad_agent_cgroup_removals_dropped_total 2",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_program_that_is_not_loaded_has_no_line() {
        let text = text(&ProbeCost { walk_ns: 1500, flush_ns: 2000, run_queue: None });
        assert!(text.contains("mcad_agent_walk_seconds 0.0000015\n"), "{text}");
        assert!(!text.contains("switch") && !text.contains("run_queue"), "{text}");
    }
}
