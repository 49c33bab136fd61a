//! What an AppWrapper asks for: its pods, by the rules of its version (docs/accounting.md §2).
//!
//! Owns the way from a spec to groups of identical pods. Which of them are left to place is in [`crate::snapshot::rest`]. Whether they fit
//! is in [`crate::fit`], what they got in [`crate::cluster`].
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::object::HostPort;
use crate::object::constraints::{Added, Constraints};
use crate::object::limits::{CONDITION_BYTES, Excess, POD_SETS, RESOURCES, TEXT_BYTES, over};
use crate::object::meta::nullable;
use crate::object::others::Others;
use crate::object::quantities::Quantities;
use crate::object::spec::{Effective, Requirements, dispatcher_triple, whole};
use crate::object::template::{Template, at_path};
use crate::resource::{Amounts, Resource};

/// Identical pods: they are alike in all that decides where they fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodGroup {
    /// How many.
    pub count: u32,
    /// What each needs room for on its node, `pods` apart. Resources without a ladder are among the extended ones.
    pub requests: Amounts,
    /// The ports of its node that each takes.
    pub ports: Box<[HostPort]>,
    /// Their priority.
    pub priority: i64,
    /// Where each may go.
    pub constraints: Arc<Constraints>,
    /// The same once the queue has admitted them. Absent: it added nothing.
    pub admitted: Option<Arc<Constraints>>,
}

/// The pods an AppWrapper asks for, in the order of its spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Groups of identical pods, as the scheduler counts them. Those of v1beta2 are its pod sets, one by one.
    pub groups: Arc<[PodGroup]>,
    /// What the spec asks for: of v1beta1 as MCAD counts it, which is less than the sum of the groups where pods have init
    /// containers or overhead, or jobs have a parallelism.
    pub total: Amounts,
    /// The kinds of objects in it whose pods are not known, each once.
    pub unknown_kinds: Box<[String]>,
    /// Quantities and templates in it that could not be read.
    pub unreadable: u32,
}

impl Demand {
    /// Pods in all.
    pub fn pods(&self) -> u64 {
        self.groups.iter().map(|group| u64::from(group.count)).sum()
    }
}

/// One of `spec.resources.GenericItems` of a v1beta1 AppWrapper.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct GenericItem {
    #[serde(deserialize_with = "nullable")]
    generictemplate: Value,
    #[serde(deserialize_with = "nullable")]
    custompodresources: Vec<CustomPodResources>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CustomPodResources {
    #[serde(deserialize_with = "nullable")]
    replicas: Value,
    #[serde(flatten)]
    resources: Requirements,
}

/// One of `spec.components` of a v1beta2 AppWrapper.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Component {
    #[serde(deserialize_with = "nullable")]
    template: Value,
    #[serde(deserialize_with = "nullable")]
    pod_sets: Vec<PodSet>,
    #[serde(deserialize_with = "nullable")]
    pod_set_infos: Vec<Added>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodSet {
    #[serde(deserialize_with = "nullable")]
    path: String,
    #[serde(deserialize_with = "nullable")]
    replicas: Value,
}

/// The demand of a v1beta1 AppWrapper; or why it is not known.
pub(crate) fn of_generic_items(items: &[GenericItem]) -> Result<Demand, Excess> {
    let mut found = Found::default();
    for item in items {
        found.object()?;
        // MCAD looks at nothing of an item without a template.
        if item.generictemplate.is_null() {
            continue;
        }
        let spec = &item.generictemplate["spec"];
        let pod_spec = if spec["template"].is_object() { &spec["template"]["spec"] } else { spec };
        let template = if pod_spec.is_null() { Some(Template::default()) } else { Template::from_spec(pod_spec) };
        found.unreadable += u32::from(template.is_none());
        let template = template.unwrap_or_default();
        found.constrain(&template.constraints)?;
        // Without a list of containers it is no pod, and there are none of it; with an empty one they ask for nothing.
        //
        // Source: project-codeflare/multi-cluster-app-dispatcher `genericresource.go`, `hasFields`.
        if item.custompodresources.is_empty() {
            if pod_spec["containers"].is_array() {
                found.unreadable += template.work.unreadable();
                let counted_by_mcad = replicas(&spec["replicas"], 1);
                for container in &template.work.containers {
                    within(container.resources.requests.excess.or(container.resources.limits.excess))?;
                    let amounts = dispatcher_amounts(&container.resources);
                    found.request(&amounts, counted_by_mcad)?;
                }
                let is_job = is_of(&item.generictemplate, "batch/v1", "Job");
                let count = if is_job { job_pods(spec) } else { counted_by_mcad };
                found.group(group(count, template.work.effective_of_template(), &template)?)?;
            } else {
                found.note_unknown(&item.generictemplate)?;
            }
        }
        for pods in &item.custompodresources {
            let Requirements { requests, limits } = &pods.resources;
            found.unreadable += requests.unreadable + limits.unreadable;
            within(requests.excess.or(limits.excess))?;
            let count = replicas(&pods.replicas, 0);
            let amounts = dispatcher_amounts(&pods.resources);
            found.request(&amounts, count)?;
            let mut others = requests.clone();
            others.fill_in_zeros(limits);
            let each = Effective { amounts, excess: others.excess, others: Others::from_quantities(&others) };
            found.group(group(count, each, &template)?)?;
        }
    }
    Ok(found.into())
}

