//! The cluster whose agents report: nodes, their pods, and the AppWrappers of those pods that hold a GPU.
use serde_json::{Value, json};

use crate::report::{self, GPUS, NODES_EACH, PODS, holds_gpu, namespace, pod_name, pod_uid};
use crate::support::objects::{node_json, node_name, uid};

/// All objects of a cluster with this many nodes, each with its API version and kind.
#[allow(dead_code, reason = "the API server asks for one list at a time")]
pub(crate) fn all(nodes: usize) -> impl Iterator<Item = (&'static str, &'static str, Value)> {
    let appwrappers =
        (0..nodes.div_ceil(NODES_EACH)).map(|at| ("workload.codeflare.dev/v1beta2", "AppWrapper", appwrapper(at)));
    let nodes_and_pods = (0..nodes)
        .map(|at| ("v1", "Node", node_json(at, &[])))
        .chain((0..nodes * PODS).map(|at| ("v1", "Pod", pod(at))));
    nodes_and_pods.chain(appwrappers)
}

/// A running AppWrapper, whose pods hold all GPUs of some nodes.
pub(crate) fn appwrapper(at: usize) -> Value {
    let requests = json!({"cpu": "500m", "memory": "4Gi", "nvidia.com/gpu": "1"});
    let template = json!({"spec": {"containers": [{"name": "pytorch", "resources": {"requests": requests}}]}});
    let pod_set = json!({"replicas": NODES_EACH * GPUS, "path": "template.template"});
    let component = json!({"podSets": [pod_set], "template": {"template": template}});
    json!({
        "apiVersion": "workload.codeflare.dev/v1beta2", "kind": "AppWrapper",
        "metadata": {"name": appwrapper_name(at), "namespace": namespace(at * NODES_EACH, 0), "uid": uid(60_000_000 + at),
            "resourceVersion": "1"},
        "spec": {"components": [component]}, "status": {"phase": "Running"},
    })
}

fn appwrapper_name(at: usize) -> String {
    format!("llama-sft-{at}")
}

/// Only the kept fields of a pod: the benchmark `view` measures the cost of skipping the rest.
pub(crate) fn pod(at: usize) -> Value {
    let (node, pod) = (at / PODS, at % PODS);
    let (gpus, labels) = if holds_gpu(pod) {
        ("1", json!({"workload.codeflare.dev/appwrapper": appwrapper_name(report::appwrapper(node))}))
    } else {
        ("0", json!({}))
    };
    let requests = json!({"cpu": format!("{}m", 500 + at % 7 * 250), "memory": "4Gi", "nvidia.com/gpu": gpus});
    json!({
        "metadata": {"name": pod_name(node, pod), "namespace": namespace(node, pod), "uid": pod_uid(node, pod),
            "resourceVersion": "1", "labels": labels},
        "spec": {"nodeName": node_name(node), "containers": [{"name": "pytorch", "resources": {"requests": requests}}]},
        "status": {"phase": "Running"},
    })
}
