//! What an AppWrapper requests: its pods, by the rules of its version (docs/accounting.md §2).
//!
//! Owns how a spec becomes groups of identical pods. Which of the pods still have to be placed is in [`crate::snapshot::rest`]. Whether
//! they fit is in [`crate::fit`]; what they hold is in [`crate::cluster`].
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::object::constraints::{Added, Constraints};
use crate::object::limits::{CONDITION_BYTES, Excess, POD_CLAIMS, POD_SETS, RESOURCES, TEXT_BYTES, over};
use crate::object::meta::nullable;
use crate::object::others::Others;
use crate::object::pod_claims::{ClaimRef, RawPodClaim};
use crate::object::quantities::Quantities;
use crate::object::request::{Requests, of_spec};
use crate::object::spec::{Effective, Requirements, dispatcher_triple, whole};
use crate::object::template::{Template, at_path};
use crate::object::{DEVICE_GROUP, HostPort};
use crate::resource::{Amounts, Resource};

/// Identical pods: they are equal in everything that decides where they fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodGroup {
    /// How many pods.
    pub count: u32,
    /// The amounts that each pod needs on its node, without the resource `pods`. Resources without a ladder are among the extended ones.
    pub requests: Amounts,
    /// The host ports that each pod takes on its node.
    pub ports: Box<[HostPort]>,
    /// The priority of the pods.
    pub priority: i64,
    /// Where each pod may run.
    pub constraints: Arc<Constraints>,
    /// The constraints after the queue has admitted the pods. `None` if the queue added nothing.
    pub admitted: Option<Arc<Constraints>>,
    /// The device claims that each pod uses, in the order of the template.
    pub claims: Box<[ClaimRef]>,
}

/// The pods that an AppWrapper requests, in the order of its spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Groups of identical pods, as the scheduler counts them. For v1beta2, each group is one pod set.
    pub groups: Arc<[PodGroup]>,
    /// The amounts that the spec requests. For v1beta1, as MCAD counts them: this is less than the sum of the groups if pods have init
    /// containers or overhead, or if jobs have a parallelism.
    pub total: Amounts,
    /// The kinds of objects in it whose pods are unknown, each once.
    pub unknown_kinds: Box<[String]>,
    /// The number of quantities and templates in it that could not be read.
    pub unreadable: u32,
    /// Claims and claim templates that the AppWrapper itself contains, sorted by name.
    pub own_claims: Box<[(ClaimRef, Arc<Requests>)]>,
}

impl Demand {
    /// The claim, or claim template, of that name that the AppWrapper itself contains.
    pub fn own_claim(&self, name: &ClaimRef) -> Option<&Arc<Requests>> {
        let at = self.own_claims.binary_search_by(|(known, _)| known.cmp(name)).ok()?;
        Some(&self.own_claims[at].1)
    }

    /// The number of pods.
    pub fn pods(&self) -> u64 {
        pods(&self.groups)
    }
}

/// The number of pods of these groups.
pub fn pods(groups: &[PodGroup]) -> u64 {
    groups.iter().map(|group| u64::from(group.count)).sum()
}

