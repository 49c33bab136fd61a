//! Cost of computing whether 1,000 waiting AppWrappers, of up to 512 pods each, fit on 5,000 nodes:
//! `cargo bench -p mcad-aggregator --bench fit`.
//!
//! No two request the same, so that no result can be shared. For comparison, on a few of the AppWrappers: placing pods one by one,
//! checking every node for each. Also: how often the search for a placement is cut short on 1,000 tight random clusters.
#![allow(clippy::unwrap_used, reason = "what is unwrapped was made here")]
mod support;
#[path = "support/tight.rs"]
mod tight;

use std::collections::BTreeSet;

use mcad_accounting::cluster::Cluster;
use mcad_accounting::fit::fits;
use mcad_accounting::ladder::ResourceLadder;
use mcad_accounting::merge::Ages;
use mcad_accounting::now::Now;
use mcad_accounting::object::submission::Submitted;
use mcad_accounting::object::{AppWrapper, Object};
use mcad_accounting::options::Options;
use mcad_accounting::resource::{Amounts, Resource};
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::snapshot::verdict::{Fits, Outcome};
use mcad_accounting::trial::Trial;
use mcad_accounting::views::{NodeView, without_reports};
use mcad_aggregator::known::Known;
use serde_json::{Value, json};
use support::objects::{node, node_name, object};
use support::{begin, both, figure, spell, timed};

const NODES: usize = 5_000;
const WAITING: usize = 1_000;
const RUNS: usize = 7;
/// AppWrappers for the comparison, which is slow.
const PEERS: usize = 5;

/// A queue: the demand of its `at`th AppWrapper, as groups of identical pods.
struct Queue {
    name: &'static str,
    /// How many of the 8 GPUs are free on the nodes, in turn.
    free: &'static [u32],
    groups: fn(usize) -> Vec<Value>,
}

static QUEUES: [Queue; 6] = [
    Queue {
        name: "jobs of 1 to 512 pods, a third of them with two groups",
        free: &[0, 1, 2, 3, 5, 8],
        groups: |at| {
            let mut groups = vec![group(at, 1 + at * 37 % 512, [1, 2, 4, 8, 0][at % 5], &json!({}))];
            if at.is_multiple_of(3) {
                groups.push(group(at + 1, 1 + at % 32, 0, &json!({})));
            }
            groups
        },
    },
    Queue {
        name: "512 pods each, none of which fits: memory is short everywhere",
        free: &[1, 2, 3, 5, 8],
        groups: |at| vec![json!({"replicas": 512, "spec": spec(at, "2000Gi", 1, &json!({}))})],
    },
    Queue {
        name: "512 pods each without GPUs, five to a node",
        free: &[0, 1, 2, 3, 5, 8],
        groups: |at| vec![group(at, 512, 0, &json!({}))],
    },
    Queue {
        name: "512 pods each, each AppWrapper with constraints of its own",
        free: &[1, 2, 3, 5, 8],
        groups: |at| {
            let expressions = json!([
                {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-A100-SXM4-80GB"]},
                {"key": "rack", "operator": "NotIn", "values": [format!("rack-{at}")]},
            ]);
            let terms = json!({"nodeSelectorTerms": [{"matchExpressions": expressions}]});
            let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}});
            vec![group(at, 512, 1, &affinity)]
        },
    },
    Queue {
        name: "512 pods each with a host port and scratch space",
        free: &[0, 1, 2, 3, 5, 8],
        groups: |at| {
            let mut group = group(at, 512, 1, &json!({}));
            group["spec"]["containers"][0]["ports"] = json!([{"hostPort": 1_024 + at}]);
            group["spec"]["containers"][0]["resources"]["requests"]["ephemeral-storage"] = json!("100Gi");
            vec![group]
        },
    },
    Queue {
        name: "three groups each, of 256, 128 and 128 pods, that do not all fit",
        free: &[1, 2, 3, 5, 8],
        groups: |at| {
            let large = json!({"replicas": 256, "spec": spec(at, "400Gi", 8, &json!({}))});
            vec![large, group(at, 128, 4, &json!({})), group(at + 1, 128, 2, &json!({}))]
        },
    },
];

fn main() {
    begin("fit: 1,000 waiting AppWrappers on 5,000 nodes");
    submitted();
    for queue in &QUEUES {
        let snapshot = snapshot(queue);
        let found = fits(&snapshot);
        let count = |outcome| found.values().filter(|verdict| verdict.outcome == outcome).count();
        let [yes, no, unproven] = [Outcome::Fits, Outcome::Never, Outcome::Unproven].map(count);
        println!("  {}: {yes} fit, {no} do not, {unproven} unproven", queue.name);
        figure("  all of them, median wall / CPU time", both(RUNS, || fits(&snapshot)), "budget 60 ms");
        let (time, same) = timed(|| one_by_one(&snapshot, &found));
        figure("  peer: pods one by one, for 1,000", spell(time * (WAITING / PEERS) as u32), same);
    }
    tight::cut_short();
}

fn group(at: usize, replicas: usize, gpus: usize, affinity: &Value) -> Value {
    json!({"replicas": replicas, "spec": spec(at, &format!("{}Mi", 8_192 + at), gpus, affinity)})
}

