//! The page of whole clusters: what it says of every kind of trouble, and how large it gets.
#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use mcad_accounting::cluster::Cluster;
use mcad_accounting::merge::Snapshot;
use mcad_accounting::object::Kind;
use mcad_present::history::History;
use mcad_present::page::wanted::Wanted;
use mcad_present::page::{PER_PAGE, Shown, render};
use mcad_testkit::build::{node, object, pod, spec, v1beta2, with};
use mcad_testkit::explained::{LATER, NOW, dumped, root, snapshot, snapshot_of};
use serde_json::json;

fn page(snapshot: &Snapshot, path: &str, query: &str) -> String {
    let wanted = Wanted::parse(path, query).unwrap().unwrap();
    render(&wanted, &Shown { snapshot, history: &History::default() }, LATER).unwrap()
}

/// What one reads of it, without tags.
fn text(html: &str) -> String {
    html.split('<').filter_map(|piece| piece.split_once('>')).map(|(_, text)| text).collect()
}

fn check(html: &str, expected: &str) {
    assert!(text(html).contains(expected), "{expected:?} is not in\n{}", text(html));
}

fn scene() -> Snapshot {
    let reports = std::fs::read_to_string(root().join("tests/scene/reports.json")).unwrap();
    let reports = reports.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    snapshot_of(Cluster::from_objects(dumped("scene/cluster.yaml")), reports)
}

#[test]
fn the_front_page_tells_where_the_gpus_are_and_why_who_waits() {
    let html = page(&scene(), "/", "");
    check(&html, "69 GPUs advertised, 70 work, 40 held, 24.8 busy; 10 free, largest block 4.");
    check(&html, "1 phantom: declared to the scheduler, and no healthy hardware stands behind. gpu-13 (1)");
    check(&html, "vit-huge3 h 30 minneeds 8 GPUs; 10 free, but at most 4 on one node; it fits MCAD's sum");
    check(&html, "6 of 11 nodes in trouble.");
    assert!(!html.contains("does not add up"));
}

#[test]
fn one_that_runs_without_all_its_pods_is_shown_with_what_the_rest_lacks() {
    let gpus = |count: u32| json!({"nvidia.com/gpu": count.to_string()});
    let own = with(pod("p", "m", gpus(8)), "/metadata/labels", json!({"workload.codeflare.dev/appwrapper": "w"}));
    let job = json!({"parallelism": 2, "template": {"spec": spec(gpus(8))}});
    let template = json!({"apiVersion": "batch/v1", "kind": "Job", "spec": job});
    let running = v1beta2("w", json!([{"template": template}]), "Running");
    let objects = [node("m", gpus(8)), node("n", gpus(5)), own, running];
    let html = page(&snapshot(&objects, Vec::new()), "/", "");
    check(&html, "1, of which 0 wait, and 1 is placed in part.");
    check(&html, "a/w1 of 2needs 8 GPUs; 5 free16 GPUs8 GPUs");
}

