//! The agent's own figures: what it costs and where it fails. It owns their names, and nothing of what they count.

mod probes;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::core::Collector as _;
use prometheus::{
    Counter, Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::sample::gpu::{WorkerEnd, WorkerEnds};
use crate::sample::{CgroupSource, ProbeCost, Removals, Sample};
use crate::version::REVISION;

/// The agent's own figures.
pub struct SelfMetrics {
    registry: Registry,
    started: Instant,
    ticks: IntCounter,
    ticks_missed: IntCounter,
    tick_seconds: Histogram,
    tick_cpu_seconds: Counter,
    source_failures: IntCounterVec,
    sent: IntCounter,
    replaced: IntCounter,
    failed: IntCounterVec,
    replicas: IntGauge,
    look_ups_failed: IntCounter,
    latest: Mutex<Option<Latest>>,
}

/// What the latest tick saw. Kept as values and made families at scrape: without cgroups there are no lines.
#[derive(Clone)]
struct Latest {
    ended: Instant,
    cgroups: Option<(CgroupSource, u32, u32)>,
    probes: Option<ProbeCost>,
    removals: Option<Removals>,
    ended_pods: usize,
    gpus: Option<Gpus>,
    worker_ends: WorkerEnds,
}

/// What the latest tick saw of GPUs.
#[derive(Clone, Copy)]
struct Gpus {
    devices: usize,
    calls: u32,
    fake: bool,
}

/// Why an attempt to send failed: a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFailure {
    /// No connection.
    Connect,
    /// The aggregator's certificate is not vouched for.
    Tls,
    /// The bundle of authorities or the token can't be read.
    Credentials,
    /// The connection broke before the answer.
    Lost,
    /// No answer in time.
    Deadline,
    /// 4xx: the report is at fault.
    Refused,
    /// 5xx, 408, 429: the aggregator is at fault or overloaded.
    NotTaken,
}

impl SendFailure {
    const ALL: [Self; 7] =
        [Self::Connect, Self::Tls, Self::Credentials, Self::Lost, Self::Deadline, Self::Refused, Self::NotTaken];

    /// As the label spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Credentials => "credentials",
            Self::Lost => "lost",
            Self::Deadline => "deadline",
            Self::Refused => "refused",
            Self::NotTaken => "not_taken",
        }
    }
}

/// From an idle node by eBPF (some 100 µs) to a walk over files that is in trouble.
const TICK_BUCKETS_S: [f64; 9] = [0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0];