/// The demand of a v1beta2 AppWrapper; or why it is not known.
pub(crate) fn of_components(components: &[Component]) -> Result<Demand, Excess> {
    let mut found = Found::default();
    for component in components {
        found.object()?;
        let declared = component.pod_sets.iter().map(|set| (set.path.clone(), replicas(&set.replicas, 1)));
        let sets = if component.pod_sets.is_empty() { inferred(&component.template) } else { declared.collect() };
        if sets.is_empty() {
            found.note_unknown(&component.template)?;
        }
        // Many pod sets may be of one template, which is read once: its length times their number is no work to be done.
        let mut read: HashMap<*const Value, Option<Identical>> = HashMap::new();
        for (at, (path, count)) in sets.into_iter().enumerate() {
            // A path that leads nowhere drops its pods.
            let spec = at_path(&component.template, &path).and_then(|template| template.get("spec"));
            let identical = match spec.filter(|spec| spec.is_object()) {
                None => &None,
                Some(spec) => match read.entry(std::ptr::from_ref(spec)) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => new.insert(found.identical(spec)?),
                },
            };
            let Some(Identical { group, amounts, unreadable }) = identical else {
                found.unreadable += 1;
                continue;
            };
            found.unreadable += unreadable;
            found.request(amounts, count)?;
            let added = component.pod_set_infos.get(at).filter(|added| !added.is_empty());
            let admitted = added.map(|added| Arc::new(group.constraints.with(added)));
            admitted.iter().try_for_each(|admitted| found.constrain(admitted))?;
            found.group(PodGroup { count, admitted, ..group.clone() })?;
        }
    }
    Ok(found.into())
}

/// What all pods of one template have alike.
struct Identical {
    /// Of no pods.
    group: PodGroup,
    /// What each requests of resources that have a ladder.
    amounts: Amounts,
    unreadable: u32,
}

/// What was found in a spec so far.
#[derive(Default)]
struct Found {
    groups: Vec<PodGroup>,
    total: Amounts,
    unknown_kinds: Vec<String>,
    unreadable: u32,
    /// Components or items so far.
    objects: usize,
    condition_bytes: usize,
}

impl Found {
    /// There is one more component or item.
    fn object(&mut self) -> Result<(), Excess> {
        self.objects += 1;
        within(over(self.objects, POD_SETS, Excess::PodSets))
    }

    /// So many pods request so much each.
    fn request(&mut self, each: &Amounts, count: u32) -> Result<(), Excess> {
        self.total.add_times(each, count.into());
        within(over(self.total.extended().len(), RESOURCES, Excess::Resources))
    }

    /// There is one more group.
    fn group(&mut self, group: PodGroup) -> Result<(), Excess> {
        self.groups.push(group);
        within(over(self.groups.len(), POD_SETS, Excess::PodSets))
    }

    /// There are more constraints to be kept.
    fn constrain(&mut self, constraints: &Constraints) -> Result<(), Excess> {
        self.condition_bytes += constraints.text_bytes();
        within(constraints.excess().or(over(self.condition_bytes, CONDITION_BYTES, Excess::Conditions)))
    }

    /// The pods of this spec; absent: it is none.
    fn identical(&mut self, spec: &Value) -> Result<Option<Identical>, Excess> {
        let Some(template) = Template::from_spec(spec) else { return Ok(None) };
        self.constrain(&template.constraints)?;
        let each = template.work.effective_of_template();
        let amounts = each.amounts.clone();
        Ok(Some(Identical { group: group(0, each, &template)?, amounts, unreadable: template.work.unreadable() }))
    }

    /// The pods of this object are not known, if it has any.
    fn note_unknown(&mut self, object: &Value) -> Result<(), Excess> {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let has_none = match version.split_once('/') {
            Some((group, _)) => PODLESS.contains(&group),
            None => version == "v1" && !MAKERS.contains(&kind),
        };
        if !kind.is_empty() && !has_none && !self.unknown_kinds.iter().any(|known| *known == kind) {
            self.unknown_kinds.push(kind.to_owned());
        }
        within(over(kind.len(), TEXT_BYTES, Excess::Text))
    }
}

fn within(excess: Option<Excess>) -> Result<(), Excess> {
    excess.map_or(Ok(()), Err)
}

/// Groups of the API whose objects make no pods.
const PODLESS: [&str; 6] = [
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "route.openshift.io",
    "scheduling.k8s.io",
    "scheduling.sigs.k8s.io",
];
/// Kinds of `v1` that are pods or make some; the others do not.
const MAKERS: [&str; 2] = ["Pod", "ReplicationController"];

