//! What `explain` says of clusters: a dump and reports in, text and JSON out.
//!
//! `MCAD_BLESS=1 cargo test -p mcad-aggregator` writes the golden files anew; the difference is to be reviewed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use mcad_accounting::cluster::{Cluster, Event, Missing, Source};
use mcad_accounting::object::Kind;
use mcad_accounting::snapshot::Snapshot;
use mcad_present::explain::ladder::UsedBy;
use mcad_present::explain::node::NodeEntry;
use mcad_present::explain::{self, Answer, Subject, Unanswered};
use mcad_present::tables::{self, Rules, View};
use mcad_terminal::paint::Paint;
use mcad_testkit::build::{advertised, assigned, gpu_report, gpus, node, object, pod, v1beta1, v1beta2, with};
use mcad_testkit::explained::{NOW, check_golden, dumped, example, snapshot, snapshot_of};
use mcad_testkit::reports;
use mcad_wire::report::{Machine, Report};
use serde_json::{Value, json};

fn text(snapshot: &Snapshot, subject: &Subject) -> String {
    explain::text(&Answer::on(subject, snapshot, NOW).unwrap(), Paint::Plain)
}

pub(crate) fn cluster_text(snapshot: &Snapshot) -> String {
    text(snapshot, &Subject::Cluster)
}

fn node_text(snapshot: &Snapshot, name: &str) -> String {
    text(snapshot, &Subject::Node(name.into()))
}

fn check_case(case: &str) {
    let snapshot = snapshot_of(Cluster::from_objects(dumped(&format!("cases/{case}.yaml"))), Vec::new());
    check_golden(&format!("cases/{case}.txt"), &cluster_text(&snapshot));
}

#[test]
fn the_first_worked_cluster_reads_well() {
    check_case("1");
}

#[test]
fn the_second_worked_cluster_reads_well() {
    check_case("2");
}

#[test]
fn the_third_worked_cluster_reads_well() {
    check_case("3");
}

#[test]
fn the_fourth_worked_cluster_reads_well() {
    check_case("4");
}

#[test]
fn a_lost_gpu_that_kubelet_still_declares_is_a_phantom_and_named() {
    check_golden("explain/cluster.txt", &cluster_text(&example()));
}

#[test]
fn one_node_is_told_with_its_devices() {
    check_golden("explain/node.txt", &node_text(&example(), "gpu-17"));
}

#[test]
fn a_terminal_gets_colours_and_the_same_words() {
    let answer = Answer::on(&Subject::Cluster, &example(), NOW).unwrap();
    let coloured = explain::text(&answer, Paint::Colours);
    assert!(coloured.contains("\x1b[31m  lost          1\x1b[0m"), "{coloured}");
    let mut plain = coloured;
    for code in ["0", "1", "2", "31", "32", "33"] {
        plain = plain.replace(&format!("\x1b[{code}m"), "");
    }
    // A bar is for who sees at a glance, and says nothing that the lines below it don't.
    let (bars, words): (Vec<_>, Vec<_>) = plain.lines().partition(|line| line.contains(['█', '▓', '▒', '×', '░']));
    assert_eq!(bars.len(), 3, "{bars:#?}");
    assert!(bars.iter().all(|bar| bar.trim_start().chars().count() == mcad_terminal::bar::WIDTH), "{bars:#?}");
    assert_eq!(words.join("\n") + "\n", explain::text(&answer, Paint::Plain));
}

#[test]
fn what_is_left_out_plays_no_tricks_with_the_terminal() {
    let hostile = format!("w\u{1b}[31m\u{202e}{}", "x".repeat(400));
    let said = cluster_text(&snapshot(&[v1beta2(&hostile, json!([]), "Suspended")], Vec::new()));
    assert!(said.contains("w\\u{1b}[31m\\u{202e}xxx"), "{said}");
    assert!(!said.contains(['\u{1b}', '\u{202e}']), "{said:?}");
}

#[test]
fn gpus_that_are_simulated_are_called_so_of_the_cluster_and_of_the_node() {
    let mut report = gpu_report("n", gpus(1));
    report.gpus.as_mut().unwrap().fake = true;
    let snapshot = snapshot(&[mcad_testkit::build::gpu_node("n", 1)], vec![report]);
    let said = cluster_text(&snapshot);
    assert!(said.starts_with("FAKE: the GPUs of n are simulated.\n1 GPU advertised, 1 works, 0 held, "), "{said}");
    let said = node_text(&snapshot, "n");
    let first = "Node n: admissible\nThe agent reports.\nFAKE: the GPUs of n are simulated.\n\n";
    assert!(said.starts_with(first), "{said}");
}

