//! docs/accounting.md §5, rule by rule: what a pod finds room for on a node beside cpu, memory and GPUs, and in which order.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use mcad_testkit::build::{gpu_node, gpus_of, node, pod, spec, v1beta1, v1beta2, waiting, with};
use mcad_testkit::check;
use serde_json::{Value, json};

fn check_fit(objects: &[&[Value]], fits: &str) {
    let line = format!("mcad_appwrapper_fit{{appwrapper=\"w\",by=\"nodes\",namespace=\"a\"}} {fits}");
    let unknown = "mcad_appwrapper_fit_unknown absent";
    check(&objects.concat(), &[line.as_str(), unknown]);
}

fn one(spec: Value) -> Value {
    waiting(&[(1, spec)])
}

#[test]
fn scratch_space_is_what_the_node_declares_less_what_bound_pods_request() {
    let of = |amount: &str| json!({"ephemeral-storage": amount});
    let node = || node("n", of("100Gi"));
    check_fit(&[&[node(), one(spec(of("100Gi")))]], "1");
    check_fit(&[&[node(), one(spec(of("101Gi")))]], "0");
    let held = || pod("p", "n", of("60Gi"));
    check_fit(&[&[node(), held(), one(spec(of("40Gi")))]], "1");
    check_fit(&[&[node(), held(), one(spec(of("41Gi")))]], "0");
    check_fit(&[&[node(), with(held(), "/status/phase", json!("Succeeded")), one(spec(of("100Gi")))]], "1");
    // A node that does not declare it has none; one that requests none needs none.
    check_fit(&[&[mcad_testkit::build::node("n", json!({})), one(spec(of("1")))]], "0");
    check_fit(&[&[mcad_testkit::build::node("n", json!({})), one(spec(of("0")))]], "1");
    // A limit stands in for an absent request.
    let limited = json!({"containers": [{"resources": {"limits": of("101Gi")}}]});
    check_fit(&[&[node(), one(limited)]], "0");
}

#[test]
fn hugepages_count_by_size_and_for_the_pod_as_a_whole() {
    let node = || node("n", json!({"hugepages-1Gi": "50Gi", "hugepages-2Mi": "4Mi"}));
    let each = |amount: &str| spec(json!({"hugepages-1Gi": amount}));
    check_fit(&[&[node(), waiting(&[(2, each("25Gi"))])]], "1");
    check_fit(&[&[node(), waiting(&[(2, each("26Gi"))])]], "0");
    // What is requested for the pod as a whole stands for its containers.
    let whole = |amount: &str| with(each("10Gi"), "/resources", json!({"requests": {"hugepages-1Gi": amount}}));
    check_fit(&[&[node(), one(whole("50Gi"))]], "1");
    check_fit(&[&[node(), one(whole("51Gi"))]], "0");
    check_fit(&[&[node(), one(spec(json!({"hugepages-2Mi": "5Mi"})))]], "0");
}

#[test]
fn other_resources_without_a_ladder_count_too() {
    let name = "attachable-volumes-x";
    check_fit(&[&[node("n", json!({name: "2"})), waiting(&[(2, spec(json!({name: "1"})))])]], "1");
    check_fit(&[&[node("n", json!({name: "2"})), waiting(&[(3, spec(json!({name: "1"})))])]], "0");
    check_fit(&[&[node("n", json!({})), one(spec(json!({"kubernetes.io/x": "1"})))]], "0");
}

#[test]
fn each_pod_takes_one_of_pods_and_a_node_without_them_takes_none() {
    let node = |pods: Value| with(gpu_node("n", 8), "/status/allocatable/pods", pods);
    let bound: Vec<_> = (0..3).map(|at| pod(&format!("p{at}"), "n", json!({}))).collect();
    check_fit(&[&[node(json!("3")), one(gpus_of(1))], &bound], "0");
    check_fit(&[&[node(json!("4")), one(gpus_of(1))], &bound], "1");
    check_fit(&[&[node(json!("4")), waiting(&[(2, gpus_of(1))])], &bound], "0");
    check_fit(&[&[node(json!("2")), one(gpus_of(1))], &bound], "0");
    check_fit(
        &[&[with(gpu_node("n", 8), "/status/allocatable", json!({"nvidia.com/gpu": "8"})), one(gpus_of(1))]],
        "0",
    );
    let ended = with(pod("e", "n", json!({})), "/status/phase", json!("Failed"));
    check_fit(&[&[node(json!("4")), one(gpus_of(1)), ended], &bound], "1");
}

fn with_ports(of: Value, ports: Value) -> Value {
    with(of, "/containers/0/ports", ports)
}

fn holding(ports: Value) -> Value {
    with(pod("p", "n", json!({})), "/spec/containers/0/ports", ports)
}

