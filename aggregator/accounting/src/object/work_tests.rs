//! The work that an object causes is bounded by its length, so that nobody can stop the aggregator by creating one. Steps are counted
//! ([`crate::steps`]), because time would also depend on the machine.
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::limits::{POD_SETS, RESOURCES};
use super::{Kind, Object, decode, needed};
use crate::cluster::{Cluster, Event};
use crate::steps;

/// Steps that each byte of an object may cost. The most expensive resource, which sorts before all others when the maximum number of
/// resources is reached, takes about two passes over them for its 20 bytes.
const PER_BYTE: usize = 48;

fn named(count: usize) -> Map<String, Value> {
    (0..count).map(|at| (format!("example.com/r{at:06}"), "1".into())).collect()
}

/// Names that each sort before all previous ones.
fn named_backwards(count: usize) -> Map<String, Value> {
    (0..count).map(|at| (format!("example.com/r{:06}", count - at), "1".into())).collect()
}

fn v1beta1(items: &Value) -> Value {
    json!({
        "apiVersion": "workload.codeflare.dev/v1beta1", "kind": "AppWrapper",
        "metadata": { "name": "a", "namespace": "n" }, "spec": { "resources": { "GenericItems": items } },
    })
}

fn v1beta2(components: &Value) -> Value {
    json!({
        "apiVersion": "workload.codeflare.dev/v1beta2", "kind": "AppWrapper",
        "metadata": { "name": "a", "namespace": "n" }, "spec": { "components": components },
    })
}

fn of_pod(spec: Value) -> [Value; 3] {
    let template = json!({ "apiVersion": "v1", "kind": "Pod", "spec": spec });
    let mut bound = spec;
    bound["nodeName"] = "x".into();
    [
        v1beta1(&json!([{ "generictemplate": template }])),
        v1beta2(&json!([{ "template": template }])),
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "namespace": "n" }, "spec": bound }),
    ]
}

fn requesting(requests: impl Into<Value>) -> Value {
    json!({ "name": "c", "resources": { "requests": requests.into() } })
}

/// Objects whose length grows with `n`, each in another part.
fn objects(n: usize) -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    let mut pod = |what, spec| all.extend(of_pod(spec).map(|object| (what, object)));
    pod("resources", json!({ "containers": [requesting(named(n))] }));
    pod("resources backwards", json!({ "containers": [requesting(named_backwards(n))] }));
    let one_each: Vec<_> = named(n).into_iter().map(|one| requesting(Map::from_iter([one]))).collect();
    pod("a resource in each container", json!({ "containers": one_each }));
    let inits: Vec<_> = (0..n).map(|_| requesting(json!({ "cpu": "1" }))).collect();
    let sidecar = json!({ "restartPolicy": "Always", "resources": { "requests": named(RESOURCES) } });
    let inits: Vec<_> = std::iter::once(sidecar).chain(inits).collect();
    pod("init containers after a sidecar", json!({ "containers": [], "initContainers": inits }));
    let containers: Vec<_> = (0..n).map(|_| json!({})).collect();
    pod("limits of the pod", json!({ "containers": containers, "resources": { "limits": named(RESOURCES) } }));
    let ports: Vec<_> = (0..n).map(|at| json!({ "hostPort": at % 60_000 + 1 })).collect();
    pod("ports", json!({ "containers": [{ "ports": ports }] }));
    let tolerations: Vec<_> = (0..n).map(|at| json!({ "key": format!("k{at}") })).collect();
    pod("tolerations", json!({ "containers": [], "tolerations": tolerations }));

    let containers: Vec<_> = (0..n).map(|at| json!({ "name": format!("c{at}") })).collect();
    let statuses: Vec<_> = (0..n).rev().map(|at| json!({ "name": format!("c{at}"), "resources": {} })).collect();
    all.push((
        "statuses",
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "namespace": "n" },
            "spec": { "containers": containers }, "status": { "containerStatuses": statuses },
        }),
    ));
    // The maximum number of pod sets, and more; the path can be spelled in several ways.
    for sets in [n, n.min(POD_SETS)] {
        let template = json!({ "spec": { "groups": [{ "spec": { "containers": containers } }] } });
        let path = |at: usize| format!("template.spec.groups[{}0]", "0".repeat(at % 8));
        let sets: Vec<_> = (0..sets).map(|at| json!({ "path": path(at) })).collect();
        all.push(("pod sets of one template", v1beta2(&json!([{ "template": template, "podSets": sets }]))));
    }
    let kinds: Vec<_> = (0..n)
        .map(|at| json!({ "generictemplate": { "apiVersion": "x/v1", "kind": format!("K{at}"), "spec": {} } }))
        .collect();
    all.push(("kinds that are not known", v1beta1(&kinds.into())));
    let custom: Vec<_> = named(n).into_iter().map(|one| json!({ "requests": Map::from_iter([one]) })).collect();
    let template = json!({ "spec": { "containers": [] } });
    all.push(("custom resources", v1beta1(&json!([{ "generictemplate": template, "custompodresources": custom }]))));
    let labels: Map<String, Value> = (0..n).map(|at| (format!("l{at}"), "".into())).collect();
    let status = json!({ "capacity": named(n), "allocatable": named_backwards(n) });
    all.push(("labels", json!({ "metadata": { "name": "x", "labels": labels }, "kind": "Node", "status": status })));
    all
}

