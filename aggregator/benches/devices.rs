//! Cost of devices and claims for 10,000 nodes of 8 GPUs, each held by a claim of a pod: `cargo bench -p mcad-aggregator --bench devices`.
//!
//! Slices and claims are like those of NVIDIA's driver and the scheduler. For comparison: the same cluster with a device plugin, where
//! nodes declare their GPUs and pods request them.
#![allow(clippy::unwrap_used, reason = "what is unwrapped was made here")]
mod support;

use std::time::Duration;

use mcad_accounting::cluster::devices::DeviceInput;
use mcad_accounting::cluster::{Cluster, Event, Source};
use mcad_accounting::merge::{Ages, View, merge};
use mcad_accounting::nodes::{Limits, Nodes};
use mcad_accounting::now::Now;
use mcad_accounting::object::alike::Alike;
use mcad_accounting::object::{Kind, Object, needed, read};
use mcad_accounting::options::Options;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::snapshot::verdict::Fits;
use mcad_present::exposition::{Closed, Exposition, Sink};
use mcad_present::metrics;
use serde_json::{Value, json};
use support::counted::{Counted, held_bytes, peak_of};
use support::objects::{namespace, node_json, node_name, object, uid};
use support::{Times, begin, both, figure, megabytes, spell, timed};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const NODES: usize = 10_000;
const GPUS: usize = 8;
const RUNS: usize = 5;
/// Events of each kind.
const EVENTS: usize = 4_000;
/// Nodes with partitioned GPUs; more of them would add nothing new.
const CUT_NODES: usize = 500;

fn main() {
    begin("devices: 10,000 nodes of 8 GPUs in slices, 80,000 claims of 80,000 pods");
    let plugin = cluster(true);
    let mut dra = cluster(false);
    let before = held_bytes();
    let (slices_peak, ()) = peak_of(|| {
        let slices = listed((0..NODES).map(|node| slice(node, 1)));
        dra.apply(Event::Reset(Source::ResourceSlices, slices));
    });
    let slices = held_bytes() - before;
    let (claims_peak, ()) = peak_of(|| {
        let claims = listed((0..NODES * GPUS).map(|at| claim(at, true)));
        dra.apply(Event::Reset(Source::ResourceClaims, claims));
    });
    let claims = held_bytes() - before - slices;
    assert_eq!(dra.device_input(), DeviceInput::Known);
    figure("held of slices and claims", megabytes(slices + claims), "budget 40 MB");
    figure("  slices, and of each node", format!("{}, {} B", megabytes(slices), slices / NODES as u64), "1,024 B");
    let each = claims / (NODES * GPUS) as u64;
    figure("  claims, and of each", format!("{}, {each} B", megabytes(claims)), "200 B");
    figure(
        "  most while slices were listed / claims",
        format!("{} / {}", megabytes(slices_peak), megabytes(claims_peak)),
        "",
    );
    events(&mut dra);

    let [with_plugin, with_dra] =
        [("device plugin", &plugin), ("slices and claims", &dra)].map(|(what, cluster)| scrape(what, cluster));
    assert_eq!(with_plugin, with_dra, "both say the same of GPUs");
    cut();
}

/// Nodes and pods, which the two clusters have in common; with a device plugin, also their GPUs.
fn cluster(has_plugin: bool) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.serve([]);
    let node = |at| {
        let mut node = node_json(at, &[]);
        for amounts in ["capacity", "allocatable"].iter().filter(|_| !has_plugin) {
            node["status"][*amounts].as_object_mut().unwrap().remove("nvidia.com/gpu");
        }
        object(node)
    };
    cluster.apply(Event::Reset(Source::Nodes, (0..NODES).map(node).collect()));
    cluster.apply(Event::Reset(Source::Pods, (0..NODES * GPUS).map(|at| object(pod(at, has_plugin))).collect()));
    cluster
}

fn pod(at: usize, has_plugin: bool) -> Value {
    let mut requests = json!({"cpu": "4", "memory": "32Gi"});
    if has_plugin {
        requests["nvidia.com/gpu"] = "1".into();
    }
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod_name(at), "namespace": namespace(at), "uid": uid(at)},
        "spec": {"nodeName": node_name(at / GPUS), "containers": [{"name": "main", "resources": {"requests": requests}}]},
        "status": {"phase": "Running"},
    });
    if !has_plugin {
        pod["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]);
        pod["status"]["resourceClaimStatuses"] = json!([{"name": "gpu", "resourceClaimName": claim_name(at)}]);
    }
    pod
}

fn pod_name(at: usize) -> String {
    format!("llama-sft-7f9c4-worker-{at}")
}

fn claim_name(at: usize) -> String {
    format!("{}-gpu-{:05x}", pod_name(at), at * 7 % 0xf_ffff)
}

