//! Kueue's queues, rule by rule: docs/accounting.md §10.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use std::collections::BTreeMap;

use mcad_accounting::cluster::{Cluster, Event, Source};
use mcad_accounting::merge::Ages;
use mcad_accounting::now::Now;
use mcad_accounting::object::Kind;
use mcad_accounting::options::{Options, QueueMetrics};
use mcad_aggregator::known::Known;
use mcad_testkit::build::{gpu_node, node, node_of, object, pod, with};
use mcad_testkit::queues::{admitted, appwrapper, flavor, of_kueue, owned, queue, workload};
use mcad_testkit::{NOW_MS, check, check_by, print, snapshot_of, text};
use proptest::prelude::*;
use serde_json::{Value, json};

fn reason(name: &str, reason: &str) -> String {
    format!("mcad_appwrapper_waiting_reason{{appwrapper=\"{name}\",namespace=\"a\",reason=\"{reason}\"}} 1")
}

fn fit(name: &str, fits: &str) -> String {
    format!("mcad_appwrapper_fit{{appwrapper=\"{name}\",by=\"quota\",namespace=\"a\"}} {fits}")
}

fn short(name: &str, gpus: &str) -> String {
    format!(
        "mcad_appwrapper_quota_shortfall{{appwrapper=\"{name}\",flavor=\"f\",namespace=\"a\",resource=\"nvidia_com_gpu\",\
         unit=\"integer\"}} {gpus}"
    )
}

fn checked(objects: &[Vec<Value>], lines: &[String]) {
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    check(&objects.concat(), &lines);
}

#[test]
fn what_a_workload_reserves_and_its_pods_do_not_request_is_unheld_and_what_they_request_beyond_is_excess() {
    let usage = json!({"nvidia.com/gpu": "16", "cpu": "2"});
    let own = with(
        pod("p", "n", json!({"nvidia.com/gpu": "8", "cpu": "3"})),
        "/metadata/annotations",
        json!({"kueue.x-k8s.io/workload": "w"}),
    );
    let objects = [
        queue("q", &[("f", 16)], json!({})),
        vec![flavor("f", json!({})), gpu_node("n", 8), own],
        vec![admitted(workload("w", "q", &[(2, 8)], 0), "q", usage)],
    ];
    let line = |family: &str, resource: &str, amount: &str| {
        format!("mcad_queue_{family}{{cluster_queue=\"q\",flavor=\"f\",owner=\"other\",{resource}}} {amount}")
    };
    let (gpu, cpu) = ("resource=\"nvidia_com_gpu\",unit=\"integer\"", "resource=\"cpu\",unit=\"core\"");
    checked(
        &objects,
        &[
            line("reserved", gpu, "16"),
            line("unheld", gpu, "8"),
            line("excess", gpu, "0"),
            line("reserved", cpu, "2"),
            line("unheld", cpu, "0"),
            line("excess", cpu, "1"),
        ],
    );
}

#[test]
fn what_is_assigned_to_a_pod_set_that_the_spec_lacks_is_not_used() {
    let line = |gpus: &str| {
        let labels = "cluster_queue=\"q\",flavor=\"f\",owner=\"other\",resource=\"nvidia_com_gpu\",unit=\"integer\"";
        format!("mcad_queue_reserved{{{labels}}} {gpus}")
    };
    for (pod_set, gpus) in [("w-0", "8"), ("gone", "0")] {
        let one = admitted(workload("w", "q", &[(2, 4)], 0), "q", json!({"nvidia.com/gpu": "8"}));
        let one = with(one, "/status/admission/podSetAssignments/0/name", json!(pod_set));
        let one = with(one, "/status/admission/podSetAssignments/0/count", json!(2));
        checked(&[queue("q", &[("f", 16)], json!({})), vec![flavor("f", json!({})), one]], &[line(gpus)]);
    }
}

