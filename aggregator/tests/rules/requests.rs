//! docs/accounting.md §3, rule by rule: effective requests of a pod.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use mcad_testkit::build::{node, pod, with};
use mcad_testkit::check;
use serde_json::{Value, json};

/// What node `n` shows as requested by other pods, in cores, bytes, GPUs.
fn check_requested(pods: &[Value], [cpu, memory, gpu]: [&str; 3]) {
    let large = node("n", json!({"cpu": "64", "memory": "1Ti", "nvidia.com/gpu": "64"}));
    let line = |resource: &str, unit: &str, amount: &str| {
        format!("mcad_node_requested{{node=\"n\",owner=\"other\",resource=\"{resource}\",unit=\"{unit}\"}} {amount}")
    };
    let lines = [line("cpu", "core", cpu), line("memory", "byte", memory), line("nvidia_com_gpu", "integer", gpu)];
    check(&[&[large], pods].concat(), &lines.iter().map(String::as_str).collect::<Vec<_>>());
}

fn container(requests: Value) -> Value {
    json!({"name": "c", "resources": {"requests": requests}})
}

fn sidecar(requests: Value) -> Value {
    json!({"name": "s", "resources": {"requests": requests}, "restartPolicy": "Always"})
}

fn of(spec: Value) -> Value {
    let mut pod = pod("p", "n", json!({}));
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    pod
}

#[test]
fn containers_are_summed_exactly_and_rounded_up_once() {
    let small = container(json!({"cpu": "100u", "memory": "400m"}));
    check_requested(&[of(json!({"containers": [small, small, small]}))], ["0.001", "2", "0"]);
}

#[test]
fn the_largest_init_step_counts_where_it_is_larger_in_each_dimension() {
    let spec = json!({
        "containers": [container(json!({"cpu": "2", "memory": "10"}))],
        "initContainers": [container(json!({"cpu": "1", "memory": "30"})), container(json!({"cpu": "1", "nvidia.com/gpu": "1"}))],
    });
    check_requested(&[of(spec)], ["2", "30", "1"]);
}

#[test]
fn restartable_init_containers_run_beside_the_containers_and_the_steps_after_them() {
    let spec = |init: Value| of(json!({"containers": [container(json!({"cpu": "2"}))], "initContainers": init}));
    let step = container(json!({"cpu": "4"}));
    check_requested(&[spec(json!([sidecar(json!({"cpu": "1"})), step]))], ["5", "0", "0"]);
    check_requested(&[spec(json!([step, sidecar(json!({"cpu": "1"}))]))], ["4", "0", "0"]);
    check_requested(&[spec(json!([sidecar(json!({"cpu": "1"})), sidecar(json!({"cpu": "2"}))]))], ["5", "0", "0"]);
}

#[test]
fn pod_level_requests_replace_the_sum_of_cpu_and_memory_and_overhead_comes_on_top() {
    let spec = json!({
        "containers": [container(json!({"cpu": "2", "memory": "10", "nvidia.com/gpu": "1"}))],
        "resources": {"requests": {"cpu": "1", "nvidia.com/gpu": "7"}},
        "overhead": {"cpu": "250m", "memory": "1"},
    });
    check_requested(&[of(spec)], ["1.25", "11", "1"]);
}

#[test]
fn limits_stand_in_for_nothing_in_a_pod() {
    let spec = json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": "4"}}}]});
    check_requested(&[of(spec)], ["0", "0", "0"]);
}

#[test]
fn while_a_container_is_resized_the_largest_of_its_three_figures_counts() {
    let resized = |requests: &str, conditions: Value| {
        let mut pod = of(json!({"containers": [container(json!({"cpu": requests}))]}));
        pod["status"]["containerStatuses"] = json!([{
            "name": "c", "resources": {"requests": {"cpu": "2"}}, "allocatedResources": {"cpu": "3"},
        }]);
        pod["status"]["conditions"] = conditions;
        pod
    };
    check_requested(&[resized("1", json!([]))], ["3", "0", "0"]);
    check_requested(&[resized("5", json!([]))], ["5", "0", "0"]);
    let pending = |reason: &str| json!([{"type": "PodResizePending", "status": "True", "reason": reason}]);
    check_requested(&[resized("5", pending("Deferred"))], ["5", "0", "0"]);
    check_requested(&[resized("5", pending("Infeasible"))], ["3", "0", "0"]);
}

#[test]
fn allocated_resources_say_nothing_where_the_status_has_no_resources() {
    let mut pod = of(json!({"containers": [container(json!({"cpu": "1"}))]}));
    pod["status"]["containerStatuses"] = json!([{"name": "c", "allocatedResources": {"cpu": "3"}}]);
    check_requested(&[pod], ["1", "0", "0"]);
}

#[test]
fn a_pod_holds_its_requests_from_binding_to_its_end() {
    let phase = |phase: &str| with(pod(phase, "n", json!({"cpu": "1"})), "/status/phase", json!(phase));
    let leaving =
        with(pod("leaving", "n", json!({"cpu": "1"})), "/metadata/deletionTimestamp", json!("2026-01-05T09:00:00Z"));
    let unbound = pod("unbound", "", json!({"cpu": "1"}));
    let pods = ["Pending", "Running", "Unknown", "Succeeded", "Failed"].map(phase);
    check_requested(&[&pods[..], &[leaving, unbound]].concat(), ["4", "0", "0"]);
}

#[test]
fn a_pod_on_a_node_that_does_not_exist_is_allocated_and_in_no_ladder() {
    let mut lost = pod("p", "gone", json!({"cpu": "1"}));
    lost["metadata"]["labels"] = json!({"workload.codeflare.dev/appwrapper": "w"});
    let wrapper = mcad_testkit::build::v1beta2("w", json!([]), "Running");
    check(
        &[node("n", json!({"cpu": "4"})), lost, wrapper],
        &[
            "mcad_cluster_requested{owner=\"appwrapper\",resource=\"cpu\",unit=\"core\"} 0",
            "mcad_appwrapper_allocated{appwrapper=\"w\",namespace=\"a\",resource=\"cpu\",unit=\"core\"} 1",
        ],
    );
}

#[test]
fn nothing_readable_is_nothing_requested_and_never_a_wrong_sum() {
    let spec = json!({"containers": [container(json!({"cpu": "two", "memory": "-5", "nvidia.com/gpu": {}})), container(json!(null))]});
    check_requested(&[of(spec)], ["0", "0", "0"]);
}
