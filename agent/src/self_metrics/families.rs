//! The families of the agent's own metrics. Each is declared once, here; the table in docs/metrics.md is generated from
//! here. This file has names and labels, but no values.
use std::fmt;

use prometheus::Opts;
use prometheus::proto::{Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// The fixed part of a metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Full name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The labels of its series, in alphabetical order.
    pub labels: &'static [&'static str],
    /// Unit of its values, for the documentation.
    pub unit: &'static str,
    /// The help text, one line.
    pub help: &'static str,
}

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only increases, and starts from zero with the agent.
    Counter,
    /// Buckets, a sum and a count.
    Histogram,
}

macro_rules! families {
    ($($family:ident: $kind:ident $name:literal [$($label:literal),*] $unit:literal, $help:literal;)*) => {
        $(pub(super) static $family: Family =
            Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], unit: $unit, help: $help };)*

        /// All families, in the order of docs/metrics.md.
        pub static FAMILIES: &[&Family] = &[$(&$family),*];
    };
}

families! {
    // Samples.
    TICKS: Counter "mcad_agent_ticks_total" [] "samples", "Samples taken.";
    TICKS_MISSED: Counter "mcad_agent_ticks_missed_total" [] "samples",
        "Samples that were not taken because the previous sample took longer than the interval.";
    TICK_SECONDS: Histogram "mcad_agent_tick_seconds" [] "seconds",
        "Time from the start of a sample to its encoded report.";
    TICK_CPU_SECONDS: Counter "mcad_agent_tick_cpu_seconds_total" [] "seconds",
        "CPU time spent on samples and their reports.";
    SOURCE_FAILURES: Counter "mcad_agent_source_failures_total" ["reason", "source"] "failures",
        "Failed attempts of a source to read its values.";

    // What the latest sample saw.
    CGROUPS_SEEN: Gauge "mcad_agent_cgroups_seen" ["source"] "cgroups",
        "Cgroups on the machine in the latest sample.";
    CGROUPS_DROPPED: Gauge "mcad_agent_cgroups_dropped" ["source"] "cgroups",
        "Cgroups that are missing from the latest sample because there was no room for them.";
    ENDED_PODS: Gauge "mcad_agent_ended_pods" [] "pods",
        "Pods that ended within the last hour and whose totals are reported.";
    GPUS: Gauge "mcad_agent_gpus" ["fake"] "devices", "GPUs that NVML listed in the latest sample.";
    NVML_CALLS: Gauge "mcad_agent_nvml_calls" ["fake"] "calls", "NVML calls that the latest sample took.";
    NVML_WORKER_ENDS: Counter "mcad_agent_nvml_worker_ends_total" ["reason"] "processes",
        "Processes that called NVML and ended or were killed, by reason; each is restarted.";

    // Sending.
    SENT: Counter "mcad_agent_reports_sent_total" [] "reports", "Reports that the aggregator accepted.";
    REPLACED: Counter "mcad_agent_reports_replaced_total" [] "reports",
        "Reports that were never sent because a newer report replaced them.";
    SEND_FAILURES: Counter "mcad_agent_report_send_failures_total" ["reason"] "attempts",
        "Failed attempts to send a report.";
    REPLICAS: Gauge "mcad_agent_replicas" [] "replicas",
        "Replicas of the aggregator that reports are sent to: the addresses of the host name in --aggregator; 0 if it has none.";
    LOOK_UP_FAILURES: Counter "mcad_agent_look_up_failures_total" [] "look-ups",
        "Failed look-ups of the host name in --aggregator.";

    // The eBPF programs.
    WALK_SECONDS: Gauge "mcad_agent_walk_seconds" [] "seconds",
        "Duration of the latest cgroup walk in the kernel.";
    FLUSH_SECONDS: Gauge "mcad_agent_flush_seconds" [] "seconds",
        "Duration of the flush of the kernel's statistics before the latest walk.";
    CGROUPS_REMOVED: Counter "mcad_agent_cgroups_removed_total" [] "cgroups",
        "Removed cgroups, whether of pods or not.";
    REMOVALS_TOLD: Counter "mcad_agent_cgroup_removals_told_total" [] "cgroups",
        "Cgroups of pods whose totals were read at their removal.";
    REMOVALS_DROPPED: Counter "mcad_agent_cgroup_removals_dropped_total" [] "cgroups",
        "Removed cgroups whose totals did not fit into the ring buffer or could not be read: the totals of their pods are lower bounds.";
    RUN_QUEUE_WAIT_SECONDS: Histogram "mcad_agent_run_queue_wait_seconds" [] "seconds",
        "Run-queue waits of the tasks of this machine: how long they were ready to run and waited for a CPU.";
    RUN_QUEUE_PAUSED: Gauge "mcad_agent_run_queue_paused" [] "0 or 1",
        "1 while run-queue waits are not measured because measuring them costs too much.";
    WAITS_DROPPED: Counter "mcad_agent_run_queue_waits_dropped_total" [] "waits",
        "Run-queue waits that were not counted because the maps had no room for their cgroup.";
    WAITS_UNPLACED: Counter "mcad_agent_run_queue_waits_unplaced_total" [] "waits",
        "Run-queue waits of cgroups that were created and removed between two samples.";
    SWITCHES: Counter "mcad_agent_switches_total" [] "switches", "Task switches that the eBPF program counted.";
    SWITCHES_TIMED: Counter "mcad_agent_switches_timed_total" [] "switches",
        "Task switches at which the eBPF program measured its own duration.";
    SWITCH_SECONDS: Counter "mcad_agent_switch_seconds_total" [] "seconds",
        "Time that the eBPF program took at the switches it measured, including two readings of the clock.";
    SWITCH_MISMATCHES: Counter "mcad_agent_switch_mismatches_total" [] "switches",
        "Task switches at which the task that left the CPU was not the task that had last been switched in there.";
    SWITCHES_UNKNOWN: Counter "mcad_agent_switches_unknown_total" [] "switches",
        "Task switches at which the earlier wait of the task that left the CPU was unknown.";

    BUILD_INFO: Gauge "mcad_agent_build_info" ["revision", "version"] "1",
        "Always 1; the labels have the version and the commit that the agent was built from.";
}

impl Family {
    /// Name and help, for a metric that lives as long as the agent.
    pub(super) fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    /// A gauge or counter for one scrape, with the values of its labels in order.
    pub(super) fn series<const LABELS: usize>(&self, labels: [&str; LABELS], value: f64) -> MetricFamily {
        self.all_series([(labels, value)])
    }

    /// The same with several series.
    pub(super) fn all_series<'a, const LABELS: usize>(
        &self,
        series: impl IntoIterator<Item = ([&'a str; LABELS], f64)>,
    ) -> MetricFamily {
        debug_assert_eq!(LABELS, self.labels.len(), "{}", self.name);
        self.holding(series.into_iter().map(|(labels, value)| self.metric(&labels, value)).collect())
    }

    /// A histogram for one scrape.
    pub(super) fn histogram(&self, histogram: Histogram) -> MetricFamily {
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        self.holding(vec![metric])
    }

    fn metric(&self, labels: &[&str], value: f64) -> Metric {
        let mut metric = Metric::default();
        match self.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge | Kind::Histogram => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        let pairs = self.labels.iter().zip(labels).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        metric.set_label(pairs.collect());
        metric
    }

    fn holding(&self, metrics: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(match self.kind {
            Kind::Gauge => MetricType::GAUGE,
            Kind::Counter => MetricType::COUNTER,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(metrics);
        family
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        })
    }
}
