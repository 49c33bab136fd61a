//! What the kernel half did and cost, as families of one sample's values. Pure.

use mcad_wire::abi::RUN_QUEUE_FIRST_BUCKET_NS;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, Metric, MetricFamily, MetricType};

use crate::sample::{ProbeCost, Removals, RunQueueCost};

/// All families; those of the program at the switch of tasks only where it is loaded.
pub(super) fn families(cost: &ProbeCost) -> Vec<MetricFamily> {
    let mut families = vec![
        gauge(
            "mcad_agent_walk_seconds",
            "Time of the latest walk over the cgroups, in the kernel.",
            seconds(cost.walk_ns),
        ),
        gauge("mcad_agent_flush_seconds", "Time of the flush before it.", seconds(cost.flush_ns)),
    ];
    if let Some(run_queue) = &cost.run_queue {
        families.extend(of_run_queue(run_queue));
    }
    families
}

/// What the program at the removal of cgroups saw; its ring is bounded, and what found no room is told.
pub(super) fn of_removals(removals: &Removals) -> Vec<MetricFamily> {
    vec![
        counter("mcad_agent_cgroups_removed_total", "Cgroups that were removed, of pods or not.", removals.seen as f64),
        counter(
            "mcad_agent_cgroup_removals_told_total",
            "Cgroups of pods that told at their removal what they had used.",
            removals.told as f64,
        ),
        counter(
            "mcad_agent_cgroup_removals_dropped_total",
            "Cgroups whose removal found no room in the ring or could not be read: the totals of their pods are lower bounds.",
            removals.dropped as f64,
        ),
    ]
}

fn of_run_queue(cost: &RunQueueCost) -> Vec<MetricFamily> {
    let paused = if cost.paused { 1.0 } else { 0.0 };
    vec![
        gauge("mcad_agent_run_queue_paused", "1 while waits are not measured because that costs too much.", paused),
        counter("mcad_agent_switches_total", "Switches of tasks that the program saw.", cost.switches as f64),
        counter("mcad_agent_switches_timed_total", "Switches at which the program timed itself.", cost.timed as f64),
        counter(
            "mcad_agent_switch_seconds_total",
            "Time that the program took at the switches it timed, two readings of the clock included.",
            seconds(cost.timed_ns),
        ),
        counter(
            "mcad_agent_switch_mismatches_total",
            "Switches in which another task left the processor than the one that had got it.",
            cost.mismatches as f64,
        ),
        counter(
            "mcad_agent_switches_unknown_total",
            "Switches in which it was not known what the task that left had waited before.",
            cost.unknown as f64,
        ),
        counter(
            "mcad_agent_run_queue_waits_dropped_total",
            "Waits whose cgroup found no place in the maps.",
            cost.dropped.waits as f64,
        ),
        counter(
            "mcad_agent_run_queue_waits_unplaced_total",
            "Waits of cgroups that came and went between two samples.",
            cost.unplaced.waits as f64,
        ),
        histogram(cost),
    ]
}

/// Waits of the whole machine. The program's buckets are counts of their own; Prometheus' hold all below them.
fn histogram(cost: &RunQueueCost) -> MetricFamily {
    let mut below = 0;
    let mut limit_ns = RUN_QUEUE_FIRST_BUCKET_NS;
    let mut buckets = Vec::with_capacity(cost.histogram.len());
    // The last bucket has no upper limit: it is the count of all.
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
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    let help = "Times that tasks of this machine waited for a processor.";
    family("mcad_agent_run_queue_wait_seconds", help, MetricType::HISTOGRAM, metric)
}

fn gauge(name: &str, help: &str, value: f64) -> MetricFamily {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::default();
    metric.set_gauge(gauge);
    family(name, help, MetricType::GAUGE, metric)
}

fn counter(name: &str, help: &str, value: f64) -> MetricFamily {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::default();
    metric.set_counter(counter);
    family(name, help, MetricType::COUNTER, metric)
}

fn family(name: &str, help: &str, kind: MetricType, metric: Metric) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
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
