//! docs/accounting.md §5, rule by rule: fit on nodes, and slots.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use mcad_accounting::options::Options;
use mcad_testkit::build::{gpu_node, gpus_of, node, pod, spec, v1beta1, waiting, with};
use mcad_testkit::{check, check_by, tolerating};
use serde_json::{Value, json};

fn check_fit(objects: &[Value], fits: u8) {
    check(objects, &[&format!("mcad_appwrapper_fit{{appwrapper=\"w\",by=\"nodes\",namespace=\"a\"}} {fits}")]);
}

#[test]
fn eight_free_gpus_on_two_nodes_are_no_place_for_a_pod_of_eight() {
    let nodes = [gpu_node("m", 4), gpu_node("n", 4)];
    check_fit(&[&nodes[..], &[waiting(&[(1, gpus_of(8))])]].concat(), 0);
    check_fit(&[&nodes[..], &[waiting(&[(2, gpus_of(4))])]].concat(), 1);
    check_fit(&[&nodes[..], &[waiting(&[(3, gpus_of(3))])]].concat(), 0);
}

#[test]
fn pods_go_largest_first_onto_the_node_with_the_fewest_free() {
    // The pod of 3 takes the node of 3, so that the one of 4 is left for the pod of 4.
    let nodes = [gpu_node("m", 4), gpu_node("n", 3)];
    check_fit(&[&nodes[..], &[waiting(&[(1, gpus_of(3)), (1, gpus_of(4))])]].concat(), 1);
    // The pod of 2 goes onto what the one of 4 left of the six, not onto the three; so one node alone has GPUs left for the
    // pods that need all of a node's cpu.
    let nodes = [gpu_node("m", 6), gpu_node("n", 3)];
    let all_cpu = || spec(json!({"cpu": "8", "nvidia.com/gpu": "1"}));
    check_fit(&[&nodes[..], &[waiting(&[(1, gpus_of(4)), (1, gpus_of(2)), (1, all_cpu())])]].concat(), 1);
    // Best fit has no place for a second one of these. The pod of 2 onto the three leaves GPUs on both nodes: another order finds it.
    check_fit(&[&nodes[..], &[waiting(&[(1, gpus_of(4)), (1, gpus_of(2)), (2, all_cpu())])]].concat(), 1);
    check_fit(&[&nodes[..], &[waiting(&[(1, gpus_of(4)), (1, gpus_of(2)), (3, all_cpu())])]].concat(), 0);
}

#[test]
fn min_available_pods_are_enough() {
    let objects = |min: Value| {
        let some = with(waiting(&[(5, gpus_of(2))]), "/spec/schedulingSpec", json!({"minAvailable": min}));
        [gpu_node("n", 4), some]
    };
    check_fit(&objects(json!(2)), 1);
    check_fit(&objects(json!(3)), 0);
    check_fit(&objects(json!(0)), 0);
    check_fit(&objects(json!(null)), 0);
}

#[test]
fn only_nodes_that_are_ready_and_not_cordoned_are_candidates() {
    let not_ready = with(gpu_node("n", 8), "/status/conditions", json!([]));
    let cordoned = with(gpu_node("n", 8), "/spec/unschedulable", json!(true));
    check_fit(&[not_ready, waiting(&[(1, gpus_of(1))])], 0);
    check_fit(&[cordoned, waiting(&[(1, gpus_of(1))])], 0);
}

fn tainted(key: &str, effect: &str) -> Value {
    with(gpu_node("n", 8), "/spec/taints", json!([{"key": key, "value": "x", "effect": effect}]))
}

#[test]
fn a_tainted_node_takes_pods_that_tolerate_it() {
    let tolerating = |tolerations: Value| waiting(&[(1, with(gpus_of(1), "/tolerations", tolerations))]);
    let node = || tainted("team", "NoSchedule");
    for (tolerations, fits) in [
        (json!([]), 0),
        (json!([{"operator": "Exists"}]), 1),
        (json!([{"key": "team", "operator": "Exists"}]), 1),
        (json!([{"key": "team", "operator": "Exists", "effect": "NoSchedule"}]), 1),
        (json!([{"key": "team", "operator": "Exists", "effect": "NoExecute"}]), 0),
        (json!([{"key": "team", "value": "x"}]), 1),
        (json!([{"key": "team", "operator": "Equal", "value": "y"}]), 0),
        (json!([{"key": "other", "operator": "Exists"}]), 0),
    ] {
        check_fit(&[node(), tolerating(tolerations)], fits);
    }
    check_fit(&[tainted("team", "PreferNoSchedule"), tolerating(json!([]))], 1);
}

#[test]
fn a_generally_tolerated_taint_passes_for_pods_that_ask_for_its_resource_only() {
    check_fit(&[tainted("nvidia.com/gpu", "NoSchedule"), waiting(&[(1, gpus_of(1))])], 1);
    check_fit(&[tainted("nvidia.com/gpu", "NoSchedule"), waiting(&[(1, spec(json!({"cpu": "1"})))])], 0);
    check_fit(&[tainted("nvidia.com/gpu", "NoExecute"), waiting(&[(1, gpus_of(1))])], 0);
    let team = tolerating("team");
    let no = "mcad_appwrapper_fit{appwrapper=\"w\",by=\"nodes\",namespace=\"a\"} 0";
    check_by(&[tainted("team", "NoSchedule"), waiting(&[(1, gpus_of(1))])], &team, &[no]);
}

