//! The agent's self-metrics: what it costs and where it fails. `families` declares them; the callers count.

mod families;
mod probes;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

use crate::sample::gpu::{WorkerEnd, WorkerEnds};
use crate::sample::{CgroupSource, ProbeCost, Removals, Sample};
use crate::version::REVISION;

pub use families::{FAMILIES, Family, Kind};

/// The agent's self-metrics.
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

/// What the latest sample contained. Converted to families at each scrape, so that values it does not have are not
/// exported.
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

/// What the latest sample contained about GPUs.
#[derive(Clone, Copy)]
struct Gpus {
    devices: usize,
    calls: u32,
    fake: bool,
}

/// Why an attempt to send failed: a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFailure {
    /// No connection could be established.
    Connect,
    /// The aggregator's certificate could not be verified.
    Tls,
    /// The CA bundle or the token can't be read.
    Credentials,
    /// The connection broke before the response.
    Lost,
    /// No response in time.
    Deadline,
    /// 4xx: the report is invalid.
    Refused,
    /// 5xx, 408, 429: the aggregator failed or is overloaded.
    NotTaken,
}

impl SendFailure {
    const ALL: [Self; 7] =
        [Self::Connect, Self::Tls, Self::Credentials, Self::Lost, Self::Deadline, Self::Refused, Self::NotTaken];

    /// Every reason, as the value of the label.
    pub fn reasons() -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().map(Self::as_str)
    }

    /// The value of the label.
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

/// From an idle node with eBPF (some 100 µs) to reading files on a slow node.
const TICK_BUCKETS_S: [f64; 9] = [0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0];

