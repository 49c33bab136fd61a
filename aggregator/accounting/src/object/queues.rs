//! A ClusterQueue, a Cohort and a LocalQueue of Kueue, decoded.
//!
//! Versions differ in names only: `spec.cohort` of v1beta1 is `spec.cohortName` of v1beta2, and a Cohort's `spec.parent` of
//! v1alpha1 is `spec.parentName`.
use std::sync::Arc;

use serde::Deserialize;

use super::limits::{Excess, TEXT_BYTES};
use super::meta::{Meta, RawCondition, nullable, rank};
use super::needed::Needed::{self, Fields, Whole};
use super::quotas::{RawGroup, ResourceGroup, groups};
use crate::resource::Resource;

/// The strategy of a ClusterQueue that does not name one.
const DEFAULT_STRATEGY: &str = "BestEffortFIFO";

/// A ClusterQueue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterQueue {
    /// Its name.
    pub name: Arc<str>,
    /// Its UID; empty where a dump has none.
    pub uid: Arc<str>,
    /// How new the version is that this was read from.
    pub rank: u8,
    /// Its cohort; empty if it has none.
    pub cohort: Arc<str>,
    /// `queueingStrategy`
    pub strategy: Arc<str>,
    /// Whether it admits nothing because of its `stopPolicy`.
    pub is_stopped: bool,
    /// The condition `Active`. `None` if there is none.
    pub active: Option<Active>,
    /// Whether a flavor that must borrow is avoided if a later one need not: `whenCanBorrow: TryNextFlavor`.
    pub avoids_borrowing: bool,
    /// Whether past usage decides who is next, instead of priority and age.
    pub shares_fairly: bool,
    /// Its quotas.
    pub groups: Arc<[ResourceGroup]>,
    /// Quantities that could not be read.
    pub unreadable: u32,
    /// Why it is left out. `None` if it is not.
    pub excess: Option<Excess>,
}

impl ClusterQueue {
    /// Whether it has quotas for that resource.
    pub fn covers(&self, resource: &Resource) -> bool {
        self.groups.iter().any(|group| group.covered.contains(resource))
    }
}

/// The condition `Active` of a ClusterQueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Active {
    /// It is True.
    True,
    /// It is not True: an admission check does not exist or is not active.
    CheckMissing,
    /// It is not True for another reason.
    False,
}

/// A Cohort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cohort {
    /// Its name.
    pub name: Arc<str>,
    /// Its UID; empty where a dump has none.
    pub uid: Arc<str>,
    /// How new the version is that this was read from.
    pub rank: u8,
    /// The cohort above it; empty if it is a root.
    pub parent: Arc<str>,
    /// Its own quotas.
    pub groups: Arc<[ResourceGroup]>,
    /// Quantities that could not be read.
    pub unreadable: u32,
    /// Why it is left out. `None` if it is not.
    pub excess: Option<Excess>,
}

/// Namespace and name of a LocalQueue or a Workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// A LocalQueue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalQueue {
    /// Its namespace and name.
    pub name: QueueName,
    /// Its UID; empty where a dump has none.
    pub uid: Arc<str>,
    /// How new the version is that this was read from.
    pub rank: u8,
    /// The ClusterQueue that it leads to.
    pub cluster_queue: Arc<str>,
    /// Whether it admits nothing because of its `stopPolicy`.
    pub is_stopped: bool,
    /// Why it is left out. `None` if it is not.
    pub excess: Option<Excess>,
}

const METADATA: Needed = Fields(&[("name", Whole), ("namespace", Whole), ("uid", Whole), ("resourceVersion", Whole)]);

/// The fields of [`RawClusterQueue`] and its parts.
pub(crate) const CLUSTER_QUEUE_NEEDED: Needed = Fields(&[
    ("apiVersion", Whole),
    ("metadata", METADATA),
    (
        "spec",
        Fields(&[
            ("cohort", Whole),
            ("cohortName", Whole),
            ("queueingStrategy", Whole),
            ("stopPolicy", Whole),
            ("flavorFungibility", Whole),
            ("admissionScope", Whole),
            ("resourceGroups", Whole),
        ]),
    ),
    ("status", Fields(&[("conditions", Fields(&[("type", Whole), ("status", Whole), ("reason", Whole)]))])),
]);

/// The fields of [`RawCohort`] and its parts.
pub(crate) const COHORT_NEEDED: Needed = Fields(&[
    ("apiVersion", Whole),
    ("metadata", METADATA),
    ("spec", Fields(&[("parent", Whole), ("parentName", Whole), ("resourceGroups", Whole)])),
]);