#[test]
fn a_host_port_is_for_one_pod_of_a_node_by_protocol_and_address() {
    let check = |held: Value, wanted: Value, fits: &str| {
        check_fit(&[&[gpu_node("n", 8), holding(held), one(with_ports(gpus_of(1), wanted))]], fits);
    };
    let held = || json!([{"containerPort": 1, "hostPort": 80}]);
    check(held(), json!([{"containerPort": 1, "hostPort": 80}]), "0");
    check(held(), json!([{"containerPort": 80}]), "1");
    check(held(), json!([{"containerPort": 1, "hostPort": 81}]), "1");
    check(held(), json!([{"hostPort": 80, "protocol": "TCP"}]), "0");
    check(held(), json!([{"hostPort": 80, "protocol": "UDP"}]), "1");
    // 0.0.0.0, which is the default, is every address.
    check(held(), json!([{"hostPort": 80, "hostIP": "10.0.0.1"}]), "0");
    let at = |address: &str| json!([{"hostPort": 80, "hostIP": address}]);
    check(at("10.0.0.1"), at("10.0.0.1"), "0");
    check(at("10.0.0.1"), at("10.0.0.2"), "1");
    check(at("10.0.0.1"), at("0.0.0.0"), "0");
    check(at("10.0.0.1"), held(), "0");
}

#[test]
fn two_pods_with_one_host_port_need_two_nodes() {
    let pods = |count| waiting(&[(count, with_ports(gpus_of(1), json!([{"hostPort": 80}])))]);
    check_fit(&[&[gpu_node("n", 8), pods(1)]], "1");
    check_fit(&[&[gpu_node("n", 8), pods(2)]], "0");
    check_fit(&[&[gpu_node("m", 8), gpu_node("n", 8), pods(2)]], "1");
    // Also of two pod sets.
    let two = |port: u16| {
        waiting(&[
            (1, with_ports(gpus_of(1), json!([{"hostPort": 80}]))),
            (1, with_ports(gpus_of(2), json!([{"hostPort": port}]))),
        ])
    };
    check_fit(&[&[gpu_node("n", 8), two(80)]], "0");
    check_fit(&[&[gpu_node("n", 8), two(81)]], "1");
}

#[test]
fn sidecars_have_host_ports_other_init_containers_have_none_and_the_hosts_network_has_all() {
    let init = |policy: Value| {
        let init = json!([{"restartPolicy": policy, "ports": [{"hostPort": 80}]}]);
        one(with(gpus_of(1), "/initContainers", init))
    };
    let held = || holding(json!([{"hostPort": 80}]));
    check_fit(&[&[gpu_node("n", 8), held(), init(json!("Always"))]], "0");
    check_fit(&[&[gpu_node("n", 8), held(), init(json!(null))]], "1");
    let on_host = |network: bool| {
        one(with(with_ports(gpus_of(1), json!([{"containerPort": 80}])), "/hostNetwork", json!(network)))
    };
    check_fit(&[&[gpu_node("n", 8), held(), on_host(true)]], "0");
    check_fit(&[&[gpu_node("n", 8), held(), on_host(false)]], "1");
    let holds_on_host = with(holding(json!([{"containerPort": 80}])), "/spec/hostNetwork", json!(true));
    let wanted = || one(with_ports(gpus_of(1), json!([{"hostPort": 80}])));
    check_fit(&[&[gpu_node("n", 8), holds_on_host, wanted()]], "0");
}

/// A pod that is to come to node `n`.
fn nominated(priority: i64, requests: Value) -> Value {
    let pod = with(pod("q", "", requests), "/spec/priority", json!(priority));
    with(pod, "/status", json!({"phase": "Pending", "nominatedNodeName": "n"}))
}

#[test]
fn a_pod_that_is_to_come_counts_for_pods_of_its_priority_or_lower() {
    let of = |priority: i64| one(with(gpus_of(4), "/priority", json!(priority)));
    let to_come = |priority| nominated(priority, json!({"nvidia.com/gpu": "5"}));
    check_fit(&[&[gpu_node("n", 8), to_come(7), of(7)]], "0");
    check_fit(&[&[gpu_node("n", 8), to_come(7), of(6)]], "0");
    check_fit(&[&[gpu_node("n", 8), to_come(7), of(8)]], "1");
    // Without a priority both are 0.
    let without = with(to_come(0), "/spec/priority", json!(null));
    check_fit(&[&[gpu_node("n", 8), without, one(gpus_of(4))]], "0");
    check_fit(&[&[gpu_node("n", 8), to_come(-1), one(gpus_of(4))]], "1");
}

