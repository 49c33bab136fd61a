//! Cost of the page for 10,000 nodes of 8 GPUs: `cargo bench -p mcad-aggregator --bench page`.
//!
//! Everything between a browser's request and the first byte of the answer: the snapshot, from existing views, and the HTML. 1,000
//! AppWrappers wait.
#![allow(clippy::unwrap_used, reason = "what is unwrapped was made here")]
mod support;

use std::time::Duration;

use mcad_accounting::cluster::Cluster;
use mcad_accounting::merge::Ages;
use mcad_accounting::now::Now;
use mcad_accounting::options::Options;
use mcad_accounting::snapshot::Snapshot;
use mcad_aggregator::known::Known;
use mcad_present::history::History;
use mcad_present::page::query::PageQuery;
use mcad_present::page::{Shown, render};
use serde_json::json;
use support::objects::{namespace, node, object};
use support::{begin, both, figure, megabytes};

const NODES: usize = 10_000;
const WAITING: usize = 1_000;
const RUNS: usize = 9;

fn main() {
    begin("the page: 10,000 nodes of 8 GPUs, 1,000 AppWrappers that wait");
    let now = Now { since_start: Duration::from_hours(2), unix_ms: 1_767_607_200_000 };
    let objects = (0..NODES).map(|at| node(at, &[])).chain((0..WAITING).map(waiting));
    let known = Known::new(Cluster::from_objects(objects), Options::default(), Ages::Count);
    known.refit(now);
    let mut history = History::default();
    (0..240).for_each(|_| history.add(&known.snapshot(now)));
    let snapshot = known.snapshot(now);
    let html = |snapshot: &Snapshot, query: &str| {
        let query = PageQuery::parse("/", query).unwrap().unwrap();
        render(&query, &Shown { snapshot, history: &history }, now).unwrap()
    };
    let first = || html(&known.snapshot(now), "");
    figure("from request to answer, median wall / CPU time", both(RUNS, first), "≤ 300 ms");
    figure("of which HTML, from a snapshot", both(RUNS, || html(&snapshot, "")), "");
    figure("the last page, by name", both(RUNS, || html(&snapshot, "sort=name&page=200")), "");
    figure("bytes", megabytes(html(&snapshot, "").len() as u64), "≤ 0.5 MB");
}

fn waiting(at: usize) -> mcad_accounting::object::Object {
    let requests = json!({"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": 1 + at % 16});
    object(json!({
        "apiVersion": "workload.codeflare.dev/v1beta1", "kind": "AppWrapper",
        "metadata": {"name": format!("waiting-{at}"), "namespace": namespace(at), "uid": format!("w-{at}"), "creationTimestamp": "2026-01-05T08:00:00Z"},
        "spec": {"resources": {"GenericItems": [{"generictemplate": {}, "custompodresources": [{"replicas": 2, "requests": requests}]}]}},
        "status": {"state": "Pending"},
    }))
}
