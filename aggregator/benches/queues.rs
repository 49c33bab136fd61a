//! What Kueue's queues cost: `cargo bench -p mcad-aggregator --bench queues`.
//!
//! 100,000 Workloads, one in ten of them unfinished; 100,000 pods on 10,000 nodes, half of them of Workloads; 1,000 AppWrappers that wait in
//! trees of Cohorts of depth 5, each with 16 flavors to try; and the flow of the quotas of these flavors over the nodes.
#![allow(clippy::unwrap_used, reason = "what is unwrapped was made here")]
mod support;

use std::sync::Arc;
use std::time::Duration;

use mcad_accounting::cluster::{Cluster, Event};
use mcad_accounting::now::Now;
use mcad_accounting::object::{Kind, needed, read};
use mcad_accounting::options::Options;
use mcad_accounting::queue::facts::Facts;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::views::without_reports;
use serde_json::{Value, json};
use support::counted::{Counted, held_bytes};
use support::objects::{namespace, node, node_name, object, uid};
use support::{Times, begin, both, figure, megabytes, spell, timed};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const NODES: usize = 10_000;
const WORKLOADS: usize = 100_000;
const PODS: usize = 100_000;
const WAITING: usize = 1_000;
const FLAVORS: usize = 16;
const QUEUES: usize = 50;
const DEPTH: usize = 5;
const RUNS: usize = 5;
const EVENTS: usize = 2_000;

fn main() {
    begin("queues: 100,000 Workloads and pods, 10,000 nodes, 50 ClusterQueues of 16 flavors in trees of 5");
    let mut cluster = Cluster::from_objects((0..NODES).map(|at| node(at, &[])).chain(queues().map(object)));
    let before = held_bytes();
    for at in 0..WORKLOADS {
        cluster.apply(Event::Apply(object(workload(at, at % 10 != 0))));
    }
    let held = held_bytes() - before;
    let each = held / WORKLOADS as u64;
    figure("held of Workloads, nine of ten finished, and of each", format!("{}, {each} B", megabytes(held)), "");
    let before = held_bytes();
    for at in 0..WORKLOADS {
        cluster.apply(Event::Apply(object(workload(at, false))));
    }
    let more = held + held_bytes() - before;
    figure("held of Workloads, none finished", megabytes(more), "budget 60 MB");
    decode();
    let apply = |at: usize| {
        let event = Event::Apply(object(workload(at * 7_919 % WORKLOADS, at.is_multiple_of(2))));
        timed(|| cluster.apply(event)).0
    };
    let times = Times::new((0..EVENTS).map(apply).collect());
    figure("apply of a Workload, median", spell(times.quantile(0.5)), "budget 5 µs");
    for at in 0..WORKLOADS {
        cluster.apply(Event::Apply(object(workload(at, at % 10 != 0))));
    }
    for at in 0..WAITING {
        cluster.apply(Event::Apply(object(appwrapper(at * 10))));
    }
    for at in 0..PODS {
        cluster.apply(Event::Apply(object(pod(at))));
    }
    accounts(&cluster);
}

fn decode() {
    let text = workload(0, false).to_string();
    let kind = Kind::Workload;
    let decode = || read(kind, &needed(kind, &mut serde_json::Deserializer::from_str(&text)).unwrap()).unwrap();
    let times: Vec<Duration> = (0..EVENTS).map(|_| timed(decode).0).collect();
    let what = format!("decode of a Workload from {:.1} KB of text, median", text.len() as f64 / 1e3);
    figure(&what, spell(Times::new(times).quantile(0.5)), "budget 50 µs");
}

fn accounts(cluster: &Cluster) {
    figure("the facts, under the lock, by the clock / on a processor", both(RUNS, || Facts::of(cluster).unwrap()), "");
    let options = Options::default();
    let snapshot = Snapshot::new(cluster, without_reports(cluster, &options), Now::default(), 0, &options);
    let facts = Facts::of(cluster).unwrap();
    let all = || snapshot.accounts(&facts, Some(0));
    figure("all accounts of 10,000 nodes, 1,000 waiting", both(RUNS, all), "budgets 20 + 20 ms");
    let none = Snapshot { nodes: None, ..snapshot.clone() };
    figure("  the same without nodes", both(RUNS, || none.accounts(&facts, Some(0))), "budget 20 ms");
    let accounts = snapshot.accounts(&facts, Some(0));
    assert!(accounts.appwrappers.len() == WAITING && accounts.totals.len() >= 3);
    let _ = Arc::new(accounts);
}

fn meta(name: &str, at: usize) -> Value {
    json!({"name": name, "namespace": namespace(at), "uid": uid(at), "creationTimestamp": "2026-01-05T09:00:00Z"})
}