#[test]
fn devices_that_are_not_known_are_unknown_in_the_tables_and_not_none() {
    let slice = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "s"},
        "spec": {"driver": "gpu.nvidia.com", "nodeName": "n", "pool": {"name": "n", "generation": 1, "resourceSliceCount": 1},
                 "devices": [{"name": "gpu-0", "attributes": {"type": {"string": "gpu"}}}]},
    });
    let objects = [node("n", json!({"cpu": "4"})), slice];
    let snapshot = known(&objects, &[Kind::Node, Kind::Pod, Kind::AppWrapper, Kind::ResourceSlice]);
    assert!(snapshot.missing.contains(&Missing::Devices));
    let nodes: Vec<_> = [NodeEntry::named("n", &snapshot).unwrap()].into();
    let is_accelerator = |name: &str| snapshot.options.is_accelerator(name);
    let view = View { width: None, paint: Paint::Plain };
    let cells = |table: String| -> Vec<String> {
        let line = table.lines().find(|line| line.starts_with("n ")).unwrap_or_else(|| panic!("{table}"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    let table =
        |knows_devices| tables::nodes::nodes(&nodes, Rules { is_accelerator: &is_accelerator, knows_devices }, view);
    assert_eq!(cells(table(false)), [&["n", "admissible"][..], &["unknown"; 5], &["4", "0", "unknown"]].concat());
    assert_eq!(cells(table(true)), ["n", "admissible", "4", "0", "unknown"]);
    let table =
        |knows_devices| tables::gpus::gpus(&nodes, Rules { is_accelerator: &is_accelerator, knows_devices }, view);
    assert_eq!(cells(table(false)), [&["n"][..], &["unknown"; 8]].concat());
    assert!(table(true).starts_with("No node has a GPU"), "{}", table(true));
}

#[test]
fn an_empty_cluster_has_no_nodes_and_no_appwrappers() {
    let said = cluster_text(&snapshot(&[], Vec::new()));
    assert_eq!(
        said,
        "0 nodes\nMCAD's sum, the capacity that MCAD assumes to be available: 0 cores, 0 GiB and 0 GPUs.\n\nNo AppWrappers\n"
    );
}

#[test]
fn what_is_unknown_is_called_so_and_shows_no_number() {
    let unknown = snapshot_of(Cluster::default(), Vec::new());
    let said = cluster_text(&unknown);
    let first: Vec<_> = said.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(
        first,
        ["Nodes are not known", "Pods are not known", "AppWrappers are not known", "", "AppWrappers"],
        "{said}"
    );
    assert!(!said.contains(|c: char| c.is_ascii_digit()), "{said}");
    let json = serde_json::to_value(Answer::on(&Subject::Cluster, &unknown, NOW).unwrap()).unwrap();
    assert_eq!(
        json,
        json!({
            "snapshot_age_seconds": 0.0,
            "cluster": {"missing": ["nodes", "pods", "appwrappers"], "agents": {"up": 0, "down": 0}},
        })
    );
    let node = Answer::on(&Subject::Node("n".into()), &unknown, NOW);
    assert_eq!(node, Err(Unanswered::NodesUnknown));
}

fn known(objects: &[Value], kinds: &[Kind]) -> Snapshot {
    let known = kinds.iter().copied().collect();
    snapshot_of(Cluster::from_objects_known(objects.iter().map(object), &known), Vec::new())
}

#[test]
fn missing_pods_are_said_before_any_figure_and_nothing_looks_free() {
    let nodes = [node("n", json!({"cpu": "4", "nvidia.com/gpu": "8"}))];
    let snapshot = known(&nodes, &[Kind::Node, Kind::AppWrapper]);
    let said = cluster_text(&snapshot);
    assert!(
        said.starts_with(
            "Pods are not known: what is requested, free and used is unknown, and so is whether an AppWrapper fits. \
             Nothing is known to be free.\n8 GPUs advertised, 8 work, held unknown, busy unknown; free unknown.\n"
        ),
        "{said}"
    );
    assert!(said.contains("  free         unknown  Pods are not known\n"), "{said}");
    assert!(said.contains("  used         unknown  Pods are not known\n"), "{said}");
    let json = serde_json::to_value(Answer::on(&Subject::Cluster, &snapshot, NOW).unwrap()).unwrap();
    let rung = &json["cluster"]["ladder"]["devices"]["nvidia.com/gpu"];
    assert_eq!(json["cluster"]["missing"], json!(["pods"]));
    assert_eq!((rung["allocatable"].as_i64(), rung.get("free"), rung.get("requested")), (Some(8), None, None));
    assert_eq!((json["cluster"].get("gpu_slots"), json["cluster"].get("mcad_allocatable")), (None, None));
    assert_eq!(json["cluster"].get("orphans"), None);
    assert!(node_text(&snapshot, "n").contains("  requested    unknown  Pods are not known\n"));
}

#[test]
fn why_one_waits_is_unknown_where_nodes_or_pods_are() {
    let waiting = v1beta1(
        "w",
        json!([{"generictemplate": {}, "custompodresources": [{"replicas": 1, "requests": {"cpu": "9"}}]}]),
        json!({"state": "Pending"}),
    );
    let why = |kinds: &[Kind]| {
        let answer = Answer::on(&Subject::Cluster, &known(std::slice::from_ref(&waiting), kinds), NOW).unwrap();
        serde_json::to_value(answer).unwrap()["appwrappers"][0].clone()
    };
    let sentence = |kinds: &[Kind]| why(kinds)["waiting"]["why"].as_str().unwrap().to_owned();
    assert_eq!(sentence(&[Kind::AppWrapper, Kind::Node]), "whether it fits is not known, because Pods are missing");
    assert_eq!(sentence(&[Kind::AppWrapper, Kind::Pod]), "whether it fits is not known, because Nodes are missing");
    assert_eq!(sentence(&[Kind::AppWrapper]), "whether it fits is not known, because Nodes and Pods are missing");
    let json = why(&[Kind::AppWrapper]);
    assert_eq!(
        (json.get("allocated"), json["waiting"].get("fits_sum"), json["waiting"].get("shortfall")),
        (None, None, None)
    );
}

#[test]
fn pods_of_nodes_that_are_not_there_are_counted_with_what_they_request() {
    let pods = [pod("p", "n1", json!({"nvidia.com/gpu": "2"})), pod("q", "n2", json!({"nvidia.com/gpu": "4"}))];
    let said = cluster_text(&known(&pods, &[Kind::Pod]));
    assert!(
        said.contains(
            "\n2 pods are bound to nodes that are not known, and request 6 GPUs. Node and cluster values do not include these requests.\n"
        ),
        "{said}"
    );
    let one = [node("n1", json!({"cpu": "4"})), pod("q", "n2", json!({"nvidia.com/gpu": "4", "cpu": "1500m"}))];
    let snapshot = known(&one, &Kind::ALL);
    let said = cluster_text(&snapshot);
    assert!(
        said.starts_with("1 pod is bound to a node that does not exist, and requests 4 GPUs and 1.5 cores. Node and"),
        "{said}"
    );
    let json = serde_json::to_value(Answer::on(&Subject::Cluster, &snapshot, NOW).unwrap()).unwrap();
    let requested = json!({"cpu_millicores": 1500, "memory_bytes": 0, "devices": {"nvidia.com/gpu": 4}});
    assert_eq!(json["cluster"]["orphans"], json!({"pods": 1, "requested": requested}));
    let idle = known(&[pod("p", "n1", json!({}))], &Kind::ALL);
    assert!(cluster_text(&idle).starts_with("1 pod is bound to a node that does not exist, and requests nothing."));
}

#[test]
fn where_no_appwrappers_are_served_that_is_said() {
    let mut cluster = Cluster::default();
    cluster.serve([]);
    cluster.apply(Event::Reset(Source::Nodes, vec![object(&node("n", json!({"cpu": "4"})))]));
    cluster.apply(Event::Reset(Source::Pods, Vec::new()));
    let said = cluster_text(&snapshot_of(cluster, Vec::new()));
    assert!(said.starts_with("The API server serves no AppWrappers.\n4 cores advertised"), "{said}");
    assert!(said.ends_with("\nAppWrappers: not served by the API server.\n"), "{said}");
}

#[test]
fn the_first_sentence_tells_of_every_accelerator_that_the_cluster_has() {
    let check = |nodes: &[Value], sentences: &str| {
        let said = cluster_text(&snapshot(nodes, Vec::new()));
        assert!(said.starts_with(&format!("{sentences}\n1 node")), "{said}");
    };
    let node = |amounts: Value| node("n", with(amounts, "/memory", json!("64Gi")));
    check(
        &[
            node(json!({"cpu": "64", "nvidia.com/gpu": "0", "nvidia.com/gpu.shared": "128"})),
            pod("p", "n", json!({"nvidia.com/gpu.shared": "4"})),
        ],
        "128 nvidia.com/gpu.shared advertised, 128 work, 4 held, busy unknown; 124 free, largest block 124.",
    );
    check(
        &[node(json!({"cpu": "64", "nvidia.com/gpu": "2", "nvidia.com/mig-1g.12gb": "7", "rdma/hca": "8"}))],
        "2 GPUs advertised, 2 work, 0 held, busy unknown; 2 free, largest block 2.\n\
         7 nvidia.com/mig-1g.12gb advertised, 7 work, 0 held, busy unknown; 7 free, largest block 7.",
    );
    check(&[node(json!({"cpu": "64"}))], "64 cores advertised, 64 work, 0 held, busy unknown; 64 free.");
    // GPUs that are declared at 0 and nothing else: that there are none is what people want to know.
    check(
        &[node(json!({"cpu": "64", "nvidia.com/gpu": "0"}))],
        "0 GPUs advertised, 0 work, 0 held, busy unknown; 0 free, largest block 0.",
    );
    check(
        &[node(json!({"cpu": "64"})), pod("p", "n", json!({"amd.com/gpu": "1"}))],
        "0 amd.com/gpu advertised, 0 work, 1 held, busy unknown; 0 free, largest block 0.",
    );
}

#[test]
fn slots_and_largest_block_are_told_of_every_accelerator() {
    let amounts = json!({"cpu": "64", "memory": "1Ti", "nvidia.com/gpu": "2", "amd.com/gpu": "5"});
    let snapshot = snapshot(&[node("n", amounts)], Vec::new());
    let said = cluster_text(&snapshot);
    assert!(
        said.contains(
            "\nPods that could start now, by GPUs per pod: 2 with 1, 1 with 2, 0 with 4 and 0 with 8; at most 2 GPUs free on one node.\n\
             Pods that could start now, by amd.com/gpu per pod: 5 with 1, 2 with 2, 1 with 4 and 0 with 8; at most 5 amd.com/gpu free on one node.\n"
        ),
        "{said}"
    );
    let json = serde_json::to_value(Answer::on(&Subject::Cluster, &snapshot, NOW).unwrap()).unwrap();
    assert_eq!(
        json["cluster"]["other_accelerators"],
        json!({"amd.com/gpu": {
            "slots": [{"count": 1, "pods": 5}, {"count": 2, "pods": 2}, {"count": 4, "pods": 1}, {"count": 8, "pods": 0}],
            "largest_free_block_devices": 5,
        }})
    );
}

#[test]
fn time_slices_are_shares_of_fewer_gpus_where_labels_or_an_agent_tell_it() {
    let shared =
        |labels: Value| with(node("n", json!({"cpu": "64", "nvidia.com/gpu": "12"})), "/metadata/labels", labels);
    let first = |nodes: &[Value], reports| cluster_text(&snapshot(nodes, reports)).lines().next().unwrap().to_owned();
    let labels = json!({"nvidia.com/gpu.count": "1", "nvidia.com/gpu.replicas": "12"});
    let said = first(&[shared(labels.clone())], Vec::new());
    assert!(said.starts_with("12 GPUs advertised (12 shares of 1 GPU), 12 work"), "{said}");
    // Without the count, it is what the replicas leave.
    let said = first(&[shared(json!({"nvidia.com/gpu.replicas": "4"}))], Vec::new());
    assert!(said.starts_with("12 GPUs advertised (12 shares of 3 GPUs), 12 work"), "{said}");
    for labels in [
        json!({"nvidia.com/gpu.count": "12", "nvidia.com/gpu.replicas": "1"}),
        json!({"nvidia.com/gpu.replicas": "many"}),
    ] {
        let said = first(&[shared(labels)], Vec::new());
        assert!(said.starts_with("12 GPUs advertised, 12 work"), "{said}");
    }
    // An agent that saw the devices knows better than the labels.
    let ids: Vec<_> = (0..12).map(|at| format!("GPU-{}::{at}", at % 2)).collect();
    let mut report = gpu_report("n", gpus(2));
    report.assignments = Some(advertised("nvidia.com/gpu", &ids.iter().map(String::as_str).collect::<Vec<_>>()));
    let said = first(&[shared(labels.clone())], vec![report]);
    assert!(said.starts_with("12 GPUs advertised (12 shares of 2 GPUs), 12 work"), "{said}");
    // Of a renamed resource and of a MIG profile; whole GPUs elsewhere are no shares.
    let renamed =
        json!({"cpu": "64", "nvidia.com/gpu": "0", "nvidia.com/gpu.shared": "8", "nvidia.com/mig-1g.10gb": "14"});
    let labels = json!({
        "nvidia.com/gpu.count": "2", "nvidia.com/gpu.replicas": "4",
        "nvidia.com/mig-1g.10gb.count": "7", "nvidia.com/mig-1g.10gb.replicas": "2",
    });
    let nodes = [with(node("m", renamed), "/metadata/labels", labels), node("w", json!({"nvidia.com/gpu": "8"}))];
    let snapshot = snapshot(&nodes, Vec::new());
    let said = cluster_text(&snapshot);
    assert!(said.starts_with("8 GPUs advertised, 8 work"), "{said}");
    assert!(said.contains("8 nvidia.com/gpu.shared advertised (8 shares of 2 GPUs), 8 work"), "{said}");
    assert!(
        said.contains("14 nvidia.com/mig-1g.10gb advertised (14 shares of 7 nvidia.com/mig-1g.10gb), 14 work"),
        "{said}"
    );
    assert!(
        node_text(&snapshot, "m").contains("  installed          8  8 shares of 2 GPUs\n"),
        "{}",
        node_text(&snapshot, "m")
    );
    let json = serde_json::to_value(Answer::on(&Subject::Cluster, &snapshot, NOW).unwrap()).unwrap();
    assert_eq!(json["cluster"]["shares"]["nvidia.com/gpu.shared"], json!({"shares": 8, "devices": 2}));
    assert_eq!(json["nodes"][0]["shares"], json["cluster"]["shares"]);
}

#[test]
fn lost_appwrappers_are_unknown_and_the_ladder_stands() {
    let mut cluster = Cluster::default();
    cluster.serve([mcad_accounting::object::Served::WorkloadV1Beta1]);
    cluster.apply(Event::Reset(Source::Nodes, vec![object(&node("n", json!({"cpu": "4"})))]));
    cluster.apply(Event::Reset(Source::Pods, Vec::new()));
    let said = cluster_text(&snapshot_of(cluster, Vec::new()));
    assert!(said.contains("free               4") && said.ends_with("\nAppWrappers: unknown.\n"), "{said}");
}

#[test]
fn what_no_agent_measured_is_unknown_and_not_nothing() {
    let said = node_text(&snapshot(&[node("n", json!({"cpu": "4"}))], Vec::new()), "n");
    assert!(said.contains("phantom      unknown") && said.contains("used         unknown"), "{said}");
    let json = Answer::on(&Subject::Node("n".into()), &snapshot(&[node("n", json!({"cpu": "4"}))], Vec::new()), NOW);
    let json = explain::json(&json.unwrap()).unwrap();
    assert!(!json.contains("phantom") && !json.contains("used") && !json.contains("gpus"), "{json}");
}

#[test]
fn a_sum_of_use_with_an_unknown_part_is_unknown_wherever_it_is_shown() {
    // The agent reads the cgroups of pods, and not how busy the machine is.
    let report = |sequence: u64| {
        let mut cgroups = reports::cgroups(&[("/kubepods/p", sequence * 1_000_000_000)]);
        cgroups.cgroups[0].pod_uid = "uid-p".into();
        let machine = Some(Machine { cpu_busy_ns: None, ..reports::report("n", 1).machine.unwrap() });
        Report { cgroups: Some(cgroups), machine, ..reports::report("n", sequence) }
    };
    let objects = [node("n", json!({"cpu": "8"})), pod("p", "n", json!({"cpu": "1"}))];
    let measured = snapshot(&objects, vec![report(1), report(2)]);
    let said = cluster_text(&measured);
    assert!(said.starts_with("8 cores advertised, 2 work, 1 held, busy unknown; "), "{said}");
    assert!(
        said.contains("  used         unknown  0 by AppWrappers, 0.1 by other pods, unknown outside pods\n"),
        "{said}"
    );
    // Of GPUs, use outside of pods is always known today.
    let gpus = snapshot(&[node("n", json!({"nvidia.com/gpu": "2"}))], Vec::new());
    let mut entry = NodeEntry::named("n", &gpus).unwrap();
    let gpus = entry.ladder.devices.get_mut("nvidia.com/gpu").unwrap();
    gpus.used = Some(UsedBy { appwrapper: Some(1.0), other: Some(0.5), system: None });
    let view = View { width: None, paint: Paint::Plain };
    let table = tables::gpus::gpus(&[entry], Rules { is_accelerator: &|_| true, knows_devices: true }, view);
    let cells: Vec<_> = table.lines().nth(2).unwrap_or_default().split_whitespace().collect();
    assert_eq!(cells, ["n", "2", "2", "unknown", "unknown", "0", "unknown", "2", "-"], "{table}");
}

#[test]
fn without_kubernetes_only_what_agents_measured_is_told() {
    let local = reports::snapshot(vec![(gpu_report("here", gpus(2)), NOW)], NOW);
    let said = cluster_text(&local);
    assert!(said.contains("Without Kubernetes, only") && !said.contains("AppWrappers"), "{said}");
    assert!(
        said.contains("nvidia.com/gpu, in GPUs\n  installed        2\n  healthy          2\n  used       unknown"),
        "{said}"
    );
    assert!(!said.contains("free"), "{said}");
    assert!(node_text(&local, "here").starts_with("Node here\nThe agent reported 0 s ago.\n"));
}

#[test]
fn a_node_that_is_not_there_is_named() {
    let there = snapshot(&[node("n", json!({"cpu": "4"}))], Vec::new());
    let missing = Answer::on(&Subject::Node("m".into()), &there, NOW).unwrap_err();
    assert_eq!(missing.to_string(), "no node named m");
}

#[test]
fn no_name_reaches_a_terminal_raw() {
    let evil = "\u{1b}]0;owned\u{7}\u{9b}31m\r\u{202e}\u{200b}\u{7f}";
    let name = |name: &str| format!("{name}{evil}");
    let resource = format!("evil.com/{evil}");
    let amounts = json!({"cpu": "4", "nvidia.com/gpu": "2", &*resource: "3"});
    let tainted = with(node(&name("n"), amounts.clone()), "/spec/unschedulable", json!(true));
    let tainted =
        with(tainted, "/spec/taints", json!([{"key": name("k"), "value": name("v"), "effect": "NoSchedule"}]));
    let mut holder = pod(&name("p"), &name("n"), json!({"nvidia.com/gpu": "1"}));
    holder["metadata"]["namespace"] = name("space").into();
    let asking = v1beta1(
        &name("w"),
        json!([{"generictemplate": {}, "custompodresources": [{"replicas": 1, "requests": {"cpu": "9"}}]}]),
        json!({"state": ""}),
    );
    let mut devices = gpus(2);
    for device in &mut devices {
        device.uuid += evil;
        device.model = name("model");
        device.bus_id = name("bus");
        device.unhealthy_reasons = vec![name("xid")];
    }
    let mut report = gpu_report("n", devices);
    report.assignments = Some(assigned("nvidia.com/gpu", &[("p", &["GPU-0"])]));
    let evil_node = snapshot(&[tainted, node("n", amounts), holder, asking], vec![report]);
    for subject in [Subject::Cluster, Subject::Node(name("n")), Subject::Node("n".into())] {
        let answer = Answer::on(&subject, &evil_node, NOW).unwrap();
        let said = explain::text(&answer, Paint::Plain);
        let json = explain::json(&answer).unwrap();
        for c in evil.chars().filter(|c| !c.is_ascii_graphic()) {
            assert!(!said.contains(c) && !json.contains(c), "{c:?}\n{said:?}\n{json:?}");
        }
        assert!(
            said.contains("\\u{1b}]0;owned\\u{7}") && json.contains("\\u001b]0;owned\\u0007\\u009b31m"),
            "{said}{json}"
        );
        // What JSON spells out is the same name to a reader.
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), serde_json::to_value(&answer).unwrap());
    }
}