impl SelfMetrics {
    /// All at 0.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let metrics = Self {
            ticks: IntCounter::new("mcad_agent_ticks_total", "Samples taken.")?,
            ticks_missed: IntCounter::new(
                "mcad_agent_ticks_missed_total",
                "Samples not taken because the one before took longer than the interval.",
            )?,
            tick_seconds: Histogram::with_opts(
                HistogramOpts::new("mcad_agent_tick_seconds", "Time from the start of a sample to its encoded report.")
                    .buckets(TICK_BUCKETS_S.to_vec()),
            )?,
            tick_cpu_seconds: Counter::new(
                "mcad_agent_tick_cpu_seconds_total",
                "CPU time spent on samples and their reports.",
            )?,
            source_failures: IntCounterVec::new(
                Opts::new("mcad_agent_source_failures_total", "Times that a source could not read its part."),
                &["source", "reason"],
            )?,
            sent: IntCounter::new("mcad_agent_reports_sent_total", "Reports that the aggregator took.")?,
            replaced: IntCounter::new(
                "mcad_agent_reports_replaced_total",
                "Reports that were never sent because a newer one was there first.",
            )?,
            failed: IntCounterVec::new(
                Opts::new("mcad_agent_report_send_failures_total", "Attempts to send a report that failed."),
                &["reason"],
            )?,
            replicas: IntGauge::new(
                "mcad_agent_replicas",
                "Replicas of the aggregator that the name of --aggregator has and reports go to; 0 where it has no name.",
            )?,
            look_ups_failed: IntCounter::new(
                "mcad_agent_look_up_failures_total",
                "Times that the name of --aggregator could not be looked up.",
            )?,
            latest: Mutex::new(None),
            started: Instant::now(),
            registry,
        };
        let version = IntGaugeVec::new(
            Opts::new("mcad_agent_build_info", "1, with the version and the commit that it was built from."),
            &["version", "revision"],
        )?;
        version.with_label_values(&[env!("CARGO_PKG_VERSION"), REVISION]).set(1);
        let registry = &metrics.registry;
        registry.register(Box::new(version))?;
        registry.register(Box::new(metrics.ticks.clone()))?;
        registry.register(Box::new(metrics.ticks_missed.clone()))?;
        registry.register(Box::new(metrics.tick_seconds.clone()))?;
        registry.register(Box::new(metrics.tick_cpu_seconds.clone()))?;
        registry.register(Box::new(metrics.source_failures.clone()))?;
        registry.register(Box::new(metrics.sent.clone()))?;
        registry.register(Box::new(metrics.replaced.clone()))?;
        registry.register(Box::new(metrics.failed.clone()))?;
        registry.register(Box::new(metrics.replicas.clone()))?;
        registry.register(Box::new(metrics.look_ups_failed.clone()))?;
        for reason in SendFailure::ALL {
            metrics.failed.with_label_values(&[reason.as_str()]);
        }
        Ok(metrics)
    }

    /// One sample was taken, in this much time and CPU time.
    pub fn ticked(&self, sample: &Sample, took: Duration, cpu: Duration) {
        self.ticks.inc();
        self.tick_seconds.observe(took.as_secs_f64());
        self.tick_cpu_seconds.inc_by(cpu.as_secs_f64());
        for failure in &sample.failures {
            self.source_failures.with_label_values(&[failure.source.as_str(), failure.reason.as_str()]).inc();
        }
        let cgroups = sample.cgroups.as_ref().map(|cgroups| (cgroups.source, cgroups.seen, cgroups.dropped));
        let probes = sample.cgroups.as_ref().and_then(|cgroups| cgroups.probes.clone());
        let removals = sample.cgroups.as_ref().and_then(|cgroups| cgroups.removals.as_ref());
        let removals = removals.map(|removals| Removals { removed: Vec::new(), ..*removals });
        let ended_pods = sample.ended_pods.len();
        let gpus = sample.gpus.as_ref();
        let gpus = gpus.map(|gpus| Gpus { devices: gpus.devices.len(), calls: gpus.calls, fake: gpus.fake });
        let worker_ends = sample.worker_ends;
        let ended = Instant::now();
        *self.latest() = Some(Latest { ended, cgroups, probes, removals, ended_pods, gpus, worker_ends });
    }

    /// So many samples fell out.
    pub fn ticks_missed(&self, count: u64) {
        self.ticks_missed.inc_by(count);
    }

    /// The aggregator took a report.
    pub fn report_sent(&self) {
        self.sent.inc();
    }

    /// So many reports were overtaken by a newer one.
    pub fn reports_replaced(&self, count: u64) {
        self.replaced.inc_by(count);
    }

    /// An attempt failed.
    pub fn send_failed(&self, reason: SendFailure) {
        self.failed.with_label_values(&[reason.as_str()]).inc();
    }

    /// Reports go to so many replicas.
    pub fn replicas(&self, count: usize) {
        self.replicas.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The aggregator's name could not be looked up.
    pub fn look_up_failed(&self) {
        self.look_ups_failed.inc();
    }

    /// Time since the latest tick ended; before the end of the first, since the start.
    pub fn since_tick(&self) -> Duration {
        self.latest().as_ref().map_or(self.started, |latest| latest.ended).elapsed()
    }

    /// All figures in Prometheus' text format.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut families = self.registry.gather();
        let latest = self.latest().clone();
        if let Some(probes) = latest.as_ref().and_then(|latest| latest.probes.as_ref()) {
            families.extend(probes::families(probes));
        }
        if let Some(removals) = latest.as_ref().and_then(|latest| latest.removals.as_ref()) {
            families.extend(probes::of_removals(removals));
        }
        if let Some(latest) = &latest {
            let help = "Pods that ended within the hour and whose totals are reported.";
            let gauge = IntGauge::new("mcad_agent_ended_pods", help)?;
            gauge.set(latest.ended_pods as i64);
            families.extend(gauge.collect());
        }
        families.extend(worker_ends(latest.as_ref().map(|latest| latest.worker_ends).unwrap_or_default())?);
        if let Some((source, seen, dropped)) = latest.as_ref().and_then(|latest| latest.cgroups) {
            let gauges = [
                ("mcad_agent_cgroups_seen", "Cgroups on the machine, in the latest sample.", seen),
                ("mcad_agent_cgroups_dropped", "Cgroups that the latest sample lacks for want of room.", dropped),
            ];
            for (name, help, value) in gauges {
                let gauge = IntGaugeVec::new(Opts::new(name, help), &["source"])?;
                gauge.with_label_values(&[source.as_str()]).set(value.into());
                families.extend(gauge.collect());
            }
        }
        if let Some(gpus) = latest.and_then(|latest| latest.gpus) {
            let gauges = [
                ("mcad_agent_gpus", "GPUs that NVML lists, in the latest sample.", gpus.devices as i64),
                ("mcad_agent_nvml_calls", "Calls of NVML that the latest sample took.", gpus.calls.into()),
            ];
            for (name, help, value) in gauges {
                // Nobody should take these for GPUs, wherever the figure ends up.
                let gauge = IntGaugeVec::new(Opts::new(name, help), &["fake"])?;
                gauge.with_label_values(&[if gpus.fake { "true" } else { "false" }]).set(value);
                families.extend(gauge.collect());
            }
        }
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }

    /// A thread that panicked while it held plain values has not broken them.
    fn latest(&self) -> MutexGuard<'_, Option<Latest>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All at 0 before the first tick.
