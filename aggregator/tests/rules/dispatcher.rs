//! docs/accounting.md §1, rule by rule: MCAD's own figures of capacity.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use mcad_accounting::options::{OperatorMetrics, Options};
use mcad_testkit::build::{node, node_of, pod, v1beta1, v1beta2, with};
use mcad_testkit::{check, check_by};
use serde_json::{Value, json};

const CPU: &str = "mcad_allocatable_capacity_cpu";
const MEMORY: &str = "mcad_allocatable_capacity_memory";
const GPU: &str = "mcad_allocatable_capacity_gpu";

fn check_capacity(objects: &[Value], [cpu, memory, gpu]: [i64; 3]) {
    check(objects, &[&format!("{CPU} {cpu}"), &format!("{MEMORY} {memory}"), &format!("{GPU} {gpu}")]);
}

fn large() -> Value {
    node("n", json!({"cpu": "8", "memory": "1000", "nvidia.com/gpu": "8"}))
}

#[test]
fn a_dump_without_nodes_gives_0() {
    check_capacity(&[], [0, 0, 0]);
    check_capacity(&[pod("p", "n", json!({"cpu": "1"}))], [0, 0, 0]);
}

#[test]
fn every_node_counts_but_a_cordoned_one() {
    let not_ready = with(node("a", json!({"cpu": "1"})), "/status/conditions", json!([]));
    let tainted = with(node("b", json!({"cpu": "2"})), "/spec/taints", json!([{"key": "x", "effect": "NoExecute"}]));
    let cordoned = with(node("c", json!({"cpu": "4"})), "/spec/unschedulable", json!(true));
    check_capacity(&[not_ready, tainted, cordoned], [3000, 0, 0]);
}

#[test]
fn without_allocatable_capacity_stands_and_an_absent_key_is_0() {
    let mut bare = node_of("a", json!({"cpu": "4", "memory": "5"}), json!({}));
    bare["status"].as_object_mut().unwrap().remove("allocatable");
    check_capacity(&[bare], [4000, 5, 0]);
    check_capacity(&[node_of("a", json!({"cpu": "4", "memory": "5"}), json!({"cpu": "3"}))], [3000, 0, 0]);
}

#[test]
fn bound_unfinished_pods_are_subtracted_whoever_owns_them() {
    let requests = json!({"cpu": "1", "memory": "10", "nvidia.com/gpu": "1"});
    let ours = with(pod("a", "n", requests.clone()), "/metadata/labels", json!({"appwrapper.mcad.ibm.com": "w"}));
    let done = with(pod("b", "n", requests.clone()), "/status/phase", json!("Succeeded"));
    let failed = with(pod("c", "n", requests.clone()), "/status/phase", json!("Failed"));
    let pending = with(pod("d", "n", requests.clone()), "/status/phase", json!("Pending"));
    let unbound = pod("e", "", requests.clone());
    let elsewhere = pod("f", "gone", requests);
    check_capacity(&[large(), ours, done, failed, pending, unbound, elsewhere], [6000, 980, 6]);
}

#[test]
fn the_mistyped_label_alone_keeps_a_pod_out_of_the_sum() {
    let slip = with(pod("a", "n", json!({"cpu": "1"})), "/metadata/labels", json!({"appwrappers.mcad.ibm.com": ""}));
    check_capacity(&[large(), slip], [8000, 1000, 8]);
}

#[test]
fn only_requests_of_containers_count() {
    let mut rich = pod("a", "n", json!({"cpu": "1"}));
    rich["spec"]["initContainers"] =
        json!([{"name": "i", "resources": {"requests": {"cpu": "4"}}, "restartPolicy": "Always"}]);
    rich["spec"]["overhead"] = json!({"cpu": "1"});
    rich["spec"]["resources"] = json!({"requests": {"cpu": "5"}});
    rich["spec"]["containers"][0]["resources"]["limits"] = json!({"memory": "500"});
    check_capacity(&[large(), rich], [7000, 1000, 8]);
}

#[test]
fn each_container_is_rounded_up_by_itself() {
    let requests = json!({"resources": {"requests": {"cpu": "1500u", "memory": "100m"}}});
    let three = with(pod("a", "n", json!({})), "/spec/containers", json!([requests, requests, requests]));
    check_capacity(&[large(), three], [7994, 997, 8]);
}

#[test]
fn gpus_are_what_as_int64_makes_of_them() {
    let pods = ["4000m", "4.0", "1.5Ki", "1e0"].map(|gpus| pod(gpus, "n", json!({"nvidia.com/gpu": gpus})));
    check_capacity(&[&[large()], &pods[..]].concat(), [8000, 1000, 7]);
    check_capacity(&[node("n", json!({"nvidia.com/gpu": "8.0", "nvidia.com/mig-1g.10gb": "7"}))], [0, 0, 0]);
}