fn slice(node: usize, generation: u32) -> Value {
    let device = |gpu: usize| {
        json!({"name": format!("gpu-{gpu}"), "capacity": {"memory": {"value": "81559Mi"}}, "attributes": {
            "type": {"string": "gpu"}, "uuid": {"string": format!("GPU-{}", uid(node * GPUS + gpu))}, "productName": {"string": "NVIDIA H100 80GB HBM3"},
            "brand": {"string": "Nvidia"}, "architecture": {"string": "Hopper"}, "cudaComputeCapability": {"version": "9.0.0"},
            "driverVersion": {"version": "570.86.15"}, "cudaDriverVersion": {"version": "12.8.0"},
            "resource.kubernetes.io/pciBusID": {"string": format!("0000:{gpu:x}b:00.0")},
            "resource.kubernetes.io/pcieRoot": {"string": format!("pci0000:{gpu:x}a")}}})
    };
    json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice",
        "metadata": {"name": format!("{}-gpu.nvidia.com-x7k2p", node_name(node)), "uid": uid(node + 2_000_000)},
        "spec": {"driver": "gpu.nvidia.com", "nodeName": node_name(node),
            "pool": {"name": node_name(node), "generation": generation, "resourceSliceCount": 1},
            "devices": (0..GPUS).map(device).collect::<Vec<_>>()}})
}

fn claim(at: usize, is_allocated: bool) -> Value {
    let mut claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": claim_name(at), "namespace": namespace(at), "uid": uid(at + 3_000_000),
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod_name(at), "uid": uid(at), "controller": true}]},
        "spec": {"devices": {"requests": [{"name": "gpu", "exactly":
            {"deviceClassName": "gpu.nvidia.com", "allocationMode": "ExactCount", "count": 1}}]}}});
    if is_allocated {
        let node = node_name(at / GPUS);
        claim["status"] = json!({
            "allocation": {
                "devices": {"results": [{"request": "gpu", "driver": "gpu.nvidia.com", "pool": node, "device": format!("gpu-{}", at % GPUS)}]},
                "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}},
            "reservedFor": [{"resource": "pods", "name": pod_name(at), "uid": uid(at)}]});
    }
    claim
}

/// Decoded as by a watch, and kept like its list until the list is complete.
fn listed(values: impl Iterator<Item = Value>) -> Vec<Object> {
    let mut alike = Alike::default();
    let share = |value: Value| {
        let mut object = object(value);
        alike.share(&mut object);
        object
    };
    values.map(share).collect()
}

/// The cost of events.
fn events(cluster: &mut Cluster) {
    let mut time = |values: &mut dyn Iterator<Item = Value>| {
        let apply = |value: Value| {
            let event = Event::Apply(object(value));
            timed(|| cluster.apply(event)).0
        };
        Times::new(values.map(apply).collect())
    };
    // Far apart, so that nothing is cached from the sample before.
    let nodes = || (0..EVENTS).map(|sample| sample * 7_919 % NODES);
    let claims = || (0..EVENTS).map(|sample| sample * 7_919 % (NODES * GPUS));
    for (what, times, budget) in [
        ("a slice that is as it was", time(&mut nodes().map(|at| slice(at, 1))), 20),
        ("a slice of a new generation", time(&mut nodes().map(|at| slice(at, 2))), 20),
        ("a claim that is as it was", time(&mut claims().map(|at| claim(at, true))), 5),
        ("a claim that holds nothing any more", time(&mut claims().map(|at| claim(at, false))), 5),
        ("a claim that comes to hold a GPU", time(&mut claims().map(|at| claim(at, true))), 5),
    ] {
        let budget = format!("budget {budget} µs");
        figure(&format!("apply of {what}, median"), spell(times.quantile(0.5)), &budget);
        figure("  99 % are below", spell(times.quantile(0.99)), "");
    }
    for (what, kind, value) in
        [("slice", Kind::ResourceSlice, slice(1, 1)), ("claim", Kind::ResourceClaim, claim(1, true))]
    {
        let text = value.to_string();
        let decode = || read(kind, &needed(kind, &mut serde_json::Deserializer::from_str(&text)).unwrap()).unwrap();
        let times: Vec<Duration> = (0..EVENTS).map(|_| timed(decode).0).collect();
        let what = format!("decode of a {what} from {:.1} KB of text, median", text.len() as f64 / 1e3);
        figure(&what, spell(Times::new(times).quantile(0.5)), "");
    }
}