fn worker_ends(ends: WorkerEnds) -> Result<Vec<prometheus::proto::MetricFamily>, prometheus::Error> {
    let help = "Processes that called NVML and ended or were killed, by reason; each is replaced by another.";
    let counter = IntCounterVec::new(Opts::new("mcad_agent_nvml_worker_ends_total", help), &["reason"])?;
    for (end, count) in WorkerEnd::ALL.iter().zip(ends) {
        counter.with_label_values(&[end.as_str()]).inc_by(count);
    }
    Ok(counter.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::gpu::GpuSample;
    use crate::sample::{CgroupSample, Failure, Machine, Moment, Reason, SourceName};

    fn sample(cgroups: Option<CgroupSample>) -> Sample {
        let failures = vec![Failure {
            source: SourceName::Cgroups(CgroupSource::Bpf),
            reason: Reason::NotPermitted,
            detail: String::new(),
        }];
        Sample {
            at: Moment { unix_ms: 1, uptime_ns: 1 },
            machine: Machine::default(),
            cgroups,
            gpus: None,
            worker_ends: [0, 2, 0, 0, 0],
            assignments: None,
            ended_pods: Vec::new(),
            failures,
        }
    }

    fn text(metrics: &SelfMetrics) -> String {
        String::from_utf8(metrics.text().unwrap()).unwrap()
    }

    #[test]
    fn what_is_known_has_its_line_also_at_zero() {
        let text = text(&SelfMetrics::new().unwrap());
        for line in [
            "mcad_agent_ticks_total 0",
            "mcad_agent_reports_sent_total 0",
            "mcad_agent_reports_replaced_total 0",
            "mcad_agent_nvml_worker_ends_total{reason=\"hung\"} 0",
            "mcad_agent_report_send_failures_total{reason=\"connect\"} 0",
            "mcad_agent_report_send_failures_total{reason=\"refused\"} 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn gpus_that_are_fake_are_labelled_so() {
        let metrics = SelfMetrics::new().unwrap();
        let gpus = GpuSample { fake: true, calls: 58, ..GpuSample::default() };
        let sample = Sample { gpus: Some(gpus), ..sample(None) };
        metrics.ticked(&sample, Duration::from_millis(2), Duration::from_millis(1));
        let text = text(&metrics);
        assert!(text.contains("mcad_agent_nvml_calls{fake=\"true\"} 58\n"), "{text}");
        assert!(text.contains("mcad_agent_gpus{fake=\"true\"} 0\n"), "{text}");
    }

    #[test]
    fn cgroups_that_could_not_be_read_have_no_line_any_more() {
        let metrics = SelfMetrics::new().unwrap();
        let read = CgroupSample {
            source: CgroupSource::Files,
            cgroups: Vec::new(),
            from_files: Vec::new(),
            probes: None,
            removals: None,
            seen: 7,
            dropped: 0,
        };
        metrics.ticked(&sample(Some(read)), Duration::from_millis(2), Duration::from_millis(1));
        let with = text(&metrics);
        assert!(with.contains("mcad_agent_cgroups_seen{source=\"cgroupfs\"} 7\n"), "{with}");
        assert!(with.contains("mcad_agent_cgroups_dropped{source=\"cgroupfs\"} 0\n"), "{with}");
        metrics.ticked(&sample(None), Duration::from_millis(2), Duration::from_millis(1));
        let without = text(&metrics);
        assert!(!without.contains("mcad_agent_cgroups"), "{without}");
        let failures = "mcad_agent_source_failures_total{reason=\"not_permitted\",source=\"bpf\"} 2\n";
        assert!(without.contains(failures), "{without}");
        assert!(without.contains("mcad_agent_tick_seconds_count 2\n"), "{without}");
        assert!(without.contains("mcad_agent_tick_cpu_seconds_total 0.002\n"), "{without}");
    }
}