#[test]
fn unreadable_is_absent() {
    let pods = [json!({"cpu": "x", "memory": "10"}), json!({"cpu": "-1"}), json!({"cpu": ["1"]}), json!({"cpu": true})];
    let pods = pods.into_iter().enumerate().map(|(at, requests)| pod(&format!("p{at}"), "n", requests));
    check_capacity(&[large()].into_iter().chain(pods).collect::<Vec<_>>(), [8000, 990, 8]);
}

#[test]
fn an_overdrawn_node_draws_on_the_others_and_the_sum_is_clamped_once() {
    let (a, b) = (node("a", json!({"cpu": "1", "memory": "1"})), node("b", json!({"cpu": "4"})));
    check_capacity(&[a, b, pod("p", "a", json!({"cpu": "3", "memory": "9"}))], [2000, 0, 0]);
}

#[test]
fn only_v1beta1_of_both_groups_is_counted_and_observed() {
    let items = json!([{"generictemplate": {}, "custompodresources": [{"replicas": 2, "requests": {"cpu": "100m", "nvidia.com/gpu": 1}}]}]);
    let pending = v1beta1("a", items.clone(), json!({"state": "Pending"}));
    let fresh = with(v1beta1("b", items, json!({})), "/apiVersion", json!("mcad.ibm.com/v1beta1"));
    let other = v1beta2("c", json!([]), "Running");
    check(
        &[pending, fresh, other],
        &[
            "mcad_appwrappers_count{state=\"Pending\"} 1",
            "mcad_appwrappers_count{state=\"Running\"} 0",
            "mcad_appwrappers_count{state=\"Deleted\"} 0",
            "mcad_appwrappers_count{state=\"Failed\"} 0",
            "mcad_appwrappers_count{state=\"Completed\"} 0",
            "mcad_appwrappers_count{state=\"RunningHoldCompletion\"} 0",
            "mcad_appwrappers_count{state=\"\"} 1",
            "mcad_requested_cpu_bucket{le=\"100\"} 0",
            "mcad_requested_cpu_bucket{le=\"200\"} 2",
            "mcad_requested_cpu_sum 400",
            "mcad_requested_gpu_count 2",
        ],
    );
    check(&[], &["mcad_appwrappers_count{state=\"Pending\"} 0", "mcad_appwrappers_count{state=\"\"} absent"]);
}

#[test]
fn mcad_v2_shows_each_nodes_own_signed_and_unrounded() {
    let v2 = Options { operator_metrics: OperatorMetrics::V2, ..Options::default() };
    let plain = node("a", json!({"cpu": "4", "memory": "100500m", "nvidia.com/gpu": "2"}));
    let taint = |name: &str, effect: &str| {
        with(node(name, json!({"cpu": "4"})), "/spec/taints", json!([{"key": "nvidia.com/gpu", "effect": effect}]))
    };
    let cordoned = with(node("e", json!({"cpu": "4"})), "/spec/unschedulable", json!(true));
    let mut larger = pod("p", "a", json!({"cpu": "1500u", "memory": "1"}));
    larger["spec"]["initContainers"] = json!([{"resources": {"requests": {"cpu": "1"}}}, {"resources": {"requests": {"cpu": "2", "nvidia.com/gpu": "3"}}}]);
    larger["spec"]["overhead"] = json!({"cpu": "100u"});
    let ours = with(pod("q", "a", json!({"cpu": "1"})), "/metadata/labels", json!({"appwrapper.mcad.ibm.com": "w"}));
    check_by(
        &[
            plain,
            taint("b", "NoSchedule"),
            taint("c", "NoExecute"),
            taint("d", "PreferNoSchedule"),
            cordoned,
            larger,
            ours,
        ],
        &v2,
        &[
            "mcad_capacity_cpu{node=\"a\"} 1.9999",
            "mcad_capacity_memory{node=\"a\"} 99.5",
            "mcad_capacity_gpu{node=\"a\"} -1",
            "mcad_capacity_cpu{node=\"b\"} absent",
            "mcad_capacity_cpu{node=\"c\"} absent",
            "mcad_capacity_cpu{node=\"d\"} 4",
            "mcad_capacity_cpu{node=\"e\"} absent",
            "mcad_allocatable_capacity_cpu absent",
            "mcad_appwrappers_count absent",
            "mcad_requested_cpu absent",
        ],
    );
}

#[test]
fn mcad_v2_shows_whole_bytes_of_a_large_memory_as_whole_bytes() {
    let v2 = Options { operator_metrics: OperatorMetrics::V2, ..Options::default() };
    let large = node("a", json!({"cpu": "7498500u", "memory": "30Gi"}));
    let objects = [large, pod("p", "a", json!({"memory": "4300211676"})), pod("q", "a", json!({"cpu": "8"}))];
    check_by(&objects, &v2, &["mcad_capacity_memory{node=\"a\"} 27912043044", "mcad_capacity_cpu{node=\"a\"} -0.5015"]);
}

#[test]
fn without_operator_metrics_the_operators_names_are_free() {
    let none = Options { operator_metrics: OperatorMetrics::None, ..Options::default() };
    check_by(&[large()], &none, &["mcad_allocatable absent", "mcad_capacity absent", "mcad_appwrappers_count absent"]);
}