/// The cost of one scrape, and the GPU metrics in it.
fn scrape(what: &str, cluster: &Cluster) -> Vec<String> {
    println!("  {what}");
    let fits = Fits::new();
    let make = |nodes: &mut Nodes| {
        let told_at_ms = Some(now().unix_ms as i64);
        merge(View { cluster, nodes, fits: &fits, fitted: None, queues: None, ages: Ages::Count, told_at_ms }, now())
    };
    let nobody = || Nodes::new(Limits::KUBERNETES, Options::default());
    let anew = both(RUNS, || make(&mut nobody()));
    figure("  a snapshot made from scratch, median wall / CPU time", anew, "");
    let held = held_bytes();
    let mut nodes = nobody();
    let snapshot = make(&mut nodes);
    figure("  kept of all nodes, with the snapshot", megabytes(held_bytes() - held), "");
    figure("  the snapshot made where no node changed", both(RUNS, || make(&mut nodes)), "");
    figure("  written plain", both(RUNS, || write(&snapshot, &mut Discard(0))), "");
    figure("  snapshot and scrape where no node changed", both(RUNS, || write(&make(&mut nodes), &mut Discard(0))), "");
    let mut text = Vec::new();
    write(&snapshot, &mut text);
    let text = String::from_utf8(text).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    figure("  lines", format!("{}, {}", lines.clone().count(), megabytes(text.len() as u64)), "");
    let of_gpus = |line: &&str| {
        line.contains("nvidia_com_gpu")
            && ["_free{", "_requested{", "_installed{"].iter().any(|name| line.contains(name))
    };
    lines.filter(of_gpus).map(str::to_owned).collect()
}

/// The cost of partitioned GPUs: each is published with about forty alternatives.
fn cut() {
    println!("  cut GPUs, {CUT_NODES} nodes");
    let mut cluster = Cluster::default();
    let before = held_bytes();
    let (peak, ()) = peak_of(|| {
        let slices = listed((0..CUT_NODES * GPUS).map(cut_slice));
        cluster.apply(Event::Reset(Source::ResourceSlices, slices));
    });
    let (held, nodes) = (held_bytes() - before, CUT_NODES as u64);
    let kib = |bytes: u64| format!("{:.1} KiB", bytes as f64 / 1024.0 / nodes as f64);
    figure("  held of a node", kib(held), "budget 8 KiB");
    figure("  most while they were listed, of a node", kib(peak), "");
    let changed = (0..EVENTS.min(CUT_NODES * GPUS)).map(|at| {
        let mut slice = cut_slice(at);
        slice["spec"]["devices"][0]["taints"] = json!([{"key": "example.com/off", "effect": "NoSchedule"}]);
        let event = Event::Apply(object(slice));
        timed(|| cluster.apply(event)).0
    });
    figure(
        "  apply of a slice of 39 devices of which one is tainted, median",
        spell(Times::new(changed.collect()).quantile(0.5)),
        "budget 20 µs",
    );
}

/// A GPU of a node, and all its possible partitions.
fn cut_slice(at: usize) -> Value {
    let (node, gpu) = (at / GPUS, at % GPUS);
    let uuid = format!("GPU-{}", uid(at));
    let consumes = |slices: std::ops::Range<usize>, memory: usize| {
        let mut counters = json!({"memory": {"value": format!("{memory}Gi")}});
        for slice in slices {
            counters[format!("memory-slice-{slice}")] = json!({"value": "1"});
        }
        json!([{"counterSet": format!("gpu-{gpu}-counter-set"), "counters": counters}])
    };
    let mut devices = vec![json!({"name": format!("gpu-{gpu}"), "consumesCounters": consumes(0..8, 80),
        "attributes": {"type": {"string": "gpu"}, "uuid": {"string": uuid}, "productName": {"string": "NVIDIA A100-SXM4-80GB"}},
        "capacity": {"memory": {"value": "80Gi"}}})];
    for (profile, size, starts) in [
        ("1g.10gb", 1, 7),
        ("1g.20gb", 2, 4),
        ("2g.20gb", 2, 3),
        ("3g.40gb", 4, 2),
        ("4g.40gb", 4, 1),
        ("7g.80gb", 8, 1),
        ("1g.10gb.me", 1, 7),
        ("1g.5gb", 1, 7),
        ("2g.10gb", 2, 6),
    ] {
        for start in 0..starts {
            devices.push(json!({"name": format!("gpu-{gpu}-mig-{}-{start}", profile.replace('.', "")), "consumesCounters": consumes(start..start + size, size * 10),
                "attributes": {"type": {"string": "mig"}, "parentUUID": {"string": uuid}, "profile": {"string": profile}, "productName": {"string": "NVIDIA A100-SXM4-80GB"}},
                "capacity": {"memory": {"value": format!("{}Gi", size * 10)}, "multiprocessors": {"value": "14"}}}));
        }
    }
    json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice",
        "metadata": {"name": format!("{}-gpu.nvidia.com-{gpu}", node_name(node)), "uid": uid(at + 4_000_000)},
        "spec": {"driver": "gpu.nvidia.com", "nodeName": node_name(node),
            "pool": {"name": node_name(node), "generation": 1, "resourceSliceCount": GPUS},
            "sharedCounters": [{"name": format!("gpu-{gpu}-counter-set"), "counters": consumes(0..8, 80)[0]["counters"]}],
            "devices": devices}})
}

fn now() -> Now {
    Now { since_start: Duration::from_secs(20), unix_ms: 1_767_607_220_000 }
}

fn write(snapshot: &Snapshot, sink: &mut dyn Sink) {
    let mut out = Exposition::new(sink);
    metrics::write(snapshot, now(), &mut out);
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