impl From<Found> for Demand {
    fn from(found: Found) -> Self {
        let Found { groups, total, unknown_kinds, unreadable, .. } = found;
        Self { groups: groups.into(), total, unknown_kinds: unknown_kinds.into(), unreadable }
    }
}

/// Path and replicas of the pods of the kinds that the AppWrapper controller knows; none for others.
///
/// Source: project-codeflare/appwrapper `pkg/utils/utils.go`, `InferPodSets`.
fn inferred(template: &Value) -> Vec<(String, u32)> {
    let text = |field: &str| template[field].as_str().unwrap_or_default();
    let spec = &template["spec"];
    let known = match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => vec![("template".to_owned(), 1)],
        ("apps/v1", "Deployment" | "StatefulSet") => {
            vec![("template.spec.template".to_owned(), replicas(&spec["replicas"], 1))]
        }
        ("batch/v1", "Job") => vec![("template.spec.template".to_owned(), job_pods(spec))],
        ("jobset.x-k8s.io/v1alpha2", "JobSet") => each(&spec["replicatedJobs"])
            .map(|(at, job)| {
                let pods = job_pods(&job["template"]["spec"]).saturating_mul(replicas(&job["replicas"], 1));
                (format!("template.spec.replicatedJobs[{at}].template.spec.template"), pods)
            })
            .collect(),
        ("kubeflow.org/v1", "PyTorchJob") => ["Master", "Worker"]
            .into_iter()
            .map(|role| {
                let pods = replicas(&spec["pytorchReplicaSpecs"][role]["replicas"], 1);
                (format!("template.spec.pytorchReplicaSpecs.{role}.template"), pods)
            })
            .collect(),
        ("ray.io/v1", "RayCluster") => ray(spec, "template.spec"),
        ("ray.io/v1", "RayJob") => ray(&spec["rayClusterSpec"], "template.spec.rayClusterSpec"),
        _ => Vec::new(),
    };
    // Roles that are not there are no error.
    known.into_iter().filter(|(path, _)| at_path(template, path).is_some()).collect()
}

fn ray(cluster: &Value, prefix: &str) -> Vec<(String, u32)> {
    let workers = each(&cluster["workerGroupSpecs"])
        .map(|(at, group)| (format!("{prefix}.workerGroupSpecs[{at}].template"), replicas(&group["replicas"], 1)));
    std::iter::once((format!("{prefix}.headGroupSpec.template"), 1)).chain(workers).collect()
}

fn job_pods(spec: &Value) -> u32 {
    let parallelism = replicas(&spec["parallelism"], 1);
    replicas(&spec["completions"], parallelism).min(parallelism)
}

fn each(list: &Value) -> impl Iterator<Item = (usize, &Value)> {
    list.as_array().into_iter().flatten().enumerate()
}

/// A count of pods; `absent` where there is none or it is no integer, 0 where it is negative.
fn replicas(value: &Value, absent: u32) -> u32 {
    // JSON may spell a whole number as 4.0.
    let whole = || value.as_f64().filter(|count| count.fract() == 0.0).map(|count| count as i64);
    value.as_i64().or_else(whole).map_or(absent, |count| count.clamp(0, i32::MAX.into()) as u32)
}

fn is_of(object: &Value, api_version: &str, kind: &str) -> bool {
    object["apiVersion"] == api_version && object["kind"] == kind
}

fn group(count: u32, each: Effective, template: &Template) -> Result<PodGroup, Excess> {
    let Effective { amounts: mut requests, others, excess } = each;
    for (name, amount) in others.iter() {
        requests.add(&Resource::Extended(name.clone()), amount);
    }
    let work = &template.work;
    let constraints = template.constraints.clone();
    let (ports, too_many_ports) = work.host_ports();
    within(excess.or(too_many_ports))?;
    Ok(PodGroup { count, requests, ports, priority: work.priority(), constraints, admitted: None })
}

/// What MCAD v1 takes one container, or one of `custompodresources`, for: in each dimension its request, or its limit
/// where the request is 0 or absent. Resources that MCAD does not know are treated alike.
fn dispatcher_amounts(resources: &Requirements) -> Amounts {
    let requests = dispatcher_triple(&resources.requests);
    let limits = dispatcher_triple(&resources.limits);
    let chosen = requests.zip(limits, |request, limit| if request == 0 { limit } else { request });
    let mut amounts = Amounts::from(chosen);
    let mut names: Vec<&Resource> = extended(&resources.requests).chain(extended(&resources.limits)).collect();
    names.sort();
    names.dedup();
    for resource in names {
        let request = resources.requests.get(resource).filter(|quantity| !quantity.is_zero());
        let quantity = request.or_else(|| resources.limits.get(resource)).unwrap_or_default();
        amounts.add(resource, whole(resource, quantity));
    }
    amounts
}

fn extended(list: &Quantities) -> impl Iterator<Item = &Resource> {
    list.iter().map(|(resource, _)| resource).filter(|resource| matches!(resource, Resource::Extended(_)))
}
