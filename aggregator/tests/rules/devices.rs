//! The ladder where the corners of Dynamic Resource Allocation meet (docs/accounting.md §9): objects in, lines out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use mcad_testkit::build::{node, node_of, pod, v1beta2, with};
use mcad_testkit::check;
use serde_json::{Value, json};

use super::fit_devices::{
    GPU, all, asking, claim, cut_slice, exactly, gpu, having, holding, named, slice, slice_of, tainted,
};

const RESOURCE: &str = r#"resource="nvidia_com_gpu",unit="integer""#;

fn figure(family: &str, labels: &str, value: u64) -> String {
    format!("{family}{{{labels}{RESOURCE}}} {value}")
}

fn allocated(value: u64) -> String {
    figure("mcad_appwrapper_allocated", r#"appwrapper="w",namespace="a","#, value)
}

fn is(objects: Vec<Value>, lines: &[String]) {
    check(&objects, &lines.iter().map(String::as_str).collect::<Vec<_>>());
}

/// A running AppWrapper and its only pod, on that node.
fn running(node: &str, requests: Value) -> [Value; 2] {
    let pod = with(pod("p", node, requests), "/metadata/labels", json!({"workload.codeflare.dev/appwrapper": "w"}));
    let pod = with(with(pod, "/metadata/uid", json!("uid-p")), "/metadata/namespace", json!("a"));
    [v1beta2("w", json!([]), "Running"), pod]
}

fn used_by_the_pod(status: Value) -> Value {
    with(status, "/reservedFor", json!([{"resource": "pods", "name": "p", "uid": "uid-p"}]))
}

fn empty(name: &str) -> Value {
    node(name, json!({"cpu": "8"}))
}

#[test]
fn what_a_claim_holds_on_a_node_that_is_not_there_is_allocated_and_in_no_ladder() {
    let [wrapper, pod] = running("gone", json!({"cpu": "1"}));
    let pod = with(pod, "/spec/resourceClaims", json!([{"name": "c", "resourceClaimName": "k"}]));
    let held = used_by_the_pod(holding("gone", &["gpu-0", "gpu-1"], Some("gone")));
    let claim = claim("k", asking(&[exactly(GPU, 2)]), held);
    let off = r#"mcad_dra_exceptions{reason="off_node_device"} 2"#.to_owned();
    let none = r#"mcad_cluster_installed{resource="nvidia_com_gpu" absent"#.to_owned();
    is(vec![empty("n1"), slice("gone", all(2)), wrapper, pod, claim], &[allocated(2), off, none]);
}

#[test]
fn an_extended_resource_whose_claim_holds_devices_of_the_network_is_allocated_once() {
    let [wrapper, pod] = running("n0", json!({"nvidia.com/gpu": "2"}));
    let held = used_by_the_pod(holding("fabric", &["gpu-0", "gpu-1"], None));
    let made = claim("k", asking(&[exactly(GPU, 2)]), held);
    let made = with(made, "/metadata/annotations", json!({"resource.kubernetes.io/extended-resource-claim": "true"}));
    let owner = json!([{"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "uid-p", "controller": true}]);
    let made = with(made, "/metadata/ownerReferences", owner);
    let fabric = slice_of("fabric", json!({"allNodes": true}), all(2));
    let class = named("nvidia.com/gpu");
    let not_over = r#"mcad_node_overcommitted{node="n0",resource="nvidia_com_gpu" absent"#.to_owned();
    is(vec![empty("n0"), class, fabric, wrapper, pod, made], &[allocated(2), not_over]);
}

#[test]
fn an_instance_as_large_as_its_gpu_leaves_no_room_for_another_while_the_gpu_is_held() {
    let seven = json!({
        "name": "gpu-0-mig-7g", "consumesCounters": [{"counterSet": "set-0", "counters": {"memory": {"value": "80Gi"}}}],
        "attributes": {"type": {"string": "mig"}, "profile": {"string": "7g"}, "parentUUID": {"string": "GPU-0"}},
    });
    let mut there = cut_slice("n0", 1);
    there["spec"]["devices"].as_array_mut().unwrap().push(seven);
    let slots = |count: u64| format!(r#"mcad_gpu_partition_slots{{profile="7g",resource="nvidia_com_gpu"}} {count}"#);
    let halves =
        |count: u64| format!(r#"mcad_gpu_partition_slots{{profile="half",resource="nvidia_com_gpu"}} {count}"#);
    is(vec![empty("n0"), there.clone()], &[slots(1), halves(2)]);
    let held = |device: &str| claim("k", asking(&[exactly(GPU, 1)]), holding("n0", &[device], Some("n0")));
    is(vec![empty("n0"), there.clone(), held("gpu-0")], &[slots(0), halves(0)]);
    is(vec![empty("n0"), there, held("gpu-0-mig-1")], &[slots(0), halves(1)]);
}

#[test]
fn a_gpu_of_two_pools_that_one_of_them_taints_and_the_other_misses_a_slice_of_is_withheld_once() {
    let uuid = |device: Value| having(device, "uuid", json!({"string": "GPU-0"}));
    let partial = with(slice("n0", vec![uuid(gpu("gpu-0"))]), "/spec/pool/resourceSliceCount", json!(2));
    let second = slice_of("x", json!({"nodeName": "n0"}), vec![tainted(uuid(gpu("extra-0")), "NoSchedule")]);
    let stranded = figure("mcad_cluster_withheld", r#"reason="stranded","#, 1);
    let not_twice = figure("mcad_cluster_withheld", r#"reason="device_tainted","#, 0);
    is(vec![empty("n0"), partial, second], &[figure("mcad_cluster_installed", "", 1), stranded, not_twice]);
}

#[test]
fn where_kubelet_declares_more_than_slices_list_what_slices_list_is_free() {
    let declared = node_of("n0", json!({"nvidia.com/gpu": "4"}), json!({"nvidia.com/gpu": "0"}));
    let unhealthy = figure("mcad_cluster_withheld", r#"reason="unhealthy","#, 3);
    let doubly = r#"mcad_dra_exceptions{reason="doubly_declared"} 1"#.to_owned();
    is(vec![declared, slice("n0", all(1))], &[figure("mcad_cluster_free", "", 1), unhealthy, doubly]);
}

#[test]
fn a_pool_that_lists_a_device_twice_is_invalid() {
    let twice = slice("n0", vec![gpu("gpu-0"), gpu("gpu-0")]);
    let invalid = r#"mcad_dra_exceptions{reason="invalid_pool"} 1"#.to_owned();
    is(
        vec![empty("n0"), twice],
        &[figure("mcad_cluster_installed", "", 1), invalid, figure("mcad_cluster_free", "", 0)],
    );
}

#[test]
fn where_a_held_device_is_listed_no_longer_its_share_or_its_whole_says_whether_the_gpu_is_partly_held() {
    let partly = |count: u64| format!(r#"mcad_gpu_partly_held{{resource="nvidia_com_gpu"}} {count}"#);
    let whole = claim("k", asking(&[exactly(GPU, 1)]), holding("n0", &["gpu-0"], Some("n0")));
    let share = with(whole.clone(), "/status/allocation/devices/results/0/shareID", json!("s"));
    // Gone, and another is listed.
    let other = || slice("n0", vec![gpu("gpu-1")]);
    is(vec![empty("n0"), other(), whole.clone()], &[partly(0)]);
    is(vec![empty("n0"), other(), share], &[partly(1)]);
    // Cut since, so that only parts of it are listed.
    let mut parts = cut_slice("n0", 1);
    parts["spec"]["devices"].as_array_mut().unwrap().remove(0);
    is(vec![empty("n0"), parts, whole], &[partly(0)]);
}
