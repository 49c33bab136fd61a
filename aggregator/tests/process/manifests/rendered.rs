//! What kubectl makes of an overlay of `deploy/`: objects, each decoded by its own type, nothing passed over.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{ConfigMap, Namespace, PodSpec, Secret, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    scheduling::v1::PriorityClass,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::others;

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The text of a file of it.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Everything that `kubectl apply -k` takes: folders under `deploy/`.
pub(crate) fn overlays() -> Vec<String> {
    let folders = std::fs::read_dir(root().join("deploy/overlays")).unwrap();
    let names = folders.map(|folder| folder.unwrap().file_name().into_string().unwrap());
    let mut overlays: Vec<_> = names.map(|name| format!("deploy/overlays/{name}")).collect();
    overlays.push("deploy/base".to_owned());
    overlays.sort();
    overlays
}

/// Runs kubectl; `None`, and said aloud, where there is none.
pub(crate) fn kubectl(arguments: &[&str]) -> Option<String> {
    match Command::new("kubectl").args(arguments).current_dir(root()).output() {
        Ok(output) => {
            let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "kubectl {arguments:?}: {stdout}{stderr}");
            assert!(!stderr.contains("deprecated"), "kubectl {arguments:?}: {stderr}");
            Some(stdout)
        }
        Err(error) if std::env::var("CI").as_deref() == Ok("true") => panic!("kubectl: {error}"),
        Err(error) => {
            eprintln!("SKIPPED: kubectl: {error}");
            None
        }
    }
}

/// The objects of an overlay.
pub(crate) fn render(overlay: &str) -> Option<Vec<Value>> {
    let text = kubectl(&["kustomize", overlay])?;
    let objects =
        serde_saphyr::read::<_, Value>(&mut text.as_bytes()).map(|object| object.unwrap()).collect::<Vec<_>>();
    assert!(objects.len() > 10, "{overlay}: {}", objects.len());
    Some(objects)
}

/// `Kind/name`.
pub(crate) fn name(object: &Value) -> String {
    format!("{}/{}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
}

/// Those of a kind.
pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// What runs pods, and their specification.
pub(crate) fn workloads(objects: &[Value]) -> Vec<(&Value, PodSpec)> {
    let runs = |object: &&Value| ["Deployment", "DaemonSet"].iter().any(|kind| object["kind"] == *kind);
    let spec = |object: &Value| serde_json::from_value(object["spec"]["template"]["spec"].clone()).unwrap();
    objects.iter().filter(runs).map(|object| (object, spec(object))).collect()
}

/// Decodes an object by its type. An error where a field has another type, or the type has no such field.
pub(crate) fn decode(object: &Value) -> Result<(), String> {
    let api = object["apiVersion"].as_str().unwrap_or_default();
    match (api, object["kind"].as_str().unwrap_or_default()) {
        ("v1", "Namespace") => strictly::<Namespace>(object),
        ("v1", "ServiceAccount") => strictly::<ServiceAccount>(object),
        ("v1", "Service") => strictly::<Service>(object),
        ("v1", "Secret") => strictly::<Secret>(object),
        ("v1", "ConfigMap") => strictly::<ConfigMap>(object),
        ("apps/v1", "DaemonSet") => strictly::<DaemonSet>(object),
        ("apps/v1", "Deployment") => strictly::<Deployment>(object),
        ("rbac.authorization.k8s.io/v1", "Role") => strictly::<Role>(object),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => strictly::<RoleBinding>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => strictly::<ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => strictly::<ClusterRoleBinding>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => strictly::<NetworkPolicy>(object),
        ("policy/v1", "PodDisruptionBudget") => strictly::<PodDisruptionBudget>(object),
        ("scheduling.k8s.io/v1", "PriorityClass") => strictly::<PriorityClass>(object),
        ("monitoring.coreos.com/v1", "ServiceMonitor") => others::decode::<others::ServiceMonitor>(object),
        ("monitoring.coreos.com/v1", "PodMonitor") => others::decode::<others::PodMonitor>(object),
        ("cert-manager.io/v1", "Issuer") => others::decode::<others::Issuer>(object),
        ("cert-manager.io/v1", "Certificate") => others::decode::<others::Certificate>(object),
        ("security.openshift.io/v1", "SecurityContextConstraints") => others::decode::<others::Constraints>(object),
        (api, kind) => Err(format!("no test knows {kind} of {api}")),
    }
}

/// The types pass over fields that they do not have: whatever is lost on the way through one was not its.
fn strictly<T: Serialize + DeserializeOwned>(object: &Value) -> Result<(), String> {
    let decoded: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    lost(object, &serde_json::to_value(decoded).unwrap(), "")
}

/// Where `after` lacks something of `before`; amounts and numbers may be spelled otherwise.
fn lost(before: &Value, after: &Value, path: &str) -> Result<(), String> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before.iter().try_for_each(|(key, value)| {
            let path = format!("{path}.{key}");
            after.get(key).map_or_else(|| Err(format!("the type has no {path}")), |after| lost(value, after, &path))
        }),
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            let mut pairs = before.iter().zip(after).enumerate();
            pairs.try_for_each(|(index, (before, after))| lost(before, after, &format!("{path}[{index}]")))
        }
        (before, after) if before == after => Ok(()),
        (before, after) => Err(format!("{path}: {before} became {after}")),
    }
}

#[test]
fn a_slip_in_a_manifest_is_found() {
    let service = serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {}});
    decode(&service).unwrap();
    let mut slip = service.clone();
    slip["spec"]["clusterIp"] = "None".into();
    assert_eq!(decode(&slip).unwrap_err(), "the type has no .spec.clusterIp");
    slip = service;
    slip["spec"]["ports"] = "all".into();
    assert!(decode(&slip).unwrap_err().contains("invalid type"));
}
