//! The page of whole clusters: what it says of every kind of trouble, and how large it gets.
#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use std::collections::BTreeSet;

use mcad_accounting::cluster::{Cluster, Event};
use mcad_accounting::merge::Ages;
use mcad_accounting::object::Kind;
use mcad_accounting::options::Options;
use mcad_accounting::snapshot::Snapshot;
use mcad_aggregator::known::Known;
use mcad_present::history::History;
use mcad_present::page::query::PageQuery;
use mcad_present::page::{PER_PAGE, Shown, render, renew};
use mcad_testkit::build::{node, object, pod, spec, v1beta2, with};
use mcad_testkit::explained::{LATER, NOW, dumped, root, snapshot, snapshot_of};
use mcad_wire::report::{Machine, Report};
use serde_json::json;

pub(crate) fn page(snapshot: &Snapshot, path: &str, query: &str) -> String {
    let query = PageQuery::parse(path, query).unwrap().unwrap();
    render(&query, &Shown { snapshot, history: &History::default() }, LATER).unwrap()
}

/// What one reads of it, without tags.
pub(crate) fn text(html: &str) -> String {
    html.split('<').filter_map(|piece| piece.split_once('>')).map(|(_, text)| text).collect()
}

pub(crate) fn check(html: &str, expected: &str) {
    assert!(text(html).contains(expected), "{expected:?} is not in\n{}", text(html));
}

pub(crate) fn scene() -> Snapshot {
    let reports = std::fs::read_to_string(root().join("tests/scene/reports.json")).unwrap();
    let reports = reports.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    snapshot_of(Cluster::from_objects(dumped("scene/cluster.yaml")), reports)
}

#[test]
fn the_front_page_tells_where_the_gpus_are_and_why_who_waits() {
    let html = page(&scene(), "/", "");
    check(&html, "69 GPUs advertised, 70 work, 40 held, 24.8 busy; 10 free, largest block 4.");
    check(&html, "1 phantom: declared to the scheduler without healthy hardware behind it. gpu-13 (1)");
    check(&html, "vit-huge3 h 30 minneeds 8 GPUs; 10 free, but at most 4 on one node; it fits MCAD's sum");
    check(&html, "6 of 11 nodes have problems.");
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
    check(&html, "1 AppWrapper: 0 wait, 1 is partly placed; queues are not known.");
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
    assert_eq!(names("search=cpu"), ["cpu-1"]);
    assert_eq!(names("search=GPU-1+h100+cordoned"), ["gpu-15"]);
    assert_eq!(names("pool=-"), ["cpu-1", "gpu-20"]);
    assert_eq!(names("pool=-&show=admissible&sort=name&search=20"), ["gpu-20"]);
    assert_eq!(names("sort=name")[0], "cpu-1");
    assert_eq!(names("sort=held")[..2], ["gpu-11", "gpu-12"]);
    assert_eq!(names("search=nothing"), [] as [String; 0]);
    assert_eq!(names("pool=nothing"), [] as [String; 0]);
    let html = page(&snapshot, "/", "search=nothing");
    check(&html, "0 of 11 nodes match.");
    check(&html, "No node matches.");
    // A page beyond the last one is the last one.
    assert_eq!(names("page=99").len(), 11);
}

/// Nodes of two kinds of GPU and without any: enough of them to be shown by pool.
pub(crate) fn three_pools() -> Snapshot {
    let node = |at: usize| {
        let (pool, gpus) = [("NVIDIA-A100", 4), ("NVIDIA-H100", 8), ("", 0)][at % 3];
        let amounts = json!({"cpu": "96", "memory": "1Ti", "nvidia.com/gpu": gpus.to_string()});
        let labels = if pool.is_empty() { json!({}) } else { json!({"nvidia.com/gpu.product": pool}) };
        let ready = if at == 4 { "False" } else { "True" };
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("n-{at:02}"), "uid": format!("u-{at}"), "labels": labels},
            "spec": {"unschedulable": at == 0},
            "status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": ready}]},
        })
    };
    let objects: Vec<_> = (0..31).map(node).collect();
    snapshot(&objects, Vec::new())
}

