//! A Node, decoded: what it declares, and what keeps pods off it.
use std::sync::Arc;

use serde::Deserialize;

use super::limits::{Excess, LABELS, TAINTS, over};
use super::meta::{Meta, RawCondition, nullable};
use super::needed::Needed::{self, Fields, Whole};
use super::quantities::Quantities;
use super::spec::{dispatcher_triple, exact_triple, whole};
use crate::object::others::Others;
use crate::resource::{Resource, Triple};

/// The annotation in which an administrator states how many GPUs a node has.
const EXPECTED_GPUS: &str = "mcad-metrics/expected-gpus";

/// The source from which a node is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// The API server: kubelet declares what the node has.
    #[default]
    Kubernetes,
    /// The node's own agent: nothing is declared, so what pods could get there is unknown.
    Agent,
}

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The source from which the node is known.
    pub origin: Origin,
    /// Its name.
    pub name: Arc<str>,
    /// Its UID; empty if it comes from a dump without UIDs.
    pub uid: Arc<str>,
    /// Its labels, sorted by key.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// Its taints.
    pub taints: Box<[Taint]>,
    /// Whether the node is cordoned: the scheduler must not use it.
    pub cordoned: bool,
    /// Whether kubelet reports the node as ready.
    pub ready: bool,
    /// `status.capacity`, sorted by resource.
    pub capacity: Declared,
    /// `status.allocatable`; if a Node has none, its capacity.
    pub allocatable: Declared,
    /// The allocatable amounts of resources without a ladder: `pods`, `ephemeral-storage`, hugepages, volumes.
    pub other_allocatable: Others,
    /// `status.capacity` of resources without a ladder.
    pub other_capacity: Others,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// The allocatable amounts as MCAD v1 reads them.
    pub dispatcher_v1: Triple,
    /// The allocatable amounts as MCAD v2 reads them.
    pub dispatcher_v2: Triple,
    /// The annotation `mcad-metrics/expected-gpus`.
    pub expected_gpus: Option<u32>,
    /// The number of quantities that could not be read.
    pub unreadable: u32,
    /// Which bound it exceeds, so that a part of it is left out; `None` if it exceeds none.
    pub excess: Option<Excess>,
}

impl Node {
    /// A node that is known only from its own agent.
    pub fn of_agent(name: Arc<str>) -> Self {
        Self {
            origin: Origin::Agent,
            name,
            uid: Arc::default(),
            labels: Box::default(),
            taints: Box::default(),
            cordoned: false,
            ready: false,
            capacity: Declared::default(),
            allocatable: Declared::default(),
            other_allocatable: Others::default(),
            other_capacity: Others::default(),
            is_deleting: false,
            dispatcher_v1: Triple::default(),
            dispatcher_v2: Triple::default(),
            expected_gpus: None,
            unreadable: 0,
            excess: None,
        }
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.binary_search_by(|(known, _)| (**known).cmp(key)).ok().map(|at| &*self.labels[at].1)
    }
}

/// Amounts that a Node declares, sorted by resource. Resources that it does not declare are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared(Box<[(Resource, i128)]>);

impl Declared {
    /// The amount of a resource; `None` if it is not declared.
    pub fn get(&self, resource: &Resource) -> Option<i128> {
        self.0.binary_search_by(|(known, _)| known.cmp(resource)).ok().map(|at| self.0[at].1)
    }

    /// The amount of the resource with this Kubernetes name.
    pub(crate) fn named(&self, name: &str) -> Option<i128> {
        self.0.iter().find(|(known, _)| known.name() == name).map(|(_, amount)| *amount)
    }

    /// The declared resources, sorted.
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
    /// The key.
    pub key: Arc<str>,
    /// The value, often empty.
    pub value: Arc<str>,
    /// The effect.
    pub effect: Effect,
}

/// The effect of a taint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Keeps new pods off.
    NoSchedule,
    /// Keeps new pods off and evicts running pods.
    NoExecute,
    /// Any other effect: keeps no pods off.
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

    /// Whether it keeps new pods off.
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
            ("deletionTimestamp", Whole),
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

/// A taint of a node, of a flavor or of a device.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawTaint {
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

impl From<RawTaint> for Taint {
    fn from(raw: RawTaint) -> Self {
        Self { key: raw.key.into(), value: raw.value.into(), effect: Effect::named(&raw.effect) }
    }
}

impl From<RawNode> for Node {
    fn from(raw: RawNode) -> Self {
        let capacity = raw.status.capacity.unwrap_or_default();
        let unreadable = capacity.unreadable + raw.status.allocatable.as_ref().map_or(0, |a| a.unreadable);
        let allocatable = raw.status.allocatable.unwrap_or_else(|| capacity.clone());
        let named = capacity.excess.or(allocatable.excess);
        let labelled = over(raw.metadata.labels.len(), LABELS, Excess::Labels);
        let tainted = over(raw.spec.taints.len(), TAINTS, Excess::Labels);
        Self {
            origin: Origin::Kubernetes,
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
            taints: raw.spec.taints.into_iter().take(TAINTS).map(Taint::from).collect(),
            cordoned: raw.spec.unschedulable,
            ready: raw.status.conditions.iter().any(|c| c.kind == "Ready" && c.status == "True"),
            capacity: Declared::from_quantities(&capacity),
            dispatcher_v1: dispatcher_triple(&allocatable),
            dispatcher_v2: exact_triple(&allocatable),
            other_allocatable: Others::from_quantities(&allocatable),
            other_capacity: Others::from_quantities(&capacity),
            is_deleting: !raw.metadata.deletion_timestamp.is_empty(),
            allocatable: Declared::from_quantities(&allocatable),
            unreadable,
            excess: named.or(labelled).or(tainted),
        }
    }
}
