//! Kueue's objects, and AppWrappers of its queues. All of them are in namespace `a`.
use serde_json::{Value, json};

use crate::build::{spec, v1beta2, with};

/// An object of Kueue in its newest version.
pub fn of_kueue(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind,
        "metadata": {"name": name, "uid": format!("{kind}-{name}")}, "spec": spec,
    })
}

/// A ResourceFlavor.
pub fn flavor(name: &str, spec: Value) -> Value {
    of_kueue("ResourceFlavor", name, spec)
}

/// A ClusterQueue `name` with this much quota for GPUs in each flavor, and the LocalQueue of that name.
pub fn queue(name: &str, quotas: &[(&str, u32)], rest: Value) -> Vec<Value> {
    let flavors: Vec<_> = quotas
        .iter()
        .map(|(flavor, gpus)| json!({"name": flavor, "resources": [{"name": "nvidia.com/gpu", "nominalQuota": gpus}]}))
        .collect();
    let mut spec = json!({"resourceGroups": [{"coveredResources": ["nvidia.com/gpu"], "flavors": flavors}]});
    for (key, value) in rest.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let local = of_kueue("LocalQueue", name, json!({"clusterQueue": name}));
    vec![of_kueue("ClusterQueue", name, spec), with(local, "/metadata/namespace", json!("a"))]
}

/// A Workload in namespace `a` of pods of so many GPUs each, created in that minute.
pub fn workload(name: &str, queue: &str, sets: &[(u32, u32)], minute: u32) -> Value {
    let sets: Vec<_> = sets
        .iter()
        .enumerate()
        .map(|(at, (count, gpus))| {
            let template = json!({"spec": spec(json!({"nvidia.com/gpu": gpus}))});
            json!({"name": format!("{name}-{at}"), "count": count, "template": template})
        })
        .collect();
    let created = format!("2026-01-05T09:{minute:02}:00Z");
    let workload = of_kueue("Workload", name, json!({"queueName": queue, "podSets": sets}));
    with(with(workload, "/metadata/namespace", json!("a")), "/metadata/creationTimestamp", json!(created))
}

/// The same Workload, of that AppWrapper.
pub fn owned(workload: Value, appwrapper: &str) -> Value {
    let owner = json!([{"apiVersion": "workload.codeflare.dev/v1beta2", "kind": "AppWrapper", "name": appwrapper}]);
    with(workload, "/metadata/ownerReferences", owner)
}

/// The same Workload, admitted, with this usage of flavor `f` for its first pod set.
pub fn admitted(workload: Value, queue: &str, usage: Value) -> Value {
    let name = format!("{}-0", workload["metadata"]["name"].as_str().unwrap());
    let flavors: serde_json::Map<_, _> =
        usage.as_object().unwrap().keys().map(|resource| (resource.clone(), json!("f"))).collect();
    let assignment = json!({"name": name, "flavors": flavors, "resourceUsage": usage});
    let status = json!({
        "admission": {"clusterQueue": queue, "podSetAssignments": [assignment]},
        "conditions": [{"type": "QuotaReserved", "status": "True"}, {"type": "Admitted", "status": "True"}],
    });
    with(workload, "/status", status)
}

/// A suspended AppWrapper of pods of so many GPUs, of that queue.
pub fn appwrapper(name: &str, queue: &str, pods: u32, gpus: u32) -> Value {
    let template = json!({"t": {"spec": spec(json!({"nvidia.com/gpu": gpus}))}});
    let components = json!([{"podSets": [{"path": "template.t", "replicas": pods}], "template": template}]);
    let labels = json!({"kueue.x-k8s.io/queue-name": queue});
    let one = with(v1beta2(name, components, "Suspended"), "/metadata/labels", labels);
    with(one, "/spec/suspend", json!(true))
}