#[test]
fn nodes_with_trouble_come_first_and_can_be_chosen() {
    let snapshot = scene();
    let names = |query: &str| {
        let html = page(&snapshot, "/", query);
        let rows = html.split("<table class=\"nodes\">").nth(1).unwrap_or_default();
        let rows = rows.split("<tr><th scope=\"row\"><a href=\"/node/").skip(1);
        rows.filter_map(|row| row.split('"').next()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names("")[..3], ["gpu-13", "gpu-14", "gpu-17"]);
    assert_eq!(names("show=cordoned"), ["gpu-15"]);
    assert_eq!(names("show=unadvertised"), ["gpu-19"]);
    assert_eq!(names("name=cpu"), ["cpu-1"]);
    assert_eq!(names("sort=name")[0], "cpu-1");
    assert_eq!(names("sort=held")[..2], ["gpu-11", "gpu-12"]);
    assert_eq!(names("name=nothing"), [] as [String; 0]);
}

#[test]
fn the_page_of_a_node_shows_its_devices() {
    let html = page(&scene(), "/node/gpu-14", "");
    check(&html, "Node gpu-14");
    check(&html, "xid_79");
    check(&html, "team-nlp/llama-sft-worker-2");
    let html = page(&scene(), "/node/gpu-17", "");
    check(&html, "No agent reports: hardware is as kubelet declares it, and what is in use is unknown.");
    let html = page(&scene(), "/node/gpu-20", "");
    check(&html, "MIG 1g.10gb");
}

#[test]
fn what_could_not_be_listed_is_unknown() {
    let html = page(&snapshot_of(Cluster::default(), Vec::new()), "/", "");
    check(&html, "Nodes are not known: what is installed");
    check(&html, "Pods are not known: what is requested");
    check(&html, "Nodes are unknown.");
    check(&html, "AppWrappers are unknown");
}

#[test]
fn what_is_missing_stands_before_every_figure() {
    let nodes = [json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {"nvidia.com/gpu.replicas": "4"}},
        "status": {"capacity": {"nvidia.com/gpu.shared": "8"}, "conditions": [{"type": "Ready", "status": "True"}]},
    })];
    let cluster = |kinds: &[Kind]| {
        let known = kinds.iter().copied().collect();
        snapshot_of(Cluster::from_objects_known(nodes.iter().map(object), &known), Vec::new())
    };
    let html = page(&cluster(&[Kind::Node]), "/", "");
    let said = text(&html);
    let at = |sentence: &str| said.find(sentence).unwrap_or_else(|| panic!("{sentence:?} is not in\n{said}"));
    let sentence =
        "8 nvidia.com/gpu.shared advertised (8 shares of 2 GPUs), 8 work, unknown held, busy unknown; unknown free.";
    assert!(at("Pods are not known: what is requested") < at(sentence));
    assert!(at("AppWrappers are not known: how many") < at(sentence));
    check(&html, "Pods are not known: what is held, withheld and free is unknown.");
    let html = page(&cluster(&Kind::ALL), "/", "");
    check(
        &html,
        "8 nvidia.com/gpu.shared advertised (8 shares of 2 GPUs), 8 work, 0 held, busy unknown; 8 free, largest block 8.",
    );
    check(&html, "by nvidia.com/gpu.shared each: 0 of 1, 0 of 2, 0 of 4 and 0 of 8.");
    check(&page(&cluster(&Kind::ALL), "/node/n", ""), "8 shares of 2 GPUs.");
}

#[test]
fn ten_thousand_nodes_are_a_page_of_half_a_megabyte_at_most() {
    let node = |at: usize| {
        let amounts = json!({"cpu": "96", "memory": "1Ti", "nvidia.com/gpu": "8"});
        let ready = if at.is_multiple_of(97) { "False" } else { "True" };
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("gpu-node-{at:05}.eu-west-1.compute.internal"), "uid": format!("n-{at}")},
            "spec": {"unschedulable": at.is_multiple_of(31)},
            "status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": ready}]},
        })
    };
    let waiting = |at: usize| {
        let requests = json!({"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": "9"});
        json!({
            "apiVersion": "workload.codeflare.dev/v1beta1", "kind": "AppWrapper",
            "metadata": {"name": format!("waiting-{at}"), "namespace": "a", "uid": format!("w-{at}"), "creationTimestamp": "2026-01-05T08:00:00Z"},
            "spec": {"resources": {"GenericItems": [{"generictemplate": {}, "custompodresources": [{"replicas": 2, "requests": requests}]}]}},
            "status": {"state": "Pending"},
        })
    };
    let objects: Vec<_> = (0..10_000).map(node).chain((0..500).map(waiting)).collect();
    let snapshot = snapshot(&objects, Vec::new());
    let html = page(&snapshot, "/", "");
    assert!(html.len() <= 500_000, "{} bytes", html.len());
    assert_eq!(html.matches("<tr><th scope=\"row\"><a href=\"/node/").count(), PER_PAGE);
    check(&html, "page 1 of 200, 10\u{202f}000 nodes");
    check(&html, "104 not ready");
    check(&html, "475 more are at /api/v1/appwrappers.");
    check(&page(&snapshot, "/", "page=200"), "gpu-node-09999");
    assert!(NOW.since_start < LATER.since_start);
}
