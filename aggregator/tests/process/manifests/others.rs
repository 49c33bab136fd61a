//! Kinds of other projects, as far as the manifests use them: their own fields by name, and no others. Written after the
//! projects' API references; none of them is installed where these tests run.

#![allow(dead_code, reason = "fields are there to be the only ones")]
#![allow(clippy::struct_excessive_bools, reason = "they are others' types")]

use std::collections::BTreeMap;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// Decodes what is under neither `apiVersion`, `kind` nor `metadata`.
pub(crate) fn decode<T: DeserializeOwned>(object: &Value) -> Result<(), String> {
    let mut own = object.as_object().cloned().ok_or("no object")?;
    own.retain(|key, _| !["apiVersion", "kind", "metadata"].contains(&key.as_str()));
    serde_json::from_value::<T>(own.into()).map(drop).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Labels {
    #[serde(rename = "matchLabels")]
    match_labels: BTreeMap<String, String>,
}

/// `monitoring.coreos.com/v1`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServiceMonitor {
    spec: ServiceMonitorSpec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceMonitorSpec {
    selector: Labels,
    endpoints: Vec<Endpoint>,
}

/// `monitoring.coreos.com/v1`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PodMonitor {
    spec: PodMonitorSpec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PodMonitorSpec {
    selector: Labels,
    pod_metrics_endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Endpoint {
    port: String,
    interval: String,
    scrape_timeout: Option<String>,
    honor_labels: Option<bool>,
    #[serde(default)]
    relabelings: Vec<Relabeling>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Relabeling {
    source_labels: Vec<String>,
    target_label: String,
}

/// `cert-manager.io/v1`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Issuer {
    spec: IssuerSpec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
enum IssuerSpec {
    SelfSigned {},
    #[serde(rename_all = "camelCase")]
    Ca {
        secret_name: String,
    },
}

/// `cert-manager.io/v1`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Certificate {
    spec: CertificateSpec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CertificateSpec {
    secret_name: String,
    issuer_ref: IssuerRef,
    duration: String,
    #[serde(rename = "isCA")]
    is_ca: Option<bool>,
    common_name: Option<String>,
    private_key: PrivateKey,
    #[serde(default)]
    usages: Vec<String>,
    #[serde(default)]
    dns_names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerRef {
    name: String,
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PrivateKey {
    algorithm: String,
    size: u32,
    rotation_policy: Option<String>,
}

/// `security.openshift.io/v1`: it has no `spec`. Those without a default here must be said.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Constraints {
    users: Vec<String>,
    groups: Vec<String>,
    priority: u32,
    allow_privileged_container: bool,
    allow_privilege_escalation: bool,
    #[serde(rename = "allowHostPID")]
    allow_host_pid: bool,
    #[serde(rename = "allowHostIPC")]
    allow_host_ipc: bool,
    allow_host_network: bool,
    allow_host_ports: bool,
    allow_host_dir_volume_plugin: bool,
    read_only_root_filesystem: bool,
    allowed_capabilities: Vec<String>,
    default_add_capabilities: Vec<String>,
    required_drop_capabilities: Vec<String>,
    seccomp_profiles: Vec<String>,
    run_as_user: Strategy,
    #[serde(rename = "seLinuxContext")]
    se_linux_context: Strategy,
    fs_group: Strategy,
    supplemental_groups: Strategy,
    volumes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Strategy {
    r#type: String,
}
