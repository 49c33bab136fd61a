//! Builders for objects and reports.
use mcad_accounting::object::{Kind, Object, decode, needed};
use mcad_wire::report::{Assignment, Assignments, DeviceIds, Gpu, Gpus, Machine, REPORT_VERSION, Report};
use serde_json::{Value, json};

/// Decodes an object that must be valid, as a watch does. So a field that is missing from the needed fields fails the test of its rule.
pub fn object(json: &Value) -> Object {
    let kind = Kind::named(json["apiVersion"].as_str().unwrap(), json["kind"].as_str().unwrap()).unwrap();
    decode(kind, needed(kind, json).unwrap()).unwrap()
}

/// A ready node that declares the same amounts as capacity and as allocatable.
pub fn node(name: &str, amounts: Value) -> Value {
    node_of(name, amounts.clone(), amounts)
}

/// A ready node, with room for 110 pods unless its amounts state how many.
pub fn node_of(name: &str, mut capacity: Value, mut allocatable: Value) -> Value {
    for amounts in [&mut capacity, &mut allocatable].into_iter().filter_map(Value::as_object_mut) {
        amounts.entry("pods").or_insert_with(|| "110".into());
    }
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name, "labels": {}, "annotations": {}},
        "spec": {}, "status": {
            "capacity": capacity, "allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// A running pod of one container in namespace `a`; not bound if the node's name is empty.
pub fn pod(name: &str, node: &str, requests: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "a", "uid": format!("uid-{name}"), "labels": {}, "annotations": {}},
        "spec": {"nodeName": node, "containers": [{"name": "main", "resources": {"requests": requests}}]},
        "status": {"phase": "Running"},
    })
}

/// A v1beta1 AppWrapper in namespace `a`.
pub fn v1beta1(name: &str, generic_items: Value, status: Value) -> Value {
    json!({
        "apiVersion": "workload.codeflare.dev/v1beta1", "kind": "AppWrapper",
        "metadata": {"name": name, "namespace": "a", "uid": format!("uid-{name}"), "labels": {}},
        "spec": {"resources": {"GenericItems": generic_items}}, "status": status,
    })
}

/// A v1beta2 AppWrapper in namespace `a`.
pub fn v1beta2(name: &str, components: Value, phase: &str) -> Value {
    json!({
        "apiVersion": "workload.codeflare.dev/v1beta2", "kind": "AppWrapper",
        "metadata": {"name": name, "namespace": "a", "uid": format!("uid-{name}"), "labels": {}},
        "spec": {"components": components}, "status": {"phase": phase},
    })
}

/// A waiting v1beta2 AppWrapper `w` of pod sets, each given as the number of pods and their spec.
pub fn waiting(sets: &[(u32, Value)]) -> Value {
    let components: Vec<_> = sets
        .iter()
        .map(|(n, spec)| json!({"podSets": [{"path": "template.t", "replicas": n}], "template": {"t": {"spec": spec}}}))
        .collect();
    v1beta2("w", json!(components), "Suspended")
}

/// The spec of a pod that requests this many GPUs.
pub fn gpus_of(count: u32) -> Value {
    spec(json!({"nvidia.com/gpu": count.to_string()}))
}

/// A ready node of 8 cores and this many GPUs.
pub fn gpu_node(name: &str, count: u32) -> Value {
    node(name, json!({"cpu": "8", "nvidia.com/gpu": count.to_string()}))
}

/// A pod spec of one container.
pub fn spec(requests: Value) -> Value {
    json!({"containers": [{"name": "main", "resources": {"requests": requests}}]})
}

/// The same object with a value inserted at a JSON pointer.
pub fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key] = value;
    object
}

/// The `sequence`th report of a node's agent; reports are ten seconds apart.
pub fn report(node: &str, sequence: u64) -> Report {
    Report {
        version: REPORT_VERSION,
        node: node.into(),
        boot_id: "boot".into(),
        started_at_ms: 1,
        sequence,
        uptime_ns: (100 + 10 * sequence) * 1_000_000_000,
        interval_ms: 10_000,
        machine: Some(Machine::default()),
        ..Report::default()
    }
}

/// A report of a node with a driver and these GPUs.
pub fn gpu_report(node: &str, devices: Vec<Gpu>) -> Report {
    let gpus = Gpus { driver_version: "550".into(), devices, ..Gpus::default() };
    Report { gpus: Some(gpus), ..report(node, 1) }
}

/// This many healthy GPUs, `GPU-0` first.
pub fn gpus(count: usize) -> Vec<Gpu> {
    (0..count).map(|at| Gpu { uuid: format!("GPU-{at}"), ..Gpu::default() }).collect()
}

/// The same GPU, but unhealthy.
pub fn broken(gpu: Gpu) -> Gpu {
    Gpu { unhealthy_reasons: vec!["xid_79".into()], ..gpu }
}

/// What kubelet handed out to pods of namespace `a`.
pub fn assigned(resource: &str, pods: &[(&str, &[&str])]) -> Assignments {
    let assigned = pods.iter().map(|(pod, ids)| Assignment {
        namespace: "a".into(),
        pod: (*pod).into(),
        container: "main".into(),
        resource: resource.into(),
        device_ids: ids.iter().map(|id| (*id).into()).collect(),
        ..Assignment::default()
    });
    Assignments { assigned: assigned.collect(), allocatable: Vec::new() }
}

/// Ids that kubelet can hand out.
pub fn advertised(resource: &str, ids: &[&str]) -> Assignments {
    let ids = ids.iter().map(|id| (*id).into()).collect();
    Assignments { assigned: Vec::new(), allocatable: vec![DeviceIds { resource: resource.into(), device_ids: ids }] }
}