#[test]
fn what_is_to_come_has_requests_a_place_among_pods_and_ports_until_it_is_bound_or_ends() {
    let small = || nominated(0, json!({}));
    let node = || with(gpu_node("n", 8), "/status/allocatable/pods", json!("1"));
    check_fit(&[&[node(), small(), one(gpus_of(1))]], "0");
    check_fit(&[&[node(), with(small(), "/status/phase", json!("Failed")), one(gpus_of(1))]], "1");
    let bound_elsewhere = with(small(), "/spec/nodeName", json!("m"));
    check_fit(&[&[node(), gpu_node("m", 0), bound_elsewhere, one(gpus_of(1))]], "1");
    let port = || json!([{"hostPort": 80}]);
    let taking = with(small(), "/spec/containers/0/ports", port());
    check_fit(&[&[gpu_node("n", 8), taking, one(with_ports(gpus_of(1), port()))]], "0");
    let scratch = || json!({"ephemeral-storage": "7Gi"});
    let node = mcad_testkit::build::node("n", json!({"ephemeral-storage": "10Gi"}));
    check_fit(&[&[node, nominated(0, scratch()), one(spec(scratch()))]], "0");
}

#[test]
fn what_is_to_come_of_the_same_appwrapper_is_what_is_placed() {
    let to_come = nominated(7, json!({"nvidia.com/gpu": "5"}));
    let own = with(to_come, "/metadata/labels", json!({"workload.codeflare.dev/appwrapper": "w"}));
    check_fit(&[&[gpu_node("n", 8), own, one(gpus_of(4))]], "1");
}

#[test]
fn what_is_to_come_changes_neither_what_is_free_nor_slots() {
    let objects = [gpu_node("n", 8), nominated(7, json!({"nvidia.com/gpu": "5"}))];
    let free = "mcad_node_free{node=\"n\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 8";
    check(&objects, &[free, "mcad_gpu_largest_free_block 8"]);
}

#[test]
fn pods_of_low_priority_may_be_placed_before_those_of_high_priority() {
    // Of 10 GPUs 5 are to come. The pod of low priority finds 4 of the 5 that are left; then 6 are left for the other, for which
    // what is to come does not count.
    let set = |gpu: u32, priority: i64| (1, with(gpus_of(gpu), "/priority", json!(priority)));
    let to_come = || nominated(5, json!({"nvidia.com/gpu": "5"}));
    check_fit(&[&[gpu_node("n", 10), to_come(), waiting(&[set(6, 9), set(4, 0)])]], "1");
    check_fit(&[&[gpu_node("n", 10), to_come(), waiting(&[set(4, 9), set(6, 0)])]], "0");
}

#[test]
fn a_placement_that_best_fit_misses_is_found() {
    // Best fit puts the pod of 6 onto the ten, where one of 3 then has no place with a second one.
    let nodes = || [gpu_node("m", 10), gpu_node("n", 11)];
    check_fit(&[&nodes(), &[waiting(&[(1, gpus_of(6)), (2, gpus_of(3))])]], "1");
    check_fit(
        &[&[gpu_node("m", 7), gpu_node("n", 6)], &[waiting(&[(1, gpus_of(6)), (1, gpus_of(4)), (1, gpus_of(3))])]],
        "1",
    );
    check_fit(&[&[gpu_node("m", 7), gpu_node("n", 6)], &[waiting(&[(1, gpus_of(5)), (2, gpus_of(4))])]], "0");
}

#[test]
fn enough_in_all_and_on_each_node_is_no_proof() {
    // 12 GPUs for 12, and each pod has a node; but two pods of 3 leave 2 GPUs nowhere.
    let nodes: Vec<_> = ["k", "l", "m"].into_iter().map(|name| gpu_node(name, 4)).collect();
    check_fit(&[&nodes, &[waiting(&[(2, gpus_of(3)), (3, gpus_of(2))])]], "0");
    check_fit(&[&nodes, &[waiting(&[(2, gpus_of(3)), (2, gpus_of(2)), (2, gpus_of(1))])]], "1");
}

#[test]
fn fewer_pods_may_be_enough_and_more_than_there_are_means_all() {
    let some =
        |min: i64, sets: &[(u32, Value)]| with(waiting(sets), "/spec/schedulingSpec", json!({"minAvailable": min}));
    let sets = [(1, gpus_of(8)), (4, gpus_of(1))];
    check_fit(&[&[gpu_node("n", 4), some(4, &sets)]], "1");
    check_fit(&[&[gpu_node("n", 4), some(5, &sets)]], "0");
    check_fit(&[&[gpu_node("n", 4), some(9, &[(4, gpus_of(1))])]], "1");
    check_fit(&[&[gpu_node("n", 4), some(-1, &sets)]], "0");
    // The small ones first: best fit would give all to the large one.
    check_fit(&[&[gpu_node("n", 4), some(2, &[(1, gpus_of(4)), (2, gpus_of(2))])]], "1");
}

