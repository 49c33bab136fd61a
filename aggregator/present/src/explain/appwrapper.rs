//! One AppWrapper: what it requests, what it holds, and why it or some of its pods wait.
use mcad_accounting::resource::Resource;
use mcad_accounting::snapshot::verdict::Verdict;
use mcad_accounting::snapshot::{AppWrapperView, Part, Waiting};
use serde::Serialize;

use super::held::HeldGpus;
use super::kueue::OfKueue;
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
    /// Its priority or priority class. Empty if it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub priority: String,
    /// Its queue. Empty if it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub queue: String,
    /// The number of pods that it requests.
    pub pods: u64,
    /// The number of its pods that are bound to a node and have not failed. `None` if not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_bound: Option<u64>,
    /// The resources that it requests.
    pub requested: ByResource<i64>,
    /// The number of its quantities and templates that could not be parsed: it requests more than is shown.
    #[serde(skip_serializing_if = "is_zero")]
    pub unreadable: u32,
    /// Effective requests of its bound, unfinished pods. `None` if Pods are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated: Option<ByResource<i64>>,
    /// What its pods use. Empty if not all of them are measured.
    #[serde(skip_serializing_if = "ByResource::is_empty")]
    pub used: ByResource<f64>,
    /// What its pods do with the GPUs that they hold. `None` if they hold none, or if no agent says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_gpus: Option<HeldGpus>,
    /// What Kueue has to do with it. `None` if nothing, or if queues are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kueue: Option<OfKueue>,
    /// Why it waits. `None` if it does not wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waits>,
    /// Set if it was started and some of its pods have no node. `None` if all pods have one, or if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placed_in_part: Option<PlacedInPart>,
}

/// Why pods of an AppWrapper that was started have no node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlacedInPart {
    /// The number of pods without a node.
    pub pods_unbound: u64,
    /// Whether real nodes have room for all these pods. `None` if not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fits_nodes: Option<bool>,
    /// Why that is not known: a reason of `mcad_appwrapper_fit_unknown`. `None` if it is known or not yet tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fit_unknown: Option<&'static str>,
    /// How many of these pods find a place. `None` if not yet tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_placed: Option<u64>,
    /// The constraints that are known to stop these pods.
    pub stopped_by: Vec<StoppedBy>,
    /// The same as a sentence.
    pub why: String,
}

/// Since when and why an AppWrapper waits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Waits {
    /// How long it has waited. `None` if the start is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Whether it fits the capacity that MCAD assumes to be available. `None` if Nodes or Pods are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fits_sum: Option<bool>,
    /// What exceeds that capacity. Empty if it fits, or if that is not known.
    #[serde(skip_serializing_if = "ByResource::is_empty")]
    pub shortfall: ByResource<i64>,
    /// Whether it fits real nodes. `None` if not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fits_nodes: Option<bool>,
    /// Why that is not known: a reason of `mcad_appwrapper_fit_unknown`. `None` if it is known or not yet tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fit_unknown: Option<&'static str>,
    /// How many pods must be placed at once. `None` if not yet tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_needed: Option<u64>,
    /// How many of these pods find a place. `None` if not yet tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_placed: Option<u64>,
    /// The constraints that are known to stop it.
    pub stopped_by: Vec<StoppedBy>,
    /// The same as a sentence.
    pub why: String,
}

impl AppWrapper {
    /// From a snapshot's view.
    pub fn new(view: &AppWrapperView, places: &mut Places<'_>) -> Self {
        let appwrapper = &view.appwrapper;
        let usage = view.used.unwrap_or_default();
        let used =
            [(Resource::Cpu, usage.nanocores), (Resource::Memory, usage.bytes), (Resource::Gpu, usage.nanodevices)];
        let used = used.into_iter().filter_map(|(resource, used)| {
            let used = in_unit(&resource, used?);
            Some((resource, used))
        });
        let kueue = OfKueue::new(view, places);
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
            held_gpus: places.snapshot().held.of(&appwrapper.name).map(HeldGpus::from),
            waiting: view.waiting.as_ref().map(|waiting| Waits::new(view, waiting, kueue.as_ref(), places)),
            placed_in_part: PlacedInPart::new(view, kueue.as_ref(), places),
            kueue,
        }
    }
}

impl Waits {
    fn new(view: &AppWrapperView, waiting: &Waiting, kueue: Option<&OfKueue>, places: &mut Places<'_>) -> Self {
        let Why { sentence, stopped_by } = places.why(view, waiting, kueue.and_then(OfKueue::waiting));
        let missing = waiting.shortfall.map(ByResource::<i64>::from).unwrap_or_default();
        let verdict = view.unplaced.as_ref().and_then(|unplaced| unplaced.verdict.as_ref());
        Self {
            seconds: waiting.seconds,
            fits_sum: waiting.fits_aggregate(),
            shortfall: missing.iter().filter(|(_, amount)| **amount > 0).map(|(r, amount)| (r, *amount)).collect(),
            fits_nodes: verdict.and_then(Verdict::fits),
            fit_unknown: verdict.and_then(|verdict| verdict.outcome.unknown()),
            pods_needed: verdict.map(|verdict| verdict.needed),
            pods_placed: verdict.map(|verdict| verdict.placed.min(verdict.needed)),
            stopped_by,
            why: sentence,
        }
    }
}

impl PlacedInPart {
    fn new(view: &AppWrapperView, kueue: Option<&OfKueue>, places: &mut Places<'_>) -> Option<Self> {
        let unplaced = view.unplaced.as_ref().filter(|unplaced| unplaced.part == Part::Rest)?;
        let Why { sentence, stopped_by } = places.why_in_part(view);
        let verdict = unplaced.verdict.as_ref();
        Some(Self {
            pods_unbound: unplaced.needed,
            fits_nodes: verdict.and_then(Verdict::fits),
            fit_unknown: verdict.and_then(|verdict| verdict.outcome.unknown()),
            pods_placed: verdict.map(|verdict| verdict.placed.min(verdict.needed)),
            stopped_by,
            why: kueue.and_then(|of| of.why.clone()).unwrap_or(sentence),
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde requires")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}
