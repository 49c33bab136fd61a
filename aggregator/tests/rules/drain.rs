//! What draining a node takes from AppWrappers, and whether that fits elsewhere.
#![allow(clippy::unwrap_used, reason = "all of this is tests")]

use mcad_accounting::cluster::Cluster;
use mcad_accounting::drain::Drain;
use mcad_accounting::merge::Ages;
use mcad_accounting::now::Now;
use mcad_accounting::options::Options;
use mcad_accounting::unread::Unread;
use mcad_aggregator::known::Known;
use mcad_testkit::build::{gpu_node, gpus_of, node, object, pod, v1beta2, with};
use mcad_testkit::snapshot;
use serde_json::{Value, json};

use crate::fit_devices::{GPU, all, asking, claim, exactly, holding, slice};

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
    let (held, snapshot) = known.drain(&nodes, Now::default()).unwrap();
    Drain::new(&snapshot, &held, &Unread::default())
}

/// By AppWrapper: its name, the pods that it loses, and whether they fit elsewhere.
fn losses(drain: &Drain) -> Vec<(&str, u64, Option<bool>)> {
    drain.losses.iter().map(|loss| (&*loss.held.name.name, loss.held.pods, loss.fits)).collect()
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

#[test]
fn devices_that_pods_hold_through_claims_are_held_too() {
    let using = |pod: Value, claim: &str| {
        let name = pod["metadata"]["name"].clone();
        let pod = with(pod, "/metadata/uid", json!(format!("uid-{name}")));
        with(pod, "/spec/resourceClaims", json!([{"name": "c", "resourceClaimName": claim}]))
    };
    let held_by = |name: &str, pod: &Value, devices: &[&str]| {
        let reserved = json!([{"resource": "pods", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}]);
        let status = with(holding("l", devices, Some("l")), "/reservedFor", reserved);
        claim(name, asking(&[exactly(GPU, devices.len() as u32)]), status)
    };
    let cpu = |name: &str| pod(name, "l", json!({"cpu": "1"}));
    let labels = json!({"workload.codeflare.dev/appwrapper": "w"});
    let of_w = using(with(cpu("p"), "/metadata/labels", labels), "k");
    let other = using(cpu("o"), "j");
    let claims = [held_by("k", &of_w, &["gpu-0", "gpu-1"]), held_by("j", &other, &["gpu-2"])];
    let plain = pod("plain", "m", json!({"nvidia.com/gpu": "1"}));
    let mut objects = vec![node("l", json!({"cpu": "8"})), gpu_node("m", 4), slice("l", all(4)), of_w, other, plain];
    objects.extend(claims);
    objects.push(running("w", &[]));
    let known = Known::new(Cluster::from_objects(objects.iter().map(object)), Options::default(), Ages::DoNot);
    let (held, _) = known.drain(&["l".to_owned(), "m".to_owned()], Now::default()).unwrap();
    let w = &held.appwrappers[0].amounts;
    assert_eq!((w.millicores, w.gpus), (1_000, 2));
    assert_eq!((held.other_pods, held.by_others.millicores, held.by_others.gpus), (2, 1_000, 2));
}
