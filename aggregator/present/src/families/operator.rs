//! Section A of the metrics contract: the families of the MCAD operator itself, encoded by the `prometheus` crate.
//!
//! Names, help texts, types and units are those of the operator, so that its dashboards work. Each scrape fills a new registry
//! from the snapshot, so no series outlives its object.
use mcad_accounting::cluster::histogram::Histogram;
use mcad_accounting::object::Version;
use mcad_accounting::resource::Triple;
use mcad_accounting::snapshot::{AppWrappers, Capacity, Snapshot};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Gauge, Histogram as Buckets, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder as _, Registry, TextEncoder};

use crate::exposition::{Exposition, Family, Kind};

/// Billionths in one: the unit of MCAD v2's capacities, so that their sums are exact.
const NANO: i128 = 1_000_000_000;

static CAPACITY_CPU: Family =
    family("mcad_allocatable_capacity_cpu", Kind::Gauge, &[], "millicores", "Allocatable CPU Capacity (in millicores)");
static CAPACITY_MEMORY: Family =
    family("mcad_allocatable_capacity_memory", Kind::Gauge, &[], "bytes", "Allocatable Memory Capacity");
static CAPACITY_GPU: Family =
    family("mcad_allocatable_capacity_gpu", Kind::Gauge, &[], "devices", "Allocatable GPU Capacity");
static APPWRAPPERS_COUNT: Family =
    family("mcad_appwrappers_count", Kind::Gauge, &["state"], "AppWrappers", "AppWrappers count per state");
static REQUESTED_CPU: Family =
    family("mcad_requested_cpu", Kind::Histogram, &[], "millicores", "Histogram of requested CPU (in millicores)");
static REQUESTED_MEMORY: Family =
    family("mcad_requested_memory_bytes", Kind::Histogram, &[], "bytes", "Histogram of requested memory");
static REQUESTED_GPU: Family =
    family("mcad_requested_gpu", Kind::Histogram, &[], "devices", "Histogram of requested GPU");
static V2_CPU: Family =
    v2("mcad_capacity_cpu", "cores", "Available CPU capacity per node, excluding non-AppWrapper pods");
static V2_MEMORY: Family =
    v2("mcad_capacity_memory", "bytes", "Available memory capacity per node, excluding non-AppWrapper pods");
static V2_GPU: Family =
    v2("mcad_capacity_gpu", "devices", "Available GPU capacity per node, excluding non-AppWrapper pods");

/// The families of this section.
pub static FAMILIES: &[&Family] = &[
    &CAPACITY_CPU,
    &CAPACITY_GPU,
    &CAPACITY_MEMORY,
    &APPWRAPPERS_COUNT,
    &V2_CPU,
    &V2_GPU,
    &V2_MEMORY,
    &REQUESTED_CPU,
    &REQUESTED_GPU,
    &REQUESTED_MEMORY,
];

const fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    unit: &'static str,
    help: &'static str,
) -> Family {
    Family { name, kind, labels, unit, help }
}

const fn v2(name: &'static str, unit: &'static str, help: &'static str) -> Family {
    family(name, Kind::Gauge, &["node"], unit, help)
}

/// Writes the section.
pub fn write(snapshot: &Snapshot, out: &mut Exposition<'_>) {
    match encode(collect(snapshot)) {
        Ok(text) => out.raw(&text),
        // The names and labels are constants of this file, and its tests would fail if one were invalid.
        Err(error) => debug_assert!(false, "{error}"),
    }
}

fn encode(families: Vec<MetricFamily>) -> prometheus::Result<Vec<u8>> {
    let registry = Registry::new();
    let desc = |family: &MetricFamily| {
        Desc::new(family.name().to_owned(), family.help().to_owned(), Vec::new(), std::collections::HashMap::new())
    };
    let descs = families.iter().map(desc).collect::<prometheus::Result<_>>()?;
    registry.register(Box::new(Collected { descs, families }))?;
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}

/// Families that are already filled.
struct Collected {
    descs: Vec<Desc>,
    families: Vec<MetricFamily>,
}

