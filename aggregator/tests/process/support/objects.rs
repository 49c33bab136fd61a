//! The API server's objects as tests make and delete them; what has a namespace is in `default`.

use std::time::Duration;

use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use mcad_accounting::object::Served;
use serde_json::{Value, json};

fn api(client: &Client, group: &str, version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk(group, version, kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    match plural {
        "nodes" | "customresourcedefinitions" => Api::all_with(client.clone(), &resource),
        _ => Api::namespaced_with(client.clone(), "default", &resource),
    }
}

pub(crate) fn nodes(client: &Client) -> Api<DynamicObject> {
    api(client, "", "v1", "Node", "nodes")
}

pub(crate) fn pods(client: &Client) -> Api<DynamicObject> {
    api(client, "", "v1", "Pod", "pods")
}

pub(crate) fn appwrappers(client: &Client, group: &str, version: &str) -> Api<DynamicObject> {
    api(client, group, version, "AppWrapper", "appwrappers")
}

pub(crate) fn appwrappers_in(client: &Client, namespace: &str, group: &str, version: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk(group, version, "AppWrapper");
    Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk_with_plural(&kind, "appwrappers"))
}

pub(crate) async fn make_namespace(client: &Client, name: &str) {
    let kind = GroupVersionKind::gvk("", "v1", "Namespace");
    let namespaces = Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, "namespaces"));
    create(&namespaces, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await;
}

pub(crate) fn cluster_wide(client: &Client, kind: &str, plural: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", kind);
    Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, plural))
}

pub(crate) async fn create(api: &Api<DynamicObject>, object: Value) -> DynamicObject {
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

pub(crate) async fn delete(api: &Api<DynamicObject>, name: &str) {
    api.delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
}

pub(crate) fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
}

/// Makes a node that takes pods. An API server taints each until it is said to be ready, which nobody does here.
pub(crate) async fn make_ready_node(client: &Client, name: &str) {
    let mut ready = node(name);
    ready["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    create(&nodes(client), ready).await;
    let untainted = Patch::Merge(json!({"spec": {"taints": null}}));
    nodes(client).patch(name, &PatchParams::default(), &untainted).await.unwrap();
}

pub(crate) fn pod(name: &str, node: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": {
        "nodeName": node, "automountServiceAccountToken": false,
        "containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": "2"}}}]}})
}

pub(crate) fn mcad_appwrapper(group: &str, name: &str) -> Value {
    let template = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": "3"}}}]}});
    json!({"apiVersion": format!("{group}/v1beta1"), "kind": "AppWrapper", "metadata": {"name": name},
        "spec": {"resources": {"GenericItems": [{"replicas": 1, "generictemplate": template}]}}})
}

pub(crate) fn appwrapper(name: &str) -> Value {
    let template = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": "5"}}}]}});
    json!({"apiVersion": "workload.codeflare.dev/v1beta2", "kind": "AppWrapper", "metadata": {"name": name},
        "spec": {"components": [{"template": template}]}})
}

pub(crate) fn definitions(client: &Client) -> Api<DynamicObject> {
    api(client, "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
}

/// Applies both CRDs and waits until they are served.
pub(crate) async fn define(client: &Client) {
    for text in [include_str!("../../crds/workload.codeflare.dev.yaml"), include_str!("../../crds/mcad.ibm.com.yaml")] {
        create(&definitions(client), serde_saphyr::from_str(text).unwrap()).await;
    }
    served(client).await;
}

pub(crate) async fn served(client: &Client) {
    for version in Served::ALL {
        let (group, version) = version.api_version().split_once('/').unwrap();
        while appwrappers(client, group, version).list(&ListParams::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Gives an account of `default` these rights in the whole cluster.
pub(crate) async fn grant(client: &Client, account: &str, rules: Value) {
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": account}, "rules": rules});
    create(&cluster_wide(client, "ClusterRole", "clusterroles"), role).await;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": account},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": account},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "default"}]});
    create(&cluster_wide(client, "ClusterRoleBinding", "clusterrolebindings"), binding).await;
}

pub(crate) const WORKLOAD: &str = "workload.codeflare.dev";
pub(crate) const MCAD: &str = "mcad.ibm.com";
