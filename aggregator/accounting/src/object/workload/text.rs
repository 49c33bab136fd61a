//! How the API spells a Workload.
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{Admission, Assignment, Flag, Flags, OpenWorkload, Owner, PodSet, Requested, Shape, Words, Workload};
use crate::object::limits::{CONDITION_BYTES, Excess, OWNERS, POD_SETS, RESOURCES, over};
use crate::object::meta::{Meta, RawCondition, instant_ms, nullable, rank};
use crate::object::needed::Needed::{self, Fields, Whole};
use crate::object::quantities::Quantities;
use crate::object::queues::{QueueName, too_long};
use crate::object::spec::named_amounts;
use crate::object::template::Template;
use crate::object::{Uid, WORKLOAD_GROUP};
use crate::resource::Resource;

/// The annotation by which other controllers keep a Workload from being admitted.
const GATED_BY: &str = "kueue.x-k8s.io/admission-gated-by";
/// Characters of Kueue's words that are kept.
const WORDS: usize = 256;

/// The fields of [`RawWorkload`] and its parts.
pub(crate) const NEEDED: Needed = Fields(&[
    ("apiVersion", Whole),
    (
        "metadata",
        Fields(&[
            ("name", Whole),
            ("namespace", Whole),
            ("uid", Whole),
            ("resourceVersion", Whole),
            ("creationTimestamp", Whole),
            ("annotations", Fields(&[(GATED_BY, Whole)])),
            ("ownerReferences", Fields(&[("apiVersion", Whole), ("kind", Whole), ("name", Whole), ("uid", Whole)])),
        ]),
    ),
    (
        "spec",
        Fields(&[
            ("active", Whole),
            ("queueName", Whole),
            ("priority", Whole),
            (
                "podSets",
                Fields(&[
                    ("name", Whole),
                    ("count", Whole),
                    ("topologyRequest", Whole),
                    ("template", Fields(&[("spec", POD_SPEC)])),
                ]),
            ),
        ]),
    ),
    (
        "status",
        Fields(&[
            ("conditions", Whole),
            (
                "admission",
                Fields(&[
                    ("clusterQueue", Whole),
                    (
                        "podSetAssignments",
                        Fields(&[("name", Whole), ("flavors", Whole), ("resourceUsage", Whole), ("count", Whole)]),
                    ),
                ]),
            ),
            ("reclaimablePods", Whole),
            ("resourceRequests", Whole),
            ("admissionChecks", Fields(&[("state", Whole)])),
            ("requeueState", Whole),
        ]),
    ),
]);
const POD_SPEC: Needed = Fields(&[
    ("containers", CONTAINER),
    ("initContainers", CONTAINER),
    ("overhead", Whole),
    ("resources", Whole),
    ("nodeSelector", Whole),
    ("affinity", Fields(&[("nodeAffinity", Whole)])),
    ("tolerations", Whole),
]);
const CONTAINER: Needed = Fields(&[("resources", Whole), ("restartPolicy", Whole)]);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawWorkload {
    #[serde(default, deserialize_with = "nullable")]
    api_version: String,
    metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawSpec,
    #[serde(default, deserialize_with = "nullable")]
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawSpec {
    active: Option<bool>,
    #[serde(deserialize_with = "nullable")]
    queue_name: String,
    #[serde(deserialize_with = "nullable")]
    priority: i64,
    #[serde(deserialize_with = "nullable")]
    pod_sets: Vec<RawPodSet>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawPodSet {
    #[serde(deserialize_with = "nullable")]
    name: String,
    /// Kueue's default.
    count: Option<i64>,
    #[serde(deserialize_with = "nullable")]
    topology_request: RawTopology,
    #[serde(deserialize_with = "nullable")]
    template: RawTemplate,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawTopology {
    #[serde(deserialize_with = "nullable")]
    pod_set_group_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawTemplate {
    #[serde(deserialize_with = "nullable")]
    spec: Value,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawStatus {
    #[serde(deserialize_with = "nullable")]
    conditions: Vec<RawCondition>,
    admission: Option<RawAdmission>,
    #[serde(deserialize_with = "nullable")]
    reclaimable_pods: Vec<RawReclaimable>,
    #[serde(deserialize_with = "nullable")]
    resource_requests: Vec<RawRequest>,
    #[serde(deserialize_with = "nullable")]
    admission_checks: Vec<RawCheck>,
    #[serde(deserialize_with = "nullable")]
    requeue_state: RawRequeueState,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawAdmission {
    #[serde(deserialize_with = "nullable")]
    cluster_queue: String,
    #[serde(deserialize_with = "nullable")]
    pod_set_assignments: Vec<RawAssignment>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawAssignment {
    #[serde(deserialize_with = "nullable")]
    name: String,
    #[serde(deserialize_with = "nullable")]
    flavors: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    resource_usage: Quantities,
    count: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawReclaimable {
    #[serde(deserialize_with = "nullable")]
    name: String,
    #[serde(deserialize_with = "nullable")]
    count: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawRequest {
    #[serde(deserialize_with = "nullable")]
    name: String,
    #[serde(deserialize_with = "nullable")]
    resources: Quantities,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCheck {
    #[serde(deserialize_with = "nullable")]
    state: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawRequeueState {
    #[serde(deserialize_with = "nullable")]
    requeue_at: String,
}

impl From<RawWorkload> for Workload {
    fn from(raw: RawWorkload) -> Self {
        let RawWorkload { api_version, metadata, spec, status } = raw;
        let is_finished = status.conditions.iter().any(|one| one.kind == "Finished" && one.status == "True");
        let name = QueueName { namespace: metadata.namespace.as_str().into(), name: metadata.name.as_str().into() };
        let uid = Uid::from(metadata.uid.clone());
        let long = too_long(&[&metadata.namespace, &metadata.name, &spec.queue_name]);
        let (open, excess) = match long {
            None if is_finished => (None, None),
            None => match open(&metadata, &spec, &status) {
                Ok(open) => (Some(Box::new(open)), None),
                Err(excess) => (None, Some(excess)),
            },
            excess => (None, excess),
        };
        Self { name, uid, rank: rank(&api_version), open, excess }
    }
}

fn open(metadata: &Meta, spec: &RawSpec, status: &RawStatus) -> Result<OpenWorkload, Excess> {
    let many = |count: usize| over(count, POD_SETS, Excess::PodSets);
    let admission = status.admission.as_ref();
    let excess = many(spec.pod_sets.len())
        .or(many(status.reclaimable_pods.len()))
        .or(many(status.resource_requests.len()))
        .or(many(admission.map_or(0, |admission| admission.pod_set_assignments.len())))
        .or(over(metadata.owner_references.len(), OWNERS, Excess::PodSets));
    excess.map_or(Ok(()), Err)?;
    let flags = flags(metadata, spec, status);
    let created_ms = instant_ms(&metadata.creation_timestamp);
    let evicted = condition(status, "Evicted", "True");
    let evicted = evicted.filter(|one| matches!(&*one.reason, "PodsReadyTimeout" | "AdmissionCheck"));
    let refused = condition(status, "QuotaReserved", "False");
    let mut unreadable = 0;
    let pod_sets = pod_sets(&spec.pod_sets, &status.reclaimable_pods, &mut unreadable)?;
    let owners = metadata.owner_references.iter().map(|owner| {
        let is_appwrapper = owner.kind == "AppWrapper" && owner.api_version.split('/').next() == Some(WORKLOAD_GROUP);
        Owner { uid: owner.uid.clone().into(), appwrapper: is_appwrapper.then(|| owner.name.as_str().into()) }
    });
    Ok(OpenWorkload {
        owners: owners.collect(),
        queue: spec.queue_name.as_str().into(),
        priority: spec.priority,
        created_ms,
        in_line_ms: evicted.and_then(|one| instant_ms(&one.last_transition_time)).or(created_ms),
        requeue_at_ms: instant_ms(&status.requeue_state.requeue_at),
        requested: requested(&pod_sets, &status.resource_requests, &mut unreadable)?,
        admission: status
            .admission
            .as_ref()
            .map(|admission| assigned(admission, &spec.pod_sets, &pod_sets, &mut unreadable))
            .transpose()?
            .map(Box::new),
        flags,
        words: refused.map(|one| Box::new(Words { reason: words(&one.reason), message: words(&one.message) })),
        pod_sets,
        unreadable,
    })
}

fn condition<'a>(status: &'a RawStatus, kind: &str, value: &str) -> Option<&'a RawCondition> {
    status.conditions.iter().find(|one| one.kind == kind && one.status == value)
}

fn words(text: &str) -> Box<str> {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS).collect::<String>().into()
}

fn flags(metadata: &Meta, spec: &RawSpec, status: &RawStatus) -> Flags {
    let is = |kind, value| condition(status, kind, value).is_some();
    let refused = condition(status, "QuotaReserved", "False");
    let (reason, message) = refused.map_or(("", ""), |one| (&*one.reason, &*one.message));
    let begins = |start: &str| {
        let length = start.len();
        message.get(..length).is_some_and(|begin| begin.eq_ignore_ascii_case(start))
    };
    let namespace_refused = begins("workload namespace doesn't match ClusterQueue selector");
    let refusal = ["resources validation failed", "resources didn't satisfy LimitRange constraints"];
    let admitted = status.conditions.iter().find(|one| one.kind == "Admitted");
    let checks = || status.admission_checks.iter().map(|check| &*check.state);
    let mut flags = Flags::default();
    for (flag, holds) in [
        (Flag::Active, spec.active != Some(false)),
        (Flag::QuotaReserved, is("QuotaReserved", "True")),
        (Flag::Admitted, is("Admitted", "True")),
        (Flag::Evicted, is("Evicted", "True")),
        (Flag::NotRequeued, is("Requeued", "False")),
        (
            Flag::Gated,
            metadata.annotations.get(GATED_BY).is_some_and(|gates| !gates.is_empty())
                || matches!(reason, "AdmissionGated" | "OnHold")
                || is("BlockedOnPreemptionGates", "True"),
        ),
        (Flag::Misconfigured, reason == "Misconfigured" || namespace_refused || refusal.into_iter().any(begins)),
        (Flag::NamespaceRefused, namespace_refused),
        (
            Flag::Preempting,
            reason == "WaitingForPreemptedWorkloads"
                || message.contains("Pending the preemption of")
                || message.contains("Pending the migration of"),
        ),
        (Flag::TopologyFailed, reason == "TopologyPlacementFailed" || message.contains("topology \"")),
        (Flag::PodsReadyOfOthers, matches!(reason, "WaitingForPodsReady" | "Waiting")),
        (Flag::TopologyPending, admitted.is_some_and(|one| one.reason == "PendingDelayedTopologyRequests")),
        (Flag::CheckNotReady, checks().any(|state| state != "Ready")),
        (Flag::CheckRefused, checks().any(|state| matches!(state, "Retry" | "Rejected"))),
    ] {
        flags.set(flag, holds);
    }
    flags
}

/// How many pods a set has, all of them.
fn count(set: &RawPodSet) -> u32 {
    bounded(set.count.unwrap_or(1))
}

fn bounded(count: i64) -> u32 {
    count.clamp(0, i32::MAX.into()) as u32
}

fn pod_sets(raw: &[RawPodSet], reclaimable: &[RawReclaimable], unreadable: &mut u32) -> Result<Box<[PodSet]>, Excess> {
    let reclaimable: BTreeMap<&str, u32> = reclaimable.iter().map(|one| (&*one.name, bounded(one.count))).collect();
    let mut bytes = 0;
    let set = |set: &RawPodSet| {
        let template = match &set.template.spec {
            Value::Null => Template::default(),
            spec => Template::from_spec(spec).unwrap_or_else(|| {
                *unreadable += 1;
                Template::default()
            }),
        };
        *unreadable += template.work.unreadable();
        let (requests, excess) = template.work.named_requests();
        bytes += template.constraints.text_bytes();
        let excess = excess
            .or(template.constraints.excess())
            .or(over(bytes, CONDITION_BYTES, Excess::Conditions))
            .or(too_long(&[&set.name, &set.topology_request.pod_set_group_name]));
        excess.map_or(Ok(()), Err)?;
        let group = &set.topology_request.pod_set_group_name;
        Ok(PodSet {
            name: set.name.as_str().into(),
            count: count(set).saturating_sub(reclaimable.get(&*set.name).copied().unwrap_or(0)),
            group: (!group.is_empty()).then(|| group.as_str().into()),
            shape: Arc::new(Shape {
                requests: requests.into(),
                constraints: Arc::unwrap_or_clone(template.constraints),
            }),
        })
    };
    raw.iter().map(set).collect()
}

/// What Kueue says that the pod sets request, if it says so of just these.
fn requested(
    pod_sets: &[PodSet],
    raw: &[RawRequest],
    unreadable: &mut u32,
) -> Result<Option<Box<[Requested]>>, Excess> {
    let by_name: BTreeMap<&str, &Quantities> = raw.iter().map(|one| (&*one.name, &one.resources)).collect();
    *unreadable += raw.iter().map(|one| one.resources.unreadable).sum::<u32>();
    if let Some(excess) = raw.iter().find_map(|one| one.resources.excess) {
        return Err(excess);
    }
    if raw.is_empty() || raw.len() != pod_sets.len() || by_name.len() != raw.len() {
        return Ok(None);
    }
    let of = |set: &PodSet| Some(Requested::from(named_amounts(by_name.get(&*set.name)?)));
    Ok(pod_sets.iter().map(of).collect())
}

fn assigned(
    raw: &RawAdmission,
    raw_sets: &[RawPodSet],
    sets: &[PodSet],
    unreadable: &mut u32,
) -> Result<Admission, Excess> {
    let counts: BTreeMap<&str, (u32, u32)> =
        raw_sets.iter().zip(sets).map(|(raw, set)| (&*raw.name, (count(raw), set.count))).collect();
    let one = |raw: &RawAssignment| {
        *unreadable += raw.resource_usage.unreadable;
        let too_many = over(raw.flavors.len(), RESOURCES, Excess::Resources);
        let texts: Vec<&str> = raw.flavors.iter().flat_map(|(name, flavor)| [&**name, &**flavor]).collect();
        let excess = raw.resource_usage.excess.or(too_many).or(too_long(&texts)).or(too_long(&[&raw.name]));
        excess.map_or(Ok(()), Err)?;
        let usage: BTreeMap<Resource, i128> = named_amounts(&raw.resource_usage).into_iter().collect();
        // As in Kueue, a pod set that the spec lacks has no pods.
        let (all, left) = counts.get(&*raw.name).copied().unwrap_or_default();
        let scaled = |amount: i128| {
            let counted = raw.count.map_or(all, bounded);
            if left < counted { amount / i128::from(counted) * i128::from(left) } else { amount }
        };
        let entry = |(name, flavor): (&String, &String)| {
            let resource = Resource::any(name);
            let amount = scaled(usage.get(&resource).copied().unwrap_or(0));
            (resource, Arc::from(flavor.as_str()), amount)
        };
        Ok(Assignment { pod_set: raw.name.as_str().into(), usage: raw.flavors.iter().map(entry).collect() })
    };
    let excess = too_long(&[&raw.cluster_queue]);
    excess.map_or(Ok(()), Err)?;
    let assignments = raw.pod_set_assignments.iter().map(one).collect::<Result<_, _>>()?;
    Ok(Admission { cluster_queue: raw.cluster_queue.as_str().into(), assignments })
}
