//! A Node, decoded: what it declares, and what keeps pods off it.
use std::sync::Arc;

use serde::Deserialize;

use super::limits::{Excess, LABELS, TAINTS, over};
use super::meta::{Meta, nullable};
use super::needed::Needed::{self, Fields, Whole};
use super::quantities::Quantities;
use super::spec::{dispatcher_triple, exact_triple, whole};
use crate::object::others::Others;
use crate::resource::{Resource, Triple};

/// How many GPUs an administrator says a node has.
const EXPECTED_GPUS: &str = "mcad-metrics/expected-gpus";

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Its UID; empty where a dump has none.
    pub uid: Arc<str>,
    /// Its labels, in order of key.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// Its taints.
    pub taints: Box<[Taint]>,
    /// Whether the scheduler may use it.
    pub cordoned: bool,
    /// Whether kubelet says that it is ready.
    pub ready: bool,
    /// `status.capacity`, in order of resource.
    pub capacity: Declared,
    /// `status.allocatable`; where a Node has none, its capacity.
    pub allocatable: Declared,
    /// The same of resources without a ladder: `pods`, `ephemeral-storage`, hugepages, volumes.
    pub other_allocatable: Others,
    /// Allocatable as MCAD v1 reads it.
    pub dispatcher_v1: Triple,
    /// Allocatable as MCAD v2 reads it.
    pub dispatcher_v2: Triple,
    /// The annotation `mcad-metrics/expected-gpus`.
    pub expected_gpus: Option<u32>,
    /// Quantities that could not be read.
    pub unreadable: u32,
    /// Why a part of it is left out; absent: all of it is there.
    pub excess: Option<Excess>,
}

impl Node {
    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.binary_search_by(|(known, _)| (**known).cmp(key)).ok().map(|at| &*self.labels[at].1)
    }
}

/// Amounts by resource that a Node declares, in order of resource. One that it does not declare is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared(Box<[(Resource, i128)]>);

impl Declared {
    /// How much of a resource; absent: not declared.
    pub fn get(&self, resource: &Resource) -> Option<i128> {
        self.0.binary_search_by(|(known, _)| known.cmp(resource)).ok().map(|at| self.0[at].1)
    }

    /// How much of the resource that Kubernetes names so.
    pub(crate) fn named(&self, name: &str) -> Option<i128> {
        self.0.iter().find(|(known, _)| known.name() == name).map(|(_, amount)| *amount)
    }

    /// The declared resources in order.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.0.iter().map(|(resource, _)| resource)
    }

    fn from_quantities(list: &Quantities) -> Self {
        let mut declared: Vec<_> = list.iter().map(|(r, q)| (r.clone(), whole(r, q))).collect();
        declared.sort();
        Self(declared.into())
    }

    pub(crate) fn share_names(&mut self, mut share: impl FnMut(&Arc<str>) -> Arc<str>) {
        for (resource, _) in &mut self.0 {
            if let Resource::Extended(name) = resource {
                *name = share(name);
            }
        }
    }
}

/// A taint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Taint {
    /// What it is about.
    pub key: Arc<str>,
    /// Its value, often empty.
    pub value: Arc<str>,
    /// What it does.
    pub effect: Effect,
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Keeps new pods off.
    NoSchedule,
    /// Keeps new pods off and drives others out.
    NoExecute,
    /// Hints only.
    Other,
}

impl Effect {
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "NoSchedule" => Self::NoSchedule,
            "NoExecute" => Self::NoExecute,
            _ => Self::Other,
        }
    }

    /// It keeps new pods off.
    pub fn repels(self) -> bool {
        matches!(self, Self::NoSchedule | Self::NoExecute)
    }
}

/// The fields of [`RawNode`] and its parts.
pub(crate) const NEEDED: Needed = Fields(&[
    (
        "metadata",
        Fields(&[
            ("name", Whole),
            ("uid", Whole),
            ("resourceVersion", Whole),
            ("labels", Whole),
            ("annotations", Fields(&[(EXPECTED_GPUS, Whole)])),
        ]),
    ),
    ("spec", Fields(&[("unschedulable", Whole), ("taints", Whole)])),
    (
        "status",
        Fields(&[
            ("capacity", Whole),
            ("allocatable", Whole),
            ("conditions", Fields(&[("type", Whole), ("status", Whole)])),
        ]),
    ),
]);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawNode {
    metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawSpec,
    #[serde(default, deserialize_with = "nullable")]
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawSpec {
    #[serde(deserialize_with = "nullable")]
    unschedulable: bool,
    #[serde(deserialize_with = "nullable")]
    taints: Vec<RawTaint>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawTaint {
    #[serde(deserialize_with = "nullable")]
    key: String,
    #[serde(deserialize_with = "nullable")]
    value: String,
    #[serde(deserialize_with = "nullable")]
    effect: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    capacity: Option<Quantities>,
    allocatable: Option<Quantities>,
    #[serde(deserialize_with = "nullable")]
    conditions: Vec<RawCondition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCondition {
    #[serde(rename = "type", deserialize_with = "nullable")]
    kind: String,
    #[serde(deserialize_with = "nullable")]
    status: String,
}

impl From<RawNode> for Node {
    fn from(raw: RawNode) -> Self {
        let capacity = raw.status.capacity.unwrap_or_default();
        let unreadable = capacity.unreadable + raw.status.allocatable.as_ref().map_or(0, |a| a.unreadable);
        let allocatable = raw.status.allocatable.unwrap_or_else(|| capacity.clone());
        let named = capacity.excess.or(allocatable.excess);
        let labelled = over(raw.metadata.labels.len(), LABELS, Excess::Labels);
        let tainted = over(raw.spec.taints.len(), TAINTS, Excess::Labels);
        let taint = |t: RawTaint| Taint { key: t.key.into(), value: t.value.into(), effect: Effect::named(&t.effect) };
        Self {
            expected_gpus: raw.metadata.annotations.get(EXPECTED_GPUS).and_then(|n| n.trim().parse().ok()),
            name: raw.metadata.name.into(),
            uid: raw.metadata.uid.into(),
            labels: raw
                .metadata
                .labels
                .into_iter()
                .take(LABELS)
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
            taints: raw.spec.taints.into_iter().take(TAINTS).map(taint).collect(),
            cordoned: raw.spec.unschedulable,
            ready: raw.status.conditions.iter().any(|c| c.kind == "Ready" && c.status == "True"),
            capacity: Declared::from_quantities(&capacity),
            dispatcher_v1: dispatcher_triple(&allocatable),
            dispatcher_v2: exact_triple(&allocatable),
            other_allocatable: Others::from_quantities(&allocatable),
            allocatable: Declared::from_quantities(&allocatable),
            unreadable,
            excess: named.or(labelled).or(tainted),
        }
    }
}
