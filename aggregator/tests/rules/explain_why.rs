//! Why `explain` says that an AppWrapper waits, or that some of its pods have no node: objects in, the sentence and `stopped_by` out.
#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]
#![expect(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use mcad_accounting::cluster::Cluster;
use mcad_accounting::merge::Ages;
use mcad_accounting::options::Options;
use mcad_aggregator::known::Known;
use mcad_present::explain::{Answer, Subject};
use mcad_testkit::build::{node, object, pod, v1beta1, v1beta2, with};
use mcad_testkit::explained::{NOW, snapshot};
use serde_json::{Value, json};

use crate::explain::cluster_text;

fn ready(name: &str, cpu: u32, gpus: u32) -> Value {
    node(name, json!({"cpu": cpu.to_string(), "memory": "64Gi", "nvidia.com/gpu": gpus.to_string()}))
}

fn asks(pods: u32, requests: Value) -> Value {
    v1beta1(
        "w",
        json!([{"generictemplate": {}, "custompodresources": [{"replicas": pods, "requests": requests}]}]),
        json!({"state": "Pending"}),
    )
}

fn check(objects: &[Value], sentence: &str, stopped_by: &[&str]) {
    let answer = serde_json::to_value(Answer::on(&Subject::Cluster, &snapshot(objects, Vec::new()), NOW).unwrap());
    let waiting = &answer.unwrap()["appwrappers"][0]["waiting"];
    assert_eq!(waiting["why"], sentence);
    assert_eq!(waiting["stopped_by"], json!(stopped_by));
}

/// 19 free GPUs, at most 4 on one node.
fn nineteen() -> Vec<Value> {
    (0..5).map(|at| ready(&format!("n{at}"), 64, if at == 4 { 3 } else { 4 })).collect()
}

#[test]
fn free_gpus_on_too_many_nodes_do_not_help_a_pod_that_wants_them_on_one() {
    let mut objects = nineteen();
    objects.push(asks(1, json!({"nvidia.com/gpu": "16"})));
    let sentence = "needs 16 GPUs; 19 free, but at most 4 on one node; it fits MCAD's sum";
    check(&objects, sentence, &["one_node"]);
    objects.pop();
    objects.push(asks(2, json!({"nvidia.com/gpu": "8"})));
    let sentence = "needs 16 GPUs; 19 free, but at most 4 on one node, and one pod needs 8; it fits MCAD's sum";
    check(&objects, sentence, &["one_node"]);
}

#[test]
fn what_mcads_sum_misses_is_said_first() {
    let objects = [ready("n", 4, 0), asks(1, json!({"cpu": "16"}))];
    let sentence = "needs 12 cores more than MCAD's sum has; on the nodes: needs 16 cores; 4 free";
    check(&objects, sentence, &["mcad_sum", "total", "one_node"]);
}

#[test]
fn what_fits_the_nodes_and_not_the_sum_is_said_so() {
    // MCAD takes away what its own AppWrapper was promised, and no pod holds yet.
    let promised = with(asks(1, json!({"cpu": "60"})), "/status", json!({"state": "Pending", "canrun": true}));
    let promised = with(promised, "/metadata/name", json!("x"));
    let objects = [ready("n", 64, 0), asks(1, json!({"cpu": "16"})), promised];
    check(&objects, "needs 12 cores more than MCAD's sum has; it fits the nodes", &["mcad_sum"]);
}

#[test]
fn what_fits_is_said_to_fit() {
    check(&[ready("n", 64, 8), asks(2, json!({"nvidia.com/gpu": "4"}))], "fits MCAD's sum and the nodes", &[]);
    let template = json!({"apiVersion": "v1", "kind": "Pod", "spec": mcad_testkit::build::spec(json!({"cpu": "1"}))});
    let queued = v1beta2("w", json!([{"template": template}]), "Suspended");
    check(
        &[ready("n", 64, 8), queued],
        "fits the nodes; whether its queue admits it is unknown, because queues are not known",
        &[],
    );
}

#[test]
fn pieces_that_do_not_go_together_are_counted() {
    let mut objects = nineteen();
    objects.push(asks(5, json!({"nvidia.com/gpu": "3", "cpu": "33"})));
    objects[4] = ready("n4", 8, 3);
    let sentence = "needs 15 GPUs and 165 cores in 5 pods; the nodes have places for 4; it fits MCAD's sum";
    check(&objects, sentence, &["placement"]);
}

#[test]
fn gpus_here_and_cores_there_are_no_place_for_a_pod() {
    let objects = [ready("a", 2, 8), ready("b", 64, 0), asks(1, json!({"nvidia.com/gpu": "4", "cpu": "8"}))];
    let sentence = "needs 4 GPUs and 8 cores; one pod needs 4 GPUs and 8 cores, and no node has all of that free; it fits MCAD's sum";
    check(&objects, sentence, &["one_node"]);
}

