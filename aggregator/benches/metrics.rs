//! Cost of `/metrics` for 10,000 nodes of 8 GPUs, each with an agent: `cargo bench -p mcad-aggregator --bench metrics`.
//!
//! Everything between the stored reports and the socket: joining the reports with the cluster into a snapshot, writing its families,
//! compressing them. For comparison: the same lines created and encoded by the `prometheus` crate.
#![allow(clippy::unwrap_used, reason = "what is unwrapped was made here")]
mod support;

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use mcad_accounting::cluster::Cluster;
use mcad_accounting::merge::{Ages, View, merge};
use mcad_accounting::nodes::{Limits, Nodes};
use mcad_accounting::now::Now;
use mcad_accounting::options::{GpuMetrics, Options};
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::snapshot::verdict::Fits;
use mcad_aggregator::receive;
use mcad_present::exposition::{Closed, Exposition, Sink};
use mcad_present::metrics;
use mcad_wire::report::{
    Assignment, Assignments, Cgroup, Cgroups, DeviceIds, Gpu, Gpus, Machine, REPORT_VERSION, Report,
};
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder as _, TextEncoder};
use prost::Message as _;
use serde_json::json;
use support::counted::{Counted, held_bytes, peak_of};
use support::objects::{namespace, node, node_name, object, uid};
use support::{Times, begin, both, figure, megabytes, spell, timed};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const NODES: usize = 10_000;
const GPUS: usize = 8;
const PODS_PER_NODE: usize = 10;
const RUNS: usize = 9;

fn main() {
    begin("/metrics: 10,000 nodes of 8 GPUs, 100,000 pods");
    let cluster = cluster();
    for gpu_metrics in [GpuMetrics::Off, GpuMetrics::On] {
        let options = Options { gpu_metrics, ..Options::default() };
        let fits = Fits::new();
        let make = |nodes: &mut Nodes| {
            let view = View {
                cluster: &cluster,
                nodes,
                fits: &fits,
                fitted: None,
                queues: None,
                ages: Ages::Count,
                told_at_ms: Some(now(20).unix_ms as i64),
            };
            merge(view, now(20))
        };
        println!("  --gpu-metrics {}", if gpu_metrics == GpuMetrics::On { "on" } else { "off" });
        let mut nodes = Nodes::new(Limits::KUBERNETES, options);
        let take = |nodes: &mut Nodes, cluster: &Cluster, node: usize, sequence: u64| {
            let encoded = report(node, sequence).encode_to_vec();
            let received = receive::check(&encoded).unwrap();
            let at = now(10 * sequence);
            timed(|| nodes.take(cluster, (&received.node, &received.report, received.encoded()), at).unwrap()).0
        };
        // Reports are added first and alone: with views between them in memory, iterating may take twice as long by chance.
        let nobody = Cluster::from_objects([]);
        for sequence in [1, 2] {
            for node in 0..NODES {
                take(&mut nodes, &nobody, node, sequence);
            }
        }
        let held = held_bytes();
        drop(make(&mut nodes));
        figure("  kept of all nodes", megabytes(held_bytes() - held), "");
        let anew = (0..RUNS).map(|_| {
            nodes.forget_views();
            timed(|| make(&mut nodes)).0
        });
        let anew = Times::new(anew.collect());
        figure("  merge: the same snapshot made of reports alone, median", spell(anew.quantile(0.5)), "");
        measure(&mut || make(&mut nodes));
        let taken = Times::new((0..NODES).map(|node| take(&mut nodes, &cluster, node, 3)).collect());
        figure("  a report taken and joined as it arrives, median", spell(taken.quantile(0.5)), "");
        figure("  99 % are below", spell(taken.quantile(0.99)), "");
        let scattered = both(RUNS, || make(&mut nodes));
        figure("  merge: the snapshot made once all nodes reported again", scattered, "");
    }
}