fn v1(template: Value) -> Value {
    v1beta1("w", json!([{"generictemplate": template}]), json!({}))
}

#[test]
fn pods_of_v1beta1_fit_as_the_scheduler_counts_them_and_ask_as_mcad_does() {
    let init = json!([{"resources": {"requests": {"nvidia.com/gpu": "4"}}}]);
    let template = |init: &Value| json!({"kind": "X", "spec": {"template": {"spec": with(gpus_of(1), "/initContainers", init.clone())}}});
    check_fit(&[&[gpu_node("n", 3), v1(template(&init))]], "0");
    check_fit(&[&[gpu_node("n", 4), v1(template(&init))]], "1");
    let asks =
        "mcad_appwrapper_requested{appwrapper=\"w\",namespace=\"a\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 1";
    check(&[gpu_node("n", 4), v1(template(&init))], &[asks]);
    let overhead = with(gpus_of(1), "/overhead", json!({"cpu": "8"}));
    let template = |spec: Value| json!({"kind": "X", "spec": {"template": {"spec": spec}}});
    check_fit(&[&[gpu_node("n", 4), v1(template(overhead.clone()))]], "1");
    check_fit(&[&[gpu_node("n", 4), v1(template(with(overhead, "/overhead/cpu", json!("9"))))]], "0");
    // A request of 0 is one: the limit does not stand in for it, as it does in MCAD's sum.
    let none = json!({"containers": [{"resources": {"requests": {"cpu": "0"}, "limits": {"cpu": "9"}}}]});
    check_fit(&[&[gpu_node("n", 4), v1(template(none))]], "1");
}

#[test]
fn a_job_of_v1beta1_has_as_many_pods_as_run_at_once() {
    let job = |api: &str, parallelism: u8, completions: u8| {
        let spec = json!({"parallelism": parallelism, "completions": completions, "template": {"spec": gpus_of(1)}});
        v1(json!({"apiVersion": api, "kind": "Job", "spec": spec}))
    };
    let wanted = |n: u8| format!("mcad_appwrapper_pods{{appwrapper=\"w\",namespace=\"a\",state=\"wanted\"}} {n}");
    check_fit(&[&[gpu_node("n", 4), job("batch/v1", 4, 9)]], "1");
    check_fit(&[&[gpu_node("n", 4), job("batch/v1", 5, 9)]], "0");
    check_fit(&[&[gpu_node("n", 4), job("batch/v1", 5, 4)]], "1");
    check(&[job("batch/v1", 5, 4)], &[&wanted(4)]);
    check(&[job("x/v1", 5, 4)], &[&wanted(1)]);
}

#[test]
fn custom_pods_have_the_ports_and_the_priority_of_their_template() {
    let item = |spec: Value, scratch: &str| {
        let custom = json!([{"replicas": 1, "requests": {"nvidia.com/gpu": 1, "ephemeral-storage": scratch}}]);
        v1beta1(
            "w",
            json!([{"generictemplate": {"spec": {"template": {"spec": spec}}}, "custompodresources": custom}]),
            json!({}),
        )
    };
    let bare = || json!({"containers": [{}]});
    let node = || with(gpu_node("n", 8), "/status/allocatable/ephemeral-storage", json!("1Gi"));
    check_fit(&[&[node(), item(bare(), "1Gi")]], "1");
    check_fit(&[&[node(), item(bare(), "2Gi")]], "0");
    let port = || json!([{"hostPort": 80}]);
    check_fit(&[&[node(), holding(port()), item(with_ports(bare(), port()), "0")]], "0");
    let to_come = || nominated(5, json!({"nvidia.com/gpu": "8"}));
    check_fit(&[&[node(), to_come(), item(bare(), "0")]], "0");
    check_fit(&[&[node(), to_come(), item(with(bare(), "/priority", json!(6)), "0")]], "1");
}

#[test]
fn without_any_pod_it_is_not_known_whether_they_fit() {
    check_fit(&[&[gpu_node("n", 8), waiting(&[])]], "absent");
    check_fit(&[&[gpu_node("n", 8), waiting(&[(0, gpus_of(1))])]], "absent");
    let unknown =
        v1beta2("w", json!([{"template": {"apiVersion": "kubeflow.org/v2beta1", "kind": "MPIJob"}}]), "Suspended");
    check_fit(&[&[gpu_node("n", 8), unknown]], "absent");
    check_fit(&[&[gpu_node("n", 8), v1(json!({"kind": "MPIJob", "spec": {}}))]], "absent");
}