/// The fields of [`RawLocalQueue`] and its parts.
pub(crate) const LOCAL_QUEUE_NEEDED: Needed = Fields(&[
    ("apiVersion", Whole),
    ("metadata", METADATA),
    ("spec", Fields(&[("clusterQueue", Whole), ("stopPolicy", Whole)])),
]);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawClusterQueue {
    #[serde(default, deserialize_with = "nullable")]
    api_version: String,
    metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawClusterQueueSpec,
    #[serde(default, deserialize_with = "nullable")]
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawClusterQueueSpec {
    #[serde(deserialize_with = "nullable")]
    cohort: String,
    #[serde(deserialize_with = "nullable")]
    cohort_name: String,
    #[serde(deserialize_with = "nullable")]
    queueing_strategy: String,
    #[serde(deserialize_with = "nullable")]
    stop_policy: String,
    #[serde(deserialize_with = "nullable")]
    flavor_fungibility: RawFungibility,
    #[serde(deserialize_with = "nullable")]
    admission_scope: RawScope,
    #[serde(deserialize_with = "nullable")]
    resource_groups: Vec<RawGroup>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawFungibility {
    #[serde(deserialize_with = "nullable")]
    when_can_borrow: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawScope {
    #[serde(deserialize_with = "nullable")]
    admission_mode: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    #[serde(deserialize_with = "nullable")]
    conditions: Vec<RawCondition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawCohort {
    #[serde(default, deserialize_with = "nullable")]
    api_version: String,
    metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawCohortSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawCohortSpec {
    #[serde(deserialize_with = "nullable")]
    parent: String,
    #[serde(deserialize_with = "nullable")]
    parent_name: String,
    #[serde(deserialize_with = "nullable")]
    resource_groups: Vec<RawGroup>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawLocalQueue {
    #[serde(default, deserialize_with = "nullable")]
    api_version: String,
    metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawLocalQueueSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawLocalQueueSpec {
    #[serde(deserialize_with = "nullable")]
    cluster_queue: String,
    #[serde(deserialize_with = "nullable")]
    stop_policy: String,
}

fn is_stopped(policy: &str) -> bool {
    !matches!(policy, "" | "None")
}

fn first(a: String, b: String) -> Arc<str> {
    if a.is_empty() { b.into() } else { a.into() }
}

/// The excess, if one of these texts is too long.
pub(super) fn too_long(texts: &[&str]) -> Option<Excess> {
    texts.iter().any(|text| text.len() > TEXT_BYTES).then_some(Excess::Text)
}

impl From<RawClusterQueue> for ClusterQueue {
    fn from(raw: RawClusterQueue) -> Self {
        let RawClusterQueue { api_version, metadata, spec, status } = raw;
        let (groups, unreadable, excess) = groups(spec.resource_groups);
        let active = status.conditions.iter().find(|condition| condition.kind == "Active");
        let strategy = first(spec.queueing_strategy, DEFAULT_STRATEGY.to_owned());
        let cohort = first(spec.cohort_name, spec.cohort);
        Self {
            rank: rank(&api_version),
            excess: excess.or(too_long(&[&metadata.name, &cohort, &strategy])),
            name: metadata.name.into(),
            uid: metadata.uid.into(),
            cohort,
            strategy,
            is_stopped: is_stopped(&spec.stop_policy),
            active: active.map(|active| match (&*active.status, &*active.reason) {
                ("True", _) => Active::True,
                (_, "AdmissionCheckNotFound" | "AdmissionCheckInactive") => Active::CheckMissing,
                _ => Active::False,
            }),
            avoids_borrowing: spec.flavor_fungibility.when_can_borrow == "TryNextFlavor",
            shares_fairly: spec.admission_scope.admission_mode == "UsageBasedAdmissionFairSharing",
            groups,
            unreadable,
        }
    }
}

impl From<RawCohort> for Cohort {
    fn from(raw: RawCohort) -> Self {
        let RawCohort { api_version, metadata, spec } = raw;
        let (groups, unreadable, excess) = groups(spec.resource_groups);
        let parent = first(spec.parent_name, spec.parent);
        Self {
            rank: rank(&api_version),
            excess: excess.or(too_long(&[&metadata.name, &parent])),
            name: metadata.name.into(),
            uid: metadata.uid.into(),
            parent,
            groups,
            unreadable,
        }
    }
}

impl From<RawLocalQueue> for LocalQueue {
    fn from(raw: RawLocalQueue) -> Self {
        let RawLocalQueue { api_version, metadata, spec } = raw;
        Self {
            rank: rank(&api_version),
            excess: too_long(&[&metadata.namespace, &metadata.name, &spec.cluster_queue]),
            name: QueueName { namespace: metadata.namespace.into(), name: metadata.name.into() },
            uid: metadata.uid.into(),
            cluster_queue: spec.cluster_queue.into(),
            is_stopped: is_stopped(&spec.stop_policy),
        }
    }
}
