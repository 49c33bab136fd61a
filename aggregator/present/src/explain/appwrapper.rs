//! One AppWrapper as it is told: what it asks for, what it got, and why it waits, or some of its pods do.
use mcad_accounting::resource::Resource;
use mcad_accounting::snapshot::{AppWrapperView, Part, Waiting};
use serde::Serialize;

use super::ladder::ByResource;
use super::why::{Places, StoppedBy, Why};
use crate::resources::in_unit;

/// One AppWrapper.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AppWrapper {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `v1beta1` or `v1beta2`.
    pub version: &'static str,
    /// `status.state` or `status.phase`; empty before its controller has seen it.
    pub state: String,
    /// Its priority, or priority class. Absent: it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub priority: String,
    /// Its queue. Absent: it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub queue: String,
    /// How many pods it asks for.
    pub pods: u64,
    /// How many pods of it are bound to a node and have not failed. Absent: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_bound: Option<u64>,
    /// What it asks for.
    pub requested: ByResource<i64>,
    /// Quantities and templates in it that could not be read: it asks for more than is shown.
    #[serde(skip_serializing_if = "is_zero")]
    pub unreadable: u32,
    /// Effective requests of its bound, unfinished pods. Absent: Pods are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated: Option<ByResource<i64>>,
    /// What its pods use. Absent: not all of them are measured.
    #[serde(skip_serializing_if = "ByResource::is_empty")]
    pub used: ByResource<f64>,
    /// Absent: it does not wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waits>,
    /// It was started, and some of its pods have no node. Absent: all have, or it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placed_in_part: Option<PlacedInPart>,
}

/// Why pods of an AppWrapper that was started have no node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlacedInPart {
    /// How many lack a node.
    pub pods_unbound: u64,
    /// Whether real nodes have room for all of them. Absent: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fits_nodes: Option<bool>,
    /// How many of them find a place. Absent: not yet tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_placed: Option<u64>,
    /// What is known to stop them.
    pub stopped_by: Vec<StoppedBy>,
    /// The same in a sentence.
    pub why: String,
}

/// Since when and why an AppWrapper waits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Waits {
    /// For how long. Absent: since an unknown time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Whether it fits what MCAD believes to have. Absent: Nodes or Pods are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fits_sum: Option<bool>,
    /// What is missing from that; nothing: it fits, or that is not known.
    #[serde(skip_serializing_if = "ByResource::is_empty")]
    pub shortfall: ByResource<i64>,
    /// Whether it fits real nodes. Absent: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fits_nodes: Option<bool>,
    /// How many pods must be placed at once. Absent: not yet tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_needed: Option<u64>,
    /// How many of them find a place. Absent: not yet tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_placed: Option<u64>,
    /// What is known to stop it.
    pub stopped_by: Vec<StoppedBy>,
    /// The same in a sentence.
    pub why: String,
}

impl AppWrapper {
    /// As a snapshot shows it.
    pub fn new(view: &AppWrapperView, places: &mut Places<'_>) -> Self {
        let appwrapper = &view.appwrapper;
        let usage = view.used.unwrap_or_default();
        let used =
            [(Resource::Cpu, usage.nanocores), (Resource::Memory, usage.bytes), (Resource::Gpu, usage.nanodevices)];
        let used = used.into_iter().filter_map(|(resource, used)| {
            let used = in_unit(&resource, used?);
            Some((resource, used))
        });
        Self {
            namespace: (*appwrapper.name.namespace).to_owned(),
            name: (*appwrapper.name.name).to_owned(),
            version: appwrapper.version.label(),
            state: (*appwrapper.state).to_owned(),
            priority: (*appwrapper.priority).to_owned(),
            queue: (*appwrapper.queue).to_owned(),
            pods: view.pods.wanted,
            pods_bound: view.pods.bound,
            requested: ByResource::from(&appwrapper.demand.total),
            unreadable: appwrapper.demand.unreadable,
            allocated: view.allocated.as_ref().map(ByResource::from),
            used: used.collect(),
            waiting: view.waiting.as_ref().map(|waiting| Waits::new(view, waiting, places)),
            placed_in_part: PlacedInPart::new(view, places),
        }
    }
}

impl Waits {
    fn new(view: &AppWrapperView, waiting: &Waiting, places: &mut Places<'_>) -> Self {
        let Why { sentence, stopped_by } = places.why(view, waiting);
        let missing = waiting.shortfall.map(ByResource::<i64>::from).unwrap_or_default();
        let verdict = view.unplaced.as_ref().and_then(|unplaced| unplaced.verdict.as_ref());
        Self {
            seconds: waiting.seconds,
            fits_sum: waiting.fits_aggregate(),
            shortfall: missing.iter().filter(|(_, amount)| **amount > 0).map(|(r, amount)| (r, *amount)).collect(),
            fits_nodes: verdict.and_then(mcad_accounting::snapshot::verdict::Verdict::fits),
            pods_needed: verdict.map(|verdict| verdict.needed),
            pods_placed: verdict.map(|verdict| verdict.placed.min(verdict.needed)),
            stopped_by,
            why: sentence,
        }
    }
}

impl PlacedInPart {
    fn new(view: &AppWrapperView, places: &mut Places<'_>) -> Option<Self> {
        let unplaced = view.unplaced.as_ref().filter(|unplaced| unplaced.part == Part::Rest)?;
        let Why { sentence, stopped_by } = places.why_in_part(view);
        let verdict = unplaced.verdict.as_ref();
        Some(Self {
            pods_unbound: unplaced.needed,
            fits_nodes: verdict.and_then(mcad_accounting::snapshot::verdict::Verdict::fits),
            pods_placed: verdict.map(|verdict| verdict.placed.min(verdict.needed)),
            stopped_by,
            why: sentence,
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}