/// Four nodes of eight GPUs: a DaemonSet holds one, one fell off the second, the third is cordoned, the fourth tainted.
fn four_nodes() -> Vec<Value> {
    let taint = json!([{"key": "reserved", "value": "x", "effect": "NoSchedule"}]);
    vec![
        gpu_node("n1", 8),
        gpu_node("n2", 8),
        with(gpu_node("n3", 8), "/spec/unschedulable", json!(true)),
        with(gpu_node("n4", 8), "/spec/taints", taint),
        pod("daemon", "n1", json!({"nvidia.com/gpu": "1"})),
    ]
}

#[test]
fn quota_is_unbacked_by_what_is_broken_cordoned_tainted_or_held_by_pods_without_quota() {
    let cohort = |gpus: u32| {
        let flavors = json!([{"name": "f", "resources": [{"name": "nvidia.com/gpu", "nominalQuota": gpus}]}]);
        of_kueue(
            "Cohort",
            "c",
            json!({"resourceGroups": [{"coveredResources": ["nvidia.com/gpu"], "flavors": flavors}]}),
        )
    };
    let queues = [queue("a", &[("f", 16)], json!({"cohortName": "c"})), queue("b", &[("f", 8)], json!({}))].concat();
    let gpus = |count: &str| json!({"cpu": "8", "nvidia.com/gpu": count});
    let lost = node_of("n2", gpus("8"), gpus("7"));
    for (spec, backing, unbacked) in [
        (json!({}), "14", "18"),
        (json!({"tolerations": [{"key": "reserved", "operator": "Exists"}]}), "22", "10"),
        (json!({"nodeTaints": [{"key": "reserved", "value": "x", "effect": "NoSchedule"}]}), "22", "10"),
    ] {
        let mut nodes = four_nodes();
        nodes[1] = lost.clone();
        let line = |family: &str, amount: &str| {
            format!("mcad_queue_flavor_{family}{{flavor=\"f\",resource=\"nvidia_com_gpu\",unit=\"integer\"}} {amount}")
        };
        checked(
            &[nodes, queues.clone(), vec![cohort(8), flavor("f", spec)]],
            &[line("nominal", "32"), line("backing", backing), line("unbacked", unbacked), line("uncovered", "0")],
        );
    }
}

#[test]
fn flavors_that_overlap_share_the_hardware_of_a_node() {
    let labelled = with(gpu_node("n1", 8), "/metadata/labels", json!({"gpu": "a100"}));
    let objects = [
        queue("q", &[("any", 8), ("a100", 8)], json!({})),
        vec![
            labelled,
            gpu_node("n2", 4),
            flavor("any", json!({})),
            flavor("a100", json!({"nodeLabels": {"gpu": "a100"}})),
        ],
    ];
    let alone = |family: &str, flavor: &str, amount: &str| {
        format!(
            "mcad_queue_flavor_{family}{{flavor=\"{flavor}\",resource=\"nvidia_com_gpu\",unit=\"integer\"}} {amount}"
        )
    };
    let all = |family: &str, amount: &str| {
        format!("mcad_queue_{family}{{resource=\"nvidia_com_gpu\",unit=\"integer\"}} {amount}")
    };
    checked(
        &objects,
        &[
            alone("unbacked", "any", "0"),
            alone("unbacked", "a100", "0"),
            alone("uncovered", "any", "4"),
            all("unbacked", "4"),
            all("uncovered", "0"),
        ],
    );
}

#[test]
fn a_quota_that_is_unlimited_is_backed_by_nothing_and_leaves_nothing_to_cover() {
    let objects = [queue("q", &[("f", 8)], json!({})), vec![gpu_node("n", 8), flavor("f", json!({}))]].concat();
    let objects: Vec<Value> = objects
        .into_iter()
        .map(|one| match &one["kind"] {
            kind if kind == "ClusterQueue" => {
                with(one, "/spec/resourceGroups/0/flavors/0/resources/0/nominalQuota", json!("9Ei"))
            }
            _ => one,
        })
        .collect();
    check(
        &objects,
        &[
            "mcad_queue_nominal{cluster_queue=\"q\",flavor=\"f\",resource=\"nvidia_com_gpu\",unit=\"integer\"} +Inf",
            "mcad_queue_unbacked{resource=\"nvidia_com_gpu\",unit=\"integer\"} +Inf",
            "mcad_queue_uncovered{resource=\"nvidia_com_gpu\" absent",
        ],
    );
}