/// The rows of the first table of a class, as one reads them.
fn rows(html: &str, class: &str) -> Vec<String> {
    let table = html.split(&format!("<table class=\"{class}\">")).nth(1).unwrap_or_default();
    let body = table.split("</table>").next().and_then(|table| table.split("<tbody>").nth(1)).unwrap_or_default();
    let row = |row: &str| {
        text(&format!("<tr{}", row.replace("</t", " </t"))).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    body.split("<tr").skip(1).map(row).collect()
}

#[test]
fn a_large_cluster_is_shown_by_pool_first() {
    let snapshot = three_pools();
    let html = page(&snapshot, "/", "");
    check(&html, "31 nodes in 3 pools.");
    let pools = [
        "NVIDIA-A100 11 10 admissible 1 cordoned 0 44 40",
        "NVIDIA-H100 10 9 admissible 1 not ready 1 with problems 80 72",
        "no pool label 10 10 admissible 0 0 0",
    ];
    assert_eq!(rows(&html, "pools"), pools);
    assert_eq!(rows(&html, "nodes").len(), 0);
    check(&html, "Show all 31 nodes one by one");
    // Each number leads to those nodes.
    let link = "href=\"/?pool=NVIDIA-H100&amp;show=not_ready#nodes\"";
    assert!(html.contains(link), "{html}");
    let html = page(&snapshot, "/", "pool=NVIDIA-H100&show=not_ready");
    check(&html, "1 of 31 nodes matches.");
    assert_eq!((rows(&html, "pools").len(), rows(&html, "nodes").len()), (3, 1));
    assert_eq!(rows(&page(&snapshot, "/", "show=all"), "nodes").len(), 31);
    assert_eq!(rows(&page(&snapshot, "/", "sort=name"), "nodes").len(), 31);
    // A search leaves the pools in which nodes match.
    let html = page(&snapshot, "/", "search=a100+cord");
    assert_eq!(rows(&html, "pools"), ["NVIDIA-A100 1 1 cordoned 0 4 0"]);
    assert_eq!(rows(&html, "nodes").len(), 1);
}

#[test]
fn a_small_cluster_and_one_of_one_pool_are_lists_of_nodes() {
    assert_eq!(rows(&page(&scene(), "/", ""), "pools").len(), 0);
    let nodes: Vec<_> = (0..30).map(|at| node(&format!("n-{at}"), json!({"nvidia.com/gpu": "8"}))).collect();
    let html = page(&snapshot(&nodes, Vec::new()), "/", "");
    assert_eq!((rows(&html, "pools").len(), rows(&html, "nodes").len()), (0, 30));
}

#[test]
fn any_number_of_pools_is_a_short_table() {
    let node = |at: usize| {
        with(
            node(&format!("n-{at}"), json!({"nvidia.com/gpu": "8"})),
            "/metadata/labels",
            json!({"nvidia.com/gpu.product": format!("p-{at}")}),
        )
    };
    let nodes: Vec<_> = (0..100).map(node).collect();
    let snapshot = snapshot(&nodes, Vec::new());
    let html = page(&snapshot, "/", "");
    assert_eq!(rows(&html, "pools").len(), 20);
    check(&html, "80 more pools with 80 nodes have no row.");
    // Nodes without the label have no name to search for, so they always have a row and a choice.
    let bare = (0..3).map(|at| self::node(&format!("bare-{at}"), json!({"nvidia.com/gpu": "8"})));
    let with_bare = self::snapshot(&nodes.iter().cloned().chain(bare).collect::<Vec<_>>(), Vec::new());
    let whole = page(&with_bare, "/", "");
    assert_eq!(rows(&whole, "pools").len(), 21);
    assert_eq!(rows(&whole, "pools")[20], "no pool label 3 3 admissible 0 24 24");
    check(&whole, "80 more pools with 80 nodes have no row. A search for the name of a pool shows it.");
    assert!(whole.contains("<option value=\"-\">no pool label</option>"), "{whole}");
    // One without a row can be chosen, and the form knows it.
    let html = page(&snapshot, "/", "pool=p-99");
    assert_eq!(rows(&html, "nodes").len(), 1);
    assert!(html.contains("<option value=\"p-99\" selected>"), "{html}");
}

#[test]
fn appwrappers_sort_by_wait_size_and_namespace() {
    let appwrapper = |namespace: &str, minutes: u64, gpus: u64| {
        let requests = json!({"cpu": "1", "nvidia.com/gpu": gpus.to_string()});
        json!({
            "apiVersion": "workload.codeflare.dev/v1beta1", "kind": "AppWrapper",
            "metadata": {"name": "w", "namespace": namespace, "uid": namespace, "creationTimestamp": format!("2026-01-05T08:{:02}:00Z", 50 - minutes)},
            "spec": {"resources": {"GenericItems": [{"generictemplate": {}, "custompodresources": [{"replicas": 1, "requests": requests}]}]}},
            "status": {"state": "Pending"},
        })
    };
    let objects = [
        appwrapper("a", 10, 4),
        appwrapper("b", 30, 1),
        appwrapper("c", 20, 9),
        node("n", json!({"nvidia.com/gpu": "8"})),
    ];
    let snapshot = snapshot(&objects, Vec::new());
    let namespaces = |query: &str| -> String {
        rows(&page(&snapshot, "/", query), "waiting").iter().filter_map(|row| row.chars().next()).collect()
    };
    for (query, expected) in [
        ("", "bca"),
        ("appwrapper_sort=wait_ascending", "acb"),
        ("appwrapper_sort=size", "cab"),
        ("appwrapper_sort=size_ascending", "bac"),
        ("appwrapper_sort=namespace", "abc"),
        ("appwrapper_sort=namespace_descending", "cba"),
    ] {
        assert_eq!(namespaces(query), expected, "{query}");
    }
    let html = page(&snapshot, "/", "appwrapper_sort=size&search=x");
    for head in [
        "aria-sort=\"descending\"><a href=\"/?search=x&amp;appwrapper_sort=size_ascending#appwrappers\">Requests",
        "aria-sort=\"none\"><a href=\"/?search=x#appwrappers\">Waiting for",
        "aria-sort=\"none\"><a href=\"/?search=x&amp;appwrapper_sort=namespace#appwrappers\">Namespace / name",
        "<input type=\"hidden\" name=\"appwrapper_sort\" value=\"size\">",
    ] {
        assert!(html.contains(head), "{head} is not in\n{html}");
    }
}

#[test]
fn the_page_of_a_node_shows_its_devices() {
    let html = page(&scene(), "/node/gpu-14", "");
    check(&html, "Node gpu-14");
    check(&html, "xid_79");
    check(&html, "team-nlp/llama-sft-worker-2");
    let html = page(&scene(), "/node/gpu-17", "");
    check(&html, "No agent reports: hardware values are those declared by kubelet, and usage is unknown.");
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
    check(&html, "Pods are not known, so what is held, withheld and free is unknown.");
    let html = page(&cluster(&Kind::ALL), "/", "");
    check(
        &html,
        "8 nvidia.com/gpu.shared advertised (8 shares of 2 GPUs), 8 work, 0 held, busy unknown; 8 free, largest block 8.",
    );
    check(&html, "by nvidia.com/gpu.shared per pod: 0 with 1, 0 with 2, 0 with 4 and 0 with 8.");
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

/// The ids of the parts of a page that updates replace.
fn live_parts(html: &str) -> Vec<&str> {
    let tags = html.split('<').filter_map(|piece| piece.split_once('>')).map(|(tag, _)| tag);
    let live = tags.filter(|tag| tag.split(' ').any(|word| word == "data-live"));
    live.map(|tag| tag.split("id=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap()).collect()
}

fn update(snapshot: &Snapshot, path: &str, query: &str) -> String {
    let query = PageQuery::parse(path, query).unwrap().unwrap();
    renew(&query, &Shown { snapshot, history: &History::default() }, LATER)
}

#[test]
fn a_page_has_the_same_live_parts_whatever_there_is_to_show() {
    let everything = scene();
    let nothing = snapshot(&[], Vec::new());
    let unknown = snapshot_of(Cluster::default(), Vec::new());
    let queues = snapshot_of(Cluster::from_objects(dumped("cases/queue-2.yaml")), Vec::new());
    let front = ["age", "standing", "truth", "resources", "gpu-use", "waiting", "matches", "node-list"];
    for snapshot in [&everything, &nothing, &unknown, &queues, &three_pools()] {
        for query in ["", "search=x", "show=all", "resource=cpu"] {
            assert_eq!(live_parts(&page(snapshot, "/", query)), front);
            let html = update(snapshot, "/", query);
            let mut parts = live_parts(&html);
            parts[..2].reverse();
            assert_eq!(parts, front);
        }
    }
    // A node with devices, one without an agent, and one that does not exist.
    let of_node = ["age", "standing", "truth", "resources", "devices"];
    for node in ["/node/gpu-14", "/node/gpu-17", "/node/cpu-1"] {
        assert_eq!(live_parts(&page(&everything, node, "")), of_node);
    }
    for snapshot in [&everything, &nothing, &unknown] {
        let html = update(snapshot, "/node/gone", "");
        let mut parts = live_parts(&html);
        parts[..2].reverse();
        assert_eq!(parts, of_node);
    }
}

#[test]
fn an_open_page_of_a_node_that_is_deleted_says_so() {
    let there = object(&node("n", json!({"nvidia.com/gpu": "8"})));
    let known = Known::new(Cluster::from_objects([there.clone()]), Options::default(), Ages::DoNot);
    check(&update(&known.snapshot(NOW), "/node/n", ""), "GPUs");
    known.apply(Event::Delete(there), NOW);
    let html = update(&known.snapshot(NOW), "/node/n", "");
    check(&html, "no node named n.");
    check(&html, "snapshot 0 s old");
    assert!(!text(&html).contains("GPUs"), "{html}");
}

#[test]
fn devices_that_are_not_known_are_not_called_none() {
    let objects = [node("a", json!({"nvidia.com/gpu": "8"})), node("b", json!({"cpu": "64"}))];
    let amounts = |snapshot: &Snapshot| rows(&page(snapshot, "/", "resource=nvidia.com/gpu&sort=name"), "nodes");
    let known = snapshot(&objects, Vec::new());
    assert_eq!(amounts(&known), ["a admissible 8 8 0 unknown 8", "b admissible none none none none none"]);
    // Slices may list GPUs of the node of which kubelet declares none.
    let unknown = |objects: &[serde_json::Value]| {
        let kinds: BTreeSet<Kind> = [Kind::Node, Kind::Pod, Kind::AppWrapper].into();
        let mut cluster = Cluster::from_objects_known(objects.iter().map(object), &kinds);
        cluster.serve_devices([Kind::ResourceSlice, Kind::ResourceClaim].into());
        snapshot_of(cluster, Vec::new())
    };
    let expected = ["a admissible 8 8 0 unknown 8", "b admissible unknown unknown unknown unknown unknown"];
    assert_eq!(amounts(&unknown(&objects)), expected);
    // Nor is their sum with what is known of other nodes.
    let of_pool = |at: usize, gpus: &str| {
        let name = ["x", "y"][at % 2];
        let labels = json!({"nvidia.com/gpu.product": name});
        with(node(&format!("n-{at}"), json!({"cpu": "8", "nvidia.com/gpu": gpus})), "/metadata/labels", labels)
    };
    let mut nodes: Vec<_> = (0..30).map(|at| of_pool(at, "8")).collect();
    nodes[0]["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}], "capacity": {"cpu": "8"}});
    let pools = rows(&page(&unknown(&nodes), "/", "resource=nvidia.com/gpu"), "pools");
    assert_eq!(pools, ["x 15 15 admissible 0 unknown unknown", "y 15 15 admissible 0 120 120"]);
}

#[test]
fn an_agent_that_did_not_look_for_gpus_did_not_find_none() {
    let devices = |gpus| {
        let report = Report { gpus, ..mcad_testkit::reports::report("n", 1) };
        let objects = [node("n", json!({"nvidia.com/gpu": "8"}))];
        page(&snapshot(&objects, vec![report]), "/node/n", "")
    };
    check(&devices(Some(mcad_testkit::reports::gpus(Vec::new()))), "The agent found none.");
    check(&devices(None), "The devices are unknown, because the agent did not examine GPUs.");
    let silent = page(&snapshot(&[node("n", json!({"nvidia.com/gpu": "8"}))], Vec::new()), "/node/n", "");
    check(&silent, "The devices are unknown, because no agent reports.");
}

#[test]
fn what_is_not_known_is_last_in_every_order() {
    // The use of one node is measured, that of the other is not.
    let objects = [node("a", json!({"cpu": "2"})), node("b", json!({"cpu": "2"})), node("c", json!({"cpu": "2"}))];
    let report = |node: &str, sequence| Report {
        cgroups: Some(mcad_testkit::reports::cgroups(&[])),
        machine: Some(Machine {
            cpu_busy_ns: Some(1_000_000_000),
            ..mcad_testkit::reports::report(node, 1).machine.unwrap()
        }),
        ..mcad_testkit::reports::report(node, sequence)
    };
    let reports = vec![report("b", 1), report("c", 1), report("c", 2)];
    let first = |snapshot: &Snapshot, query: &str| {
        let rows = rows(&page(snapshot, "/", query), "nodes");
        rows.iter().filter_map(|row| row.chars().next()).collect::<String>()
    };
    // Idle, which is known, is before unknown.
    assert_eq!(first(&snapshot(&objects, reports), "resource=cpu&sort=busy"), "cab");

    let waiting = |namespace: &str, created: serde_json::Value| {
        json!({
            "apiVersion": "workload.codeflare.dev/v1beta1", "kind": "AppWrapper",
            "metadata": {"name": "w", "namespace": namespace, "uid": namespace, "creationTimestamp": created},
            "spec": {"resources": {"GenericItems": [{"generictemplate": {}, "custompodresources": [{"replicas": 1, "requests": {"cpu": "1"}}]}]}},
            "status": {"state": "Pending"},
        })
    };
    let objects = [
        waiting("a", json!(null)),
        waiting("b", json!("2026-01-05T08:20:00Z")),
        waiting("c", json!("2026-01-05T08:10:00Z")),
    ];
    let snapshot = snapshot(&objects, Vec::new());
    for (query, expected) in [("", "cba"), ("appwrapper_sort=wait_ascending", "bca")] {
        let rows = rows(&page(&snapshot, "/", query), "waiting");
        assert_eq!(rows.iter().filter_map(|row| row.chars().next()).collect::<String>(), expected, "{query}");
    }
}