impl SelfMetrics {
    /// All counters at 0.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let build = register(&registry, IntGaugeVec::new(families::BUILD_INFO.opts(), families::BUILD_INFO.labels))?;
        build.with_label_values(&[REVISION, env!("CARGO_PKG_VERSION")]).set(1);
        let counter = |family: &Family| register(&registry, IntCounter::with_opts(family.opts()));
        let counters = |family: &Family| register(&registry, IntCounterVec::new(family.opts(), family.labels));
        let buckets = HistogramOpts::from(families::TICK_SECONDS.opts()).buckets(TICK_BUCKETS_S.to_vec());
        let metrics = Self {
            ticks: counter(&families::TICKS)?,
            ticks_missed: counter(&families::TICKS_MISSED)?,
            tick_seconds: register(&registry, Histogram::with_opts(buckets))?,
            tick_cpu_seconds: register(&registry, Counter::with_opts(families::TICK_CPU_SECONDS.opts()))?,
            source_failures: counters(&families::SOURCE_FAILURES)?,
            sent: counter(&families::SENT)?,
            replaced: counter(&families::REPLACED)?,
            failed: counters(&families::SEND_FAILURES)?,
            replicas: register(&registry, IntGauge::with_opts(families::REPLICAS.opts()))?,
            look_ups_failed: counter(&families::LOOK_UP_FAILURES)?,
            latest: Mutex::new(None),
            started: Instant::now(),
            registry,
        };
        for reason in SendFailure::reasons() {
            metrics.failed.with_label_values(&[reason]);
        }
        Ok(metrics)
    }

    /// Records a sample, with its duration and CPU time.
    pub fn ticked(&self, sample: &Sample, took: Duration, cpu: Duration) {
        self.ticks.inc();
        self.tick_seconds.observe(took.as_secs_f64());
        self.tick_cpu_seconds.inc_by(cpu.as_secs_f64());
        for failure in &sample.failures {
            self.source_failures.with_label_values(&[failure.reason.as_str(), failure.source.as_str()]).inc();
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

    /// Records samples that were not taken.
    pub fn ticks_missed(&self, count: u64) {
        self.ticks_missed.inc_by(count);
    }

    /// Records that the aggregator accepted a report.
    pub fn report_sent(&self) {
        self.sent.inc();
    }

    /// Records reports that were replaced by a newer one.
    pub fn reports_replaced(&self, count: u64) {
        self.replaced.inc_by(count);
    }

    /// Records a failed attempt to send.
    pub fn send_failed(&self, reason: SendFailure) {
        self.failed.with_label_values(&[reason.as_str()]).inc();
    }

    /// Records the number of replicas that reports are sent to.
    pub fn replicas(&self, count: usize) {
        self.replicas.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Records a failed look-up of the aggregator's name.
    pub fn look_up_failed(&self) {
        self.look_ups_failed.inc();
    }

    /// Time since the latest sample was complete, or since the start if there is none yet.
    pub fn since_tick(&self) -> Duration {
        self.latest().as_ref().map_or(self.started, |latest| latest.ended).elapsed()
    }

    /// All self-metrics in Prometheus' text format.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut families = self.registry.gather();
        let latest = self.latest().clone();
        // Known before the first sample: no process has ended yet.
        let ends = latest.as_ref().map(|latest| latest.worker_ends).unwrap_or_default();
        let ends = WorkerEnd::ALL.iter().zip(ends).map(|(end, count)| ([end.as_str()], count as f64));
        families.push(families::NVML_WORKER_ENDS.all_series(ends));
        families.extend(latest.iter().flat_map(Latest::families));
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }

    /// Locks the values. They are plain, so a thread that panicked cannot have left them inconsistent.
    fn latest(&self) -> MutexGuard<'_, Option<Latest>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Latest {
    /// The values of the latest sample as families. Values that it does not have are not exported.
    fn families(&self) -> Vec<MetricFamily> {
        let mut all = vec![families::ENDED_PODS.series([], self.ended_pods as f64)];
        all.extend(self.probes.iter().flat_map(probes::families));
        all.extend(self.removals.iter().flat_map(probes::of_removals));
        if let Some((source, seen, dropped)) = self.cgroups {
            all.push(families::CGROUPS_SEEN.series([source.as_str()], seen.into()));
            all.push(families::CGROUPS_DROPPED.series([source.as_str()], dropped.into()));
        }
        if let Some(gpus) = self.gpus {
            // A label marks fake GPUs in every place where the metric is used.
            let fake = if gpus.fake { "true" } else { "false" };
            all.push(families::GPUS.series([fake], gpus.devices as f64));
            all.push(families::NVML_CALLS.series([fake], gpus.calls.into()));
        }
        all
    }
}

/// Registers the metric; it is exported at each scrape from now on.
fn register<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: Result<M, prometheus::Error>,
) -> Result<M, prometheus::Error> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sample::gpu::GpuSample;
    use crate::sample::{CgroupSample, Failure, Machine, Moment, Reason, RunQueueCost, SourceName};

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

    /// A sample with everything that the agent can report about itself.
    fn everything() -> Sample {
        let probes = ProbeCost { run_queue: Some(RunQueueCost::default()), ..ProbeCost::default() };
        let cgroups = CgroupSample {
            source: CgroupSource::Bpf,
            cgroups: Vec::new(),
            from_files: Vec::new(),
            probes: Some(probes),
            removals: Some(Removals::default()),
            seen: 0,
            dropped: 0,
        };
        Sample { gpus: Some(GpuSample::default()), ..sample(Some(cgroups)) }
    }

    #[test]
    fn what_is_exported_is_what_is_declared() {
        let metrics = SelfMetrics::new().unwrap();
        metrics.ticked(&everything(), Duration::from_millis(2), Duration::from_millis(1));
        let text = text(&metrics);
        let exported: BTreeSet<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let declared: Vec<_> = FAMILIES.iter().map(|family| format!("{} {}", family.name, family.kind)).collect();
        assert_eq!(exported, declared.iter().map(String::as_str).collect(), "{text}");
        for family in FAMILIES {
            let labels: Vec<_> = family.labels.iter().map(|label| format!("{label}=")).collect();
            let series = text.lines().find(|line| !line.starts_with('#') && line.starts_with(family.name)).unwrap();
            let named: Vec<_> = series.split(['{', ',']).filter_map(|part| part.split_inclusive('=').next()).collect();
            let named: Vec<_> = named.into_iter().filter(|part| part.ends_with('=') && *part != "le=").collect();
            assert_eq!(named, labels, "{series}");
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