fn spec(at: usize, memory: &str, gpus: usize, affinity: &Value) -> Value {
    let requests =
        json!({"cpu": format!("{}m", 1_000 + at % 17 * 250), "memory": memory, "nvidia.com/gpu": gpus.to_string()});
    let tolerations = json!([{"key": "nvidia.com/gpu", "operator": "Exists"}]);
    json!({"affinity": affinity, "tolerations": tolerations, "containers": [{"name": "main", "resources": {"requests": requests}}]})
}

fn appwrapper(at: usize, groups: Vec<Value>) -> Object {
    let component = |group: Value| {
        let template = json!({"spec": {"template": {"spec": group["spec"]}}});
        json!({"podSets": [{"replicas": group["replicas"], "path": "template.spec.template"}], "template": template})
    };
    object(json!({
        "apiVersion": "workload.codeflare.dev/v1beta2", "kind": "AppWrapper",
        "metadata": {"name": format!("job-{at}"), "namespace": format!("team-{}", at % 50), "uid": format!("job-{at}")},
        "spec": {"components": groups.into_iter().map(component).collect::<Vec<_>>()}, "status": {"phase": "Suspended"},
    }))
}

/// A pod that leaves this many GPUs free, and the same share of the rest.
fn filler(at: usize, free: u32) -> Object {
    let requests = json!({
        "cpu": (8 - free) * 11, "memory": format!("{}Gi", (8 - free) * 120 + at as u32 % 13), "nvidia.com/gpu": (8 - free).to_string(),
    });
    object(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("filler-{at}"), "namespace": "a", "uid": format!("filler-{at}")},
        "spec": {"nodeName": node_name(at), "containers": [{"name": "main", "resources": {"requests": requests}}]},
        "status": {"phase": "Running"},
    }))
}

fn cluster(queue: &Queue) -> Cluster {
    let pods = (0..NODES).map(|at| filler(at, queue.free[at % queue.free.len()]));
    let waiting = (0..WAITING).map(|at| appwrapper(at, (queue.groups)(at)));
    Cluster::from_objects((0..NODES).map(|at| node(at, &["rdma/hca"])).chain(pods).chain(waiting))
}

/// The cost of `fit -f`, once the cluster is read: a Job of 512 pods, of which some copies fit.
fn submitted() {
    let known = Known::new(cluster(&QUEUES[0]), Options::default(), Ages::DoNot);
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "train"},
        "spec": {"parallelism": 512, "template": {"spec": spec(1, "8192Mi", 2, &json!({}))}},
    });
    let Submitted::Pods(submission) = Submitted::of(&job, "team-1", None).unwrap() else { panic!("a Job has pods") };
    let judge = |copies| {
        let ground = known.ground(&[&submission.appwrapper], &BTreeSet::new(), Now::default());
        Trial::new(&ground).submit(&submission, copies).fit.unwrap().fit
    };
    assert!((1..100).contains(&judge(100)), "some copies fit, and some do not");
    println!("  fit -f: {} of 100 copies of a Job of 512 pods fit", judge(100));
    figure("  one copy, median wall / CPU time", both(RUNS, || judge(1)), "budget 250 ms");
    figure("  100 copies, median wall / CPU time", both(RUNS, || judge(100)), "budget 250 ms");
}

fn snapshot(queue: &Queue) -> Snapshot {
    let cluster = cluster(queue);
    let options = Options::default();
    let views = without_reports(&cluster, &options);
    Snapshot::new(&cluster, views, Now::default(), 1_700_000_000_000, &options)
}

/// Places every pod of some AppWrappers by checking all nodes, and returns whether it found more places.
fn one_by_one(snapshot: &Snapshot, found: &Fits) -> &'static str {
    let views = &snapshot.appwrappers.as_ref().unwrap().appwrappers;
    let mut tried = views.iter().step_by(views.len() / PEERS).take(PEERS);
    let same = tried.all(|view| place(snapshot, &view.appwrapper) <= found[&view.appwrapper.name].placed);
    if same { "finds no more" } else { "FINDS MORE" }
}

fn place(snapshot: &Snapshot, appwrapper: &AppWrapper) -> u64 {
    let nodes = &snapshot.nodes.as_ref().unwrap().nodes;
    let free = |resource| move |view: &NodeView| view.rung(&resource).map_or(0, ResourceLadder::surely_free);
    let [gpu, cpu, memory] = [Resource::Gpu, Resource::Cpu, Resource::Memory];
    let (gpu, cpu, memory) = (free(gpu), free(cpu), free(memory));
    let mut rooms: Vec<[i128; 3]> = nodes.iter().map(|view| [gpu(view), cpu(view), memory(view)]).collect();
    let wants = |requests: &Amounts| [requests.gpus, requests.millicores, requests.bytes];
    let mut groups: Vec<_> = appwrapper.demand.groups.iter().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(wants(&group.requests)));
    let mut placed = 0;
    for group in groups {
        let wants = wants(&group.requests);
        for _ in 0..group.count {
            let fits = |at: &usize| {
                (0..3).all(|kind| rooms[*at][kind] >= wants[kind]) && group.constraints.select(&nodes[*at].node)
            };
            let Some(at) = (0..rooms.len()).filter(fits).min_by_key(|at| (rooms[*at], *at)) else { break };
            (0..3).for_each(|kind| rooms[at][kind] -= wants[kind]);
            placed += 1;
        }
    }
    placed
}