#[test]
fn nodes_that_pods_are_not_meant_for_do_not_count() {
    let mut template = json!({"spec": {"template": {"spec": mcad_testkit::build::spec(json!({"cpu": "1"}))}}});
    template["spec"]["template"]["spec"]["nodeSelector"] = json!({"zone": "b"});
    let asking = |replicas: u32| {
        let mut template = template.clone();
        template["spec"]["replicas"] = replicas.into();
        v1beta1("w", json!([{"generictemplate": template}]), json!({"state": "Pending"}))
    };
    let sentence =
        "needs 1 core; no node that accepts pods matches their node selector and affinity; it fits MCAD's sum";
    check(&[ready("n", 64, 0), asking(1)], sentence, &["labels"]);
    let meant = with(ready("m", 2, 0), "/metadata/labels/zone", json!("b"));
    let sentence = "needs 3 cores; 2 free on the 1 node its pods may use; it fits MCAD's sum";
    check(&[ready("n", 64, 0), meant.clone(), asking(3)], sentence, &["total"]);
    let tainted = with(meant, "/spec/taints", json!([{"key": "team", "effect": "NoSchedule"}]));
    let sentence = "needs 3 cores; the node that matches its pods' node selector and affinity is tainted, and the pods do not tolerate the taints; it fits MCAD's sum";
    check(&[ready("n", 64, 0), tainted, asking(3)], sentence, &["taints"]);
}

#[test]
fn without_a_node_that_takes_pods_nothing_fits() {
    let cordoned = with(ready("n", 64, 8), "/spec/unschedulable", json!(true));
    let sentence = "needs 1 GPU more than MCAD's sum has; on the nodes: needs 1 GPU; no node accepts new pods";
    check(&[cordoned, asks(1, json!({"nvidia.com/gpu": "1"}))], sentence, &["mcad_sum", "no_node"]);
}

#[test]
fn who_may_start_with_fewer_pods_is_told_how_many_find_a_place() {
    let asking = with(asks(6, json!({"nvidia.com/gpu": "4"})), "/spec/schedulingSpec", json!({"minAvailable": 5}));
    let mut objects = nineteen();
    objects.push(asking);
    let sentence =
        "needs 5 GPUs more than MCAD's sum has; on the nodes: needs places for 5 pods of 6; the nodes have 4";
    check(&objects, sentence, &["mcad_sum", "placement"]);
}

#[test]
fn a_demand_that_cannot_be_read_is_no_small_one() {
    let asking = asks(1, json!({"cpu": "1", "memory": "lots"}));
    let sentence = "fits MCAD's sum and the nodes; 1 part of its demand could not be parsed";
    check(&[ready("n", 64, 0), asking], sentence, &[]);
}

#[test]
fn what_was_not_tried_yet_is_not_known() {
    let cluster = Cluster::from_objects([ready("n", 4, 0), asks(1, json!({"cpu": "1"}))].iter().map(object));
    let untried = Known::new(cluster, Options::default(), Ages::DoNot).snapshot(NOW);
    let answer = serde_json::to_value(Answer::on(&Subject::Cluster, &untried, NOW).unwrap()).unwrap();
    let waiting = &answer["appwrappers"][0]["waiting"];
    assert_eq!(waiting["why"], "fits MCAD's sum; whether it fits the nodes is not known yet");
    assert_eq!(waiting.get("fits_nodes"), None);
}

/// One of v1beta2 that waits, of one pod.
fn one(requests: Value) -> Value {
    one_with(mcad_testkit::build::spec(requests))
}

fn one_with(spec: Value) -> Value {
    v1beta2("w", json!([{"template": {"apiVersion": "v1", "kind": "Pod", "spec": spec}}]), "Suspended")
}

#[test]
fn scratch_space_and_hugepages_that_are_short_are_named_in_gib() {
    let node = with(ready("n", 64, 8), "/status/allocatable/ephemeral-storage", json!("1000Gi"));
    let asking = one(json!({"nvidia.com/gpu": "1", "ephemeral-storage": "2000Gi"}));
    check(&[node, asking], "needs 2000 GiB of ephemeral-storage; 1000 free", &["total", "one_node"]);
    let node = with(ready("n", 64, 8), "/status/allocatable/hugepages-1Gi", json!("50Gi"));
    let sentence = "needs 60 GiB of hugepages-1Gi; 50 free";
    check(&[node, one(json!({"hugepages-1Gi": "60Gi"}))], sentence, &["total", "one_node"]);
}

#[test]
fn a_node_that_takes_no_more_pods_is_said_to() {
    let full = with(ready("n", 64, 8), "/status/allocatable/pods", json!("3"));
    let held = (0..3).map(|at| pod(&format!("p{at}"), "n", json!({})));
    let objects: Vec<_> = held.chain([full, one(json!({"nvidia.com/gpu": "1"}))]).collect();
    check(&objects, "needs 1 pod; there is room for 0 more (resource `pods`)", &["total"]);
}