/// Flavors by zone and product, queues, and Cohorts above each.
fn queues() -> impl Iterator<Item = Value> {
    let of = |kind: &str, metadata: Value, spec: Value| json!({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind, "metadata": metadata, "spec": spec});
    let flavor = move |at: usize| {
        let zone = format!("eu-west-1{}", ["a", "b", "c"][at % 3]);
        let labels = if at < 8 { json!({"topology.kubernetes.io/zone": zone}) } else { json!({}) };
        of("ResourceFlavor", json!({"name": format!("f{at}")}), json!({"nodeLabels": labels}))
    };
    let quotas = || {
        let resources = |_| {
            json!([{"name": "cpu", "nominalQuota": "10"}, {"name": "memory", "nominalQuota": "100Gi"},
                {"name": "nvidia.com/gpu", "nominalQuota": "7", "lendingLimit": "3"}])
        };
        let flavors: Vec<_> =
            (0..FLAVORS).map(|at| json!({"name": format!("f{at}"), "resources": resources(at)})).collect();
        json!([{"coveredResources": ["cpu", "memory", "nvidia.com/gpu"], "flavors": flavors}])
    };
    let queue = move |at: usize| {
        let spec = json!({"cohortName": format!("c{}-{DEPTH}", at % 5), "resourceGroups": quotas(),
            "flavorFungibility": {"whenCanBorrow": "TryNextFlavor"}});
        of("ClusterQueue", json!({"name": format!("q{at}")}), spec)
    };
    let local = move |at: usize| {
        let metadata = json!({"name": "main", "namespace": namespace(at)});
        of("LocalQueue", metadata, json!({"clusterQueue": format!("q{at}")}))
    };
    let cohort = move |at: usize| {
        let (tree, depth) = (at / DEPTH, at % DEPTH + 1);
        let spec = json!({"parentName": if depth > 1 { format!("c{tree}-{}", depth - 1) } else { String::new() }});
        of("Cohort", json!({"name": format!("c{tree}-{depth}")}), spec)
    };
    let queues = (0..QUEUES).flat_map(move |at| [queue(at), local(at)]);
    (0..FLAVORS).map(flavor).chain(queues).chain((0..5 * DEPTH).map(cohort))
}

fn spec(at: usize) -> Value {
    let requests = json!({"cpu": format!("{}", 8 + at % 7), "memory": "64Gi", "nvidia.com/gpu": "8"});
    json!({"containers": [{"name": "main", "image": "registry.example.com/team/llama:1.2",
        "resources": {"requests": requests, "limits": {"nvidia.com/gpu": "8"}}}]})
}

fn workload(at: usize, is_finished: bool) -> Value {
    let mut metadata = meta(&format!("appwrapper-llama-sft-{at}-a1b2c"), at);
    metadata["ownerReferences"] = json!([{"apiVersion": "workload.codeflare.dev/v1beta2", "kind": "AppWrapper",
        "name": format!("llama-sft-{at}"), "uid": uid(at + 1_000_000), "controller": true}]);
    let sets = json!([{"name": format!("llama-sft-{at}-0"), "count": 2, "template": {"spec": spec(at)}}]);
    let state = if is_finished { "Finished" } else { "Requeued" };
    json!({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": metadata,
        "spec": {"queueName": "main", "podSets": sets},
        "status": {"conditions": [{"type": state, "status": "True", "reason": "x", "message": "y"}]}})
}

fn appwrapper(at: usize) -> Value {
    let mut metadata = meta(&format!("llama-sft-{at}"), at);
    metadata["uid"] = uid(at + 1_000_000).into();
    metadata["labels"] = json!({"kueue.x-k8s.io/queue-name": "main"});
    let component = json!({"template": {"spec": spec(at)}, "podSets": [{"path": "template", "replicas": 2}]});
    json!({"apiVersion": "workload.codeflare.dev/v1beta2", "kind": "AppWrapper", "metadata": metadata,
        "spec": {"suspend": true, "components": [component]}, "status": {"phase": "Suspended"}})
}

/// One in four has the label of an AppWrapper, one in four the owner of a Workload, and the others belong to none.
fn pod(at: usize) -> Value {
    let mut metadata = meta(&format!("llama-sft-worker-{at}"), at / 4);
    metadata["uid"] = uid(at + 2_000_000).into();
    let of = at / 4 % (WORKLOADS / 10) * 10;
    match at % 4 {
        0 => {
            metadata["namespace"] = namespace(of).into();
            metadata["labels"] = json!({"workload.codeflare.dev/appwrapper": format!("llama-sft-{of}")});
        }
        1 => {
            metadata["namespace"] = namespace(of).into();
            metadata["ownerReferences"] = json!([{"kind": "Job", "name": "job", "uid": uid(of + 1_000_000)}]);
        }
        _ => {}
    }
    let container = json!({"name": "main", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {"nodeName": node_name(at % NODES), "containers": [container]}, "status": {"phase": "Running"}})
}