#[test]
fn selectors_and_required_affinity_hold() {
    let labelled = || with(gpu_node("n", 8), "/metadata/labels", json!({"zone": "a", "memory": "40000"}));
    let selecting = |selector: Value| waiting(&[(1, with(gpus_of(1), "/nodeSelector", selector))]);
    check_fit(&[labelled(), selecting(json!({"zone": "a"}))], 1);
    check_fit(&[labelled(), selecting(json!({"zone": "b"}))], 0);
    check_fit(&[labelled(), selecting(json!({"absent": "a"}))], 0);
    let required = |terms: Value| {
        let affinity =
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
        waiting(&[(1, with(gpus_of(1), "/affinity", affinity))])
    };
    let expression = |key: &str, operator: &str, values: Value| json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]);
    for (terms, fits) in [
        (expression("zone", "In", json!(["a", "b"])), 1),
        (expression("zone", "In", json!(["b"])), 0),
        (expression("zone", "NotIn", json!(["a"])), 0),
        (expression("absent", "NotIn", json!(["a"])), 1),
        (expression("zone", "Exists", json!([])), 1),
        (expression("zone", "DoesNotExist", json!(null)), 0),
        (expression("memory", "Gt", json!(["30000"])), 1),
        (expression("memory", "Gt", json!(["40000"])), 0),
        (expression("memory", "Lt", json!(["40001"])), 1),
        (expression("zone", "Gt", json!(["1"])), 0),
        (json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]), 1),
        (json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]}]), 0),
        // One term is enough; a term without requirements holds nowhere, and so do no terms.
        (
            json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}, {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]),
            1,
        ),
        (json!([{}]), 0),
        (json!([]), 0),
    ] {
        check_fit(&[labelled(), required(terms)], fits);
    }
}

#[test]
fn what_other_pods_hold_is_no_room_and_every_resource_counts() {
    check_fit(&[gpu_node("n", 8), pod("p", "n", json!({"nvidia.com/gpu": "5"})), waiting(&[(1, gpus_of(4))])], 0);
    check_fit(&[gpu_node("n", 8), waiting(&[(1, spec(json!({"memory": "1"})))])], 0);
    check_fit(&[gpu_node("n", 8), waiting(&[(1, spec(json!({"example.com/fpga": "1"})))])], 0);
    check_fit(
        &[node("n", json!({"example.com/fpga": "1"})), waiting(&[(1, spec(json!({"example.com/fpga": "1"})))])],
        1,
    );
}

#[test]
fn custom_pods_stand_for_themselves_under_the_templates_constraints() {
    let item = |zone: &str| {
        json!([{
            "generictemplate": {"spec": {"template": {"spec": {"nodeSelector": {"zone": zone}, "containers": []}}}},
            "custompodresources": [{"replicas": 2, "requests": {"nvidia.com/gpu": 4}}],
        }])
    };
    let labelled = || with(gpu_node("n", 8), "/metadata/labels", json!({"zone": "a"}));
    check_fit(&[labelled(), v1beta1("w", item("a"), json!({}))], 1);
    check_fit(&[labelled(), v1beta1("w", item("b"), json!({}))], 0);
}

#[test]
fn slots_need_cpu_and_memory_beside_their_gpus() {
    let all = |cpu: &str, memory: &str| node("n", json!({"cpu": cpu, "memory": memory, "nvidia.com/gpu": "8"}));
    let check = |node: Value, options: &Options, slots: [u8; 4]| {
        let lines = ["1", "2", "4", "8"].into_iter().zip(slots);
        let lines: Vec<_> = lines.map(|(k, n)| format!("mcad_gpu_slots{{gpus=\"{k}\"}} {n}")).collect();
        check_by(&[node], options, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    };
    let defaults = Options::default();
    check(all("64", "1Ti"), &defaults, [8, 4, 2, 1]);
    check(all("5500m", "1Ti"), &defaults, [5, 2, 1, 0]);
    check(all("64", "15Gi"), &defaults, [3, 1, 0, 0]);
    let free = Options { slot_millicores_per_gpu: 0, slot_bytes_per_gpu: 0, ..defaults.clone() };
    check(node("n", json!({"nvidia.com/gpu": "8"})), &free, [8, 4, 2, 1]);
    check(with(all("64", "1Ti"), "/spec/unschedulable", json!(true)), &defaults, [0, 0, 0, 0]);
    check(pod("p", "", json!({})), &defaults, [0, 0, 0, 0]);
}

#[test]
fn the_largest_free_block_is_on_one_admissible_node() {
    let objects = [gpu_node("l", 4), gpu_node("m", 3), with(gpu_node("n", 8), "/spec/unschedulable", json!(true))];
    check(
        &[&objects[..], &[pod("p", "l", json!({"nvidia.com/gpu": "2"}))]].concat(),
        &["mcad_gpu_largest_free_block 3"],
    );
}

/// More kinds of pods than the search takes on, of which best fit finds no place for one: there is one, but that is not known.
#[test]
fn what_the_search_does_not_finish_is_said_to_be_unknown() {
    let nodes = [gpu_node("m", 10), gpu_node("n", 11)];
    let tight = [(1, gpus_of(6)), (3, gpus_of(5))];
    check_fit(&[&nodes[..], &[waiting(&tight)]].concat(), 1);
    let many = (1..=63).map(|milli: u32| (1, spec(json!({"cpu": format!("{milli}m")}))));
    let sets: Vec<_> = tight.into_iter().chain(many).collect();
    let unknown = "mcad_appwrapper_fit_unknown{appwrapper=\"w\",namespace=\"a\",reason=\"search\"} 1";
    let absent = "mcad_appwrapper_fit{appwrapper=\"w\",by=\"nodes\" absent";
    check(&[&nodes[..], &[waiting(&sets)]].concat(), &[unknown, absent]);
}