/// How many steps an object takes from its text to the cluster, and how long the text is.
fn cost(object: &Value) -> (usize, usize) {
    let kind = match object["kind"].as_str() {
        Some("Node") => Kind::Node,
        Some("Pod") => Kind::Pod,
        _ => Kind::AppWrapper,
    };
    let text = object.to_string();
    let mut cluster = Cluster::default();
    let (steps, ()) = steps::of(|| {
        let value = needed(kind, &mut serde_json::Deserializer::from_str(&text)).unwrap();
        let decoded: Object = decode(kind, value).unwrap();
        cluster.apply(Event::Apply(decoded.clone()));
        cluster.apply(Event::Delete(decoded));
    });
    (steps, text.len())
}

#[test]
fn no_part_of_an_object_costs_more_than_its_length() {
    for n in [1_000, 4_000, 8_000] {
        for (what, object) in objects(n) {
            let (steps, bytes) = cost(&object);
            assert!(steps <= PER_BYTE * bytes, "{what}, {n}: {steps} steps for {bytes} bytes");
        }
    }
}

#[test]
fn four_times_the_object_costs_four_times_the_work_or_less() {
    for ((what, small), (_, large)) in objects(2_000).into_iter().zip(objects(8_000)) {
        let ((of_small, _), (of_large, _)) = (cost(&small), cost(&large));
        assert!(of_large <= 5 * of_small + 10_000, "{what}: {of_small} steps, then {of_large}");
    }
}

#[test]
fn many_pods_that_each_name_other_resources_cost_their_length() {
    let mut cluster = Cluster::default();
    let (mut bytes, pods) = (0, 500);
    let (steps, ()) = steps::of(|| {
        for at in 0..pods {
            let requests: Map<String, Value> =
                (0..RESOURCES).map(|name| (format!("example.com/{:06}", name * pods + at), "1".into())).collect();
            let pod = json!({
                "metadata": { "name": format!("p{at}"), "namespace": "n" },
                "spec": { "nodeName": "x", "containers": [requesting(requests)] },
            });
            bytes += pod.to_string().len();
            cluster.apply(Event::Apply(decode(Kind::Pod, pod).unwrap()));
        }
    });
    assert!(steps <= PER_BYTE * bytes, "{steps} steps for {bytes} bytes");
}

/// A part of a spec, mostly under field names that have a meaning.
fn part(depth: u32) -> BoxedStrategy<Value> {
    let names = prop::sample::select(vec![
        "containers",
        "initContainers",
        "resources",
        "requests",
        "limits",
        "overhead",
        "ports",
        "hostPort",
        "tolerations",
        "affinity",
        "nodeAffinity",
        "template",
        "spec",
        "podSets",
        "path",
        "custompodresources",
        "generictemplate",
        "replicas",
        "name",
        "cpu",
        "example.com/a",
        "restartPolicy",
        "nodeSelector",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        (0..70_000_i64).prop_map(Value::from),
        prop::sample::select(vec!["1", "Always", "template", "template.spec.template", "x"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(depth, 600, 12, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..12).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..8).prop_map(|fields| Value::Object(
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            )),
        ]
    })
    .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_a_spec_holds_costs_no_more_than_its_length(spec in part(8), template in part(8)) {
        for object in [
            v1beta1(&json!([{ "generictemplate": { "spec": spec }, "custompodresources": template }])),
            v1beta2(&json!([{ "template": { "spec": template }, "podSets": spec }])),
            v1beta2(&json!([{ "template": { "spec": spec }, "podSets": [{ "path": "template" }, { "path": "template" }] }])),
        ] {
            let text = object.to_string();
            let read = |text: &str| decode(Kind::AppWrapper, serde_json::from_str(text).unwrap());
            let (steps, _) = steps::of(|| read(&text));
            prop_assert!(steps <= PER_BYTE * text.len(), "{} steps for {} bytes", steps, text.len());
        }
    }
}