/// Whether some of these pods use device claims.
pub fn uses_claims(groups: &[PodGroup]) -> bool {
    groups.iter().any(|group| !group.claims.is_empty())
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

impl Component {
    /// The path in its template, and the number, of the pods of each pod set: as declared, else inferred.
    pub(crate) fn sets(&self) -> Vec<(String, u32)> {
        let declared = self.pod_sets.iter().map(|set| (set.path.clone(), replicas(&set.replicas, 1)));
        if self.pod_sets.is_empty() { inferred(&self.template) } else { declared.collect() }
    }

    /// The object that it creates.
    pub(crate) fn template(&self) -> &Value {
        &self.template
    }
}

/// The demand of a v1beta1 AppWrapper, or which bound it exceeds.
pub(crate) fn of_generic_items(items: &[GenericItem]) -> Result<Demand, Excess> {
    let mut found = Found::default();
    for item in items {
        found.object()?;
        found.note_claim(&item.generictemplate)?;
        // MCAD ignores an item without a template.
        if item.generictemplate.is_null() {
            continue;
        }
        let spec = &item.generictemplate["spec"];
        let pod_spec = if spec["template"].is_object() { &spec["template"]["spec"] } else { spec };
        let template = if pod_spec.is_null() { Some(Template::default()) } else { Template::from_spec(pod_spec) };
        found.unreadable += u32::from(template.is_none());
        let template = template.unwrap_or_default();
        found.constrain(&template.constraints)?;
        // Without a list of containers it is not a pod, and has no pods; with an empty list its pods request nothing.
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

/// The demand of a v1beta2 AppWrapper, or which bound it exceeds.
pub(crate) fn of_components(components: &[Component]) -> Result<Demand, Excess> {
    let mut found = Found::default();
    for component in components {
        found.object()?;
        found.note_claim(&component.template)?;
        let sets = component.sets();
        if sets.is_empty() {
            found.note_unknown(&component.template)?;
        }
        // Many pod sets may have one template. It is read once, so that the work does not grow with its length times their number.
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

/// What all pods of one template have in common.
struct Identical {
    /// A group with a count of 0.
    group: PodGroup,
    /// What each pod requests of resources that have a ladder.
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
    /// The number of components or items so far.
    objects: usize,
    condition_bytes: usize,
    own_claims: BTreeMap<ClaimRef, Arc<Requests>>,
}

impl Found {
    /// Counts one more component or item.
    fn object(&mut self) -> Result<(), Excess> {
        self.objects += 1;
        within(over(self.objects, POD_SETS, Excess::PodSets))
    }

    /// Adds the requests of `count` pods.
    fn request(&mut self, each: &Amounts, count: u32) -> Result<(), Excess> {
        self.total.add_times(each, count.into());
        within(over(self.total.extended().len(), RESOURCES, Excess::Resources))
    }

    /// Adds one more group.
    fn group(&mut self, group: PodGroup) -> Result<(), Excess> {
        self.groups.push(group);
        within(over(self.groups.len(), POD_SETS, Excess::PodSets))
    }

    /// Counts more constraints that have to be kept.
    fn constrain(&mut self, constraints: &Constraints) -> Result<(), Excess> {
        self.condition_bytes += constraints.text_bytes();
        within(constraints.excess().or(over(self.condition_bytes, CONDITION_BYTES, Excess::Conditions)))
    }

    /// The pods of this spec; `None` if it is not a pod spec.
    fn identical(&mut self, spec: &Value) -> Result<Option<Identical>, Excess> {
        let Some(template) = Template::from_spec(spec) else { return Ok(None) };
        self.constrain(&template.constraints)?;
        let each = template.work.effective_of_template();
        let amounts = each.amounts.clone();
        Ok(Some(Identical { group: group(0, each, &template)?, amounts, unreadable: template.work.unreadable() }))
    }

    /// Notes the object if it is a claim or a claim template.
    fn note_claim(&mut self, object: &Value) -> Result<(), Excess> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if !text(&object["apiVersion"]).starts_with(DEVICE_GROUP) {
            return Ok(());
        }
        let name: Arc<str> = text(&object["metadata"]["name"]).into();
        let (name, spec) = match object["kind"].as_str() {
            Some("ResourceClaimTemplate") => (ClaimRef::Template(name), &object["spec"]["spec"]),
            Some("ResourceClaim") => (ClaimRef::Claim(name), &object["spec"]),
            _ => return Ok(()),
        };
        let Some((requests, excess)) = of_spec(spec) else {
            self.unreadable += 1;
            return Ok(());
        };
        within(excess)?;
        self.unreadable += requests.unreadable();
        self.own_claims.insert(name, requests);
        Ok(())
    }

    /// Notes the object's kind if the object may have pods, which are then unknown.
    fn note_unknown(&mut self, object: &Value) -> Result<(), Excess> {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        if !kind.is_empty() && !has_no_pods(version, kind) && !self.unknown_kinds.iter().any(|known| *known == kind) {
            self.unknown_kinds.push(kind.to_owned());
        }
        within(over(kind.len(), TEXT_BYTES, Excess::Text))
    }
}

/// Whether objects of this kind certainly create no pods.
pub(crate) fn has_no_pods(api_version: &str, kind: &str) -> bool {
    match api_version.split_once('/') {
        Some((group, _)) => PODLESS.contains(&group),
        None => api_version == "v1" && !MAKERS.contains(&kind),
    }
}

fn within(excess: Option<Excess>) -> Result<(), Excess> {
    excess.map_or(Ok(()), Err)
}

/// API groups whose objects create no pods.
const PODLESS: [&str; 7] = [
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    DEVICE_GROUP,
    "route.openshift.io",
    "scheduling.k8s.io",
    "scheduling.sigs.k8s.io",
];
/// Kinds of `v1` that are pods or create pods; the others do not.
const MAKERS: [&str; 2] = ["Pod", "ReplicationController"];

impl From<Found> for Demand {
    fn from(found: Found) -> Self {
        let Found { groups, total, unknown_kinds, unreadable, own_claims, .. } = found;
        let own_claims = own_claims.into_iter().collect();
        Self { groups: groups.into(), total, unknown_kinds: unknown_kinds.into(), unreadable, own_claims }
    }
}

/// Path and replicas of the pods, for the kinds that the AppWrapper controller knows; empty for others.
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
    // A role that is absent is not an error.
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

/// A count of pods: `absent` if there is none or if it is not an integer, 0 if it is negative.
pub(crate) fn replicas(value: &Value, absent: u32) -> u32 {
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
    let too_many_claims = over(work.resource_claims.len(), POD_CLAIMS, Excess::Devices);
    within(excess.or(too_many_ports).or(too_many_claims))?;
    let claims = work.resource_claims.iter().filter_map(RawPodClaim::of_template).collect();
    Ok(PodGroup { count, requests, ports, priority: work.priority(), constraints, admitted: None, claims })
}

/// What MCAD v1 counts for one container, or for one of `custompodresources`: in each dimension the request, or the limit if the request is
/// 0 or absent. Resources that MCAD does not know are counted by the same rule.
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