impl Collector for Collected {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.families.clone()
    }
}

fn collect(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let mut families = Vec::new();
    match &snapshot.capacity {
        Capacity::V1(capacity) => {
            if let Some(Triple { cpu, memory, gpu }) = *capacity {
                families.push(made(&CAPACITY_CPU, vec![gauge(&[], cpu as f64)]));
                families.push(made(&CAPACITY_MEMORY, vec![gauge(&[], memory as f64)]));
                families.push(made(&CAPACITY_GPU, vec![gauge(&[], gpu as f64)]));
            }
            families.extend(snapshot.appwrappers.iter().flat_map(appwrappers));
        }
        Capacity::V2(capacity) => {
            let series = |amount: fn(&Triple) -> f64| {
                let nodes = capacity.iter().flatten();
                nodes.map(|(node, triple)| gauge(&[("node", node)], amount(triple))).collect()
            };
            families.push(made(&V2_CPU, series(|triple| units(triple.cpu))));
            families.push(made(&V2_MEMORY, series(|triple| units(triple.memory))));
            families.push(made(&V2_GPU, series(|triple| units(triple.gpu))));
        }
        Capacity::None => {}
    }
    families.retain(|family| !family.get_metric().is_empty());
    families
}

/// The nearest `f64` to a number of billionths. The billionths of a node's memory have more digits than an `f64`, so they are not
/// divided as one.
fn units(nanos: i128) -> f64 {
    match (nanos / NANO, nanos % NANO) {
        (whole, 0) => whole as f64,
        (whole, part) => {
            let sign = if nanos < 0 { "-" } else { "" };
            let text = format!("{sign}{}.{:09}", whole.unsigned_abs(), part.unsigned_abs());
            // Every text of this form parses.
            text.parse().unwrap_or(whole as f64)
        }
    }
}

fn appwrappers(all: &AppWrappers) -> [MetricFamily; 4] {
    let count = |state: &str| all.states.get(&(Version::V1Beta1, state.into())).copied().unwrap_or(0);
    let known = Version::V1Beta1.states().iter().copied().filter(|state| !state.is_empty());
    // States that no current MCAD sets are exported while an AppWrapper has them, like the empty state before the first sync.
    let others = all.states.iter().filter(|((version, state), n)| {
        let shown = state.is_empty() || !Version::V1Beta1.states().contains(&&**state);
        *version == Version::V1Beta1 && shown && **n > 0
    });
    let states = known.chain(others.map(|((_, state), _)| &**state));
    [
        made(&APPWRAPPERS_COUNT, states.map(|state| gauge(&[("state", state)], count(state) as f64)).collect()),
        made(&REQUESTED_CPU, vec![histogram(&all.histograms.cpu)]),
        made(&REQUESTED_MEMORY, vec![histogram(&all.histograms.memory)]),
        made(&REQUESTED_GPU, vec![histogram(&all.histograms.gpu)]),
    ]
}

fn made(family: &Family, metrics: Vec<Metric>) -> MetricFamily {
    let mut made = MetricFamily::default();
    made.set_name(family.name.to_owned());
    made.set_help(family.help.to_owned());
    made.set_field_type(match family.kind {
        Kind::Gauge => MetricType::GAUGE,
        Kind::Counter => MetricType::COUNTER,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    made.set_metric(metrics);
    made
}

fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_gauge(gauge);
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    metric.set_label(labels.iter().map(pair).collect());
    metric
}

fn histogram(histogram: &Histogram) -> Metric {
    let bucket = |(bound, count): (&i128, &u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64);
        bucket.set_cumulative_count(*count);
        bucket
    };
    let mut buckets = Buckets::default();
    buckets.set_bucket(histogram.bounds.iter().zip(&histogram.cumulative).map(bucket).collect());
    buckets.set_sample_count(histogram.count);
    buckets.set_sample_sum(histogram.sum as f64);
    let mut metric = Metric::default();
    metric.set_histogram(buckets);
    metric
}
