//! What draining a node takes from AppWrappers, and whether that fits elsewhere.
#![allow(clippy::unwrap_used, reason = "all of this is tests")]

use mcad_accounting::cluster::Cluster;
use mcad_accounting::drain::Drain;
use mcad_accounting::merge::Ages;
use mcad_accounting::now::Now;
use mcad_accounting::options::Options;
use mcad_aggregator::known::Known;
use mcad_testkit::build::{gpu_node, gpus_of, object, pod, v1beta2, with};
use mcad_testkit::snapshot;
use serde_json::{Value, json};

/// A running AppWrapper of pod sets, each given as the number of pods and their spec.
fn running(name: &str, sets: &[(u32, Value)]) -> Value {
    let component = |(n, spec): &(u32, Value)| json!({"podSets": [{"path": "template.t", "replicas": n}], "template": {"t": {"spec": spec}}});
    v1beta2(name, sets.iter().map(component).collect(), "Running")
}

/// A pod of one pod set of an AppWrapper.
fn pod_of(appwrapper: &str, set: u32, name: &str, node: &str, gpus: u32) -> Value {
    let labels = json!({"workload.codeflare.dev/appwrapper": appwrapper, "kueue.x-k8s.io/podset": format!("{appwrapper}-{set}")});
    with(pod(name, node, json!({"nvidia.com/gpu": gpus.to_string()})), "/metadata/labels", labels)
}

fn drain(objects: &[Value], nodes: &[&str]) -> Drain {
    let known = Known::new(Cluster::from_objects(objects.iter().map(object)), Options::default(), Ages::DoNot);
    let nodes: Vec<String> = nodes.iter().map(|name| (*name).to_owned()).collect();
    let (held, ground) = known.drain(&nodes, Now::default()).unwrap();
    Drain::new(&ground.snapshot, &held)
}

/// By AppWrapper: its name, the pods that it loses, and whether they fit elsewhere.
fn losses(drain: &Drain) -> Vec<(&str, u64, Option<bool>)> {
    drain.losses.iter().map(|loss| (&*loss.held.name.name, loss.held.pods, loss.fits())).collect()
}

fn two_appwrappers() -> Vec<Value> {
    vec![
        gpu_node("l", 8),
        gpu_node("m", 8),
        gpu_node("n", 4),
        running("v", &[(2, gpus_of(4))]),
        running("w", &[(1, gpus_of(2)), (1, gpus_of(1))]),
        pod_of("v", 0, "v0", "l", 4),
        pod_of("v", 0, "v1", "m", 4),
        pod_of("w", 0, "w0", "l", 2),
        pod_of("w", 1, "w1", "l", 1),
        pod("other", "l", json!({"nvidia.com/gpu": "1"})),
    ]
}

#[test]
fn appwrappers_lose_their_pods_on_the_node_and_only_these_are_placed_again() {
    let drained = drain(&two_appwrappers(), &["l"]);
    assert_eq!(losses(&drained), [("v", 1, Some(true)), ("w", 2, Some(true))]);
    // Seven GPUs fit beside each other: four on one node, three on the other.
    assert_eq!(drained.fits, Some(true));
    let v = &drained.losses[0].held;
    assert_eq!((v.all_pods, v.amounts.gpus), (2, 4));
    let both = drain(&two_appwrappers(), &["l", "m"]);
    assert_eq!(losses(&both), [("v", 2, Some(false)), ("w", 2, Some(true))]);
    assert_eq!(both.fits, Some(false));
    assert_eq!(losses(&drain(&two_appwrappers(), &["n"])), []);
}

#[test]
fn pods_that_fit_one_by_one_may_not_fit_together() {
    let mut objects = two_appwrappers();
    objects.push(pod("full", "n", json!({"nvidia.com/gpu": "4"})));
    let drained = drain(&objects, &["l"]);
    assert_eq!((losses(&drained), drained.fits), (vec![("v", 1, Some(true)), ("w", 2, Some(true))], Some(false)));
}

#[test]
fn what_is_said_is_what_the_aggregator_says_once_the_pods_are_gone() {
    for gpus in 1..=8 {
        let objects = [
            gpu_node("l", 8),
            gpu_node("m", gpus),
            running("w", &[(2, gpus_of(3)), (1, gpus_of(1))]),
            pod_of("w", 0, "w0", "l", 3),
            pod_of("w", 0, "w1", "l", 3),
            pod_of("w", 1, "w2", "l", 1),
        ];
        let drained = drain(&objects, &["l"]);
        let left = [objects[1].clone(), objects[2].clone()];
        let after = snapshot(left.iter().map(object).collect(), &Options::default());
        let view = &after.appwrappers.as_ref().unwrap().appwrappers[0];
        let expected = view.unplaced.as_ref().unwrap().verdict.as_ref().unwrap();
        assert_eq!(drained.losses[0].verdict(), Some(expected), "{gpus}");
    }
}

#[test]
fn without_the_appwrapper_it_is_not_known_where_its_pods_may_run() {
    let objects = [gpu_node("l", 8), gpu_node("m", 8), pod_of("gone", 0, "p", "l", 1)];
    let drained = drain(&objects, &["l"]);
    assert_eq!((losses(&drained), drained.fits), (vec![("gone", 1, None)], None));
    let known = Known::new(Cluster::from_objects(objects.iter().map(object)), Options::default(), Ages::DoNot);
    assert_eq!(known.drain(&["nope".to_owned()], Now::default()).err(), Some("nope".to_owned()));
}
