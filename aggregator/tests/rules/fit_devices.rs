//! Fit of pods that use claims to devices (docs/accounting.md §9): objects in, the line of the AppWrapper `w` out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use mcad_present::explain::{self, Answer, Subject};
use mcad_terminal::paint::Paint;
use mcad_testkit::build::{broken, gpu_report, gpus, node, spec, waiting, with};
use mcad_testkit::explained::{NOW, snapshot};
use mcad_testkit::{check, check_with};
use serde_json::{Value, json};

const DRA: &str = "resource.k8s.io/v1";
/// Whoever wants a whole GPU of NVIDIA's.
pub(super) const GPU: &str = "gpu.nvidia.com";
const MIG: &str = "mig.nvidia.com";

fn fits(fit: u8) -> Vec<String> {
    let labels = r#"appwrapper="w",by="nodes",namespace="a""#;
    vec![
        format!("mcad_appwrapper_fit{{{labels}}} {fit}"),
        r#"mcad_appwrapper_fit_unknown{appwrapper="w" absent"#.to_owned(),
    ]
}

fn unknown(reason: &str) -> Vec<String> {
    vec![
        format!(r#"mcad_appwrapper_fit_unknown{{appwrapper="w",namespace="a",reason="{reason}"}} 1"#),
        r#"mcad_appwrapper_fit{appwrapper="w",by="nodes" absent"#.to_owned(),
    ]
}

/// Nodes of 64 cores, all lists of devices and claims known.
fn cluster(nodes: &[&str], more: Vec<Value>) -> Vec<Value> {
    let nodes =
        nodes.iter().map(|name| with(node(name, json!({"cpu": "64"})), "/metadata/labels", json!({"name": name})));
    let by_type = |name: &str, kind: &str| {
        class(
            name,
            &[&format!("device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == '{kind}'")],
        )
    };
    let known = [claim("unrelated", json!({}), json!({})), slice("gone", vec![])];
    nodes.chain([by_type(GPU, "gpu"), by_type(MIG, "mig")]).chain(known).chain(more).collect()
}

fn meta(name: &str) -> Value {
    json!({"name": name, "namespace": "a", "uid": format!("uid-{name}")})
}

fn class(name: &str, selectors: &[&str]) -> Value {
    let selectors: Vec<_> = selectors.iter().map(|text| json!({"cel": {"expression": text}})).collect();
    json!({"apiVersion": DRA, "kind": "DeviceClass", "metadata": meta(name), "spec": {"selectors": selectors}})
}

pub(super) fn slice_of(pool: &str, reach: Value, devices: Vec<Value>) -> Value {
    let mut spec = json!({
        "driver": GPU, "pool": {"name": pool, "generation": 1, "resourceSliceCount": 1}, "devices": devices,
    });
    spec.as_object_mut().unwrap().extend(reach.as_object().unwrap().clone());
    json!({"apiVersion": DRA, "kind": "ResourceSlice", "metadata": meta(&format!("slice-{pool}")), "spec": spec})
}

/// The slice of a node, whose pool has the node's name.
pub(super) fn slice(node: &str, devices: Vec<Value>) -> Value {
    slice_of(node, json!({"nodeName": node}), devices)
}

pub(super) fn gpu(name: &str) -> Value {
    json!({"name": name, "attributes": {"type": {"string": "gpu"}}, "capacity": {"memory": {"value": "80Gi"}}})
}

pub(super) fn all(count: usize) -> Vec<Value> {
    (0..count).map(|at| gpu(&format!("gpu-{at}"))).collect()
}

pub(super) fn having(device: Value, attribute: &str, value: Value) -> Value {
    with(device, &format!("/attributes/{attribute}"), value)
}

pub(super) fn tainted(device: Value, effect: &str) -> Value {
    with(device, "/taints", json!([{"key": "repair", "effect": effect}]))
}

/// So many devices of a class.
pub(super) fn exactly(class: &str, count: u32) -> Value {
    json!({"deviceClassName": class, "allocationMode": "ExactCount", "count": count})
}

fn selecting(mut exactly: Value, text: &str) -> Value {
    exactly["selectors"] = json!([{"cel": {"expression": text}}]);
    exactly
}

/// The `devices` of a claim with these requests.
pub(super) fn asking(requests: &[Value]) -> Value {
    let requests =
        requests.iter().enumerate().map(|(at, exactly)| json!({"name": format!("r{at}"), "exactly": exactly}));
    json!({"requests": requests.collect::<Vec<_>>()})
}

fn template(devices: Value) -> Value {
    let spec = json!({"spec": {"devices": devices}});
    json!({"apiVersion": DRA, "kind": "ResourceClaimTemplate", "metadata": meta("t"), "spec": spec})
}

pub(super) fn claim(name: &str, devices: Value, status: Value) -> Value {
    let spec = json!({"devices": devices});
    json!({"apiVersion": DRA, "kind": "ResourceClaim", "metadata": meta(name), "spec": spec, "status": status})
}

/// The status of a claim that holds devices of a pool, for pods on that node.
pub(super) fn holding(pool: &str, devices: &[&str], node: Option<&str>) -> Value {
    let results: Vec<_> =
        devices.iter().map(|device| json!({"request": "r0", "driver": GPU, "pool": pool, "device": device})).collect();
    let mut allocation = json!({"devices": {"results": results}});
    if let Some(node) = node {
        let field = json!({"key": "metadata.name", "operator": "In", "values": [node]});
        allocation["nodeSelector"] = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
    }
    json!({"allocation": allocation})
}

fn held(pool: &str, device: &str) -> Value {
    claim(&format!("of-{pool}-{device}"), asking(&[exactly(GPU, 1)]), holding(pool, &[device], None))
}

fn using(entries: Value) -> Value {
    with(spec(json!({"cpu": "1"})), "/resourceClaims", entries)
}

fn by_template() -> Value {
    using(json!([{"name": "c", "resourceClaimTemplateName": "t"}]))
}

fn by_claim(name: &str) -> Value {
    using(json!([{"name": "c", "resourceClaimName": name}]))
}

fn is(expected: Vec<String>, objects: Vec<Value>) {
    check(&objects, &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

/// So many pods, each with a claim of that template, on nodes with these slices.
fn pods(count: u32, devices: Value, expected: Vec<String>, nodes: &[&str], more: &[Value]) {
    let own = [template(devices), waiting(&[(count, by_template())])];
    is(expected, cluster(nodes, more.iter().cloned().chain(own).collect()));
}

fn two_and_four() -> [Value; 2] {
    [slice("n0", all(2)), slice("n1", all(4))]
}

#[test]
fn pods_of_two_devices_find_three_places_among_two_and_four() {
    pods(3, asking(&[exactly(GPU, 2)]), fits(1), &["n0", "n1"], &two_and_four());
    pods(4, asking(&[exactly(GPU, 2)]), fits(0), &["n0", "n1"], &two_and_four());
    pods(1, asking(&[exactly(GPU, 5)]), fits(0), &["n0", "n1"], &two_and_four());
}

#[test]
fn what_is_undecided_is_unknown_where_it_decides_and_only_there() {
    let undecided = "device.attributes['gpu.nvidia.com'].type.split('')[0] == 'g'";
    let asking = |count| asking(&[selecting(exactly(GPU, count), undecided)]);
    pods(1, asking(1), unknown("selector"), &["n0", "n1"], &two_and_four());
    pods(1, asking(5), fits(0), &["n0", "n1"], &two_and_four());
    // Of all that match, it may be those that can be had.
    let all_of = || self::asking(&[selecting(json!({"deviceClassName": GPU, "allocationMode": "All"}), undecided)]);
    let tainted_one = slice("n0", vec![tainted(gpu("gpu-0"), "NoSchedule"), gpu("gpu-1")]);
    pods(1, all_of(), unknown("selector"), &["n0"], &[tainted_one]);
    pods(6, all_of(), unknown("selector"), &["n0", "n1"], &two_and_four());
    pods(7, all_of(), fits(0), &["n0", "n1"], &two_and_four());
    // The first pod's two are certain; where a device is selected whatever that is, it is, too.
    let either = format!("device.driver == 'gpu.nvidia.com' || {undecided}");
    pods(3, self::asking(&[selecting(exactly(GPU, 2), &either)]), fits(1), &["n0", "n1"], &two_and_four());
}

#[test]
fn devices_that_are_held_are_gone_and_so_is_a_pool_that_is_not_whole() {
    pods(1, asking(&[exactly(GPU, 2)]), fits(0), &["n0"], &[slice("n0", all(2)), held("n0", "gpu-1")]);
    pods(1, asking(&[exactly(GPU, 1)]), fits(1), &["n0"], &[slice("n0", all(2)), held("n0", "gpu-1")]);
    let half = with(slice("n0", all(2)), "/spec/pool/resourceSliceCount", json!(2));
    pods(1, asking(&[exactly(GPU, 1)]), fits(0), &["n0"], &[half]);
}

#[test]
fn a_class_that_is_not_there_does_not_fit_and_neither_does_any_alternative_beside_it() {
    pods(1, asking(&[exactly("mi300", 1)]), fits(0), &["n0"], &[slice("n0", all(2))]);
    let first = json!([with(exactly(GPU, 1), "/name", json!("a")), with(exactly("mi300", 1), "/name", json!("b"))]);
    pods(1, json!({"requests": [{"name": "r", "firstAvailable": first}]}), fits(0), &["n0"], &[slice("n0", all(2))]);
}

#[test]
fn what_a_claim_is_missing_or_asks_in_an_unknown_way_is_said() {
    let on = |more: Vec<Value>, spec: Value| {
        cluster(&["n0"], [slice("n0", all(2)), waiting(&[(1, spec)])].into_iter().chain(more).collect())
    };
    is(unknown("claim_missing"), on(vec![], by_template()));
    is(unknown("claim_missing"), on(vec![], by_claim("c")));
    let mode = json!({"deviceClassName": GPU, "allocationMode": "AtLeast"});
    is(unknown("request"), on(vec![template(asking(&[mode]))], by_template()));
    is(unknown("request"), on(vec![template(asking(&[exactly("", 1)]))], by_template()));
    let constrained = with(asking(&[exactly(GPU, 1)]), "/constraints", json!([{"nearAttribute": "x"}]));
    is(unknown("request"), on(vec![template(constrained)], by_template()));
}

/// A GPU that is handed out whole or in halves.
fn cut(gpu_at: usize) -> Vec<Value> {
    let uuid = json!({"string": format!("GPU-{gpu_at}")});
    let consumes =
        |memory: &str| json!([{"counterSet": format!("set-{gpu_at}"), "counters": {"memory": {"value": memory}}}]);
    let whole = having(gpu(&format!("gpu-{gpu_at}")), "uuid", uuid.clone());
    let half = |at: usize| {
        json!({
            "name": format!("gpu-{gpu_at}-mig-{at}"), "consumesCounters": consumes("40Gi"),
            "attributes": {"type": {"string": "mig"}, "profile": {"string": "half"}, "parentUUID": uuid},
        })
    };
    vec![with(whole, "/consumesCounters", consumes("80Gi")), half(0), half(1), half(2)]
}

pub(super) fn cut_slice(node: &str, count: usize) -> Value {
    let sets: Vec<_> =
        (0..count).map(|at| json!({"name": format!("set-{at}"), "counters": {"memory": {"value": "80Gi"}}})).collect();
    with(slice(node, (0..count).flat_map(cut).collect()), "/spec/sharedCounters", json!(sets))
}

#[test]
fn parts_of_a_gpu_go_as_far_as_its_counters_and_leave_no_whole_one() {
    pods(4, asking(&[exactly(MIG, 1)]), fits(1), &["n0"], &[cut_slice("n0", 2)]);
    pods(5, asking(&[exactly(MIG, 1)]), fits(0), &["n0"], &[cut_slice("n0", 2)]);
    let both = asking(&[exactly(MIG, 1), exactly(GPU, 1)]);
    pods(1, both.clone(), fits(1), &["n0"], &[cut_slice("n0", 2)]);
    pods(1, both, fits(0), &["n0"], &[cut_slice("n0", 1)]);
    pods(2, asking(&[exactly(GPU, 1)]), fits(1), &["n0"], &[cut_slice("n0", 2)]);
    let held = held("n0", "gpu-0-mig-1");
    pods(2, asking(&[exactly(GPU, 1)]), fits(0), &["n0"], &[cut_slice("n0", 2), held.clone()]);
    pods(3, asking(&[exactly(MIG, 1)]), fits(1), &["n0"], &[cut_slice("n0", 2), held]);
}

#[test]
fn a_gpu_in_another_form_is_the_same_gpu() {
    let id = |device: Value| having(device, "uuid", json!({"string": "GPU-0"}));
    let forms = slice("n0", vec![id(gpu("gpu-0")), id(gpu("gpu-vfio-0"))]);
    pods(2, asking(&[exactly(GPU, 1)]), fits(0), &["n0"], std::slice::from_ref(&forms));
    pods(1, asking(&[exactly(GPU, 2)]), fits(0), &["n0"], std::slice::from_ref(&forms));
    pods(1, asking(&[exactly(GPU, 1)]), fits(0), &["n0"], &[forms.clone(), held("n0", "gpu-vfio-0")]);
    // The pool lists what is left of the GPU whose part is held.
    pods(1, asking(&[exactly(GPU, 1)]), fits(0), &["n0"], &[slice("n0", all(1)), held("n0", "gpu-0-mig-7")]);
}

#[test]
fn taints_keep_claims_off_that_do_not_tolerate_them() {
    let tolerating = with(exactly(GPU, 2), "/tolerations", json!([{"key": "repair", "operator": "Exists"}]));
    for (effect, without) in [("NoSchedule", 0), ("NoExecute", 0), ("None", 1)] {
        let devices = || [slice("n0", vec![gpu("gpu-0"), tainted(gpu("gpu-1"), effect)])];
        pods(1, asking(&[exactly(GPU, 2)]), fits(without), &["n0"], &devices());
        pods(1, asking(std::slice::from_ref(&tolerating)), fits(1), &["n0"], &devices());
    }
    let rule = |selector: Value| {
        let spec = json!({"deviceSelector": selector, "taint": {"key": "repair", "effect": "NoExecute"}});
        json!({"apiVersion": "resource.k8s.io/v1beta2", "kind": "DeviceTaintRule", "metadata": meta("rule"), "spec": spec})
    };
    let of_one = rule(json!({"pool": "n0", "device": "gpu-1"}));
    pods(1, asking(&[exactly(GPU, 2)]), fits(0), &["n0"], &[slice("n0", all(2)), of_one.clone()]);
    pods(1, asking(&[exactly(GPU, 1)]), fits(1), &["n0"], &[slice("n0", all(2)), of_one.clone()]);
    pods(1, asking(&[tolerating]), fits(1), &["n0"], &[slice("n0", all(2)), of_one]);
    pods(1, asking(&[exactly(GPU, 1)]), fits(0), &["n0"], &[slice("n0", all(2)), rule(json!({}))]);
}

#[test]
fn all_means_every_device_and_at_least_one() {
    let all_of = || asking(&[json!({"deviceClassName": GPU, "allocationMode": "All"})]);
    pods(2, all_of(), fits(1), &["n0", "n1"], &two_and_four());
    pods(3, all_of(), fits(0), &["n0", "n1"], &two_and_four());
    pods(1, all_of(), fits(0), &["n0"], &[slice("n0", all(2)), held("n0", "gpu-0")]);
    pods(1, all_of(), fits(0), &["n0"], &[slice("n0", vec![gpu("gpu-0"), tainted(gpu("gpu-1"), "NoSchedule")])]);
    pods(1, all_of(), fits(0), &["n0"], &[]);
    let half = with(slice_of("other", json!({"nodeName": "n0"}), all(1)), "/spec/pool/resourceSliceCount", json!(2));
    pods(1, all_of(), fits(0), &["n0"], &[slice("n0", all(2)), half.clone()]);
    pods(1, asking(&[exactly(GPU, 2)]), fits(1), &["n0"], &[slice("n0", all(2)), half]);
    pods(1, all_of(), fits(0), &["n0"], &[slice("n0", all(33))]);
}

#[test]
fn the_first_alternative_that_can_be_had_is_taken() {
    let first = json!([with(exactly(GPU, 3), "/name", json!("three")), with(exactly(GPU, 1), "/name", json!("one"))]);
    let devices = json!({"requests": [{"name": "r", "firstAvailable": first}]});
    pods(2, devices.clone(), fits(1), &["n0"], &[slice("n0", all(2))]);
    // Of four, the first pod takes three.
    pods(2, devices.clone(), fits(1), &["n0"], &[slice("n0", all(4))]);
    pods(3, devices, fits(0), &["n0"], &[slice("n0", all(4))]);
}

#[test]
fn devices_of_a_claim_have_in_common_or_not_what_it_demands() {
    let of_model = |at: usize, model: &str| having(gpu(&format!("gpu-{at}")), "model", json!({"string": model}));
    let mixed = || [slice("n0", vec![of_model(0, "a"), of_model(1, "b"), of_model(2, "b"), gpu("gpu-3")])];
    let with_constraint = |count, kind: &str| {
        with(asking(&[exactly(GPU, count)]), "/constraints", json!([{kind: "gpu.nvidia.com/model", "requests": []}]))
    };
    pods(1, with_constraint(2, "matchAttribute"), fits(1), &["n0"], &mixed());
    pods(1, with_constraint(3, "matchAttribute"), fits(0), &["n0"], &mixed());
    pods(1, with_constraint(2, "distinctAttribute"), fits(1), &["n0"], &mixed());
    pods(1, with_constraint(3, "distinctAttribute"), fits(0), &["n0"], &mixed());
    // Only of the requests that are named.
    let constraint = json!([{"matchAttribute": "gpu.nvidia.com/model", "requests": ["r0"]}]);
    let some = with(asking(&[exactly(GPU, 2), exactly(GPU, 2)]), "/constraints", constraint);
    pods(1, some, fits(1), &["n0"], &mixed());
}

#[test]
fn capacity_is_enough_or_not() {
    let of = |memory: &str| asking(&[with(exactly(GPU, 1), "/capacity", json!({"requests": {"memory": memory}}))]);
    pods(1, of("80Gi"), fits(1), &["n0"], &[slice("n0", all(1))]);
    pods(1, of("81Gi"), fits(0), &["n0"], &[slice("n0", all(1))]);
}

#[test]
fn who_looks_after_devices_takes_none() {
    let admin = || asking(&[with(exactly(GPU, 1), "/adminAccess", json!(true))]);
    pods(3, admin(), fits(1), &["n0"], &[slice("n0", all(1)), held("n0", "gpu-0")]);
    pods(1, admin(), fits(0), &["n0"], &[]);
}

#[test]
fn a_claim_that_all_share_gets_devices_once_and_binds_all_to_their_node() {
    let shared = |count| claim("c", asking(&[exactly(GPU, count)]), json!({}));
    let on = |pods, claim: Value| {
        cluster(&["n0", "n1"], two_and_four().into_iter().chain([claim, waiting(&[(pods, by_claim("c"))])]).collect())
    };
    is(fits(1), on(3, shared(4)));
    is(fits(1), on(64, shared(4)));
    // One node has room for 64 of a core each.
    is(fits(0), on(65, shared(4)));
    is(fits(0), on(1, shared(5)));
}

#[test]
fn a_claim_that_has_devices_binds_its_pods_to_their_node() {
    let allocated = || claim("c", asking(&[exactly(GPU, 2)]), holding("n0", &["gpu-0", "gpu-1"], Some("n0")));
    let on = |pods| {
        cluster(
            &["n0", "n1"],
            two_and_four().into_iter().chain([allocated(), waiting(&[(pods, by_claim("c"))])]).collect(),
        )
    };
    is(fits(1), on(64));
    is(fits(0), on(65));
}

#[test]
fn devices_on_the_network_are_used_from_the_nodes_that_they_reach_and_once() {
    let expression = json!({"key": "name", "operator": "In", "values": ["n0", "n1"]});
    let reach = || json!({"nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}});
    let fabric = || [slice_of("fabric", reach(), all(2))];
    let big = |cpu: &str| with(by_template(), "/containers/0/resources/requests/cpu", json!(cpu));
    let on = |nodes: &[&str], pods, spec: Value| {
        let own = [template(asking(&[exactly(GPU, 1)])), waiting(&[(pods, spec)])];
        cluster(nodes, fabric().into_iter().chain(own).collect())
    };
    is(fits(1), on(&["n0", "n1", "n2"], 2, big("64")));
    is(fits(0), on(&["n0", "n1", "n2"], 3, big("64")));
    is(fits(0), on(&["n2"], 1, big("1")));
    is(fits(0), on(&["n0", "n1"], 3, big("1")));
    // From all nodes.
    let everywhere = slice_of("fabric", json!({"allNodes": true}), all(2));
    pods(2, asking(&[exactly(GPU, 1)]), fits(1), &["n2"], &[everywhere]);
}

#[test]
fn a_claim_that_all_share_on_the_network_binds_them_to_the_nodes_that_its_devices_reach() {
    let expression = json!({"key": "name", "operator": "In", "values": ["n0", "n1"]});
    let fabric = slice_of(
        "fabric",
        json!({"nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}),
        all(2),
    );
    let on = |pods| {
        let own =
            [fabric.clone(), claim("c", asking(&[exactly(GPU, 2)]), json!({})), waiting(&[(pods, by_claim("c"))])];
        cluster(&["n0", "n1", "n2"], own.into())
    };
    is(fits(1), on(128));
    is(fits(0), on(200));
}

#[test]
fn shares_that_are_out_may_or_may_not_leave_more() {
    let shareable = || with(gpu("gpu-0"), "/allowMultipleAllocations", json!(true));
    let one = || asking(&[exactly(GPU, 1)]);
    pods(1, one(), fits(1), &["n0"], &[slice("n0", vec![shareable()])]);
    pods(2, one(), unknown("shared_device"), &["n0"], &[slice("n0", vec![shareable()])]);
    let mut share = holding("n0", &["gpu-0"], None);
    share["allocation"]["devices"]["results"][0]["shareID"] = json!("s");
    let held = claim("other", one(), share);
    pods(1, one(), unknown("shared_device"), &["n0"], &[slice("n0", vec![shareable()]), held.clone()]);
    pods(1, one(), fits(1), &["n0"], &[slice("n0", vec![shareable(), gpu("gpu-1")]), held.clone()]);
    pods(1, asking(&[exactly(GPU, 3)]), fits(0), &["n0"], &[slice("n0", vec![shareable(), gpu("gpu-1")]), held]);
}

pub(super) fn named(extended: &str) -> Value {
    with(class("by-name", &["device.driver == 'gpu.nvidia.com'"]), "/spec/extendedResourceName", json!(extended))
}

#[test]
fn an_extended_resource_is_a_claim_where_kubelet_declares_none_of_it() {
    let on = |resource: &str, count: u32, more: Vec<Value>| {
        let pod = spec(json!({"cpu": "1", resource: "2"}));
        let own = [slice("n0", all(5)), waiting(&[(count, pod)])];
        cluster(&["n0"], own.into_iter().chain(more).collect())
    };
    for resource in ["nvidia.com/gpu", "example.com/gpu"] {
        is(fits(1), on(resource, 2, vec![named(resource)]));
        is(fits(0), on(resource, 3, vec![named(resource)]));
        // Whatever is free.
        is(fits(0), on(resource, 1, vec![]));
    }
    let implicit = "deviceclass.resource.kubernetes.io/gpu.nvidia.com";
    is(fits(1), on(implicit, 2, vec![]));
    is(fits(0), on(implicit, 3, vec![]));
    // Beside a node of a device plugin.
    let plugin = || node("p", json!({"cpu": "8", "nvidia.com/gpu": "4"}));
    is(fits(1), on("nvidia.com/gpu", 4, vec![named("nvidia.com/gpu"), plugin()]));
    is(fits(0), on("nvidia.com/gpu", 5, vec![named("nvidia.com/gpu"), plugin()]));
    is(fits(1), on("nvidia.com/gpu", 2, vec![plugin()]));
    is(fits(0), on("nvidia.com/gpu", 3, vec![plugin()]));
}

#[test]
fn pods_of_several_kinds_take_from_the_same_devices() {
    let by_name = |count: u32| spec(json!({"cpu": "1", "nvidia.com/gpu": count.to_string()}));
    let on = |sets: &[(u32, Value)]| {
        let own = [named("nvidia.com/gpu"), template(asking(&[exactly(GPU, 2)])), waiting(sets)];
        cluster(&["n0", "n1"], two_and_four().into_iter().chain(own).collect())
    };
    is(fits(1), on(&[(2, by_template()), (2, by_name(1))]));
    is(fits(0), on(&[(2, by_template()), (3, by_name(1))]));
    is(fits(0), on(&[(3, by_template()), (1, by_name(1))]));
    is(fits(1), on(&[(3, by_template()), (9, spec(json!({"cpu": "2"})))]));
    // Each takes three of eight: two find a place on a node, whichever they are.
    let nodes: Vec<String> = (0..100).map(|at| format!("m{at}")).collect();
    let large = |pods| {
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        let slices = nodes.iter().map(|name| slice(name, all(8)));
        let larger = with(by_template(), "/containers/0/resources/requests/cpu", json!("2"));
        let own = [template(asking(&[exactly(GPU, 3)])), waiting(&[(pods, by_template()), (3, larger)])];
        cluster(&nodes, slices.chain(own).collect())
    };
    is(fits(1), large(197));
    is(fits(0), large(198));
}

#[test]
fn without_room_for_the_rest_devices_do_not_help() {
    let pod = with(by_template(), "/containers/0/resources/requests/cpu", json!("33"));
    let on = |count| {
        let own = [template(asking(&[exactly(GPU, 1)])), waiting(&[(count, pod.clone())])];
        cluster(&["n0", "n1"], two_and_four().into_iter().chain(own).collect())
    };
    is(fits(1), on(2));
    is(fits(0), on(3));
}

#[test]
fn devices_that_an_agent_knows_to_be_broken_are_not_available() {
    let with_uuid = |at: usize| having(gpu(&format!("gpu-{at}")), "uuid", json!({"string": format!("GPU-{at}")}));
    let objects = |count| {
        let own = [template(asking(&[exactly(GPU, count)])), waiting(&[(1, by_template())])];
        let slice = slice("n0", (0..3).map(with_uuid).collect());
        cluster(&["n0"], [slice].into_iter().chain(own).collect())
    };
    let is = |count, report, expected: Vec<String>| {
        check_with(&objects(count), vec![report], &expected.iter().map(String::as_str).collect::<Vec<_>>());
    };
    is(3, gpu_report("n0", gpus(3)), fits(1));
    let mut one_broken = gpus(3);
    one_broken[1] = broken(one_broken[1].clone());
    is(3, gpu_report("n0", one_broken.clone()), fits(0));
    is(2, gpu_report("n0", one_broken), fits(1));
    // Nor are those that are not there.
    is(3, gpu_report("n0", gpus(2)), fits(0));
    is(2, gpu_report("n0", gpus(2)), fits(1));
}

#[test]
fn a_claim_gets_no_more_than_32_devices() {
    pods(1, asking(&[exactly(GPU, 32)]), fits(1), &["n0"], &[slice("n0", all(40))]);
    pods(1, asking(&[exactly(GPU, 33)]), fits(0), &["n0"], &[slice("n0", all(40))]);
    pods(1, asking(&[exactly(GPU, 16), exactly(GPU, 17)]), fits(0), &["n0"], &[slice("n0", all(40))]);
}

#[test]
fn the_words_say_what_keeps_it_from_being_known_or_from_fitting() {
    let sentence = |objects: Vec<Value>| {
        let snapshot = snapshot(&objects, vec![]);
        explain::text(&Answer::on(&Subject::Cluster, &snapshot, NOW).unwrap(), Paint::Plain)
    };
    let on = |more: Vec<Value>| {
        cluster(&["n0"], [slice("n0", all(2)), waiting(&[(1, by_template())])].into_iter().chain(more).collect())
    };
    let contains = |text: &str, part: &str| assert!(text.contains(part), "{part}\n{text}");
    contains(&sentence(on(vec![])), "its pods use ResourceClaimTemplate t, which does not exist");
    let class = template(asking(&[exactly("mi300", 1)]));
    contains(&sentence(on(vec![class])), "its pods need devices of DeviceClass mi300, which does not exist");
}

#[test]
fn a_claim_that_would_take_for_ever_is_cut_short_and_keeps_no_other_from_its_verdict() {
    // Sixteen of different models, where there are fifteen.
    let odd = |at: usize| having(gpu(&format!("gpu-{at}")), "model", json!({"string": format!("m{}", at / 2)}));
    let devices = slice("n0", (0..30).map(odd).collect());
    let distinct = json!([{"distinctAttribute": "gpu.nvidia.com/model", "requests": []}]);
    let hard = with(asking(&[exactly(GPU, 8), exactly(GPU, 8)]), "/constraints", distinct);
    let easy = with(template(asking(&[exactly(GPU, 16)])), "/metadata/name", json!("easy"));
    let pod = using(json!([{"name": "c", "resourceClaimTemplateName": "easy"}]));
    let other = with(waiting(&[(1, pod)]), "/metadata/name", json!("z"));
    let mut expected = unknown("search");
    expected.push(r#"mcad_appwrapper_fit{appwrapper="z",by="nodes",namespace="a"} 1"#.to_owned());
    pods(1, hard, expected, &["n0"], &[devices, easy, other]);
}

#[test]
fn each_of_several_appwrappers_that_wait_for_the_same_is_placed_as_if_it_were_the_only_one() {
    let named = |name: &str, pods: u32| with(waiting(&[(pods, by_template())]), "/metadata/name", json!(name));
    for order in [["a", "b", "c", "d"], ["d", "c", "b", "a"], ["b", "d", "a", "c"]] {
        let all = order.into_iter().zip([2, 3, 4, 9]).map(|(name, pods)| named(name, pods));
        let own = [template(asking(&[exactly(GPU, 2)]))];
        let objects = cluster(&["n0", "n1"], two_and_four().into_iter().chain(own).chain(all).collect());
        let line = |(name, fit): (&str, u8)| {
            format!(r#"mcad_appwrapper_fit{{appwrapper="{name}",by="nodes",namespace="a"}} {fit}"#)
        };
        is(order.into_iter().zip([1, 1, 0, 0]).map(line).collect(), objects);
    }
}
