//! The cluster's workloads: AppWrappers of both groups and generations, and pods that use CPU time and hold GPUs.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xtask::workspace;

use super::kubectl::{apply, get, kubectl};
use super::node::GPUS;
use super::wait::until;
use super::{amounts, node};

/// The image of the pods that burn CPU time.
pub(super) const BURN: &str = "docker.io/mcad-metrics-e2e/burn:1";
/// The AppWrapper that runs, and its pod's CPU time in percent.
pub(super) const TRAIN: &str = "train";
const TRAIN_PERCENT: u32 = 30;
/// The pod without an AppWrapper.
pub(super) const NOTEBOOK: &str = "notebook";
const NOTEBOOK_PERCENT: u32 = 15;
/// The AppWrapper that waits: it fits neither into the sum nor on a node.
pub(super) const WAITS: &str = "waits";
/// The AppWrapper of the successor project.
pub(super) const LATER: &str = "later";
/// How many GPUs each of the first three requests: of four, one remains.
pub(super) const ASKED: [(&str, usize); 3] = [(TRAIN, 2), (NOTEBOOK, 1), (WAITS, 3)];

/// A pod that uses CPU.
fn pod(name: &str, percent: u32, gpus: usize, labels: &Value) -> Value {
    let amounts = json!({"cpu": "100m", "memory": "32Mi", "nvidia.com/gpu": gpus.to_string()});
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "enableServiceLinks": false,
            "containers": [{"name": "burn", "image": BURN, "imagePullPolicy": "Never", "args": [percent.to_string()],
                            "resources": {"requests": amounts, "limits": {"nvidia.com/gpu": gpus.to_string()}}}],
        },
    })
}

/// An AppWrapper of the first generation around such a pod.
fn v1beta1(group: &str, name: &str, pod: &Value) -> Value {
    let items = json!([{"generictemplate": pod}]);
    json!({"apiVersion": format!("{group}/v1beta1"), "kind": "AppWrapper",
           "metadata": {"name": name, "namespace": "default"}, "spec": {"priority": 3, "resources": {"GenericItems": items}}})
}

/// Sets the status that the dispatcher, which does not run here, would set.
fn set_status(resource: &str, name: &str, status: &Value) -> Result<()> {
    let patch = json!({"status": status}).to_string();
    kubectl(&["patch", resource, name, "--subresource=status", "--type=merge", "-p", &patch]).map(drop)
}

/// Creates the CRDs first, because the aggregator looks for them when it starts and again when they are created.
pub(super) fn define() -> Result<()> {
    for file in ["mcad.ibm.com.yaml", "workload.codeflare.dev.yaml"] {
        let path = workspace::root().join("aggregator/tests/crds").join(file);
        kubectl(&["apply", "-f", &path.display().to_string()])?;
    }
    for group in ["mcad.ibm.com", "workload.codeflare.dev"] {
        let definition = format!("crd/appwrappers.{group}");
        kubectl(&["wait", "--for=condition=Established", &definition, "--timeout=30s"])?;
    }
    Ok(())
}

/// Creates all workloads, and waits until the pods run.
pub(super) fn create() -> Result<()> {
    until("the node advertises its GPUs", 60, || {
        let node = get(&["node", "localhost"])?;
        let gpus = &node["status"]["allocatable"]["nvidia.com/gpu"];
        ensure!(*gpus == json!(GPUS.to_string()), "the node advertises {gpus} GPUs");
        Ok(())
    })?;
    let gpus = |of: &str| ASKED.iter().find(|(name, _)| *name == of).map_or(0, |(_, gpus)| *gpus);
    let owner = json!({"workload.codeflare.dev/appwrapper": TRAIN});
    let train = pod(TRAIN, TRAIN_PERCENT, gpus(TRAIN), &owner);
    let notebook = pod(NOTEBOOK, NOTEBOOK_PERCENT, gpus(NOTEBOOK), &json!({}));
    let waits = pod(WAITS, 1, gpus(WAITS), &json!({}));
    let later = json!({
        "apiVersion": "workload.codeflare.dev/v1beta2", "kind": "AppWrapper",
        "metadata": {"name": LATER, "namespace": "default", "labels": {"kueue.x-k8s.io/queue-name": "team"}},
        "spec": {"suspend": true, "components": [{"template": pod(LATER, 1, 1, &json!({}))}]},
    });
    apply(&[
        v1beta1("workload.codeflare.dev", TRAIN, &train),
        v1beta1("mcad.ibm.com", WAITS, &waits),
        later,
        train,
        notebook,
    ])?;
    let since = "2026-01-05T10:00:00.000000Z";
    let running = json!({"state": "Running", "canrun": true, "controllerfirsttimestamp": since});
    set_status("appwrappers.v1beta1.workload.codeflare.dev", TRAIN, &running)?;
    let pending = json!({"state": "Pending", "queuejobstate": "HeadOfLine", "controllerfirsttimestamp": since});
    set_status("appwrappers.v1beta1.mcad.ibm.com", WAITS, &pending)?;
    set_status("appwrappers.v1beta2.workload.codeflare.dev", LATER, &json!({"phase": "Suspended"}))?;
    kubectl(&["wait", "--for=condition=Ready", "pod", TRAIN, NOTEBOOK, "--timeout=60s"]).map(drop)
}

/// Creates only one that waits; nothing runs.
pub(super) fn create_waiting() -> Result<()> {
    apply(&[v1beta1("mcad.ibm.com", WAITS, &pod(WAITS, 1, 1, &json!({})))])?;
    set_status("appwrappers.v1beta1.mcad.ibm.com", WAITS, &json!({"state": "Pending"}))
}

/// Deletes all AppWrappers.
pub(super) fn delete_all() -> Result<()> {
    for group in ["mcad.ibm.com", "workload.codeflare.dev"] {
        kubectl(&["delete", &format!("appwrappers.{group}"), "--all"])?;
    }
    Ok(())
}

/// The processes that use CPU in both pods.
pub(super) fn burning() -> Result<Vec<node::Process>> {
    let percents = [TRAIN_PERCENT.to_string(), NOTEBOOK_PERCENT.to_string()];
    let burning: Vec<_> = node::processes()
        .filter(|process| matches!(process.words.as_slice(), [_, percent] if percents.contains(percent)))
        .collect();
    ensure!(burning.len() == 2, "{} processes of the workloads use CPU instead of 2", burning.len());
    Ok(burning)
}

/// The cgroup of one of the pods.
pub(super) fn cgroup(pod: &str) -> Result<PathBuf> {
    let object = get(&["pod", pod])?;
    node::pod_cgroup(object["metadata"]["uid"].as_str().context("the pod has no UID")?)
}

/// Allocatable minus the requests of the node's pods, in cores or bytes.
pub(super) fn unrequested(resource: &str) -> Result<f64> {
    amounts::unrequested(&get(&["nodes"])?, &get(&["pods", "-A"])?, resource)
}
