//! docs/accounting.md §6, rule by rule: AppWrappers that were started and are placed in part.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use mcad_testkit::build::{node, pod, spec, v1beta1, v1beta2, with};
use mcad_testkit::check;
use serde_json::{Value, json};

fn gpus(count: u32) -> Value {
    spec(json!({"nvidia.com/gpu": count.to_string()}))
}

fn gpu_node(name: &str, count: u32) -> Value {
    node(name, json!({"cpu": "8", "nvidia.com/gpu": count.to_string()}))
}

/// One that runs, of pod sets: how many pods, and their spec.
fn running(sets: &[(u32, Value)]) -> Value {
    let sets = sets.iter().map(|(n, spec)| (*n, spec.clone(), json!({})));
    running_with(&sets.collect::<Vec<_>>())
}

/// The same with what the queue added to each.
fn running_with(sets: &[(u32, Value, Value)]) -> Value {
    let components: Vec<_> = sets
        .iter()
        .map(|(n, spec, added)| {
            let template = json!({"t": {"spec": spec}});
            json!({"podSets": [{"path": "template.t", "replicas": n}], "template": template, "podSetInfos": [added]})
        })
        .collect();
    v1beta2("W", json!(components), "Running")
}

/// A pod of it that is bound.
fn own(name: &str, node: &str, gpus: u32, set: &str) -> Value {
    let labels = json!({"workload.codeflare.dev/appwrapper": "W", "kueue.x-k8s.io/podset": set});
    with(pod(name, node, json!({"nvidia.com/gpu": gpus.to_string()})), "/metadata/labels", labels)
}

fn check_pods(objects: &[Value], [wanted, bound, unbound]: [&str; 3], fit: &str) {
    let pods = |state: &str, count: &str| {
        format!("mcad_appwrapper_pods{{appwrapper=\"W\",namespace=\"a\",state=\"{state}\"}} {count}")
    };
    let fit = format!("mcad_appwrapper_fit{{appwrapper=\"W\",by=\"nodes\",namespace=\"a\"}} {fit}");
    let aggregate = "mcad_appwrapper_fit{appwrapper=\"W\",by=\"aggregate\" absent";
    check(objects, &[&pods("wanted", wanted), &pods("bound", bound), &pods("unbound", unbound), &fit, aggregate]);
}

#[test]
fn what_is_not_bound_of_one_that_runs_fits_or_does_not() {
    let objects = |free: u32| [gpu_node("m", 8), gpu_node("n", free), own("p", "m", 8, ""), running(&[(2, gpus(8))])];
    check_pods(&objects(8), ["2", "1", "1"], "1");
    check_pods(&objects(7), ["2", "1", "1"], "0");
    let resuming = with(running(&[(2, gpus(8))]), "/status/phase", json!("Resuming"));
    check_pods(&[gpu_node("n", 8), resuming], ["2", "0", "2"], "0");
    for phase in ["Suspending", "Resetting", "Failed", "Succeeded", "Terminating"] {
        let other = with(running(&[(2, gpus(8))]), "/status/phase", json!(phase));
        check_pods(&[gpu_node("n", 8), other], ["2", "0", "2"], "absent");
    }
    check_pods(&[gpu_node("n", 8), own("p", "n", 8, ""), running(&[(1, gpus(8))])], ["1", "1", "0"], "absent");
}

#[test]
fn all_the_rest_must_find_room_whatever_min_available_says() {
    let objects = |min: u8| {
        [gpu_node("n", 8), with(running(&[(2, gpus(8))]), "/spec/schedulingSpec", json!({"minAvailable": min}))]
    };
    check_pods(&objects(1), ["2", "0", "2"], "0");
}

#[test]
fn pods_that_ended_well_and_those_on_nodes_that_are_gone_are_bound_and_failed_ones_are_not() {
    let is = |phase: &str| with(own("p", "gone", 8, ""), "/status/phase", json!(phase));
    let objects = |pod: Value| [gpu_node("n", 8), pod, running(&[(2, gpus(8))])];
    check_pods(&objects(is("Running")), ["2", "1", "1"], "1");
    check_pods(&objects(is("Succeeded")), ["2", "1", "1"], "1");
    check_pods(&objects(is("Failed")), ["2", "0", "2"], "0");
    check_pods(&objects(own("p", "", 8, "")), ["2", "0", "2"], "0");
    // More than it asks for are no fewer than none that lack a node.
    let many = [own("q", "n", 1, ""), own("r", "n", 1, ""), own("s", "n", 1, "")];
    check_pods(&[&objects(is("Running"))[..], &many].concat(), ["2", "4", "0"], "absent");
}

#[test]
fn without_pods_that_it_asks_for_only_those_that_are_bound_are_told() {
    let unknown = v1beta2("W", json!([{"template": {"kind": "MPIJob"}}]), "Running");
    check_pods(std::slice::from_ref(&unknown), ["absent", "0", "absent"], "absent");
    check_pods(&[unknown, gpu_node("n", 8), own("p", "n", 8, "")], ["absent", "1", "absent"], "absent");
}