fn measure(make: &mut dyn FnMut() -> Snapshot) {
    let before = held_bytes();
    let (peak, snapshot) = peak_of(&mut *make);
    let held = held_bytes() - before;
    let text = text(&snapshot);
    let lines = text.lines().filter(|line| !line.starts_with('#')).count();
    figure("  lines", format!("{lines}, {}", megabytes(text.len() as u64)), "");
    figure("  merge: the snapshot made, median wall / CPU time", both(RUNS, make), "");
    figure(
        "  the snapshot holds beside them / most while it was made",
        format!("{} / {}", megabytes(held), megabytes(peak)),
        "",
    );
    let plain = || write(&snapshot, &mut Discard(0));
    let gzip = || write(&snapshot, &mut Gzip(GzEncoder::new(Vec::new(), Compression::fast())));
    figure("  written plain, median", both(RUNS, plain), "budget 200 ms");
    figure("  written as gzip level 1, median", both(RUNS, gzip), "budget 500 ms");
    let (plain, ()) = peak_of(plain);
    let (gzip, ()) = peak_of(gzip);
    figure("  most held beside the snapshot, plain", megabytes(plain), "budget 33.5 MB (32 MiB)");
    figure("  most held beside the snapshot, gzip", megabytes(gzip), "budget 33.5 MB (32 MiB)");
    let lines = Parsed::all(&text);
    let encoded = || TextEncoder::new().encode(&families(&lines), &mut Void).unwrap();
    figure("  peer: the prometheus crate, values made and encoded, median", both(RUNS, encoded), "");
    figure("  peer: most held for it", megabytes(peak_of(encoded).0), "");
}

fn text(snapshot: &Snapshot) -> String {
    let mut text = Vec::new();
    write(snapshot, &mut text);
    String::from_utf8(text).unwrap()
}

fn write(snapshot: &Snapshot, sink: &mut dyn Sink) {
    let mut out = Exposition::new(sink);
    metrics::write(snapshot, now(21), &mut out);
    out.finish().unwrap();
}

/// A sink that discards everything.
struct Discard(usize);

impl Sink for Discard {
    fn take(&mut self, chunk: Vec<u8>) -> Result<(), Closed> {
        self.0 += std::hint::black_box(chunk).len();
        Ok(())
    }
}

/// Compresses like the server, but without a reader.
struct Gzip(GzEncoder<Vec<u8>>);

impl Sink for Gzip {
    fn take(&mut self, chunk: Vec<u8>) -> Result<(), Closed> {
        self.0.write_all(&chunk).map_err(|_| Closed)?;
        self.0.get_mut().clear();
        Ok(())
    }
}

struct Void;

impl std::io::Write for Void {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(std::hint::black_box(bytes).len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A parsed line of an exposition.
struct Parsed<'a> {
    name: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    value: f64,
}

impl<'a> Parsed<'a> {
    /// Histograms are few and left out. No value of a label has a comma here.
    fn all(text: &'a str) -> Vec<Self> {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.contains("mcad_requested_"));
        let parse = |line: &'a str| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
            Self {
                name,
                labels: labels.map(|(k, v)| (k, v.trim_matches('"'))).collect(),
                value: value.parse().unwrap(),
            }
        };
        lines.map(parse).collect()
    }
}