#[test]
fn a_host_port_that_is_taken_is_named() {
    let spec =
        || with(mcad_testkit::build::spec(json!({"cpu": "1"})), "/containers/0/ports", json!([{"hostPort": 8080}]));
    let holding = with(pod("p", "n", json!({})), "/spec/containers/0/ports", json!([{"hostPort": 8080}]));
    let sentence =
        "needs host port 8080/TCP on 1 node, one for each pod; the port is free on 0 of the 1 node with room for a pod";
    check(&[ready("n", 64, 8), holding, one_with(spec())], sentence, &["host_ports"]);
}

#[test]
fn pods_of_an_unknown_kind_are_not_known_and_fit_nowhere() {
    let of = |template: Value| v1beta2("w", json!([{"template": template}]), "Suspended");
    let unknown = of(json!({"apiVersion": "kubeflow.org/v2beta1", "kind": "MPIJob"}));
    check(&[ready("n", 64, 8), unknown], "its pods are not known: MPIJob without podSets", &[]);
    check(&[ready("n", 64, 8), of(json!({"apiVersion": "v1", "kind": "Service"}))], "it requests no pods", &[]);
    let old = v1beta1("w", json!([{"generictemplate": {"kind": "MPIJob"}}]), json!({"state": "Pending"}));
    let sentence = "fits MCAD's sum; its pods are not known: MPIJob without custompodresources";
    check(&[ready("n", 64, 8), old], sentence, &[]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": mcad_testkit::build::spec(json!({"cpu": "1"}))});
    let both =
        v1beta2("w", json!([{"template": pod}, {"template": {"kind": "MPIJob", "apiVersion": "x/v1"}}]), "Suspended");
    let sentence = "fits the nodes; whether its queue admits it is unknown, because queues are not known; further pods may be in MPIJob without podSets";
    check(&[ready("n", 64, 8), both], sentence, &[]);
}

#[test]
fn more_pods_than_it_has_are_never_needed() {
    let asking = with(asks(2, json!({"nvidia.com/gpu": "4"})), "/spec/schedulingSpec", json!({"minAvailable": 4}));
    let odd = |count| ready(&format!("n{count}"), 64, count);
    let answer = snapshot(&[odd(3), odd(4), odd(1), asking], Vec::new());
    let answer = serde_json::to_value(Answer::on(&Subject::Cluster, &answer, NOW).unwrap()).unwrap();
    let waiting = &answer["appwrappers"][0]["waiting"];
    assert_eq!((&waiting["pods_needed"], &waiting["pods_placed"]), (&json!(2), &json!(1)));
    assert_eq!(waiting["why"], "needs 8 GPUs in 2 pods; the nodes have places for 1; it fits MCAD's sum");
}

#[test]
fn one_that_runs_without_all_its_pods_is_shown_with_what_the_rest_lacks() {
    let own = with(
        pod("p", "a", json!({"nvidia.com/gpu": "8"})),
        "/metadata/labels",
        json!({"workload.codeflare.dev/appwrapper": "w"}),
    );
    let job = json!({"parallelism": 2, "completions": 2, "template": {"spec": mcad_testkit::build::spec(json!({"nvidia.com/gpu": "8"}))}});
    let running =
        v1beta2("w", json!([{"template": {"apiVersion": "batch/v1", "kind": "Job", "spec": job}}]), "Running");
    let objects = [ready("a", 64, 8), ready("b", 64, 5), ready("c", 64, 3), own, running];
    let snapshot = snapshot(&objects, Vec::new());
    let said = cluster_text(&snapshot);
    let title = "\n1 AppWrapper, none waiting, 1 placed in part; queues are not known\n";
    let lack = "requests 16 GPUs, holds 8 GPUs; 1 pod lacks a node: needs 8 GPUs; 8 free, but at most 5 on one node\n";
    assert!(
        said.contains(title) && said.contains("a/w") && said.contains("1 of 2 pods") && said.contains(lack),
        "{said}"
    );
    let answer = serde_json::to_value(Answer::on(&Subject::Cluster, &snapshot, NOW).unwrap()).unwrap();
    let one = &answer["appwrappers"][0];
    assert_eq!((&one["pods"], &one["pods_bound"]), (&json!(2), &json!(1)));
    assert_eq!(
        one["placed_in_part"],
        json!({
            "pods_unbound": 1, "fits_nodes": false, "pods_placed": 0, "stopped_by": ["one_node"],
            "why": "needs 8 GPUs; 8 free, but at most 5 on one node",
        })
    );
    let fits = [&objects[..], &[ready("d", 64, 8)]].concat();
    let said = cluster_text(&self::snapshot(&fits, Vec::new()));
    assert!(said.contains("the nodes have room for these pods; the scheduler has not placed them yet"), "{said}");
}