#[test]
fn a_bound_pod_is_of_the_pod_set_that_its_label_names_in_lower_case() {
    // One of 4 and one of 2; the one that is bound requests what neither does.
    let objects = |set: &str, free: u32| {
        [gpu_node("m", 8), gpu_node("n", free), own("p", "m", 8, set), running(&[(1, gpus(4)), (1, gpus(2))])]
    };
    check_pods(&objects("w-0", 2), ["2", "1", "1"], "1");
    check_pods(&objects("w-1", 2), ["2", "1", "1"], "0");
    check_pods(&objects("w-1", 4), ["2", "1", "1"], "1");
    // A label that names none: the first that has any left.
    for none in ["W-1", "w-2", "w-01", "w-", "x-1", ""] {
        check_pods(&objects(none, 2), ["2", "1", "1"], "1");
    }
}

#[test]
fn a_pod_without_a_label_is_of_the_first_pod_set_that_requests_the_same() {
    let objects = |requests: u32, free: u32| {
        [
            gpu_node("m", requests),
            gpu_node("n", free),
            own("p", "m", requests, ""),
            running(&[(1, gpus(4)), (1, gpus(2))]),
        ]
    };
    check_pods(&objects(2, 3), ["2", "1", "1"], "0");
    check_pods(&objects(4, 3), ["2", "1", "1"], "1");
    check_pods(&objects(3, 3), ["2", "1", "1"], "1");
}

#[test]
fn pods_are_taken_from_their_pod_sets_in_order_of_name() {
    // Both say that they are of the first, which has one: that is `a`, and `b` is then of the one that requests what it does.
    let objects = |a: u32, b: u32, free: u32| {
        [
            gpu_node("m", a + b),
            gpu_node("n", free),
            own("b", "m", b, "w-0"),
            own("a", "m", a, "w-0"),
            running(&[(1, gpus(1)), (1, gpus(2)), (1, gpus(3))]),
        ]
    };
    check_pods(&objects(2, 3, 2), ["3", "2", "1"], "1");
    check_pods(&objects(3, 2, 2), ["3", "2", "1"], "0");
    check_pods(&objects(3, 2, 3), ["3", "2", "1"], "1");
}

#[test]
fn what_labels_name_comes_before_what_requests_the_same() {
    // `a` requests what the first does, and `b` is of the first by its label: `a` is of the second.
    let objects = |free: u32| {
        [
            gpu_node("m", 6),
            gpu_node("n", free),
            own("a", "m", 1, ""),
            own("b", "m", 5, "w-0"),
            running(&[(1, gpus(1)), (1, gpus(2)), (1, gpus(3))]),
        ]
    };
    check_pods(&objects(2), ["3", "2", "1"], "0");
    check_pods(&objects(3), ["3", "2", "1"], "1");
}

#[test]
fn the_rest_goes_where_the_queue_has_let_it() {
    let labelled = |name: &str, zone: &str| with(gpu_node(name, 8), "/metadata/labels", json!({"zone": zone}));
    let admitted = |added: Value| running_with(&[(1, gpus(8), added)]);
    let zone = |zone: &str| json!({"nodeSelector": {"zone": zone}, "labels": {"x": "y"}});
    check_pods(&[labelled("n", "a"), admitted(zone("a"))], ["1", "0", "1"], "1");
    check_pods(&[labelled("n", "b"), admitted(zone("a"))], ["1", "0", "1"], "0");
    let tainted = || with(gpu_node("n", 8), "/spec/taints", json!([{"key": "team", "effect": "NoExecute"}]));
    let tolerations = json!({"tolerations": [{"key": "team", "operator": "Exists"}]});
    check_pods(&[tainted(), admitted(json!({}))], ["1", "0", "1"], "0");
    check_pods(&[tainted(), admitted(tolerations)], ["1", "0", "1"], "1");
    // While it waits, what it was let do before says nothing.
    let waiting = with(admitted(zone("a")), "/status/phase", json!("Suspended"));
    check(&[labelled("n", "b"), waiting], &["mcad_appwrapper_fit{appwrapper=\"W\",by=\"nodes\",namespace=\"a\"} 1"]);
}

#[test]
fn one_of_v1beta1_that_runs_is_placed_in_part_by_items_and_custom_pods() {
    let items = json!([
        {"generictemplate": {"spec": {"replicas": 1, "template": {"spec": gpus(4)}}}},
        {"generictemplate": {"spec": {"template": {"spec": {"containers": [{}]}}}},
         "custompodresources": [{"replicas": 1, "requests": {"nvidia.com/gpu": 2}}]},
    ]);
    let running = || v1beta1("W", items.clone(), json!({"state": "Running", "canrun": true}));
    let own = |gpus: u32| {
        let pod = pod("p", "m", json!({"nvidia.com/gpu": gpus.to_string()}));
        with(pod, "/metadata/labels", json!({"appwrapper.mcad.ibm.com": "W"}))
    };
    let objects = |held: u32, free: u32| [gpu_node("m", 8), gpu_node("n", free), own(held), running()];
    check_pods(&objects(4, 2), ["2", "1", "1"], "1");
    check_pods(&objects(2, 2), ["2", "1", "1"], "1");
    let full = |held: u32| [gpu_node("m", held), gpu_node("n", 3), own(held), running()];
    check_pods(&full(4), ["2", "1", "1"], "1");
    check_pods(&full(2), ["2", "1", "1"], "0");
}