fn families(lines: &[Parsed<'_>]) -> Vec<MetricFamily> {
    let made = |lines: &[Parsed<'_>]| {
        let mut family = MetricFamily::default();
        family.set_name(lines[0].name.to_owned());
        family.set_help("For measuring.".to_owned());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(lines.iter().map(metric).collect());
        family
    };
    lines.chunk_by(|a, b| a.name == b.name).map(made).collect()
}

fn metric(line: &Parsed<'_>) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(line.value);
    let mut metric = Metric::from_gauge(gauge);
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    metric.set_label(line.labels.iter().map(pair).collect());
    metric
}

fn now(seconds: u64) -> Now {
    Now { since_start: std::time::Duration::from_secs(seconds), unix_ms: 1_700_000_000_000 + seconds * 1000 }
}

fn pod_uid(node: usize, pod: usize) -> String {
    uid(node * PODS_PER_NODE + pod)
}

/// Half of the pods hold a GPU each, and belong to AppWrappers.
fn cluster() -> Cluster {
    let pod = |node: usize, pod: usize| {
        let at = node * PODS_PER_NODE + pod;
        let gpus = if pod.is_multiple_of(2) { "1" } else { "0" };
        let labels = if pod.is_multiple_of(2) {
            json!({"workload.codeflare.dev/appwrapper": format!("job-{}", at % 500)})
        } else {
            json!({})
        };
        let requests = json!({"cpu": format!("{}m", 500 + at % 7 * 250), "memory": "4Gi", "nvidia.com/gpu": gpus});
        object(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("pod-{at}"), "namespace": namespace(at % 500), "uid": pod_uid(node, pod), "labels": labels},
            "spec": {"nodeName": node_name(node), "containers": [{"name": "main", "resources": {"requests": requests}}]},
            "status": {"phase": "Running"},
        }))
    };
    let pods = (0..NODES).flat_map(|node| (0..PODS_PER_NODE).map(move |at| pod(node, at)));
    Cluster::from_objects((0..NODES).map(|at| node(at, &[])).chain(pods))
}

fn gpu_uuid(node: usize, gpu: usize) -> String {
    format!("GPU-{}", uid(2_000_000 + node * GPUS + gpu))
}

fn report(node: usize, sequence: u64) -> Report {
    let cgroup = |pod: usize| Cgroup {
        id: pod as u64 + 1,
        path: format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
            pod_uid(node, pod).replace('-', "_")
        ),
        pod_uid: pod_uid(node, pod),
        cpu_ns: Some(sequence * 3_456_789_012 + (node * pod) as u64),
        memory_bytes: Some((3 << 30) + (node * pod) as u64 * 4096),
        memory_inactive_file_bytes: Some(1 << 20),
        oom_kills: Some(0),
        ..Cgroup::default()
    };
    let gpu = |gpu: usize| Gpu {
        uuid: gpu_uuid(node, gpu),
        model: "NVIDIA A100-SXM4-80GB".into(),
        bus_id: format!("00000000:{gpu:02X}:00.0"),
        mig_mode: Some(false),
        utilization_ratio: Some((node * 7 + gpu * 13) as f64 % 101.0 / 100.0),
        memory_used_bytes: Some((node * gpu) as u64 * 4096),
        memory_total_bytes: Some(85_899_345_920),
        ..Gpu::default()
    };
    let assigned = |pod: usize| Assignment {
        namespace: namespace((node * PODS_PER_NODE + pod) % 500),
        pod: format!("pod-{}", node * PODS_PER_NODE + pod),
        container: "main".into(),
        resource: "nvidia.com/gpu".into(),
        device_ids: vec![gpu_uuid(node, pod / 2)],
        ..Assignment::default()
    };
    Report {
        version: REPORT_VERSION,
        node: node_name(node),
        boot_id: "boot-1".into(),
        started_at_ms: 1_000,
        sequence,
        uptime_ns: (100 + 10 * sequence) * 1_000_000_000,
        interval_ms: 10_000,
        machine: Some(Machine {
            cpus_online: Some(96),
            cpu_busy_ns: Some(sequence * 500_123_456_789),
            memory_total_bytes: Some(1_204_566_142_976),
            memory_free_bytes: Some((800 << 30) - node as u64 * 4096),
            memory_inactive_file_bytes: Some(9 << 30),
        }),
        cgroups: Some(Cgroups {
            source: "bpf".into(),
            cgroups: (0..PODS_PER_NODE).map(cgroup).collect(),
            seen: Some(400),
            dropped: Some(0),
            ..Cgroups::default()
        }),
        gpus: Some(Gpus { driver_version: "550.1".into(), devices: (0..GPUS).map(gpu).collect(), ..Gpus::default() }),
        assignments: Some(Assignments {
            assigned: (0..PODS_PER_NODE).step_by(2).map(assigned).collect(),
            allocatable: vec![DeviceIds {
                resource: "nvidia.com/gpu".into(),
                device_ids: (0..GPUS).map(|gpu| gpu_uuid(node, gpu)).collect(),
            }],
        }),
        ..Report::default()
    }
}
