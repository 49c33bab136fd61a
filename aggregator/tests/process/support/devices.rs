//! The kinds of Dynamic Resource Allocation, on an API server that is older than it, and those of Kueue, as custom resources of the same group
//! and versions, and objects as drivers and the scheduler write them.
use std::time::Duration;

use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use mcad_accounting::object::Kind;
use serde_json::{Value, json};

use super::objects::{create, definitions, delete};

/// Kinds with namespaces.
const NAMESPACED: [Kind; 4] = [Kind::ResourceClaim, Kind::ResourceClaimTemplate, Kind::LocalQueue, Kind::Workload];

fn group(kind: Kind) -> &'static str {
    kind.group().unwrap()
}

/// The name of the definition of a kind.
fn definition(kind: Kind) -> String {
    format!("{}.{}", plural(kind), group(kind))
}

fn plural(kind: Kind) -> String {
    kind.plural().to_lowercase()
}

/// The objects of a kind, as a version serves them.
pub(crate) fn devices(client: &Client, kind: Kind, version: &str) -> Api<DynamicObject> {
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group(kind), version, kind.name()), &plural(kind));
    if NAMESPACED.contains(&kind) {
        Api::namespaced_with(client.clone(), "default", &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    }
}

/// Versions of a definition, the first of which is stored.
fn versions(all: &[&str], is_served: impl Fn(&str) -> bool) -> Value {
    let version = |(at, name): (usize, &&str)| {
        json!({"name": name, "served": is_served(name), "storage": at == 0, "schema": {"openAPIV3Schema":
            {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    all.iter().enumerate().map(version).collect()
}

/// Has a kind served in these versions, the first of which is stored.
pub(crate) async fn define(client: &Client, kind: Kind, served: &[&str]) {
    let (name, scope) = (plural(kind), if NAMESPACED.contains(&kind) { "Namespaced" } else { "Cluster" });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": self::definition(kind),
            // The group is Kubernetes' own.
            "annotations": {"api-approved.kubernetes.io": "unapproved, of a test"}},
        "spec": {"group": group(kind), "scope": scope, "versions": versions(served, |_| true),
            "names": {"kind": kind.name(), "listKind": format!("{}List", kind.name()), "plural": name, "singular": kind.name().to_lowercase()}},
    });
    create(&definitions(client), definition).await;
    is_served(client, kind, served).await;
}

/// Has all five served in a version.
pub(crate) async fn define_all(client: &Client, version: &str) {
    for kind in Kind::DEVICES {
        define(client, kind, &[version]).await;
    }
}

/// Has a kind served in other versions than before.
pub(crate) async fn redefine(client: &Client, kind: Kind, served: &[&str]) {
    set_versions(client, kind, versions(served, |_| true)).await;
    is_served(client, kind, served).await;
}

/// Has a kind served in one of its versions only.
pub(crate) async fn serve_only(client: &Client, kind: Kind, version: &str, all: &[&str]) {
    set_versions(client, kind, versions(all, |of| of == version)).await;
    is_served(client, kind, &[version]).await;
}

async fn set_versions(client: &Client, kind: Kind, versions: Value) {
    let (name, patch) = (definition(kind), Patch::Merge(json!({"spec": {"versions": versions}})));
    definitions(client).patch(&name, &PatchParams::default(), &patch).await.unwrap();
}

/// Has a kind no longer served.
pub(crate) async fn undefine(client: &Client, kind: Kind) {
    delete(&definitions(client), &definition(kind)).await;
}

async fn is_served(client: &Client, kind: Kind, versions: &[&str]) {
    for version in versions {
        while devices(client, kind, version).list(&ListParams::default().limit(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A slice of GPUs of a node, which is one of so many of its pool. The versions before v1beta2 have what a device is under `basic`.
pub(crate) fn slice(
    version: &str,
    name: &str,
    node: &str,
    gpus: std::ops::Range<u32>,
    (generation, slices): (u32, u32),
) -> Value {
    let device = |at: u32| {
        let is = json!({"attributes": {"type": {"string": "gpu"}, "uuid": {"string": format!("GPU-{node}-{at}")},
            "productName": {"string": "NVIDIA H100 80GB HBM3"}}, "capacity": {"memory": {"value": "81559Mi"}}});
        let mut device = if version == "v1beta1" { json!({"basic": is}) } else { is };
        device["name"] = format!("gpu-{at}").into();
        device
    };
    json!({"apiVersion": format!("resource.k8s.io/{version}"), "kind": "ResourceSlice", "metadata": {"name": name},
        "spec": {"driver": "gpu.nvidia.com", "nodeName": node,
            "pool": {"name": node, "generation": generation, "resourceSliceCount": slices},
            "devices": gpus.map(device).collect::<Vec<_>>()}})
}

/// A claim that was given a GPU of a node.
pub(crate) fn claim(version: &str, name: &str, node: &str, gpu: u32) -> Value {
    let is = json!({"deviceClassName": "gpu.nvidia.com", "allocationMode": "ExactCount", "count": 1});
    let mut request = if version == "v1beta1" { is } else { json!({"exactly": is}) };
    request["name"] = "gpu".into();
    let selector =
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]});
    json!({"apiVersion": format!("resource.k8s.io/{version}"), "kind": "ResourceClaim", "metadata": {"name": name},
        "spec": {"devices": {"requests": [request]}},
        "status": {"allocation": {"nodeSelector": selector, "devices": {"results":
            [{"request": "gpu", "driver": "gpu.nvidia.com", "pool": node, "device": format!("gpu-{gpu}")}]}}}})
}