#[test]
fn the_slack_queue_lends_less_by_what_is_gone() {
    let sick = |name: &str, health: &str| {
        with(gpu_node(name, 8), "/metadata/labels", json!({"autopilot.ibm.com/gpuhealth": health}))
    };
    let not_ready = with(gpu_node("n4", 8), "/status/conditions", json!([]));
    let cordoned = with(gpu_node("n1", 8), "/spec/unschedulable", json!(true));
    let objects = [
        queue("slack", &[("f", 24)], json!({})),
        vec![flavor("f", json!({})), cordoned, sick("n2", "EVICT"), sick("n3", "WARN"), not_ready],
    ]
    .concat();
    let options = Options { slack_queue: Some("slack".into()), ..Options::default() };
    let line = |by: &str, amount: &str| {
        format!(
            "mcad_queue_slack_lending_limit{{by=\"{by}\",cluster_queue=\"slack\",flavor=\"f\",resource=\"nvidia_com_gpu\",\
             unit=\"integer\"}} {amount}"
        )
    };
    check_by(&objects, &options, &[&line("appwrapper", "8"), &line("hardware", "16")]);
}

#[test]
fn what_is_short_and_what_is_more_than_there_can_ever_be_are_told_apart() {
    for (gpus, why, missing) in [(8, "quota_short", "4"), (32, "quota_short", "28"), (40, "quota_exceeded", "36")] {
        let limit = json!([{"coveredResources": ["nvidia.com/gpu"], "flavors": [{"name": "f", "resources": [
            {"name": "nvidia.com/gpu", "nominalQuota": 16, "borrowingLimit": 16}]}]}]);
        let objects = [
            queue("q", &[("f", 16)], json!({"cohortName": "c", "resourceGroups": limit})),
            queue("other", &[("f", 16)], json!({"cohortName": "c"})),
            vec![
                flavor("f", json!({})),
                admitted(workload("u", "q", &[(1, 12)], 0), "q", json!({"nvidia.com/gpu": "12"})),
                admitted(workload("v", "other", &[(1, 16)], 0), "other", json!({"nvidia.com/gpu": "16"})),
                owned(workload("w", "q", &[(1, gpus)], 1), "w"),
                appwrapper("w", "q", 1, gpus),
            ],
        ];
        checked(&objects, &[reason("w", why), fit("w", "0"), short("w", missing)]);
    }
}

#[test]
fn under_a_strict_strategy_one_of_higher_priority_holds_up_what_would_fit() {
    for (strategy, why) in [("StrictFIFO", "behind_others"), ("BestEffortFIFO", "pending")] {
        let first = with(workload("job", "q", &[(1, 32)], 9), "/spec/priority", json!(10));
        let objects = [
            queue("q", &[("f", 16)], json!({"queueingStrategy": strategy})),
            vec![
                flavor("f", json!({})),
                first,
                owned(workload("w", "q", &[(1, 8)], 1), "w"),
                appwrapper("w", "q", 1, 8),
            ],
        ];
        checked(&objects, &[reason("w", why), fit("w", "1")]);
    }
}

#[test]
fn a_workload_without_a_queue_name_is_assigned_to_the_queue_that_its_appwrapper_names() {
    let objects = [
        queue("q", &[("f", 16)], json!({})),
        vec![flavor("f", json!({})), owned(workload("w", "", &[(1, 20)], 1), "w"), appwrapper("w", "q", 1, 20)],
    ];
    checked(&objects, &[reason("w", "quota_exceeded"), fit("w", "0"), short("w", "4")]);
}

