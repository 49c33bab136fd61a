//! What a document of a manifest submits: the pods of an object that does not exist yet, as an AppWrapper, and the Workload that Kueue would
//! make of it.
//!
//! An object of another kind than AppWrapper is read as the only component of an AppWrapper. So all kinds are counted by one rule
//! (docs/accounting.md §2, §12).
use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::appwrapper::QUEUE;
use super::demand::{Component, has_no_pods, replicas};
use super::template::at_path;
use super::{AppWrapper, Excess, Kind, Object, ObjectError, Version, Workload, read};

/// The kinds besides AppWrapper whose pods are known.
const KINDS: [(&str, &str); 9] = [
    ("v1", "Pod"),
    ("batch/v1", "Job"),
    ("jobset.x-k8s.io/v1alpha2", "JobSet"),
    ("kubeflow.org/v1", "PyTorchJob"),
    ("ray.io/v1", "RayCluster"),
    ("ray.io/v1", "RayJob"),
    ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
];

/// The annotation by which pod sets get the same flavors.
const GROUP: &str = "kueue.x-k8s.io/podset-group-name";

/// An object that creates pods and does not exist yet.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The kind of the object.
    pub kind: String,
    /// Its name; with `metadata.generateName`, the beginning of it and `…`.
    pub name: String,
    /// The same as an AppWrapper that waits. Its name is one that no object can have.
    pub appwrapper: AppWrapper,
    /// What Kueue would make of it. `None` for a v1beta1 AppWrapper, which MCAD dispatches.
    pub workload: Option<Arc<Workload>>,
    /// How many such Workloads: several if Kueue makes one for each part, as for the pods of a Deployment.
    pub workloads: u32,
}

/// What a document is.
#[derive(Clone, Debug)]
pub enum Submitted {
    /// An object that creates pods.
    Pods(Box<Submission>),
    /// A claim, or claim template, that pods may use.
    Claim(Box<Object>),
    /// An object that creates no pods, such as a Service: its kind.
    Nothing(String),
}

/// Why it is not known which pods a document creates.
#[derive(Debug, Error)]
pub enum SubmissionError {
    /// It is no object.
    #[error("it is not an object with `apiVersion` and `kind`")]
    NoObject,
    /// It is of another kind.
    #[error("{kind} of {api_version}: its pods are not known. Known are {}", known())]
    Unknown {
        /// The kind.
        kind: String,
        /// The group and version.
        api_version: String,
    },
    /// It has neither a name nor the beginning of one.
    #[error("{0}: fields `metadata.name` and `metadata.generateName` are empty")]
    Nameless(String),
    /// It has a field of the wrong shape.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// It exceeds the bounds of one object.
    #[error("{object} has {excess}")]
    Excess {
        /// Kind and name.
        object: String,
        /// The bound.
        excess: Excess,
    },
}

/// The kinds that are known, for a sentence.
fn known() -> String {
    let versions = super::Served::ALL.map(|served| format!("AppWrapper ({})", served.api_version()));
    let others = KINDS.map(|(api_version, kind)| format!("{kind} ({api_version})"));
    versions.into_iter().chain(others).collect::<Vec<_>>().join(", ")
}

/// Path and number of the pods of each pod set.
type Sets = Vec<(String, u32)>;

impl Submitted {
    /// Reads a document. `namespace` is that of an object that names none; `queue` replaces the LocalQueue that it names.
    pub fn of(document: &Value, namespace: &str, queue: Option<&str>) -> Result<Self, SubmissionError> {
        let text = |field: &str| document[field].as_str().unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if api_version.is_empty() || kind.is_empty() {
            return Err(SubmissionError::NoObject);
        }
        match Kind::named(api_version, kind) {
            Some(of @ (Kind::ResourceClaim | Kind::ResourceClaimTemplate)) => {
                let mut claim = document.clone();
                let fields = claim.as_object_mut();
                fields.and_then(|fields| fields.remove("status"));
                if let Some(metadata) = claim["metadata"].as_object_mut() {
                    metadata.insert("namespace".into(), self::namespace(document, namespace).into());
                }
                return Ok(Self::Claim(Box::new(read(of, &claim)?)));
            }
            Some(Kind::AppWrapper) => {}
            _ if KINDS.contains(&(api_version, kind)) => {}
            _ if has_no_pods(api_version, kind) => return Ok(Self::Nothing(kind.to_owned())),
            _ => return Err(SubmissionError::Unknown { kind: kind.into(), api_version: api_version.into() }),
        }
        Ok(Self::Pods(Box::new(submission(document, namespace, queue)?)))
    }
}

