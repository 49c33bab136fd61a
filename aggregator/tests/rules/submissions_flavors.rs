//! docs/accounting.md §12: what Kueue's flavors add to pods decides where the pods of a manifest may run.
#![allow(clippy::unwrap_used, reason = "all of this is tests")]

use mcad_accounting::trial::Copies;
use mcad_testkit::build::{gpu_node, with};
use mcad_testkit::queues::flavor;
use serde_json::{Value, json};

use crate::submissions::{all, object_of, queue, template, tried, without_queue};

fn job(gpus: u32) -> Value {
    object_of("batch/v1", "Job", json!({"parallelism": 1, "template": template(gpus)}))
}

fn taint() -> Value {
    json!([{"key": "team", "value": "a", "effect": "NoSchedule"}])
}

fn tainted(name: &str, gpus: u32) -> Value {
    with(gpu_node(name, gpus), "/spec/taints", taint())
}

/// These nodes, and a queue of so many GPUs whose flavor has this spec.
fn with_flavor(nodes: &[Value], quota: u32, spec: Value) -> Vec<Value> {
    let mut objects = queue(quota, json!({}));
    objects.retain(|object| object["kind"] != "ResourceFlavor");
    objects.push(flavor("f", spec));
    [nodes, &objects].concat()
}

fn tolerating() -> Value {
    json!({"nodeTaints": taint(), "tolerations": [{"key": "team", "operator": "Exists"}]})
}

#[test]
fn pods_go_only_to_nodes_of_the_flavor_that_they_get() {
    let labelled = |name: &str, flavor: &str| with(gpu_node(name, 4), "/metadata/labels", json!({"gpu": flavor}));
    let nodes = [labelled("m", "v100"), labelled("n", "a100")];
    let objects = with_flavor(&nodes, 8, json!({"nodeLabels": {"gpu": "a100"}}));
    let tried_of = |copies| tried(&objects, &[job(4)], copies).remove(0);
    let one = tried_of(1);
    assert_eq!((one.is_flavored, one.nodes, one.fits), (true, Some(all(1)), Some(true)));
    assert_eq!(one.places, [("n".into(), 1)]);
    let two = tried_of(2);
    assert_eq!((two.admitted, two.nodes, two.fit, two.fits), (Some(2), Some(all(1)), Some(all(1)), Some(false)));
    // Too large for the node of the flavor, though the other node were large enough.
    let objects = with_flavor(&[gpu_node("m", 8), labelled("n", "a100")], 8, json!({"nodeLabels": {"gpu": "a100"}}));
    let large = tried(&objects, &[job(5)], 1).remove(0);
    assert_eq!((large.fit, large.fits), (Some(all(0)), Some(false)));
    assert_eq!(large.view.unplaced.unwrap().verdict.unwrap().fits(), Some(false));
}

#[test]
fn pods_that_fit_only_with_the_tolerations_of_their_flavor_fit() {
    let objects = with_flavor(&[tainted("n", 8)], 16, tolerating());
    let without = tried(&objects, &[without_queue(job(4))], 1).remove(0);
    assert_eq!((without.is_flavored, without.fits), (false, Some(false)));
    for (copies, fit) in [(1, 1), (2, 2), (3, 2), (4, 2)] {
        let tried = tried(&objects, &[job(4)], copies).remove(0);
        assert!(tried.is_flavored);
        assert_eq!((tried.nodes, tried.fit), (Some(all(fit)), Some(all(fit))), "{copies}");
        assert_eq!(tried.fits, Some(fit == copies));
        assert_eq!(tried.view.unplaced.unwrap().verdict.unwrap().fits(), Some(true));
        assert_eq!(tried.places, [("n".into(), u64::from(fit))]);
    }
    // What is not of the flavor still counts.
    let other = json!({"tolerations": [{"key": "other", "operator": "Exists"}]});
    assert_eq!(tried(&with_flavor(&[tainted("n", 8)], 16, other), &[job(4)], 1)[0].fits, Some(false));
}

#[test]
fn later_objects_find_what_pods_of_flavors_leave() {
    let objects = with_flavor(&[tainted("n", 8)], 16, tolerating());
    let found: Vec<_> = tried(&objects, &[job(5), job(4), job(3)], 1).iter().map(|tried| tried.fits).collect();
    assert_eq!(found, [Some(true), Some(false), Some(true)]);
}

#[test]
fn only_copies_that_kueue_would_admit_are_tried_on_the_nodes_of_their_flavors() {
    let objects = with_flavor(&[tainted("n", 8)], 1, tolerating());
    let tried = tried(&objects, &[job(1)], 3).remove(0);
    assert_eq!((tried.tried_on_nodes(), tried.nodes, tried.fit), (1, Some(all(1)), Some(all(1))));
    assert_eq!(tried.fits, Some(false));
}

#[test]
fn how_many_copies_fit_is_not_known_of_what_another_controller_manages() {
    let objects = with_flavor(&[gpu_node("n", 8)], 16, json!({}));
    let elsewhere =
        with(crate::submissions::wrapped(&job(4), &json!([])), "/spec/managedBy", json!("kueue.x-k8s.io/multikueue"));
    let tried = tried(&objects, &[elsewhere], 2).remove(0);
    assert_eq!((tried.admitted, tried.fit, tried.fits), (None, None, None));
    assert_eq!(tried.nodes, Some(Copies { fit: 2, is_most: true }));
}