#[test]
fn kueue_takes_a_limit_of_the_pod_as_a_whole_for_its_request_even_if_containers_have_requests() {
    let cpu = json!([{"coveredResources": ["cpu"], "flavors": [
        {"name": "f", "resources": [{"name": "cpu", "nominalQuota": 64}]}]}]);
    let of_pod = |of_pod| json!({"containers": [{"resources": {"requests": {"cpu": "2"}}}], "resources": of_pod});
    for (of_whole, cores) in [
        (json!({"limits": {"cpu": "8"}}), "8"),
        (json!({"requests": {"cpu": "4"}, "limits": {"cpu": "8"}}), "4"),
        (json!({"limits": {"memory": "1Gi"}}), "2"),
    ] {
        let set = json!([{"name": "main", "count": 1, "template": {"spec": of_pod(of_whole)}}]);
        let objects = [
            queue("q", &[], json!({"resourceGroups": cpu})),
            vec![flavor("f", json!({})), with(workload("w", "q", &[], 1), "/spec/podSets", set)],
        ];
        let line = "mcad_queue_pending{cluster_queue=\"q\",owner=\"other\",resource=\"cpu\",unit=\"core\"}";
        checked(&objects, &[format!("{line} {cores}")]);
    }
}

#[test]
fn the_rest_of_the_pods_has_a_place_on_the_nodes_or_has_none() {
    for (free, why) in [(8, "pods_unplaced"), (7, "nodes_short")] {
        let labels = json!({"workload.codeflare.dev/appwrapper": "w", "kueue.x-k8s.io/podset": "w-0"});
        let own = with(pod("p", "n1", json!({"nvidia.com/gpu": "8"})), "/metadata/labels", labels);
        let running = with(appwrapper("w", "q", 2, 8), "/status/phase", json!("Running"));
        let objects = [
            queue("q", &[("f", 16)], json!({})),
            vec![
                flavor("f", json!({})),
                gpu_node("n1", 8),
                gpu_node("n2", free),
                own,
                owned(admitted(workload("w", "q", &[(2, 8)], 0), "q", json!({"nvidia.com/gpu": "16"})), "w"),
                running,
            ],
        ];
        checked(&objects, &[reason("w", why)]);
    }
}

#[test]
fn what_was_computed_of_an_appwrapper_does_not_apply_to_its_next_state_or_to_another_of_its_name() {
    let suspended = appwrapper("w", "q", 1, 8);
    let objects =
        [queue("q", &[("f", 16)], json!({})), vec![flavor("f", json!({})), suspended.clone(), gpu_node("n", 8)]]
            .concat();
    let known = Known::new(Cluster::from_objects(objects.iter().map(object)), Options::default(), Ages::DoNot);
    let now = Now { unix_ms: NOW_MS as u64, ..Now::default() };
    known.refit(now);
    let reason = reason("w", "no_workload");
    let is_shown = || text(&known.snapshot(now)).contains(&reason);
    assert!(is_shown());
    for (field, value) in [("/status/phase", "Running"), ("/metadata/uid", "another")] {
        let changed = with(suspended.clone(), field, json!(value));
        known.apply(Event::Apply(object(&changed)), now);
        assert!(!is_shown(), "{field}");
        known.apply(Event::Apply(object(&suspended)), now);
        assert!(is_shown(), "{field}");
    }
}

#[test]
fn without_appwrappers_queues_are_known_and_the_fit_on_nodes_has_no_age() {
    let objects = queue("q", &[("f", 8)], json!({}));
    let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::AppWrapper).collect();
    let cluster = Cluster::from_objects_known(objects.iter().map(object), &kinds);
    let text = mcad_testkit::print_cluster_with(cluster, Vec::new(), &Options::default());
    assert!(text.contains("\nmcad_queue_info{") && !text.contains("\nmcad_fit_age_seconds"), "{text}");
}

#[test]
fn without_kueue_or_if_it_is_switched_off_there_is_not_one_line() {
    let is_of_queues =
        |line: &str| line.contains("queue_") || line.contains("quota") || line.contains("waiting_reason");
    let plain = [node("n", json!({"cpu": "1"})), appwrapper("w", "q", 1, 8)];
    let lines = print(plain.iter().map(object).collect(), &Options::default());
    assert!(!lines.lines().filter(|line| !line.starts_with('#')).any(is_of_queues), "{lines}");
}