fn submission(document: &Value, namespace: &str, queue: Option<&str>) -> Result<Submission, SubmissionError> {
    let kind = document["kind"].as_str().unwrap_or_default().to_owned();
    let is_appwrapper = kind == "AppWrapper";
    let name = name(document).ok_or_else(|| SubmissionError::Nameless(kind.clone()))?;
    let called = || format!("{kind} {name}");
    let namespace = self::namespace(document, namespace);
    let queue = queue.or_else(|| document["metadata"]["labels"][QUEUE].as_str()).unwrap_or_default();
    let mut labels = document["metadata"]["labels"].clone();
    if !labels.is_object() {
        labels = json!({});
    }
    labels[QUEUE] = queue.into();
    let (whole, unit, workloads) = if is_appwrapper { (None, None, 1) } else { sets(document) };
    let spec = if is_appwrapper {
        document["spec"].clone()
    } else {
        json!({"components": [component(document, whole.as_ref())], "suspend": document["spec"]["suspend"]})
    };
    let api_version =
        if is_appwrapper { document["apiVersion"].clone() } else { "workload.codeflare.dev/v1beta2".into() };
    let metadata = json!({"name": name, "namespace": namespace, "labels": labels});
    let value = json!({"apiVersion": api_version, "kind": "AppWrapper", "metadata": metadata, "spec": spec});
    let Object::AppWrapper(mut appwrapper) = read(Kind::AppWrapper, &value)? else {
        return Err(SubmissionError::NoObject);
    };
    // No object can have this name. So pods that are nominated for an AppWrapper of the same name count as those of another.
    appwrapper.name.name = format!("{name} (not submitted)").into();
    let excess = |excess| SubmissionError::Excess { object: called(), excess };
    if let Some(found) = appwrapper.excess {
        return Err(excess(found));
    }
    let mut workload = None;
    if appwrapper.version == Version::V1Beta2 {
        let components = match unit {
            Some(unit) => json!([component(document, Some(&unit))]),
            None => value["spec"]["components"].clone(),
        };
        let pod_sets = pod_sets(&name, &components, is_appwrapper);
        let metadata = json!({"name": name, "namespace": namespace});
        let spec = json!({"queueName": queue, "podSets": pod_sets});
        let value =
            json!({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": metadata, "spec": spec});
        let Object::Workload(mut found) = read(Kind::Workload, &value)? else { return Err(SubmissionError::NoObject) };
        if let Some(found) = found.excess {
            return Err(excess(found));
        }
        if let Some(open) = &mut found.open {
            // It is the last in line.
            open.in_line_ms = Some(i64::MAX);
        }
        workload = Some(Arc::new(found));
    }
    Ok(Submission { kind: kind.clone(), name: name.clone(), appwrapper, workload, workloads })
}

fn name(document: &Value) -> Option<String> {
    let text = |field: &str| document["metadata"][field].as_str().filter(|text| !text.is_empty());
    let generated = || text("generateName").map(|begin| format!("{begin}…"));
    text("name").map(str::to_owned).or_else(generated)
}

fn namespace<'a>(document: &'a Value, other: &'a str) -> &'a str {
    document["metadata"]["namespace"].as_str().filter(|name| !name.is_empty()).unwrap_or(other)
}

/// A component that creates the object, with these pod sets; without, they are inferred.
fn component(document: &Value, sets: Option<&Sets>) -> Value {
    let mut component = Map::new();
    component.insert("template".into(), document.clone());
    if let Some(sets) = sets {
        let sets = sets.iter().map(|(path, count)| json!({"path": path, "replicas": count}));
        component.insert("podSets".into(), sets.collect());
    }
    component.into()
}

/// The pod sets of an object that the AppWrapper controller does not infer; those of one Workload if it has several; and how many Workloads
/// it has.
///
/// Source: kubernetes-sigs/kueue `pkg/controller/jobs/{deployment,leaderworkerset}`.
fn sets(document: &Value) -> (Option<Sets>, Option<Sets>, u32) {
    let spec = &document["spec"];
    match document["kind"].as_str().unwrap_or_default() {
        "LeaderWorkerSet" => {
            let groups = replicas(&spec["replicas"], 1);
            let size = replicas(&spec["leaderWorkerTemplate"]["size"], 1);
            let path = |template: &str| format!("template.spec.leaderWorkerTemplate.{template}");
            let of_one = if spec["leaderWorkerTemplate"]["leaderTemplate"].is_object() {
                vec![(path("leaderTemplate"), size.min(1)), (path("workerTemplate"), size.saturating_sub(1))]
            } else {
                vec![(path("workerTemplate"), size)]
            };
            let of_all = of_one.iter().map(|(path, count)| (path.clone(), count.saturating_mul(groups)));
            (Some(of_all.collect()), Some(of_one), groups)
        }
        "Deployment" => (None, Some(vec![("template.spec.template".to_owned(), 1)]), replicas(&spec["replicas"], 1)),
        "RayCluster" | "RayJob" => (Some(of_ray(document)), None, 1),
        _ => (None, None, 1),
    }
}

/// Those of a Ray cluster: a worker may have several hosts, and a RayJob has a pod that submits it.
///
/// Source: ray-project/kuberay `ray-operator/apis/ray/v1`; kubernetes-sigs/kueue `pkg/controller/jobs/ray{cluster,job}`.
fn of_ray(document: &Value) -> Sets {
    let inferred = Component::deserialize(component(document, None)).map(|component| component.sets());
    let mut sets = inferred.unwrap_or_default();
    for (path, count) in &mut sets {
        let group = path.strip_suffix(".template").and_then(|path| at_path(document, path));
        *count = count.saturating_mul(group.map_or(1, |group| replicas(&group["numOfHosts"], 1)).max(1));
    }
    let spec = &document["spec"];
    let is_submitted = matches!(spec["submissionMode"].as_str(), None | Some("" | "K8sJobMode"));
    if is_submitted && spec["submitterPodTemplate"].is_object() {
        sets.push(("template.spec.submitterPodTemplate".to_owned(), 1));
    }
    sets
}

/// The pod sets of the Workload of these components.
fn pod_sets(name: &str, components: &Value, is_appwrapper: bool) -> Vec<Value> {
    let mut sets = Vec::new();
    for component in components.as_array().into_iter().flatten() {
        let Ok(component) = Component::deserialize(component) else { continue };
        for (path, count) in component.sets() {
            let template = at_path(component.template(), &path).filter(|template| template["spec"].is_object());
            let Some(template) = template else { continue };
            let mut spec = template["spec"].clone();
            if is_appwrapper {
                forget_sidecars(&mut spec);
            }
            sets.push(json!({
                "name": format!("{name}-{}", sets.len()),
                "count": count,
                "topologyRequest": {"podSetGroupName": template["metadata"]["annotations"][GROUP]},
                "template": {"spec": spec},
            }));
        }
    }
    sets
}

/// The copy of a template that the AppWrapper controller gives to Kueue lacks the restart policy of init containers, so Kueue counts a
/// sidecar as an init container that ends.
///
/// Source: project-codeflare/appwrapper `pkg/utils/utils.go`, `copyContainers`.
fn forget_sidecars(spec: &mut Value) {
    for container in spec["initContainers"].as_array_mut().into_iter().flatten() {
        if let Some(container) = container.as_object_mut() {
            container.remove("restartPolicy");
        }
    }
}