#[test]
fn the_newest_version_of_an_object_counts_whatever_the_order() {
    let old = with(queue("q", &[("f", 4)], json!({}))[0].clone(), "/apiVersion", json!("kueue.x-k8s.io/v1beta1"));
    let new = queue("q", &[("f", 8)], json!({}))[0].clone();
    for objects in [[&old, &new], [&new, &old]] {
        let line =
            "mcad_queue_nominal{cluster_queue=\"q\",flavor=\"f\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 8";
        check(&objects.map(Clone::clone), &[line]);
    }
}

/// Random objects of Kueue with pods, AppWrappers and nodes beside them.
fn any_object() -> impl Strategy<Value = Value> {
    let name = proptest::sample::select(&["x", "y", "z"][..]);
    (name.clone(), name.clone(), 0..8_u32, 0..8_u8, 0..3_u32).prop_map(|(name, other, gpus, kind, minute)| match kind {
        0 => queue(name, &[("f", gpus)], json!({"cohortName": other, "queueingStrategy": "StrictFIFO"}))[0].clone(),
        1 => queue(name, &[(other, gpus)], json!({}))[1].clone(),
        2 => of_kueue("Cohort", name, json!({"parentName": if gpus > 3 { other } else { "" }})),
        3 => flavor(if gpus > 3 { "f" } else { other }, json!({"nodeLabels": {"n": if gpus > 5 { "x" } else { "" }}})),
        4 => owned(workload(name, other, &[(1, gpus), (2, 1)], minute), name),
        5 => owned(admitted(workload(name, other, &[(1, gpus)], minute), other, json!({"nvidia.com/gpu": gpus})), name),
        6 => appwrapper(name, other, 1, gpus),
        _ => with(
            pod(name, "n", json!({"nvidia.com/gpu": gpus})),
            "/metadata/annotations",
            json!({"kueue.x-k8s.io/workload": other}),
        ),
    })
}

fn shown(cluster: &Cluster) -> String {
    let text = text(&snapshot_of(cluster, &Options::default()));
    text.lines().filter(|line| !line.contains("mcad_requested_")).collect::<Vec<_>>().join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_of_events_gives_the_same(
        steps in proptest::collection::vec((any_object(), proptest::bool::weighted(0.2)), 0..50),
    ) {
        let mut cluster = Cluster::from_objects([object(&gpu_node("n", 8)), object(&flavor("f", json!({})))]);
        let mut model: BTreeMap<String, Value> = BTreeMap::new();
        model.insert("Node/n".into(), gpu_node("n", 8));
        model.insert("ResourceFlavor/f".into(), flavor("f", json!({})));
        for (json, is_gone) in steps {
            let at = format!("{}/{}", json["kind"].as_str().unwrap(), json["metadata"]["name"].as_str().unwrap());
            if is_gone && at != "ResourceFlavor/f" {
                cluster.apply(Event::Delete(object(&json)));
                model.remove(&at);
            } else {
                cluster.apply(Event::Apply(object(&json)));
                model.insert(at, json);
            }
        }
        let again = Cluster::from_objects(model.values().map(object));
        prop_assert_eq!(shown(&cluster), shown(&again));
        let backwards = Cluster::from_objects(model.values().rev().map(object));
        prop_assert_eq!(shown(&backwards), shown(&again));
        for source in Source::QUEUES {
            cluster.apply(Event::Reset(source, Vec::new()));
        }
        prop_assert!(!shown(&cluster).contains("mcad_queue"), "something is left behind");
    }
}

#[test]
fn they_can_be_switched_off() {
    let objects = queue("q", &[("f", 8)], json!({}));
    let options = Options { queue_metrics: QueueMetrics::Off, ..Options::default() };
    let cluster = Cluster::from_objects(objects.iter().map(object));
    let text = mcad_testkit::print_cluster_with(cluster, Vec::new(), &options);
    assert!(!text.contains("mcad_queue"), "{text}");
}
